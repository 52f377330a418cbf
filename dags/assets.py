"""Every asset, declared once. The UI's asset graph shows the medallion flow from these."""

from __future__ import annotations

from collections.abc import Iterable

from airflow.sdk import Asset

BRONZE_TABLES = ("bronze.trades_raw", "bronze.ticker_raw", "bronze.prices_raw", "bronze.candles_raw")
SILVER_TABLES = ("silver.trades", "silver.quotes", "silver.asset_prices", "silver.candles")
OPEN_HOUR_TABLES = ("gold.price_metrics", "gold.top_movers", "gold.bars", "gold.trade_features")
GOLD_TABLES = (*OPEN_HOUR_TABLES, "gold.product_day")
# the Dag that writes a table's hours, as its contract says
OWNERS = {
    "gold.price_metrics": "gold_price_metrics",
    "gold.top_movers": "gold_price_metrics",
    "gold.bars": "gold_bars",
    "gold.trade_features": "gold_trade_features",
    "gold.product_day": "gold_daily",
}


def _in_lake(names: Iterable[str]) -> dict[str, Asset]:
    return {
        name: Asset(name, uri=f"marketflow://lake/{name.replace('.', '/')}", group=name.split(".")[0]) for name in names
    }


# the stream writes bronze, and no Dag: these have no events, and are what silver is drawn from
BRONZE = _in_lake(BRONZE_TABLES)
SILVER = _in_lake(SILVER_TABLES)
GOLD = _in_lake(GOLD_TABLES)
# table → what its rows are made from
SOURCES = {
    name: [(BRONZE | SILVER | GOLD)[source] for source in sources]
    for name, sources in {
        "silver.trades": ["bronze.trades_raw"],
        "silver.quotes": ["bronze.ticker_raw"],
        "silver.asset_prices": ["bronze.prices_raw"],
        "silver.candles": ["bronze.candles_raw"],
        "gold.price_metrics": ["silver.asset_prices"],
        "gold.top_movers": ["silver.asset_prices"],
        "gold.bars": ["silver.trades"],
        "gold.trade_features": ["silver.trades", "silver.quotes"],
        "gold.product_day": ["gold.bars"],
    }.items()
}
# what the Glue Data Catalog says, and was proven to read
CATALOG = Asset("glue.catalog", uri="marketflow://glue/catalog", group="catalog")
PUBLISHED = {
    name: Asset(f"postgres.{name}", uri=f"marketflow://postgres/{name.replace('.', '/')}", group="postgres")
    for name in GOLD_TABLES
}
