"""Difficult image files through the whole path: each is packed with the tokens that its header promised, or refused by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.hard_images import EXTENSIONS, Hard, bomb, own, saved, tiled_tiff, write_shard
from patchpack import rng
from patchpack.batch.unpack import PackedImage
from patchpack.image.decode import decode
from patchpack.image.formats import FORMATS
from patchpack.plan.table import plan_table

RECIPES = {
    "naflex": pp.recipes.siglip2_naflex(rows_per_batch=2),
    "qwen": pp.recipes.qwen2_vl(max_pixels=28 * 28 * 256, seq_len=1024, rows_per_batch=2),
    "navit": pp.recipes.navit(rows_per_batch=2),
    "draft": pp.recipes.siglip2_naflex(max_patches=16, rows_per_batch=1, decode="draft"),
    "simplejpeg": pp.recipes.siglip2_naflex(max_patches=64, rows_per_batch=2, decode="simplejpeg"),
    "pix2struct": pp.recipes.pix2struct(max_patches=128, rows_per_batch=2),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it goes": {},
    "threads": {"num_threads": 2},
    "workers": {"num_workers": 2},
    "indexed": {},
}
GOOD = saved(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG")
# every recipe one way, and every way with one recipe
RUNS = [*((recipe, "as it goes") for recipe in RECIPES), *(("naflex", way) for way in OPTIONS if way != "as it goes")]


drawn = cache(own)


@pytest.fixture(scope="session", params=["own", "pillow"])
def files(request: pytest.FixtureRequest) -> Sequence[Hard]:
    if request.param == "own":
        return drawn()
    folder = request.getfixturevalue("hostile_files")
    expected = json.loads((folder / "expected.json").read_text())["files"]
    assert len(expected) == 69
    found = []
    for number, (name, known) in enumerate(sorted(expected.items())):
        if known["format"] == "AVIF" and "AVIF" not in FORMATS:
            continue
        extension = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif", "avifs": "avif"}.get(ending := name.rpartition(".")[2], ending)
        size = tuple(reversed(known["size"])) if known["expect"] == "ok" else None
        deep, either = bool(known.get("clipped_by_plain_convert")), bool(known.get("or_decode"))
        data = (folder / "files" / name).read_bytes()
        found.append(Hard(f"{number}.{extension}", data, size, deep, either=either))
    return found


@pytest.fixture(scope="session")
def shard(files: Sequence[Hard], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shard(tmp_path_factory.mktemp("hard") / "a.tar", files)


@pytest.mark.parametrize(("recipe", "way"), RUNS)
def test_a_file_is_packed_as_its_header_promised_or_refused_by_name(
    recipe: str, way: str, files: Sequence[Hard], shard: str
) -> None:
    source: Any = pp.Index.build(shard, image=EXTENSIONS) if way == "indexed" else shard
    options = OPTIONS[way] | ({} if way == "indexed" else {"image": EXTENSIONS})
    loader = pp.load(source, RECIPES[recipe], on_error=pp.ErrorPolicy("skip", max_in_a_row=None), **options)
    packed: dict[int, tuple[PackedImage, tuple[int, int]]] = {}
    for batch in loader:
        for image in pp.unpack(batch):
            packed[int(image.target)] = image, tuple(batch.source_sizes[image.row, image.slot].tolist())
            assert image.key == f"a.tar/{int(image.target):03}"
    report = loader.report()
    refused = {r.key: r for r in report.rejected}
    assert report.seen == len(files) == len(packed) + len(refused)
    assert not report.waiting
    assert not report.dropped
    for number, file in enumerate(files):
        key = f"a.tar/{number:03}"
        if number not in packed:
            rejection = refused[key]
            assert rejection.member == f"{number:03}.{file.name.rpartition('.')[2]}"
            if file.size is None or file.either:
                assert rejection.stage in ("header", "decode"), file.name
            else:  # a strip of one pixel, where the recipe says so
                assert rejection.stage == "plan", (file.name, rejection)
                assert planned(RECIPES[recipe], key, file.size) == 0
            continue
        image, size = packed[number]
        assert file.size is not None or file.either, file.name
        if file.size is not None:
            assert size == file.size, file.name
            assert len(image.patches) == planned(RECIPES[recipe], key, file.size) > 0, file.name
        if file.deep:
            assert np.ptp(np.asarray(image.patches, dtype=np.float64)) > 0, file.name


def planned(recipe: pp.Recipe, key: str, size: tuple[int, int]) -> int:
    return int(plan_table(recipe, [size], rng.key_hash([key]), epoch=0).num_tokens[0])


@pytest.mark.parametrize("way", OPTIONS)
def test_what_was_odd_about_them_is_counted(way: str, tmp_path: Path) -> None:
    files = drawn()
    path = write_shard(tmp_path / "a.tar", files)
    source: Any = pp.Index.build(path, image=EXTENSIONS) if way == "indexed" else path
    options = OPTIONS[way] | ({} if way == "indexed" else {"image": EXTENSIONS})
    loader = pp.load(source, RECIPES["naflex"], on_error="skip", **options)
    told: dict[str, int] = {}
    for batch in loader:
        for kind, count in batch.info.warnings.items():
            told[kind] = told.get(kind, 0) + count
    expected = {kind: sum(f.warning == kind for f in files) for kind in {f.warning for f in files} - {""}}
    assert told == loader.report().warnings == expected
    assert all(f"warnings for {count} of the packed: {kind}" in str(loader.report()) for kind, count in expected.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_printed_here_or_by_workers(workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Down to the file descriptor; warnings are errors in every test."""
    files = drawn()
    policy = pp.ErrorPolicy("skip", max_in_a_row=None)
    loader = pp.load(
        write_shard(tmp_path / "a.tar", files), RECIPES["naflex"], image=EXTENSIONS, on_error=policy, num_workers=workers
    )
    assert sum(batch.info.packed for batch in loader) == sum(file.size is not None for file in files)
    assert sum(loader.report().warnings.values()) >= 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_nothing_is_printed_and_no_warning_is_an_error(files: Sequence[Hard], shard: str, tmp_path: Path) -> None:
    """Under ``-W error``, with two workers, down to the file descriptor."""
    done = in_a_child(
        f"""
        for workers in (0, 2):
            loader = pp.load({shard!r}, pp.recipes.siglip2_naflex(rows_per_batch=2), image={EXTENSIONS!r}, num_workers=workers,
                             on_error=pp.ErrorPolicy("skip", max_in_a_row=None))
            packed = sum(batch.info.packed for batch in loader)
        print(packed, sum(loader.report().warnings.values()))
        """,
        "-Werror",
    )
    packed, warned = map(int, done.stdout.split())
    assert packed >= sum(file.size is not None and not file.either for file in files) - 2  # where a recipe refuses a strip
    assert warned >= 5
    assert done.stderr == ""


# ---------------------------------------------------------------------------------------------------------------- bombs


def refuse_bombs(folder: Path) -> int:
    """Have two bombs refused; return the kB by which the memory of this process grows."""
    decode(GOOD)
    list(pp.load([pp.Sample("b", GOOD)], pp.recipes.navit()))  # what kernels and a batch take
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("bomb.png", "tiled.tif"):
        data = (folder / name).read_bytes()
        with pytest.raises(pp.errors.DecodeError, match="expected at most 64000000 pixels, got"):
            decode(data)
        loader = pp.load([pp.Sample("a", data), pp.Sample("b", GOOD)], pp.recipes.navit(), on_error="skip")
        list(loader)
        assert [r.stage for r in loader.report().rejected] == ["header"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """In a fork: the memory that this process once had says nothing of it."""
    (tmp_path / "bomb.png").write_bytes(bomb())
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    (tmp_path / "tiled.tif").write_bytes(tiled_tiff(10, 16_384))
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: theirs.send(refuse_bombs(tmp_path)))
    process.start()
    theirs.close()
    assert ours.recv() < 50_000  # kB; an error of the process ends the pipe
    process.join()


@pytest.mark.parametrize("stage", ["load", "workers", "pack"])
def test_a_hundred_bombs_in_a_row_blow_the_fuse(stage: str, tmp_path: Path) -> None:
    good, bad = Hard("a.png", GOOD, (8, 8)), Hard("bomb.png", bomb(), None)
    recipe = pp.recipes.navit()
    for bombs, too_many_errors in ((99, False), (100, True)):
        files = [good, *[bad] * bombs, good]
        if stage == "pack":
            stream: Any = pp.Pack(recipe, on_error="skip")(pp.Sample(str(i), file.data, 0) for i, file in enumerate(files))
        else:
            path = write_shard(tmp_path / f"{bombs}.tar", files)
            stream = pp.load(path, recipe, on_error="skip", num_workers=1 if stage == "workers" else 0)
        if too_many_errors:
            with pytest.raises(pp.errors.SourceError, match="100 samples in a row cannot be used"):
                list(stream)
        else:
            assert sum(batch.info.packed for batch in stream) == 2


# ---------------------------------------------------------------------------------------------------------------- tools


def in_a_child(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", "import patchpack as pp\n" + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pp.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return done
