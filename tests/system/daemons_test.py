#!/usr/bin/env python3
"""Goal: the daemons behave as an operator expects of services. Method: pfconductor, pfs and pureflash as real
processes: what they tell systemd, a restart of the conductor alone under open volumes, trays on block devices,
the largest volume, offline inspection of damaged trays, and clients that come before the server."""
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from cluster import Cluster, free_port_base
from pair import Pair, wait_until
from pfbd import Library

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
TOOLS = os.path.join(BUILD, "src/tools")
MIB, GIB, PIB = 1 << 20, 1 << 30, 1 << 50


class TwoDaemons(unittest.TestCase):
    def setUp(self):
        self.pair = Pair(TOOLS)
        self.addCleanup(self.pair.end)

    def test_open_volumes_outlive_a_conductor_restart(self):
        pair = self.pair
        conductor = pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        store = pair.start_store()
        self.assertEqual(pair.hears(), "READY=1")
        pair.add_tray(GIB)
        pair.cli("volume", "create", "kept", "--size", "64M")
        library = Library(BUILD, pair.conductor)
        volume = library.open("kept")
        self.assertEqual(library.write(volume, b"before" + b"." * 4090, 0), 0)

        pair.stop(conductor)
        self.assertEqual(library.write(volume, b"without" + b"." * 4089, 4096), 0, "no conductor, no I/O")
        conductor = pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        self.assertEqual(library.write(volume, b"after" + b"." * 4091, 8192), 0)
        wait_until("volumes can be created again",
                   lambda: pair.cli("volume", "create", "new", "--size", "1M", check=False).returncode == 0)
        self.assertEqual(library.write(volume, b"later" + b"." * 4091, 12288), 0)
        library.close(volume)
        volume = library.open("kept")
        for number, word in enumerate((b"before", b"without", b"after", b"later")):
            status, data = library.read(volume, 4096, 4096 * number)
            self.assertEqual((status, data[:len(word)]), (0, word))
        library.close(volume)
        library.destroy()
        pair.stop(store)
        pair.stop(conductor)

    def test_regression_a_tray_stays_with_its_store(self):
        """Found by hand: a store that could not save a removal, and another one on the same host."""
        pair = self.pair
        conductor = pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        store = pair.start_store()
        self.assertEqual(pair.hears(), "READY=1")
        path = pair.add_tray(256 * MIB)
        pair.cli("volume", "create", "kept", "--size", "16M")

        def tray():
            return json.loads(pair.cli("tray", "list").stdout)[0]

        in_the_way = os.path.join(pair.folder, "store/trays.new")
        os.mkdir(in_the_way)
        for _ in range(2):
            refused = pair.cli("tray", "remove", tray()["uuid"], "--force", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("trays.new", refused.stderr)
        self.assertEqual(tray()["health"], "ok")
        os.rmdir(in_the_way)

        other = pair.start(f"{TOOLS}/pfs", "--set", f"store.data={pair.folder}/other",
                           "--set", f"store.listen=127.0.0.1:{pair.base + 3}",
                           "--set", f"store.http=127.0.0.1:{pair.base + 23}",
                           "--set", f"store.conductor=127.0.0.1:{pair.base + 22}")
        self.assertEqual(pair.hears(), "READY=1")
        wait_until("both stores are known", lambda: len(json.loads(pair.cli("store", "list").stdout)) == 2)
        pair.stop(store)
        refused = pair.cli("tray", "add", path, "--store", "2", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("belongs to store 1", refused.stderr)
        with open(os.path.join(pair.folder, "other/trays"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "")
        store = pair.start_store()
        self.assertEqual(pair.hears(), "READY=1")
        wait_until("the tray is back", lambda: tray()["health"] == "ok")
        self.assertEqual(json.loads(pair.cli("volume", "show", "kept").stdout)["health"], "ok")
        for process in (other, store, conductor):
            pair.stop(process)


class OneProcess(unittest.TestCase):
    def test_tells_systemd(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(f"{folder}/notify")
            told.settimeout(20)
            with open(f"{folder}/log", "w", encoding="utf-8") as log, subprocess.Popen(
                    [f"{TOOLS}/pureflash", "serve", "--data", f"{folder}/data", "--tray-size", "256M",
                     "--port-base", str(free_port_base())], stdout=log, stderr=log,
                    env=dict(os.environ, NOTIFY_SOCKET=f"{folder}/notify")) as server:
                try:
                    self.assertEqual(told.recv(256), b"READY=1")
                    with open(f"{folder}/log", encoding="utf-8") as lines:
                        self.assertIn("ready conductor=", lines.read())
                    server.send_signal(signal.SIGTERM)
                    self.assertEqual(told.recv(256), b"STOPPING=1")
                    self.assertEqual(server.wait(timeout=20), 0)
                finally:
                    if server.poll() is None:
                        server.kill()

    def test_the_largest_volume(self):
        with Cluster(BUILD, tray_size="1G") as cluster:
            cluster.cli("volume", "create", "huge", "--size", "1P")
            self.assertEqual(json.loads(cluster.cli("-o", "json", "volume", "show", "huge"))["size_bytes"], PIB)
            library = Library(cluster.build, cluster.conductor)
            volume = library.open("huge")
            self.assertEqual(library.write(volume, b"e" * 4096, PIB - 4096), 0)
            self.assertEqual(library.read(volume, 4096, PIB - 4096), (0, b"e" * 4096))
            self.assertEqual(library.read(volume, 4096, PIB // 2), (0, b"\0" * 4096))
            # More shards than a store takes connections, or this process may have files.
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
            for shard in range(0, PIB >> 36, 3):
                self.assertEqual(library.read(volume, 4096, shard << 36)[0], 0, f"shard {shard}")
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            library.close(volume)
            library.destroy()
            cluster.cli("volume", "delete", "huge")
            self.assertEqual(json.loads(cluster.cli("-o", "json", "volume", "list")), [])

    def test_a_client_that_comes_before_the_server(self):
        with Cluster(BUILD, tray_size="256M") as cluster:
            cluster.cli("volume", "create", "v", "--size", "16M")
            cluster.stop()
            library = Library(cluster.build, cluster.conductor)
            opened = []
            client = threading.Thread(target=lambda: opened.append(library.open("v")))
            client.start()
            time.sleep(1)
            self.assertEqual(opened, [])
            cluster.start()
            client.join(timeout=20)
            self.assertEqual(len(opened), 1, "the open did not wait for the server")
            self.assertEqual(library.write(opened[0], b"x" * 4096, 0), 0)
            library.close(opened[0])
            library.destroy()


class BlockDevice(unittest.TestCase):
    def test_a_tray_on_a_loop_device(self):
        with Cluster(BUILD) as cluster:
            cluster.stop()
            shutil.rmtree(cluster.data)
            image = os.path.join(cluster.folder, "disk.img")
            with open(image, "wb") as file:
                file.truncate(GIB)
            loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True,
                                  check=True).stdout.strip()
            try:
                cluster.tray_size = "1G"
                cluster.start("--tray", loop)
                trays = json.loads(cluster.cli("-o", "json", "tray", "list"))
                self.assertEqual([tray["path"] for tray in trays], [loop])
                with open(f"/sys/block/{os.path.basename(loop)}/queue/write_cache", encoding="utf-8") as mode:
                    self.assertEqual(trays[0]["volatile_cache"], mode.read().strip() != "write through")
                cluster.cli("volume", "create", "v", "--size", "64M")
                library = Library(cluster.build, cluster.conductor)
                volume = library.open("v")
                for block in range(64):
                    self.assertEqual(library.write(volume, bytes([block]) * 4096, block * 65536), 0)
                cluster.kill()
                cluster.start("--tray", loop)
                for block in range(64):
                    self.assertEqual(library.read(volume, 4096, block * 65536), (0, bytes([block]) * 4096))
                library.close(volume)
                library.destroy()
                cluster.stop()
                checked = subprocess.run([f"{TOOLS}/pfinspect", loop, "verify"], capture_output=True, text=True,
                                         check=False)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
            finally:
                if cluster.server is not None:
                    cluster.kill()
                subprocess.run(["losetup", "-d", loop], check=True)


    def test_freed_blocks_are_trimmed_if_asked_for(self):
        for discard in ("true", "false"):
            with self.subTest(discard=discard):
                self.delete_a_volume(discard)

    def delete_a_volume(self, discard):
        pair = Pair(TOOLS)
        self.addCleanup(pair.end)
        image = os.path.join(pair.folder, "disk.img")
        with open(image, "wb") as file:
            file.truncate(GIB)
        loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True,
                              check=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", loop], check=True)
        self.addCleanup(pair.end)  # first of all
        pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        store = pair.start_store(f"store.discard={discard}")
        self.assertEqual(pair.hears(), "READY=1")
        wait_until("the store is known", lambda: json.loads(pair.cli("store", "list").stdout))
        pair.cli("tray", "add", loop)
        pair.cli("volume", "create", "v", "--size", "64M")
        library = Library(BUILD, pair.conductor)
        volume = library.open("v")
        for at in range(0, 64 * MIB, MIB):
            self.assertEqual(library.write(volume, bytes([at // MIB + 1]) * MIB, at), 0)
        library.close(volume)
        library.destroy()
        used = os.stat(image).st_blocks * 512
        self.assertGreater(used, 64 * MIB)
        pair.cli("volume", "delete", "v")
        if discard == "true":
            wait_until("the blocks are trimmed", lambda: os.stat(image).st_blocks * 512 < used - 60 * MIB)
        pair.stop(store)
        if discard == "false":
            self.assertGreaterEqual(os.stat(image).st_blocks * 512, used)
        checked = subprocess.run([f"{TOOLS}/pfinspect", loop, "verify"], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


class Inspect(unittest.TestCase):
    def inspect(self, *arguments):
        return subprocess.run([f"{TOOLS}/pfinspect", *arguments], capture_output=True, text=True, timeout=60,
                              check=False)

    def test_exit_codes(self):
        marker = b"pfinspect-marker" * 256
        with Cluster(BUILD, tray_size="256M") as cluster:
            cluster.cli("volume", "create", "v", "--size", "16M")
            library = Library(cluster.build, cluster.conductor)
            volume = library.open("v")
            self.assertEqual(library.write(volume, marker, 4096), 0)
            library.close(volume)
            library.destroy()
            image = json.loads(cluster.cli("-o", "json", "tray", "list"))[0]["path"]
            busy = self.inspect(image, "verify")
            self.assertEqual(busy.returncode, 2, "a tray in use is not inspected")
            cluster.stop()
            for what in ("superblock", "log", "map", "verify"):
                done = self.inspect(image, what)
                self.assertEqual(done.returncode, 0, f"{what}: {done.stdout}{done.stderr}")
                self.assertTrue(done.stdout)
                json.loads(self.inspect(image, what, "-o", "json").stdout)
            with open(image, "r+b") as file:
                content = file.read()
                at = content.find(marker)
                self.assertGreater(at, 0)
                file.seek(at)
                file.write(b"P")
            done = self.inspect(image, "verify")
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn(str(at // 4096), done.stdout, "the damaged block is not named")
            with open(image, "r+b") as file:
                file.seek(at)
                file.write(b"p")
                file.seek(0)
                file.write(b"\xa5" * 4096)
            self.assertEqual(self.inspect(image, "superblock").returncode, 1)
            with open(image, "r+b") as file:
                file.seek(-4096, os.SEEK_END)
                file.write(b"\xa5" * 4096)
            self.assertEqual(self.inspect(image, "verify").returncode, 1)
        self.assertEqual(self.inspect("/nonexistent", "verify").returncode, 2)


class MovedTrays(unittest.TestCase):
    def test_regression_trays_are_taken_at_their_new_paths(self):
        """Found by hand: they were called copies of themselves, by `tray add` and by `serve`."""
        cluster = Cluster(BUILD, tray_size="256M")
        self.addCleanup(cluster.__exit__, None)
        cluster.start("--trays", "2")
        cluster.cli("volume", "create", "kept", "--size", "16M", "--shard-size", "8M")
        library = Library(BUILD, cluster.conductor)
        volume = library.open("kept")
        self.assertEqual(library.write(volume, b"0" * 4096, 0), 0)
        self.assertEqual(library.write(volume, b"1" * 4096, 8 * MIB), 0)
        library.close(volume)
        library.destroy()
        cluster.stop()
        cluster.data = os.path.join(cluster.folder, "moved")
        os.rename(os.path.join(cluster.folder, "data"), cluster.data)
        paths = [os.path.join(cluster.data, f"tray{i}.img") for i in range(2)]

        def trays():
            return {tray["path"]: tray["health"] for tray in json.loads(cluster.cli("-o", "json", "tray", "list"))}

        cluster.start()
        self.assertFalse(set(trays()) & set(paths))
        cluster.cli("tray", "add", paths[1])
        copy = os.path.join(cluster.folder, "copy.img")
        subprocess.run(["cp", "--sparse=always", paths[1], copy], check=True)
        refused = cluster.run("pfcli", "tray", "add", copy)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is a copy of tray", refused.stderr)
        cluster.stop()
        cluster.start("--trays", "2")
        self.assertEqual(trays(), {path: "ok" for path in paths})
        library = Library(BUILD, cluster.conductor)
        volume = library.open("kept")
        self.assertEqual(library.read(volume, 4096, 0), (0, b"0" * 4096))
        self.assertEqual(library.read(volume, 4096, 8 * MIB), (0, b"1" * 4096))
        library.close(volume)
        library.destroy()


if __name__ == "__main__":
    unittest.main(verbosity=2)
