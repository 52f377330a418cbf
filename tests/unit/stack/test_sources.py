"""`marketflow sources`: what a producer says on its port is shown as what it is, a feed's and a poller's each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from marketflow.ingest.metrics import Metrics
from marketflow.settings import load
from marketflow.stack import sources
from marketflow.stack.servers import free_ports
from marketflow.stack.sources import FAILED_POLLS, Quota, Source, scrape

NOW = datetime(2026, 7, 7, 12, 0, 10, tzinfo=UTC)
FEED = Source(
    **{"service": "producer-coinbase", "venue": "coinbase_exchange", "state": "running", "messages": 7},  # type: ignore[arg-type]
    **{"last_message_at": NOW - timedelta(seconds=3), "messages_per_s": 2.5, "reconnects": 1, "queue_messages": 4},  # type: ignore[arg-type]
    **{"in_flight_messages": 0, "open_gaps": 2, "missing_trades": 11, "quota": None},  # type: ignore[arg-type]
    **{"lost_messages": 5, "ids_went_back": 6},  # type: ignore[arg-type]
)
POLLER = Source(
    **{"service": "producer-binance-prices", "venue": "binance", "state": "running", "messages": 20},  # type: ignore[arg-type]
    **{"last_message_at": None, "messages_per_s": 0.033, "reconnects": None, "queue_messages": None},  # type: ignore[arg-type]
    **{"in_flight_messages": 0, "open_gaps": 0, "missing_trades": 0, "quota": Quota("public", 42, None)},  # type: ignore[arg-type]
    **{"failed_polls": 3, "minute_used": 4, "minute_allowed": 6000},  # type: ignore[arg-type]
)


def cells(*shown: Source) -> list[dict[str, str]]:
    """The rows of the table by their columns."""
    header, rule, *rows, _ = sources.render(list(shown), NOW).splitlines()
    edges = [0]
    for dashes in rule.split("  "):
        edges.append(edges[-1] + len(dashes) + 2)
    spans = list(pairwise(edges))
    names = [header[start:end].strip() for start, end in spans]
    return [dict(zip(names, [row[start:end].strip() for start, end in spans], strict=True)) for row in rows]


def test_a_feed_shows_what_it_lost_and_a_poller_what_failed_and_neither_the_others() -> None:
    feed, poller = cells(FEED, POLLER)
    assert feed == {
        **{"source": "producer-coinbase", "state": "running", "last message": "3 s ago", "per s": "2.5"},
        **{"messages": "7", "reconnects": "1", "queue": "4", "lost": "5", "ids back": "6", "failed polls": ""},
        **{"open gaps": "2 (11 trades)", "spent this month": ""},
    }
    assert poller == {
        **{"source": "producer-binance-prices", "state": "running", "last message": "never", "per s": "0.033"},
        **{"messages": "20", "reconnects": "", "queue": "", "lost": "", "ids back": "", "failed polls": "3"},
        **{"open gaps": "", "spent this month": "42 of no limit (public), 5996 of 6000 left this minute"},
    }


def test_what_is_left_is_in_the_json_too() -> None:
    told = sources.as_dict(POLLER)
    assert (told["failed_polls"], told["minute_used"], told["minute_left"], told["quota_left"]) == (3, 4, 5996, None)
    limited = Quota("demo", 120, 10_000)
    (row,) = cells(
        Source(**{**{f: getattr(POLLER, f) for f in Source.__slots__}, "quota": limited, "minute_used": None})
    )
    assert row["spent this month"] == "120 of 10000, 9880 left (demo)"
    assert sources.as_dict(FEED)["quota_left"] is None


def test_a_scrape_counts_every_poll_but_those_that_brought_a_price() -> None:
    (port,) = free_ports(1)
    settings = load(producer_coincap_metrics_port=port)
    assert scrape(settings, "producer-coincap") is None
    metrics = Metrics("coincap")
    metrics.serve("127.0.0.1", port, "producer_coincap_metrics_port")
    for status, count in {"200": 10, "429": 2, "200_empty_page": 3, "slow": 1}.items():
        metrics.polls.labels("coincap", status).inc(count)
    told = scrape(settings, "producer-coincap")
    assert told is not None
    assert (told["marketflow_polls_total"], told[FAILED_POLLS]) == (16, 6)
    assert "marketflow_minute_used_weight" not in told
