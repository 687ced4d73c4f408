#!/usr/bin/env python3
"""Goal: what `make install` puts in place is enough for others to build on. Method: install into a folder of
its own (DESTDIR), compile programs against it with pkg-config alone, linked shared and static, and run them
against a node that runs from the installed programs. Usage: BUILD"""
import configparser
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

from cluster import Cluster

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
PROGRAMS = pathlib.Path(__file__).parent / "programs"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-O1"]


def output(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="pureflash-test.")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        # As `make install PREFIX=/opt/pf DESTDIR=...`, which builds before: this test builds the engine only,
        # where `make test` has not.
        if not os.path.exists(f"{BUILD}/pfbd_fio.so"):
            output("cmake", "--build", BUILD, "--target", "fio_engine")
        output("cmake", "--install", BUILD, "--prefix", "/opt/pf", env=dict(os.environ, DESTDIR=cls.folder))
        cls.prefix = os.path.join(cls.folder, "opt/pf")
        cls.pkgconfig = str(next(pathlib.Path(cls.prefix).rglob("pfbd.pc")).parent)
        cls.library = os.path.dirname(cls.pkgconfig)

    def flags(self, *more):
        text = output("pkg-config", *more, "--cflags", "--libs", "pfbd",
                      env=dict(os.environ, PKG_CONFIG_PATH=self.pkgconfig))
        return shlex.split(text)

    def compile(self, source, *linking):
        program = os.path.join(self.folder, os.path.basename(source) + ".out")
        compiler = ["g++", "-std=c++20"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11", "-pthread"]
        output(*compiler, *WARNINGS, str(source), "-o", program, *linking)
        return program

    def test_programs(self):
        static = self.flags("--static")
        # A linker prefers the shared library of the folder; the archive is chosen by its full name.
        static = [f"{self.library}/libpfbd.a" if flag == "-lpfbd" else flag for flag in static]
        with Cluster(BUILD, tray_size="512M", tools=os.path.join(self.prefix, "bin")) as cluster:
            config = os.path.join(self.folder, "pf.conf")
            with open(config, "w", encoding="utf-8") as file:   # as the earlier system had it, and one section
                file.write("[cluster]\nname=cluster1\n[zookeeper]\nip=127.0.0.1:2181\n[client]\nconn_type=rdma\n"
                           "io_depth=64\nio_timeout=30\nopen_volume_timeout=30 # seconds\n"
                           f"[conductor]\naddress = {cluster.conductor}\n")
            for linking in (self.flags(), static):
                shared = linking is not static
                environment = {"PATH": os.environ["PATH"], "PF_CONDUCTOR": cluster.conductor}
                if shared:
                    environment["LD_LIBRARY_PATH"] = self.library
                for source in ("c_api.c", "cpp_api.cpp", "seed_api.c"):
                    with self.subTest(source=source, shared=shared):
                        program = self.compile(PROGRAMS / source, *linking)
                        self.assertEqual("libpfbd" in output("ldd", program, env=environment), shared)
                        arguments = ["made-by-it"]
                        if source == "seed_api.c":
                            cluster.cli("volume", "create", "theirs", "--size", "64M")
                            for where in ("-", config):
                                cluster.cli("volume", "create", "doomed", "--size", "64M")
                                using = dict(environment)
                                if where == config:
                                    del using["PF_CONDUCTOR"]
                                self.assertIn("ok", output(program, "theirs", "doomed", where, env=using))
                            cluster.cli("volume", "delete", "theirs")
                            continue
                        self.assertIn("ok", output(program, *arguments, env=environment))
            self.assertEqual(cluster.cli("-o", "names", "volume", "list"), "")

    def test_make_install_builds_the_fio_engine(self):
        steps = output("make", "-n", "-C", str(PROGRAMS.parents[2]), "install")
        self.assertRegex(steps, r"(?s)--target fio_engine.*cmake --install")

    def test_the_fio_engine_needs_no_build_folder(self):
        engine = os.path.join(self.library, "pfbd_fio.so")
        path = re.search(r"R(?:UN)?PATH.*\[(.*)\]", output("readelf", "-d", engine)).group(1).split(":")
        self.assertIn("$ORIGIN", path)
        self.assertEqual([entry for entry in path if not entry.startswith("$ORIGIN")], [])
        found = re.search(r"libpfbd\.so\S* => (\S+)", output("ldd", engine, env={"PATH": os.environ["PATH"]}))
        self.assertEqual(os.path.dirname(os.path.realpath(found.group(1))), os.path.realpath(self.library))
        with Cluster(BUILD, tray_size="256M", tools=os.path.join(self.prefix, "bin")) as cluster:
            cluster.cli("volume", "create", "f", "--size", "1M")
            output("fio", "--name=f", f"--ioengine=external:{engine}", "--volume=f",
                   f"--conductor={cluster.conductor}", "--rw=write", "--bs=64k", cwd=self.folder,
                   env={"PATH": os.environ["PATH"]})

    def test_the_program_of_the_reference_page(self):
        page = (PROGRAMS.parents[2] / "docs/reference/pfbd.md").read_text(encoding="utf-8")
        source = pathlib.Path(self.folder) / "example.c"
        source.write_text(re.search(r"```c\n(.*?)```", page, re.S).group(1), encoding="utf-8")
        program = self.compile(source, *self.flags())
        with Cluster(BUILD, tray_size="256M") as cluster:
            cluster.cli("volume", "create", "data", "--size", "1M")
            output(program, env={"LD_LIBRARY_PATH": self.library, "PF_CONDUCTOR": cluster.conductor})

    def test_completion_where_the_shells_look(self):
        share = pathlib.Path(self.prefix) / "share"
        for shell, file in (("bash", "bash-completion/completions/pfcli"), ("zsh", "zsh/site-functions/_pfcli")):
            made = output(os.path.join(self.prefix, "bin/pfcli"), "completion", shell)
            self.assertEqual((share / file).read_text(encoding="utf-8"), made)

    def test_pages_link_to_installed_pages(self):
        pages = list((pathlib.Path(self.prefix) / "share/doc/pureflash").rglob("*.md"))
        self.assertGreater(len(pages), 10)
        for page in pages:
            for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
                if "://" not in link:
                    self.assertTrue((page.parent / link).exists(), f"{page}: {link}")

    def test_units(self):
        folder = pathlib.Path(self.prefix) / "lib/systemd/system"
        for name in ("pureflash", "pfs", "pfconductor"):
            unit = configparser.ConfigParser(strict=False, interpolation=None)
            unit.optionxform = str
            unit.read(folder / f"{name}.service")
            program = unit["Service"]["ExecStart"].split()[0]
            self.assertTrue(program.startswith("/opt/pf/bin/"), program)
            self.assertTrue(os.access(self.folder + program, os.X_OK), program)
            # Mounting large trays takes longer than systemd's 90 s.
            self.assertEqual(unit["Service"].get("TimeoutStartSec"), "infinity", name)
            page = unit["Unit"]["Documentation"].removeprefix("file:")
            self.assertTrue(os.path.exists(self.folder + page), page)

    def test_units_are_sound_and_hardened(self):
        # Verified with the programs where the units say: a root of their own.
        folder = pathlib.Path(self.prefix) / "lib/systemd/system"
        for name in ("pureflash", "pfs", "pfconductor"):
            checked = pathlib.Path(self.folder) / f"{name}.service"
            text = (folder / f"{name}.service").read_text(encoding="utf-8")
            checked.write_text(text.replace("ExecStart=/opt", f"ExecStart={self.folder}/opt").replace(
                "file:/opt", f"file:{self.folder}/opt"), encoding="utf-8")
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(checked)], capture_output=True,
                                  text=True, timeout=60, check=False)
            ours = [line for line in done.stderr.splitlines() if name in line]
            self.assertEqual((done.returncode, ours), (0, []), done.stderr)
            exposure = output("systemd-analyze", "security", "--offline=yes", "--threshold=25", str(checked))
            self.assertIn("OK", exposure)


if __name__ == "__main__":
    unittest.main(verbosity=2)
