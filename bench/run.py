#!/usr/bin/env python3
"""Side by side with the machine's limits and with nbdkit; prints ratios and writes JSON.

Method (docs/internals/performance.md): every row compares A with B in interleaved runs A B A B, at least
9 pairs. Its value is the median of the pairwise ratios; the interval is the narrowest one of sorted ratios
that holds the median with at least 95 %, whatever the distribution: of 9 the 2nd and the 8th (96 %). A row
passes if the median meets the bar and the interval excludes 1.25x the bar on the wrong side; if only the
interval fails it is "unproven".
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measure import Sample, Server, fio, histogram_slices, program  # noqa: E402

GIB = 1 << 30


def interval(values):
    """Median and the order-statistic interval of at least 95 % around it."""
    ordered = sorted(values)
    count = len(ordered)
    low = 0
    while low + 1 < count // 2 and 2 * sum(math.comb(count, k) for k in range(low + 2)) / 2**count <= 0.05:
        low += 1
    median = ordered[count // 2] if count % 2 else (ordered[count // 2 - 1] + ordered[count // 2]) / 2
    return median, ordered[low], ordered[count - 1 - low]


class Bench:
    def __init__(self, options):
        self.options = options
        self.build = pathlib.Path(options.build).resolve()
        self.tools = self.build / "src/tools"
        self.engine = self.build / "pfbd_fio.so"
        self.rows = []
        self.folders = []

    # --- where and what ---

    def folder(self, where):
        parent = "/dev/shm" if where == "tmpfs" else self.options.disk
        path = tempfile.mkdtemp(prefix="pureflash-bench.", dir=parent)
        self.folders.append(path)
        return path

    def raw(self, path, rw, depth, size, bs="4k", sync=None, seconds=None):
        """`sync`: "each" flushes after each write; "through" writes through the cache, at any depth."""
        arguments = ["--ioengine=io_uring", "--direct=1", f"--filename={path}", f"--rw={rw}", f"--bs={bs}",
                     f"--iodepth={depth}", f"--size={size}"]
        arguments += {"each": ["--fdatasync=1"], "through": ["--sync=dsync"], None: []}[sync]
        return fio(os.path.dirname(path), arguments, seconds or self.options.seconds)

    def ours(self, server, rw, depth, bs="4k", volume="bench", seconds=None, more=()):
        arguments = [f"--ioengine=external:{self.engine}", f"--volume={volume}", f"--conductor={server.conductor}",
                     f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}", *more]
        return fio(server.folder, arguments, seconds or self.options.seconds)

    def bare(self, path, rw, depth, size):
        seconds = self.options.seconds
        return program(os.path.dirname(path), [str(self.build / "bench/bare_pair"), "--file", path, "--size", str(size),
                       "--depth", str(depth), "--rw", rw, "--seconds", str(seconds), "--json"], seconds)

    def ping_pong(self, folder):
        seconds = max(1, self.options.seconds // 2)
        return program(folder, [str(self.build / "bench/ping_pong"), "--bytes", "4096", "--seconds", str(seconds),
                       "--json"], seconds)

    def nbdkit(self, path, rw, depth, size):
        socket = f"{path}.sock"
        server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "file", path], stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                if os.path.exists(socket):
                    break
                time.sleep(0.05)
            return fio(os.path.dirname(path), ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", f"--rw={rw}",
                       "--bs=4k", f"--iodepth={depth}", f"--size={size}"], self.options.seconds)
        finally:
            server.terminate()
            server.wait()
            if os.path.exists(socket):
                os.unlink(socket)

    # --- rows ---

    def compare(self, name, bar, at_most, ours, baseline, value, pairs=None):
        """`value(a, b)` is the pair's ratio; at_most: it has to be <= bar, else >= bar."""
        if self.options.only and self.options.only not in name:
            return
        ratios, ours_samples, base_samples = [], [], []
        for _ in range(pairs or self.options.pairs):
            a, b = ours(), baseline()
            ours_samples.append(a)
            base_samples.append(b)
            ratios.append(value(a, b))
        median, low, high = interval(ratios)
        if at_most:
            met, proven = median <= bar, high < bar * 1.25
        else:
            met, proven = median >= bar, low > bar / 1.25
        state = "pass" if met and proven else "unproven" if met else "open"
        self.add(name, f"{'<=' if at_most else '>='} {bar}", f"{median:.2f}", f"{low:.2f}..{high:.2f}", state,
                 ratios=ratios, ours=[vars(s) for s in ours_samples],
                 base=[vars(s) if isinstance(s, Sample) else [vars(p) for p in s] for s in base_samples])

    def add(self, name, bar, value, spread, state, **details):
        self.rows.append(dict(name=name, bar=bar, value=value, interval=spread, state=state, **details))
        print(f"{name:66} {bar:>10} {value:>9} {spread:>14} {state}", flush=True)

    def run(self):
        print(f"{'what':66} {'must':>10} {'median':>9} {'>= 95 %':>14} state", flush=True)
        for where in ("tmpfs", "disk"):
            if self.options.where in ("both", where):
                self.run_on(where)
        if self.options.where in ("both", "disk"):
            self.large_volume()

    def run_on(self, where):
        size = 4 * GIB if where == "tmpfs" else 8 * GIB
        volume_size = size // 4
        folder = self.folder(where)
        raw_file = f"{folder}/raw"
        self.fill(raw_file, volume_size)
        server = Server(self.tools, f"{folder}/data", size, self.options.port_base)
        server.start()
        try:
            server.cli("volume", "create", "bench", "--size", str(volume_size))
            self.precondition(server, size // volume_size)
            if where == "tmpfs":
                self.check_road(raw_file, volume_size)
            self.sequential(where, server, raw_file, volume_size)
            self.latency(where, server, raw_file, volume_size)
            if where == "tmpfs":
                self.throughput(server, raw_file, volume_size)
            else:
                self.saturation(server)
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def fill(self, path, size):
        subprocess.run(["fio", "--name=fill", f"--filename={path}", "--rw=write", "--bs=1M", f"--size={size}",
                        "--direct=1", "--ioengine=io_uring", "--iodepth=8", "--end_fsync=1"],
                       check=True, stdout=subprocess.DEVNULL, timeout=600)

    def precondition(self, server, times):
        """Writes the volume over until every block of the tray's file was written once, as the raw file's were."""
        subprocess.run(["fio", "--name=fill", f"--ioengine=external:{self.engine}", "--volume=bench",
                        f"--conductor={server.conductor}", "--rw=write", "--bs=1M", "--iodepth=16", "--thread=1",
                        f"--loops={times + 1}"], check=True, stdout=subprocess.DEVNULL, timeout=900)

    def check_road(self, raw_file, size):
        """The run is void unless the bare pair does >= 0.8x raw fio on tmpfs at depth 128."""
        ratios = [self.bare(raw_file, "read", 128, size).iops / self.raw(raw_file, "randread", 128, size).iops
                  for _ in range(3)]
        ratio = sorted(ratios)[1]
        self.add("valid run: bare pair vs raw, tmpfs, read, depth 128", ">= 0.8", f"{ratio:.2f}", "", "pass" if ratio >= 0.8 else "VOID")

    def latency(self, where, server, raw_file, size):
        for rw, bar in (("randwrite", 1.4), ("randread", 1.3)):
            self.compare(
                f"{rw}, depth 1, p50, {where}: ours / (raw + ping-pong)", bar, True,
                lambda rw=rw: self.ours(server, rw, 1),
                lambda rw=rw: (self.raw(raw_file, rw, 1, size, sync="each" if rw == "randwrite" else None), self.ping_pong(os.path.dirname(raw_file))),
                lambda a, b: a.p50_us / (b[0].p50_us + b[0].sync_p50_us + b[1].p50_us))

    def throughput(self, server, raw_file, size):
        for rw, share in (("read", 0.5), ("write", 0.4)):
            self.compare(f"rand{rw}, depth 128, tmpfs, IOPS: ours / bare pair", share, False,
                         lambda rw=rw: self.ours(server, f"rand{rw}", 128),
                         lambda rw=rw: self.bare(raw_file, rw, 128, size), lambda a, b: a.iops / b.iops)
            self.compare(f"rand{rw}, depth 128, tmpfs, IOPS: ours / nbdkit", 2.0, False,
                         lambda rw=rw: self.ours(server, f"rand{rw}", 128),
                         lambda rw=rw: self.nbdkit(raw_file, f"rand{rw}", 128, size), lambda a, b: a.iops / b.iops)
        self.compare("randread, depth 128, tmpfs, CPU per I/O: ours / bare pair", 2.5, True,
                     lambda: self.ours(server, "randread", 128), lambda: self.bare(raw_file, "read", 128, size),
                     lambda a, b: a.cpu_us_per_io / b.cpu_us_per_io)

    def saturation(self, server):
        for rw in ("randread", "randwrite"):
            samples = [self.ours(server, rw, 128) for _ in range(self.options.pairs)]
            median, low, high = interval([max(s.device_busy, s.core_busy_max) for s in samples])
            self.add(f"{rw}, depth 128, disk: device or a CPU busy", ">= 0.9", f"{median:.2f}", f"{low:.2f}..{high:.2f}",
                     "pass" if median >= 0.9 else "open", ours=[vars(s) for s in samples])

    def sequential(self, where, server, raw_file, size):
        for rw in ("write", "read"):
            self.compare(f"sequential 1 MiB {rw}, depth 8, {where}: ours / raw or loopback", 0.6, False,
                         lambda rw=rw: self.ours(server, rw, 8, bs="1M"),
                         lambda rw=rw: (self.raw(raw_file, rw, 8, size, bs="1M", sync="through" if rw == "write" else None), self.loopback()),
                         lambda a, b: a.bytes_per_s / min(b[0].bytes_per_s, b[1].bytes_per_s))

    def loopback(self):
        """One loopback TCP stream with 1 MiB messages: the limit of whoever sends bytes."""
        seconds = self.options.seconds
        return program("/dev/shm", [str(self.build / "bench/ping_pong"), "--stream", "--bytes", str(1 << 20),
                       "--seconds", str(seconds), "--json"], seconds)

    def large_volume(self):
        """Write amplification, memory, checkpoints and restart on 16 GiB of random 4 KiB blocks."""
        if self.options.only and self.options.only != "large":
            return
        folder = self.folder("disk")
        server = Server(self.tools, f"{folder}/data", 40 * GIB, self.options.port_base)
        server.start()
        try:
            server.cli("volume", "create", "large", "--size", str(16 * GIB))
            more = [f"--size={16 * GIB}", "--norandommap=0"]
            self.fill_random(server)
            memory = server.memory_bytes()
            limit = 256 * (1 << 20) + 2 * GIB * (16 * GIB) // (1 << 40)
            self.add("server memory with 16 GiB of random 4 KiB blocks, MiB", f"<= {limit >> 20}", f"{memory >> 20}", "",
                     "pass" if memory <= limit else "open")
            self.amplification(server, more)
            self.checkpoint_latency(server)
            self.restart(server)
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def fill_random(self, server):
        subprocess.run(["fio", "--name=fill", f"--ioengine=external:{self.engine}", "--volume=large",
                        f"--conductor={server.conductor}", "--rw=randwrite", "--bs=4k", "--iodepth=128", "--thread=1"],
                       check=True, stdout=subprocess.DEVNULL, timeout=1800)

    def amplification(self, server, more):
        checkpoints, written, user = server.metrics()["pureflash_tray_checkpoints_total"], server.written_bytes(), 0
        for _ in range(60):
            sample = self.ours(server, "randwrite", 32, volume="large", seconds=5, more=more)
            user += sample.bytes_per_s * 5
            if server.metrics()["pureflash_tray_checkpoints_total"] >= checkpoints + 3:
                break
        done = server.metrics()["pureflash_tray_checkpoints_total"] - checkpoints
        ratio = (server.written_bytes() - written) / user
        self.add(f"device bytes per user byte, random 4 KiB over 16 GiB, {done:.0f} checkpoints", "<= 1.15", f"{ratio:.3f}", "",
                 "pass" if ratio <= 1.15 and done >= 3 else "open")

    def checkpoint_latency(self, server):
        """p99 of slices of one long run that lie in a checkpoint against slices far from any, same load."""
        slices = histogram_slices(
            server.folder, [f"--ioengine=external:{self.engine}", "--volume=large", f"--conductor={server.conductor}",
                            "--rw=randrw", "--rwmixread=30", "--bs=4k", "--iodepth=128"], 150,
            lambda: server.metrics()["pureflash_tray_checkpoint_seconds_total"])
        for direction in ("read", "write"):
            during = [s.p99_us for s in slices if s.direction == direction and s.share > 0.9]
            without = [s.p99_us for s in slices if s.direction == direction and s.distance > 5]
            name = f"p99 of {direction}s during a checkpoint / without ({len(during)} slices of 0.1 s)"
            if min(len(during), len(without)) < 9:
                self.add(name, "<= 2", "-", f"{len(without)} without", "unproven")
                continue
            base = sorted(without)[len(without) // 2]
            median, low, high = interval([value / base for value in during])
            self.add(name, "<= 2", f"{median:.2f}", f"{low:.2f}..{high:.2f}",
                     "pass" if median <= 2 and high < 2.5 else "unproven" if median <= 2 else "open")

    def restart(self, server):
        """Kill with the log as full as it gets, when the next checkpoint begins; seconds per GiB of log until it
        serves. The median of three."""
        starts = []
        for _ in range(3):
            used = self.kill_with_full_log(server)
            seconds = server.start()
            starts.append((seconds / (used / GIB), f"{used / (1 << 20):.0f} MiB in {seconds:.2f} s"))
        per_gib = sorted(starts)[1][0]
        self.add(f"start after SIGKILL, {', '.join(text for _, text in starts)}: s per GiB", "<= 5", f"{per_gib:.2f}", "",
                 "pass" if per_gib <= 5 else "open")

    def kill_with_full_log(self, server):
        """Gives the bytes of log there were."""
        load = subprocess.Popen(
            ["fio", "--name=load", "--thread=1", f"--ioengine=external:{self.engine}", "--volume=large",
             f"--conductor={server.conductor}", "--rw=randwrite", "--bs=4k", "--iodepth=128", "--norandommap",
             "--randrepeat=0", "--time_based", "--runtime=600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            used = self.wait_for_full_log(server)
            server.kill()
        finally:
            load.kill()
            load.wait()
        return used

    def wait_for_full_log(self, server):
        """A checkpoint gives log space back when it ends, and not before: while it runs the log is fullest."""
        busy = "pureflash_tray_checkpoint_seconds_total"
        after = server.metrics()
        for _ in range(20000):
            before, after = after, server.metrics()
            used = after["pureflash_tray_log_used_bytes"]
            if used > 64 << 20 and after[busy] > before[busy]:
                return used
            time.sleep(0.02)
        raise RuntimeError("no checkpoint began within 400 s")

    def cleanup(self):
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3, help="of one run")
    parser.add_argument("--where", choices=("both", "tmpfs", "disk"), default="both")
    parser.add_argument("--disk", default="/var/tmp", help="folder on the disk to measure")
    parser.add_argument("--only", help="rows whose name contains this; 'large' for the 16 GiB part")
    parser.add_argument("--port-base", type=int, default=49360)
    parser.add_argument("--json", default="build/bench.json")
    options = parser.parse_args()
    bench = Bench(options)
    try:
        bench.run()
    finally:
        bench.cleanup()
        pathlib.Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(options.json).write_text(json.dumps(bench.rows, indent=1), encoding="utf-8")
    return 0 if all(row["state"] in ("pass", "unproven") for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
