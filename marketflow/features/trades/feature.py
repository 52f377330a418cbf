"""What a feature is, and the register that every feature function enters itself in.

A feature function takes a window (or nothing) and returns a Polars expression over the columns of the tape (`tape.py`)
and over windows of them (`windows.py`). Its docstring is its entry in the catalogue: a sentence, then the lines
Formula, Unit, Null and Source; `{w}` stands for the window.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from marketflow.contracts.columns import Type

SECTIONS = ("Formula", "Unit", "Null", "Source")
GROUPS = ("price", "returns", "volume", "flow", "tempo", "time", "quotes", "integrity", "target")
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of gold.trade_features.

    `lookback` is how many trades before its own a value needs, `horizon` how many after it (targets alone); `window`
    is the number of trades that the name carries, None where it carries none.
    """

    name: str
    group: str
    type: Type
    window: int | None
    lookback: int
    horizon: int
    description: str
    formula: str
    unit: str
    null: str
    source: str
    inputs: tuple[str, ...]
    expression: pl.Expr

    @property
    def reads_future(self) -> bool:
        """Whether it is a target."""
        return self.horizon > 0

    def as_dict(self) -> dict[str, Any]:
        """What the catalogue tells of it: JSON, docs, the table."""
        return {
            "name": self.name,
            "group": self.group,
            "type": self.type.value,
            "window": self.window,
            "lookback": self.lookback,
            "horizon": self.horizon,
            "reads_future": self.reads_future,
            "unit": self.unit,
            "description": self.description,
            "formula": self.formula,
            "null": self.null,
            "source": self.source,
            "inputs": list(self.inputs),
        }


REGISTER: dict[str, Feature] = {}
Function = Callable[..., pl.Expr]


def feature(
    name: str,
    *,
    group: str,
    inputs: Sequence[str],
    windows: Sequence[int] | None = None,
    lookback: Callable[[int], int] | int = 0,
    horizon: Callable[[int], int] | int = 0,
    type: Type = Type.DOUBLE,
) -> Callable[[Function], Function]:
    """Enter a function in the register, once for each of its windows; `{w}` in the name is the window.

    `lookback` and `horizon` are numbers of trades, or functions of the window.
    """

    def enter(function: Function) -> Function:
        text = _sections(function)
        for window in windows or (None,):
            made = Feature(
                name=_filled(name, window),
                group=group,
                type=type,
                window=window,
                lookback=_count(lookback, window),
                horizon=_count(horizon, window),
                description=_filled(text["Description"], window),
                formula=_filled(text["Formula"], window),
                unit="" if text["Unit"] == "none" else text["Unit"],
                null=_filled(text["Null"], window),
                source=text["Source"],
                inputs=tuple(inputs),
                expression=function() if window is None else function(window),
            )
            if made.name in REGISTER:
                raise ValueError(f"two features are called {made.name}")
            REGISTER[made.name] = made
        return function

    return enter


def _filled(text: str, window: int | None) -> str:
    return text if window is None else text.replace("t−{w}+1", f"t−{window - 1}").replace("{w}", str(window))


def _count(asked: Callable[[int], int] | int, window: int | None) -> int:
    return asked if isinstance(asked, int) else asked(window or 0)


def _sections(function: Function) -> dict[str, str]:
    """The docstring's sentence and its four lines, each as one line of text."""
    text = inspect.getdoc(function) or ""
    parts = _SECTION.split(text)
    found = {"Description": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    missing = [name for name in SECTIONS if not found.get(name, "").strip()]
    if missing:
        raise ValueError(f"{function.__name__}: its docstring lacks {', '.join(missing)}")
    return {name: " ".join(part.split()).rstrip(".") for name, part in found.items()}
