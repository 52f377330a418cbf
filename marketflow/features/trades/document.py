"""What is generated from the catalogue: `python -m marketflow.features.trades.document [--check]`.

docs/features.md for people, and marketflow/contracts/trade_features.ndjson, the columns of gold.trade_features:
contracts know no kernel.
"""

from __future__ import annotations

import json
import sys

from marketflow.features.offline import OPTIONAL, OPTIONAL_QUOTES
from marketflow.features.trades.catalogue import CATALOGUE, FEATURES, TARGETS
from marketflow.features.trades.feature import GROUPS, Feature
from marketflow.features.trades.tape import (
    DISORDER,
    HORIZON,
    LOOKBACK,
    QUOTE_AGE_LIMIT_MS,
    QUOTE_COLUMNS,
    TRADE_COLUMNS,
)
from marketflow.paths import PROJECT_FOLDER

PAGE = PROJECT_FOLDER / "docs" / "features.md"
COLUMNS = PROJECT_FOLDER / "marketflow" / "contracts" / "trade_features.ndjson"


def _needed(columns: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    return [name for name in columns if name not in optional]


_HEAD = f"""# Trade features and targets

Generated from `marketflow/features/trades/` by `make docs`; do not edit. `marketflow features list --json` says the
same to a program. {len(FEATURES)} features, {len(TARGETS)} targets.

Trades are in order of trade_id within venue and product; t is the row's own trade. A window of w holds the trades
t−(w−1) … t and is null until there are so many, never 0. *Back* is how many trades before its own a value reads
({LOOKBACK} at most), *ahead* how many after it: a column with *ahead* reads the future and is a target, never a
feature. A quote is the last strictly before the trade and at most {QUOTE_AGE_LIMIT_MS // 1000} s old. `is_final` says
that {HORIZON} more trades are known, so that a row's targets will not change.

A venue's times may run against its sequences by up to {DISORDER.seconds:d} s. A quote that is further off than that is
looked at or not, by where a file or an hour ends. Of quotes of one time and no sequence nothing tells which was last:
always the same one is taken, whatever the order of the rows.

## Of files of your own

`marketflow features build --trades FILE [--quotes FILE] --out FILE`, in Python `marketflow.features.offline`. Parquet
or CSV, rows in any order, several venues and products in one file. Other columns are left alone; docs/tables.md has
each of these (silver.trades, silver.quotes).

- Trades need {", ".join(_needed(TRADE_COLUMNS, OPTIONAL))}; they may have {", ".join(OPTIONAL)}.
- Quotes need {", ".join(_needed(QUOTE_COLUMNS, OPTIONAL_QUOTES))}; they may have {", ".join(OPTIONAL_QUOTES)}.
- Prices and sizes are decimals, whole numbers or text; floats are refused, and so is a digit beyond the 18th place.
- Times have a zone in Parquet. In CSV they are ISO text with seconds, `2026-11-21T10:00:00.123456Z`, UTC where it names
  no zone. Digits beyond the microsecond are cut.
- A trade that is there twice, a quote that contradicts another of its sequence, an amount that is not above zero, an
  empty cell in a needed column: refused, with the column and how many there are. A row whose quote is later, older than
  {QUOTE_AGE_LIMIT_MS // 1000} s, or of another product, has nulls; how many rows found one is said at the end.
- Rows with fewer than {LOOKBACK} trades before them are left out and counted; `--keep-warmup` keeps them, with nulls.

`marketflow verify` computes them again, with code that shares nothing with these: most of every row in SQL, and all of
some rows of each hour in decimals, as docs/operations.md says."""


def _row(one: Feature) -> str:
    cells = (
        f"`{one.name}`",
        one.type.value,
        one.unit,
        str(one.lookback),
        str(one.horizon) if one.reads_future else "",
        f"{one.description}.",
        one.formula,
        one.null,
        one.source,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(group: str) -> str:
    head = "| column | type | unit | back | ahead | what it is | formula | null | source |"
    lines = [f"## {group}", "", head, "| --- " * 9 + "|"]
    return "\n".join([*lines, *(_row(one) for one in CATALOGUE.values() if one.group == group)])


def document() -> str:
    """The whole page."""
    return "\n\n".join([_HEAD, *(_section(group) for group in GROUPS)]) + "\n"


def columns() -> str:
    """A line for each feature and target: what its column promises."""
    lines = (
        {
            "name": one.name,
            "type": one.type.name,
            "description": f"{one.description}: {one.formula}",
            "unit": one.unit,
            "nullable": one.null != "never",
        }
        for one in CATALOGUE.values()
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main() -> None:
    """Write both, or with `--check` say which is out of date."""
    for target, text in ((PAGE, document()), (COLUMNS, columns())):
        if "--check" not in sys.argv[1:]:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            sys.exit(f"{target.relative_to(PROJECT_FOLDER)} differs from the catalogue: run `make docs`")


if __name__ == "__main__":
    main()
