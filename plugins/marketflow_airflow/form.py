"""What a person gave a run: keys that its form does not have are refused, where Airflow would pass them over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException


def refuse_unknown(context: Mapping[str, Any], known: Collection[str]) -> None:
    """Fail a run whose conf has a key that is not `known`, at once: a misspelt wish must not become another run.

    Raises:
        AirflowFailException: with the keys that are wrong and those that there are.
    """
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    if unknown:
        raise AirflowFailException(
            f"this Dag's form has no {', '.join(unknown)}; it has: {', '.join(known)}. Nothing was done"
        )
