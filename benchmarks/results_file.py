"""Writing a measurement beside the machine it was made on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Cores, memory and versions: what a figure means nothing without."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "python": platform.python_version(),
        "java": java[0] if java else "none",
        "system": f"{platform.system()} {platform.release()}",
    }


def write(name: str, results: dict[str, Any]) -> Path:
    """Write benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    body = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **results}
    path.write_text(json.dumps(body, indent=1, default=str) + "\n")
    return path
