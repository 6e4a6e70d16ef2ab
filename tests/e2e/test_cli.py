"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import patchpack as pp

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


def test_inspect_names_what_is_there_and_pastes_code_that_runs(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    Image.new("RGB", (60, 20)).save(folder / "wide.png")
    Image.new("RGB", (20, 70)).save(folder / "tall.png")
    Image.new("L", (30, 31)).save(folder / "grey.jpg")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    done = patchpack("inspect", "flat", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("3 images in flat", "67% are more than 20 % from square", "PNG 2", "JPEG 1", "1 samples cannot be used"):
        assert words in done.stdout
    assert "broken.jpg" in done.stdout
    assert "target=None" in done.stdout  # found out by looking: no flag was given
    pasted = done.stdout[done.stdout.index("import patchpack as pp") : done.stdout.index("next:")]
    pasted = pasted.replace('"cuda"', '"cpu"').replace("num_workers=4", "num_workers=0")
    ran = patchpack(cwd=tmp_path, code=pasted + "\nprint('PACKED', loader.report().packed)")
    assert "PACKED 3" in ran.stdout, ran.stderr


def test_inspect_of_labelled_shards_and_a_limit(tmp_path: Path) -> None:
    shard = pp.samples.shards("val")[0]
    done = patchpack("inspect", shard, "--limit", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 images in" in done.stdout
    assert "(the first of more)" in done.stdout
    assert "pp.recipes.navit(" in done.stdout


@pytest.mark.parametrize("options", [(), ("--recipe", "pix2struct", "--no-target", "--ids"), ("--recipe", "flexivit")])
def test_preview_draws_the_first_rows(options: tuple[str, ...], tmp_path: Path) -> None:
    done = patchpack("preview", pp.samples.shards("val")[0], "--rows", "1", "-o", "out.png", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ images? in 1 rows?: \d+ of \d+ tokens, fill \d\.\d+", done.stdout)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").resize((60, 60)).getcolors(3600) or ()) > 50


@pytest.mark.parametrize("command", ["inspect", "preview"])
def test_a_source_that_is_not_there_is_a_clear_error(command: str, tmp_path: Path) -> None:
    done = patchpack(command, "nowhere-{00..03}.tar", cwd=tmp_path)
    assert done.returncode == 1
    assert "4 of 4 shards are missing, the first is nowhere-00.tar" in done.stderr
