"""A source with a ``set_epoch`` is always at the loader's epoch: begun there, moved there, or resumed there."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

import patchpack as pp
from helpers.profiles import weight

COUNT = 12
RECIPE = pp.Recipe(resize=pp.resize.NaFlex(1), patch_size=16, seq_len=2, rows_per_batch=1, max_images=2)

pytestmark = [  # datasets leave open files to the garbage collector; a stream is read again on resume, with a warning
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*has no positions to begin at"),
]


def order(epoch: int) -> list[int]:
    numbers = list(range(COUNT))
    random.Random(epoch).shuffle(numbers)
    return numbers


def sample(number: int) -> pp.Sample:
    return pp.Sample(f"k{number}", np.full((16, 16, 3), number, np.uint8), number)


class Stream:
    """Shuffles by its epoch, as the streams of `datasets` do."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[pp.Sample]:
        return map(sample, order(self.epoch))


class TorchStream(Stream, IterableDataset[pp.Sample]):
    """The same as a torch dataset."""


class ByNumber(Dataset[Any]):
    """Items by number, whose label is the epoch; nothing about the order."""

    def __init__(self) -> None:
        self.epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> Any:
        return np.full((16, 16, 3), number, np.uint8), self.epoch


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (number, 0, 0)).save(file, "png")
    return file.getvalue()


def hugging(shards: int, shuffled: bool) -> Any:
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": png(i), "path": None} for i in range(COUNT)], "label": list(range(COUNT))}
    )
    stream = rows.cast_column("image", datasets.Image()).to_iterable_dataset(num_shards=shards)
    return stream.shuffle(seed=0, buffer_size=4) if shuffled else stream


SOURCES = {
    "stream": Stream,
    "torch stream": TorchStream,
    "datasets, 1 shard": lambda: hugging(1, False),
    "datasets, 3 shards": lambda: hugging(3, False),
    "datasets, 1 shard, shuffled": lambda: hugging(1, True),
    "datasets, 3 shards, shuffled": lambda: hugging(3, True),
}


def labels(batches: Any) -> list[int]:
    return [int(image.target) for batch in batches for image in pp.unpack(batch)]


@pytest.mark.parametrize("name", SOURCES)
@weight(1 / 2)
@given(epoch=st.integers(0, 5), cut=st.integers(0, COUNT // 2 - 1), again=st.booleans())
def test_begun_at_an_epoch_cut_anywhere_and_resumed_the_rest_is_identical(name: str, epoch: int, cut: int, again: bool) -> None:
    """A run begun with ``load(stream, epoch=3)`` lost and doubled samples when it was resumed."""
    moved = pp.load(SOURCES[name](), RECIPE)
    moved.set_epoch(epoch)
    whole = labels(moved)
    assert sorted(whole) == list(range(COUNT))
    loader = pp.load(SOURCES[name](), RECIPE, epoch=epoch)
    batches = iter(loader)
    before = labels(next(batches) for _ in range(cut))
    state = loader.state_dict()
    resumed = pp.load(SOURCES[name](), RECIPE)
    resumed.load_state_dict(state)
    if again:
        resumed.set_epoch(epoch)
    assert before + labels(resumed) == whole
    assert before + labels(batches) == whole


@pytest.mark.parametrize("name", ["stream", "torch stream"])
def test_each_epoch_has_its_order_whatever_was_iterated_before(name: str) -> None:
    stream = SOURCES[name]()
    first, second = pp.load(stream, RECIPE, epoch=4), pp.load(stream, RECIPE)  # of one stream
    assert labels(first) == order(4)
    assert labels(second) == order(0)
    assert labels(first) == order(4)


@pytest.mark.parametrize(
    "workers", [{}, {"num_workers": 2, "dataloader": {"persistent_workers": True}}, {"num_threads": 2}], ids=str
)
@pytest.mark.parametrize("sizes", [None, [(16, 16)] * COUNT], ids=["sizes read", "sizes given"])
def test_a_dataset_by_number_is_at_the_epoch_wherever_its_items_are_read(sizes: Any, workers: dict[str, Any]) -> None:
    loader = pp.load(ByNumber(), RECIPE, epoch=3, sizes=sizes, **workers)
    assert labels(loader) == [3] * COUNT
    loader.set_epoch(7)
    assert labels(loader) == [7] * COUNT


def test_replay_reads_the_epoch_it_is_asked_for() -> None:
    assert pp.replay(ByNumber(), RECIPE, "5", epoch=9).target == 9


def test_a_stage_sets_its_stream_to_its_epoch_also_on_resume() -> None:
    stage = pp.Pack(RECIPE, epoch=2, resumable=True)
    batches = list(DataLoader(stage.over(Stream()), batch_size=None))
    assert labels(batches) == order(2)
    for batch in batches[:2]:
        stage.delivered(batch)
    again = pp.Pack(RECIPE, resumable=True)
    again.load_state_dict(stage.state_dict())
    assert labels(DataLoader(again.over(Stream()), batch_size=None)) == order(2)[4:]


@pytest.mark.parametrize("batches", [2, COUNT // 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_another_epoch_after_a_state_is_whole_where_workers_plan(batches: int, persistent: bool) -> None:
    """It began where the state's epoch stood, and lost what was before."""
    options: dict[str, Any] = {"num_workers": 2, "dataloader": {"persistent_workers": persistent}, "shuffle": True}
    loader, states = pp.load(ByNumber(), RECIPE, **options), []
    for _ in loader:
        states.append(loader.state_dict())  # noqa: PERF401  of the batch that has just come
    again = pp.load(ByNumber(), RECIPE, **options)
    again.load_state_dict(states[batches - 1])
    again.set_epoch(1)
    assert labels(again) == [1] * COUNT
    report = again.report()
    assert (report.seen, report.packed) == (COUNT, COUNT)
