"""What the stream's queries into PostgreSQL share: start, the batch's name, patience, reading messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import psycopg
from pyspark.sql import DataFrame
from pyspark.sql.streaming import StreamingQuery
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from marketflow import venues
from marketflow.contracts.records import Parsed
from marketflow.lake import message_headers
from marketflow.lake.silver_sources import Source
from marketflow.settings import Settings

# longer than any restart of PostgreSQL; what lasts longer ends the application, and the supervisor begins again
_GIVE_UP_AFTER_S = 300.0
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def start(
    messages: DataFrame,
    settings: Settings,
    query: str,
    write: Callable[[DataFrame, int], None],
    *,
    available_now: bool = False,
) -> StreamingQuery:
    """Start a live query. With `available_now` it ends when it has read what is there now."""
    trigger = {"availableNow": True} if available_now else {"processingTime": f"{settings.live_trigger_s} seconds"}
    return (
        messages.writeStream.queryName(query)
        .option("checkpointLocation", f"{settings.checkpoints}/{query}")
        .foreachBatch(write)
        .trigger(**trigger)
        .start()
    )


def numbered_by(batch: DataFrame, query: str) -> str:
    """The query and its checkpoint's id, which is what numbers its batches."""
    return f"{query}/{batch.sparkSession.sparkContext.getLocalProperty('sql.streaming.queryId')}"


def until_postgres_answers(query: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorate what opens its own connection: it is tried again with backoff while PostgreSQL is away."""

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        first_line = (str(error).splitlines() or [""])[0]
        print(f"stream: {query} tries again, PostgreSQL says: {first_line}", file=sys.stderr, flush=True)

    return retry(
        retry=retry_if_exception_type(psycopg.OperationalError),
        wait=wait_exponential_jitter(initial=0.2, max=5.0),
        stop=stop_after_delay(_GIVE_UP_AFTER_S),
        before_sleep=tell,
        reraise=True,
    )


def items(
    source: Source, all_headers: Sequence[str | None], values: Sequence[bytes | None]
) -> Iterator[tuple[int, dict[str, str], int, Any]]:
    """Position of the message, its headers, index in it and record, for what silver would take too.

    Silver accounts for whatever gives none.
    """
    read, unread = message_headers.read(all_headers)
    useless = {*unread, *message_headers.unfit(source, read)}
    for position, (headers, value) in enumerate(zip(read, values, strict=True)):
        outcome = venues.parse(headers, value or b"")
        if position in useless or type(outcome) is not Parsed:
            continue
        for index, item in enumerate(outcome.items):
            if type(item) is source.record:
                yield position, headers, index, item
