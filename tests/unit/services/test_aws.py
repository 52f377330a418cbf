"""The AWS backend's requests and its reading of answers, against botocore's models of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from marketflow.services.aws import AwsServiceBackend, Producer, StreamJob
from marketflow.services.backend import ServiceBackend, ServiceError

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, 0, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/stream"
STREAM = StreamJob(
    service="market-stream",
    application_id="app1",
    execution_role_arn=ROLE,
    entry_point="s3://code/stream_market.py",
    arguments=("--once",),
    configuration_hash="abc",
    log_group="/stream",
)
PRODUCER = Producer("producer-coinbase", cluster="feeds", ecs_service="coinbase")


@dataclass
class Aws:
    backend: AwsServiceBackend
    emr: Stubber
    ecs: Stubber
    logs: Stubber


@pytest.fixture
def make() -> Iterator[Callable[..., Aws]]:
    stubs: list[Stubber] = []

    def build(stream: StreamJob = STREAM) -> Aws:
        keys = {"region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        clients = {name: boto3.client(name, **keys) for name in ("emr-serverless", "ecs", "logs")}  # type: ignore[call-overload]
        three = [Stubber(client) for client in clients.values()]
        for stub in three:
            stub.activate()
        stubs.extend(three)
        backend = AwsServiceBackend(
            emr_serverless=clients["emr-serverless"],
            ecs=clients["ecs"],
            logs=clients["logs"],
            stream=stream,
            producers=[PRODUCER],
        )
        return Aws(backend, *three)

    yield build
    for stub in stubs:
        stub.assert_no_pending_responses()


def run(run_id: str, state: str, name: str = "market-stream", created: datetime = AT) -> dict[str, Any]:
    return {
        "applicationId": "app1",
        "id": run_id,
        "name": name,
        "arn": "arn:aws:emr-serverless:us-east-1:123456789012:/applications/app1/jobruns/1",
        "createdBy": "arn:aws:iam::123456789012:user/ana",
        "createdAt": created,
        "updatedAt": LATER,
        "executionRole": ROLE,
        "state": state,
        "stateDetails": "as reported",
        "releaseLabel": "emr-8.0.0",
    }


def expect_runs(aws: Aws, *runs: dict[str, Any]) -> None:
    aws.emr.add_response("list_job_runs", {"jobRuns": list(runs)}, {"applicationId": "app1", "mode": "STREAMING"})


def expect_start(aws: Aws, token: Any = ANY) -> None:
    started = {"applicationId": "app1", "jobRunId": "new", "arn": run("new", "RUNNING")["arn"]}
    aws.emr.add_response(
        "start_job_run",
        started,
        {
            "applicationId": "app1",
            "clientToken": token,
            "executionRoleArn": ROLE,
            "name": "market-stream",
            "mode": "STREAMING",
            "jobDriver": {"sparkSubmit": {"entryPoint": STREAM.entry_point, "entryPointArguments": ["--once"]}},
            "tags": {"marketflow:configuration": "abc"},
        },
    )


def expect_producer(aws: Aws, desired: int, running: int, failed: int = 0) -> None:
    deployment = {"status": "PRIMARY", "failedTasks": failed, "updatedAt": AT}
    service = {"desiredCount": desired, "runningCount": running, "deployments": [deployment]}
    answer = {"services": [service], "failures": []}
    aws.ecs.add_response("describe_services", answer, {"cluster": "feeds", "services": ["coinbase"]})


def test_it_is_a_service_backend(make: Callable[..., Aws]) -> None:
    backend: ServiceBackend = make().backend
    assert isinstance(backend, AwsServiceBackend)


@pytest.mark.parametrize("last", ["CANCELLED", "SUCCESS", "FAILED"])
def test_a_stream_that_has_ended_is_started(make: Callable[..., Aws], last: str) -> None:
    aws = make()
    expect_runs(aws, run("r1", last))
    expect_start(aws)
    assert aws.backend.start("market-stream") is True


@pytest.mark.parametrize("last", ["SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING"])
def test_a_stream_that_is_active_is_not_started_again(make: Callable[..., Aws], last: str) -> None:
    aws = make()
    expect_runs(aws, run("other", "FAILED", name="another job", created=LATER), run("r1", last))
    assert aws.backend.start("market-stream") is False


def test_a_stream_that_is_still_stopping_is_not_joined_by_a_second(make: Callable[..., Aws]) -> None:
    aws = make()
    expect_runs(aws, run("r1", "CANCELLING"))
    with pytest.raises(ServiceError, match="r1 of market-stream is still stopping"):
        aws.backend.start("market-stream")


def test_two_starts_that_saw_the_same_last_run_send_the_same_token_and_a_later_one_another(
    make: Callable[..., Aws],
) -> None:
    tokens = []
    for last in ("r1", "r1", "r2"):
        aws = make()
        expect_runs(aws, run(last, "CANCELLED"))
        expect_start(aws)
        aws.emr.client.meta.events.register(
            "provide-client-params.emr-serverless.StartJobRun",
            lambda params, **_: tokens.append(params["clientToken"]),
        )
        aws.backend.start("market-stream")

    assert tokens[0] == tokens[1]
    assert tokens[2] != tokens[0]
    assert all(len(token) == 64 and token.isalnum() for token in tokens)


def test_the_newest_run_is_found_across_pages(make: Callable[..., Aws]) -> None:
    aws = make()
    first = {"applicationId": "app1", "mode": "STREAMING"}
    aws.emr.add_response("list_job_runs", {"jobRuns": [run("r1", "FAILED")], "nextToken": "more"}, first)
    page = {"jobRuns": [run("r2", "RUNNING", created=LATER)]}
    aws.emr.add_response("list_job_runs", page, {**first, "nextToken": "more"})
    aws.emr.add_response(
        "cancel_job_run",
        {"applicationId": "app1", "jobRunId": "r2"},
        {"applicationId": "app1", "jobRunId": "r2", "shutdownGracePeriodInSeconds": 60},
    )
    assert aws.backend.stop("market-stream") is True


@pytest.mark.parametrize("last", [None, "CANCELLED", "CANCELLING", "FAILED"])
def test_a_stream_that_does_not_run_is_not_stopped_again(make: Callable[..., Aws], last: str | None) -> None:
    aws = make()
    expect_runs(aws, *([run("r1", last)] if last else []))
    assert aws.backend.stop("market-stream") is False


def test_a_restart_stops_a_running_stream_and_starts_an_ended_one(make: Callable[..., Aws]) -> None:
    running, ended = make(), make()
    expect_runs(running, run("r1", "RUNNING"))
    running.emr.add_response("cancel_job_run", {"applicationId": "app1", "jobRunId": "r1"})
    running.backend.restart("market-stream")

    expect_runs(ended, run("r1", "CANCELLED"))
    expect_runs(ended, run("r1", "CANCELLED"))
    expect_start(ended)
    ended.backend.restart("market-stream")


@pytest.mark.parametrize(
    ("reported", "state", "since"),
    [
        ("RUNNING", "running", AT),
        ("QUEUED", "starting", AT),
        ("CANCELLED", "stopped", LATER),
        ("FAILED", "failed", LATER),
    ],
)
def test_status_reads_the_streams_run(make: Callable[..., Aws], reported: str, state: str, since: datetime) -> None:
    aws = make()
    expect_runs(aws, run("r1", reported))
    job = {name: value for name, value in run("r1", reported).items() if name not in ("id",)}
    job |= {
        "jobRunId": "r1",
        "jobDriver": {"sparkSubmit": {"entryPoint": "s3://x"}},
        "stateDetails": "why",
        "tags": {"marketflow:configuration": "abc"},
    }
    aws.emr.add_response("get_job_run", {"jobRun": job}, {"applicationId": "app1", "jobRunId": "r1"})
    expect_producer(aws, 1, 1)

    status = aws.backend.status()["market-stream"]

    assert (status.state, status.since, status.configuration_hash) == (state, since, "abc")
    assert status.detail == f"run r1 is {reported}: why"
    assert (status.uptime_s is not None) == (state == "running")


@pytest.mark.parametrize(
    ("desired", "running", "failed", "state", "detail"),
    [
        (1, 1, 0, "running", "1 of 1 tasks run"),
        (1, 0, 0, "starting", "0 of 1 tasks run"),
        (1, 0, 3, "backoff", "0 of 1 tasks run, 3 failed"),
        (0, 0, 0, "stopped", "0 of 0 tasks run"),
    ],
)
def test_status_reads_a_producers_tasks(
    make: Callable[..., Aws], desired: int, running: int, failed: int, state: str, detail: str
) -> None:
    aws = make()
    expect_runs(aws)
    expect_producer(aws, desired, running, failed)

    status = aws.backend.status()

    assert status["market-stream"].state == "stopped"
    assert (status["producer-coinbase"].state, status["producer-coinbase"].detail) == (state, detail)


def test_a_producer_is_scaled_to_one_and_to_none_and_only_when_it_is_not_there_yet(make: Callable[..., Aws]) -> None:
    aws = make()
    for present, count in ((0, 1), (1, 0)):
        expect_producer(aws, present, present)
        asked = {"cluster": "feeds", "service": "coinbase", "desiredCount": count}
        aws.ecs.add_response("update_service", {}, asked)
    expect_producer(aws, 1, 1)

    assert aws.backend.start("producer-coinbase") is True
    assert aws.backend.stop("producer-coinbase") is True
    assert aws.backend.start("producer-coinbase") is False


def test_a_producer_is_replaced_on_restart(make: Callable[..., Aws]) -> None:
    aws = make()
    asked = {"cluster": "feeds", "service": "coinbase", "desiredCount": 1, "forceNewDeployment": True}
    aws.ecs.add_response("update_service", {}, asked)
    aws.backend.restart("producer-coinbase")


def test_logs_are_the_last_lines_of_the_newest_stream(make: Callable[..., Aws]) -> None:
    aws = make()
    newest = {"logGroupName": "/stream", "orderBy": "LastEventTime", "descending": True, "limit": 1}
    aws.logs.add_response("describe_log_streams", {"logStreams": [{"logStreamName": "s"}]}, newest)
    asked = {"logGroupName": "/stream", "logStreamName": "s", "limit": 2, "startFromHead": False}
    aws.logs.add_response("get_log_events", {"events": [{"message": "a\n"}, {"message": "b"}]}, asked)

    assert aws.backend.logs("market-stream", 2) == ["a", "b"]


def test_what_cannot_be_asked_for_is_named(make: Callable[..., Aws]) -> None:
    aws = make(replace(STREAM, log_group=None))
    with pytest.raises(ServiceError, match="market-stream has no CloudWatch log group"):
        aws.backend.logs("market-stream")
    with pytest.raises(ServiceError, match="no service 'gamma'; there are market-stream, producer-coinbase"):
        aws.backend.start("gamma")
    aws.ecs.add_response("describe_services", {"services": [], "failures": [{"reason": "MISSING"}]})
    with pytest.raises(ServiceError, match="ECS has no service coinbase in feeds"):
        aws.backend.start("producer-coinbase")
