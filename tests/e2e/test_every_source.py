"""Every kind of source under every kind of worker: nothing lost, nothing doubled, the same batches twice."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

import patchpack as pp
from helpers.profiles import weight
from patchpack.batch_info import BatchInfo
from patchpack.stream.painting.painter import SendingPainter
from patchpack.testing import check_batch
from patchpack.types import Event, Header, Size

COUNT = 48
RECIPE = pp.recipes.navit(resize=pp.resize.NaViT((32, 96)), patch_size=16, seq_len=64, max_images=8, rows_per_batch=2)

pytestmark = [  # webdataset and datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def picture(i: int) -> Image.Image:
    pixels = np.random.default_rng(i).integers(0, 256, (20 + 13 * i % 70, 20 + 29 * i % 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@cache
def png(i: int) -> bytes:
    file = io.BytesIO()
    picture(i).save(file, "png", compress_level=1)
    return file.getvalue()


def size_of(i: int) -> tuple[int, int]:
    return picture(i).height, picture(i).width


SIZES = np.array([size_of(i) for i in range(COUNT)])


class Pictures(Dataset[Any]):
    """As torchvision's datasets: a picture and its class."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return picture(i), i


class Rows(Dataset[Any]):
    """A dataset of dicts that cannot be read without `to_sample`."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return {"photo": png(i), "answer": i}


def row_to_sample(i: int, row: Any) -> pp.Sample:
    return pp.Sample(str(i), row["photo"], row["answer"])


class Stream(IterableDataset[Any]):
    """Items made anew at every pass."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, range(COUNT))


def as_sample(i: int) -> pp.Sample:
    return pp.Sample(f"s{i}", png(i), i)


def as_webdataset(i: int) -> Any:
    return {"__key__": f"s{i}", "png": png(i), "cls": str(i).encode()}


def as_row(i: int) -> Any:
    return {"image": {"bytes": png(i), "path": None}, "label": i}


def as_pair(i: int) -> Any:
    return picture(i), i


def write_shards(folder: Path, count: int = 8, suffix: str = "tar") -> list[str]:
    paths = [str(folder / f"s-{n:02d}.{suffix}") for n in range(count)]
    for n, path in enumerate(paths):
        with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as tar:
            for i in range(n, COUNT, count):
                for name, data in ((f"{i:03d}.png", png(i)), (f"{i:03d}.cls", str(i).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return paths


def write_folder(folder: Path, *, classes: bool) -> str:
    for i in range(COUNT):
        path = folder / (f"{i:03d}/a.png" if classes else f"{i:03d}.png")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(i))
    return str(folder)


def write_two_folders(folder: Path) -> list[str]:
    for i in range(COUNT):
        path = folder / ("two" if i % 2 else "one") / f"{i:03d}" / "a.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(i))
    return [str(folder / "one"), str(folder / "two")]


def write_table(folder: Path) -> str:
    write_folder(folder, classes=False)
    lines = ["id,file,label", *(f"row {i},{i:03d}.png,{i}" for i in range(COUNT))]
    (folder / "train.csv").write_text("\n".join(lines))
    return str(folder / "train.csv")


def mix_of_halves(folder: Path) -> pp.Mix:
    """Return a mix of a table and a list of Samples, which have half of the images each."""
    paths = write_table(folder)
    lines = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join(lines[: 1 + COUNT // 2]))
    half = [as_sample(i) for i in range(COUNT // 2, COUNT)]
    return pp.Mix([(pp.open_source(paths, keys="id"), 1), (half, 1)], names=["table", "samples"], stop="last")


def huggingface(**more: Any) -> Any:
    columns = {"img": [{"bytes": png(i), "path": None} for i in range(COUNT)], "label": list(range(COUNT)), **more}
    return datasets.Dataset.from_dict(columns).cast_column("img", datasets.Image())


def decoded(rows: Any) -> Any:
    return rows  # a transform: the rows no longer are what is stored


def read_own(i: int) -> tuple[bytes, int]:
    return png(i), i


class Own(pp.Source):
    """A source of a user's class, whose reader is a plain function."""

    name = "own"

    def __init__(self) -> None:
        self.reader = read_own

    def scan(self) -> Iterator[Event]:
        for i in range(COUNT):
            yield Header(f"s{i}", "", "", Size(*size_of(i)), i)


class OwnParts(Own):
    """A source of a user's class, in parts of six samples."""

    num_parts = COUNT // 6

    def scan(self) -> Iterator[Event]:
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        for part in parts:
            for i in range(6 * part, 6 * part + 6):
                yield Header(f"s{i}", f"part {part}", "", Size(*size_of(i)), i)


MAKERS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "shards": (write_shards, {}),
    "fewer shards than ranks": (partial(write_shards, count=1), {}),
    "compressed shards": (partial(write_shards, suffix="tar.gz"), {}),
    "folder": (partial(write_folder, classes=True), {}),
    "flat folder": (partial(write_folder, classes=False), {"target": None}),
    "glob": (lambda folder: write_folder(folder, classes=False) + "/*.png", {"target": None}),
    "list of folders": (lambda folder: write_two_folders(folder), {}),
    "table": (lambda folder: write_table(folder), {"keys": "id"}),
    "Samples": (lambda _: [as_sample(i) for i in range(COUNT)], {}),
    "webdataset dicts": (lambda _: Stream(as_webdataset), {}),
    "rows": (lambda _: Stream(as_row), {}),
    "pairs": (lambda _: Stream(as_pair), {}),
    "dataset": (lambda _: Pictures(), {}),
    "dataset with sizes": (lambda _: Pictures(), {"sizes": SIZES}),
    "dataset with size_of": (lambda _: Pictures(), {"size_of": size_of}),
    "dataset of dicts": (lambda _: Rows(), {"to_sample": row_to_sample}),
    "huggingface": (lambda _: huggingface(text=["x"] * COUNT), {}),
    "huggingface transformed": (lambda _: huggingface().with_transform(decoded), {"image": "img"}),
    "huggingface streaming": (lambda _: huggingface().to_iterable_dataset(num_shards=3), {}),
    "own source": (lambda _: Own(), {}),
    "own source in parts": (lambda _: OwnParts(), {}),
    "index of a folder": (lambda folder: pp.Index.build(write_folder(folder, classes=True)), {}),
    "index of a dataset": (lambda _: pp.Index.build(Pictures()), {}),
    "index of huggingface": (lambda _: pp.Index.build(huggingface(), image="img"), {}),
    "index of a table": (lambda folder: pp.Index.build(write_table(folder), keys="id"), {}),
    "mix": (lambda folder: mix_of_halves(folder), {}),
}
PLANNED_BY_WORKERS = {"dataset", "dataset of dicts", "huggingface transformed"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, dict[str, Any]]]:
    made: dict[str, tuple[Any, dict[str, Any]]] = {}

    def get(kind: str) -> tuple[Any, dict[str, Any]]:
        if kind not in made:
            make, options = MAKERS[kind]
            made[kind] = make(tmp_path_factory.mktemp("source")), options
        return made[kind]

    return get


Told = list[tuple[str, BatchInfo]]


def told(batches: Iterable[pp.PackedBatch]) -> Told:
    """Return the digest and the info of every batch, without the worker's number."""
    return [(pp.digest(b), replace(b.info, worker=0)) for b in batches]


def epochs(kind: Any, source: Any, options: dict[str, Any], *, count: int = 2, **more: Any) -> list[list[pp.PackedBatch]]:
    """Return the batches of some epochs of one loader; check every batch and every epoch's account."""
    loader = pp.load(source, RECIPE, shuffle=8, **options, **more)
    found = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        batches = list(loader)
        for batch in batches:
            check_batch(batch)
        keys = order_of(batches)
        assert len(keys) == len(set(keys)) == COUNT, kind
        if options.get("target", "cls") is not None:
            labels = {int(image.target) for batch in batches for image in pp.unpack(batch)}
            assert labels == set(range(COUNT)), kind
        report = loader.report()
        assert (report.seen, report.packed, report.waiting) == (COUNT, COUNT, 0), kind
        found.append(batches)
    return found


class Epochs(NamedTuple):
    """Hold two epochs of a source: digests and infos of batches, keys in their order, and the tokens of each image."""

    told: list[Told]
    order: list[list[str]]
    tokens: list[dict[str, int]]


def run(kind: str, opened: Any, **more: Any) -> Epochs:
    found = epochs(kind, *opened(kind), **more)
    return Epochs(*(list(map(of, found)) for of in (told, order_of, tokens_of)))


@pytest.fixture(scope="module")
def expected(opened: Any) -> Callable[[str], Epochs]:
    """Return what a source's epochs are in this process, computed once."""
    return cache(lambda kind: run(kind, opened))


@pytest.fixture(scope="module")
def planned_by_workers(opened: Any) -> Callable[[str], Epochs]:
    """Return what a source's epochs are where each of two workers plans its own, computed once."""
    return cache(lambda kind: run(kind, opened, num_workers=2))


def torch_of(field: Any) -> Any:
    return torch.from_numpy(field) if isinstance(field, np.ndarray) else field


def order_of(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def tokens_of(batches: Iterable[pp.PackedBatch]) -> dict[str, int]:
    return {image.key: len(image.patches) for batch in batches for image in pp.unpack(batch)}


@pytest.mark.parametrize("kind", MAKERS)
def test_two_epochs_in_one_process(kind: str, opened: Any, expected: Any) -> None:
    here = expected(kind)
    assert run(kind, opened).told == here.told
    assert here.order[0] != here.order[1]
    assert here.tokens[0] != here.tokens[1]


def fast(kinds: Iterable[str], *chosen: str) -> list[Any]:
    """Return the kinds, all but the chosen ones marked slow."""
    return [pytest.param(kind, marks=() if kind in chosen else pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize("kind", fast(MAKERS, "shards", "folder", "table", "pairs", "dataset", "huggingface"))
def test_forked_workers_change_nothing(kind: str, opened: Any, expected: Any, planned_by_workers: Any) -> None:
    forked = run(kind, opened, num_workers=2, dataloader={"persistent_workers": True, "multiprocessing_context": "fork"})
    # what happens to an image is the same in any case
    assert forked.tokens == expected(kind).tokens
    assert forked.told == (planned_by_workers if kind in PLANNED_BY_WORKERS else expected)(kind).told


@pytest.mark.parametrize("kind", MAKERS)
def test_threads_change_nothing_about_a_batch(kind: str, opened: Any, expected: Any) -> None:
    assert run(kind, opened, num_threads=3).told == expected(kind).told


@pytest.mark.parametrize("kind", MAKERS)
def test_what_spawned_workers_get_paints_the_same(kind: str, opened: Any, expected: Any) -> None:
    """Planner, painter and plans, pickled and back; that a new process paints with them is a slow test's business."""
    source, options = opened(kind)
    planner = pp.Planner(source, RECIPE, shuffle=8, **options)
    painter = pickle.loads(pickle.dumps(SendingPainter(planner)))
    if kind in PLANNED_BY_WORKERS:
        planner = pickle.loads(pickle.dumps(planner))
    there = [painter[pickle.loads(pickle.dumps(plan))] for plan in planner]
    assert told(batch._make(map(torch_of, batch)) for batch in there) == expected(kind).told[0]


@pytest.mark.slow  # a new process imports torch and all else again, and takes a second to end
def test_a_spawned_worker_paints_the_same(opened: Any) -> None:
    """Start one process alone."""
    paths, _ = opened("shards")
    index = pp.Index.build(paths)
    spawned = epochs("index", index, {}, count=1, num_workers=1, dataloader={"multiprocessing_context": "spawn"})
    assert told(spawned[0]) == told(epochs("index", index, {}, count=1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "pairs", "dataset of dicts", "huggingface"])
def test_two_epochs_with_spawned_workers(kind: str, opened: Any, expected: Any, planned_by_workers: Any) -> None:
    spawned = run(kind, opened, num_workers=2, dataloader={"persistent_workers": True, "multiprocessing_context": "spawn"})
    assert spawned.told == (planned_by_workers if kind in PLANNED_BY_WORKERS else expected)(kind).told


@pytest.mark.parametrize("world_size", [3])
@pytest.mark.parametrize("kind", MAKERS)
def test_evaluation_over_ranks_gives_every_image_once(kind: str, world_size: int, opened: Any) -> None:
    source, options = opened(kind)
    shares = []
    for rank in range(world_size):
        loader = pp.load(source, RECIPE.for_eval(), tail="pad", rank=rank, world_size=world_size, **options)
        shares.append(list(loader))
        assert loader.report().packed == len(order_of(shares[-1]))
    assert len({len(share) for share in shares}) == 1
    assert len([key for share in shares for key in order_of(share)]) == COUNT
    assert len({key for share in shares for key in order_of(share)}) == COUNT


def check_training(kind: str, workers: int, opened: Any) -> None:
    source, options = opened(kind)
    if isinstance(source, pp.Mix):  # the steps end the epoch instead
        source = pp.Mix(list(zip(source.sources.values(), source.weights, strict=True)), names=list(source.sources))
    shares = []
    for rank in range(2):
        loader = pp.load(source, RECIPE, shuffle=8, steps_per_epoch=3, rank=rank, world_size=2, num_workers=workers, **options)
        batches = list(loader)
        assert [batch.info.step for batch in batches] == [0, 1, 2]
        report = loader.report()
        assert report.seen == report.packed + sum(report.dropped.values())
        assert report.waiting == 0
        nothing = [[0] * 9] * 9
        shares.append({
            (key, number)
            for batch in batches
            for keys, numbers in zip(batch.keys, batch.info.repeats or nothing, strict=False)
            for key, number in zip(keys, numbers, strict=False)
        })  # fmt: skip
    assert shares[0].isdisjoint(shares[1])  # in every pass


@pytest.mark.parametrize("kind", MAKERS)
def test_training_ranks_make_equal_steps_on_different_samples(kind: str, opened: Any) -> None:
    check_training(kind, 0, opened)


@pytest.mark.parametrize("kind", fast(MAKERS, "fewer shards than ranks", "dataset of dicts", "rows"))
def test_training_ranks_with_workers_do_too(kind: str, opened: Any) -> None:
    check_training(kind, 2, opened)


# ----------------------------------------------------------------------------------------- conservation, whatever comes


class Mixed(Dataset[Any]):
    """Good pictures, files that are none, cut files, items that raise, pictures the recipe refuses."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds

    def __len__(self) -> int:
        return len(self.kinds)

    def image(self, i: int) -> bytes:
        if self.kinds[i] == "too large":
            file = io.BytesIO()
            Image.new("RGB", (200, 200)).save(file, "png")
            return file.getvalue()
        data = png(i)
        return {"no image": b"no image", "cut": data[: len(data) // 2]}.get(self.kinds[i], data)

    def __getitem__(self, i: int) -> Any:
        if self.kinds[i] == "raises":
            raise ValueError(f"item {i} is not there")
        return {"image": self.image(i), "label": "x" if self.kinds[i] == "bad label" else i}


class Known(Mixed):
    """With sizes, so that an item is met first when it is painted."""

    def size(self, i: int) -> tuple[int, int]:
        return (200, 200) if self.kinds[i] == "too large" else size_of(i)


def conserving_source(kind: str, items: Mixed, folder: Path) -> tuple[Any, dict[str, Any]]:
    if kind == "dataset":
        return items, {}
    if kind == "dataset with sizes":
        return Known(items.kinds), {"size_of": Known(items.kinds).size}
    present = [i for i, what in enumerate(items.kinds) if what != "raises"]
    if kind == "iterable":
        return [pp.Sample(str(i), items.image(i), items[i]["label"]) for i in present], {}
    if kind == "shards":
        with tarfile.open(folder / "s.tar", "w") as tar:
            for i in present:
                label = f"{items[i]['label']}".encode()
                for name, data in ((f"{i:03d}.png", items.image(i)), (f"{i:03d}.cls", label)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return str(folder / "s.tar"), {}
    (folder / "a").mkdir()
    for i in present:
        (folder / "a" / f"{i:03d}.png").write_bytes(items.image(i))
    return str(folder), {}


KINDS = ["good", "good", "good", "no image", "cut", "raises", "too large", "bad label"]


CONSERVING = ("dataset", "dataset with sizes", "iterable", "shards", "folder")
TAILS = ("short", "drop", "pad", "wrap")
GIVEN: dict[str, Any] = {
    "kinds": st.lists(st.sampled_from(KINDS), min_size=1, max_size=30),
    "shuffle": st.integers(0, 9),
    "steps": st.sampled_from([None, None, 1, 3]),
}


@pytest.mark.parametrize("source", CONSERVING)
@weight(0.8)  # five cases
@given(tail=st.sampled_from(TAILS), **GIVEN)
def test_conservation(source: str, tmp_path_factory: Any, **drawn: Any) -> None:
    check_conservation(source, tmp_path_factory, workers=0, **drawn)


@pytest.mark.slow
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("source", CONSERVING)
@weight(1 / 3)  # twenty cases, and some examples start processes
@given(workers=st.sampled_from([0] * 9 + [2]), **GIVEN)
def test_conservation_with_workers_and_every_tail(source: str, tail: str, tmp_path_factory: Any, **drawn: Any) -> None:
    check_conservation(source, tmp_path_factory, tail=tail, **drawn)


@pytest.mark.parametrize(("source", "tail"), [*zip(CONSERVING, (*TAILS, "short"), strict=True)])
def test_conservation_with_workers(source: str, tail: str, tmp_path_factory: Any) -> None:
    check_conservation(source, tmp_path_factory, kinds=KINDS * 3, tail=tail, workers=2, shuffle=5, steps=None)


def check_conservation(
    source: str, tmp_path_factory: Any, *, tail: Any, kinds: list[str], workers: int, shuffle: int, steps: int | None
) -> None:
    recipe = pp.Recipe(
        resize=pp.resize.Native(60, oversize="reject"), seq_len=64, max_images=4, rows_per_batch=3, patch_size=16
    )
    items = Mixed(kinds)
    folder = tmp_path_factory.mktemp("c") if source in ("shards", "folder") else Path()
    opened, options = conserving_source(source, items, folder)
    if workers and steps and len(kinds) < workers:
        workers = 0  # refused at the door: a stream without a sample
    if source in ("shards", "folder", "iterable") and set(kinds) == {"raises"}:
        return  # nothing there at all
    loader = pp.load(
        opened, recipe, tail=tail, shuffle=shuffle, num_workers=workers, steps_per_epoch=steps,
        on_error=pp.ErrorPolicy("skip", max_in_a_row=None), **options,
    )  # fmt: skip
    packed: list[str] = []
    nothing_usable = None
    try:
        for batch in loader:
            check_batch(batch)
            packed += [image.key for image in pp.unpack(batch)]
    except pp.errors.SourceError as error:
        nothing_usable = str(error)
    assert nothing_usable is None or "no image to pack" in nothing_usable
    report = loader.report()
    assert report.seen == report.packed + len(report.rejected) + sum(report.dropped.values()) + report.waiting
    assert report.waiting == 0
    if steps is None:
        rejected = [rejection.key for rejection in report.rejected]
        assert len(rejected) == len(set(rejected))
        assert not set(rejected) & set(packed)
        assert report.seen == sum(kind != "raises" or source.startswith("dataset") for kind in kinds)
        if tail != "wrap":
            assert len(packed) == len(set(packed)) == report.packed
