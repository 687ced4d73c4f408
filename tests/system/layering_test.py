#!/usr/bin/env python3
"""Goal: a lower layer that includes a higher one fails the build. Method: the check as the build has it
(cmake/layering.cmake), in a project of a few files."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Layering(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pureflash-test."))
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("cmake/layering.cmake", "scripts/check_layering.py"):
            (self.folder / name).parent.mkdir()
            shutil.copy(ROOT / name, self.folder / name)
        self.write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.25)\nproject(layers LANGUAGES NONE)\n"
                   "include(cmake/layering.cmake)\n")
        self.write("src/store/good.cpp", '#include "tray/tray.hpp"\n')
        subprocess.run(["cmake", "-G", "Ninja", "-S", self.folder, "-B", self.folder / "build"], check=True,
                       capture_output=True, timeout=30)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def build(self):
        done = subprocess.run(["cmake", "--build", self.folder / "build"], capture_output=True, text=True, timeout=30,
                              check=False)
        return done.returncode, done.stdout + done.stderr

    def test_a_build_fails_until_the_include_is_gone(self):
        self.assertEqual(self.build()[0], 0)
        self.assertIn("no work to do", self.build()[1])
        for name, line, says in (("src/tray/up.cpp", '#include "store/store.hpp"', "tray may not include store"),
                                 ("src/base/new/up.hpp", "#include <runtime/disk.hpp>", "base may not include runtime"),
                                 ("src/store/good.cpp", '#include "client/volume.hpp"', "store may not include client"),
                                 ("src/store/good.cpp", '#include "runtime/uring/ring.hpp"', "only mains may pick")):
            self.write(name, line + "\n")
            status, text = self.build()
            self.assertNotEqual(status, 0, name)
            self.assertIn(says, text)
            self.assertNotEqual(self.build()[0], 0, "built at the second try")
            self.write(name, "")
            self.assertEqual(self.build()[0], 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)  # the build folder is not needed
