"""Every trade by id, from the truth file: where a restarted market goes on, and what REST history is answered from.

Only file offsets are held, eight bytes a trade; a page is read back from the file. What the wire lost is still here,
but for trades that vanished: those are in the truth and on no page, of this process and of any after it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from decimal import Decimal
from itertools import islice

import msgspec

from marketflow.errors import MarketflowError
from marketflow.simulator.assets import LastPrice
from marketflow.simulator.book import BestQuotes, Side
from marketflow.simulator.day import MINUTE_US, MINUTES_KEPT, DaySummary, DayWindow
from marketflow.simulator.listings import USD_PER_UNIT, Listing
from marketflow.simulator.market import LastTrade, Trade
from marketflow.simulator.texts import SIZE_DECIMALS
from marketflow.simulator.truth import SOURCE, TruthFile, TruthPrice, TruthTrade, VanishedTrade, trade_line

TRADES_WANTED = 200_000  # of each product, before the scan of an old file stops
FIRST_SCAN_BYTES = 96 * 1024**2
PRICE_SCAN_BYTES = 8 * 1024**2

_decode_trade = msgspec.json.Decoder(TruthTrade).decode
_decode_price = msgspec.json.Decoder(TruthPrice).decode
_decode_vanished = msgspec.json.Decoder(VanishedTrade).decode


class ProductHistory:
    """Offsets of one product's lines; ids are contiguous, so an id's place is its distance from the first."""

    def __init__(self) -> None:
        self.first_trade_id = 0
        self.last: TruthTrade | None = None
        self._starts = array("q")
        self._end_of_last = 0
        self._visible = 0

    def add(self, trade_id: int, start: int, end: int) -> None:
        """Take the next line. A hole or a double in the truth is an error, never something to go on from."""
        if not self._starts:
            self.first_trade_id = trade_id
        elif trade_id != self.first_trade_id + len(self._starts):
            expected = self.first_trade_id + len(self._starts)
            raise MarketflowError(f"the truth holds trade {trade_id} at byte {start} where {expected} should be")
        self._starts.append(start)
        self._end_of_last = end

    def show(self) -> None:
        """What was added is synced: REST may tell it."""
        self._visible = len(self._starts)

    @property
    def newest_id(self) -> int | None:
        """The newest visible trade_id."""
        return self.first_trade_id + self._visible - 1 if self._visible else None

    def span(self, lowest_id: int, highest_id: int) -> tuple[int, int]:
        """The bytes that hold these visible ids, and other products' lines between them."""
        first, last = lowest_id - self.first_trade_id, highest_id - self.first_trade_id
        end = self._starts[last + 1] if last + 1 < len(self._starts) else self._end_of_last
        return self._starts[first], end


class TradeHistory:
    """The histories of all products in one truth file."""

    def __init__(self, file: TruthFile, vanished: TruthFile, listings: Sequence[Listing]) -> None:
        """Index as much of an existing file's tail as holds TRADES_WANTED of each product, or all of it."""
        self._file = file
        self._vanished_file = vanished
        self.vanished: dict[str, set[int]] = {listing.product_id: set() for listing in listings}
        for _, line in vanished.lines(0):
            trade = _decode_vanished(line)
            self.vanished.setdefault(trade.product_id, set()).add(trade.trade_id)
        self.listings = {listing.product_id: listing for listing in listings}
        scan = FIRST_SCAN_BYTES
        while not self._index(file.line_start_before(file.written_bytes - scan)) and scan < file.written_bytes:
            scan *= 4
        self.show()

    def _index(self, start: int) -> bool:
        self.products = {product_id: ProductHistory() for product_id in self.listings}
        for offset, line in self._file.lines(start):
            trade = _decode_trade(line)
            product = self.products.get(trade.product_id)
            if product is not None:
                product.add(trade.trade_id, offset, offset + len(line))
                product.last = trade
        self.show()
        return all(
            product.newest_id is not None and product.newest_id - product.first_trade_id >= TRADES_WANTED
            for product in self.products.values()
        )

    def show(self) -> None:
        """All that was appended so far is synced."""
        for product in self.products.values():
            product.show()

    def append(self, trades: Sequence[Trade], market_us: int) -> None:
        """Write trades to the truth and remember where; `show` makes them visible once synced."""
        offset = self._file.written_bytes
        lines = [trade_line(trade, market_us) for trade in trades]
        self._file.append(b"".join(lines))
        for trade, line in zip(trades, lines, strict=True):
            self.products[trade.listing.product_id].add(trade.trade_id, offset, offset + len(line))
            offset += len(line)

    def last_trade(self, product_id: str) -> LastTrade | None:
        """Where the product stopped when the file was opened."""
        last = self.products[product_id].last
        if last is None:
            return None
        price = int(Decimal(last.price).scaleb(self.listings[product_id].price_decimals))
        return LastTrade(last.trade_id, price, last.event_us, last.sequence)

    def recent(self, product_id: str, limit: int) -> list[Trade]:
        """The last trades as a feed would tell them again, oldest first; their books and days are not known here."""
        listing = self.listings[product_id]
        no_quotes, no_day = BestQuotes(0, 0, 0, 0), DaySummary(0, 0, 0, 0)
        trades: list[Trade] = []
        for told in reversed(self.page(product_id, limit=limit, after=None, before=None)):
            price = int(Decimal(told.price).scaleb(listing.price_decimals))
            size = int(Decimal(told.size).scaleb(SIZE_DECIMALS))
            side: Side = "buy" if told.taker_side == "buy" else "sell"
            when = told.event_us, told.sequence
            trades.append(Trade(listing, told.trade_id, price, size, side, *when, False, no_quotes, no_day))
        return trades

    def forget(self, product_id: str, trade_id: int, *, venue: str) -> None:
        """Never tell this trade again, which that venue's feed left out; the truth keeps it."""
        self.vanished[product_id].add(trade_id)
        self._vanished_file.append(msgspec.json.encode(VanishedTrade(venue, product_id, trade_id)) + b"\n")

    def is_forgotten(self, trade: Trade) -> bool:
        """Whether the trade vanished."""
        return trade.trade_id in self.vanished[trade.listing.product_id]

    def day_windows(self, now_us: int) -> dict[str, DayWindow]:
        """The rolling day of each product as the indexed trades tell it."""
        windows = {product_id: DayWindow() for product_id in self.products}
        oldest_us = now_us - MINUTES_KEPT * MINUTE_US
        starts = [product.span(product.first_trade_id, product.first_trade_id)[0] for product in self._not_empty()]
        for _, line in self._file.lines(min(starts)) if starts else ():
            trade = _decode_trade(line)
            listing = self.listings.get(trade.product_id)
            if listing is not None and trade.event_us > oldest_us:
                price = int(Decimal(trade.price).scaleb(listing.price_decimals))
                windows[trade.product_id].add(trade.event_us, price, int(Decimal(trade.size).scaleb(SIZE_DECIMALS)))
        return windows

    def _not_empty(self) -> list[ProductHistory]:
        return [product for product in self.products.values() if product.newest_id is not None]

    def page(self, product_id: str, *, limit: int, after: int | None, before: int | None) -> list[TruthTrade]:
        """Newest first, at most `limit`: ids below `after`, above `before`."""
        product = self.products[product_id]
        if product.newest_id is None:
            return []
        highest = product.newest_id if after is None else min(product.newest_id, after - 1)
        lowest = max(product.first_trade_id, before + 1 if before is not None else 0)
        vanished = self.vanished[product_id]
        told = (trade_id for trade_id in range(highest, lowest - 1, -1) if trade_id not in vanished)
        ids = list(islice(told, limit))
        if not ids:
            return []
        lines = self._file.read(*product.span(ids[-1], ids[0])).splitlines()
        trades = [trade for trade in map(_decode_trade, lines) if trade.product_id == product_id]
        return [trade for trade in reversed(trades) if trade.trade_id not in vanished]


def last_prices(file: TruthFile) -> dict[str, LastPrice]:
    """The last usd price of each asset in the file's tail; one that is not there begins anew, at a later time.

    What pages of other venues made of the same prices is passed over.
    """
    last: dict[str, LastPrice] = {}
    for _, line in file.lines(file.line_start_before(file.written_bytes - PRICE_SCAN_BYTES)):
        price = _decode_price(line)
        if price.source != SOURCE:
            continue
        usd = float(price.price) * USD_PER_UNIT[price.vs_currency]
        last[price.asset_id] = LastPrice(usd, price.last_updated_us)
    return last
