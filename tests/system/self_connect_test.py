#!/usr/bin/env python3
"""Goal: who looks for a server that is down does not keep it from its port. Where nobody listens on a port that is
also given to those who connect, TCP connects a socket to itself sooner or later. Method: a network namespace where
the conductor's port is the only one for those who connect; a client looks for the conductor; then it starts.
Usage: BUILD_FOLDER"""
import ctypes
import os
import subprocess
import sys
import unittest

from cluster import Cluster

BUILD = os.path.realpath(sys.argv.pop(1) if len(sys.argv) > 1 else "build/release")
CLONE_NEWNET = 0x40000000
PORTS = "/proc/sys/net/ipv4/ip_local_port_range"


def set_ports(first, last):
    with open(PORTS, "w", encoding="ascii") as file:
        file.write(f"{first} {last}")


class SelfConnect(unittest.TestCase):
    def test_regression_clients_that_wait_do_not_take_the_port(self):
        set_ports(32768, 60999)
        cluster = Cluster(BUILD, tray_size="256M")
        set_ports(cluster.port("rpc"), cluster.port("rpc"))
        looking = cluster.run("pfdd", "if=pf:volume", "of=/dev/null", "count=1")
        self.assertEqual(looking.returncode, 1)
        self.assertIn("cannot reach the conductor", looking.stderr)
        self.assertIn("refused", looking.stderr)
        set_ports(32768, 60999)
        with cluster:
            self.assertIn("v", cluster.cli("volume", "create", "v", "--size", "16M"))
            done = cluster.run("pfdd", "if=/dev/zero", "of=pf:v", "bs=1M", "count=16")
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    unittest.main(verbosity=2)
