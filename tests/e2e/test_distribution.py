"""What is published: the files of the sdist and of the wheel that is built from it, and what they say of themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import patchpack as pp

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("patchpack", "tests", "docs", "bench")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mkdocs.yml")
LEFT_BEHIND = (  # by tests, fuzzers and numba's cache
    "patchpack/__pycache__/kernels.fill-1.py311.nbi", "patchpack/plan/__pycache__/rows.cpython-311.pyc", "patchpack/left.nbc",
    "tests/unit/__pycache__/test_left.cpython-311.pyc", "fuzz-crashes/tar_0", ".hypothesis/examples/left", "build/lib/left.py",
)  # fmt: skip
BUILD = """
import sys
from hatchling import build
print(getattr(build, f"build_{sys.argv[1]}")(sys.argv[2]))
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """Run the build backend as a frontend does, without one: no network, no other environment."""
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with what may lie about in one."""
    folder = tmp_path_factory.mktemp("dist") / "checkout"
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    """The sdist, unpacked."""
    for name in LEFT_BEHIND:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"left behind")
    with tarfile.open(build("sdist", checkout, checkout.parent)) as archive:
        archive.extractall(checkout.parent, filter="data")
    return checkout.parent / f"patchpack-{pp.__version__}"


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", sdist, sdist.parent))


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"patchpack-{pp.__version__}.dist-info/METADATA").decode())


def test_an_sdist_holds_the_checkout_and_nothing_that_was_left_in_it(checkout: Path, sdist: Path) -> None:
    assert files_under(sdist) - {"PKG-INFO"} == files_under(checkout) - set(LEFT_BEHIND)


def test_a_wheel_holds_the_package_its_samples_and_its_licence(sdist: Path, wheel: zipfile.ZipFile) -> None:
    info = f"patchpack-{pp.__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    names = set(wheel.namelist())
    assert names - about == {f"patchpack/{name}" for name in files_under(sdist / "patchpack")}
    assert about <= names
    samples = {f"patchpack/samples/{Path(path).name}" for split in ("train", "val") for path in pp.samples.shards(split)}
    assert {"patchpack/py.typed", *samples} <= names
    assert wheel.read(f"{info}/WHEEL").decode().split("Tag: ")[1].strip() == "py3-none-any"


def test_a_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    about = metadata(wheel)
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("patchpack", pp.__version__, "Apache-2.0")
    assert about["Requires-Python"] == ">=3.10"
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    entry = wheel.read(f"patchpack-{pp.__version__}.dist-info/entry_points.txt").decode()
    assert entry.split() == ["[console_scripts]", "patchpack", "=", "patchpack.cli:main"]


def test_what_is_required_is_bounded_from_below_and_no_extra_gets_in_unasked(wheel: zipfile.ZipFile) -> None:
    required = [line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split(">=")[0] for line in required) == [
        "msgspec", "numba", "numpy", "pillow", "rich", "torch", "typing-extensions", "webdataset",
    ]  # fmt: skip
    assert all(">=" in line and "<" not in line for line in required)
