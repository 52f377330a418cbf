"""LightGBM, on machines without libgomp too.

LightGBM's wheel needs the system's libgomp.so.1, which a fresh Debian or a slim image lacks. scikit-learn's wheel
carries one under a name of its own (libgomp-<hash>.so.1.0.0), which the loader does not take for libgomp.so.1: it goes
by the name inside the file. So a copy in memory is given the right name, and loaded before LightGBM asks for it.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

from marketflow.errors import SetupError

SYSTEM_NAME = "libgomp.so.1"
_OWN_NAME = re.compile(rb"\0(libgomp-[0-9a-f]+\.so[0-9.]*)\0")


def lightgbm() -> ModuleType:
    """The module `lightgbm`, whatever the machine has of OpenMP.

    Raises:
        SetupError: neither the machine nor scikit-learn's wheel has an OpenMP runtime; says what to install.
    """
    try:
        ctypes.CDLL(SYSTEM_NAME, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        _load_carried()
    try:
        return importlib.import_module("lightgbm")
    except OSError as error:
        raise _missing(str(error)) from error


def _load_carried() -> None:
    """Load scikit-learn's libgomp as libgomp.so.1."""
    carried = _carried()
    if carried is None:
        raise _missing(f"{SYSTEM_NAME} is not installed, and scikit-learn's wheel carries none")
    image = renamed(carried.read_bytes())
    if image is None:
        raise _missing(f"{SYSTEM_NAME} is not installed, and {carried.name} is of no known build")
    # a file in memory: the folder for temporary ones may forbid to run what is in it
    handle = os.memfd_create(SYSTEM_NAME)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(image)
        ctypes.CDLL(f"/proc/self/fd/{handle}", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise _missing(f"{SYSTEM_NAME} is not installed, and {carried.name} cannot be loaded: {error}") from error
    finally:
        os.close(handle)


def renamed(image: bytes) -> bytes | None:
    """The library with libgomp.so.1 as its own name, of the same length; None where it has no name of that form."""
    found = _OWN_NAME.search(image)
    if found is None:
        return None
    start, end = found.span(1)
    return image[:start] + SYSTEM_NAME.encode().ljust(end - start, b"\0") + image[end:]


def _carried() -> Path | None:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent.parent / "scikit_learn.libs"
    return next(iter(sorted(folder.glob("libgomp-*.so*"))), None)


def _missing(why: str) -> SetupError:
    return SetupError(
        f"LightGBM cannot be loaded: {why}. Install OpenMP's runtime (Debian and Ubuntu: apt-get install libgomp1; "
        "Fedora: dnf install libgomp; macOS: brew install libomp)"
    )
