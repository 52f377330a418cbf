"""A proxy that answers nobody and writes down who asked, and a witness of what this process connects to."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
EXCEPTIONS = ("NO_PROXY", "no_proxy")


class BlackHole:
    """`asked` are the first lines that the proxy was sent; `left` are names and addresses beyond loopback."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left: set[str] = set()
        self.watching = True

    def hear(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(2)
                try:
                    self.asked.append(peer.recv(4096).split(b"\r\n")[0].decode(errors="replace"))
                except OSError:
                    self.asked.append("(nothing)")

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's own connections and look-ups, before they are made."""
        if not self.watching:
            return
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            self.note(str(arguments[1][0]))
        elif event == "socket.getaddrinfo" and arguments[0]:
            self.note(str(arguments[0]))

    def sample(self) -> None:
        """Those of libraries in other languages, as the kernel lists them, while they are there."""
        process = psutil.Process()
        while self.watching:
            for one in process.net_connections("inet"):
                if one.raddr:
                    self.note(one.raddr.ip)
            time.sleep(0.02)

    def note(self, host: str) -> None:
        if not _is_loopback(host):
            self.left.add(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Airflow asks for this machine's own name, to write it down
        return host in ("localhost", socket.gethostname())


@contextmanager
def black_hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlackHole]:
    """Every proxy variable points at it, and no address is excepted: not even loopback's."""
    made = BlackHole()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in EXCEPTIONS:
            monkeypatch.delenv(name, raising=False)
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        sys.addaudithook(made.see)  # there is no way to take it off again: it stops looking
        threads = [
            threading.Thread(target=made.hear, args=(listener,), daemon=True),
            threading.Thread(target=made.sample, daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            made.watching = False
            threads[1].join(5)
            for name in PROXIES:
                monkeypatch.delenv(name, raising=False)
