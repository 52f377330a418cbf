"""`marketflow forecast` and Dag train_forecast: rows, training, and the stores that keep what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marketflow.errors import ConfigurationError, InputError
from marketflow.forecast import store
from marketflow.forecast.lake import Wish, rows_of_file, rows_of_lake
from marketflow.forecast.record import Record, record
from marketflow.forecast.rows import choose
from marketflow.forecast.scores import BASELINES
from marketflow.forecast.train import train
from marketflow.settings import Settings
from marketflow.stack import s3
from marketflow.warehouse import forecasts
from marketflow.warehouse.connection import connect


def train_on_lake(settings: Settings, wish: Wish) -> Record:
    """Train on gold.trade_features; the model goes to the lake's bucket, then a row to ops.forecast_run.

    Raises:
        ConfigurationError, InputError: as `forecast.lake.rows_of_lake`, and too few rows.
    """
    frame, source = rows_of_lake(settings, wish)
    trained = train(choose(frame, wish.horizon))
    kept = record(trained, source, datetime.now(UTC))
    uri = store.to_bucket(s3.client(settings), settings.lake_bucket, settings.dataset, trained.model, kept)
    with connect(settings) as connection:
        forecasts.insert(connection, _row(kept, uri))
    return kept | {"model_uri": uri}


def train_on_file(path: Path, out: Path, horizon: int, product_id: str | None, venue: str | None) -> Record:
    """Train on rows of a file; model and record go to a folder. No server is asked.

    Raises:
        InputError: as `forecast.lake.rows_of_file`, rows of two markets, too few rows; no folder can be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the folder for the model cannot be made: {error.strerror or error}") from error
    frame, source = rows_of_file(path, horizon, product_id, venue)
    trained = train(choose(frame, horizon))
    kept = record(trained, source, datetime.now(UTC))
    return kept | {"model_uri": store.to_folder(out, trained.model, kept)}


def listed(settings: Settings, product_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Rows of ops.forecast_run, newest first."""
    with connect(settings, "marketflow_reader") as connection:
        return forecasts.listed(connection, product_id=product_id, limit=limit)


def show(settings: Settings, run_id: str) -> Record:
    """The whole record of a run, once its model was found to be the one that was trained.

    Raises:
        ConfigurationError: there is no such run.
        LakeStateError: the stored model was changed.
    """
    with connect(settings, "marketflow_reader") as connection:
        row = forecasts.one(connection, run_id)
    if row is None:
        raise ConfigurationError(f"no run {run_id!r}; `marketflow forecast list` shows them")
    _, kept = store.from_bucket(s3.client(settings), row["model_uri"], row["model_sha256"])
    return kept | {"model_uri": row["model_uri"]}


def _row(kept: Record, uri: str) -> dict[str, Any]:
    """The record as a row of ops.forecast_run."""
    score, settled, rows = kept["score"], kept["score_of_settled_rows"], kept["rows"]
    same = ("run_id", "trained_at", "venue", "product_id", "horizon", "beats_baseline", "verdict", "model_sha256")
    return {
        **{name: kept[name] for name in same},
        **{name: score[name] for name in ("effective_rows", "accuracy", "log_loss", "auc", "base_rate_log_loss")},
        **{f"{name}_accuracy": score["baselines"][name]["accuracy"] for name in BASELINES},
        "snapshot_id": kept["source"]["snapshot_id"],
        "first_event_ts": rows["first_event_ts"],
        "last_event_ts": rows["last_event_ts"],
        "row_count": rows["used"],
        "tested_rows": score["rows"],
        "settled_rows": settled["rows"] if settled else 0,
        "settled_accuracy": settled["accuracy"] if settled else None,
        "model_uri": uri,
    }
