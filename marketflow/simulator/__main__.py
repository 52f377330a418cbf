"""`python -m marketflow.simulator` is the service; `… capture` writes hours of the same market on a virtual clock."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from marketflow import settings as marketflow_settings
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.simulator import capture, configuration, service


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _arguments(words: list[str]) -> argparse.Namespace:
    market = argparse.ArgumentParser(add_help=False)
    market.add_argument("--rate", type=float, help="trades per second and product after the tape")
    market.add_argument("--seed", type=int, help="the same seed makes the same market")
    market.add_argument("--products", help="comma-separated, BASE-QUOTE")
    market.add_argument(
        "--no-tape", dest="tape", action="store_const", const=False, help="random trades from the start"
    )
    market.add_argument("--faults", help='JSON of probabilities per message: {"drop": 0.001}')
    parser = argparse.ArgumentParser(prog="python -m marketflow.simulator", description=__doc__, parents=[market])
    commands = parser.add_subparsers(dest="command")
    offline = commands.add_parser("capture", parents=[market], help="write a capture and its truth, then leave")
    offline.add_argument("--out", type=Path, required=True, help="NDJSON file to write")
    offline.add_argument("--truth", type=Path, required=True, help="folder for trades.ndjson and prices.ndjson")
    offline.add_argument("--start", type=_moment, required=True, help="ISO time, UTC where it has no zone")
    offline.add_argument("--hours", type=float, default=3.0)
    offline.add_argument("--assets", type=int, default=100, help="coins polled from the aggregator; 0 for none")
    offline.add_argument("--poll-interval-s", type=float, default=30.0)
    return parser.parse_args(words)


def run(words: list[str]) -> None:
    """Do what the command line says."""
    arguments = _arguments(words)
    try:
        faults = json.loads(arguments.faults) if arguments.faults else None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"--faults is not JSON: {error}") from None
    knobs = configuration.load(
        rate=arguments.rate, seed=arguments.seed, products=arguments.products, tape=arguments.tape, faults=faults
    )
    settings = marketflow_settings.load()
    if arguments.command == "capture":
        counts = capture.write(
            capture.Plan(
                out=arguments.out,
                truth=arguments.truth,
                start=arguments.start,
                hours=arguments.hours,
                products=knobs.products or settings.products,
                currencies=knobs.vs_currencies or settings.vs_currencies,
                assets=arguments.assets,
                poll_interval_s=arguments.poll_interval_s,
            ),
            knobs,
        )
        print(json.dumps(counts))
    else:
        asyncio.run(service.serve(settings, knobs))


def main() -> None:
    """The process's edge: an error is one line, and its exit status says which kind."""
    try:
        run(sys.argv[1:])
    except MarketflowError as error:
        print(f"simulator: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
