"""`make replay-captures CAPTURES=DIR`: every capture of a folder through a fresh replay dataset, all accounted for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from marketflow import settings
from marketflow.errors import MarketflowError
from marketflow.stack import replay

SUFFIXES = (".ndjson", ".jsonl", ".json", ".parquet")


def _given(arguments: list[str]) -> tuple[str, str | None, str | None]:
    """Quote currency, product and length of candles of files that do not say theirs."""
    currency, product, interval = [*arguments, "", "", ""][:3]
    return currency or "usd", product or None, interval or None


def main() -> None:
    """Replay; exit status 1 when a message or item is unaccounted for."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else None
    if folder is None or not folder.is_dir():
        sys.exit("name a folder: make replay-captures CAPTURES=DIR")
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    if not files:
        sys.exit(f"{folder} holds none of {', '.join(SUFFIXES)}")
    try:
        found = replay.run(
            settings.load(dataset="replay"),
            files,
            fresh=True,
            say=lambda line: print(line, file=sys.stderr),
            # pages of prices rarely say their currency; a capture's own word wins over this
            **dict(zip(("vs_currency", "product", "interval"), _given(sys.argv[2:]), strict=True)),
        )
    except MarketflowError as error:
        sys.exit(f"replay-captures: {error}")
    print(replay.render(found))
    print(json.dumps(found.as_dict(), default=str))
    sys.exit(0 if found.balanced else 1)


if __name__ == "__main__":
    main()
