"""Files of a researcher's own: Parquet and CSV with the columns of a contract, read strictly, written in parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.contracts.columns import Table, Type
from marketflow.errors import InputError
from marketflow.features import frames

FORMATS = (".parquet", ".csv")


def read(path: Path, table: Table, required: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """The asked columns of a file, in the contract's types; other columns are left out, optional ones may be missing.

    Prices and sizes are decimals: a file that holds them as floats has lost what the venue wrote, and is refused with
    what to do. CSV has text only, which is read as the contract's type.

    Raises:
        InputError: no such file, another format, a column that is missing, of another type, or holds what is none.
    """
    frame = _opened(path)
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; it needs {', '.join(required)} of {table.qualified} "
            f"(docs/tables.md) and has {', '.join(frame.columns) or 'none'}"
        )
    columns = [name for name in (*required, *optional) if name in frame.columns]
    is_text = path.suffix == ".csv"
    made = frame.select(_column(frame[name], table, name, path, is_text) for name in columns)
    absent = [name for name in optional if name not in frame.columns]
    return made.with_columns(pl.lit(None, frames.POLARS_TYPES[table.column(name).type]).alias(name) for name in absent)


def _opened(path: Path) -> pl.DataFrame:
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: its name must end with {' or '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _column(series: pl.Series, table: Table, name: str, path: Path, is_text: bool) -> pl.Series:
    """The column in its contract's type; a clear error where it is of another kind or a value does not fit."""
    wanted = table.column(name).type
    if not is_text and not _is_kind(series.dtype, wanted):
        raise InputError(
            f"{path}: column {name} is {series.dtype}, {table.qualified} has {wanted.value}: {_ADVICE[wanted]}"
        )
    made = _from_text(series, wanted) if series.dtype == pl.String and wanted is not Type.STRING else None
    made = series.cast(frames.POLARS_TYPES[wanted], strict=False) if made is None else made
    lost = series.is_not_null() & made.is_null()
    if lost.any():
        example = series.filter(lost)[0]
        raise InputError(f"{path}: column {name}: {example!r} is no {wanted.value} ({int(lost.sum()):,} such values)")
    return made


_ADVICE = {
    Type.MONEY: "give decimals (or text), not floats, e.g. pl.col(...).cast(pl.Decimal(38, 18)) from the venue's text",
    Type.TIMESTAMP: "give times with a zone, e.g. pl.col(...).dt.replace_time_zone('UTC')",
    Type.STRING: "give text",
    Type.LONG: "give whole numbers",
    Type.INTEGER: "give whole numbers",
    Type.DOUBLE: "give numbers",
    Type.BOOLEAN: "give true or false",
}


def _is_kind(dtype: pl.DataType, wanted: Type) -> bool:
    """Whether a stored type holds what the contract's does, without a guess."""
    if wanted is Type.MONEY:
        return isinstance(dtype, pl.Decimal) or dtype.is_integer() or dtype == pl.String
    if wanted is Type.TIMESTAMP:
        return isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
    if wanted in (Type.LONG, Type.INTEGER):
        return dtype.is_integer() or dtype == pl.Null
    if wanted is Type.DOUBLE:
        return dtype.is_numeric()
    return dtype == frames.POLARS_TYPES[wanted]


def _from_text(texts: pl.Series, wanted: Type) -> pl.Series:
    texts = texts.str.strip_chars()
    if wanted is Type.TIMESTAMP:
        # a time that says no zone is UTC, as everywhere here
        zoned = texts.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
        zoned = zoned.str.replace(r"([0-9])([+-]\d\d)$", "$1$2:00").str.replace(r"T([0-9:.]+)$", "T$1+00:00")
        return zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    if wanted is Type.BOOLEAN:
        return texts.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    return texts.cast(frames.POLARS_TYPES[wanted], strict=False)


def write(path: Path, parts: Iterable[pl.DataFrame], schema: pl.Schema) -> int:
    """Write the parts one after another, each as it comes; the rows written.

    The file appears under its name when all of it is there: a run that fails leaves what was there before.

    Raises:
        InputError: another format than Parquet or CSV.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: its name must end with {' or '.join(FORMATS)}")
    beside = path.with_name(f".{path.name}.part")
    try:
        rows = (_write_csv if path.suffix == ".csv" else _write_parquet)(beside, parts, schema)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return rows


def _write_parquet(path: Path, parts: Iterable[pl.DataFrame], schema: pl.Schema) -> int:
    arrow: pa.Schema = pl.DataFrame(schema=schema).to_arrow().schema
    rows = 0
    with pq.ParquetWriter(path, arrow, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part.to_arrow().cast(arrow))
            rows += part.height
    return rows


def _write_csv(path: Path, parts: Iterable[pl.DataFrame], schema: pl.Schema) -> int:
    rows = 0
    with path.open("wb") as file:
        file.write((",".join(schema.names()) + "\n").encode())
        for part in parts:
            part.write_csv(file, include_header=False, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
            rows += part.height
    return rows
