"""The command line as a user meets it: called in this process, and each command once as a process."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.drawn import assert_drawn, photo
from patchpack.cli import main
from patchpack.cli.commands import demo
from patchpack.cli.demo import comparison, program
from patchpack.model import NaViT
from patchpack.stream.sources.opening import open_source

RUN = "import sys; from patchpack.cli import main; sys.exit(main(sys.argv[1:]))"
VAL = pp.samples.shards("val")[0]


class Done(NamedTuple):
    """Hold the exit status of a command, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Called = Callable[..., Done]


@pytest.fixture
def patchpack(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """Return a function that calls a command in this process, in the temporary folder, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def called(*arguments: str) -> Done:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as stopped:  # by argparse
            status = int(stopped.code or 0)
        return Done(status, *capsys.readouterr())

    return called


def process(*arguments: str, cwd: Path) -> Done:
    """Run Python in a process, as a shell would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


SLOW = pytest.mark.slow
MORE_WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # than there are cores


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("plan", VAL, "--limit", "9", "--seq-len", "512"), "recommended: pp.recipes.navit("),
        pytest.param(("inspect", VAL, "--limit", "9"), "9 images in", marks=SLOW),
        pytest.param(("preview", VAL, "--rows", "1"), "wrote preview.png", marks=SLOW),
        pytest.param(("replay", VAL, "--key", "KEY"), "digest ", marks=SLOW),
        pytest.param(("pack", VAL, "packed", "--seq-len", "256"), "100 images", marks=SLOW),
        pytest.param(("embed", VAL, "--model", "vit_ti16", "-o", "vectors"), "100 images in", marks=SLOW),
        pytest.param(("demo", "--write", "train.py"), "next: python train.py", marks=SLOW),
    ],
    ids=["plan", "inspect", "preview", "replay", "pack", "embed", "demo"],
)
def test_every_command_is_a_process(arguments: tuple[str, ...], printed: str, tmp_path: Path) -> None:
    """Run each once, but ``index``, whose process is in test_index.py."""
    key = next(iter(open_source(VAL).scan())).key if "KEY" in arguments else ""
    done = process("-c", RUN, *(key if argument == "KEY" else argument for argument in arguments), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_an_error_is_the_exit_status_of_the_process(tmp_path: Path) -> None:
    done = process("-c", RUN, "index", "nowhere.tar", "-o", "nowhere.index", cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.tar" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_neither_torch_nor_webdataset(tmp_path: Path) -> None:
    """Ask for the help of all commands, then of each, in one process."""
    code = (
        "import sys\n"
        "from patchpack.cli import main\n"
        "from patchpack.cli.commands import COMMANDS\n"
        "for command in ([], *([name] for name in COMMANDS)):\n"
        "    try:\n        main([*command, '--help'])\n    except SystemExit:\n        pass\n"
        "    print('LOADED', sorted({'torch', 'webdataset', 'numba', 'matplotlib'} & set(sys.modules)))\n"
        "    print('RICH', 'rich' in sys.modules)"
    )
    done = process("-c", code, cwd=tmp_path)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert loaded == ["LOADED []"] * 9, done.stderr
    assert "RICH False" in done.stdout  # the first help is the quickest
    assert "usage: patchpack embed" in done.stdout


@pytest.mark.parametrize("command", [(), ("demo",)])
def test_help_shows_an_example(command: tuple[str, ...], patchpack: Called) -> None:
    done = patchpack(*command, "--help")
    assert done.returncode == 0
    assert re.search(r"examples?:\s+patchpack demo", done.stdout)


def test_unknown_command_is_refused_with_the_known_ones(patchpack: Called) -> None:
    done = patchpack("dmeo")
    assert done.returncode == 2
    assert "demo" in done.stderr


def check_demo(done: Done, folder: Path, images: int) -> None:
    assert done.returncode == 0, done.stderr
    account = f"{images} seen = {images} packed + 0 rejected + 0 dropped + 0 waiting"
    for word in ("square", "padded", "packed", account, "next:"):
        assert word in done.stdout
    first, last = map(float, re.findall(r"loss (\d\.\d+) in the first epoch, (\d\.\d+) in the last", done.stdout)[0])
    assert last < first
    assert re.search(r"held-out accuracy: \d\.\d+", done.stdout)
    for name in ("patchpack-demo-comparison.png", "patchpack-demo-rows.png"):
        assert f"pictures/{name}" in done.stdout
        with Image.open(folder / "pictures" / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").resize((40, 40)).getcolors(1600) or ()) > 50  # something is drawn


def test_demo_compares_trains_and_draws(patchpack: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the smallest demo: one training shard, a tiny model, few images compared, each way measured once."""
    shards = {split: pp.samples.shards(split)[:1] for split in ("train", "val")}
    monkeypatch.setattr(pp.samples, "shards", shards.__getitem__)
    monkeypatch.setattr(comparison, "COMPARED_IMAGES", demo.DRAWN_IMAGES)
    monkeypatch.setattr(comparison, "_REPEATS", 1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = NaViT(patch_size=16, width=32, depth=1, heads=2, num_classes=10)
    monkeypatch.setattr(program, "make_model", lambda: model)
    check_demo(patchpack("demo", "--epochs", "2", "--out", "pictures"), tmp_path, 140)


@pytest.mark.slow
def test_the_whole_demo_is_a_process(tmp_path: Path) -> None:
    check_demo(process("-c", RUN, "demo", "--epochs", "2", "--out", "pictures", cwd=tmp_path), tmp_path, 420)


def test_written_program_is_short_and_public(patchpack: Called, tmp_path: Path) -> None:
    done = patchpack("demo", "--write", "train.py")
    assert done.returncode == 0, done.stderr
    assert "next: python train.py" in done.stdout
    program = (tmp_path / "train.py").read_text()
    assert len(program.splitlines()) <= 60
    imported = re.findall(r"^(?:from|import) (patchpack\S*)", program, re.MULTILINE)
    assert set(imported) <= {"patchpack", "patchpack.model"}
    compile(program, "train.py", "exec")


def test_write_never_overwrites(patchpack: Called, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    done = patchpack("demo", "--write", "train.py")
    assert done.returncode == 1
    assert "nothing was overwritten" in done.stderr
    assert (tmp_path / "train.py").read_text() == "mine"


def test_bad_epochs_is_a_clear_error(patchpack: Called) -> None:
    done = patchpack("demo", "--epochs", "0")
    assert done.returncode == 1
    assert "--epochs must be at least 1, got 0" in done.stderr


@MORE_WORKERS
@pytest.mark.parametrize("run", ["here", pytest.param("process", marks=SLOW)])
def test_inspect_names_what_is_there_and_pastes_code_that_runs(run: str, patchpack: Called, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    Image.new("RGB", (60, 20)).save(folder / "wide.png")
    Image.new("RGB", (20, 70)).save(folder / "tall.png")
    Image.new("L", (30, 31)).save(folder / "grey.jpg")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    done = patchpack("inspect", "flat")
    assert done.returncode == 0, done.stderr
    for words in (
        "3 images in flat",
        "2 of 3 (67 %) are more than 20 % from square",
        "PNG 2",
        "JPEG 1",
        "1 sample cannot be used",
    ):
        assert words in done.stdout
    assert "broken.jpg" in done.stdout
    assert "target=None" in done.stdout  # found out by looking: no flag was given
    pasted = paste(done.stdout, tmp_path)
    if run == "process":
        ran = process(pasted.name, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert "PACKED 3" in ran.stdout
    else:
        assert run_here(pasted) == 3


def paste(printed: str, folder: Path) -> Path:
    """Write the code that `inspect` printed into a program, which prints the number of images packed as well."""
    code = printed[printed.index("import patchpack as pp") : printed.index("next:")].split("wrote ")[0]
    program = folder / "pasted.py"
    program.write_text(code + "    print('PACKED', loader.report().packed)\n", encoding="utf-8")
    return program


def run_here(program: Path) -> int:
    """Run a program in this process and return the number of images that its loader packed."""
    return int(runpy.run_path(str(program), run_name="__main__")["loader"].report().packed)


@MORE_WORKERS
@pytest.mark.parametrize("name", ["it's (1) {x} \N{GREEK SMALL LETTER PI}", "photos"])
def test_pasted_code_and_the_next_command_survive_the_name_of_a_folder(name: str, patchpack: Called, tmp_path: Path) -> None:
    (tmp_path / name / "cat").mkdir(parents=True)
    Image.new("RGB", (60, 20)).save(tmp_path / name / "cat" / "wide.gif")
    done = patchpack("inspect", name, "--image", "gif")
    assert done.returncode == 0, done.stderr
    assert run_here(paste(done.stdout, tmp_path)) == 1
    command = shlex.split(done.stdout[done.stdout.index("next:") :])
    assert command == ["next:", "patchpack", "preview", name, "--image", "gif"]


def test_inspect_counts_an_image_exactly_20_percent_from_square_as_square(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for width, height in ((120, 100), (100, 120), (500, 600), (121, 100), (100, 121)):
        Image.new("RGB", (width, height)).save(tmp_path / f"{width}-{height}.png")
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 5 (40 %) are more than 20 % from square" in printed
    bars = {words[0]: int(words[-1]) for words in map(str.split, re.findall(r"^  (\d.* to .*)$", printed, re.MULTILINE))}
    assert bars == {"0.59": 1, "0.83": 3, "1.20": 1}


def test_inspect_of_one_size_says_it_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (40, 33)).save(tmp_path / f"{i}.png")
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "every one 33 x 40 pixels (height x width), 9 patches of 16 x 16" in printed
    assert "median" not in printed
    assert main(["inspect", str(tmp_path / "1.png")]) == 0
    assert "in the one row of 512 that these images need" in capsys.readouterr().out


def test_the_fill_leaves_out_the_last_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for i in range(3):  # of 256 tokens each
        Image.new("RGB", (64, 64)).save(tmp_path / f"{i}.png")
    assert main(["inspect", str(tmp_path), "--no-target"]) == 0
    assert "(seq_len=512, max_patches=256), fill 1.000 in 2 rows of 512" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "preview"])
def test_no_control_characters_and_no_markup_of_file_names_are_shown(command: str, patchpack: Called, tmp_path: Path) -> None:
    Image.new("RGB", (40, 33)).save(tmp_path / os.fsdecode(b"\xfe\x1b[32mgood.png"))
    for name in ("[bold]a.png", "\x1b[31mred.png", "line\nbreak.png", os.fsdecode(b"\xff.png")):
        (tmp_path / name).write_bytes(b"not a picture")
    for encoding in ("utf-8", "ascii"):
        sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
        done = patchpack(command, ".")
        assert done.returncode == 0, done.stderr
        for shown in ("[bold]a.png", r"\x1b[31mred.png", r"line\nbreak.png", r"\udcff.png"):
            assert shown in done.stdout


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_a_clear_error(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nowhere", "--limit", limit]) == 1
    assert f"--limit must be at least 1, got {limit}" in capsys.readouterr().err


def sizes_of(kind: str) -> list[tuple[int, int]]:
    return {
        "single": [(500, 375)],
        "equal": [(224, 224)] * 8,
        "flat": [(640, 480), (480, 640), (100, 100), (300, 90)],
        "needles": [(4000, 1), (1, 4000), (40, 40)],
    }[kind]


@pytest.mark.parametrize("kind", ["single", "equal", "flat", "needles"])
def test_inspect_draws_the_survey(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    settings = matplotlib.rcParams.copy()
    folder = tmp_path / f"{kind} $^$ \N{CJK UNIFIED IDEOGRAPH-732B}"  # a formula that is none, and a letter the font lacks
    folder.mkdir()
    for i, size in enumerate(sizes_of(kind)):
        Image.new("RGB", size, (20 * i, 90, 90)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    out = tmp_path / "pictures" / "survey.png"
    assert main(["inspect", str(folder), "-o", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert_drawn(out)
    assert matplotlib.rcParams.copy() == settings


def test_inspect_draws_labelled_shards_in_every_format(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shards = pp.samples.shards("train")[0].replace("000000", "*")
    for name, start in (("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")):
        assert main(["inspect", shards, "-o", str(tmp_path / name), "--limit", "60"]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert_drawn(tmp_path / "a.png")


def test_the_picture_is_the_same_under_the_users_own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    Image.new("RGB", (40, 33)).save(tmp_path / "image.png")
    pictures = []
    for size, colour in ((10, "white"), (31, "black")):
        monkeypatch.setitem(matplotlib.rcParams, "font.size", size)
        monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", colour)
        assert main(["inspect", str(tmp_path / "image.png"), "-o", str(tmp_path / colour) + ".png"]) == 0
        with Image.open(tmp_path / f"{colour}.png") as picture:
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1]


# the source is not there: whatever is said comes before anything was read
@pytest.mark.parametrize("out", ["survey", "survey.jpg", "survey.tar"])
def test_a_picture_of_an_unknown_format_is_refused_first(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nowhere.tar", "-o", out]) == 1
    assert f"--out must end in .png, .pdf, .svg, got '{out}'" in capsys.readouterr().err


def test_a_picture_without_matplotlib_is_refused_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["inspect", "nowhere.tar", "-o", "survey.png"]) == 1
    assert "pip install 'patchpack[viz]'" in capsys.readouterr().err


def test_a_picture_where_no_file_can_be_is_refused_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    assert main(["inspect", "nowhere.tar", "-o", str(tmp_path / "file" / "survey.png")]) == 1
    assert "--out cannot be written" in capsys.readouterr().err
    assert main(["inspect", "nowhere.tar", "-o", str(tmp_path / "folder.png")]) == 1
    assert "folder.png is a folder" in capsys.readouterr().err


def test_inspect_without_a_picture_needs_no_matplotlib(
    patchpack: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 33)).save(tmp_path / "a.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = patchpack("inspect", ".")
    assert done.returncode == 0, done.stderr


def test_inspect_of_labelled_shards_and_a_limit(patchpack: Called) -> None:
    done = patchpack("inspect", VAL, "--limit", "20")
    assert done.returncode == 0, done.stderr
    assert "20 images in" in done.stdout
    assert "(the first of more)" in done.stdout
    assert "pp.recipes.navit(" in done.stdout


@pytest.mark.parametrize("options", [(), ("--recipe", "pix2struct", "--no-target", "--ids"), ("--recipe", "flexivit")])
def test_preview_draws_the_first_rows(options: tuple[str, ...], patchpack: Called, tmp_path: Path) -> None:
    done = patchpack("preview", VAL, "--rows", "1", "-o", "out.png", *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ images? in 1 row: [\d,]+ of [\d,]+ tokens, fill \d\.\d+", done.stdout)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").resize((60, 60)).getcolors(3600) or ()) > 50


@pytest.mark.parametrize(
    "flags", [("--image", "gif"), ("--image", "gif;bmp", "--no-target"), ("--image", "gif", "--target", "cls")]
)
def test_the_command_after_a_preview_survives_the_name_of_a_folder(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "it's (1) {x} \N{GREEK SMALL LETTER PI}"
    (tmp_path / name / "cat").mkdir(parents=True)
    Image.new("RGB", (60, 20)).save(tmp_path / name / "cat" / "wide.gif")
    (tmp_path / name / "cat" / "wide.cls").write_bytes(b"3")
    monkeypatch.chdir(tmp_path)
    assert main(["preview", name, *flags]) == 0
    printed = capsys.readouterr().out
    assert "1 image in 1 row: " in printed
    assert shlex.split(printed[printed.index("next:") :]) == ["next:", "patchpack", "inspect", name, *flags]


def test_unreadable_images_are_counted_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", whole=i % 2 == 0, seed=i)
    assert main(["preview", str(tmp_path), "--recipe", "siglip2_naflex", "-o", str(tmp_path / "out.png"), "--ids"]) == 0
    printed = capsys.readouterr().out
    assert "2 images and 2 unreadable in 1 row: 512 of 1,024 tokens" in printed
    for name in ("1.jpg", "3.jpg"):
        assert f"{name} [decode]" in printed


def test_a_row_of_unreadable_images_only_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for i in range(6):
        photo(tmp_path / f"{i}.jpg", whole=i >= 4, seed=i)
    options = ("--recipe", "siglip2_naflex", "--rows", "1", "-o", str(tmp_path / "out.png"))
    assert main(["preview", str(tmp_path), *options]) == 0
    assert "0 images and 4 unreadable in 1 row: 0 of 1,024 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(("out", "message"), [("a.jpg", "must end in .png, got 'a.jpg'"), ("b.png", "b.png is a folder")])
def test_a_preview_where_none_can_be_is_refused_first(
    out: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "b.png").mkdir()
    assert main(["preview", "nowhere.tar", "-o", str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "preview"])
def test_a_source_that_is_not_there_is_a_clear_error(command: str, patchpack: Called) -> None:
    done = patchpack(command, "nowhere-{00..03}.tar")
    assert done.returncode == 1
    assert "4 of 4 shards are missing, the first is nowhere-00.tar" in done.stderr
