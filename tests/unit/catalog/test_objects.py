"""Listings that no server here gives: a page without objects, and a server that does not go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from marketflow.catalog.objects import every_object
from marketflow.errors import LakeStateError


class Pages:
    """Answers `list_objects_v2` by what it is asked to go on from: an object's key, a token, or nothing."""

    def __init__(self, pages: dict[str, tuple[list[str], bool, str | None]]) -> None:
        self.pages, self.asked = pages, list[str]()

    def list_objects_v2(self, **given: str) -> Any:
        self.asked.append(given.get("StartAfter") or given.get("ContinuationToken") or "")
        keys, more, token = self.pages[self.asked[-1]]
        found = [{"Key": key, "Size": 1, "ETag": key, "LastModified": datetime(2026, 1, 1, tzinfo=UTC)} for key in keys]
        return {"IsTruncated": more, "Contents": found} | ({"NextContinuationToken": token} if token else {})


def test_a_page_without_objects_is_passed_by_its_token() -> None:
    pages = Pages(
        {"": (["a"], True, "t0"), "a": ([], True, "t1"), "t1": ([], True, "t2"), "t2": (["b"], True, None)}
        | {"b": (["c"], False, None)}
    )
    assert [one.key for one in every_object(pages, "lake", "")] == ["a", "b", "c"]
    assert pages.asked == ["", "a", "t1", "t2", "b"]


@pytest.mark.parametrize(
    ("pages", "place"),
    [
        ({"": ([], True, None)}, "its start"),
        ({"": (["a"], True, None), "a": (["a"], True, None)}, "a"),
        ({"": (["a"], True, None), "a": ([], True, "t"), "t": ([], True, "t")}, "a"),
    ],
)
def test_a_server_that_does_not_go_on_is_an_error_and_no_endless_loop(pages: Any, place: str) -> None:
    with pytest.raises(LakeStateError, match=f"s3://lake/x cannot be listed beyond '{place}'"):
        list(every_object(Pages(pages), "lake", "x"))
