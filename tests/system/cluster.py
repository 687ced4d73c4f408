"""A one-node cluster for the system tests: real processes on free ports and a temporary folder, ended by
pid, every wait bounded."""
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

OFFSETS = {"store": 2, "http": 20, "store_http": 21, "rpc": 22}


def free_port_base():
    """A base whose five ports are free now."""
    for _ in range(200):
        base = random.randrange(20000, 32000, 32)
        with contextlib.ExitStack() as stack:
            try:
                for offset in OFFSETS.values():
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports")


class Cluster:
    def __init__(self, build, tray_size="2G", tools=None):
        self.build = os.path.realpath(build)
        self.tools = tools or os.path.join(self.build, "src/tools")
        self.folder = tempfile.mkdtemp(prefix="pureflash-test.")
        self.data = os.path.join(self.folder, "data")
        self.base = free_port_base()
        self.tray_size = tray_size
        self.server = None
        self.log_path = os.path.join(self.folder, "server.log")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if self.server is not None:
            self.kill()
        if kind is not None and os.path.exists(self.log_path):
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                print("--- the server's last lines\n" + "".join(log.readlines()[-30:]))
        shutil.rmtree(self.folder, ignore_errors=True)

    def port(self, name):
        return self.base + OFFSETS[name]

    @property
    def conductor(self):
        return f"127.0.0.1:{self.port('http')}"

    def serve_command(self, *more):
        return [f"{self.tools}/pureflash", "serve", "--data", self.data, "--tray-size", self.tray_size,
                "--port-base", str(self.base), *more]

    def start(self, *more, wait_s=30):
        log = open(self.log_path, "a", encoding="utf-8")
        self.server = subprocess.Popen(self.serve_command(*more), stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        os.set_blocking(self.server.stdout.fileno(), False)
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            line = self.server.stdout.readline()
            if line:
                assert line == f"ready conductor={self.conductor}\n", line
                return
            if self.server.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError("the server did not get ready")

    def kill(self):
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()
        self.server = None

    def stop(self, wait_s=20):
        """A clean stop; returns the seconds it took."""
        begin = time.monotonic()
        self.server.send_signal(signal.SIGTERM)
        status = self.server.wait(timeout=wait_s)
        self.server.stdout.close()
        self.server = None
        assert status == 0, f"the server ended with {status}"
        return time.monotonic() - begin

    def alive(self):
        return self.server.poll() is None

    def run(self, tool, *arguments, timeout_s=60, **options):
        environment = dict(os.environ, PF_CONDUCTOR=self.conductor)
        return subprocess.run([f"{self.tools}/{tool}", *arguments], capture_output=True, text=True,
                              errors="replace", timeout=timeout_s, env=environment, check=False, **options)

    def cli(self, *arguments):
        done = self.run("pfcli", *arguments)
        assert done.returncode == 0, f"pfcli {' '.join(arguments)}: {done.stderr}"
        return done.stdout
