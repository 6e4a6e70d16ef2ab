"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

RUN = "import sys; from patchpack.cli import main; sys.exit(main(sys.argv[1:]))"


def patchpack(*args: str, cwd: Path, code: str = RUN) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_loads_neither_torch_nor_webdataset(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from patchpack.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print('LOADED', sorted({'torch', 'webdataset', 'numba'} & set(sys.modules)))"
    )
    done = patchpack(cwd=tmp_path, code=code)
    assert "LOADED []" in done.stdout
    assert "demo" in done.stdout


@pytest.mark.parametrize("command", [(), ("demo",)])
def test_help_shows_an_example(command: tuple[str, ...], tmp_path: Path) -> None:
    done = patchpack(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"examples?:\s+patchpack demo", done.stdout)


def test_unknown_command_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = patchpack("dmeo", cwd=tmp_path)
    assert done.returncode == 2
    assert "demo" in done.stderr


def test_demo_compares_trains_and_draws(tmp_path: Path) -> None:
    done = patchpack("demo", "--epochs", "2", "--out", "pictures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("square", "padded", "packed", "420 seen = 420 packed + 0 rejected + 0 dropped + 0 waiting", "next:"):
        assert word in done.stdout
    first, last = map(float, re.findall(r"loss (\d\.\d+) in the first epoch, (\d\.\d+) in the last", done.stdout)[0])
    assert last < first
    assert re.search(r"held-out accuracy: \d\.\d+", done.stdout)
    for name in ("patchpack-demo-comparison.png", "patchpack-demo-rows.png"):
        assert f"pictures/{name}" in done.stdout
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").resize((40, 40)).getcolors(1600) or ()) > 50  # something is drawn


def test_written_program_is_short_and_public(tmp_path: Path) -> None:
    done = patchpack("demo", "--write", "train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: python train.py" in done.stdout
    program = (tmp_path / "train.py").read_text()
    assert len(program.splitlines()) <= 60
    imported = re.findall(r"^(?:from|import) (patchpack\S*)", program, re.MULTILINE)
    assert set(imported) <= {"patchpack", "patchpack.model"}
    compile(program, "train.py", "exec")


def test_write_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    done = patchpack("demo", "--write", "train.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing was overwritten" in done.stderr
    assert (tmp_path / "train.py").read_text() == "mine"


def test_bad_epochs_is_a_clear_error(tmp_path: Path) -> None:
    done = patchpack("demo", "--epochs", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert "--epochs must be at least 1, got 0" in done.stderr
