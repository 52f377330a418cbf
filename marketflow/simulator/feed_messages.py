"""Messages of a feed between the market and the socket: whose they are, and what becomes of each on the wire."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from enum import Enum, auto
from typing import NamedTuple

Stream = tuple[str, str]  # channel and product; a channel without products has "" for one


class Fate(Enum):
    """What the wire does to a message. A venue that numbers what it sends has numbered it in every case."""

    SENT = auto()
    LOST = auto()
    HELD = auto()  # sent later, as RELEASED, under the number that it has got now
    RELEASED = auto()
    REPEATED = auto()  # the message before it once more


class WireMessage(NamedTuple):
    """One message before it is framed.

    `trade_ids` are the trades that it tells; `slot` joins the two places of a held message. `spoil` changes the bytes
    as they leave, envelope and all; a `bare` message has no envelope.
    """

    channel: str
    product_id: str
    payload: bytes
    trade_ids: tuple[int, ...] = ()
    fate: Fate = Fate.SENT
    slot: int = 0
    spoil: Callable[[bytes], bytes] | None = None
    bare: bool = False

    @property
    def stream(self) -> Stream:
        """Who wants it."""
        return self.channel, self.product_id

    @property
    def leaves(self) -> bool:
        """Whether bytes go out at this place."""
        return self.fate not in (Fate.LOST, Fate.HELD)

    def spoiled(self, payload: bytes) -> bytes:
        """The bytes that leave."""
        return self.spoil(payload) if self.spoil else payload


def frame(payload: bytes) -> bytes:
    """One unmasked text frame, as servers send them (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


def half_of_first(frames: bytes) -> bytes:
    """The first half of the first frame: its header says more than what follows."""
    if frames[1] < 126:
        length = 2 + frames[1]
    elif frames[1] == 126:
        length = 4 + int.from_bytes(frames[2:4], "big")
    else:
        length = 10 + int.from_bytes(frames[2:10], "big")
    return frames[: length // 2]


class Batch:
    """Messages that are framed once for each form they have, and joined once for each set of streams."""

    def __init__(self, messages: Sequence[WireMessage]) -> None:
        self.messages = messages
        self._framed: dict[Hashable, list[tuple[Stream, bytes]]] = {}
        self._joined: dict[tuple[Hashable, frozenset[Stream]], tuple[bytes, int]] = {}
        self._wanted: dict[frozenset[Stream], list[WireMessage]] = {}

    def joined(
        self, wanted: frozenset[Stream], form: Hashable, write: Callable[[WireMessage], bytes]
    ) -> tuple[bytes, int]:
        """All frames of these streams, and how many they are; `write` gives a message's bytes in that form."""
        if (form, wanted) not in self._joined:
            if form not in self._framed:
                leaving = (message for message in self.messages if message.leaves)
                self._framed[form] = [(message.stream, frame(write(message))) for message in leaving]
            frames = [each for stream, each in self._framed[form] if stream in wanted]
            self._joined[form, wanted] = b"".join(frames), len(frames)
        return self._joined[form, wanted]

    def wanted(self, wanted: frozenset[Stream]) -> list[WireMessage]:
        """The messages of these streams, those too that do not leave."""
        if wanted not in self._wanted:
            self._wanted[wanted] = [message for message in self.messages if message.stream in wanted]
        return self._wanted[wanted]
