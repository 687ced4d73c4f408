#!/usr/bin/env python3
"""A client that dies in the middle of a write, and one that asks for TLS. Arguments: SOCKET EXPORT.
Nothing of the unfinished write may be there afterwards, and the server goes on."""
import socket
import struct
import sys

OPTION_MAGIC, REQUEST_MAGIC = 0x49484156454F5054, 0x25609513
REPLY_POLICY = 0x80000002
WRITE, READ, MIB = 1, 0, 1 << 20


def take(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        assert more, "the server closed the connection"
        data += more
    return data


def greet(path):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20)
    peer.connect(path)
    magic, version, _ = struct.unpack(">8sQH", take(peer, 18))
    assert (magic, version) == (b"NBDMAGIC", OPTION_MAGIC)
    peer.sendall(struct.pack(">I", 3))   # fixed newstyle, no zeroes
    return peer


def attach(path, name):
    peer = greet(path)
    peer.sendall(struct.pack(">QII", OPTION_MAGIC, 1, len(name)) + name)
    take(peer, 10)
    return peer


def request(kind, offset, length, cookie=7):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, 0, kind, cookie, offset, length)


def read(peer, offset, length):
    peer.sendall(request(READ, offset, length))
    _, error, _ = struct.unpack(">IIQ", take(peer, 16))
    assert error == 0
    return take(peer, length)


def main():
    path, name = sys.argv[1], sys.argv[2].encode()
    steady = attach(path, name)
    before = read(steady, 0, 2 * MIB)
    for sent in (0, 1, 4096, MIB - 1):
        dying = attach(path, name)
        dying.sendall(request(WRITE, 4096, MIB) + b"\xdb" * sent)
        dying.close()
    for cut in (1, 27):
        dying = attach(path, name)
        dying.sendall(request(WRITE, 0, 4096)[:cut])
        dying.close()
    assert read(steady, 0, 2 * MIB) == before, "half a write was applied"

    hoping = greet(path)
    hoping.sendall(struct.pack(">QII", OPTION_MAGIC, 5, 0))   # STARTTLS
    _, option, reply, length = struct.unpack(">QIII", take(hoping, 20))
    take(hoping, length)
    assert (option, reply) == (5, REPLY_POLICY), (option, hex(reply))
    hoping.close()
    assert read(steady, 0, 4096) == before[:4096]
    steady.close()


if __name__ == "__main__":
    main()
