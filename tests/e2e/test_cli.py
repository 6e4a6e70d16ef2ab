"""The command line as a user meets it: called in this process, and each command once as a process."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from patchpack.cli import main
from patchpack.cli.commands import demo
from patchpack.cli.commands.preview import first_rows as first_rows_of
from patchpack.cli.demo import comparison, program
from patchpack.cli.pictures import pairs, rows, sheet
from patchpack.cli.pictures.axes import source_name
from patchpack.cli.pictures.preview import Preview
from patchpack.cli.pictures.survey import draw_survey
from patchpack.cli.survey.images import Survey
from patchpack.cli.survey.suggestion import suggest
from patchpack.model import NaViT
from patchpack.report import BatchInfo
from patchpack.stream.sources.opening import open_source
from patchpack.types import Size

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


def assert_drawn(path: Path) -> None:
    """Something in each quarter, and nothing that runs out of the picture."""
    with Image.open(path) as file:
        picture = file.convert("L")
    assert min(picture.size) >= 1200
    width, height = picture.size
    for box in ((0, 0, 5, height), (width - 5, 0, width, height), (0, 0, width, 5), (0, height - 5, width, height)):
        assert picture.crop(box).getextrema() == (255, 255), box
    for x in (0, width // 2):
        for y in (height * 15 // 100, height * 65 // 100):
            quarter = picture.crop((x, y, x + width // 2, y + height * 3 // 10)).resize((100, 60))
            assert len(quarter.getcolors(6000) or ()) > 30


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


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_many_images_are_drawn_as_a_density(spread: float, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes = (400 * np.exp(spread * np.random.default_rng(0).normal(size=(3000, 2)))).clip(1, 30_000).astype(np.int64)
    kinds = Counter({"JPEG": 3000}), Counter({"RGB": 3000})
    found = Survey(sizes, [str(i) for i in range(3000)], *kinds, [], [pp.ShardFault("a.tar", "ends early")], False)
    assert_drawn(draw_survey(found, suggest(found, labelled=True), "x" * 300, tmp_path / "many.png"))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/data/secret/train-{0000..0099}.tar", "train-{0000..0099}.tar"),
        ("/data/secret/{a,b/c}.tar", "{a,b/c}.tar"),
        ("photos/*.jpg", "*.jpg"),
        ("photos/", "photos"),
        ("https://bucket.example/set/train.tar?token=secret", "train.tar"),
        ("pipe:curl -H secret https://bucket.example/train.tar", "a pipe"),
    ],
)
def test_a_picture_names_its_source_without_where_it_lies(source: str, shown: str) -> None:
    assert source_name(source) == shown


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


def photo(path: Path, size: tuple[int, int] = (256, 256), *, whole: bool = True, seed: int = 0) -> None:
    """A JPEG of noise; half of one has a header that can be read and pixels that cannot."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    if not whole:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first_rows(folder: Path, recipe: pp.Recipe) -> Preview:
    return first_rows_of(open_source(str(folder), target=None), rows.drawable(recipe), 0)


def colours(picture: Image.Image, left: int, right: int) -> set[str]:
    """Colours between two columns of the bar at the bottom of a picture, but for a gap at their end."""
    part = picture.crop((left, picture.height - 17, right - 2, picture.height - 1))
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in part.getcolors(100_000) or ()}


CROSSED, HATCHED = {sheet.INK, sheet.PAPER}, {sheet.HATCH, sheet.GROUND}


def test_an_unreadable_image_is_drawn_at_its_place_in_the_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", whole=i % 2 == 0, seed=i)
    found = first_rows(tmp_path, pp.recipes.siglip2_naflex(seq_len=1280))
    assert found.batch.slot_mask[0, :4].tolist() == [True, False, True, False]
    spans = [{sheet.hue(0)}, CROSSED, {sheet.hue(2)}, CROSSED, HATCHED]  # each of 256 tokens, a pixel for a token
    picture = rows.draw_rows(found.batch, plan=found.plan, width=1280)
    assert [colours(picture, 256 * i, 256 * (i + 1)) for i in range(5)] == spans
    # the batch alone cannot tell the last one from padding
    picture = rows.draw_rows(found.batch, width=1280)
    assert [colours(picture, 256 * i, 256 * (i + 1)) for i in range(3)] == spans[:3]
    assert colours(picture, 768, 1280) == HATCHED
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


def flat_row(lengths: list[int], seq_len: int) -> pp.PackedBatch:
    """A row of black images one patch high."""
    fill = seq_len - sum(lengths)
    columns = np.concatenate([*map(np.arange, lengths), np.zeros(fill)]).astype(np.int32)
    sizes = np.array([[(1, length) for length in lengths]], dtype=np.int32)
    return pp.PackedBatch(
        patches=np.zeros((1, seq_len, 768), dtype=np.uint8),
        position_ids=np.stack([0 * columns, columns], axis=-1)[None],
        segment_ids=np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, fill]).astype(np.int32)[None],
        num_images=np.array([len(lengths)], dtype=np.int32),
        grid_sizes=sizes,
        source_sizes=16 * sizes,
        slot_mask=np.ones((1, len(lengths)), dtype=np.bool_),
        targets=None,
        norm=np.zeros((2, 3), dtype=np.float32),
        keys=[[str(slot) for slot in range(len(lengths))]],
        patch_size=16,
        info=BatchInfo(),
    )


@pytest.mark.parametrize("scale", [1, 3, 0.5])
def test_dropped_patches_are_hatched_at_any_scale(scale: float) -> None:
    image = next(pp.unpack(flat_row([4], 8)))
    image = image._replace(patches=image.patches[[0, 1, 3]], position_ids=image.position_ids[[0, 1, 3]])  # the third is gone
    side = round(16 * scale)
    picture = rows.picture_of(image, 16, Size(side, 4 * side))
    for column in range(4):
        patch = picture.crop((column * side, 0, (column + 1) * side, side))
        found = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in patch.getcolors() or ()}
        assert found == (HATCHED if column == 2 else {"#000000"}), column


def test_numbers_that_do_not_fit_their_part_of_the_bar_are_left_out() -> None:
    batch = flat_row([5] * 24 + [400], 1024)  # a pixel for a token
    pictures = [rows.draw_rows(batch, width=1024, ids=ids) for ids in (True, False)]
    bars = [picture.crop((0, picture.height - rows.BAR, 1024, picture.height)) for picture in pictures]
    assert bars[0].crop((0, 0, 120, rows.BAR)).tobytes() == bars[1].crop((0, 0, 120, rows.BAR)).tobytes()
    assert bars[0].tobytes() != bars[1].tobytes()  # the long one has its number


def test_slot_numbers_never_touch() -> None:
    picture = rows.draw_rows(flat_row([1] * 24 + [400], 1024), width=1024, height=64, ids=True)
    hues = [tuple(bytes.fromhex(h[1:])) for h in sheet.HUES]
    for y in range(picture.height - rows.BAR):  # under every image a line in its colour, and the number below its left end
        starts = [
            x for x in range(1000) if picture.getpixel((x, y)) in hues and (x == 0 or picture.getpixel((x - 1, y)) not in hues)
        ]
        if len(starts) >= 24:
            break
    room = np.diff(starts[:25])
    assert all(room[i] >= sheet.font(12).getlength(str(i)) + 2 for i in range(23))


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_extreme_shapes_can_be_seen(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "needle.png")
    photo(tmp_path / "other.jpg")
    found = first_rows(tmp_path, pp.recipes.siglip2_naflex(rows=1))
    needle = [image for image in found.images if image.key == "needle.png"]
    assert tuple(needle[0].source_size) == size[::-1]
    pictures = {
        "rows": rows.draw_rows(found.batch, plan=found.plan, width=1200),
        "pairs": pairs.draw_pairs(needle, found.originals, 16, width=1200),
    }
    for name, picture in pictures.items():
        red = np.argwhere((np.asarray(picture) == (255, 0, 0)).all(axis=-1))
        assert len(red), name
        wide = size[1] == 1
        _, thickness = np.unique(red[:, int(wide)], return_counts=True)  # red pixels in each column of a wide one
        assert thickness.min() >= 6 * (2 if wide and name == "pairs" else 1), name  # before and after


def test_pairs_are_taken_from_every_row(tmp_path: Path) -> None:
    for i in range(24):
        photo(tmp_path / f"{i:02}.jpg", (64, 64), seed=i)
    found = first_rows(tmp_path, pp.recipes.siglip2_naflex(max_patches=64, seq_len=512, rows=3))
    assert [(image.row, image.slot) for image in found.images] == [(row, slot) for row in range(3) for slot in range(4)]
    assert set(found.originals) == {(image.key, image.part) for image in found.images}


def test_a_long_key_keeps_its_end() -> None:
    assert pairs.shortened("a.png", 188) == "a.png"
    short = pairs.shortened("photos-000000.tar/" + "deep/" * 40 + "n01440764.jpg", 188)
    assert short.startswith("...")
    assert short.endswith("/n01440764.jpg")
    assert sheet.font(13).getlength(short) <= 188
    assert pairs.shortened("\x1b[31m\N{CJK UNIFIED IDEOGRAPH-732B}", 188) == r"\x1b[31m\u732b"


# Machado et al. 2009, severity 1, on linear RGB
EYES = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("eye", EYES)
def test_neighbours_differ_in_colour_for_every_eye(eye: str) -> None:
    srgb = np.array([list(bytes.fromhex(hue[1:])) for hue in (*sheet.HUES, sheet.HUES[0])]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(EYES[eye]).T).clip(0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(seen @ to_xyz.T / (0.9505, 1, 1.089), 0.009)).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 30  # a difference of 2 is seen side by side


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
