"""Kafka headers as columns, in Spark SQL alone: no Python worker stands between Kafka and bronze.

`headers` is one JSON object with a member for every header, in the order received; every value is text or null:

- a header that occurs twice is two members of one name; readers of JSON take the last, as `typed` does;
- bytes that are not UTF-8 are kept as base64 in a member named `<name>;base64`, so that nobody takes them for text.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as f

from marketflow.contracts.columns import Type
from marketflow.errors import ContractError

# 1 January 10000 in µs: what lies beyond is no time that Python or Arrow can show
TIME_END_US = 253_402_300_800_000_000
TIME_DIGITS = 18


def typed(name: str, kind: Type) -> Column:
    """The header's value as its column's type; null where it is missing, not UTF-8 or not of that type."""
    text = _text(name)
    if kind is Type.STRING:
        return text
    if kind is Type.BOOLEAN:
        return f.when(text == "1", f.lit(True)).when(text == "0", f.lit(False))
    number = f.when(text.rlike(f"^[0-9]{{1,{TIME_DIGITS}}}$"), text.try_cast("bigint"))
    if kind is Type.TIMESTAMP:
        return f.timestamp_micros(f.when(number < TIME_END_US, number))
    if kind in (Type.INTEGER, Type.LONG):
        return number.try_cast(kind.spark)
    raise ContractError(f"header {name}: no header is a {kind.name}")


def _text(name: str) -> Column:
    # the last of a repeated header, as Kafka's own lastHeader() and a Python dict have it
    names, values = f.reverse("headers.key"), f.reverse("headers.value")
    return f.try_validate_utf8(f.get(values, f.array_position(names, name) - 1).cast("string"))


def as_json() -> Column:
    """All headers as received, null where the record has none."""
    names = f.col("headers.key")
    texts = f.transform("headers.value", lambda value: f.try_validate_utf8(value.cast("string")))
    plain = (f.size(f.array_distinct(names)) == f.size(names)) & ~f.exists("headers", _is_not_text)
    members = f.transform("headers", _member)
    return f.when(plain, f.to_json(f.map_from_arrays(names, texts))).when(
        f.col("headers").isNotNull(), f.concat(f.lit("{"), f.array_join(members, ","), f.lit("}"))
    )


def _is_not_text(header: Column) -> Column:
    return header["value"].isNotNull() & ~f.is_valid_utf8(header["value"].cast("string"))


def _member(header: Column) -> Column:
    encoded = f.when(_is_not_text(header), f.base64(header["value"])).otherwise(header["value"].cast("string"))
    name = f.when(_is_not_text(header), f.concat(header["key"], f.lit(";base64"))).otherwise(header["key"])
    return f.concat(_quoted(name), f.lit(":"), _quoted(encoded))


def _quoted(text: Column) -> Column:
    """The text as a JSON string, or `null`."""
    in_brackets = f.to_json(f.array(text))
    return f.substring(in_brackets, f.lit(2), f.length(in_brackets) - 2)
