"""What the wire carries of a batch, batch by batch."""

from __future__ import annotations

import json

from marketflow.simulator.bad_messages import FeedFaults
from marketflow.simulator.coinbase_wire import WireMessage
from marketflow.simulator.faults import MESSAGE_FAULTS, FaultBox, FaultKind, FaultRequest


def match(product_id: str, trade_id: int) -> WireMessage:
    payload = json.dumps({"type": "match", "product_id": product_id, "trade_id": trade_id}).encode()
    return WireMessage("matches", product_id, payload)


def test_a_held_back_message_comes_with_its_streams_next_though_no_fault_is_left() -> None:
    box = FaultBox({}, 1)
    faults = FeedFaults(box, MESSAGE_FAULTS)
    box.add(FaultRequest(fault=FaultKind.REORDER, product="BTC-USD"), 0)
    # the other product's message, after the one that is held back, sees that the order is used up
    first, other, second, third = match("BTC-USD", 1), match("ETH-USD", 7), match("BTC-USD", 2), match("BTC-USD", 3)
    assert faults.apply([first, other], 1) == [other]
    assert box.is_idle
    assert faults.apply([match("ETH-USD", 8)], 2) == [match("ETH-USD", 8)]
    assert faults.apply([second, third], 3) == [second, first, third]
    assert faults.apply([third], 4) == [third]
