"""Every asset, declared once. The UI's asset graph shows the medallion flow from these."""

from __future__ import annotations

from airflow.sdk import Asset

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

SILVER = {
    name: Asset(name, uri=f"marketflow://lake/{name.replace('.', '/')}", group="silver") for name in SILVER_TABLES
}
GOLD = {name: Asset(name, uri=f"marketflow://lake/{name.replace('.', '/')}", group="gold") for name in GOLD_TABLES}
# what the Glue Data Catalog says, and was proven to read
CATALOG = Asset("glue.catalog", uri="marketflow://glue/catalog", group="catalog")
PUBLISHED = {
    name: Asset(f"postgres.{name}", uri=f"marketflow://postgres/{name.replace('.', '/')}", group="postgres")
    for name in GOLD_TABLES
}
