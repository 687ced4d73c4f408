#!/usr/bin/env python3
"""Goal: full is not dead (T8), as a user meets it. Method: a real server's tray is filled to ENOSPC; then what was
written before is read back, also after kill -9; a new client opens the volume, overwrites and discards; freed room
takes new writes; the volume is deleted and another one takes its place. Usage: BUILD_FOLDER"""
import errno
import json
import os
import subprocess
import sys
import time
import unittest

from cluster import Cluster
from pair import Pair
from pfbd import Library

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
MIB = 1 << 20


def block_of(index):
    return (index + 1).to_bytes(8, "little") * (MIB // 8)


class Full(unittest.TestCase):
    def fill(self, library, volume):
        """MiB that were written before there was no room."""
        for index in range(2048):
            status = library.write(volume, block_of(index), index * MIB)
            if status != 0:
                self.assertEqual(status, -errno.ENOSPC)
                return index
        self.fail("the tray does not get full")

    def check(self, library, volume, first, last):
        for index in range(first, last):
            status, found = library.read(volume, MIB, index * MIB)
            self.assertEqual(status, 0)
            self.assertEqual(found, block_of(index), f"MiB {index}")

    def discard(self, cluster, length):
        """By a client of its own, as fstrim would."""
        socket = os.path.join(cluster.folder, "nbd.sock")
        server = subprocess.Popen([f"{cluster.tools}/pfbd", "nbd", "vol", "--socket", socket],
                                  env=dict(os.environ, PF_CONDUCTOR=cluster.conductor), stdout=subprocess.PIPE, text=True)
        try:
            self.assertTrue(server.stdout.readline().startswith("ready "))
            subprocess.run(["qemu-io", "-f", "raw", "-c", f"discard 0 {length}", f"nbd+unix:///vol?socket={socket}"],
                           check=True, timeout=60, stdout=subprocess.DEVNULL)
        finally:
            server.terminate()
            server.wait(timeout=20)
            server.stdout.close()

    def test_full_is_not_dead(self):
        with Cluster(BUILD, tray_size="128M") as cluster:
            cluster.cli("volume", "create", "vol", "--size", "2G")
            library = Library(cluster.build, cluster.conductor)
            volume = library.open("vol")
            written = self.fill(library, volume)
            self.assertGreater(written, 64)
            # What is left is less than 1 MiB.
            small = [library.write(volume, b"x" * 4096, 1900 * MIB + block * 4096) for block in range(300)]
            self.assertEqual(small[-1], -errno.ENOSPC)
            self.check(library, volume, 0, written)
            cluster.kill()
            cluster.start()
            self.check(library, volume, 0, written)
            library.close(volume)
            library.destroy()

            library = Library(cluster.build, cluster.conductor)
            volume = library.open("vol")
            self.assertEqual(library.write(volume, block_of(0)[:4096], 0), 0, "overwrites go on")
            self.discard(cluster, 20 * MIB)
            end = time.monotonic() + 20
            while library.write(volume, block_of(1000), 1000 * MIB) == -errno.ENOSPC and time.monotonic() < end:
                time.sleep(0.05)
            for index in range(1001, 1015):
                self.assertEqual(library.write(volume, block_of(index), index * MIB), 0, f"{index} after the discard")
            self.check(library, volume, 20, written)
            self.check(library, volume, 1000, 1015)
            self.assertEqual(library.read(volume, MIB, 19 * MIB), (0, bytes(MIB)))
            library.close(volume)
            cluster.cli("volume", "delete", "vol", "--force")

            cluster.cli("volume", "create", "next", "--size", "2G")
            volume = library.open("next")
            for index in range(64):
                self.assertEqual(library.write(volume, block_of(index), index * MIB), 0, f"MiB {index} of the next volume")
            library.close(volume)
            library.destroy()
            cluster.stop()
            image = os.path.join(cluster.data, "tray0.img")
            subprocess.run([f"{cluster.tools}/pfinspect", image, "verify"], check=True, timeout=60,
                           stdout=subprocess.DEVNULL)

    def test_regression_full_metadata_says_where_and_is_logged_once(self):
        pair = Pair(f"{BUILD}/src/tools")
        self.addCleanup(pair.end)
        data = f"{pair.folder}/conductor"
        os.mkdir(data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", data], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", data], check=True)
        pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        pair.start_store()
        pair.add_tray(256 * MIB)
        pair.cli("volume", "create", "before", "--size", "64M")
        with open(f"{data}/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
        for _ in range(20):
            refused = pair.cli("volume", "create", "x" * 90, "--size", "64M", check=False)
            if refused.returncode != 0:
                break
            pair.cli("volume", "delete", "x" * 90, check=False)
        for text in ("make room there", f"{data}/"):
            self.assertIn(text, refused.stderr)
        for _ in range(5):
            pair.cli("volume", "create", "y" * 90, "--size", "64M", check=False)
        self.assertIn("make room there", json.loads(pair.cli("status").stdout)["message"])
        said = [line for line in pair.log().splitlines() if "make room there" in line and "metadata commit" in line]
        self.assertEqual(len(said), len(set(line.split(" ", 2)[2] for line in said)), said)
        os.unlink(f"{data}/filler")
        pair.cli("volume", "create", "after", "--size", "64M")
        self.assertEqual(json.loads(pair.cli("status").stdout)["health"], "ok")


if __name__ == "__main__":
    unittest.main(verbosity=2)
