"""Stopping loudly before the disk is full: a broker on a full disk loses more than a feed that said so and left."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from marketflow.errors import PublishError
from marketflow.settings import Settings

LOOK_EVERY_S = 10.0


class DiskGuard:
    """Watches the disk that this machine's broker writes to. A broker elsewhere is not this process's to watch."""

    def __init__(self, settings: Settings) -> None:
        self._folder: Path | None = settings.home if settings.deployment == "embedded" else None
        self._minimum = settings.minimum_free_disk_bytes
        self._next_look_s = 0.0
        # what to leave with, once everything received has been handed over
        self.shortage: PublishError | None = None

    def is_short(self) -> bool:
        """Whether less than MARKETFLOW_MINIMUM_FREE_DISK_BYTES is free; looks at most every ten seconds."""
        if self.shortage is None and self._folder is not None and time.monotonic() >= self._next_look_s:
            self._look(self._folder)
        return self.shortage is not None

    def _look(self, folder: Path) -> None:
        self._next_look_s = time.monotonic() + LOOK_EVERY_S
        free = shutil.disk_usage(folder).free
        if free < self._minimum:
            self.shortage = PublishError(
                f"{free / 1024**2:,.0f} MiB are free under {folder}, "
                f"MARKETFLOW_MINIMUM_FREE_DISK_BYTES asks for {self._minimum / 1024**2:,.0f} MiB: stopped before "
                "Kafka's disk is full; free some, and the feed goes on by itself"
            )
