"""The table of metrics in docs/operations.md is what a producer answers."""

from __future__ import annotations

import re

from prometheus_client import Histogram

from marketflow.ingest.metrics import Metrics
from marketflow.paths import PROJECT_FOLDER


def documented() -> dict[str, tuple[str, ...]]:
    """Names and labels of the table."""
    text = (PROJECT_FOLDER / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(marketflow_\w+)` \| ([\w, ]+) \| .+ \|$", text, re.MULTILINE)
    return {name: tuple(label.strip() for label in labels.split(",")) for name, labels in rows}


def test_the_documented_metrics_are_those_of_the_code_with_their_labels() -> None:
    registry = Metrics("binance").registry
    found = {}
    for collector in set(registry._collector_to_names):
        assert isinstance(collector, Histogram) or len(list(collector.describe())) == 1
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = tuple(collector._labelnames)  # type: ignore[attr-defined]
    assert len(found) >= 19
    assert documented() == found
