#!/usr/bin/env python3
"""Goal: bad input is refused with one clear line, and nothing changes. Method: a real one-node cluster, the
command line tools, libpfbd and raw sockets; after each refusal the state is compared with before."""
import contextlib
import ctypes
import errno
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

from cluster import OFFSETS, Cluster, free_port_base
from pfbd import Library

BUILD = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def hello(version_min=1, version_max=1, magic=b"PFLASH01", features=0):
    body = struct.pack("<8sHHBBHQQQ16sI", magic, version_min, version_max, 1, 0, 16, features, 0, 0, b"\0" * 16, 0)
    return body + struct.pack("<I", crc32c(body))


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(BUILD)
        cls.cluster.start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None)

    def volumes(self):
        return sorted((v["name"], v["size_bytes"]) for v in
                      json.loads(self.cluster.cli("-o", "json", "volume", "list")))

    def refused(self, tool, *arguments, says=()):
        """The tool fails with one line on stderr that has every text of `says`, and volumes stay as they are."""
        before = self.volumes()
        done = self.cluster.run(tool, *arguments)
        self.assertNotEqual(done.returncode, 0, f"{tool} {arguments} was accepted")
        self.assertLess(done.returncode, 128, f"{tool} {arguments} died: {done.stderr}")
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, f"{tool} {arguments} said: {done.stderr!r}")
        for text in says:
            self.assertIn(text, lines[0])
        self.assertEqual(self.volumes(), before)
        return lines[0]

    # --- volumes ---

    def test_sizes(self):
        for size in ("0", "-4096", "-1G", "4097", "1000", "2P", "1125899906846976K", "99999999999999999999999", "1X", "",
                     "18446744073709551616"):
            self.refused("pfcli", "volume", "create", "bad-size", f"--size={size}")

    def test_names(self):
        for name in ("", "a" * 97, "a/b", "a@b", "a:b", "a\tb", "a\x01b", "a\x7fb"):
            self.refused("pfcli", "volume", "create", name, "--size", "1G")

    def test_names_that_are_not_utf8(self):
        """At every edge, and protobuf, which would change them, is not even asked."""
        for name in (b"caf\xe9", b"a\xc2\x85b"):
            self.refused("pfcli", "volume", "create", name, "--size", "1G", says=["the volume name"])
            self.refused("pfcli", "volume", "delete", name, says=["the volume name"])
            self.refused("pfdd", "if=/dev/zero", b"of=pf:" + name, "count=1", says=["the volume name"])
            self.refused("pfbd", "nbd", name, "--socket", os.path.join(self.cluster.folder, "name.sock"),
                         says=["the volume name"])
            with socket.create_connection(("127.0.0.1", self.cluster.port("http")), timeout=5) as peer:
                body = b'{"size_bytes": 4096, "name": "' + name + b'"}'
                peer.sendall(b"POST /v1/volumes HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                             % len(body) + body)
                self.assertIn(b" 400 ", peer.recv(4096).split(b"\r\n")[0])
        library = Library(self.cluster.build, self.cluster.conductor)
        for call in ("create", "delete", "resize", "exists"):
            function = getattr(library.lib, f"pfbd_volume_{call}")
            more = {"create": [ctypes.c_uint64(4096), 1], "delete": [0], "resize": [ctypes.c_uint64(4096)],
                    "exists": []}[call]
            self.assertEqual(function(library.context, b"caf\xe9", *more), -errno.EINVAL, call)
            self.assertIn("the volume name is not UTF-8", library.error())
        library.destroy()
        with open(self.cluster.log_path, encoding="utf-8") as log:
            self.assertNotIn("libprotobuf", log.read())

    def test_duplicate_shrink_unknown(self):
        self.cluster.cli("volume", "create", "twice", "--size", "64M")
        self.refused("pfcli", "volume", "create", "twice", "--size", "64M", says=["twice"])
        self.refused("pfcli", "volume", "resize", "twice", "--size", "32M", says=["twice"])
        self.refused("pfcli", "volume", "rename", "twice", "a/b")
        self.cluster.cli("volume", "create", "other", "--size", "64M")
        self.refused("pfcli", "volume", "rename", "twice", "other", says=["other"])
        self.refused("pfcli", "volume", "show", "missing", says=["missing"])
        self.refused("pfcli", "volume", "delete", "missing", says=["missing"])
        self.refused("pfcli", "volume", "create", "three", "--size", "1G", "--replicas", "3", says=["3"])

    def test_delete_open_volume(self):
        self.cluster.cli("volume", "create", "busy", "--size", "64M")
        library = Library(self.cluster.build, self.cluster.conductor)
        volume = library.open("busy")
        self.assertEqual(library.write(volume, b"x" * 4096, 0), 0)
        self.refused("pfcli", "volume", "delete", "busy", says=["busy", "--force"])
        self.assertEqual(library.read(volume, 4096, 0), (0, b"x" * 4096))
        library.close(volume)
        library.destroy()
        self.cluster.cli("volume", "delete", "busy")

    # --- I/O ---

    def test_io_bounds(self):
        self.cluster.cli("volume", "create", "bounds", "--size", "1M")
        library = Library(self.cluster.build, self.cluster.conductor)
        volume = library.open("bounds")
        self.assertEqual(library.write(volume, b"a" * 4096, 0), 0)
        for length, offset, expected in ((0, 0, errno.EINVAL), (100, 0, errno.EINVAL), (512, 100, errno.EINVAL),
                                         (512, MIB, errno.ERANGE), (4096, MIB - 512, errno.ERANGE),
                                         (512, (1 << 64) - 512, errno.ERANGE), (MIB * 2, 0, errno.ERANGE)):
            self.assertEqual(library.read(volume, length, offset)[0], -expected, f"read {length} at {offset}")
            self.assertEqual(library.write(volume, b"b" * length, offset), -expected, f"write {length} at {offset}")
        self.assertEqual(library.read(volume, 4096, 0), (0, b"a" * 4096))
        library.close(volume)
        read_only = library.open("bounds", 1)
        self.assertEqual(library.write(read_only, b"c" * 512, 0), -errno.EROFS)
        library.close(read_only)
        with self.assertRaises(OSError):
            library.open("missing")
        library.destroy()

    def test_pfdd_makes_no_file_for_what_it_refuses(self):
        self.cluster.cli("volume", "create", "short", "--size", "1M")
        target = os.path.join(self.cluster.folder, "not-made")
        for wrong in ("skip=17", "count=", "iodepth=0"):
            self.refused("pfdd", "if=pf:short", f"of={target}", wrong)
            self.assertFalse(os.path.exists(target), f"{wrong} left a file behind")

    def test_regression_pfdd_and_block_devices(self):
        """As a standard stream a device was left at its end: an empty backup, and success. With conv=sparse
        what was under a hole stayed."""
        self.cluster.cli("volume", "create", "disk", "--size", "1M")
        image = os.path.join(self.cluster.folder, "disk.img")
        old = random.Random(9).randbytes(MIB)
        with open(image, "wb") as file:
            file.write(old)
        loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True).stdout.strip()
        pfdd = [f"{self.cluster.tools}/pfdd", f"--conductor={self.cluster.conductor}", "status=none", "bs=64K"]

        def volume(more=()):
            return subprocess.run([*pfdd, "if=pf:disk", *more], capture_output=True, timeout=60, check=True).stdout

        def device():
            with open(loop, "rb") as file:
                return file.read()
        try:
            with open(loop, "rb") as stream:
                subprocess.run([*pfdd, "of=pf:disk"], stdin=stream, timeout=60, check=True)
            self.assertEqual(volume(), old, "the whole device")
            with open(loop, "rb", buffering=0) as stream:
                stream.seek(65536)
                subprocess.run([*pfdd, "of=pf:disk", "skip=1"], stdin=stream, timeout=60, check=True)
            self.assertEqual(volume(["count=14"]), old[2 * 65536:], "what is left from where the stream stands")
            with open(loop, "r+b", buffering=0) as stream:
                stream.seek(65536)
                subprocess.run([*pfdd, "if=pf:disk", "count=2"], stdout=stream, timeout=60, check=True)
            self.assertEqual(device(), old[:65536] + old[2 * 65536:4 * 65536] + old[3 * 65536:], "into the middle")
            zeros = os.path.join(self.cluster.folder, "zeros")
            for sparse in (False, True):
                with open(zeros, "wb") as file:
                    file.truncate(MIB)
                    if not sparse:
                        file.write(bytes(MIB))
                with open(loop, "wb") as file:
                    file.write(old)
                subprocess.run([*pfdd, f"if={zeros}", f"of={loop}", "conv=sparse,fsync"], timeout=60, check=True)
                self.assertEqual(device(), bytes(MIB), f"old bytes under a hole; sparse source: {sparse}")
        finally:
            subprocess.run(["losetup", "-d", loop], check=True)

    # --- ports ---

    def test_garbage_on_every_port(self):
        rng = random.Random(7)
        for name in OFFSETS:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", self.cluster.port(name)), timeout=5) as peer:
                    peer.settimeout(0.2)
                    try:
                        peer.sendall(rng.randbytes(rng.randrange(1, 3000)))
                        peer.recv(4096)
                    except OSError:
                        pass
            with socket.create_connection(("127.0.0.1", self.cluster.port(name)), timeout=5) as peer:
                peer.sendall(hello()[:rng.randrange(1, 64)])   # truncated, then gone
        self.assertTrue(self.cluster.alive())
        self.cluster.cli("status")

    def test_hostile_messages_after_hello(self):
        rng = random.Random(8)
        for name in ("store", "rpc"):
            for _ in range(30):
                with socket.create_connection(("127.0.0.1", self.cluster.port(name)), timeout=5) as peer:
                    peer.settimeout(0.3)
                    try:
                        peer.sendall(hello())
                        peer.recv(64)
                        command = bytearray(rng.randbytes(60))
                        command[0], command[1] = rng.randrange(0, 16), 1
                        peer.sendall(bytes(command) + struct.pack("<I", crc32c(bytes(command))) + rng.randbytes(200))
                        peer.recv(4096)
                    except OSError:
                        pass
        self.assertTrue(self.cluster.alive())
        self.cluster.cli("status")

    def test_regression_silent_connections_do_not_stop_the_server(self):
        # Each has a receive under way, and together they took all the room there was for operations of a reactor.
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for name in ("store", "rpc"):
            with contextlib.ExitStack() as peers:
                peers.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
                resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
                cluster = peers.enter_context(Cluster(BUILD, tray_size="256M"))   # one tray, one reactor for data
                cluster.cli("volume", "create", "crowded", "--size", "16M")
                address = ("127.0.0.1", cluster.port(name))
                # The limit is 4096: room for the store or the conductor, and for the client.
                crowd = [peers.enter_context(socket.create_connection(address, timeout=20)) for _ in range(4093)]
                for peer in crowd:
                    peer.sendall(hello())
                for peer in crowd:
                    self.assertEqual(len(peer.recv(64, socket.MSG_WAITALL)), 64)
                for more in (["if=/dev/zero", "of=pf:crowded"], ["if=pf:crowded", "of=/dev/null"]):
                    done = cluster.run("pfdd", *more, "bs=1M", "count=16")
                    self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(json.loads(cluster.cli("-o", "json", "store", "list"))[0]["health"], "ok")

    def test_wrong_versions(self):
        for name in ("store", "rpc"):
            with socket.create_connection(("127.0.0.1", self.cluster.port(name)), timeout=5) as peer:
                peer.sendall(hello(77, 99))
                reply = peer.recv(64, socket.MSG_WAITALL)
                self.assertEqual(len(reply), 64)
                status, version = struct.unpack_from("<HH", reply, 8)
                self.assertEqual(status, 20)   # unsupported_version
                self.assertEqual(version, 1)   # the newest offered
                self.assertEqual(peer.recv(1), b"")

    # --- configuration and start ---

    def ends_at_once(self, command, says, status=1):
        """A daemon that refuses: one line on stderr, the status, and nothing that looks like success."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(done.returncode, status, f"{command}: {done.stderr}")
        self.assertEqual(done.stdout, "", command)
        self.assertEqual(done.stderr.count("\n"), 1, f"{command}: {done.stderr}")
        for text in says:
            self.assertIn(text, done.stderr, command)

    def test_config(self):
        data = os.path.join(self.cluster.folder, "refused-daemon")
        for tool, section, text, says in (
                ("pfs", "store", "slow_oi = '1s'", ["store.slow_oi", "did you mean 'store.slow_io'"]),
                ("pfconductor", "conductor", "htpp = 'x'", ["conductor.htpp", "did you mean 'conductor.http'"]),
                ("pfs", "store", "slow_io = '5'", ["store.slow_io", "'5'", "500ms"]),
                ("pfs", "store", "slow_io = [", ["line 3"]),
                ("pfs", "store", "buffers = '1K'", ["store.buffers = 1 KiB", "32 MiB"]),
                ("pfs", "store", "buffers = '100T'", ["store.buffers = 100 TiB", "64 GiB"]),
                ("pfs", "store", "reactors = 'many'", ["store.reactors", "'many'", "auto, or 1 to 64"]),
                ("pfs", "store", "listen = '1'", ["store.listen = '1'", "HOST:PORT"]),
                ("pfs", "store", "listen = '0.0.0.0:1'", ["0.0.0.0", "--insecure-listen"]),
                ("pfconductor", "conductor", "http = '0.0.0.0:1'", ["0.0.0.0", "--insecure-listen"]),
                ("pfs", "store", "write_cache = 'x'", ["store.write_cache", "'x'", "volatile"]),
                ("pfs", "store", "trays = ['a', 3]", ["store.trays", "list of texts"]),
                ("pfs", "stor", "", ["unknown", "'stor", "did you mean 'store"]),
                ("pfconductor", "log", "level = 'loud'", ["log.level", "'loud'", "debug"]),
                ("pfconductor", "conductor", "store_timeout = '0s'", ["conductor.store_timeout", "100ms"]),
                ("pfconductor", "conductor", "max_body = 0", ["conductor.max_body", "4 KiB"]),
                ("pfconductor", "conductor", "heartbeats_missed = 0", ["conductor.heartbeats_missed", "1 to 1000"]),
                ("pfconductor", "conductor", "heartbeat_interval = '1ms'", ["conductor.heartbeat_interval", "50ms"])):
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
                config.write(f"[{section}]\n{text}\n" if section in ("log", "stor") else
                             f"[{section}]\ndata = '{data}'\n{text}\n")
                config.flush()
                self.ends_at_once([f"{self.cluster.tools}/{tool}", "--config", config.name], says)
        for tool in ("pfs", "pfconductor"):
            program = f"{self.cluster.tools}/{tool}"
            self.ends_at_once([program, "--config", "/nonexistent.toml"], ["/nonexistent.toml"])
            self.ends_at_once([program, "--config", self.cluster.folder], [self.cluster.folder, "cannot be read"])
            self.ends_at_once([program, "--set", "novalue"], ["section.key=value", "novalue"])
            self.ends_at_once([program, "--set", "log.lvel=info"], ["log.lvel", "log.level"])
            self.ends_at_once([program, "--unknown"], ["--unknown", f"{tool} --help"], status=2)

    def serve(self, folder, *more, base=None):
        return [f"{self.cluster.tools}/pureflash", "serve", "--data", folder, "--port-base",
                str(base or free_port_base()), *more]

    def test_serve(self):
        folder = os.path.join(self.cluster.folder, "refused")
        for more, says in ((["--tray-size", "0"], ["--tray-size 0", "too small"]),
                           (["--tray-size", "1M"], ["--tray-size 1M", "too small", "1552 KiB"]),
                           (["--tray-size", ""], ["--tray-size", "''"]),
                           (["--tray", ""], ["--tray ''", "device or file"]),
                           (["--tray", "/dev/pureflash-typo"], ["/dev/pureflash-typo", "does not exist"]),
                           (["--write-cache", "x"], ["--write-cache", "'x'", "volatile"]),
                           (["--slow-io", "5"], ["--slow-io", "'5'", "500ms"]),
                           (["--slow-io", ""], ["--slow-io", "''", "500ms"]),
                           (["--reactors", "65"], ["--reactors", "65", "64"]),
                           (["--host", "127.1"], ["--host", "'127.1'", "IP address"]),
                           (["--tray-size", "20T"], ["--tray-size 20T", "16 TiB"]),
                           (["--tray-size", "big"], ["'big'", "10G"]),
                           (["--trays", "100"], ["--trays 100", "64"]),
                           (["--log-level", "loud"], ["--log-level", "'loud'", "debug"]),
                           (["--host", "0.0.0.0"], ["0.0.0.0", "--insecure-listen"])):
            self.ends_at_once(self.serve(folder, *more), says)
            self.assertFalse(os.path.exists(folder), f"{more} left something behind")
        file = os.path.join(self.cluster.folder, "a-file")
        with open(file, "w", encoding="utf-8"):
            pass
        for path in (file, "/proc/pureflash", ""):
            self.ends_at_once(self.serve(path), ["folder", f"'{path}'"])
        any_folder = os.path.join(self.cluster.folder, "any")   # an address for no client
        self.ends_at_once(self.serve(any_folder, "--host", "0.0.0.0", "--insecure-listen"),
                          ["0.0.0.0", "clients", "store.advertise"])
        self.assertFalse(os.path.exists(any_folder))
        with Cluster(BUILD, tray_size="1552K") as smallest:
            self.assertEqual(len(json.loads(smallest.cli("-o", "json", "tray", "list"))), 1)
        missing = os.path.join(self.cluster.folder, "missing.img")
        self.ends_at_once(self.serve(folder, "--tray", missing), [missing, "--tray-size"])
        self.ends_at_once(self.serve(folder, "--tray", "/dev/pureflash-typo", "--tray-size", "16M"),
                          ["/dev/pureflash-typo", "No such file"])
        self.assertFalse(os.path.exists(missing) or os.path.exists("/dev/pureflash-typo"))
        self.assertFalse(os.path.exists(folder))
        program = f"{self.cluster.tools}/pureflash"
        self.ends_at_once([program, "serve"], ["--data is required", "pureflash serve --help"], status=2)
        self.ends_at_once(self.serve(folder, base=70000), ["70000"], status=2)
        self.ends_at_once(self.serve(folder, base=65530), ["65530", "65513"])

    def test_serve_without_a_tray(self):
        folder = os.path.join(self.cluster.folder, "no-tray")
        self.ends_at_once(self.serve(folder, "--trays", "0"), ["--trays 0", "from 1 to 64"])
        self.assertFalse(os.path.exists(folder))

    def test_a_start_that_fails_keeps_the_links_of_others(self):
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, "conductor")
            os.symlink(os.path.join(folder, "not-mounted", "conductor"), link)
            self.ends_at_once(self.serve(folder, "--tray-size", "64M"), ["conductor"])
            self.assertTrue(os.path.islink(link))

    def test_daemons_on_ports_that_are_taken_make_no_folder(self):
        http = f"127.0.0.1:{self.cluster.port('http')}"
        with tempfile.TemporaryDirectory() as above:
            for daemon, setting, ports in (("pfs", "store", ("listen", "http")),
                                           ("pfconductor", "conductor", ("http", "rpc"))):
                folder = os.path.join(above, "not", "made")
                program = f"{self.cluster.tools}/{daemon}"
                for port in ports:
                    free = {each: f"--set={setting}.{each}=127.0.0.1:0" for each in ports if each != port}
                    self.ends_at_once([program, f"--set={setting}.data={folder}", f"--set={setting}.{port}={http}",
                                       *free.values()], [f"cannot listen on {http}", f"{setting}.{ports[0]}"])
                    self.assertEqual(os.listdir(above), [])
            self.ends_at_once([f"{self.cluster.tools}/pfs", f"--set=store.data={folder}", "--insecure-listen",
                               "--set=store.listen=0.0.0.0:0"], ["store.advertise"])
            for address in ("garbage", "localhost", "storage.example:49162"):   # clients look up no names
                self.ends_at_once([f"{self.cluster.tools}/pfs", f"--set=store.data={folder}",
                                   f"--set=store.advertise={address}"], ["store.advertise", address.split(":")[0]])
            self.assertEqual(os.listdir(above), [])

    def test_serve_on_ports_that_are_taken(self):
        for base in (self.cluster.base, self.cluster.base - 18, self.cluster.base + 18):
            with tempfile.TemporaryDirectory() as folder:
                self.ends_at_once(self.serve(folder, "--tray-size", "64M", base=base), ["cannot listen on 127.0.0.1"])
                self.assertEqual(os.listdir(folder), [])
        self.assertTrue(self.cluster.alive())

    def test_serve_refuses_trays_and_changes_nothing(self):
        """A good tray before the bad one stays blank too, and neither folder nor lock is left behind."""
        good = self.file_of("good.img", 64 * MIB)
        foreign = self.file_of("theirs.img", 64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", foreign], check=True)
        other_name = os.path.join(self.cluster.folder, "other-name.img")
        os.symlink(good, other_name)
        for bad, says in ((self.file_of("tiny.img", 64 * KIB), "too small"),
                          (foreign, f"'pfcli tray add {foreign} --force' formats it (already"),
                          (self.tray_paths()[0], "in use"), (self.cluster.folder, "neither a regular file"),
                          (other_name, "same tray"), (good, "same tray")):
            with open(bad, "rb") if os.path.isfile(bad) else contextlib.nullcontext() as file:
                before = file and file.read(MIB)
            folder = os.path.join(self.cluster.folder, "not", "made")
            new = os.path.join(self.cluster.folder, "new-tray.img")
            self.ends_at_once(self.serve(folder, "--tray-size", "64M", "--tray", new, "--tray", good, "--tray", bad),
                              [bad, says])
            self.assertFalse(os.path.exists(os.path.dirname(folder)) or os.path.exists(new), bad)
            with open(good, "rb") as file:
                self.assertEqual(file.read(MIB), bytes(MIB), f"{bad}: a tray was formatted all the same")
            if before and bad != self.tray_paths()[0]:
                with open(bad, "rb") as file:
                    self.assertEqual(file.read(MIB), before, bad)

    def test_a_start_that_fails_late_takes_back_what_it_made(self):
        # Two trays that fit into the filesystem one by one, not together.
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["mount", "-t", "ext4", "-o", "loop", self.small_filesystem(), folder], check=True)
            try:
                data = os.path.join(folder, "data")
                self.ends_at_once(self.serve(data, "--trays", "2", "--tray-size", "40M"), ["No space left"])
                self.assertFalse(os.path.exists(data))
                self.ends_at_once(self.serve(folder, "--trays", "2", "--tray-size", "40M"), ["No space left"])
                self.assertEqual(os.listdir(folder), ["lost+found"])
            finally:
                subprocess.run(["umount", folder], check=True)

    def small_filesystem(self):
        path = self.file_of("small-filesystem.img", 64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
        return path

    def test_second_server_on_the_same_folder(self):
        self.ends_at_once(self.serve(self.cluster.data), [self.cluster.data, "another process"])
        self.assertTrue(self.cluster.alive())

    # --- trays ---

    def tray_paths(self):
        return sorted(t["path"] for t in json.loads(self.cluster.cli("-o", "json", "tray", "list")))

    def refuse_tray(self, path, says=()):
        before = self.tray_paths()
        self.refused("pfcli", "tray", "add", path, says=says)
        self.assertEqual(self.tray_paths(), before)

    def file_of(self, name, size):
        path = os.path.join(self.cluster.folder, name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def test_tray_too_small(self):
        self.refuse_tray(self.file_of("small.img", 64 * KIB), says=["too small"])
        # One block too few: the figures do not look alike.
        self.refuse_tray(self.file_of("near.img", 1548 * KIB), says=["1548 KiB is too small", "is 1552 KiB"])

    def test_tray_file_too_small_or_where_no_file_belongs(self):
        path = os.path.join(self.cluster.folder, "new.img")
        for size, says in (("1M", "too small"), ("20T", "too large"), ("100M", "")):
            target = path if says else "/dev/pureflash-typo"
            self.refused("pfcli", "tray", "add", target, "--size", size, says=[says])
            self.assertFalse(os.path.exists(target), "a refused file was made")
        self.refused("pfcli", "tray", "add", "relative.img", says=["relative.img", "absolute"])
        self.refused("pfcli", "tray", "add", self.cluster.folder, says=[self.cluster.folder])
        self.refused("pfcli", "tray", "remove", "nonsense", says=["nonsense", "UUID"])

    def test_tray_in_use(self):
        self.refuse_tray(self.tray_paths()[0], says=["already"])
        with Cluster(BUILD, tray_size="256M") as other:
            path = os.path.join(other.data, "tray0.img")
            self.refuse_tray(path, says=[path])
            self.assertTrue(other.alive())

    def test_copy_of_a_tray(self):
        path = os.path.join(self.cluster.folder, "copy.img")
        subprocess.run(["cp", "--sparse=always", self.tray_paths()[0], path], check=True)
        with open(path, "rb") as file:
            before = file.read(MIB)
        self.refuse_tray(path, says=["copy", path])
        self.assertTrue(self.cluster.alive())
        with open(path, "rb") as file:
            self.assertEqual(file.read(MIB), before, "a refused disk was changed")

    def test_tray_with_foreign_data(self):
        path = self.file_of("foreign.img", 256 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
        with open(path, "rb") as file:
            before = file.read(MIB)
        self.refuse_tray(path, says=["foreign.img"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(MIB), before, "a refused disk was changed")

    def test_tray_of_another_cluster(self):
        with Cluster(BUILD, tray_size="256M") as other:
            other.stop()
            images = [os.path.join(root, f) for root, _, files in os.walk(other.data) for f in files if f.endswith(".img")]
            self.assertTrue(images)
            self.refuse_tray(images[0], says=["cluster"])

    def test_tray_mounted(self):
        path = self.file_of("mounted.img", 256 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
        loop = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=True).stdout.strip()
        point = tempfile.mkdtemp()
        try:
            self.refuse_tray(path, says=[loop])   # the file behind it
            subprocess.run(["mount", loop, point], check=True)
            try:
                self.refuse_tray(loop, says=["mounted"])
            finally:
                subprocess.run(["umount", point], check=True)
        finally:
            subprocess.run(["losetup", "-d", loop], check=True)
            os.rmdir(point)


class DamagedSuperblock(unittest.TestCase):
    """One copy damaged: used around, and said so. Both: refused, not formatted over."""

    def damage(self, path, offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * 4096)

    def test_copies(self):
        with Cluster(BUILD, tray_size="256M") as cluster:
            cluster.cli("volume", "create", "kept", "--size", "16M")
            library = Library(cluster.build, cluster.conductor)
            volume = library.open("kept")
            self.assertEqual(library.write(volume, b"k" * 8192, 0), 0)
            library.close(volume)
            library.destroy()
            cluster.stop()
            image = [os.path.join(root, f) for root, _, files in os.walk(cluster.data) for f in files
                     if f.endswith(".img")][0]

            self.damage(image, 0)
            cluster.start()
            with open(cluster.log_path, encoding="utf-8") as log:
                self.assertIn("superblock", log.read())
            library = Library(cluster.build, cluster.conductor)
            volume = library.open("kept")
            self.assertEqual(library.read(volume, 8192, 0), (0, b"k" * 8192))
            library.close(volume)
            library.destroy()
            cluster.cli("volume", "create", "second", "--size", "16M")   # repaired: it takes new ones
            cluster.stop()

            self.damage(image, 0)
            self.damage(image, os.path.getsize(image) - 4096)
            with open(image, "rb") as file:
                before = file.read(MIB)
            try:
                cluster.start(wait_s=10)
                ready = True
            except RuntimeError:
                ready = False
            with open(cluster.log_path, encoding="utf-8") as log:
                self.assertIn("both superblock", log.read().lower())
            if ready:   # serving without that tray is fine; serving it is not
                trays = json.loads(cluster.cli("-o", "json", "tray", "list"))
                self.assertTrue(all(t["health"] != "ok" for t in trays if t["path"] == image))
            refused = cluster.run("pfcli", "tray", "add", image)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("both superblock", refused.stderr)
            with open(image, "rb") as file:
                self.assertEqual(file.read(MIB), before, "a damaged tray was written to")
            cluster.cli("tray", "add", image, "--force")   # the operator insists
            trays = json.loads(cluster.cli("-o", "json", "tray", "list"))
            self.assertIn("ok", [tray["health"] for tray in trays if tray["path"] == image])


if __name__ == "__main__":
    unittest.main(verbosity=2)
