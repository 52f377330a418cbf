"""Saved queries: headers are the truth about their parameters."""

from __future__ import annotations

import pytest

from marketflow.catalog.queries import _bound, refuse_misspelt, saved_queries
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
    with pytest.raises(ConfigurationError, match=r"no parameter coin; its parameters: asset, rows"):
        _bound(saved_queries()["momentum"], {"coin": "bitcoin"})


@pytest.mark.parametrize("rows", ["abc", "-1", "1.5", ""])
def test_a_number_that_is_none_is_named(rows: str) -> None:
    with pytest.raises(ConfigurationError, match=f"query ohlc: rows={rows} is not a whole number"):
        _bound(saved_queries()["ohlc"], {"rows": rows})


@pytest.mark.parametrize(("name", "value", "known"), [("bar", "7m", "1h, 1m, 5m"), ("product", "NOPE", "BTC-USD, .*")])
def test_a_value_that_cannot_have_rows_is_refused_and_not_answered_with_none(name: str, value: str, known: str) -> None:
    with pytest.raises(ConfigurationError, match=f"query ohlc: there is no {name} '{value}'; there are: .*{known}"):
        _bound(saved_queries()["ohlc"], {name: value})


def test_a_bare_word_was_meant_for_a_saved_query() -> None:
    with pytest.raises(ConfigurationError, match=r"no saved query 'moverss'; did you mean movers\?"):
        refuse_misspelt("moverss")
    with pytest.raises(ConfigurationError, match=r"no saved query 'zzz'; there are .*ohlc"):
        refuse_misspelt("zzz")
    refuse_misspelt("select 1")
