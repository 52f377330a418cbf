"""A producer's Prometheus metrics, on 127.0.0.1 at the port of its service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from marketflow.errors import ConfigurationError
from marketflow.ingest.pulse import Pulse

# From one broker round trip on loopback to an outage.
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0)


class Metrics:
    """The metrics of one producer process; every name starts with `marketflow_`."""

    def __init__(self, venue: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.venue = venue
        self.messages = self._counter("messages", "Payloads received", "channel")
        self.bytes = self._counter("bytes", "Payload bytes received").labels(venue)
        self.delivered = self._counter("delivered", "Messages acknowledged by Kafka").labels(venue)
        self.oversize = self._counter("oversize", "Payloads kept in part because the topic cannot take them").labels(
            venue
        )
        self.reconnects = self._counter("reconnects", "Connections that ended, by why", "cause")
        self.gaps = self._counter("gaps", "Holes in trade_id, by cause", "cause")
        self.missing = self._counter("missing_trades", "Trade ids inside those holes").labels(venue)
        self.filled = self._counter("filled_trades", "Trades that arrived after their hole was seen").labels(venue)
        self.healed = self._counter("healed_trades", "Missing trades that REST brought").labels(venue)
        self.lost = self._counter("lost_messages", "Messages missing by their number in the connection").labels(venue)
        self.went_back = self._counter("ids_went_back", "Trades whose id lies far below the highest").labels(venue)
        self.polls = self._counter("polls", "REST answers by what they were: 200 brought a price", "status")
        self.loose_polls = self._counter(
            "loose_polls", "Polls whose oldest trade is newer than the last one seen: those in between are lost"
        )
        self.queue = self._gauge("queue_messages", "Messages received and not yet handed to Kafka's client")
        self.in_flight = self._gauge("in_flight_messages", "Messages handed over and not yet acknowledged")
        self.outbox = self._gauge("outbox_writes", "Ledger and quota writes waiting for Postgres")
        self.connected = self._gauge("connected", "1 while a feed's connection is open")
        self.last_message = self._gauge("last_message_timestamp_seconds", "When the last payload arrived")
        self.quota_left = self._gauge("quota_left_calls", "Calls left this month; absent without a monthly quota")
        self.minute_used = self._gauge("minute_used_weight", "Weight spent in this minute, as the venue itself counts")
        # asked for at each scrape, so that they grow while the loop stands still
        self.pulse = Pulse()
        self._gauge("loop_quiet_seconds", "Since the producer's loop last ran").set_function(self.pulse.quiet_s)
        self._gauge("overdue_seconds", "How late its own next step is, by its own plan").set_function(
            self.pulse.overdue_s
        )
        self.latency = Histogram(
            "marketflow_publish_latency_seconds",
            "Hand-over to acknowledgement",
            ("venue",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        ).labels(venue)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"marketflow_{name}", text, ("venue", *labels), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"marketflow_{name}", text, ("venue",), registry=self.registry)
        return gauge if name in ("quota_left_calls", "minute_used_weight") else gauge.labels(self.venue)

    def observe_delivery(self, seconds: float) -> None:
        """One acknowledged message."""
        self.delivered.inc()
        self.latency.observe(seconds)

    def serve(self, host: str, port: int, setting: str) -> None:
        """Answer scrapes; ConfigurationError naming the setting where the port is taken."""
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"MARKETFLOW_{setting.upper()}: cannot listen on {host}:{port}: {error}"
            ) from error
