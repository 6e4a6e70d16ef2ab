"""Settings that every test process needs before torch is loaded, and the fixtures that several rooms use."""

from __future__ import annotations

import os

# one thread per process: pytest-xdist starts one process per core, and two threads of torch would take a core from the other
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from helpers import profiles  # noqa: E402, F401  loads the hypothesis profile
from helpers.hard_images import own  # noqa: E402
from helpers.photographs import write_shards  # noqa: E402

pytest_plugins = ["helpers.durations", "helpers.leftovers"]


def outside(needed: str) -> Path:
    """Return the folder of photographs and hostile image files that `PATCHPACK_TEST_DATA` names; skip where it names none."""
    named = os.environ.get("PATCHPACK_TEST_DATA", "")
    if not named:
        pytest.skip(f"needs {needed}, which the repository does not hold: PATCHPACK_TEST_DATA names no folder")
    folder = Path(named).resolve()
    if not (folder / "data").is_dir():
        pytest.fail(f"PATCHPACK_TEST_DATA={named}: expected a folder that holds data/photos and data/hostile")
    return folder


@pytest.fixture(scope="session", params=["drawn", pytest.param("real", marks=pytest.mark.slow)])
def photographs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the paths of four shards of photographs with a class index and a JSON text each, drawn or real."""
    if request.param == "drawn":
        return write_shards(tmp_path_factory.mktemp("photographs"))
    folder = outside("the 400 photographs") / "data" / "photos"
    found = sorted(map(str, folder.glob("*.tar")))
    assert len(found) == 4, folder
    return found


@pytest.fixture(scope="session")
def hostile_files() -> Path:
    """Return the folder of Pillow's hostile image files: `expected.json` and `files/`."""
    return outside("the 69 hostile image files") / "data" / "hostile"


@pytest.fixture(scope="session", params=["drawn", "real"])
def hard_files(request: pytest.FixtureRequest) -> list[tuple[str, bytes]]:
    """Return name and bytes of difficult image files, drawn or of Pillow's test suite."""
    if request.param == "drawn":
        return [(file.name, file.data) for file in own()]
    folder = request.getfixturevalue("hostile_files") / "files"
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
