"""Kernels are compiled wherever they are, and kept on disk where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import patchpack
from patchpack._jit import njit


def from_nowhere() -> dict[str, object]:
    """A function whose file is not there, so that there is no place to keep its machine code beside."""
    names: dict[str, object] = {}
    exec(compile("def add(a, b):\n    return a + b", "<nowhere>", "exec"), names)
    return names


def test_a_kernel_without_a_place_for_its_cache_compiles() -> None:
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(from_nowhere()["add"])
    assert njit(from_nowhere()["add"])(1, 2) == 3  # type: ignore[arg-type]


# what is computed by a kernel that compiles in a second, and by those that rows and pixels need
DRAWN = """
import numpy as np
from patchpack import rng
assert rng.smallest(1, 2, np.zeros(1, dtype=np.uint64), rng.Stage.KEEP, [5], [5]).tolist() == [0, 1, 2, 3, 4]
print(rng.__file__)
"""
PACKED_AND_PAINTED = """
import numpy as np
from PIL import Image
from patchpack import rng
from patchpack.paint import fused
from patchpack.plan.packing import pack_lengths
assert pack_lengths(np.array([3, 5, 2]), seq_len=5).num_rows == 2
assert fused.resize(Image.new("RGB", (9, 9), (1, 2, 3)), (4, 4), "bilinear")[0, 0].tolist() == [1, 2, 3]
print(rng.__file__)
"""


@pytest.mark.parametrize(
    "code", [pytest.param(DRAWN, id="drawn"), pytest.param(PACKED_AND_PAINTED, id="packed and painted", marks=pytest.mark.slow)]
)
def test_the_package_works_where_nothing_can_be_written(code: str, tmp_path: Path) -> None:
    """Files stand where folders of caches would be made, which stops root too."""
    package = tmp_path / "patchpack"
    shutil.copytree(Path(patchpack.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "samples", "*.tar"))
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    home = str(tmp_path / "home" / "of")
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": home, "XDG_CACHE_HOME": home, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(package / "rng.py")
    assert not (tmp_path / "home").is_dir()
