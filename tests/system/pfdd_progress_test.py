#!/usr/bin/env python3
"""Goal: who copies at a terminal sees how far it is, and a log gets only the summary. Method: pfdd with a source
that takes its time, on a pseudo-terminal and without one. Usage: BUILD"""
import os
import re
import subprocess
import sys
import unittest

from cluster import Cluster

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
BLOCKS = 64
BAR = re.compile(r"\[(#*)(\.*)\] +(\d+) %  (?:0 B of 4 MiB  0 B/s|\S+ [KM]iB of 4 MiB  \S+ [kM]B/s  \d+ s left) *")
SUMMARY = [r"64\+0 records in", r"64\+0 records out",
           r"4194304 bytes \(4.2 MB, 4 MiB\) copied, [\d.]+ s, \S+ [kM]B/s"]


class Progress(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cls.enterClassContext(Cluster(BUILD))
        cls.cluster.cli("volume", "create", "v", "--size", "64M")
        # Over 3 s, while a bar is drawn every 0.2 s: the machine's speed does not matter.
        cls.command = (f"(for i in $(seq {BLOCKS}); do head -c 65536 /dev/zero; sleep 0.05; done) | "
                       f"{cls.cluster.tools}/pfdd --conductor={cls.cluster.conductor} of=pf:v bs=64K "
                       f"count={BLOCKS}")

    def run_copy(self, command):
        """What it said on stdout and stderr, carriage returns included."""
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done)
        return done.stdout.decode(), done.stderr.decode()

    def on_terminal(self, *more):
        shown, _ = self.run_copy(["script", "-qec", " ".join([self.command, *more]), "/dev/null"])
        return shown.split("\r\n")

    def assert_summary(self, lines):
        self.assertEqual(len(lines), len(SUMMARY), lines)
        for line, expected in zip(lines, SUMMARY):
            self.assertRegex(line, f"^{expected}$")

    def test_a_terminal_gets_a_bar_and_then_the_summary(self):
        first, *rest = self.on_terminal()
        self.assertEqual(rest.pop(), "")
        self.assert_summary(rest)
        # All bars are one line, each drawn over the one before.
        nothing, *bars = first.split("\r")
        self.assertEqual(nothing, "")
        self.assertGreaterEqual(len(bars), 4, bars)
        percents = []
        before = ""
        for bar in bars:
            drawn = BAR.fullmatch(bar)
            self.assertIsNotNone(drawn, bar)
            done, left, percent = len(drawn[1]), len(drawn[2]), int(drawn[3])
            self.assertEqual(done + left, 28)
            self.assertAlmostEqual(done, percent * 28 / 100, delta=1)
            self.assertGreaterEqual(len(bar), len(before.rstrip()), "the end of the bar before shows")
            percents.append(percent)
            before = bar
        self.assertEqual(percents, sorted(percents))
        self.assertTrue(any(0 < percent < 100 for percent in percents), percents)
        self.assertEqual(percents[-1], 100)

    def test_without_a_terminal_there_is_no_bar(self):
        out, err = self.run_copy(["sh", "-c", self.command])
        self.assertEqual(out, "")
        *lines, end = err.split("\n")
        self.assert_summary(lines)
        self.assertEqual(end, "")

    def test_status_none_draws_nothing_on_a_terminal(self):
        self.assertEqual(self.on_terminal("status=none"), [""])


if __name__ == "__main__":
    unittest.main(verbosity=2)
