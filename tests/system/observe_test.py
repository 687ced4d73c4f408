#!/usr/bin/env python3
"""Goal: an operator sees what a cluster does: the log of slow I/O, metrics, health. Method: pfconductor and pfs
as processes with known I/O; the pages are read as a scraper reads them. Usage: BUILD"""
import os
import pathlib
import re
import sys
import unittest
import urllib.error
import urllib.request

import prometheus
from cluster import Cluster
from pair import Pair, wait_until
from pfbd import Library

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode(), refused.headers["Content-Type"]


class Observe(unittest.TestCase):
    def start(self, *settings):
        pair = Pair(os.path.join(BUILD, "src/tools"))
        self.addCleanup(pair.end)
        pair.start_conductor()
        self.assertEqual(pair.hears(), "READY=1")
        pair.start_store(*settings)
        self.assertEqual(pair.hears(), "READY=1")
        return pair

    def use(self, pair, rounds):
        pair.add_tray(256 * MIB)
        self.do_io(pair, rounds)

    def do_io(self, pair, rounds):
        pair.cli("volume", "create", "v", "--size", "64M")
        library = Library(BUILD, pair.conductor)
        volume = library.open("v")
        for block in range(rounds):
            self.assertEqual(library.write(volume, b"o" * 4096, block * 4096), 0)
            self.assertEqual(library.read(volume, 4096, block * 4096), (0, b"o" * 4096))
        library.close(volume)
        library.destroy()

    def test_slow_io_says_where_the_time_went(self):
        pair = self.start("store.slow_io=1ns")
        self.use(pair, 3)
        self.holds_slow_io(pair.log())

    def test_slow_io_of_one_node(self):
        for limit in ("1ns", "1h"):
            with self.subTest(limit=limit), Cluster(BUILD, tray_size="256M") as cluster:
                cluster.stop()
                cluster.start("--slow-io", limit)
                self.do_io(cluster, 3)
                with open(cluster.log_path, encoding="utf-8") as file:
                    log = file.read()
                if limit == "1ns":
                    self.holds_slow_io(log)
                else:
                    self.assertNotIn("slow ", log)

    def holds_slow_io(self, log):
        for kind, parts in (("write", ("queue", "lock", "media")), ("read", ("queue and memory", "media"))):
            lines = re.findall(rf"slow {kind}: shard 0x[0-9a-f]+ offset \d+ length 4096 took .*", log)
            self.assertEqual(len(lines), 3, log)
            for part in parts:
                self.assertIn(f"{part} ", lines[0])

    def test_fast_io_is_not_logged(self):
        pair = self.start("store.slow_io=1h")
        self.use(pair, 3)
        self.assertNotIn("slow ", pair.log())

    def test_metrics_and_health(self):
        pair = self.start()
        conductor, store = pair.base + 20, pair.base + 21
        for port in (conductor, store):
            status, body, kind = get(port, "/healthz")
            self.assertEqual((status, body, kind), (200, "ok\n", "text/plain"))
        self.use(pair, 20)
        for port in (conductor, store):
            status, body, kind = get(port, "/metrics")
            self.assertEqual(status, 200)
            self.assertTrue(kind.startswith("text/plain; version=0.0.4"), kind)
            families = prometheus.read(body)
            self.assertTrue(all(name.startswith("pureflash_") for name in families), families.keys())
        page = prometheus.read(get(conductor, "/metrics")[1])
        for source, histogram, ops, least in (
                (families, "pureflash_store_op_seconds", ("read", "write"), 20),
                (page, "pureflash_conductor_rest_seconds", ("POST /v1/volumes", "GET /healthz", "GET /metrics"), 1),
                (page, "pureflash_conductor_rpc_seconds", ("register_store", "heartbeat", "open_volume"), 1)):
            for op in ops:
                value = {name[len(histogram):]: value for name, labels, value in source[histogram]["samples"]
                         if labels["op"] == op and "le" not in labels}
                self.assertGreaterEqual(value["_count"], least, op)
                # Seconds, whatever the machine: more than 0.1 us and less than an hour for each.
                self.assertGreater(value["_sum"], value["_count"] * 1e-7, op)
                self.assertLess(value["_sum"], value["_count"] * 3600, op)
        self.assertEqual(page["pureflash_volumes"]["samples"][0][2], 1)
        documented = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
        for name in set(page) | set(families):
            self.assertIn(f"`{name}`", documented)

    def test_health_names_a_tray_that_is_missing(self):
        pair = self.start("store.trays=/nonexistent/tray.img")
        wait_until("the store complains", lambda: get(pair.base + 21, "/healthz")[0] == 503)
        self.assertIn("/nonexistent/tray.img", get(pair.base + 21, "/healthz")[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
