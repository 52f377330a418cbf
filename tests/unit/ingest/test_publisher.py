"""What a topic cannot take is kept in part, and says so."""

from __future__ import annotations

import hashlib

from marketflow.contracts.topics import MAX_MESSAGE_BYTES
from marketflow.ingest.publisher import MAX_PAYLOAD_BYTES, producer_configuration, shortened
from marketflow.settings import Settings


def test_an_oversize_payload_keeps_its_first_mebibyte_length_and_digest() -> None:
    value = bytes(range(256)) * (40 * 1024)  # 10 MiB
    kept, headers = shortened(value, [("venue", b"coinbase_exchange")])
    assert kept == value[: 1024**2]
    assert headers == [
        ("venue", b"coinbase_exchange"),
        ("original_length", b"10485760"),
        ("sha256", hashlib.sha256(value).hexdigest().encode()),
        ("oversize", b"1"),
    ]


def test_a_producer_never_gives_a_message_up_by_itself() -> None:
    configuration = producer_configuration(Settings())
    assert configuration["enable.idempotence"] is True
    assert configuration["acks"] == "all"
    assert configuration["message.timeout.ms"] == 0
    assert configuration["compression.type"] == "zstd"
    assert MAX_PAYLOAD_BYTES < configuration["message.max.bytes"] == MAX_MESSAGE_BYTES
