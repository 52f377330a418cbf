"""Saved queries: headers are the truth about their parameters."""

from __future__ import annotations

import pytest

from marketflow.catalog.queries import _bound, saved_queries
from marketflow.errors import ConfigurationError


def test_there_are_at_least_ten_saved_queries_on_both_engines() -> None:
    queries = saved_queries()
    assert len(queries) >= 10
    assert {query.engine for query in queries.values()} == {"postgres", "lake"}
    assert all(query.purpose.endswith(".") for query in queries.values())


def test_defaults_fill_what_is_not_given_and_numbers_stay_numbers() -> None:
    query = saved_queries()["ohlc"]
    assert _bound(query, {"product": "ETH-USD"}) == {"product": "ETH-USD", "bar": "1m", "rows": 30}


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no parameter \['coin'\]; its parameters: asset, rows"):
        _bound(saved_queries()["momentum"], {"coin": "bitcoin"})


@pytest.mark.parametrize("rows", ["abc", "-1", "1.5", ""])
def test_a_number_that_is_none_is_named(rows: str) -> None:
    with pytest.raises(ConfigurationError, match=f"query ohlc: rows={rows} is not a whole number"):
        _bound(saved_queries()["ohlc"], {"rows": rows})
