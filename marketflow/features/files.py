"""Files of a researcher's own: Parquet and CSV with the columns of a contract, read strictly, written in parts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.contracts.columns import MONEY_SCALE, Table, Type
from marketflow.errors import InputError
from marketflow.features import frames

FORMATS = (".parquet", ".csv")


def read(path: Path, table: Table, required: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """The asked columns of a file, in the contract's types; other columns are left out, optional ones may be missing.

    Prices and sizes are decimals: a file that holds them as floats has lost what the venue wrote, and is refused with
    what to do; so are digits beyond the 18th place, which would be lost here. CSV has text only, which is read as the
    contract's type; an empty text is none.

    Raises:
        InputError: no such file, another format, a column that is missing, of another type, holds what is none, or is
            empty where the contract allows no null.
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
    made = frame.select(
        _column(frame[name], table, name, path, is_text=is_text, may_lack=name in optional) for name in columns
    )
    absent = [name for name in optional if name not in frame.columns]
    return made.with_columns(pl.lit(None, frames.POLARS_TYPES[table.column(name).type]).alias(name) for name in absent)


def _opened(path: Path) -> pl.DataFrame:
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: its name must end with {' or '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        # a name is a name, whatever stars and brackets are in it
        if path.suffix == ".csv":
            return pl.read_csv(path, infer_schema=False, glob=False)
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _column(series: pl.Series, table: Table, name: str, path: Path, *, is_text: bool, may_lack: bool) -> pl.Series:
    """The column in its contract's type; a clear error where it is of another kind or a value does not fit."""
    wanted, may_lack = table.column(name).type, may_lack or table.column(name).nullable
    if series.dtype == pl.Null and may_lack:
        return series.cast(frames.POLARS_TYPES[wanted])
    if is_text and wanted is not Type.STRING:
        series = series.str.strip_chars().replace("", None)
    if not is_text and not _is_kind(series.dtype, wanted):
        raise InputError(
            f"{path}: column {name} is {series.dtype}, {table.qualified} has {wanted.value}: {_ADVICE[wanted]}"
        )
    made = _from_text(series, wanted) if series.dtype == pl.String and wanted is not Type.STRING else None
    made = series.cast(frames.POLARS_TYPES[wanted], strict=False) if made is None else made
    if not may_lack and series.null_count():
        raise InputError(f"{path}: column {name} is empty in {series.null_count():,} of {series.len():,} rows")
    lost = series.is_not_null() & made.is_null()
    if wanted is Type.MONEY and not lost.any():
        lost = _is_rounded(series)
        if lost.any():
            raise InputError(
                f"{path}: column {name}: {series.filter(lost)[0]} has digits beyond the {MONEY_SCALE}th place "
                f"({int(lost.sum()):,} such values); nothing is rounded here"
            )
    if lost.any():
        example = series.filter(lost)[0]
        raise InputError(f"{path}: column {name}: {example!r} is no {wanted.value} ({int(lost.sum()):,} such values)")
    return made


def _is_rounded(series: pl.Series) -> pl.Series:
    """Where a decimal, or its text, has a digit other than 0 that Decimal(38,18) has no place for."""
    if isinstance(series.dtype, pl.Decimal) and (series.dtype.scale or 0) > MONEY_SCALE:
        series = series.cast(pl.String)
    if series.dtype != pl.String:
        return pl.repeat(False, series.len(), dtype=pl.Boolean, eager=True)
    plain = series.str.contains(rf"\.\d{{{MONEY_SCALE}}}\d*[1-9]").fill_null(False)
    powers = series.str.contains("[eE]").fill_null(False)
    if not powers.any():
        return plain
    # 1e-19: rare enough to be looked at one by one
    exponents = [
        bool(power and text) and _places(str(text)) > MONEY_SCALE for text, power in zip(series, powers, strict=True)
    ]
    return plain | pl.Series(exponents, dtype=pl.Boolean)


def _places(text: str) -> int:
    exponent = Decimal(text.strip()).normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


_ADVICE = {
    Type.MONEY: "give decimals (or text), not floats, e.g. pl.col(...).cast(pl.Decimal(38, 18)) from the venue's text",
    Type.TIMESTAMP: "give times with a zone, e.g. pl.col(...).dt.replace_time_zone('UTC'), of whole numbers "
    "pl.from_epoch(..., time_unit='ms').dt.replace_time_zone('UTC')",
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
        InputError: another format than Parquet or CSV, or a place where no file can be written.
    """
    check_place(path)
    beside = path.with_name(f".{uuid4().hex}.part")
    try:
        rows = (_write_csv if path.suffix == ".csv" else _write_parquet)(beside, parts, schema)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return rows


def check_place(path: Path, *inputs: Path | None) -> None:
    """That a file can be written there, before the work; it may not be one of the inputs.

    Raises:
        InputError: another format, no such folder, a folder of that name, no right to write, or an input's own name.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: its name must end with {' or '.join(FORMATS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: this user may not write in {path.parent}")
    for one in inputs:
        if one is not None and path.exists() and one.exists() and path.samefile(one):
            raise InputError(f"{path}: is read too, and would be lost; name another file to write")


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
