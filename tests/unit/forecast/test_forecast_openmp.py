"""LightGBM runs on a machine without libgomp, from what the wheels carry; where they carry none, it is said."""

from __future__ import annotations

import subprocess
import sys

from marketflow.forecast.openmp import _carried, renamed

TRAIN = """
import ctypes, pathlib, numpy
from marketflow.errors import SetupError
from marketflow.forecast import openmp

load = ctypes.CDLL
def without_the_systems(name, *given, **options):
    if name == "libgomp.so.1":
        raise OSError("libgomp.so.1: cannot open shared object file")
    return load(name, *given, **options)
ctypes.CDLL = without_the_systems
{more}
try:
    library = openmp.lightgbm()
except SetupError as error:
    raise SystemExit(str(error))
data = library.Dataset(numpy.random.default_rng(1).random((500, 3)), label=numpy.arange(500) % 2)
print(library.train({{"objective": "binary", "verbosity": -1}}, data, 3).num_trees())
lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
print(*{{line.split()[5] for line in lines if "libgomp" in line}})
"""


def without_libgomp(more: str = "") -> subprocess.CompletedProcess[str]:
    """The script in a process for which the system has no libgomp; it says which one is mapped at the end."""
    script = TRAIN.format(more=more)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)


def test_a_model_is_trained_where_libgomp_is_not_installed() -> None:
    done = without_libgomp()
    trees, *mapped = done.stdout.split()
    assert trees == "3", done.stderr
    # LightGBM's own need of it is met by the copy in memory; no other is there but scikit-learn's
    assert [file for file in mapped if "scikit" not in file] == ["/memfd:libgomp.so.1"]


def test_where_no_wheel_carries_it_the_error_says_what_to_install() -> None:
    done = without_libgomp("openmp._carried = lambda: None")
    assert done.returncode == 1
    assert done.stderr.startswith("LightGBM cannot be loaded: libgomp.so.1 is not installed, and scikit-learn's wheel")
    assert "apt-get install libgomp1" in done.stderr


def test_the_carried_library_gets_the_systems_name_and_no_other_change() -> None:
    carried = _carried()
    assert carried is not None
    image = carried.read_bytes()
    made = renamed(image)
    assert made is not None
    assert len(made) == len(image)
    start = next(at for at in range(len(image)) if image[at] != made[at]) - len("libgomp")
    assert made[start : start + 13] == b"libgomp.so.1\0"
    assert made[:start] + image[start : start + len(carried.name)] + made[start + len(carried.name) :] == image
    assert renamed(b"\x7fELF no name") is None
