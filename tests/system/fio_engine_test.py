#!/usr/bin/env python3
"""Goal: our fio engine does what people ask fio for. Method: Debian's fio with the engine on a real server: syncs of
every kind, trims, several jobs and volumes, deep queues, verify; and what it says of a volume that is not there. What
an earlier engine slept for ever at ends by a time limit here."""
import os
import subprocess
import sys
import unittest

from cluster import Cluster

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
SIZE = 8 << 20


class FioEngine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cls.enterClassContext(Cluster(BUILD))
        for name in ("one", "two"):
            cls.cluster.cli("volume", "create", name, "--size", str(SIZE))

    def fio(self, *arguments, status=0):
        done = subprocess.run(
            ["fio", f"--ioengine=external:{BUILD}/pfbd_fio.so", f"--conductor={self.cluster.conductor}", "--thread=1",
             *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=self.cluster.folder)
        self.assertEqual(done.returncode == 0, status == 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def one(self, *arguments, status=0):
        return self.fio("--name=one", "--volume=one", *arguments, status=status)

    def test_syncs_at_any_depth(self):
        for depth in ("1", "4", "64"):
            for sync in (("--fsync=1",), ("--fsync=4",), ("--fdatasync=1",), ("--end_fsync=1",), ("--fsync=3", "--end_fsync=1")):
                with self.subTest(depth=depth, sync=sync):
                    self.one("--rw=randwrite", "--bs=4k", "--size=1M", f"--iodepth={depth}", *sync)

    def test_trims_of_any_size(self):
        for block in ("512", "4k", "64k", "1M"):
            with self.subTest(block=block):
                self.one("--rw=trim", f"--bs={block}", "--size=1M", "--iodepth=4")
        self.one("--rw=trimwrite", "--bs=4k", "--size=1M", "--fsync=8")

    def test_verify_finds_what_was_written(self):
        self.one("--rw=randwrite", "--bs=4k", "--iodepth=128", "--verify=crc32c", "--do_verify=1", "--fsync=32")
        self.one("--rw=randrw", "--bsrange=512-128k", "--iodepth=32", "--verify=crc32c")
        # The engine's reads are of the volume: the other one holds none of this.
        self.assertIn("verify", self.fio("--name=two", "--volume=two", "--rw=read", "--bs=4k", "--verify=crc32c",
                                         "--verify_only", status=1))

    def test_jobs_and_volumes(self):
        self.fio("--group_reporting=1", "--rw=randwrite", "--bs=4k", "--size=1M", "--fsync=16",
                 "--name=a", "--volume=one", "--numjobs=3", "--iodepth=512", "--name=b", "--volume=two", "--iodepth=8")

    def test_reads_with_pauses_and_rates(self):
        self.one("--rw=randread", "--bs=4k", "--size=256k", "--iodepth=8", "--thinktime=1ms")
        self.one("--rw=read", "--bs=4k", "--size=256k", "--iodepth=8", "--rate_iops=500")

    def test_regression_offloaded_submission_is_refused(self):
        # fio ends the engine on another thread then, which a context does not allow: fio was aborted.
        self.assertIn("offload", self.one("--rw=randwrite", "--bs=4k", "--io_submit_mode=offload", status=1))

    def test_a_volume_that_is_not_there(self):
        self.assertIn("nowhere", self.fio("--name=x", "--volume=nowhere", "--rw=read", "--bs=4k", status=1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
