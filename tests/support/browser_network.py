"""Chromium in a network of its own, where nothing changes while tests of Docker and of hosts make networks beside it.

Chromium closes its connections, and ends a request that is under way with net::ERR_NETWORK_CHANGED, whenever any
network interface of the machine comes or goes. Here it sees loopback alone, and reaches this machine's loopback by a
SOCKS 5 proxy (RFC 1928), of which it needs CONNECT to IPv4 addresses and names.

Run as ``python browser_network.py CHROMIUM ARGUMENT…``; Playwright takes `program` for the browser itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shlex
import socket
import struct
import sys
import threading
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_PROXY_PORT = 1080  # in a network of its own nobody else has it


def program(folder: Path, chromium: str) -> Path:
    """Write a program into ``folder`` that is ``chromium`` in a network of its own, and return its path."""
    file = folder / "chromium"
    file.write_text(
        f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", __file__, chromium])} "$@"\n', encoding="utf-8"
    )
    file.chmod(0o700)
    return file


def _leave_the_network() -> bool:
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if ctypes.CDLL(None).unshare(flags):
        return False
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    return True


def _serve(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError), client.makefile("rb") as asked:
        _, methods = asked.read(2)
        asked.read(methods)
        client.sendall(b"\x05\x00")  # no authentication
        _, _, _, kind = asked.read(4)
        host = socket.inet_ntoa(asked.read(4)) if kind == 1 else asked.read(asked.read(1)[0]).decode()
        (port,) = struct.unpack("!H", asked.read(2))
        try:
            server = socket.create_connection((host, port))
        except OSError:
            client.sendall(b"\x05\x05\x00\x01" + bytes(6))  # connection refused
            return
        with server:
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


def main(chromium: str, *arguments: str) -> None:
    """Become Chromium in a network of its own; a child stays behind and is its way to this machine's loopback.

    Where this user may not make networks, Chromium runs in the machine's.
    """
    ours, childs = socket.socketpair()
    alive, ends_with_chromium = os.pipe()
    if os.fork() == 0:
        ours.close()
        os.close(ends_with_chromium)
        _, descriptors, _, _ = socket.recv_fds(childs, 1, 1)
        if not descriptors:
            os._exit(0)
        threading.Thread(target=_serve, args=(socket.socket(fileno=descriptors[0]),), daemon=True).start()
        os.read(alive, 1)
        os._exit(0)
    if not _leave_the_network():
        os.execv(chromium, [chromium, *arguments])
    with socket.create_server(("127.0.0.1", _PROXY_PORT)) as listener:
        socket.send_fds(ours, [b"."], [listener.fileno()])
    os.set_inheritable(ends_with_chromium, True)
    proxied = (f"--proxy-server=socks5://127.0.0.1:{_PROXY_PORT}", "--proxy-bypass-list=<-loopback>")
    os.execv(chromium, [chromium, *proxied, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
