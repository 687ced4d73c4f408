"""Runs one load and says what it cost: IOPS, latency, CPU of the whole machine, device and core use."""
import json
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Sample:
    iops: float = 0.0
    bytes_per_s: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    sync_p50_us: float = 0.0      # of the fdatasync after each write, where fio was asked for it
    cpu_us_per_io: float = 0.0
    device_busy: float = 0.0      # share of the time that the device had reads and writes, or a flush
    core_busy_max: float = 0.0    # of the busiest core
    extra: dict = field(default_factory=dict)


def _cpu_ticks():
    """{cpu name: (busy, all)} in clock ticks; "cpu" is the whole machine."""
    ticks = {}
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            fields = line.split()
            if not fields[0].startswith("cpu"):
                break
            values = [int(v) for v in fields[1:9]]
            idle = values[3] + values[4]
            ticks[fields[0]] = (sum(values) - idle, sum(values))
    return ticks


def _device_of(path):
    stat = os.stat(path)
    return os.major(stat.st_dev), os.minor(stat.st_dev)


def _device_ticks_ms(device):
    """Time with reads or writes, and time with flushes, which the kernel does not count among the former."""
    with open("/proc/diskstats", encoding="ascii") as stats:
        for line in stats:
            fields = line.split()
            if (int(fields[0]), int(fields[1])) == device:
                return int(fields[12]), int(fields[19])
    return 0, 0


class Watch:
    """Machine use while the `with` block runs."""

    def __init__(self, path):
        self.device = _device_of(path)

    def __enter__(self):
        self.cpu, self.time = _cpu_ticks(), time.monotonic()
        self.device_ms = _device_ticks_ms(self.device)
        return self

    def __exit__(self, *_):
        cpu = _cpu_ticks()
        seconds = time.monotonic() - self.time
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self.busy_s = (cpu["cpu"][0] - self.cpu["cpu"][0]) * tick_s
        shares = [(cpu[c][0] - self.cpu[c][0]) / max(1, cpu[c][1] - self.cpu[c][1])
                  for c in cpu if c != "cpu"]
        self.core_busy_max = max(shares)
        after_ms = _device_ticks_ms(self.device)
        # The time of flushes that overlap counts for each of them, so it may be too much of the truth; that of
        # reads and writes is too little, as it leaves the flushes out.
        self.device_busy = max(after - before for after, before in zip(after_ms, self.device_ms)) / 1000 / seconds


def fio(directory, arguments, seconds, ios_are=("read", "write")):
    """Runs fio with `arguments`, time-based, and gives a Sample of the sum of `ios_are`.

    Latency is the whole of it, from the submission: a submission to a virtual disk takes as long as the rest."""
    command = ["fio", "--name=bench", "--thread=1", "--output-format=json", "--time_based", "--lat_percentiles=1",
               f"--runtime={seconds}", "--norandommap", "--randrepeat=0", *arguments]
    # Device and core use come from the middle of the run, so that starting and ending do not dilute them.
    middle = {}

    def watch_middle():
        time.sleep(seconds * 0.25 + 0.3)
        with Watch(directory) as watch:
            time.sleep(seconds * 0.5)
        middle["watch"] = watch

    watcher = threading.Thread(target=watch_middle)
    watcher.start()
    with Watch(directory) as watch:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 5 + 120, check=False)
    watcher.join()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    sample = Sample(device_busy=middle["watch"].device_busy, core_busy_max=middle["watch"].core_busy_max)
    total = 0
    for direction in ios_are:
        part = job[direction]
        if part["total_ios"] == 0:
            continue
        total += part["total_ios"]
        sample.iops += part["iops"]
        sample.bytes_per_s += part["bw_bytes"]
        percentiles = part["lat_ns"]["percentile"]
        sample.p50_us = max(sample.p50_us, percentiles["50.000000"] / 1000)
        sample.p99_us = max(sample.p99_us, percentiles["99.000000"] / 1000)
    sync = job.get("sync", {}).get("lat_ns", {}).get("percentile", {})
    sample.sync_p50_us = sync.get("50.000000", 0) / 1000
    sample.cpu_us_per_io = watch.busy_s * 1e6 / max(1, total)
    return sample


def program(directory, command, seconds):
    """Runs one of our small programs that print a JSON object with iops, p50_us and ios."""
    with Watch(directory) as watch:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 5 + 60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    sample = Sample(iops=result["iops"], bytes_per_s=result.get("bytes_per_s", 0), p50_us=result["p50_us"], p99_us=result.get("p99_us", 0),
                    core_busy_max=watch.core_busy_max, device_busy=watch.device_busy)
    sample.cpu_us_per_io = watch.busy_s * 1e6 / max(1, result["ios"])
    return sample


@dataclass
class Slice:
    """A tenth of a second of a run: p99, and how a counter of busy seconds moved meanwhile."""
    direction: str
    p99_us: float
    share: float     # of the slice that the counter moved
    distance: int    # slices to the nearest one in which it moved at all


def _bin_ns(index):
    """The middle of fio's latency bin: 64 bins for each power of two from 128 ns on."""
    if index < 64:
        return index
    bits = (index >> 6) - 1
    return (1 << (bits + 6)) + ((index % 64) + 0.5) * (1 << bits)


def _p99_us(counts):
    left = sum(counts) * 0.99
    for index, count in enumerate(counts):
        left -= count
        if left <= 0:
            return _bin_ns(index) / 1000
    return 0.0


def histogram_slices(directory, arguments, seconds, busy_seconds):
    """Runs fio for `seconds`, and tells the p99 of each 100 ms and whether busy_seconds() grew in it."""
    slice_s = 0.1
    log = os.path.join(directory, "slices")
    command = ["fio", "--name=bench", "--thread=1", "--time_based", f"--runtime={seconds}", "--norandommap",
               "--randrepeat=0", f"--write_hist_log={log}", f"--log_hist_msec={int(slice_s * 1000)}",
               "--log_unix_epoch=1", *arguments]
    samples = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            samples.append((time.time(), busy_seconds()))
            time.sleep(0.02)
    if run.returncode != 0:
        raise RuntimeError(" ".join(map(str, command)))
    found = []
    with open(f"{log}_clat_hist.1.log", encoding="ascii") as lines:
        for line in lines:
            end_ms, direction, _, *counts = [int(v) for v in line.split(",")]
            if sum(counts) < 1000:
                continue
            end = end_ms / 1000
            inside = [busy for at, busy in samples if end - slice_s <= at <= end]
            moved = (inside[-1] - inside[0]) / slice_s * len(inside) / (len(inside) - 1) if len(inside) > 1 else 0.0
            found.append((end, Slice("write" if direction else "read", _p99_us(counts), moved, 1000)))
    os.unlink(f"{log}_clat_hist.1.log")
    moves = [end for end, each in found if each.share > 0]
    for end, each in found:
        each.distance = min((round(abs(end - at) / slice_s) for at in moves), default=1000)
    return [each for _, each in found]


class Server:
    """`pureflash serve` on a folder."""

    def __init__(self, tools, folder, tray_bytes, port_base):
        self.tools, self.folder, self.tray_bytes, self.port_base = tools, folder, tray_bytes, port_base
        self.conductor = f"127.0.0.1:{port_base + 20}"
        self.process = None

    def start(self):
        begin = time.monotonic()
        self.log = open(f"{self.folder}.log", "a", encoding="utf-8")
        self.process = subprocess.Popen(
            [f"{self.tools}/pureflash", "serve", "--data", self.folder, "--tray-size", str(self.tray_bytes),
             "--port-base", str(self.port_base)], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"the server did not get ready, see {self.folder}.log")
        return time.monotonic() - begin

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def cli(self, *arguments):
        return subprocess.run([f"{self.tools}/pfcli", "--conductor", self.conductor, *arguments],
                              capture_output=True, text=True, check=True, timeout=120).stdout

    def written_bytes(self):
        with open(f"/proc/{self.process.pid}/io", encoding="ascii") as io:
            return int(re.search(r"^write_bytes: (\d+)", io.read(), re.M).group(1))

    def memory_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"^VmRSS:\s+(\d+) kB", status.read(), re.M).group(1)) * 1024

    def metrics(self):
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port_base + 21}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                bare = name.split("{", 1)[0]
                values[bare] = values.get(bare, 0.0) + float(value)
        return values
