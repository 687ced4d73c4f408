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


PATIENCE_S = 60    # for what takes 10 s at most where nothing else runs


def end(process, number):
    """Sends the signal; status and stderr."""
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


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
        process = subprocess.Popen([f"{self.cluster.tools}/{tool}", *arguments], env=environment,
                                   stderr=subprocess.PIPE, text=True, **pipes)

        def clean_up():
            if process.poll() is None:
                process.kill()
                process.wait()

        self.addCleanup(clean_up)
        return process

    def ends(self, copy, by, says):
        """Of a signal, in time, with its summary."""
        copy.send_signal(by)
        copy.wait(timeout=PATIENCE_S)
        said = copy.stderr.read()
        copy.stderr.close()
        self.assertEqual(copy.returncode, 128 + by, said)
        self.assertIn(says, said)

    def test_pfdd_between_pipes_that_wait(self):
        source, fill = os.pipe()
        copy = self.start("pfdd", "of=pf:v", stdin=source)
        os.write(fill, b"x" * 4096)
        time.sleep(0.5)
        self.ends(copy, signal.SIGTERM, "4096 bytes")
        os.close(source)
        os.close(fill)

        empty, target = os.pipe()
        copy = self.start("pfdd", "if=/dev/zero", stdout=target)
        time.sleep(0.5)
        self.ends(copy, signal.SIGINT, "copied")
        os.close(empty)
        os.close(target)

    def test_with_a_store_that_is_away(self):
        socket = os.path.join(self.cluster.folder, "v.sock")
        nbd = self.start("pfbd", "nbd", "v", "--socket", socket, stdout=subprocess.PIPE)
        uri = nbd.stdout.readline().split()[1]
        client = subprocess.Popen(["nbdcopy", "--allocated", uri, "null:"], stderr=subprocess.DEVNULL)
        client.wait(timeout=PATIENCE_S)
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
            status, said = end(copies[2], signal.SIGINT)   # the second signal
            self.assertEqual((status, said), (128 + signal.SIGINT, ""))
            for copy in copies[:2]:
                _, said = copy.communicate(timeout=PATIENCE_S)
                self.assertEqual(copy.returncode, 128 + signal.SIGTERM, said)
                self.assertIn("given up", said)
                self.assertIn("copied", said)
            _, said = nbd.communicate(timeout=PATIENCE_S)
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
