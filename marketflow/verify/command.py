"""`marketflow verify`, also `python -m marketflow.verify`: arguments, one run, the table, the exit status."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from marketflow.cli_options import MOST_HOURS
from marketflow.errors import MarketflowError
from marketflow.settings import load
from marketflow.verify.case import LAYERS
from marketflow.verify.judge import run

# neither clean nor not clean
CANNOT_JUDGE = 2


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time, as 2026-11-21T10:00Z is") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _hours(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text} is no number of hours above 0, and {MOST_HOURS:,.0f} at most")
    return found


def _truth(text: str) -> Path:
    folder = Path(text)
    if not any((folder / f"{name}.ndjson").is_file() for name in ("trades", "prices")):
        raise argparse.ArgumentTypeError(f"{text} holds neither trades.ndjson nor prices.ndjson")
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="marketflow verify",
        description="Hold every layer against the one before it and the first against the source. Exit 0 when clean.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    parser.add_argument("--at-rest", action="store_true", help="nothing runs: the end of the data is the cut")
    parser.add_argument("--truth", type=_truth, metavar="DIR", help="folder of trades.ndjson and prices.ndjson")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="judge what arrived from this time on (ISO 8601)")
    parser.add_argument(
        "--hours", type=_hours, metavar="N", help="judge what arrived in the last N hours before the cut"
    )
    parser.add_argument(
        "--layers",
        type=lambda text: tuple(text.split(",")),
        default=LAYERS,
        metavar="LIST",
        help=f"comma-separated, of {','.join(LAYERS)}",
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run with command-line arguments; 0 clean, 1 not clean, 2 or more where nothing could be judged."""
    asked = _parser().parse_args(arguments)
    try:
        settings = load()
        report = run(
            settings,
            hours=asked.hours,
            since=asked.since,
            # nothing goes on writing a replay when its command has ended
            at_rest=asked.at_rest or settings.dataset == "replay",
            truth_folder=asked.truth,
            layers=asked.layers,
            output=lambda line: print(line, file=sys.stderr if asked.json else sys.stdout, flush=True),
        )
    except MarketflowError as error:
        print(f"marketflow verify: {error}", file=sys.stderr)
        return max(error.exit_code, CANNOT_JUDGE)
    except psycopg.OperationalError as error:
        print(f"marketflow verify: PostgreSQL refused or does not answer: {error}".strip(), file=sys.stderr)
        return CANNOT_JUDGE
    print(json.dumps(report.as_json(), indent=2) if asked.json else "\n".join(report.lines()))
    return 0 if report.clean else 1
