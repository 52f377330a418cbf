"""What an Iceberg snapshot says about itself. No engine is imported, so that light readers may use it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PROPERTY_PREFIX = "marketflow."


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """One snapshot: its id, time, operation and the `marketflow.` properties without their prefix."""

    snapshot_id: int
    parent_id: int | None
    committed_at: datetime
    operation: str
    properties: dict[str, str]
