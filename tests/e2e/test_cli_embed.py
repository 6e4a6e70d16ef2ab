"""``patchpack embed``: every image once, the same vectors wherever a run is killed, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from patchpack.cli import main
from patchpack.cli.commands import embed
from patchpack.cli.models import load_model
from patchpack.model import presets
from patchpack.model.presets import Size

SHARD = pp.samples.shards("val")[0]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that is made in no time."""
    preset = presets.siglip2_b16
    monkeypatch.setattr(
        presets, "siglip2_b16", type(preset)(preset.func, Size(16, 1, 32, 2), *preset.args[1:], **preset.keywords)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 100 images, and two files that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    source = pp.Planner([SHARD], pp.recipes.navit(), target=None).source
    for i, header in enumerate(source.scan()):
        image, _ = source.reader(header.location)
        (folder / f"{i:03}.jpg").write_bytes(image)
    (folder / "030.jpg").write_bytes(b"no image")
    whole = (folder / "060.jpg").read_bytes()
    (folder / "060.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def arguments(source: Any, out: Path, *more: str) -> list[str]:
    return ["embed", str(source), "--model", "siglip2_b16", "-o", str(out), "--rows-per-batch", "2", "--part-size", "34", *more]


def read(out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Key → vector, and key → why it has none; every key comes once."""
    vectors: dict[str, Any] = {}
    rejected: dict[str, str] = {}
    for part in sorted(out.glob("part-*.npy")):
        keys = [json.loads(line) for line in part.with_suffix(".jsonl").read_text().splitlines()]
        rows = np.load(part)
        assert len(keys) == len(rows) == len(set(keys))
        assert vectors.keys().isdisjoint(keys)
        vectors |= dict(zip(keys, rows, strict=True))
    for part in sorted(out.glob("part-*.rejected.jsonl")):
        found = {line["key"]: line["stage"] for line in map(json.loads, part.read_text().splitlines())}
        assert rejected.keys().isdisjoint(found)
        rejected |= found
    return vectors, rejected


def same(a: Any, b: Any) -> bool:
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(np.array_equal(a[0][key], b[0][key]) for key in a[0])


def test_every_image_has_the_vector_it_has_alone(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(photos, tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "siglip2_b16 has random weights" in shown
    assert "98 images in" in shown
    vectors, rejected = read(tmp_path / "out")
    assert vectors.keys() | rejected.keys() == {path.name for path in photos.iterdir()}
    assert rejected == {"030.jpg": "header", "060.jpg": "decode"}
    model = load_model("siglip2_b16", None)
    with torch.no_grad():
        for key in ("000.jpg", "031.jpg", "099.jpg"):
            (batch,) = pp.pack_images([photos / key], pp.recipes.siglip2_naflex())
            np.testing.assert_allclose(vectors[key], model(batch)[0, 0], rtol=0, atol=1e-5)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main(arguments(photos, tmp_path / "out")) == 0  # again: it is finished
    assert "is finished: 98 images" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(("count", "size"), [(16, "11"), pytest.param(100, "34", marks=pytest.mark.slow)])
def test_killed_at_every_file_it_goes_on(
    count: int, size: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of the files is in place, one after the other: what is there in the end is what an undisturbed run writes."""
    unreadable_first = sorted(photos.iterdir(), key=lambda path: (path.name not in ("030.jpg", "060.jpg"), path))
    for path in unreadable_first[count:]:
        path.unlink()
    part = ("--part-size", size)
    assert main(arguments(photos, tmp_path / "whole", *part)) == 0
    wanted, names = read(tmp_path / "whole"), sorted(path.name for path in (tmp_path / "whole").iterdir())
    write, killed = embed.replace_file, 0
    written: set[str] = set()

    def once(path: Path, fill: Any) -> None:
        nonlocal killed
        name = f"{path.name} {len(list(path.parent.iterdir()))}"
        if name not in written:
            written.add(name)
            killed += 1
            (path.parent / f".{path.name}.0.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, fill)

    monkeypatch.setattr(embed, "replace_file", once)
    status = 130
    for _ in range(100):
        status = main(arguments(photos, tmp_path / "out", *part))
        if status == 0:
            break
        for left in (tmp_path / "out").glob(".*.tmp"):
            left.unlink()
    assert status == 0
    assert killed > 2 * len(list((tmp_path / "whole").glob("part-*.npy")))
    assert same(read(tmp_path / "out"), wanted)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_workers_and_shards(tmp_path: Path) -> None:
    for workers in ("0", "2"):
        assert main(arguments(SHARD, tmp_path / workers, "--num-workers", workers, "--dtype", "float16")) == 0
    alone, together = read(tmp_path / "0"), read(tmp_path / "2")
    assert same(alone, together)
    assert len(alone[0]) == 100
    assert all(vector.dtype == np.float16 for vector in alone[0].values())


def test_other_files_and_names_are_another_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(photos, tmp_path / "out")) == 0
    assert main(arguments(photos, tmp_path / "out", "--image", "jpg;png")) == 1
    assert "was begun with image=" in capsys.readouterr().err
    (photos / "101.jpg").write_bytes((photos / "000.jpg").read_bytes())
    assert main(arguments(photos, tmp_path / "out")) == 1
    assert "was begun with samples or shards=" in capsys.readouterr().err
    (tmp_path / "out" / "progress.json").write_text("{")
    assert main(arguments(photos, tmp_path / "out")) == 1
    assert "progress.json is damaged" in capsys.readouterr().err


def test_refusals(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(photos, tmp_path / "out")) == 0
    for more, what in (
        (["--dtype", "float16"], "was begun with dtype='float32', this run has 'float16': take another folder"),
        (["--seq-len", "512"], "was begun with recipe.seq_len='1024', this run has '512'"),
        (["--dtype", "int8"], "--dtype one of float32, float16, got 34, 'int8'"),
        (["--part-size", "0"], "--part-size is at least 1"),
        (["--recipe", "navi"], "got 'navi'"),
        (["--model", "siglip3"], "--model='siglip3' is not one of"),
    ):
        assert main(arguments(photos, tmp_path / "out", *more)) == 1
        assert what in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.jpg").write_bytes(b"no image")
    assert main(arguments(empty, tmp_path / "none")) == 1
    assert "no image to pack" in capsys.readouterr().err
