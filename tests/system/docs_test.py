#!/usr/bin/env python3
"""Goal: the reference pages say what the programs say. Method: every command, option and configuration key of
each program's own help is looked for on its page, and the page's for being real. Usage: BUILD"""
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
TOOLS = os.path.join(BUILD, "src/tools")


def page(name):
    return (ROOT / "docs/reference" / name).read_text(encoding="utf-8")


def said(program, *arguments):
    return subprocess.run([f"{TOOLS}/{program}", *arguments], capture_output=True, text=True, timeout=20,
                          check=True).stdout


def subcommands(text):
    part = re.search(r"^Subcommands:\n(.*?)(?:^\S|\Z)", text, re.M | re.S)
    return re.findall(r"^  (\S+)", part.group(1), re.M) if part else []


def options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - {"--help", "--version"}


def leaves(program, *words):
    """Each command that can be run, with its help."""
    text = said(program, *words, "--help")
    below = subcommands(text)
    if not below:
        yield " ".join(words), text
    for word in below:
        yield from leaves(program, *words, word)


class Pages(unittest.TestCase):
    def test_pfcli(self):
        text = page("cli.md")
        rows = {}
        for row in re.findall(r"^\| (.*?) \| ", text, re.M):
            for command in re.findall(r"`([^`]+)`", row):
                name = re.match(r"[a-z]+(?: [a-z-]+)?", command).group(0)
                name = "completion" if name.startswith("completion") else name
                rows[name] = command
        real = dict(leaves("pfcli"))
        self.assertEqual(set(rows), set(real))
        for command, help_text in real.items():
            self.assertEqual(options(rows[command]), options(help_text), f"the options of '{command}'")
        self.assertLessEqual(options(said("pfcli", "--help")), options(text))

    def test_pureflash_and_pfbd(self):
        for name, program in (("pureflash.md", "pureflash"), ("nbd.md", "pfbd")):
            for command, help_text in leaves(program):
                self.assertIn(f"{program} {command}", page(name))
                self.assertEqual(options(page(name)), options(help_text), name)

    def test_pfdd(self):
        help_text = said("pfdd", "--help")
        for operand in re.findall(r"(?<![\w-])([a-z]+)=", help_text):
            self.assertIn(f"{operand}=", page("pfdd.md"))
        for operand in re.findall(r"^\| `([a-z]+)=", page("pfdd.md"), re.M):
            self.assertIn(f"{operand}=", help_text)

    def test_pfinspect(self):
        text, help_text = page("pfinspect.md"), said("pfinspect", "--help")
        rows = dict(re.findall(r"^\| `([a-z]+)` \| .* \| (.*) \|$", text, re.M))
        self.assertEqual(set(rows), set(re.search(r"WHAT TEXT:\{(.*?)\}", help_text).group(1).split(",")))
        self.assertEqual(options(text), options(help_text))
        for form in re.search(r"--output TEXT:\{(.*?)\}", help_text).group(1).split(","):
            self.assertIn(f"`-o {form}`", text)

        def inspect(path, what):
            done = subprocess.run([f"{TOOLS}/pfinspect", path, what, "-o", "json"], capture_output=True, text=True,
                                  timeout=20, check=False)
            self.assertIn(f"\n| {done.returncode} | ", text)
            return done.returncode, done.stdout
        with Cluster(BUILD, tray_size="64M") as cluster:
            cluster.cli("volume", "create", "v", "--size", "1M")
            tray = f"{cluster.data}/tray0.img"
            self.assertEqual(inspect(tray, "verify"), (2, ""), "in use")
            cluster.stop()
            for what, fields in rows.items():
                status, shown = inspect(tray, what)
                self.assertEqual(status, 0)
                self.assertEqual(set(json.loads(shown)), set(re.findall(r"`([a-z_]+)`", fields)) | {"damage"})
            for offset, whence, prints in ((0, os.SEEK_SET, True), (-4096, os.SEEK_END, False)):
                with open(tray, "r+b") as file:   # one superblock, then the other
                    file.seek(offset, whence)
                    file.write(b"x" * 4096)
                status, shown = inspect(tray, "verify")
                self.assertEqual((status, shown != ""), (1, prints), "as operate/run.md says")

    def test_configuration(self):
        for program in ("pfs", "pfconductor"):
            self.assertIn(f"## {program}\n\n" + said(program, "--print-config-keys"), page("config.md"))
            example = (ROOT / "deploy" / f"{program}.toml").read_text(encoding="utf-8")
            section = ""
            for line in example.splitlines():
                if line.startswith("["):
                    section = line.strip("[]")
                elif "=" in line and not line.startswith("#"):
                    self.assertIn(f"| `{section}.{line.split('=')[0].strip()}` |", page("config.md"))

    def test_every_rule_is_named_where_it_is_kept(self):
        text = (ROOT / "docs/internals/testing.md").read_text(encoding="utf-8")
        rules = re.findall(r"^\| ([TRS]\d+) ", text, re.M)
        self.assertLessEqual({f"T{number}" for number in range(1, 15)}, set(rules))
        sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.[hc]pp")
                          if "_test" not in path.name and "_fuzz" not in path.name)
        named = set(re.findall(r"\b[TRS]\d+\b", sources))
        self.assertEqual([rule for rule in rules if rule not in named], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
