"""What the market did, on disk before anybody hears of it: append-only, one JSON line a fact, numbers as text.

A batch is written and fdatasync'ed as one, and only then sent: a trade that was received anywhere is in the truth.
A line torn by kill -9 belongs to a batch that was never sent, so opening the file cuts it off.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec

from marketflow.errors import BusyError, MarketflowError
from marketflow.simulator.assets import Quotation
from marketflow.simulator.market import Trade
from marketflow.simulator.texts import SIZE_DECIMALS

SOURCE = "coingecko"
SCAN_BYTES = 1024**2


class TruthTrade(msgspec.Struct, frozen=True, gc=False):
    """One line of trades.ndjson; `market_us` is when the market made it known, just before it was sent."""

    venue: str
    product_id: str
    trade_id: int
    price: str
    size: str
    taker_side: str
    event_us: int
    sequence: int
    market_us: int


class TruthPrice(msgspec.Struct, frozen=True, gc=False):
    """One line of prices.ndjson; `price` and `market_cap` are exactly the text of the page's numbers.

    `market_cap` is null where the source has none.
    """

    source: str
    asset_id: str
    vs_currency: str
    price: str
    market_cap: str | None
    last_updated_us: int


def _amount(units: int, decimals: int) -> str:
    """The exact decimal, made here on purpose and not with the wire's formatter, which it is to judge."""
    return format(Decimal(units).scaleb(-decimals), "f")


def trade_line(trade: Trade, market_us: int) -> bytes:
    """The trade as a line of trades.ndjson."""
    listing = trade.listing
    return (
        f'{{"venue":"{listing.venue}","product_id":"{listing.product_id}","trade_id":{trade.trade_id},'
        f'"price":"{_amount(trade.price, listing.price_decimals)}","size":"{_amount(trade.size, SIZE_DECIMALS)}",'
        f'"taker_side":"{trade.taker_side}","event_us":{trade.event_us},"sequence":{trade.sequence},'
        f'"market_us":{market_us}}}\n'
    ).encode()


def told_price_line(price: TruthPrice) -> bytes:
    """A price of any source as a line of prices.ndjson."""
    return msgspec.json.encode(price) + b"\n"


def price_line(quotation: Quotation) -> bytes:
    """The aggregator's price as a line of prices.ndjson."""
    return told_price_line(
        TruthPrice(
            source=SOURCE,
            asset_id=quotation.asset_id,
            vs_currency=quotation.vs_currency,
            price=quotation.price,
            market_cap=quotation.market_cap,
            last_updated_us=quotation.last_updated_us,
        )
    )


class TruthFile:
    """One append-only file. `synced_bytes` is how much of it is safe, hence how much may be shown."""

    def __init__(self, path: Path) -> None:
        """Open for append; a second simulator on the same file is refused."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise BusyError(f"another simulator writes {path}: stop it, or use another MARKETFLOW_HOME") from None
        self.written_bytes = self._cut_torn_line()
        self.synced_bytes = self.written_bytes
        self._syncing = threading.Lock()

    def _cut_torn_line(self) -> int:
        size = end = os.fstat(self._descriptor).st_size
        while end > 0:
            start = max(0, end - SCAN_BYTES)
            newline = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._descriptor, end)
        return end

    def append(self, lines: bytes) -> None:
        """Write whole lines; they are not safe before `sync`."""
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.written_bytes += len(lines)

    def sync(self) -> None:
        """Make all that was appended before this call survive the machine."""
        with self._syncing:  # the market and a page may sync at once, each in a thread of its own
            written = self.written_bytes
            if written > self.synced_bytes:
                os.fdatasync(self._descriptor)
                self.synced_bytes = written

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of what was written."""
        parts = []
        while start < end:
            part = os.pread(self._descriptor, end - start, start)
            if not part:
                raise MarketflowError(f"{self.path} ended at byte {start} before {end}: somebody cut it")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        """(offset, line) from the line that begins at `start`, without holding the file in memory."""
        with self.path.open("rb") as file:
            file.seek(start)
            offset = start
            for line in file:
                yield offset, line
                offset += len(line)

    def line_start_before(self, offset: int) -> int:
        """Where the first whole line at or after `offset` begins; 0 for an offset at or below 0."""
        if offset <= 0:
            return 0
        with self.path.open("rb") as file:
            file.seek(offset - 1)
            return offset - 1 + len(file.readline())

    def close(self) -> None:
        """Sync and let go of the lock."""
        self.sync()
        os.close(self._descriptor)


class VanishedTrade(msgspec.Struct, frozen=True):
    """One line of vanished.ndjson: a trade that the venue's feed left out and REST history never tells."""

    venue: str
    product_id: str
    trade_id: int


class Truth:
    """The files of one home. `vanished` is no fact of the market: it says which facts nobody was told."""

    def __init__(self, folder: Path) -> None:
        self.trades = TruthFile(folder / "trades.ndjson")
        self.prices = TruthFile(folder / "prices.ndjson")
        self.vanished = TruthFile(folder / "vanished.ndjson")

    def sync(self) -> None:
        """All files safe."""
        for file in (self.trades, self.prices, self.vanished):
            file.sync()

    def close(self) -> None:
        """All files safe and free."""
        for file in (self.trades, self.prices, self.vanished):
            file.close()
