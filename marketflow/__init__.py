"""marketflow: a market-data platform for crypto. Library code only; no Airflow lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketflow.catalog.load import Loaded

__version__ = "0.1.0"


def load(table: str, *narrowed: Any, **options: Any) -> Loaded:
    """Rows of a lake table and their snapshot's id: `marketflow.load("gold.trade_features", "BTC-USD", start, end)`.

    See `marketflow.catalog.load.load` for what can be given and what is raised.
    """
    from marketflow.catalog.load import load as loaded

    return loaded(table, *narrowed, **options)
