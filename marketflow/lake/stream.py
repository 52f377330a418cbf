"""The stream's application: every query in one driver, behind the fence, ended as one.

Exit status: 0 after a request to stop (SIGTERM, SIGINT) or, with `available_now`, when everything is read; 1 when any
query ended by itself, with a line that names it. Its supervisor starts it again, and it goes on where it stood.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pyspark.sql import SparkSession
from pyspark.sql.streaming import StreamingQuery

from marketflow.contracts.topics import TOPICS
from marketflow.errors import SetupError
from marketflow.lake import bronze, live, live_features, session, tables
from marketflow.lake.stream_listener import ProgressListener
from marketflow.paths import JARS_FOLDER
from marketflow.settings import Settings
from marketflow.warehouse import fence, schema
from marketflow.warehouse.progress import ProgressWriter

# a batch at the usual rates takes seconds; one that is cut short is read again, not lost
STOP_WITHIN_S = 25.0
_JVM_ENDS_WITHIN_S = 15.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NEEDED_CLASSES = (
    "org.apache.iceberg.spark.SparkCatalog",
    "org.apache.spark.sql.kafka010.KafkaSourceProvider",
    "org.postgresql.Driver",
)


def run(
    settings: Settings, *, available_now: bool = False, apply_contracts: bool = True, fence_wait_s: float = fence.WAIT_S
) -> int:
    """Run the application until it is asked to stop, a query ends, or everything is read; returns the exit status."""
    stop = threading.Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    # started by hand Spark's JVM is this process's child, under spark-submit its parent, which leads the group
    if "PYSPARK_GATEWAY_PORT" not in os.environ and os.getpgrp() != os.getpid():
        os.setpgrp()
    guard = fence.Fence(settings, wait_s=fence_wait_s)
    if not guard.take(stop):
        return 0
    with _signals_kept_from_children():
        guard.watch()
        spark = _session(settings)
    try:
        guard.also_end(int(spark._jvm.java.lang.ProcessHandle.current().pid()))
        _say("Spark is up")
        if apply_contracts:
            _bring_to_contracts(spark, settings)
        if not guard.wait_until_safe(stop):
            return 0
        return _Application(spark, settings, stop, available_now=available_now).run()
    finally:
        _end_spark(spark)
        guard.release()


def _bring_to_contracts(spark: SparkSession, settings: Settings) -> None:
    for store, changes in (("PostgreSQL", schema.apply(settings)), ("lake", tables.apply_contracts(spark, settings))):
        _say(f"{store} was brought to its contracts: {', '.join(changes) or 'nothing to do'}")


def _end_spark(spark: SparkSession) -> None:
    """Stop Spark and wait for its JVM: the lock is let go when nothing of this driver is left that could write."""
    jvm = getattr(spark.sparkContext._gateway, "proc", None)  # None under spark-submit, whose JVM started us
    spark.stop()
    if jvm is not None:
        jvm.stdin.close()
        try:
            jvm.wait(_JVM_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            _say(f"the JVM did not end within {_JVM_ENDS_WITHIN_S:.0f} s and is killed")
            jvm.kill()
            jvm.wait()


class _Application:
    """The queries, their listener, and how they end."""

    def __init__(self, spark: SparkSession, settings: Settings, stop: threading.Event, *, available_now: bool) -> None:
        self._spark = spark
        self._settings = settings
        self._stop = stop
        self._available_now = available_now
        self._table_of = {bronze.query_name(topic): f"bronze.{topic.bronze}" for topic in TOPICS}
        self._writer = ProgressWriter(settings)
        # with available_now the topics' ends are asked for once, before the first trigger
        self._listener = ProgressListener(self._writer, self._table_of, moves_marks=not available_now)
        self._queries: list[StreamingQuery] = []
        self._under_way: dict[str, int | None] = {}

    def run(self) -> int:
        """Start the queries, watch them, end them; the exit status."""
        self._spark.streams.addListener(self._listener)
        self._writer.start()
        started_at = datetime.now(UTC)
        self._queries = [
            *bronze.start_queries(self._spark, self._settings, available_now=self._available_now),
            live.start_query(self._spark, self._settings, available_now=self._available_now),
            live_features.start_query(self._spark, self._settings, available_now=self._available_now),
        ]
        _say(f"{len(self._queries)} queries are running on dataset {self._settings.dataset}")
        status = self._watch(started_at)
        self._end_queries(time.monotonic() + STOP_WITHIN_S)
        self._spark.streams.removeListener(self._listener)
        if not self._writer.close(5.0):
            _say("the last progress events could not be written: PostgreSQL is away")
        return status

    def _watch(self, started_at: datetime) -> int:
        running = list(self._queries)
        while running and not self._stop.wait(0.5 if self._available_now else 1.0):
            if self._writer.failure is not None:
                raise self._writer.failure
            for query in [query for query in running if not query.isActive]:
                error = query.exception()
                if error is not None or not self._available_now:
                    _say(f"query {query.name} ended: {_cause(error)}")
                    return 1
                running.remove(query)
                if query.name in self._table_of:
                    self._writer.mark(self._table_of[query.name], started_at)
            for query in running:
                self._note_long_batch(query)
        return 0

    def _note_long_batch(self, query: StreamingQuery) -> None:
        """Record the start of a batch that is still under way: a long one must not look like silence."""
        status = query.status
        if not (status["isTriggerActive"] and status["isDataAvailable"]):
            return
        last = query.lastProgress
        last_batch = None if last is None else last.batchId
        if self._under_way.get(query.name, "none") != last_batch:
            self._under_way[query.name] = last_batch
            self._listener.batch_under_way(query.name, str(query.runId), datetime.now(UTC))

    def _end_queries(self, deadline: float) -> None:
        """Stop each query between two batches; after the deadline, whatever it does."""
        waiting = [query for query in self._queries if query.isActive]
        while waiting:
            late = time.monotonic() > deadline
            for query in waiting:
                if late or not query.status["isTriggerActive"]:
                    query.stop()
            waiting = [query for query in waiting if query.isActive]
            time.sleep(0.1)


def _session(settings: Settings) -> SparkSession:
    if not any((JARS_FOLDER / "spark").glob("*.jar")):
        raise SetupError(f"no jars in {JARS_FOLDER / 'spark'}: run `make setup`")
    spark = session.spark(settings, f"marketflow stream {settings.dataset}")
    loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()
    for name in _NEEDED_CLASSES:
        if loader.getResource(f"{name.replace('.', '/')}.class") is None:
            raise SetupError(
                f"{name} is not on the driver's class path: run this with python, or "
                f"spark-submit --driver-class-path '{JARS_FOLDER}/spark/*' spark_jobs/stream_market.py"
            )
    return spark


@contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Start the JVM and the fence's threads so that a signal to stop reaches the main thread alone.

    A JVM that gets SIGTERM ends at once, in mid-batch; one that inherits it as ignored leaves it so. Blocked here
    meanwhile, a signal that comes in between is kept and delivered at the end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _cause(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    return lines[0] if lines else "without an error"


def _say(line: str) -> None:
    print(f"stream: {line}", file=sys.stderr, flush=True)
