"""Pages of candles in every venue's documented shape, with own figures, and what they hold. No capture may be carried.

Each page has the same three candles of one minute from 12:00 on, newest first where the venue sends them so: two that
are over and one that is not when the page arrives, at 12:02:30.
"""

from __future__ import annotations

from datetime import UTC, datetime

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
RECEIVED_US = (NOON_S + 150) * 1_000_000
RECEIVED = {"received_at": str(RECEIVED_US), "http_status": "200", "origin": "backfill"}

EXCHANGE_HEADERS = {
    **{"venue": "coinbase_exchange", "channel": "candles", "product_id": "BTC-USD", "interval": "1m"},
    **RECEIVED,
}
# [time, low, high, open, close, volume]
EXCHANGE = (
    f"[[{NOON_S + 120},63553.1,63553.1,63553.1,63553.1,0.00012],"
    f"[{NOON_S + 60},63500,63560.55,63551.02,63553.10,1.2345678901234567891],"
    f"[{NOON_S},63551.01,63551.02,63551.01,63551.02,2.5e-7]]"
).encode()

ADVANCED_HEADERS = EXCHANGE_HEADERS | {"venue": "coinbase_advanced"}
ADVANCED = (
    '{"candles":['
    f'{{"start":"{NOON_S + 120}","low":"63553.1","high":"63553.1","open":"63553.1","close":"63553.1","volume":"1"}},'
    f'{{"start":"{NOON_S + 60}","low":"63500","high":"63560.55","open":"63551.02","close":"63553.10","volume":"1.25"}},'
    f'{{"start":"{NOON_S}","low":"63551.01","high":"63551.02","open":"63551.01","close":"63551.02","volume":"0.5"}}]}}'
).encode()

KLINES_HEADERS = EXCHANGE_HEADERS | {"venue": "binance", "channel": "klines", "product_id": "BTC-USDT"}
_KLINE = '[{}000,"{}","{}","{}","{}","{}",{}999,"{}",{},"0.4","25000.1","0"]'
KLINES = (
    "["
    + ",".join(
        (
            _KLINE.format(NOON_S, "63551.01", "63551.02", "63551.01", "63551.02", "0.5", NOON_S + 59, "31775.51", 7),
            _KLINE.format(
                *(NOON_S + 60, "63551.02", "63560.55", "63500.00", "63553.10", "1.25", NOON_S + 119, "79440", 0)
            ),
            _KLINE.format(NOON_S + 120, "63553.1", "63553.1", "63553.1", "63553.1", "1", NOON_S + 179, "63553.1", 1),
        )
    )
    + "]"
).encode()

HISTORY_HEADERS = EXCHANGE_HEADERS | {"venue": "cryptocompare", "channel": "histominute"}
del HISTORY_HEADERS["interval"]
_MINUTE = (
    '{{"time":{},"high":{},"low":{},"open":{},"volumefrom":{},"volumeto":{},"close":{},'
    '"conversionType":"direct","conversionSymbol":""}}'
)
HISTORY = (
    '{"Response":"Success","Message":"","HasWarning":false,"Type":100,"RateLimit":{},"Data":{"Aggregated":false,'
    f'"TimeFrom":{NOON_S},"TimeTo":{NOON_S + 120},"Data":['
    + ",".join(
        (
            _MINUTE.format(NOON_S, 63551.02, 63551.01, 63551.01, 0.5, 31775.51, 63551.02),
            _MINUTE.format(NOON_S + 60, 63560.55, 63500, 63551.02, "1.591", "101110.62345678901234567", 63553.1),
            _MINUTE.format(NOON_S + 120, 63553.1, 63553.1, 63553.1, 0, 0, 63553.1),
        )
    )
    + "]}}"
).encode()

PAGES = {
    "coinbase_exchange": (EXCHANGE_HEADERS, EXCHANGE),
    "coinbase_advanced": (ADVANCED_HEADERS, ADVANCED),
    "binance": (KLINES_HEADERS, KLINES),
    "cryptocompare": (HISTORY_HEADERS, HISTORY),
}
