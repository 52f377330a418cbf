"""The market stream: every raw topic into bronze, and live prices into PostgreSQL, as one Spark application.

    python spark_jobs/stream_market.py
    spark-submit --driver-class-path '.jars/spark/*' spark_jobs/stream_market.py --available-now

Settings come from MARKETFLOW_* variables. SIGTERM ends it between two batches, with 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketflow.errors import MarketflowError
from marketflow.lake import stream
from marketflow.settings import load
from marketflow.warehouse import fence


def main() -> int:
    """Arguments, call, done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--available-now", action="store_true", help="read what is there now, then end with 0")
    parser.add_argument(
        "--apply-contracts",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="bring lake and PostgreSQL to their contracts first (default)",
    )
    parser.add_argument(
        "--fence-wait-s",
        type=float,
        default=fence.WAIT_S,
        help="seconds between taking the checkpoint's lock and the first write; less is safe only "
        "where no other driver can have held it (default: %(default)s)",
    )
    arguments = parser.parse_args()
    try:
        return stream.run(
            load(),
            available_now=arguments.available_now,
            apply_contracts=arguments.apply_contracts,
            fence_wait_s=arguments.fence_wait_s,
        )
    except MarketflowError as error:
        print(f"stream: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
