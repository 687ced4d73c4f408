"""pfconductor and pfs as two processes, for the system tests: free ports, a temporary folder, ended by pid."""
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from cluster import free_port_base


def wait_until(what, true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Pair:
    """pfconductor and pfs, each a process of its own."""

    def __init__(self, tools):
        self.tools = tools
        self.folder = tempfile.mkdtemp(prefix="pureflash-test.")
        self.base = free_port_base()
        self.conductor = f"127.0.0.1:{self.base + 20}"
        self.notify = os.path.join(self.folder, "notify")
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(self.notify)
        self.told.settimeout(20)
        self.processes = []

    def start(self, *command):
        log = open(os.path.join(self.folder, "log"), "a", encoding="utf-8")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, NOTIFY_SOCKET=self.notify))
        log.close()
        self.processes.append(process)
        return process

    def start_conductor(self):
        return self.start(f"{self.tools}/pfconductor", "--set", f"conductor.data={self.folder}/conductor",
                          "--set", f"conductor.http=127.0.0.1:{self.base + 20}",
                          "--set", f"conductor.rpc=127.0.0.1:{self.base + 22}")

    def start_store(self, *settings):
        more = [word for setting in settings for word in ("--set", setting)]
        return self.start(f"{self.tools}/pfs", "--set", f"store.data={self.folder}/store",
                          "--set", f"store.listen=127.0.0.1:{self.base + 2}",
                          "--set", f"store.http=127.0.0.1:{self.base + 21}",
                          "--set", f"store.conductor=127.0.0.1:{self.base + 22}", *more)

    def hears(self):
        return self.told.recv(256).decode()

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        assert self.hears() == "STOPPING=1"
        assert process.wait(timeout=25) == 0

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def add_tray(self, size):
        """Waits for the store and gives it a tray."""
        path = f"{self.folder}/tray.img"
        with open(path, "wb") as file:
            file.truncate(size)
        wait_until("the store is known", lambda: json.loads(self.cli("store", "list").stdout))
        self.cli("tray", "add", path)
        return path

    def cli(self, *arguments, check=True):
        return subprocess.run([f"{self.tools}/pfcli", "--conductor", self.conductor, "-o", "json", *arguments],
                              capture_output=True, text=True, timeout=60, check=check)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.told.close()
        shutil.rmtree(self.folder, ignore_errors=True)
