"""What doctor sees of real servers."""

from __future__ import annotations

from marketflow.settings import Settings
from marketflow.stack import doctor
from marketflow.warehouse.locks import table_lock


def test_a_held_lock_is_shown_with_its_holder_and_a_free_one_is_not(embedded: Settings) -> None:
    with table_lock(embedded, "gold.bars"):
        [held] = doctor._locks(embedded)
    [free] = doctor._locks(embedded)
    assert held.seen.startswith("held by ")
    assert "(pid " in held.seen
    assert "unnamed" not in held.seen
    assert (free.seen, held.problem, free.problem) == ("none is held", None, None)
