#!/usr/bin/env python3
"""Goal: a store with several reactors is one store. Method: `pureflash serve` with 4 trays on 2 reactors as a real
process: I/O on all trays at once, connections on the reactor that owns the tray, trays that come and go, peers that
never finish their hello, kill -9 and SIGTERM under load. Every client checks each byte that was acknowledged."""
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

from cluster import Cluster
from pfbd import Library

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
# The library is loaded into Python: with a server built by a sanitizer it comes from another build.
CLIENT_BUILD = os.environ.get("PF_CLIENT_BUILD", BUILD)
VOLUMES = 4
BLOCK = 4096
BLOCKS = 2048  # of a volume; a shard has 512


def metrics(cluster):
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port('store_http')}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def by_reactor(cluster, name):
    values = metrics(cluster)
    return [values[f'pureflash_store_reactor_{name}{{reactor="{i}"}}'] for i in range(2)]


def tray_reactors(cluster):
    prefix = 'pureflash_tray_reactor{path="'
    return {name[len(prefix):-2]: int(value) for name, value in metrics(cluster).items() if name.startswith(prefix)}


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Writer(threading.Thread):
    """Writes blocks of a volume in turn, each round with another content, until told to stop."""

    def __init__(self, cluster, name):
        super().__init__(daemon=True)
        self.library = Library(CLIENT_BUILD, cluster.conductor)
        self.volume = self.library.open(name)
        self.number = 1 + int(name[-1])
        self.acknowledged = {}
        self.problem = None
        self.slowest = 0
        self.ending = threading.Event()

    def content(self, count):
        return (count * 16 + self.number).to_bytes(8, "little") * (BLOCK // 8)

    def run(self):
        count = 0
        while not self.ending.is_set() and self.problem is None:
            block = count * 97 % BLOCKS
            begin = time.monotonic()
            status = self.library.write(self.volume, self.content(count), block * BLOCK)
            self.slowest = max(self.slowest, time.monotonic() - begin)
            if status != 0:
                self.problem = f"write {count}: {status} {self.library.error()}"
            else:
                self.acknowledged[block] = count
                count += 1

    def finish(self):
        self.ending.set()
        self.join(timeout=60)
        assert not self.is_alive(), "a write did not end"
        assert self.problem is None, self.problem
        for block, count in self.acknowledged.items():
            status, data = self.library.read(self.volume, BLOCK, block * BLOCK)
            assert (status, data) == (0, self.content(count)), f"block {block}, write {count}: {status}"
        self.library.close(self.volume)
        self.library.destroy()
        return len(self.acknowledged)


class Reactors(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(BUILD, tray_size="256M")
        self.addCleanup(self.end)
        self.start("--trays", "4")
        for i in range(VOLUMES):
            self.cluster.cli("volume", "create", f"v{i}", "--size", "8M", "--shard-size", "2M")

    def end(self):
        died = self.cluster.server is not None and not self.cluster.alive()
        if self.cluster.server is not None and not died:
            self.cluster.stop(wait_s=30)
        with open(self.cluster.log_path, encoding="utf-8", errors="replace") as log:
            text = log.read()
        self.cluster.__exit__(RuntimeError if died else None)
        self.assertNotIn("ThreadSanitizer", text)
        self.assertNotIn("assertion", text.lower())

    def start(self, *more):
        self.cluster.start("--reactors", "2", *more)

    def writers(self):
        all_writers = [Writer(self.cluster, f"v{i}") for i in range(VOLUMES)]
        for writer in all_writers:
            writer.start()
        return all_writers

    def test_every_reactor_serves_its_trays(self):
        self.assertEqual(sorted(tray_reactors(self.cluster).values()), [0, 0, 1, 1])
        writers = self.writers()
        time.sleep(1)
        # 4 shards of each volume, spread over 4 trays: a connection for each, on both reactors.
        connections = by_reactor(self.cluster, "connections")
        self.assertEqual(sum(connections), 4 * VOLUMES)
        self.assertTrue(all(connections), connections)
        before = by_reactor(self.cluster, "commands_total")
        time.sleep(0.5)
        after = by_reactor(self.cluster, "commands_total")
        self.assertTrue(all(new > old for old, new in zip(before, after)), (before, after))
        for writer in writers:
            self.assertGreater(writer.finish(), 0)
        total = metrics(self.cluster)['pureflash_store_op_seconds_count{op="write"}']
        self.assertLessEqual(total, sum(by_reactor(self.cluster, "commands_total")))

    def test_hostile_peers_hold_up_nobody(self):
        # A volume of its own: two writers of one overwrite what the other remembers.
        self.cluster.cli("volume", "create", "v4", "--size", "8M", "--shard-size", "2M")
        writers = self.writers()
        peers = []
        for i in range(120):
            peer = socket.create_connection(("127.0.0.1", self.cluster.port("store")), timeout=10)
            peer.sendall((b"", b"PFLH", b"GET / HTTP/1.1\r\n\r\n", os.urandom(64))[i % 4])
            peers.append(peer)
        begin = time.monotonic()
        late = Writer(self.cluster, "v4")  # a handshake among those that never end
        late.start()
        time.sleep(1)
        self.assertGreater(late.finish(), 0)
        self.assertLess(time.monotonic() - begin, 4)
        for peer in peers:
            peer.settimeout(10)
            try:
                self.assertEqual(peer.recv(1), b"")  # within 5 s, without an answer
            except ConnectionResetError:
                pass
            peer.close()
        for writer in writers:
            writer.finish()
            self.assertLess(writer.slowest, 4)

    def test_trays_come_and_go_on_any_reactor(self):
        writers = self.writers()
        for _ in range(2):
            added = []
            for i in range(2):
                path = os.path.join(self.cluster.folder, f"more{i}.img")
                self.cluster.cli("tray", "add", path, "--size", "256M")
                added.append(path)
            reactors = tray_reactors(self.cluster)
            self.assertEqual({reactors[path] for path in added}, {0, 1})
            again = self.cluster.run("pfcli", "tray", "add", added[1])
            self.assertEqual(again.returncode, 1, "the same tray twice")
            copy = os.path.join(self.cluster.folder, "copy.img")
            os.system(f"cp --sparse=always {added[1]} {copy}")
            twin = self.cluster.run("pfcli", "tray", "add", copy)
            self.assertEqual(twin.returncode, 1, "a copy of a tray of any reactor")
            self.assertIn("is a copy of tray", twin.stderr)
            os.unlink(copy)
            for tray in json.loads(self.cluster.cli("-o", "json", "tray", "list")):
                if tray["path"] in added:
                    self.cluster.cli("tray", "remove", tray["uuid"])
            self.assertEqual(len(tray_reactors(self.cluster)), 4)
            for path in added:
                os.unlink(path)
        for writer in writers:
            writer.finish()

    def test_kill_and_stop_under_load(self):
        writers = self.writers()
        for kill in (True, False, True):
            time.sleep(1)
            if kill:
                self.cluster.kill()
            else:
                self.cluster.stop()
            self.start()
            self.assertEqual(sorted(tray_reactors(self.cluster).values()), [0, 0, 1, 1])
        time.sleep(0.5)
        for writer in writers:
            self.assertGreater(writer.finish(), 0)
        # Deleting reaches every reactor.
        for i in range(VOLUMES):
            self.cluster.cli("volume", "delete", f"v{i}", "--force")
        end = time.monotonic() + 20
        while metrics(self.cluster)["pureflash_store_shards"] > 0:
            self.assertLess(time.monotonic(), end, "shards are left")
            time.sleep(0.1)
        self.cluster.stop()

    def test_idle_reactors_sleep(self):
        with self.open_by_nbd("v0") as client:
            processes = [self.cluster.server.pid, client.pid]
            time.sleep(2)
            begin, before = time.monotonic(), [cpu_seconds(pid) for pid in processes]
            time.sleep(10)
            used = [cpu_seconds(pid) - then for pid, then in zip(processes, before)]
            # A busy machine makes the sleep longer, not what they use in a second of it.
            limit = 0.01 * (time.monotonic() - begin)
            shown = json.loads(self.cluster.cli("-o", "json", "volume", "show", "v0"))
            self.assertEqual((shown["open_handles"], sum(by_reactor(self.cluster, "connections"))), (1, 4))
        self.assertLessEqual(sum(used), limit, f"more than 1 % of a core: server and client used {used} s")

    @contextlib.contextmanager
    def open_by_nbd(self, name):
        """An NBD server on the volume, with a connection to each shard."""
        address, image = os.path.join(self.cluster.folder, "nbd"), os.path.join(self.cluster.folder, "image")
        server = subprocess.Popen([f"{self.cluster.tools}/pfbd", "nbd", name, "--socket", address, "--conductor",
                                   self.cluster.conductor], stdout=subprocess.PIPE, text=True)
        try:
            self.assertTrue(server.stdout.readline().startswith("ready "))
            with open(image, "wb") as file:
                file.write(os.urandom(BLOCK * BLOCKS))
            subprocess.run(["nbdcopy", image, f"nbd+unix:///{name}?socket={address}"], timeout=60, check=True)
            yield server
        finally:
            server.kill()
            server.wait()
            server.stdout.close()

    def test_health_names_a_tray_of_any_reactor(self):
        def health():
            try:
                url = f"http://127.0.0.1:{self.cluster.port('store_http')}/healthz"
                return urllib.request.urlopen(url, timeout=10).status, ""
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
        self.assertEqual(health(), (200, ""))
        trays = [tray["path"] for tray in json.loads(self.cluster.cli("-o", "json", "tray", "list"))]
        for path in trays[:2]:  # one on each reactor
            self.cluster.stop()
            with open(path, "r+b") as file:
                kept = file.read(BLOCK)
                file.seek(-BLOCK, os.SEEK_END)
                kept_last = file.read(BLOCK)
                for at, end in ((0, os.SEEK_SET), (-BLOCK, os.SEEK_END)):
                    file.seek(at, end)
                    file.write(b"\xa5" * BLOCK)
            self.start()
            status, text = health()
            self.assertEqual(status, 503)
            self.assertIn(path, text)
            self.cluster.stop()
            with open(path, "r+b") as file:
                file.write(kept)
                file.seek(-BLOCK, os.SEEK_END)
                file.write(kept_last)
            self.start()
            self.assertEqual(health(), (200, ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
