"""The balance of a silver commit: every message and every item read went somewhere, by name."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

from marketflow.errors import LakeStateError
from marketflow.lake import watermark
from marketflow.lake.watermark import Offsets


@dataclasses.dataclass(frozen=True, slots=True)
class Accounting:
    """What became of one batch; the columns of ops.silver_accounting of the same names.

    Rows added = accepted - already_here. A repair (close_hour, redrive) reads messages that were counted before, so
    its numbers are what it changes: a redriven item is one more accepted and one less rejected.
    """

    messages: int = 0
    ignored: int = 0
    parsed: int = 0
    unparseable: int = 0
    items: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    already_here: int = 0
    ignored_by_name: dict[str, int] = dataclasses.field(default_factory=dict)
    first_offsets: Offsets = dataclasses.field(default_factory=dict)
    next_offsets: Offsets = dataclasses.field(default_factory=dict)

    @property
    def inserted(self) -> int:
        """Rows that the commit adds."""
        return self.accepted - self.already_here

    def check(self, what: str) -> None:
        """A LakeStateError where the sums do not hold: something was lost or made up on the way."""
        if self.ignored + self.parsed + self.unparseable != self.messages:
            raise LakeStateError(
                f"{what}: {self.ignored} ignored + {self.parsed} parsed + {self.unparseable} unparseable "
                f"is not {self.messages} messages; nothing was committed"
            )
        if self.accepted + self.duplicate + self.rejected != self.items:
            raise LakeStateError(
                f"{what}: {self.accepted} accepted + {self.duplicate} duplicate + {self.rejected} rejected "
                f"is not {self.items} items; nothing was committed"
            )

    def __add__(self, other: Accounting) -> Accounting:
        """Both together; offsets are the other's, since they say where the sum ends."""
        counts = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
            if field.type == "int"
        }
        names = dict(Counter(self.ignored_by_name) + Counter(other.ignored_by_name))
        return Accounting(
            **counts,
            ignored_by_name=names,
            first_offsets={**other.first_offsets, **self.first_offsets},
            next_offsets={**self.next_offsets, **other.next_offsets},
        )

    def to_json(self) -> str:
        """As the snapshot property stores it; offsets as the watermark does."""
        values = dataclasses.asdict(self)
        for name in ("first_offsets", "next_offsets"):
            values[name] = json.loads(watermark.encode_offsets(getattr(self, name)))
        return json.dumps(values, sort_keys=True)
