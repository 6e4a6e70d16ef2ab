"""Items of iterables and datasets: what is one sample, what is refused, and that a bad one costs itself alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import patchpack as pp

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=16, seq_len=16, rows_per_batch=1, max_images=4)

pytestmark = [  # datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def picture(height: int) -> Image.Image:
    return Image.new("RGB", (32, height))


def png(height: int) -> bytes:
    file = io.BytesIO()
    picture(height).save(file, "png")
    return file.getvalue()


def shapes(batches: Any) -> list[tuple[str, int, int]]:
    """Return key, part and height of every image."""
    return sorted((i.key, i.part, int(i.source_size[0])) for batch in batches for i in pp.unpack(batch))


# ------------------------------------------------------------------------------------------------- lists of images and batches


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("count", [2, 3])
def test_a_list_of_images_without_labels_is_one_sample(kind: type, count: int) -> None:
    """The second image was lost."""
    heights = [16 * (i + 1) for i in range(count)]
    loader = pp.load([kind(map(picture, heights)), kind(map(picture, heights))], RECIPE, target=None)
    assert shapes(loader) == [(key, part, height) for key in "01" for part, height in enumerate(heights)]


PAIRS = {
    "PIL": lambda: (picture(16), picture(32)),
    "files": lambda: (png(16), png(32)),
    "arrays": lambda: (np.zeros((16, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)),
    "three": lambda: (picture(16), picture(32), picture(48)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_images_where_a_label_is_expected_are_refused(name: str) -> None:
    """The second image was taken for the label."""
    with pytest.raises(pp.errors.SourceError, match=r"item 0 is a tuple of \d images without a label.* pass target=None"):
        list(pp.load([PAIRS[name]()], RECIPE))
    (batch,) = pp.load([(list(PAIRS[name]()), 7)], RECIPE)
    assert {int(image.target) for image in pp.unpack(batch)} == {7}


@pytest.mark.parametrize(
    "label", [np.array([0.5, 0.5]), np.arange(4, dtype=np.uint8), b"bytes", "text", [1, 2], {"a": 1}], ids=repr
)
def test_a_label_that_is_no_image_stays_a_label(label: Any) -> None:
    (batch,) = pp.load([(picture(16), label)], RECIPE)
    assert batch.targets is not None


def samples(count: int = 6) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"__key__": str(i), "png": png(16), "cls": b"%d" % i}


def transposed(items: list[Any]) -> Any:
    return tuple(zip(*items, strict=True))


BATCHED = {
    "dicts": lambda: wds.DataPipeline(lambda: samples(), wds.batched(2)),
    "tuples": lambda: wds.DataPipeline(lambda: samples(), wds.to_tuple("png", "cls"), wds.batched(2)),
    "pairs": lambda: [([picture(16), picture(32)], [0, 1])],
    "arrays": lambda: [(np.zeros((2, 16, 16, 3), np.uint8), np.array([0, 1]))],
    "batches of one": lambda: wds.DataPipeline(lambda: samples(), wds.to_tuple("png", "cls"), wds.batched(1)),
    "an array of one": lambda: [(np.zeros((1, 16, 16, 3), np.uint8), np.array([0]))],
    "tuples of a loader": lambda: DataLoader([(picture(16), 0), (picture(32), 1)], batch_size=2, collate_fn=transposed),
    "a tensor of labels": lambda: [([picture(16)], torch.tensor([1]))],
}


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_before_pack_is_refused(name: str) -> None:
    """Unrelated images became the parts of one sample."""
    with pytest.raises(pp.errors.SourceError, match=r"batch.*\.batched\(\)"):
        list(DataLoader(pp.Pack(RECIPE).over(BATCHED[name]()), batch_size=None))


PIPELINES = ["tuples", "batches of one", "tuples of a loader"]


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("options", [{}, {"target": None}], ids=["labels", "no labels"])
def test_a_batch_of_a_pipeline_is_refused_by_load_too(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"looks like a batch.*\.batched\(\)"):
        list(pp.load(BATCHED[name](), RECIPE, **options))


def test_images_that_belong_together_go_through_pack_as_a_sample() -> None:
    items = [pp.Sample("a", [picture(16), picture(32)], [0.5, 0.5])]
    assert shapes(pp.Pack(RECIPE)(items)) == [("a", 0, 16), ("a", 1, 32)]


def test_a_list_of_one_image_with_one_label_goes_through_pack() -> None:
    items = [([picture(16)], 3), ([picture(16)], torch.tensor(3)), ([picture(16)], [0, 1, 0])]
    for item in items:
        assert shapes(pp.Pack(RECIPE)([item])) == [("0", 0, 16)]


def test_a_list_as_key_is_refused_by_load_too() -> None:
    items = [{"__key__": ["a", "b"], "png": [png(16), png(16)], "cls": [0, 1]}]
    with pytest.raises(pp.errors.SourceError, match="'__key__' is a list of 2 keys"):
        list(pp.load(items, RECIPE))


# ------------------------------------------------------------------------------------------------------------- one bad item

GOOD = (picture(16), 1)
BAD = {"None": None, "a pair of None": (None, 1), "a number": 7, "a dict of other names": {"x": 1}, "an empty list": ([], 1)}


class ByNumber(Dataset[Any]):
    """Items by number."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


SOURCES = {"list": list, "generator": lambda items: (item for item in items), "dataset": ByNumber}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_item_is_a_rejection_with_its_number(name: str, source: str, workers: int) -> None:
    loader = pp.load(SOURCES[source]([GOOD, BAD[name], GOOD]), RECIPE, on_error="skip", num_workers=workers)
    assert [key for key, _, _ in shapes(loader)] == ["0", "2"]
    report = loader.report()
    assert [rejection.key for rejection in report.rejected] == ["1"]
    assert (report.seen, report.packed, report.waiting) == (3, 2, 0)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_item_of_a_stage_is_a_rejection_too(name: str) -> None:
    batches = list(pp.Pack(RECIPE, on_error="skip")([GOOD, BAD[name], GOOD]))
    assert [key for key, _, _ in shapes(batches)] == ["0", "2"]
    assert [rejection.key for rejection in pp.Report.collect(batches).rejected] == ["1"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_function_that_fails_or_makes_no_sample_rejects_its_item(source: str) -> None:
    def to_sample(number: int, item: Any) -> Any:
        if number == 1:
            raise KeyError("caption")
        return None if number == 2 else pp.Sample(str(number), *item)

    loader = pp.load(SOURCES[source]([GOOD] * 4), RECIPE, to_sample=to_sample, on_error="skip")
    assert [key for key, _, _ in shapes(loader)] == ["0", "3"]
    assert [(r.key, r.stage) for r in loader.report().rejected] == [("1", "read"), ("2", "read")]
    assert "to_sample raised KeyError for item 1" in loader.report().rejected[0].reason


class Stumbling:
    """An iterator that raises for an item and goes on with the next one."""

    def __init__(self) -> None:
        self.number = -1

    def __iter__(self) -> Stumbling:
        return self

    def __next__(self) -> Any:
        self.number += 1
        if self.number == 4:
            raise StopIteration
        if self.number == 1:
            raise OSError("a bad sector")
        return GOOD


def test_an_iterator_that_goes_on_after_an_error_loses_that_item_alone() -> None:
    loader = pp.load(Stumbling(), RECIPE, on_error="skip")
    assert [key for key, _, _ in shapes(loader)] == ["0", "2", "3"]
    (rejection,) = loader.report().rejected
    assert (rejection.key, rejection.reason) == ("1", "item 1 raised OSError: a bad sector")


def ending() -> Iterator[Any]:
    yield GOOD
    yield GOOD
    raise OSError("a bad sector")


def test_a_stream_that_an_error_ends_is_named() -> None:
    loader = pp.load(ending(), RECIPE, on_error="skip")
    assert [key for key, _, _ in shapes(loader)] == ["0", "1"]
    (fault,) = loader.report().shard_errors
    assert fault.reason == "item 2 raised OSError: a bad sector; the iterable returned no item after this error"
    with pytest.raises(pp.errors.ShardError, match="item 2 raised OSError"):
        list(pp.load(ending(), RECIPE))


def rows(*bad: int) -> Any:
    files = [{"bytes": b"nonsense" if i in bad else png(16), "path": None} for i in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": files, "label": list(range(6))}, features=features)


def same(row: Any) -> Any:
    return row


@pytest.mark.parametrize("streamed", [False, True])
def test_a_column_of_lists_with_one_broken_image_loses_one_row(streamed: bool) -> None:
    files = [[{"bytes": b"nonsense" if (i, j) == (1, 1) else png(16), "path": None} for j in range(2)] for i in range(3)]
    pages = datasets.Dataset.from_dict({"pages": files, "label": [0, 1, 2]})
    pages = pages.cast_column("pages", datasets.List(datasets.Image()))
    loader = pp.load(pages.to_iterable_dataset() if streamed else pages, RECIPE, on_error="skip")
    assert [(key, part) for key, part, _ in shapes(loader)] == [("0", 0), ("0", 1), ("2", 0), ("2", 1)]
    assert [(r.key, r.member, r.stage) for r in loader.report().rejected] == [("1", "[1]", "header")]


CHAINS: dict[str, Callable[[Any], Any]] = {
    "map": lambda stream: stream.map(same),
    "filter": lambda stream: stream.filter(lambda row: row["label"] != 4),
    "map, filter": lambda stream: stream.map(same).filter(bool),
    "format": lambda stream: stream.map(same).with_format("numpy"),
    "columns": lambda stream: stream.map(same).select_columns(["image", "label"]),
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_stream_that_decodes_before_map_loses_the_broken_row_alone(chain: str, shards: int) -> None:
    """It ended with the row, and what came after it was lost."""
    stream = CHAINS[chain](rows(2, 3, 5).to_iterable_dataset(num_shards=shards))
    expected = CHAINS[chain](rows().to_iterable_dataset(num_shards=shards)).map(lambda row: {"label": int(row["label"])})
    labels = [row["label"] for row in expected]
    loader = pp.load(stream, RECIPE, on_error="skip")
    got = sorted((int(image.key), int(image.target)) for batch in loader for image in pp.unpack(batch))
    assert got == [(i, label) for i, label in enumerate(labels) if label not in (2, 3, 5)]
    assert [r.key for r in loader.report().rejected] == [str(i) for i, label in enumerate(labels) if label in (2, 3, 5)]
    assert not loader.report().shard_errors
    assert {r.stage for r in loader.report().rejected} == {"read"}
    again = pp.load(stream, RECIPE, on_error="skip")
    assert sorted(int(image.target) for _ in range(2) for batch in again for image in pp.unpack(batch)) == sorted(
        2 * [label for _, label in got]
    )  # nothing of the stream was changed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stage_over_such_a_stream_loses_the_broken_row_alone(workers: int) -> None:
    stream = rows(2, 3).to_iterable_dataset(num_shards=2).map(same)
    loader = DataLoader(pp.Pack(RECIPE, on_error="skip").over(stream), batch_size=None, num_workers=workers)
    batches = list(loader)
    report = pp.Report.collect(batches)
    assert (report.seen, report.packed, report.shard_errors) == (6, 4, [])
    assert sorted(int(image.target) for batch in batches for image in pp.unpack(batch)) == [0, 1, 4, 5]


def numbered(row: Any, number: int) -> Any:
    return {**row, "label": number}


FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
INEXACT: dict[str, Callable[[Any], Any]] = {
    "shuffled": lambda stream: stream.shuffle(buffer_size=2).map(same),
    "batched": lambda stream: stream.map(same, batched=True, batch_size=2),
    "numbers": lambda stream: stream.map(numbered, with_indices=True),
    "take": lambda stream: stream.map(same).take(5),
    "skip": lambda stream: stream.map(same).skip(1),
    "repeat": lambda stream: stream.map(same).repeat(2),
    "several streams": lambda stream: datasets.interleave_datasets(
        [stream.map(same, features=FEATURES), rows().to_iterable_dataset()]
    ),
    "generator": lambda stream: datasets.IterableDataset.from_generator(lambda: iter(stream)).map(same),
}


@pytest.mark.parametrize("chain", INEXACT)
def test_a_stream_that_cannot_go_on_exactly_ends_and_says_what_to_do(chain: str) -> None:
    """Rows were lost, came again, or had labels of their neighbours."""
    loader = pp.load(INEXACT[chain](rows(3).to_iterable_dataset()), RECIPE, on_error="skip")
    shapes(loader)
    (fault,) = loader.report().shard_errors
    assert fault.reason.startswith("item ")
    assert "cast its image column to Image(decode=False) before" in fault.reason


def test_a_stream_that_casts_before_map_loses_the_broken_row_alone() -> None:
    cast = rows(3).to_iterable_dataset().cast_column("image", datasets.Image(decode=False)).shuffle(buffer_size=2).map(same)
    loader = pp.load(cast, RECIPE, on_error="skip")
    assert len(shapes(loader)) == 5
    assert [r.stage for r in loader.report().rejected] == ["header"]


@pytest.mark.parametrize("sizes", [[(16, 32)] * 2, None], ids=["sizes given", "sizes read"])
def test_nothing_usable_is_an_error_that_says_so(sizes: Any) -> None:
    loader = pp.load(ByNumber([(None, 1), (None, 2)]), RECIPE, sizes=sizes, on_error="skip")
    with pytest.raises(pp.errors.SourceError, match=r"no image to pack, 2 samples seen, 2 rejected"):
        list(loader)


# ------------------------------------------------------------------------------------------------------------ unclear names

UNCLEAR = {
    "labels in two cases": (
        {"image": png(16), "label": 1, "Label": 2},
        pp.errors.SourceError,
        "'label' and 'Label', which differ only in case",
    ),
    "images in two cases": ({"image": png(16), "Image": png(32), "label": 1}, pp.errors.SourceError, "differ only in case"),
    "two usual labels": (
        {"image": png(16), "label": 1, "cls": 7},
        pp.errors.TargetError,
        "'cls' and 'label': pass the name of the label as target=",
    ),
    "two named images": (
        {"img": png(16), "mask": png(32), "label": 1},
        pp.errors.SourceError,
        "'img' and 'mask', and image= names both",
    ),
    "two usual images": (
        {"image": png(16), "jpg": png(32), "label": 1},
        pp.errors.SourceError,
        "'image' and 'jpg': pass the name",
    ),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_two_names_that_could_be_meant_are_refused(name: str) -> None:
    """The last column won."""
    row, error, message = UNCLEAR[name]
    named = {"image": ["img", "mask"]} if "named" in name else {}
    with pytest.raises(error, match=message):
        list(pp.load([row], RECIPE, **named))


def test_names_that_are_given_need_not_be_alone() -> None:
    row = {"image": png(16), "jpg": png(32), "label": 1, "cls": 7, "Other": 1, "other": 2}
    (batch,) = pp.load([row], RECIPE, image="jpg", target="label")
    assert [(int(i.source_size[0]), int(i.target)) for i in pp.unpack(batch)] == [(32, 1)]


@pytest.mark.parametrize(
    ("name", "meant"), [("clases", "classes"), ("num_worker", "num_workers"), ("targets", "target"), ("xyzzy", "")]
)
def test_an_option_that_is_misspelt_is_refused(name: str, meant: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=f"{name}= is no option" + (f".*did you mean '{meant}'" if meant else "")):
        pp.load([GOOD], RECIPE, **{name: 1})
