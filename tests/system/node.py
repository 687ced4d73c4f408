"""A one-node cluster for a test: `pureflash serve` on a temporary folder, ended with the test."""
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time


def free_port_base():
    """A base whose ports a node uses are free now, below the range of outgoing connections."""
    first = 20000 + (os.getpid() * 37) % 9000
    for base in range(first, first + 2000, 40):
        try:
            for offset in (2, 20, 21, 22):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
    raise RuntimeError("no free ports")


class Node:
    def __init__(self, tools):
        self.tools = pathlib.Path(tools)
        self.data = tempfile.mkdtemp(prefix="pf_node_")
        self.base = free_port_base()
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.data)

    @property
    def conductor(self):
        return f"127.0.0.1:{self.base + 20}"

    def start(self):
        command = [self.tools / "pureflash", "serve", "--data", self.data, "--trays", "1",
                   "--tray-size", "2G", "--port-base", str(self.base)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if readable else ""
        assert line == f"ready conductor={self.conductor}\n", f"the server said {line!r}"

    def stop(self):
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0, "not a clean stop"
        return time.monotonic() - begin

    def kill(self):
        self.process.kill()
        self.process.wait()
