"""An index of a folder, of a list of files, or of a dataset: exact lengths, equal ranks, and a resume on other ranks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset

import patchpack as pp
from patchpack.testing import check_batch

COUNT = 60
RECIPE = pp.recipes.navit(resize=pp.resize.NaViT((32, 96)), patch_size=16, seq_len=64, max_images=8, rows_per_batch=1)
SLOW = pytest.mark.slow


@cache
def png(i: int) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (20 + 13 * i % 70, 20 + 29 * i % 90, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


class Pictures(Dataset[Any]):
    """A dataset that decodes its pictures, as torchvision's datasets do."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return Image.open(io.BytesIO(png(i))).convert("RGB"), i


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return {"photo": png(i), "answer": i}


def to_sample(i: int, row: Any) -> pp.Sample:
    return pp.Sample(str(i), row["photo"], row["answer"])


def size_of(i: int) -> tuple[int, int]:
    width, height = Image.open(io.BytesIO(png(i))).size
    return height, width


def write_folder(folder: Path) -> str:
    """Write one picture per class folder, so that the label of picture i is i."""
    for i in range(COUNT):
        path = folder / f"{i:03d}" / "a.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(i))
    return str(folder)


def listed(folder: Path) -> list[str]:
    write_folder(folder)
    return [str(path) for path in sorted(folder.glob("*/*.png"))]


def huggingface(_: Path) -> Any:
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(COUNT)], "label": list(range(COUNT))}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


MAKERS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "folder": (write_folder, {}),
    "file list": (listed, {}),
    "dataset": (lambda _: Pictures(), {}),
    "dataset with size_of": (lambda _: Pictures(), {"size_of": size_of}),
    "dataset of dicts": (lambda _: Rows(), {"to_sample": to_sample}),
    "huggingface": (huggingface, {}),
}
Made = Callable[[str], tuple[Any, dict[str, Any], pp.Index]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return, by its name, a source with its options and its index, each made once."""

    @cache
    def get(kind: str) -> tuple[Any, dict[str, Any], pp.Index]:
        make, options = MAKERS[kind]
        source = make(tmp_path_factory.mktemp("source") / "x")
        return source, options, pp.Index.build(source, **options)

    return get


def keys_of(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def images_of(batches: Iterable[pp.PackedBatch]) -> dict[str, tuple[Any, ...]]:
    """Return, by key, the label, the grid and the pixels of every image."""
    images = [image for batch in batches for image in pp.unpack(batch)]
    return {image.key: (int(image.target), image.grid, image.patches.numpy().tobytes()) for image in images}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_image_is_what_the_source_makes_of_it(kind: str, made: Made) -> None:
    source, options, index = made(kind)
    loader = pp.load(index, RECIPE, shuffle=True, epoch=2)
    length, batches = len(loader), list(loader)
    for batch in batches:
        check_batch(batch)
    assert length == len(batches) == len(loader)
    assert len(keys_of(batches)) == len(index) == COUNT
    found = images_of(batches)
    assert sorted(label for label, *_ in found.values()) == list(range(COUNT))
    assert found == images_of(pp.load(source, RECIPE, epoch=2, **options))
    assert loader.report() == pp.Report(seen=COUNT, packed=COUNT)


@pytest.mark.parametrize("shuffle", [True, 1, 8])
@pytest.mark.parametrize("kind", ["folder", "dataset"])
def test_any_shuffle_permutes_all_samples(kind: str, shuffle: int, made: Made) -> None:
    _, _, index = made(kind)
    whole, one = (list(pp.Planner(index, RECIPE, shuffle=block, epoch=3)) for block in (True, shuffle))
    assert [plan.headers for plan in one] == [plan.headers for plan in whole]
    order = [int(key.split("/")[0]) for key in (header.key for plan in one for header in plan.headers)]
    moved = [abs(place - number) for place, number in enumerate(order)]
    assert np.mean(moved) > COUNT / 6  # of a full permutation it is COUNT / 3


@pytest.mark.parametrize("tail", ["short", "pad", "drop", "wrap"])
@pytest.mark.parametrize("kind", ["folder", "dataset of dicts", "huggingface"])
def test_three_ranks_make_equal_steps_on_different_images(kind: str, tail: Any, made: Made) -> None:
    _, _, index = made(kind)
    loaders = [pp.load(index, RECIPE, shuffle=True, tail=tail, rank=rank, world_size=3) for rank in range(3)]
    lengths = {len(loader) for loader in loaders}
    shares = [list(loader) for loader in loaders]
    assert {len(share) for share in shares} == lengths
    assert len(lengths) == 1
    keys = [keys_of(share) for share in shares]
    assert len({key for share in keys for key in share}) == COUNT - loaders[0].report().dropped.get("tail", 0)
    if tail != "wrap":
        assert len({key for share in keys for key in share}) == sum(map(len, keys))


@pytest.mark.parametrize("kind", ["folder", "dataset", "huggingface"])
def test_evaluation_over_ranks_sees_every_image_once(kind: str, made: Made) -> None:
    _, _, index = made(kind)
    recipe = RECIPE.for_eval()
    shares = [list(pp.load(index, recipe, tail="pad", rank=rank, world_size=3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(key for share in shares for key in keys_of(share)) == sorted(h.key for h in index.headers(range(COUNT)))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("kind", ["folder", "file list", "dataset"])
def test_a_run_resumes_on_another_number_of_ranks(kind: str, before: int, after: int, made: Made) -> None:
    source, options, index = made(kind)
    whole = keys_of(pp.load(index, RECIPE, shuffle=True, epoch=1))
    loaders = [pp.load(index, RECIPE, shuffle=True, epoch=1, rank=rank, world_size=before) for rank in range(before)]
    steps = next(step for step in range(1, 7) if step * before % after == 0)
    done, states = [], []
    for loader in loaders:
        batches = iter(loader)
        done += keys_of(next(batches) for _ in range(steps))
        states.append(loader.state_dict())
    index = pp.Index.build(source, **options)  # another process builds it again
    rest: list[list[str]] = []
    for rank in range(after):
        loader = pp.load(index, RECIPE, shuffle=True, epoch=1, rank=rank, world_size=after)
        loader.load_state_dict(states[0])
        rest.append(keys_of(loader))
    assert sorted(done + [key for share in rest for key in share]) == sorted(whole)
    assert all(rest)


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": 2},
        {"num_workers": 2},
        pytest.param({"num_workers": 1, "dataloader": {"multiprocessing_context": "spawn"}}, marks=SLOW),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "dataset of dicts"])
def test_workers_and_threads_change_nothing(kind: str, options: dict[str, Any], made: Made) -> None:
    _, _, index = made(kind)
    here, there = (list(pp.load(index, RECIPE, shuffle=True, **more)) for more in ({}, options))
    assert [pp.digest(batch) for batch in here] == [pp.digest(batch) for batch in there]


def test_balance_and_repeated_passes(made: Made) -> None:
    _, _, index = made("folder")
    loaders = [pp.load(index, RECIPE, shuffle=True, balance=True, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(key for loader in loaders for key in keys_of(loader)) == sorted(h.key for h in index.headers(range(COUNT)))
    long = pp.load(index, RECIPE, shuffle=True, steps_per_epoch=3 * len(loaders[0]) * 2)
    assert len(list(long)) == len(long) == 6 * len(loaders[0])


def test_an_index_that_was_saved_loads_the_same(tmp_path: Path, made: Made) -> None:
    for kind in ("folder", "file list", "dataset"):
        source, _, index = made(kind)
        index.save(tmp_path / "a.index")
        opened = pp.Index.open(tmp_path / "a.index", source=source if kind == "dataset" else None)
        one, other = (list(pp.load(each, RECIPE, shuffle=True)) for each in (index, opened))
        assert [pp.digest(batch) for batch in one] == [pp.digest(batch) for batch in other]
        loader = pp.load(opened, RECIPE, shuffle=True)
        loader.load_state_dict(pp.load(index, RECIPE, shuffle=True).state_dict())  # the same samples, so the same state


def test_bad_files_are_counted_once(tmp_path: Path) -> None:
    folder = Path(write_folder(tmp_path / "x"))
    (folder / "003" / "a.png").write_bytes(b"no image")
    (folder / "005" / "a.png").write_bytes(png(5)[:90])  # a header and no pixels
    index = pp.Index.build(folder)
    assert [rejection.key for rejection in index.rejections] == ["003/a.png"]
    loaders = [pp.load(index, RECIPE, on_error="skip", rank=rank, world_size=2) for rank in range(2)]
    packed = [key for loader in loaders for key in keys_of(loader)]
    reports = [loader.report() for loader in loaders]
    assert sum(report.seen for report in reports) == COUNT
    assert sum(report.packed for report in reports) == COUNT - 2
    assert sorted(r.key for report in reports for r in report.rejected) == ["003/a.png", "005/a.png"]
    assert len(packed) == len(set(packed))
    with pytest.raises(pp.errors.PatchpackError, match=r"003/a\.png"):
        list(pp.load(index, RECIPE))


def test_a_recipe_with_a_lower_limit_refuses_files(made: Made) -> None:
    lengths = sorted(len(png(i)) for i in range(COUNT))
    recipe = RECIPE.replace(max_bytes=lengths[COUNT // 2])
    counts = []
    for kind in ("folder", "dataset of dicts"):
        loader = pp.load(made(kind)[2], recipe, on_error="skip")
        list(loader)
        counts.append((loader.report().packed, len(loader.report().rejected) > 0))
    assert counts == [(COUNT // 2 + 1, True)] * 2


def test_map_target_of_the_source_or_of_the_loader(made: Made) -> None:
    source, _, index = made("folder")
    doubled = pp.load(index, RECIPE, map_target=lambda label: 2.0 * label)
    assert sorted(float(i.target) for batch in doubled for i in pp.unpack(batch)) == [2.0 * i for i in range(COUNT)]
    mapped = pp.Index.build(pp.open_source(source, map_target=partial(max, 7)))
    assert min(int(i.target) for batch in pp.load(mapped, RECIPE) for i in pp.unpack(batch)) == 7
    with pytest.raises(pp.errors.ConfigError, match="map_target= cannot be used, because x/ was opened with another one"):
        pp.load(mapped, RECIPE, map_target=abs)
