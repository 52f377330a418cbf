"""Where the files of a replay are: on this machine, or in the lake's bucket, from which they are fetched first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from marketflow.catalog.objects import listed
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.stack import s3

SCHEME = "s3://"


@contextmanager
def local(settings: Settings, names: Sequence[str]) -> Iterator[list[Path]]:
    """Paths of these files, those of the bucket copied below the home until the block ends.

    Raises:
        ConfigurationError: a file is missing, nothing is below an address, or its bucket is not there.
    """
    missing = [name for name in names if not name.startswith(SCHEME) and not Path(name).exists()]
    if missing:
        raise ConfigurationError(f"no such file: {', '.join(missing)}")
    temporary = settings.home / "run"
    temporary.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="replay-", dir=temporary))
    try:
        yield [
            _fetched(settings, name, folder / str(number)) if name.startswith(SCHEME) else Path(name)
            for number, name in enumerate(names)
        ]
    finally:
        shutil.rmtree(folder)


def _fetched(settings: Settings, address: str, folder: Path) -> Path:
    """All that is below an address of the bucket, in folders as there."""
    bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
    client = s3.client(settings)
    try:
        keys = [one.key for one in listed(client, bucket, prefix)]
    except (BotoCoreError, ClientError) as error:
        raise ConfigurationError(
            f"{address} cannot be listed ({error}); the lake's bucket is {settings.lake_bucket}"
        ) from error
    for key in keys:
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(target))
    if not keys:
        raise ConfigurationError(f"{address}: nothing is there; `marketflow export raw` writes it, and says where")
    return folder
