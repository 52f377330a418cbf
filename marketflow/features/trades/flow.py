"""Who took: buyers and sellers among the takers of the last trades, and what their taking did to the price."""

from __future__ import annotations

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features.trades.amounts import quotient, size
from marketflow.features.trades.feature import feature
from marketflow.features.trades.tape import LOOKBACK
from marketflow.features.trades.windows import highest, lowest, products, squares, total


@feature("is_buy", group="flow", inputs=["taker_side"], type=Type.BOOLEAN)
def is_buy() -> pl.Expr:
    """Whether the taker bought.

    Formula: taker_side = buy.
    Unit: none.
    Null: never.
    Source: the venue's word, turned where it names the maker (the venue's module in marketflow/venues).
    """
    return pl.col("is_buy")


@feature(
    "buy_count_{w}", group="flow", inputs=["taker_side"], windows=(50, 100), lookback=lambda w: w - 1, type=Type.INTEGER
)
def buy_count(window: int) -> pl.Expr:
    """How many of the last {w} trades takers bought.

    Formula: count of taker_side = buy over trades t−{w}+1 … t.
    Unit: count.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return total("buys", window)


@feature(
    "sell_count_{w}",
    group="flow",
    inputs=["taker_side"],
    windows=(50, 100),
    lookback=lambda w: w - 1,
    type=Type.INTEGER,
)
def sell_count(window: int) -> pl.Expr:
    """How many of the last {w} trades takers sold.

    Formula: {w} − buy_count_{w}.
    Unit: count.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return window - total("buys", window)


@feature("buy_sell_ratio_{w}", group="flow", inputs=["taker_side"], windows=(50, 100), lookback=lambda w: w - 1)
def buy_sell_ratio(window: int) -> pl.Expr:
    """Bought against sold trades among the last {w}.

    Formula: buy_count_{w} / sell_count_{w}.
    Unit: none.
    Null: until {w} trades exist, and where none of them was sold.
    Source: by definition.
    """
    buys = total("buys", window)
    return quotient(buys.cast(pl.Float64), window - buys)


@feature("buy_volume_{w}", group="flow", inputs=["size", "taker_side"], windows=(50, 100), lookback=lambda w: w - 1)
def buy_volume(window: int) -> pl.Expr:
    """Amount that takers bought in the last {w} trades.

    Formula: Σ size of taker_side = buy over trades t−{w}+1 … t, summed exactly.
    Unit: base currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return size(total("bought_units", window))


@feature("sell_volume_{w}", group="flow", inputs=["size", "taker_side"], windows=(50, 100), lookback=lambda w: w - 1)
def sell_volume(window: int) -> pl.Expr:
    """Amount that takers sold in the last {w} trades.

    Formula: Σ size of taker_side = sell over trades t−{w}+1 … t, summed exactly.
    Unit: base currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return size(total("size_units", window) - total("bought_units", window))


@feature(
    "buy_volume_ratio_{w}", group="flow", inputs=["size", "taker_side"], windows=(50, 100), lookback=lambda w: w - 1
)
def buy_volume_ratio(window: int) -> pl.Expr:
    """Share of the last {w} trades' volume that takers bought.

    Formula: buy_volume_{w} / volume_{w}.
    Unit: none, 0 to 1.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return quotient(size(total("bought_units", window)), size(total("size_units", window)))


@feature(
    "order_flow_imbalance_{w}",
    group="flow",
    inputs=["size", "taker_side"],
    windows=(10, 50, 100, 500),
    lookback=lambda w: w - 1,
)
def order_flow_imbalance(window: int) -> pl.Expr:
    """Signed share of taker volume over the last {w} trades.

    Formula: (B − S) / (B + S), B and S the amounts that takers bought and sold in trades t−{w}+1 … t.
    Unit: none, −1 to 1.
    Null: until {w} trades exist.
    Source: Cont, Kukanov and Stoikov (2014), its form for trades.
    """
    bought, all_ = total("bought_units", window), total("size_units", window)
    return quotient(size(2 * bought - all_), size(all_))


@feature(
    "signed_volume_{w}", group="flow", inputs=["size", "taker_side"], windows=(10, 50, 100), lookback=lambda w: w - 1
)
def signed_volume(window: int) -> pl.Expr:
    """Amount bought less amount sold by takers in the last {w} trades.

    Formula: Σ ±size over trades t−{w}+1 … t, + where the taker bought, summed exactly.
    Unit: base currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return size(2 * total("bought_units", window) - total("size_units", window))


@feature("aggressor_run_length", group="flow", inputs=["taker_side"], lookback=LOOKBACK - 1, type=Type.INTEGER)
def aggressor_run_length() -> pl.Expr:
    """How many trades in a row, this one the last, had the same taker's side, 500 at most.

    Formula: the largest n ≤ 500 with taker_side(t−n+1) = … = taker_side(t).
    Unit: count.
    Null: never.
    Source: by definition.
    """
    return pl.min_horizontal("run_length", pl.lit(LOOKBACK))


@feature(
    "kyle_lambda_{w}", group="flow", inputs=["price", "size", "taker_side"], windows=(100, 500), lookback=lambda w: w
)
def kyle_lambda(window: int) -> pl.Expr:
    """Price impact: the slope of price changes on signed sizes over the last {w} trades.

    Formula: Σ (Δp − mean Δp)(x − mean x) / Σ (x − mean x)², Δp = price(i) − price(i−1), x = ±size, over t−{w}+1 … t.
    Unit: quote currency per unit of base currency.
    Null: until {w} + 1 trades exist, and where all signed sizes are the same.
    Source: Kyle (1985), estimated by least squares.
    """
    spread = highest("signed_units", window) - lowest("signed_units", window)
    return pl.when(spread > 0).then(products("change_units", "signed_units", window) / squares("signed_units", window))


@feature("amihud_{w}", group="flow", inputs=["price", "size"], windows=(50, 100, 500), lookback=lambda w: w)
def amihud(window: int) -> pl.Expr:
    """Illiquidity: mean absolute return for each unit of quote currency that changed hands, over the last {w} trades.

    Formula: Σ (|ln(price(i) / price(i−1))| / (price(i)·size(i))) / {w} over trades t−{w}+1 … t.
    Unit: 1 / quote currency.
    Null: until {w} + 1 trades exist.
    Source: Amihud (2002), in trade time.
    """
    return total("illiquidity", window) / window
