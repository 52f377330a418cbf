"""Spark's Python daemon without the zip files on its path (`spark.python.daemon.module`).

Spark puts its own pyspark.zip and py4j.zip before the installed packages, and every Python task calls
`importlib.invalidate_caches`, which reads a zip's whole directory again, in Python: 8 ms a task for pyspark.zip where
it was measured. The installed packages are the same ones, and are on the path anyway.
"""

from __future__ import annotations

import sys

sys.path[:] = [entry for entry in sys.path if not entry.endswith(".zip")]
for entry in [name for name in sys.path_importer_cache if name.endswith(".zip")]:
    del sys.path_importer_cache[entry]

# imported here once, so that every worker that is forked has them
import pandas  # noqa: E402, F401 - after the path is what it should be
import pyarrow  # noqa: E402, F401
from pyspark.daemon import manager  # noqa: E402

if __name__ == "__main__":
    manager()
