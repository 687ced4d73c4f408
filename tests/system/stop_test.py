#!/usr/bin/env python3
"""Goal: what a person or systemd ends does end, soon, also when what it waits for never comes. Method: pipes
that nobody fills or empties, and a server that is stopped (SIGSTOP) with I/O under way. Usage: BUILD"""
import os
import signal
import subprocess
import sys
import time
import unittest

from cluster import Cluster

BUILD = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release"


def end(process, number, within_s):
    """Sends the signal; status and stderr."""
    begin = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=within_s)
    return process.returncode, said, time.monotonic() - begin


class Stop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(BUILD)
        cls.cluster.start()
        cls.cluster.cli("volume", "create", "v", "--size", "1G")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None)

    def start(self, tool, *arguments, **pipes):
        environment = dict(os.environ, PF_CONDUCTOR=self.cluster.conductor)
        return subprocess.Popen([f"{self.cluster.tools}/{tool}", *arguments], env=environment, stderr=subprocess.PIPE,
                                text=True, **pipes)

    def test_pfdd_between_pipes_that_wait(self):
        source, fill = os.pipe()
        copy = self.start("pfdd", "of=pf:v", stdin=source)
        os.write(fill, b"x" * 4096)
        time.sleep(0.5)
        begin = time.monotonic()
        copy.send_signal(signal.SIGTERM)
        copy.wait(timeout=5)
        said = copy.stderr.read()
        copy.stderr.close()
        os.close(source)
        os.close(fill)
        self.assertLess(time.monotonic() - begin, 3)
        self.assertEqual(copy.returncode, 128 + signal.SIGTERM, said)
        self.assertIn("4096 bytes", said)

        empty, target = os.pipe()
        copy = self.start("pfdd", "if=/dev/zero", stdout=target)
        time.sleep(0.5)
        copy.send_signal(signal.SIGINT)
        copy.wait(timeout=5)
        said = copy.stderr.read()
        copy.stderr.close()
        os.close(empty)
        os.close(target)
        self.assertEqual(copy.returncode, 128 + signal.SIGINT, said)
        self.assertIn("copied", said)

    def test_with_a_store_that_is_away(self):
        socket = os.path.join(self.cluster.folder, "v.sock")
        nbd = self.start("pfbd", "nbd", "v", "--socket", socket, stdout=subprocess.PIPE)
        uri = nbd.stdout.readline().split()[1]
        client = subprocess.Popen(["nbdcopy", "--allocated", uri, "null:"], stderr=subprocess.DEVNULL)
        client.wait(timeout=60)
        copies = [self.start("pfdd", "if=/dev/zero", "of=pf:v", "bs=64K"),
                  self.start("pfdd", "if=pf:v", "of=/dev/null", "bs=4K", "iodepth=1"),
                  self.start("pfdd", "if=/dev/zero", "of=pf:v", "bs=64K")]
        time.sleep(0.3)
        self.cluster.server.send_signal(signal.SIGSTOP)
        try:
            image = os.path.join(self.cluster.folder, "image")
            with open(image, "wb") as file:
                file.write(b"y" * (8 << 20))
            client = subprocess.Popen(["nbdcopy", image, uri], stderr=subprocess.DEVNULL)
            time.sleep(1)
            self.assertIsNone(nbd.poll())
            for process in (nbd, *copies):
                self.assertIsNone(process.poll())
                process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(copies[2].poll())
            status, said, took = end(copies[2], signal.SIGINT, 2)   # the second signal
            self.assertEqual((status, said), (128 + signal.SIGINT, ""))
            for copy in copies[:2]:
                _, said = copy.communicate(timeout=15)
                self.assertEqual(copy.returncode, 128 + signal.SIGTERM, said)
                self.assertIn("given up", said)
                self.assertIn("copied", said)
            _, said = nbd.communicate(timeout=5)
            self.assertEqual(nbd.returncode, 1, said)
            self.assertIn("given up", said.splitlines()[-1])
            self.assertFalse(os.path.exists(socket))
        finally:
            self.cluster.server.send_signal(signal.SIGCONT)
            client.kill()
            client.wait()
            for process in (nbd, *copies):
                process.kill()
                process.wait()


if __name__ == "__main__":
    unittest.main(verbosity=2)
