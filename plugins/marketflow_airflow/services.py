"""Airflow's hand on the services: a hook over the service backend, and an operator that does one round a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow_airflow import feed_watch, service_restarts, stream_watch
from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.service_alerts import tell_of_services
from marketflow_airflow.service_round import ACTIONS, NO_ACTION, Condition, Request, Round, worst_of
from marketflow_airflow.trial import is_trial

if TYPE_CHECKING:
    import psycopg

    from marketflow.services.supervisor import SupervisorBackend
    from marketflow.settings import Settings

CONNECTION_ID = "services"
KAFKA_CONNECTION_ID = "marketflow_kafka"
FORM = ("service", "action", "reason")


class ServicesHook(BaseHook):
    """The service backend of the home that connection `services` names: extra `{"home": "…/.marketflow"}`."""

    conn_name_attr = "services_conn_id"
    default_conn_name = CONNECTION_ID
    conn_type = "generic"
    hook_name = "marketflow services"

    def __init__(self, services_conn_id: str = CONNECTION_ID) -> None:
        """The connection's id."""
        super().__init__()
        self.services_conn_id = services_conn_id

    def get_settings(self) -> Settings:
        """Settings of that home."""
        from marketflow import settings

        home = self.get_connection(self.services_conn_id).extra_dejson.get("home")
        if not home:
            raise ValueError(f'connection {self.services_conn_id} needs the extra {{"home": "/path/to/home"}}')
        return settings.load(home=home)

    def get_conn(self) -> SupervisorBackend:
        """The service backend."""
        from marketflow.stack.backend import backend

        return backend(self.get_settings())


def service_params(services: Sequence[str]) -> dict[str, Param]:
    """The form by which a person starts or stops one service."""
    return {
        "service": Param(services[0], type="string", enum=list(services), title="Service"),
        "action": Param(
            NO_ACTION,
            type="string",
            enum=list(ACTIONS),
            title="Action",
            description="Start and stop last until somebody chooses otherwise; none only looks.",
        ),
        "reason": Param("", type="string", title="Reason", description="Kept with the event."),
    }


class ServicesOperator(BaseOperator):
    """One round over `services`: do what was asked, reconcile, look, write down what changed.

    Fails with one sentence for each service that should run and cannot be started, or crashes again and again. What
    hangs is started again, by rules of `service_restarts`. A silent source is an event and a warning.
    """

    ui_color = "#dcfce7"

    def __init__(self, *, services: Sequence[str], **kwargs: Any) -> None:
        """`services`: names as the backend knows them; those that this deployment does not have are passed over."""
        kwargs.setdefault("do_xcom_push", False)
        super().__init__(**kwargs)
        self.services = tuple(services)

    def execute(self, context: Mapping[str, Any]) -> None:
        """One round."""
        self.round(context, self._request(context))

    def round(self, context: Mapping[str, Any], request: Request) -> None:
        """One round with this wish; an AirflowException with a sentence for each service that failed."""
        from marketflow.services.desired import set_defaults
        from marketflow.warehouse.connection import connect

        hook = ServicesHook()
        settings, backend = hook.get_settings(), hook.get_conn()
        every = backend.definitions
        mine = {name: definition for name, definition in every.items() if name in self.services}
        with connect(settings, autocommit=True) as connection:
            turn = Round(connection, backend, mine, context["dag_run"].run_id, self.services)
            set_defaults(connection, every.values())
            turn.ask(request)
            for action in turn.reconcile(request):
                self.log.info("%s %s: %s", action.kind, action.service, action.reason)
            statuses = turn.should_run()
            running = {name: status for name, status in statuses.items() if status.state == "running"}
            conditions = [*turn.down(statuses), *self.look(settings, connection, turn, running)]
            worst = worst_of(conditions)
            turn.note(worst, statuses)
            well = turn.well(worst, statuses)
        tell_of_services(worst.values(), well)
        for condition in worst.values():
            self.log.warning("%s is %s: %s", condition.service, condition.event, condition.detail)
        if turn.failures:
            raise AirflowException(" ".join(turn.failures.values()))

    @abstractmethod
    def look(
        self, settings: Settings, connection: psycopg.Connection[Any], turn: Round, running: Mapping[str, Any]
    ) -> Iterable[Condition]:
        """What is wrong with those that run."""

    def _request(self, context: Mapping[str, Any]) -> Request:
        refuse_unknown(context, FORM)
        params, run = context["params"], context["dag_run"]
        conf = run.conf or {}
        if conf.get("action", NO_ACTION) != NO_ACTION and "service" not in conf and len(self.services) > 1:
            raise AirflowFailException(f"say which service to {conf['action']}: {', '.join(self.services)}")
        return Request(
            service=params.get("service") or "",
            action=params.get("action") or NO_ACTION,
            reason=params.get("reason") or "",
            asked_by=run.triggering_user_name or f"Dag {run.dag_id}",
            once=not is_trial(),  # a second trial of the same date is another wish
        )


class FeedsOperator(ServicesOperator):
    """The producers, and the simulator where there is one."""

    def __init__(self, **kwargs: Any) -> None:
        """Its services are those of group feed."""
        super().__init__(services=feed_watch.FEED_SERVICES, **kwargs)

    def look(
        self, settings: Settings, connection: psycopg.Connection[Any], turn: Round, running: Mapping[str, Any]
    ) -> Iterable[Condition]:
        """Last message, queue, gaps and quota of each source; restarts what hangs, a producer or the simulator."""
        seen = feed_watch.look(settings, connection, running)
        turn.unsure |= seen.unsure
        for line in seen.lines:
            self.log.info("%s", line)
        left = feed_watch.MOST_RESTARTS
        conditions = []
        for condition in seen.conditions:
            kept = restarted_or_told(connection, turn, condition) if condition.event == "hung" and left else condition
            left -= kept is None
            conditions += [kept] if kept is not None else []
        return conditions


class StreamOperator(ServicesOperator):
    """The Spark stream; one of which a query has said nothing for three minutes is started again, ever more rarely."""

    def __init__(self, **kwargs: Any) -> None:
        """Its service is market-stream."""
        super().__init__(services=(stream_watch.STREAM,), **kwargs)

    def look(
        self, settings: Settings, connection: psycopg.Connection[Any], turn: Round, running: Mapping[str, Any]
    ) -> Iterable[Condition]:
        """Batches and lag; restarts a stream that hangs."""
        status = running.get(stream_watch.STREAM)
        if status is None:
            return []
        now, uptime_s = datetime.now(UTC), status.uptime_s or 0.0
        # in this order: what is read meanwhile must not look as if Kafka had lost it
        offsets = stream_watch.read_up_to(connection)
        ends, of_kafka = self._kafka(settings, offsets)
        longest = max(settings.bronze_trigger_s, settings.live_trigger_s)
        progress = stream_watch.read(connection, ends, longest)
        self.log.info("%s", progress)
        if not ends:  # without Kafka the stream has nothing to say, and is no more silent than it has to be
            return of_kafka
        conditions = stream_watch.conditions(progress, now, uptime_s) + of_kafka
        if progress.nothing_since_start(now, uptime_s):
            turn.unsure.add(stream_watch.STREAM)
        hanging = stream_watch.hanging(progress, now, uptime_s)
        if hanging is None:
            return conditions
        silent, *others = conditions
        kept = restarted_or_told(connection, turn, silent, hanging.since)
        return [] if kept is None else [kept, *others]

    def _kafka(
        self, settings: Settings, offsets: stream_watch.Offsets
    ) -> tuple[dict[str, dict[int, int]], list[Condition]]:
        """The topics' ends, none where Kafka does not answer, and what is wrong with them; makes what is missing."""
        from confluent_kafka import KafkaException

        names = topic_names(settings)
        try:
            ends = end_offsets(settings)
        except KafkaException as error:
            detail = f"Kafka does not answer ({error.args[0]}), so nobody knows how far behind it is."
            return {}, [Condition(stream_watch.STREAM, "behind", detail)]
        if missing := stream_watch.unread(names, offsets, ends):
            make_topics(settings)
            self.log.warning("not in Kafka until now, and made: %s", ", ".join(missing))
        return ends, stream_watch.vanished(names, offsets, ends)


def restarted_or_told(
    connection: psycopg.Connection[Any], turn: Round, condition: Condition, newest_at: datetime | None = None
) -> Condition | None:
    """Restart what hangs if an earlier round found it so and its pause is over: None. Else what there is to tell.

    What it said at `newest_at`, after that round, clears it.
    """
    service, event, now = condition.service, condition.event, datetime.now(UTC)
    found = service_restarts.found_at(connection, service, event)
    if found is not None and newest_at is not None and found < newest_at:
        turn.note_anew(condition)  # it spoke and hangs once more: the next round must not look back beyond that
        return condition
    if not service_restarts.seen_before(found, now):
        return condition
    why_not = service_restarts.too_soon(connection, service, event, now)
    if why_not:
        return Condition(service, event, f"{condition.detail} {why_not}")
    turn.restart(service, f"{condition.detail} An earlier round found it so already.")
    return None


def topic_names(settings: Settings) -> list[str]:
    """This dataset's."""
    from marketflow.contracts.topics import TOPICS

    return [topic.full_name(settings.topic_prefix) for topic in TOPICS]


def make_topics(settings: Settings) -> None:
    """Make what is missing of this dataset's topics, with their configuration, by the Kafka provider's client."""
    from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook

    from marketflow.stack.kafka import create_topics

    create_topics(settings, KafkaAdminClientHook(kafka_config_id=KAFKA_CONNECTION_ID).get_conn)


def end_offsets(settings: Settings) -> dict[str, dict[int, int]]:
    """Topic → partition → next offset, by the Kafka provider's consumer; it joins no group and commits nothing."""
    from airflow.providers.apache.kafka.hooks.consume import KafkaConsumerHook
    from confluent_kafka import TopicPartition

    names = topic_names(settings)
    consumer = KafkaConsumerHook(topics=names, kafka_config_id=KAFKA_CONNECTION_ID).get_conn
    try:
        known = consumer.list_topics(timeout=10).topics
        return {
            name: {
                partition: consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1]
                for partition in known[name].partitions
            }
            for name in names
            if name in known
        }
    finally:
        consumer.close()
