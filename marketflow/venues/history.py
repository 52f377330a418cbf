"""REST history of trades, venue by venue, as data: where it is, what a call costs, how a hole is walked.

Facts of the venues are in VENUE's own module (history_coinbase, history_binance, history_advanced); what is common is
in history_walk. Who asks keeps `spacing_s` between two calls, so that with a producer and a Dag at work at once a
venue's limit is not met: half of Coinbase's ten calls a second each, a third of Binance's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from marketflow.contracts.records import Parsed, Trade
from marketflow.errors import HistoryError
from marketflow.venues import (
    binance,
    coinbase_advanced,
    coinbase_exchange,
    history_advanced,
    history_binance,
    history_coinbase,
    parse,
)
from marketflow.venues.history_walk import Walk, Wanted

__all__ = ["HISTORIES", "History", "Walk", "Wanted", "trades_on"]

# the header by which Coinbase Exchange gives the cursor of the next older page
OLDER_HEADER = "CB-AFTER"


@dataclass(frozen=True, slots=True)
class History:
    """One venue. `address` is the key of settings.venue_urls; `weight_per_s` is what may be spent, in its own units.

    `by_id` tells that a hole can be cut into parts, each walked by itself; where it is looked for by time it cannot.
    """

    venue: str
    address: str
    channel: str
    weight_per_s: float
    by_id: bool
    walk: Callable[[Wanted], Walk]
    newest_request: Callable[[str], str]
    newest_weight: int
    newest: Callable[[bytes], int]

    def spacing_s(self, weight: int) -> float:
        """Seconds to wait after a call of that weight."""
        return weight / self.weight_per_s

    def newest_id(self, product: str, value: bytes) -> int:
        """The product's newest trade id, from the answer to `newest_request`.

        Raises:
            HistoryError: the answer does not tell it.
        """
        try:
            return self.newest(value)
        except ValueError as error:
            raise HistoryError(self.venue, product, self.newest_request(product), str(error)) from None


HISTORIES: dict[str, History] = {
    history.venue: history
    for history in (
        History(
            venue=coinbase_exchange.VENUE,
            address="coinbase_rest",
            channel=history_coinbase.CHANNEL,
            weight_per_s=5.0,
            by_id=True,
            walk=history_coinbase.CoinbaseWalk,
            newest_request=history_coinbase.newest_request,
            newest_weight=1,
            newest=history_coinbase.newest_id,
        ),
        History(
            venue=coinbase_advanced.VENUE,
            address="coinbase_advanced_rest",
            channel=history_advanced.CHANNEL,
            weight_per_s=5.0,
            by_id=False,
            walk=history_advanced.AdvancedWalk,
            newest_request=history_advanced.newest_request,
            newest_weight=1,
            newest=history_advanced.newest_id,
        ),
        History(
            venue=binance.VENUE,
            address="binance_rest",
            channel=history_binance.CHANNEL,
            weight_per_s=6_000 / 60 / 3,
            by_id=True,
            walk=history_binance.BinanceWalk,
            newest_request=history_binance.newest_request,
            newest_weight=history_binance.NEWEST_WEIGHT,
            newest=history_binance.newest_id,
        ),
        # venue new: history
    )
}


def trades_on(headers: Mapping[str, str], value: bytes, product_id: str) -> list[int]:
    """Ids of the product's trades that silver will find on a published page: its own parser says so."""
    outcome = parse(headers, value)
    if not isinstance(outcome, Parsed):
        return []
    return [item.trade_id for item in outcome.items if isinstance(item, Trade) and item.product_id == product_id]
