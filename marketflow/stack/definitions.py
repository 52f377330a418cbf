"""What runs for ever: every service of a deployment and dataset, and which settings each one depends on."""

from __future__ import annotations

from marketflow.contracts.sources import Source
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.definitions import ServiceDefinition
from marketflow.services.environment import embedded_environment, machine_environment, pinned, program, python
from marketflow.settings import Settings
from marketflow.stack import airflow, glue, kafka, postgres, s3

# Settings that change what a service does: it is started again when one of these changes, and only then.
COMMON_SETTINGS = ("kafka_port", "kafka_bootstrap_servers", "postgres_port", "postgres_host")
SIMULATOR_SETTINGS = ("products", "vs_currencies", "coingecko_assets", "simulator_ws_port", "simulator_rest_port")
PRODUCER_SETTINGS = (
    *COMMON_SETTINGS,
    "feed_queue_messages",
    "feed_silence_s",
    "minimum_free_disk_bytes",
    "kafka_retention_hours",
    "simulator_ws_port",
    "simulator_rest_port",
)
STREAM_SETTINGS = (
    *COMMON_SETTINGS,
    "s3_port",
    "s3_endpoint_url",
    "lake_bucket",
    "aws_region",
    "bronze_trigger_s",
    "live_trigger_s",
    "max_offsets_per_trigger",
    "spark_master",
    "spark_driver_memory",
    "spark_driver_java_options",
    "checkpoint_folder",
    "change_tolerance_s",
    "movers_per_direction",
)

STREAM = "market-stream"
WATCH_SETTINGS = ("alert_url", "dataset", "postgres_port", "postgres_host", "kafka_port", "kafka_bootstrap_servers")


def definitions(settings: Settings) -> tuple[ServiceDefinition, ...]:
    """Every service of this deployment and dataset, in starting order.

    The embedded stack has all of them. Elsewhere Kafka, PostgreSQL, S3 and Airflow belong to others, and only the
    producers and the stream are ours. The simulator exists for dataset sim alone, and a replay has no producers.
    """
    embedded = settings.deployment == "embedded"
    found = [
        *(_infrastructure(settings) if embedded else ()),
        *(_simulator(settings) if embedded and settings.dataset == "sim" else ()),
        *(_producers(settings) if settings.dataset != "replay" else ()),
        _stream(settings),
        *(_glue(settings) if embedded else ()),
        *(_airflow(settings) if embedded else ()),
        *(_watch(settings) if embedded else ()),
    ]
    return tuple(sorted(found, key=lambda definition: definition.priority))


def _infrastructure(settings: Settings) -> tuple[ServiceDefinition, ...]:
    base = machine_environment()
    return (
        ServiceDefinition(
            name="postgres",
            command=tuple(postgres.command(settings)),
            environment={**base, **postgres.environment(settings)},
            directory="/",
            group="infrastructure",
            # INT is PostgreSQL's fast shutdown; its first process ends the others
            stop_signal="INT",
            stop_scope="leader",
            stop_wait_s=30,
            priority=10,
        ),
        ServiceDefinition(
            name="kafka",
            command=tuple(kafka.command(settings)),
            environment={**base, **kafka.environment(settings)},
            directory="/",
            group="infrastructure",
            stop_wait_s=30,
            priority=11,
        ),
        ServiceDefinition(
            name="s3",
            command=tuple(s3.command(settings)),
            environment={**base, **s3.environment(settings)},
            directory="/",
            group="infrastructure",
            priority=12,
        ),
    )


def _simulator(settings: Settings) -> tuple[ServiceDefinition, ...]:
    feeds = [source for source in settings.active_sources if source.is_feed]
    heard = [product for product in settings.products if any(product in settings.products_of(feed) for feed in feeds)]
    return (
        ServiceDefinition(
            name="simulator",
            command=(python(), "-m", "marketflow.simulator"),
            environment={
                **_service_environment(settings),
                **pinned(settings, SIMULATOR_SETTINGS),
                # it opens once our own feed listens, so that a stop and a start of the stack leave no hole
                "MARKETFLOW_SIMULATOR_WAIT_FOR_LISTENER_S": "60" if heard else "0",
                "MARKETFLOW_SIMULATOR_WAIT_FOR_PRODUCTS": ",".join(heard),
            },
            group="feed",
            priority=20,
        ),
    )


def _producers(settings: Settings) -> tuple[ServiceDefinition, ...]:
    return tuple(_producer(settings, source) for source in settings.active_sources)


def _producer(settings: Settings, source: Source) -> ServiceDefinition:
    port = settings.simulator_ws_port if source.is_feed else settings.simulator_rest_port
    simulator = (f"{settings.host}:{port}",) if settings.dataset == "sim" else ()
    own = pinned(settings, producer_settings(source))
    if source.by_product:
        # its own products alone: another venue's do not make it start again
        own["MARKETFLOW_PRODUCTS"] = ",".join(settings.products_of(source))
    # and so are the other sources: to it, they would have none of these products
    own["MARKETFLOW_SOURCES"] = source.name
    return ServiceDefinition(
        name=source.service,
        command=(python(), "-m", "marketflow.ingest", source.name),
        environment={**_service_environment(settings), **own},
        group="feed",
        wait_for=(*_kafka(settings), *simulator),
        # a queue of two minutes of messages is handed to Kafka before leaving
        stop_wait_s=30,
        priority=30,
    )


def producer_settings(source: Source) -> tuple[str, ...]:
    """The settings that a producer is started with, and again when one of them changes."""
    return (*PRODUCER_SETTINGS, *source.settings, *source.url_settings, source.metrics_port_setting)


def _stream(settings: Settings) -> ServiceDefinition:
    embedded = settings.deployment == "embedded"
    others = (f"{settings.host}:{settings.postgres_port}", f"{settings.host}:{settings.s3_port}") if embedded else ()
    return ServiceDefinition(
        name=STREAM,
        command=(python(), str(PROJECT_FOLDER / "spark_jobs" / "stream_market.py")),
        environment={**_service_environment(settings), **pinned(settings, STREAM_SETTINGS)},
        group="stream",
        wait_for=(*_kafka(settings), *others),
        # the driver ends its queries and then its own JVM; a signal to the JVM would cut the batch short
        stop_scope="leader",
        stop_wait_s=60,
        autostart=settings.dataset != "replay",
        priority=40,
    )


def _glue(settings: Settings) -> tuple[ServiceDefinition, ...]:
    return (
        ServiceDefinition(
            name="glue",
            command=tuple(glue.command(settings)),
            environment={**embedded_environment(settings), **pinned(settings, ("glue_port",))},
            group="catalog",
            # it has nothing to put down
            stop_wait_s=5,
            priority=50,
        ),
    )


def _airflow(settings: Settings) -> tuple[ServiceDefinition, ...]:
    environment = {**embedded_environment(settings), **airflow.environment(settings)}
    parts = {
        "api-server": ("api-server",),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "triggerer": ("triggerer", "--skip-serve-logs"),
    }
    return tuple(
        ServiceDefinition(
            name=f"airflow-{part}",
            command=(program("airflow"), *arguments),
            environment=environment,
            group="airflow",
            # Airflow must be able to say that everything else is down
            wait_for=(f"{settings.host}:{settings.postgres_port}",),
            stop_wait_s=30,
            priority=60,
        )
        for part, arguments in parts.items()
    )


def _watch(settings: Settings) -> tuple[ServiceDefinition, ...]:
    return (
        ServiceDefinition(
            name="watch",
            command=(python(), "-m", "marketflow.quality.watch"),
            # it needs nothing that may be away: its alerts wait in a file where PostgreSQL does
            environment={**embedded_environment(settings), **pinned(settings, WATCH_SETTINGS)},
            group="watch",
            stop_wait_s=10,
            priority=70,
        ),
    )


def _service_environment(settings: Settings) -> dict[str, str]:
    return embedded_environment(settings) if settings.deployment == "embedded" else {}


def _kafka(settings: Settings) -> tuple[str, ...]:
    return (settings.bootstrap_servers.split(",")[0],)
