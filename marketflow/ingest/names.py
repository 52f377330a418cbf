"""How producers find a venue's address."""

from __future__ import annotations

import aiohttp


def connector() -> aiohttp.TCPConnector:
    """Connections whose names are resolved by the machine's own rules (getaddrinfo).

    aiohttp takes aiodns instead wherever it is installed. It is, since the library ccxt brings it, and it reads
    /etc/resolv.conf alone: not nsswitch.conf, nor what a VPN adds.
    """
    return aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
