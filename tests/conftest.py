"""Settings that every test process needs before torch is loaded, and the fixtures that several rooms use."""

from __future__ import annotations

import os

# one thread per process: pytest-xdist starts one process per core, and two threads of torch would take a core from the other
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from helpers import profiles  # noqa: E402, F401  loads the hypothesis profile

pytest_plugins = ["helpers.durations", "helpers.leftovers"]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of photographs and hostile image files that `PATCHPACK_TEST_DATA` names; skip where it names none."""
    named = os.environ.get("PATCHPACK_TEST_DATA", "")
    if not named:
        pytest.skip(
            "needs photographs or hostile image files, which the repository does not hold: PATCHPACK_TEST_DATA names no folder"
        )
    folder = Path(named).resolve()
    if not (folder / "data").is_dir():
        pytest.fail(f"PATCHPACK_TEST_DATA={named}: expected a folder that holds data/photos and data/hostile")
    return folder
