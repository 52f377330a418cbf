"""What is kept of a training: everything that is needed to judge it, and to make the same model again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from marketflow.forecast import train as training
from marketflow.forecast.scores import Score
from marketflow.forecast.train import Trained

Record = dict[str, Any]


def record(trained: Trained, source: dict[str, Any], trained_at: datetime) -> Record:
    """For JSON. `source` says which rows: a snapshot's id with the interval, or a file with its hash."""
    rows = trained.rows
    return {
        "run_id": f"{rows.product_id}-{rows.horizon}-{trained_at:%Y%m%dT%H%M%S%f}Z-{trained.sha256[:8]}",
        "trained_at": trained_at.isoformat(),
        "venue": rows.venue,
        "product_id": rows.product_id,
        "horizon": rows.horizon,
        "source": source,
        "rows": {
            "used": len(rows),
            "not_final": rows.not_final,
            "without_target": rows.without_target,
            "first_event_ts": rows.first_event_ts.isoformat(),
            "last_event_ts": rows.last_event_ts.isoformat(),
        },
        "beats_baseline": trained.beats_baselines,
        "verdict": trained.verdict,
        "score": scored(trained.overall),
        "score_of_settled_rows": None if trained.settled is None else scored(trained.settled),
        "folds": [asdict(fold.split) | scored(fold.score) for fold in trained.folds],
        "features": list(rows.features),
        "parameters": training.PARAMETERS,
        "rounds": training.ROUNDS,
        "embargo": training.EMBARGO,
        "lightgbm": version("lightgbm"),
        "model_sha256": trained.sha256,
    }


def scored(score: Score) -> dict[str, Any]:
    """A score for JSON."""
    return asdict(score) | {"hardest_baseline": score.hardest, "beats_baselines": score.beats_baselines}


def render(kept: Record) -> str:
    """For a person: where it is from, a line a fold, then the sentences."""
    rows, source = kept["rows"], kept["source"]
    origin = f"snapshot {source['snapshot_id']}" if "snapshot_id" in source else source["file"]
    lines = [
        f"run {kept['run_id']}: direction of {kept['venue']} {kept['product_id']} over {kept['horizon']} trades",
        f"rows {rows['used']:,} of {origin}, {rows['first_event_ts']} to {rows['last_event_ts']} "
        f"({rows['without_target']:,} left out without a target, {rows['not_final']:,} not final)",
        "",
        _LINE.format("", "rows", "accuracy", "log-loss", "AUC", *_SHORT),
    ]
    named = [(f"test {number}", fold) for number, fold in enumerate(kept["folds"], start=1)]
    named += [("all tests", kept["score"]), ("could act on", kept["score_of_settled_rows"])]
    lines += [_line(name, one) for name, one in named if one is not None]
    return "\n".join([*lines, "", kept["verdict"], f"model sha256 {kept['model_sha256']}"])


# columns of the baselines, whose accuracy is shown
_SHORT = ("coin", "majority", "last", "reversed", "taker", "bounce")
_LINE = "{:<12} {:>8} {:>8} {:>8} {:>6}  | {:>6} {:>8} {:>6} {:>8} {:>6} {:>6}"


def _line(name: str, one: dict[str, Any]) -> str:
    area = "" if one["auc"] is None else f"{one['auc']:.3f}"
    guesses = [f"{each['accuracy']:.3f}" for each in one["baselines"].values()]
    return _LINE.format(
        name, f"{one['rows']:,}", f"{one['accuracy']:.3f}", f"{one['log_loss']:.3f}", area, *guesses
    ).rstrip()
