"""The memory that a measurement takes, sampled while it runs."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import psutil

_EVERY_S = 0.5


class Watch:
    """Peaks of the proportional set size, in MiB: of this process, its JVM, its Python workers, and all together."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_EVERY_S):
            found = {"driver": 0.0, "jvm": 0.0, "workers": 0.0}
            here = psutil.Process()
            for process in (here, *here.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                    command = " ".join(process.cmdline())
                    if process.pid == here.pid:
                        kind = "driver"
                    elif "org.apache.spark" in command:
                        kind = "jvm"
                    elif "pyspark" in command or "python_daemon" in command:
                        kind = "workers"
                    else:  # a server that the measurement started for itself
                        continue
                    found[kind] += process.memory_full_info().pss / 1024**2
            found["all"] = sum(found.values())
            for name, value in found.items():
                self.peaks[name] = max(self.peaks.get(name, 0.0), round(value))
