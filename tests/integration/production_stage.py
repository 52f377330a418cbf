"""The embedded Airflow with everything of docs/production.md turned on, and the real parts that it speaks to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment, program
from marketflow.settings import Settings
from marketflow.stack import airflow, airflow_production, postgres
from marketflow.stack.servers import free_ports
from marketflow.warehouse import schema

PREFIX = "airflow/connections"
DAG_ID = "looks_at_the_warehouse"
# the project's own sensor: it asks PostgreSQL through connection marketflow_pg
DAG = '''
"""Looks whether silver.trades is fresh, and says what its environment holds."""
import os
from datetime import UTC, datetime
from airflow.sdk import Asset, dag, task
from marketflow_airflow.freshness import FreshnessSensor

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
def looks_at_the_warehouse():
    @task(outlets=[Asset("seen", uri="marketflow://test/seen")])
    def say():
        print("connections of the environment:", [name for name in os.environ if name.startswith("AIRFLOW_CONN_")])
    FreshnessSensor(task_id="fresh", tables=["silver.trades"]) >> say()

looks_at_the_warehouse()
'''
# a page as a plugin of this project would have one: whoever may see Airflow reads it, who may trigger acts
PAGE = '''
"""A page that Viewer reads and only who may trigger Dags writes to."""
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag, requires_access_view
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI

page = FastAPI(dependencies=[Depends(requires_access_view(AccessView.WEBSITE))], docs_url=None, openapi_url=None)

@page.get("/prices")
def prices():
    return {"prices": []}

@page.post("/prices", dependencies=[Depends(requires_access_dag("POST", DagAccessEntity.RUN))])
def change():
    return {"changed": True}

class Page(AirflowPlugin):
    name = "page"
    fastapi_apps = [{"app": page, "url_prefix": "/page", "name": "page"}]
'''


class Datagrams:
    """A StatsD server as far as a test needs one: a UDP socket, and the names that arrived on it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while datagram := self.socket.recv(65_536):
            self.lines += datagram.decode().splitlines()

    @property
    def names(self) -> set[str]:
        return {line.split(":")[0] for line in list(self.lines)}

    def close(self) -> None:
        # an empty datagram ends the listener
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self.socket.close()


class Production:
    """Settings, and an API server and a scheduler that run by them."""

    def __init__(self, settings: Settings, folder: Path, metrics: Datagrams, lineage: Path) -> None:
        self.settings, self.metrics, self.lineage = settings, metrics, lineage
        for name, source in (("dags", DAG), ("plugins", PAGE)):
            (folder / name).mkdir()
            (folder / name / f"{name}_of_the_test.py").write_text(source)
        for own in (PROJECT_FOLDER / "plugins").glob("marketflow_*"):
            (folder / "plugins" / own.name).symlink_to(own)
        self.environment = {
            **embedded_environment(settings),
            **airflow.environment(settings),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins"),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.settings.home / f"{arguments[0]}.log").open("wb") as log:
            started = subprocess.Popen(
                [program("airflow"), *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.processes.append(started)
        return started

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [program("airflow"), *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def ask(self, method: str, path: str, token: str | None = None, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of what the API server answers."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(
            f"{airflow.base_url(self.settings)}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, None

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/api/v2/version")[0] == 200
        except OSError:
            return False

    def token(self, user: str) -> str:
        body = {"username": user, "password": airflow_production.passwords(self.settings)[user]}
        status, answer = self.ask("POST", "/auth/token", body=body)
        assert status == 201
        found: str = answer["access_token"]
        return found


@contextmanager
def secrets_manager(settings: Settings, connections: Mapping[str, str]) -> Iterator[int]:
    """The port of moto's AWS Secrets Manager, which holds these connections."""
    import boto3

    port = free_ports(1)[0]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        client = boto3.client(
            "secretsmanager",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=settings.aws_region,
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        for name, value in connections.items():
            client.create_secret(Name=f"{PREFIX}/{name}", SecretString=value)
        yield port
    finally:
        server.stop()


@contextmanager
def production(embedded: Settings, folder: Path) -> Iterator[Production]:
    """A metadata database with FAB's users; nothing runs yet."""
    ports = ("airflow_port", "airflow_log_port", "airflow_trigger_log_port", "airflow_scheduler_health_port")
    # a dataset of its own: what is marked as fresh here is so to no other test
    own = {"dataset": "production", **dict(zip(ports, free_ports(len(ports)), strict=True))}
    settings = embedded.model_copy(update=own)
    metrics, lineage = Datagrams(), folder / "lineage.ndjson"
    held = {name: json.dumps(value) for name, value in airflow.named_connections(settings).items()}
    with secrets_manager(settings, held) as port:
        asked = {
            "airflow_auth": "fab",
            "airflow_remote_logs": f"s3://{settings.lake_bucket}/airflow-logs",
            "airflow_secrets": f"secretsmanager://127.0.0.1:{port}/{PREFIX}",
            "airflow_lineage": f"file://{lineage}",
            "airflow_metrics": f"statsd://127.0.0.1:{metrics.port}",
        }
        settings = settings.model_copy(update=asked)
        postgres.bootstrap(settings)
        schema.apply(settings)
        airflow.prepare(settings)
        built = Production(settings, folder, metrics, lineage)
        try:
            yield built
        finally:
            built.stop()
            metrics.close()


@contextmanager
def otlp_receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OpenTelemetry collector's HTTP address, and (path, body) of what was posted to it."""
    arrived: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", arrived
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
