"""LightGBM runs on a machine without libgomp, from what the wheels carry; where they carry none, it is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketflow.forecast.openmp import _carried, renamed

TRAIN = """
import ctypes, numpy
from marketflow.errors import SetupError
from marketflow.forecast import openmp
try:
    ctypes.CDLL("libgomp.so.1")
except OSError:
    print("hidden")
{more}
try:
    library = openmp.lightgbm()
except SetupError as error:
    raise SystemExit(str(error))
data = library.Dataset(numpy.random.default_rng(1).random((500, 3)), label=numpy.arange(500) % 2)
print(library.train({{"objective": "binary", "verbosity": -1}}, data, 3).num_trees())
"""


def without_libgomp(more: str = "") -> subprocess.CompletedProcess[str]:
    """The script in a mount namespace of its own, where the system's libgomp is an empty file."""
    found = subprocess.run(
        [shutil.which("ldconfig") or "/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True
    )
    names = [line.rpartition("=> ")[2] for line in found.stdout.splitlines() if "libgomp.so.1 " in line]
    hide = [f"mount --bind /dev/null '{Path(name).resolve()}'" for name in names]
    command = " && ".join([*hide, f"exec '{sys.executable}' -c \"$0\""])
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no namespaces, in which the library could be hidden")
    script = TRAIN.format(more=more)
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, script], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_a_model_is_trained_where_libgomp_is_not_installed() -> None:
    done = without_libgomp()
    assert done.stdout.split() == ["hidden", "3"], done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
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
