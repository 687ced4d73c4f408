#!/usr/bin/env python3
"""Goal: the commands of README's "Start" and of docs/start.md work exactly as they are written. Method: they are cut out of a
page and run as one shell script that stops at the first failure. Only what the machine must have to itself is
replaced: the folder, the ports, the size of the tray, and the build, which is there. Usage: BUILD"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from cluster import free_port_base

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")


def commands_of_readme():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    start = re.search(r"^## Start$(.*?)^## ", page, re.M | re.S).group(1)
    blocks = re.findall(r"^```sh\n(.*?)^```", start, re.M | re.S)
    assert blocks[0] == "make quickstart\n", blocks[0]   # that one is a test of its own
    assert len(blocks) == 2
    return blocks[1]


def commands_of_the_start_page():
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S))


class Readme(unittest.TestCase):
    def test_start_by_hand(self):
        complaints = self.run_as_written(commands_of_readme())
        self.assertIn("1 GiB) copied", complaints)

    def test_start_page(self):
        complaints = self.run_as_written(commands_of_the_start_page())
        self.assertIn("1024+0 records out", complaints)

    def run_as_written(self, commands):
        """What they say on stderr."""
        folder = tempfile.mkdtemp(prefix="pureflash-test.")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        script = commands
        base = free_port_base()
        for written, here in (("make release", "true"), ("$PWD/build/release", BUILD),
                              ("--data /var/tmp/pf ", f"--data {folder}/pf --port-base {base} "), ("20G", "2G"),
                              ("/tmp/", f"{folder}/")):
            self.assertIn(written, script)
            script = script.replace(written, here) if written != "/tmp/" else re.sub(
                r"(?<![\w.])/tmp/(?!pureflash-test)", here, script)
        script = script.replace("rm -r /var/tmp/pf ", f"rm -r {folder}/pf ")
        self.assertNotIn("/var/tmp", script.replace(folder, ""))
        environment = {"PATH": os.environ["PATH"], "PF_CONDUCTOR": f"127.0.0.1:{base + 20}"}
        out, err = (open(os.path.join(folder, name), "w+", encoding="utf-8") for name in ("out", "err"))
        # Files, not pipes: a server that is left over would hold a pipe open.
        shell = subprocess.Popen(["bash", "-e", "-c", script], cwd=folder, env=environment, text=True,
                                 stdout=out, stderr=err, start_new_session=True)
        try:
            shell.wait(timeout=120)
        finally:
            try:
                os.killpg(shell.pid, signal.SIGKILL)   # our own session: nothing unless the script failed
                left = True
            except ProcessLookupError:
                left = False
        said, complaints = (file.seek(0) or file.read() for file in (out, err))
        out.close()
        err.close()
        self.assertEqual(shell.returncode, 0, f"{script}\n{said}\n{complaints}")
        self.assertFalse(left, "the commands left a process running")
        # Each server says what the page says that it says.
        for promised in re.findall(r"# (ready \S+)", commands):
            promised = promised.replace("49180", str(base + 20)).replace("/tmp/", f"{folder}/")
            self.assertIn(promised, said)
        self.assertRegex(said, r"health +ok")
        return complaints


if __name__ == "__main__":
    unittest.main(verbosity=2)
