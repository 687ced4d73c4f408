#!/usr/bin/env python3
"""Goal: confirmed log blocks that rot cost an error and not data (T7). Method: a real server is killed, log blocks of
its tray file are damaged, and it is started again: the volume that may have lost writes answers EIO and says so
everywhere an operator looks, another volume is served, a restart changes nothing, and accept-loss ends it. Also: the
write cache of a tray is what the operator said, over restarts. Usage: BUILD_FOLDER"""
import errno
import json
import os
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request

from cluster import Cluster
from pfbd import Library

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
TOOLS = os.path.join(BUILD, "src/tools")
BLOCK = 4096
MIB = 1 << 20


def inspect(image, what):
    done = subprocess.run([f"{TOOLS}/pfinspect", image, what, "-o", "json"], capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def wait_until(what, true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def page(cluster, path):
    address = f"http://127.0.0.1:{cluster.port('store_http')}{path}"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Loss(unittest.TestCase):
    def show(self, cluster, name):
        return json.loads(cluster.cli("-o", "json", "volume", "show", name))

    def tray(self, cluster):
        return json.loads(cluster.cli("-o", "json", "tray", "list"))[0]

    def damage_last_write_of(self, image, volume_id):
        """Flips a byte in the newest log block that holds a write to the volume; pfinspect then says so and leaves the
        file as it is."""
        wait_until("the killed server lets go of the disk", lambda: inspect(image, "log")[0] != 2)
        status, log = inspect(image, "log")
        self.assertEqual(status, 0, log)
        _, layout = inspect(image, "superblock")
        blocks = [b["sequence"] for b in log["blocks"]
                  if any(r["type"] == "write" and r["shard"] >> 20 == volume_id for r in b["records"])]
        self.assertTrue(blocks, "the log holds no write of the volume")
        offset = (3 + blocks[-1] % layout["log_blocks"]) * BLOCK
        with open(image, "r+b") as file:
            file.seek(offset + 200)
            byte = file.read(1)[0]
            file.seek(offset + 200)
            file.write(bytes([byte ^ 0x10]))
        with open(image, "rb") as file:
            before = file.read(4 * MIB)
        for what in ("log", "map", "verify"):
            status, found = inspect(image, what)
            self.assertEqual(status, 1, f"{what}: {found}")
            self.assertIn("durable", json.dumps(found["damage"]), what)
        damaged = [s["shard"] >> 20 for s in inspect(image, "map")[1]["shards"] if s["damaged"]]
        self.assertEqual(damaged, [volume_id])
        with open(image, "rb") as file:
            self.assertEqual(file.read(4 * MIB), before, "pfinspect wrote to the tray")

    def test_a_rotten_confirmed_log_block(self):
        with Cluster(BUILD, tray_size="256M") as cluster:
            for name in ("hit", "spared"):
                cluster.cli("volume", "create", name, "--size", "16M")
            library = Library(cluster.build, cluster.conductor)
            volumes = {name: library.open(name) for name in ("hit", "spared")}
            for name, fill in (("hit", b"h"), ("spared", b"s")):
                self.assertEqual(library.write(volumes[name], fill * BLOCK, 0), 0)
            self.assertEqual(library.write(volumes["hit"], b"H" * BLOCK, BLOCK), 0)
            time.sleep(0.1)  # an idle tray says within 10 ms that all of it is durable
            image = self.tray(cluster)["path"]
            hit = self.show(cluster, "hit")
            cluster.kill()
            self.damage_last_write_of(image, hit["id"])

            cluster.start()
            for restart in range(2):
                # A client that was there all the time gets its answer; so does a new one.
                self.assertEqual(library.read(volumes["hit"], BLOCK, 0)[0], -errno.EIO)
                self.assertEqual(library.read(volumes["spared"], BLOCK, 0), (0, b"s" * BLOCK))
                fresh = library.open("hit")
                begin = time.monotonic()
                self.assertEqual(library.write(fresh, b"x" * BLOCK, 0), -errno.EIO)
                self.assertLess(time.monotonic() - begin, 5, "the client does not try for ever")
                library.close(fresh)
                self.assertEqual(library.write(volumes["spared"], b"t" * BLOCK, 8 * BLOCK), 0)
                wait_until("the report", lambda: self.show(cluster, "hit")["lost_shards"] == 1)
                shown = self.show(cluster, "hit")
                self.assertEqual(shown["health"], "error")
                self.assertIn("pfcli volume accept-loss hit --force", shown["message"])
                self.assertEqual(self.show(cluster, "spared")["lost_shards"], 0)
                tray = self.tray(cluster)
                self.assertEqual(tray["health"], "degraded")
                self.assertIn("hit", tray["message"])
                self.assertNotIn("spared", tray["message"])
                status = json.loads(cluster.cli("-o", "json", "status"))
                self.assertEqual((status["health"], status["volumes_with_losses"]), ("error", 1))
                self.assertIn("volumes with losses", cluster.cli("status"))
                code, text = page(cluster, "/healthz")
                self.assertEqual(code, 503)
                self.assertIn("accept-loss", text)
                self.assertRegex(page(cluster, "/metrics")[1], r"pureflash_tray_damaged_shards\{[^}]*\} 1\n")
                if restart == 0:
                    cluster.stop()
                    status, found = inspect(image, "map")
                    self.assertEqual((status, len(found["damage"])), (1, 1), "the mark is on the tray")
                    cluster.start()
            with open(cluster.log_path, encoding="utf-8") as log:
                self.assertIn("were durable and cannot be read", log.read())

            refused = cluster.run("pfcli", "volume", "accept-loss", "hit")
            self.assertEqual(refused.returncode, 1)
            self.assertIn("--force", refused.stderr)
            self.assertEqual(library.read(volumes["hit"], BLOCK, 0)[0], -errno.EIO)
            self.assertEqual(cluster.run("pfcli", "volume", "accept-loss", "none", "--force").returncode, 1)
            self.assertIn("1 shards", cluster.cli("volume", "accept-loss", "hit", "--force"))
            wait_until("health", lambda: self.show(cluster, "hit")["health"] == "ok")
            self.assertEqual(library.read(volumes["hit"], BLOCK, 0), (0, b"h" * BLOCK))
            self.assertEqual(library.read(volumes["hit"], BLOCK, BLOCK), (0, bytes(BLOCK)), "what was lost")
            fresh = library.open("hit")
            self.assertEqual(library.write(fresh, b"n" * BLOCK, BLOCK), 0)
            library.close(fresh)
            wait_until("health", lambda: page(cluster, "/healthz")[0] == 200)
            cluster.cli("volume", "create", "next", "--size", "1M")

            cluster.kill()
            cluster.start()
            self.assertEqual(library.read(volumes["hit"], BLOCK, BLOCK), (0, b"n" * BLOCK))
            self.assertEqual(self.show(cluster, "hit")["lost_shards"], 0)
            for volume in volumes.values():
                library.close(volume)
            library.destroy()
            cluster.stop()
            self.assertEqual(inspect(image, "verify")[0], 0)


class WriteCache(unittest.TestCase):
    def trays(self, cluster):
        trays = json.loads(cluster.cli("-o", "json", "tray", "list"))
        return {os.path.basename(tray["path"]): tray["volatile_cache"] for tray in trays}

    def test_only_the_operator_says_that_a_file_is_stable(self):
        with Cluster(BUILD, tray_size="64M") as cluster:
            expected = {"tray0.img": True, "kept.img": True, "my tray.img": False}
            for name, cache in (("kept.img", "volatile"), ("my tray.img", "none")):
                cluster.cli("tray", "add", f"{cluster.data}/{name}", "--size", "64M", "--write-cache", cache)
            self.assertEqual(self.trays(cluster), expected)
            wrong = cluster.run("pfcli", "tray", "add", f"{cluster.data}/x.img", "--size", "64M", "--write-cache", "fast")
            self.assertEqual(wrong.returncode, 2)
            cluster.stop()
            cluster.start()
            wait_until("the trays", lambda: self.trays(cluster) == expected)
            cluster.stop()
            cluster.start("--write-cache", "none")  # a tray's own setting is the stronger
            wait_until("the trays", lambda: self.trays(cluster) == dict(expected, **{"tray0.img": False}))
            cluster.stop()
            refused = subprocess.run(cluster.serve_command("--write-cache", "fast"), capture_output=True, text=True,
                                     timeout=20, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("detect, volatile or none", refused.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
