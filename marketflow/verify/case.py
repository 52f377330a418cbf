"""What one run of the judge holds in its hands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from marketflow.settings import Settings
from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable, Warehouse, Workspace

LAYERS = ("bronze", "silver", "gold", "postgres", "live")


@dataclass(slots=True)
class Case:
    """The pinned state of every store, the scope, and the report that is being written.

    `cut_us` is None where the end of the data is the cut; `since_us` is None where everything is judged.
    `stopped_us` tells since when a producer is stopped by hand.
    """

    settings: Settings
    space: Workspace
    warehouse: Warehouse
    report: Report
    output: Callable[[str], None]
    layers: tuple[str, ...]
    tables: dict[str, LakeTable]
    truth_folder: Path | None
    cut_us: int | None
    since_us: int | None
    stopped_us: dict[str, int] = field(default_factory=dict)
    products: tuple[str, ...] = ()

    @property
    def services(self) -> dict[str, list[str]]:
        """Kind of fact to the producers that bring it here."""
        found: dict[str, list[str]] = {}
        for source in self.settings.active_sources:
            for kind in source.brings:
                found.setdefault(kind, []).append(source.service)
        return found

    @property
    def heard(self) -> list[tuple[str, str, int | None]]:
        """(venue, product_id, since when its feed is stopped by hand, in µs) of all trades that are collected here."""
        return [
            (source.venue, product_id, self.stopped_us.get(source.service))
            for source in self.settings.active_sources
            if source.is_feed
            for product_id in self.settings.products_of(source)
        ]

    @property
    def at_rest(self) -> bool:
        """Whether nothing runs, so that all data there is must have gone all the way."""
        return self.cut_us is None

    def stopped(self, kind: str) -> int | None:
        """Since when all producers of this kind of fact are stopped by hand, in µs; None where one should run."""
        stops = [self.stopped_us.get(service) for service in self.services.get(kind, ())]
        known = [stop for stop in stops if stop is not None]
        return max(known) if known and len(known) == len(stops) else None

    def since(self, column: str) -> str:
        """SQL condition on a timestamp column of the lake."""
        if self.since_us is None:
            return "true"
        return f"{column} >= make_timestamptz({self.since_us})"

    def nothing_compared(self, layer: str, table: str, kind: str, *, reason: str | None = None) -> None:
        """Zero compared is a fault, unless there is a reason why there could be nothing."""
        if any(one.compared for one in self.report.comparisons if (one.layer, one.table) == (layer, table)):
            return
        services = self.services.get(kind, [])
        # candles have no source, but where somebody asked for some they must be there
        if reason is None and not services and kind != "candles":
            reason = f"no source of {kind} is collected"
        if reason is None and self.stopped(kind) is not None:
            reason = f"{' and '.join(services)} {'is' if len(services) == 1 else 'are'} stopped by hand"
        if reason is None:
            self.report.problem(layer, table, "all", "nothing compared", f"{table} was compared with nothing", count=1)
        else:
            self.report.notes.append(f"{layer} {table}: nothing compared, since {reason}")
