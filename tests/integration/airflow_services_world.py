"""A supervisord with small programs as services, and rounds of the Dags' operators over them."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home  # noqa: F401

# isort: split
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

from marketflow.services.supervisor import SupervisorBackend
from marketflow.stack import airflow
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.integration.services_stage import Stage

# a producer in its metrics alone: what it says is in a file
SAYS = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pathlib.Path(os.environ["SAYS"]).read_bytes()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
BROKEN = "import sys\nprint('MARKETFLOW_PRODUCTS: unknown product XYZ')\nsys.exit(2)"
MINUTE = timedelta(minutes=1)


class World:
    """One supervisord with chosen programs as services, and rounds over them."""

    def __init__(self, settings, monkeypatch):
        self.settings, self._monkeypatch = settings, monkeypatch
        self.stage = Stage(settings.home)
        self.says = settings.home / "says"
        self._runs = 0

    def producer(self, **more):
        variables = {"SAYS": str(self.says), "PORT": str(self.settings.producer_coinbase_metrics_port)}
        return self.stage.definition("producer-coinbase", SAYS, variables={**variables, **more})

    def services(self, *definitions):
        """Replace what is defined, as `make up` does."""
        self.configure(*definitions)
        self.backend.up()

    def configure(self, *definitions):
        """Change what is defined and touch nothing that runs: that is a round's to do."""
        self._monkeypatch.setattr("marketflow.stack.backend.definitions", lambda _: definitions)
        self.backend = SupervisorBackend(self.settings, definitions)

    def say(self, *, age_s=0.0, queue=0, more=""):
        at = time.time() - age_s
        self.says.write_text(
            "# HELP marketflow_queue_messages Messages received\n"
            f'marketflow_last_message_timestamp_seconds{{venue="coinbase_exchange"}} {at!r}\n'
            f'marketflow_queue_messages{{venue="coinbase_exchange"}} {queue}\n{more}'
        )

    def round(self, operator, *, by=None, **params):
        self._runs += 1
        run = SimpleNamespace(dag_id="producers", run_id=f"run {self._runs}", triggering_user_name=by, conf=params)
        operator(task_id="round").execute({"dag_run": run, "params": params})

    def rows(self, query):
        with connect(self.settings) as connection:
            return connection.execute(query).fetchall()

    def execute(self, *statement):
        with connect(self.settings, autocommit=True) as connection:
            connection.execute(*statement)

    def events(self, service="producer-coinbase"):
        query = "select service, event, detail from ops.service_event order by at"
        return [(event, detail) for name, event, detail in self.rows(query) if name == service]

    def alerts(self, service="producer-coinbase"):
        """Of a service, oldest first: title, what it said, and whether it is over."""
        query = "select alert_key, title, body, closed_at is not null from ops.alert order by opened_at"
        return [(title, body, over) for key, title, body, over in self.rows(query) if key == f"service:{service}"]

    def state(self, name="producer-coinbase"):
        return self.backend.status()[name].state

    def pid(self, name="producer-coinbase"):
        return self.backend.status()[name].pid


@contextmanager
def services_world(embedded, monkeypatch) -> Iterator[World]:
    """A world whose PostgreSQL knows of no service, event, batch, gap or quota."""
    names = ("producer_coinbase_metrics_port", "producer_coingecko_metrics_port", "simulator_rest_port")
    own = dict(zip(names, free_ports(3), strict=True))
    ports = {name: getattr(embedded, name) for name in ("postgres_port", "kafka_port", "s3_port")}
    for name, value in {**ports, **own, "home": embedded.home}.items():
        monkeypatch.setenv(f"MARKETFLOW_{name.upper()}", str(value))
    for name, value in airflow.connections(embedded).items():
        monkeypatch.setenv(name, value)
    built = World(embedded.model_copy(update=own), monkeypatch)
    for table in ("service_desired", "service_event", "stream_progress", "trade_gap", "quota_usage", "alert"):
        built.execute(f"truncate ops.{table}")
    yield built
    built.backend.shutdown()
    assert built.stage.processes() == {}
