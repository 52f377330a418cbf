"""The embedded Kafka: one KRaft node, broker and controller, from the jars of ivy.xml."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)
from confluent_kafka.error import KafkaError, KafkaException

from marketflow.contracts.topics import MAX_MESSAGE_BYTES, TOPICS
from marketflow.errors import SetupError
from marketflow.settings import Settings
from marketflow.stack import jars

# Session and heartbeat are short so that a broker killed with -9 is back in 5 s, not 14 s.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.segment.bytes=134217728
log.retention.check.interval.ms=60000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

_LOGGING = """\
status=warn
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.c.ref=c
logger.k.name=kafka.server
logger.k.level=info
"""


def _folder(settings: Settings) -> Path:
    return settings.home / "kafka"


def _classpath() -> str:
    return ":".join(str(jar) for jar in jars.classpath("kafka"))


def prepare(settings: Settings) -> None:
    """Write the configuration and format the storage once. Safe to run again."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    ports = {"port": settings.kafka_port, "controller_port": settings.kafka_controller_port}
    (folder / "server.properties").write_text(_PROPERTIES.format(host=settings.host, folder=folder, **ports))
    (folder / "log4j2.properties").write_text(_LOGGING)
    if (folder / "data" / "meta.properties").exists():
        return
    command = [jars.java(), f"-Dlog4j2.configurationFile={folder}/log4j2.properties", "-cp", _classpath()]
    command += ["kafka.tools.StorageTool", "format", "-t", settings.secret("kafka_cluster_id")]
    command += ["-c", str(folder / "server.properties")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own list
    if done.returncode != 0:
        raise SetupError(f"Kafka's storage could not be formatted:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")


def command(settings: Settings) -> list[str]:
    """The broker's command line, in the foreground; SIGTERM stops it cleanly."""
    folder = _folder(settings)
    heap = ["-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
    logging = f"-Dlog4j2.configurationFile={folder}/log4j2.properties"
    return [jars.java(), *heap, logging, "-cp", _classpath(), "kafka.Kafka", str(folder / "server.properties")]


def admin(settings: Settings) -> AdminClient:
    """An admin client for this deployment's brokers."""
    return AdminClient({"bootstrap.servers": settings.bootstrap_servers, "socket.timeout.ms": 5000, "log_level": 2})


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def wait_until_ready(settings: Settings, timeout_s: float = 60.0) -> None:
    """Until the broker lists its metadata, or SetupError."""
    deadline = time.monotonic() + timeout_s
    while not any(map(_listens, settings.bootstrap_servers.split(","))) and time.monotonic() < deadline:
        time.sleep(0.1)
    client = admin(settings)
    while True:
        try:
            client.list_topics(timeout=2)
            return
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise SetupError(f"Kafka did not answer within {timeout_s:.0f} s: {error}") from error
            time.sleep(0.2)


def topic_configuration(settings: Settings) -> dict[str, str]:
    """Retention by time or size, whichever comes first (size is per partition), and the largest message."""
    return {
        "retention.ms": str(settings.kafka_retention_hours * 3_600_000),
        "retention.bytes": str(settings.kafka_retention_bytes // sum(topic.partitions for topic in TOPICS)),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "compression.type": "producer",
    }


def create_topics(settings: Settings, client: AdminClient | None = None) -> None:
    """Make the dataset's topics, and bring the configuration and partition count of existing ones up to date.

    Every partition can be read and written when this returns.

    Raises:
        SetupError: a partition is led by no broker for half a minute.
        KafkaException: the cluster refuses a topic or its configuration.
    """
    client, configuration = client or admin(settings), topic_configuration(settings)
    wanted = {topic.full_name(settings.topic_prefix): topic for topic in TOPICS}
    new = [
        # -1: as many copies as the cluster's default.replication.factor says
        NewTopic(name, num_partitions=topic.partitions, replication_factor=-1, config=configuration)
        for name, topic in wanted.items()
    ]
    for future in client.create_topics(new).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    existing = client.list_topics(timeout=10).topics
    for name, topic in wanted.items():
        if name in existing and len(existing[name].partitions) < topic.partitions:
            client.create_partitions([NewPartitions(name, topic.partitions)])[name].result(timeout=30)
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in configuration.items()
    ]
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries) for name in wanted]
    for future in client.incremental_alter_configs(resources).values():
        future.result(timeout=30)
    wait_until_led(client, {name: topic.partitions for name, topic in wanted.items()})


def wait_until_led(client: AdminClient, partitions: dict[str, int], timeout_s: float = 30.0) -> None:
    """Wait until a leader answers for each partition of the topics (name → count).

    A cluster says that it has created a topic before a broker leads each of its partitions; whoever reads in between
    is told that the broker is not the leader.

    Raises:
        SetupError: after `timeout_s` seconds a partition has no leader still.
    """
    missing = {TopicPartition(name, one) for name, count in partitions.items() for one in range(count)}
    deadline = time.monotonic() + timeout_s
    while True:
        asked = client.list_offsets({one: OffsetSpec.latest() for one in missing}, request_timeout=5.0)
        failed = {one: future.exception() for one, future in asked.items() if future.exception() is not None}
        if not failed:
            return
        if time.monotonic() > deadline:
            one, reason = min(failed.items(), key=lambda item: (item[0].topic, item[0].partition))
            raise SetupError(
                f"{len(failed)} of {sum(partitions.values())} partitions have no leader after {timeout_s:g} s, "
                f"{one.topic} partition {one.partition} first: {reason}; see that every broker of the cluster is up"
            )
        missing = set(failed)
        # librdkafka may not ask again, for half a minute, about a topic that it once heard of as absent; a list of all
        # topics is news to it. Of 919 topics deleted and made again on a busy machine three waited in vain without this
        # line, of 1,968 none with it.
        client.list_topics(timeout=10)
        time.sleep(0.1)


def environment(settings: Settings) -> dict[str, str]:
    """Variables the server needs beside the machine's own: none, its files say all."""
    del settings
    return {}
