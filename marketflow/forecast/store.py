"""Where a training is kept: model.txt (LightGBM's own format) and run.json, in a folder or in the lake's bucket.

The model is there before the record that names it. Clients are passed in, so that the same code writes to the embedded
S3 and to AWS.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from marketflow.errors import LakeStateError
from marketflow.forecast.record import Record

MODEL, RECORD = "model.txt", "run.json"


def to_folder(folder: Path, model: str, kept: Record) -> str:
    """Write both files, over those of an earlier run; the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_text(model)
    (folder / RECORD).write_text(_text(kept))
    return str(folder / MODEL)


def to_bucket(client: Any, bucket: str, dataset: str, model: str, kept: Record) -> str:
    """Put both objects under forecast/<dataset>/<run_id>/; the model's address. `client` is a boto3 S3 client."""
    prefix = f"forecast/{dataset}/{kept['run_id']}"
    client.put_object(Bucket=bucket, Key=f"{prefix}/{MODEL}", Body=model.encode())
    client.put_object(Bucket=bucket, Key=f"{prefix}/{RECORD}", Body=_text(kept).encode())
    return f"s3://{bucket}/{prefix}/{MODEL}"


def from_bucket(client: Any, uri: str, sha256: str) -> tuple[str, Record]:
    """Model and record of a run by its model's address.

    Raises:
        LakeStateError: the model's bytes are not those that were trained.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    model = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    if hashlib.sha256(model).hexdigest() != sha256:
        raise LakeStateError(f"{uri} was changed: its SHA-256 is not {sha256}, which was written down at training")
    kept = client.get_object(Bucket=bucket, Key=key.removesuffix(MODEL) + RECORD)["Body"].read()
    return model.decode(), json.loads(kept)


def _text(kept: Record) -> str:
    return json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
