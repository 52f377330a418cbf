"""The plain layouts: folders named `key=value` with Parquet files for tools that read no Iceberg, as data.

A file does not repeat the columns that its folders name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, unquote

from marketflow.catalog.glue_tables import GlueColumn
from marketflow.contracts.columns import Table
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import ASSET_PRICES, CANDLES, QUOTES, TRADES
from marketflow.errors import CrawlError
from marketflow.settings import Settings


@dataclass(frozen=True, slots=True)
class Layout:
    """One exported table: its folder under the export, its contract, and what its folders are named by.

    `owner_column` is the column of the first folder (`product_id`), `time_column` the event time whose UTC date and,
    where `hourly`, hour are the others.
    """

    folder: str
    table: Table
    owner_column: str
    time_column: str
    hourly: bool = False

    @property
    def name(self) -> str:
        """The table's name in the catalog: `features`, `silver_trades`."""
        return self.folder.replace("/", "_")

    @property
    def keys(self) -> tuple[GlueColumn, ...]:
        """The partition keys, outermost first."""
        hour = (GlueColumn("hour", "int"),) if self.hourly else ()
        return GlueColumn(self.owner_column, "string"), GlueColumn("event_date", "date"), *hour

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the files hold, in the contract's order."""
        return tuple(name for name in self.table.column_names if name != self.owner_column)

    def prefix(self, settings: Settings) -> str:
        """Where its files are in the bucket, with a slash at the end."""
        return f"{settings.export_prefix}/{self.folder}/"

    def path(self, values: tuple[str, ...]) -> str:
        """`product_id=BTC-USD/event_date=2026-11-20/hour=05/`."""
        pairs = zip(self.keys, values, strict=True)
        return "".join(f"{key.name}={quote(value, safe='')}/" for key, value in pairs)

    def values(self, key: str, prefix: str) -> tuple[str, ...]:
        """The partition that an object lies in, from its key.

        Raises:
            CrawlError: its folders are not the layout's; the message names the file.
        """
        folder, _, _ = key.removeprefix(prefix).rpartition("/")
        folders = folder.split("/") if folder else []
        pairs = [folder.partition("=") for folder in folders]
        if [name for name, _, _ in pairs] != [column.name for column in self.keys]:
            wanted = "/".join(f"{column.name}=…" for column in self.keys)
            raise CrawlError(f"{key}: its folders are not {prefix}{wanted}/; move it there or delete it")
        found = tuple(unquote(value) for _, _, value in pairs)
        for column, value in zip(self.keys, found, strict=True):
            if not _fits(column, value):
                wanted = _WORDS.get(column.name, column.type)
                raise CrawlError(f"{key}: {column.name}={value} is no {wanted}; rename the folder or delete it")
        if self.path(found) != f"{folder}/":
            raise CrawlError(
                f"{key}: readers of the catalog look for it in {prefix}{self.path(found)}; move it there or delete it"
            )
        return found


def _fits(column: GlueColumn, value: str) -> bool:
    if column.type == "date":
        try:
            return date.fromisoformat(value).isoformat() == value
        except ValueError:
            return False
    if column.type == "int":  # an hour, of which each has one name
        return value in _HOURS
    return bool(value)


_HOURS = {f"{hour:02}" for hour in range(24)}
_WORDS = {"hour": "hour from 00 to 23"}


FEATURES = Layout("features", TRADE_FEATURES, "product_id", "event_ts", hourly=True)
SILVER = {
    "trades": Layout("silver/trades", TRADES, "product_id", "event_ts"),
    "quotes": Layout("silver/quotes", QUOTES, "product_id", "event_ts"),
    "candles": Layout("silver/candles", CANDLES, "product_id", "open_ts"),
    # an aggregator's price is of an asset, not of a product
    "asset_prices": Layout("silver/asset_prices", ASSET_PRICES, "source", "last_updated"),
}
LAYOUTS = (FEATURES, *SILVER.values())


def database(settings: Settings) -> str:
    """Glue's database of the exports: `sim_export`."""
    return settings.namespace("export")
