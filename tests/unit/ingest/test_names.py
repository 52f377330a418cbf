"""Installing another library does not change how producers resolve names."""

from __future__ import annotations

import aiohttp

from marketflow.ingest.names import connector
from marketflow.paths import PROJECT_FOLDER


async def test_names_are_resolved_as_the_machine_does() -> None:
    async with connector() as made:
        assert isinstance(made._resolver, aiohttp.ThreadedResolver)


def test_every_session_of_a_producer_resolves_so() -> None:
    texts = [path.read_text() for path in (PROJECT_FOLDER / "marketflow").rglob("*.py")]
    opened = [text for text in texts if "ClientSession(" in text.replace("ClientSession()", "")]
    assert len(opened) >= 2
    for text in opened:
        assert text.count("ClientSession(") == text.count("connector=connector()")
