"""``patchpack plan`` as a user meets it: sizes in, a table, a recommendation and a picture out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from patchpack.cli import main
from patchpack.plan.study import study

HW = np.random.default_rng(0).integers(100, 700, (400, 2))


def rows_of(printed: str) -> list[list[str]]:
    """The lines of the table of combinations, the recommended one with a ``>``."""
    return [line.split() for line in printed.split("recommended:")[0].splitlines() if re.match(r"\s*(> )?\d+ +\d+ ", line)]


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    path = tmp_path / "sizes.npz"
    np.savez(path, hw=HW)
    return path


def test_every_combination_is_a_line_and_one_is_recommended(sizes: Path, capsys) -> None:
    assert main(["plan", str(sizes), "--seq-len", "512,1024,512", "--max-images", "4,64"]) == 0
    printed = capsys.readouterr().out
    assert "400 images in" in printed
    lines = rows_of(printed)
    assert [[cell for cell in line if cell != ">"][:2] for line in lines] == [
        ["512", "4"], ["512", "64"], ["1024", "4"], ["1024", "64"],
    ]  # fmt: skip
    assert [line[0] == ">" for line in lines] == [False, True, False, False]
    assert "recommended: pp.recipes.navit(seq_len=512, max_images=64)\n" in printed
    assert "because: " in printed
    chosen = study(HW, pp.recipes.navit(seq_len=512, max_images=64))
    assert chosen.table() in printed
    assert lines[1][3:6] == [str(chosen.num_rows), f"{100 * chosen.fill_rate:.2f}", f"{100 * chosen.steady_fill_rate:.2f}"]
    assert max(map(len, printed.split("because")[0].splitlines()[2:])) <= 80


def test_the_same_sizes_in_every_form_plan_alike(sizes: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "wh.npz", wh=HW[:, ::-1].astype(np.uint16), other=np.zeros(3))
    np.savez(tmp_path / "single.npz", data=HW[:, ::-1])
    lines = ["id, Width ,HEIGHT,note", *(f'{i},{w},{h},"a, b"' for i, (h, w) in enumerate(HW.tolist())), ""]
    (tmp_path / "sizes.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    tables = []
    for name, options in (("sizes.npz", ()), ("wh.npz", ()), ("single.npz", ("--order", "wh")), ("sizes.csv", ())):
        assert main(["plan", str(tmp_path / name), *options]) == 0
        tables.append(capsys.readouterr().out.split("\n", 1)[1])
    assert len(set(tables)) == 1


def test_a_limit_takes_the_first_and_says_so(sizes: Path, capsys) -> None:
    assert main(["plan", str(sizes), "--limit", "30", "--seq-len", "512"]) == 0
    printed = capsys.readouterr().out
    assert "30 images in" in printed
    assert "(the first of more)" in printed
    assert study(HW[:30], pp.recipes.navit(seq_len=512)).table() in printed
    assert "So few rows say little" in printed
    assert main(["plan", str(sizes), "--limit", "400", "--seq-len", "512"]) == 0
    assert "(the first of more)" not in capsys.readouterr().out


def test_epochs_draw_anew(sizes: Path, capsys) -> None:
    assert main(["plan", str(sizes), "--epoch", "3", "--seq-len", "512"]) == 0
    assert study(HW, pp.recipes.navit(seq_len=512), epoch=3).table() in capsys.readouterr().out


def test_lines_without_a_size_are_left_out_and_counted(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.csv").write_text("height,width\n100,200\n0,0\n300,-4\n")
    assert main(["plan", str(tmp_path / "a.csv")]) == 0
    printed = capsys.readouterr().out
    assert "1 image in" in printed
    assert "2 lines with a side below 1 pixel left out" in printed


def test_headers_of_shards_are_read_with_their_keys(capsys) -> None:
    shards = pp.samples.shards("train")[0].replace("000000", "*")
    assert main(["plan", shards, "--seq-len", "512"]) == 0
    printed = capsys.readouterr().out
    recipe = pp.recipes.navit(seq_len=512)
    plans = list(pp.Planner(pp.samples.shards("train"), recipe))
    assert "420 images in" in printed
    assert f"420 images in {sum(plan.num_rows for plan in plans)} rows of 512 tokens and 64 slots (epoch 0)" in printed


def test_a_folder_with_a_broken_file(tmp_path: Path, capsys) -> None:
    Image.new("RGB", (60, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    assert main(["plan", str(tmp_path), "--recipe", "siglip2_naflex"]) == 0
    printed = capsys.readouterr().out
    assert "1 image in" in printed
    assert "1 sample cannot be used:" in printed
    assert "b.png [header]" in printed


@pytest.mark.parametrize("recipe", [name for name in pp.recipes.PRESETS if name != "paddleocr_vl"])
def test_every_preset_has_row_lengths_of_its_own(recipe: str, sizes: Path, capsys) -> None:
    assert main(["plan", str(sizes), "--recipe", recipe, "--limit", "40"]) == 0
    assert f"recommended: pp.recipes.{recipe}(" in capsys.readouterr().out


def test_images_that_no_row_takes_have_a_column(sizes: Path, capsys) -> None:
    assert main(["plan", str(sizes), "--seq-len", "512"]) == 0
    assert "taken" not in capsys.readouterr().out
    np.savez(sizes, hw=np.array([[100, 100], [10, 4000]]))
    assert main(["plan", str(sizes), "--recipe", "qwen2_vl"]) == 0
    printed = capsys.readouterr().out
    assert "taken" in printed
    assert "1 refused, 0 too long for a row" in printed


SEVERAL, ONE, SQUARE = ("--seq-len", "512,1024", "--max-images", "4,16,64"), ("--seq-len", "512"), ("--recipe", "square")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (SEVERAL, "plan.png"), (ONE, "plan.png"), (SQUARE, "plan.png"), (ONE, "deep/plan.svg"), (SQUARE, "plan.pdf"),
        *(
            pytest.param(options, name, marks=pytest.mark.slow)
            for options, name in (
                (SEVERAL, "deep/plan.svg"), (SQUARE, "deep/plan.svg"), (SEVERAL, "plan.pdf"), (ONE, "plan.pdf"),
            )
        ),
    ],
)  # fmt: skip
def test_it_is_drawn(options, name, sizes: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    out = tmp_path / name
    assert main(["plan", str(sizes), "-o", str(out), *options]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    if out.suffix == ".png":
        with Image.open(out) as picture:
            grey = picture.convert("L")
        assert min(grey.size) > 400
        width, height = grey.size
        for box in ((0, 0, 3, height), (width - 3, 0, width, height), (0, 0, width, 3), (0, height - 3, width, height)):
            assert grey.crop(box).getextrema() == (255, 255), box
    assert out.stat().st_size > 3000


def written(tmp_path: Path, name: str, content: str | dict[str, np.ndarray]) -> str:
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "h,w\n1,2\n", (), "the first line must name the columns height and width, it is 'h,w'"),
        ("a.csv", "", (), "the first line must name the columns"),
        ("a.csv", "height,width\n", (), "no image with a height and a width of at least 1 pixel"),
        ("a.csv", "height,width\n1,2\n3,x\n", (), "line 3: height and width must be whole numbers, got '3,x'"),
        ("a.csv", "height,width\n1\n", (), "line 2: height and width must be whole numbers, got '1'"),
        ("a.npz", "no zip", (), "cannot be read as npz"),
        ("a.npz", {"data": HW}, (), "has the arrays ['data']: name one 'hw' (height, width) or 'wh'"),
        ("a.npz", {"hw": HW, "wh": HW}, (), "name one 'hw'"),
        ("a.npz", {"hw": HW}, ("--order", "wh"), "has its sizes under 'hw', --order says wh"),
        ("a.npz", {"hw": HW.astype(float)}, (), "'hw' must be integers [n, 2], got float64 [400, 2]"),
        ("a.npz", {"hw": HW[:, :1]}, (), "got int64 [400, 1]"),
        ("a.npz", {"hw": HW}, ("--limit", "0"), "--limit must be at least 1, got 0"),
        ("a.npz", {"hw": HW}, ("--recipe", "navitt"), "Did you mean 'navit'?"),
        ("a.npz", {"hw": HW}, ("--seq-len", "100"), "seq_len=100 cannot hold one image"),
        ("a.npz", {"hw": HW}, ("--max-images", "0"), "max_images must be an integer in 1"),
        ("a.npz", {"hw": HW}, ("--recipe", "square", "--seq-len", "512"), "square puts one image in a row"),
        ("a.npz", {"hw": HW}, ("-o", "plan.jpg"), "--out must end in .png, .pdf, .svg"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_a_clear_error(name, content, options, message, tmp_path: Path, capsys) -> None:
    assert main(["plan", written(tmp_path, name, content), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_table_is_a_clear_error(capsys) -> None:
    for name in ("nowhere.npz", "nowhere.csv", "nowhere.tar"):
        assert main(["plan", name]) == 1
        assert "nowhere" in capsys.readouterr().err


def test_numbers_that_are_none_are_a_usage_error(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "a.npz", "--seq-len", "512;1024"])
    assert "expected whole numbers with commas between, got '512;1024'" in capsys.readouterr().err


def test_a_table_of_sizes_is_planned_without_torch(sizes: Path) -> None:
    code = (
        "import sys; from patchpack.plan.study import study; import patchpack as pp; study([[90, 90]] * 9, pp.recipes.navit());"
        "print(sorted({'torch', 'PIL', 'webdataset', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
