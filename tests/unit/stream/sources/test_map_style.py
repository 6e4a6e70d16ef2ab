"""Map-style datasets, torch's and Hugging Face's: what is asked of them, when an item is read, and what goes wrong."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

import patchpack as pp
from patchpack.losses import Rejection
from patchpack.stream.sources.map_style import MapStyleSource, is_map_style
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

RECIPE = pp.recipes.square(size=32, rows_per_batch=4)


class Counting(Dataset[Any]):
    """Pictures of (20 + i) x 30, and how often each was read."""

    def __init__(self, count: int = 8) -> None:
        self.count, self.read = count, Counter[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        self.read[i] += 1
        return Image.new("RGB", (30, 20 + i), (i, i, i)), i


def png(height: int = 20, width: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return file.getvalue()


def rows(column: str = "image", count: int = 6, **columns: Any) -> Any:
    table = {column: [{"bytes": png(20 + i), "path": None} for i in range(count)], "label": list(range(count)), **columns}
    return datasets.Dataset.from_dict(table).cast_column(column, datasets.Image())


def keys_of(batches: Any) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


# ------------------------------------------------------------------------------------------------- sizes, and how often


def test_known_sizes_mean_that_an_item_is_read_when_it_is_painted() -> None:
    dataset = Counting()
    source = open_source(dataset, sizes=[[20 + i, 30] for i in range(8)])
    headers = list(source.scan())
    assert [(h.key, tuple(h.size), h.location) for h in headers] == [(str(i), (20 + i, 30), i) for i in range(8)]  # type: ignore[union-attr]
    assert not dataset.read
    list(pp.load(dataset, RECIPE, sizes=np.array([[20 + i, 30] for i in range(8)], dtype=np.uint16)))
    assert dataset.read == Counter(range(8)) + Counter([0])  # the first one's label says what labels are


def test_a_function_may_know_the_sizes() -> None:
    dataset = Counting()
    list(open_source(dataset, size_of=lambda i: (20 + i, 30)).scan())
    assert not dataset.read
    assert keys_of(pp.load(dataset, RECIPE, size_of=lambda i: (20 + i, 30))) == list("01234567")


def test_unknown_sizes_mean_that_an_item_is_read_once_and_held() -> None:
    dataset = Counting()
    (*batches,) = pp.load(dataset, RECIPE)
    assert keys_of(batches) == list("01234567")
    assert dataset.read == Counter(range(8))


def test_where_every_rank_plans_everything_items_are_read_for_their_size_and_painted_once() -> None:
    dataset = Counting()
    source = open_source(dataset)
    assert isinstance(source, MapStyleSource)
    assert source.decodes_to_scan
    assert not source.reading_twice().decodes_to_scan
    painted = []
    for rank in range(2):
        loader = pp.load(dataset, RECIPE, tail="pad", rank=rank, world_size=2)
        painted += keys_of(loader)
    assert sorted(painted) == list("01234567")
    # both ranks look at all and paint their own; each asks one item for its label
    assert sum(dataset.read.values()) == 2 * 8 + 8 + 2


def test_shuffling_permutes_the_whole_dataset() -> None:
    order = keys_of(pp.load(Counting(200), RECIPE, shuffle=1))
    assert sorted(order, key=int) == [str(i) for i in range(200)]
    assert np.mean(np.abs(np.array(order, dtype=int) - np.arange(200))) > 40  # 67 in the mean, however small a block is


def test_a_size_that_turns_out_wrong_is_a_rejection() -> None:
    sizes = [[20 + i, 30] for i in range(8)]
    sizes[3] = [99, 30]
    loader = pp.load(Counting(), RECIPE, sizes=sizes, on_error="skip")
    list(loader)
    (rejection,) = loader.report().rejected
    assert (rejection.key, rejection.stage) == ("3", "decode")
    assert "expected 99 x 30 pixels (height x width), as the header said, got 23 x 30" in rejection.reason


@pytest.mark.parametrize(
    ("size_of", "reason"),
    [
        (lambda i: 1 // 0, r"size_of\(0\) failed: ZeroDivisionError"),
        (lambda i: (5,), r"size_of\(0\) failed: ValueError"),
        (lambda i: (0, 5), "expected 1 … max_pixels=64000000 pixels, got 0 x 5"),
        (lambda i: (10_000, 10_000), "expected 1 … max_pixels"),
    ],
)
def test_a_size_that_cannot_be_is_a_rejection(size_of: Any, reason: str) -> None:
    first = next(iter(open_source(Counting(), size_of=size_of).scan()))
    assert isinstance(first, Rejection)
    assert first.stage == "header"
    with pytest.raises(pp.errors.DecodeError, match=reason):
        raise first.as_error()


@pytest.mark.parametrize(
    ("sizes", "got"),
    [
        ([[20, 30]] * 7, r"int64 \[7, 2\]"),
        ([[20, 30, 3]] * 8, r"int64 \[8, 3\]"),
        ([[20.0, 30.0]] * 8, r"float64 \[8, 2\]"),
        ([[20, 0]] * 8, r"int64 \[8, 2\], the smallest is 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused_at_the_door(sizes: Any, got: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=rf"sizes must be integers \[8, 2\] >= 1, .* got {got}"):
        pp.load(Counting(), RECIPE, sizes=sizes)


def test_sizes_are_for_items_by_number() -> None:
    with pytest.raises(
        pp.errors.ConfigError, match=r"sizes= and size_of= are for datasets with __getitem__, and .* its own sizes"
    ):
        pp.load(pp.samples.shards("train")[:1], RECIPE, sizes=[[1, 1]])
    with pytest.raises(pp.errors.ConfigError, match="both give the sizes: pass only one"):
        pp.load(Counting(), RECIPE, sizes=[[1, 1]] * 8, size_of=lambda i: (1, 1))


def test_a_list_may_be_a_dataset_with_sizes() -> None:
    samples = [(png(20 + i), i) for i in range(3)]
    assert keys_of(pp.load(samples, RECIPE, sizes=[[20 + i, 30] for i in range(3)])) == ["0", "1", "2"]


# ------------------------------------------------------------------------------------------------------- kinds of items


def test_what_is_a_dataset_and_what_is_not() -> None:
    class Duck:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Any:
            return png(), 3

    assert is_map_style(Duck())
    assert is_map_style(Subset(Counting(), [1, 2]))
    assert is_map_style(rows())
    assert not is_map_style([1])
    assert not is_map_style(rows().to_iterable_dataset())
    assert keys_of(pp.load(Duck(), RECIPE)) == ["0"]
    assert keys_of(pp.load(Subset(Counting(), [5, 2]), RECIPE)) == ["0", "1"]  # numbers in the dataset that is given


def test_a_dataset_without_a_length_says_what_is_missing() -> None:
    class Endless(Dataset[Any]):
        def __getitem__(self, i: int) -> Any:
            return i

    with pytest.raises(pp.errors.SourceError, match=r"cannot read samples from a Endless: .* __getitem__ and __len__"):
        pp.load(Endless(), RECIPE)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(pp.errors.SourceError, match="Counting of 0 items is empty"):
        pp.load(Counting(0), RECIPE)


def test_a_dict_of_splits_says_to_take_one() -> None:
    splits = datasets.DatasetDict({"train": rows(), "test": rows()})
    with pytest.raises(pp.errors.SourceError, match="got a DatasetDict of 'train', 'test': pass one of its values"):
        pp.load(splits, RECIPE)


def test_pictures_alone_are_unlabelled_samples() -> None:
    class Alone(Counting):
        def __getitem__(self, i: int) -> Any:
            return super().__getitem__(i)[0]

    (batch, _) = pp.load(Alone(), RECIPE, target=None)
    assert batch.targets is None
    with pytest.raises(pp.errors.SourceError, match=r"item 0 is a Image without a label \(target=None for unlabelled images\)"):
        list(pp.load(Alone(), RECIPE))


def test_a_tensor_that_was_normalised_says_so() -> None:
    dataset = TensorDataset(torch.full((3, 3, 32, 32), -2.0), torch.zeros(3))
    said = r"expected floats in \[0, 1\], got float32 \[32, 32, 3\] with values -2 … -2: leave out Normalize"
    with pytest.raises(pp.errors.DecodeError, match=said):
        list(pp.load(dataset, RECIPE))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("known", [False, True])
def test_an_item_that_raises_is_a_rejection_that_names_it(known: bool, workers: int) -> None:
    class Failing(Counting):
        def __getitem__(self, i: int) -> Any:
            if i == 5:
                raise KeyError("lost")
            return super().__getitem__(i)

    options: dict[str, Any] = {"sizes": [[20 + i, 30] for i in range(8)]} if known else {}
    loader = pp.load(Failing(), RECIPE, on_error="skip", num_workers=workers, **options)
    batches = list(loader)
    (rejection,) = loader.report().rejected
    assert (rejection.key, rejection.stage) == ("5", "read")
    assert rejection.reason == "item 5 of the dataset raised KeyError: 'lost'"
    assert (loader.report().packed, loader.report().waiting) == (7, 0)
    assert len(batches) == 2
    with pytest.raises(pp.errors.SourceError, match="item 5 of the dataset raised KeyError"):
        list(pp.load(Failing(), RECIPE, num_workers=workers, **options))


# ---------------------------------------------------------------------------------------------------------- Hugging Face


def test_rows_come_as_bytes_and_their_headers_are_read() -> None:
    source = open_source(rows())
    assert isinstance(source, MapStyleSource)
    assert not source.decodes_to_scan
    headers = [event for event in source.scan() if isinstance(event, Header)]
    assert [tuple(h.size) for h in headers] == [(20 + i, 30) for i in range(6)]
    image, target = source.reader(headers[2].location)
    assert isinstance(image, bytes)
    assert target == 2


@pytest.mark.parametrize("column", ["image", "img", "Photo", "jpg"])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_image_column_is_found(column: str, streaming: bool) -> None:
    dataset = rows(column)
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    assert keys_of(pp.load(dataset, RECIPE)) == list("012345")


def test_one_of_several_image_columns_is_named() -> None:
    dataset = rows("left", right=[{"bytes": png(99), "path": None}] * 6).cast_column("right", datasets.Image())
    with pytest.raises(
        pp.errors.ConfigError, match=r"no column is named 'image'; .* left, .*right.*; pass image= one of left, right"
    ):
        pp.load(dataset, RECIPE)
    (batch, _) = pp.load(dataset, RECIPE, image="right")
    assert batch.source_sizes[0, 0].tolist() == [99, 30]


def test_labels_are_columns_in_any_case() -> None:
    dataset = rows(Fine=[i + 10 for i in range(6)], coarse=[0.5] * 6)
    (batch, _) = pp.load(dataset, RECIPE, target="fine")
    assert batch.targets[:, 0].tolist() == [10, 11, 12, 13]
    (batch, _) = pp.load(dataset, RECIPE, target=("fine", "coarse"))
    assert {name: values.dtype for name, values in batch.targets.items()} == {"fine": torch.int64, "coarse": torch.float32}


def test_a_transform_is_the_users_and_is_kept() -> None:
    def darker(batch: Any) -> Any:
        return {"image": [image.point(lambda v: v // 2) for image in batch["image"]], "label": batch["label"]}

    source = open_source(rows().with_transform(darker))
    assert isinstance(source, MapStyleSource)
    assert source.decodes_to_scan
    assert keys_of(pp.load(rows().with_transform(darker), RECIPE)) == list("012345")


def test_a_function_of_the_users_meets_the_rows_as_they_are() -> None:
    def convert(i: int, row: Any) -> pp.Sample:
        assert isinstance(row["image"], Image.Image)
        assert row["caption"] == "a"
        return pp.Sample(str(i), row["image"], row["label"])

    assert keys_of(pp.load(rows(caption=["a"] * 6), RECIPE, to_sample=convert)) == list("012345")


def test_a_stream_that_is_split_by_rank_is_not_split_again() -> None:
    from datasets.distributed import split_dataset_by_node

    mine = split_dataset_by_node(rows().to_iterable_dataset(num_shards=2), rank=1, world_size=2)
    with pytest.raises(pp.errors.ConfigError, match="IterableDataset of samples is split by rank already"):
        pp.load(mine, RECIPE, rank=1, world_size=2, steps_per_epoch=1)
    assert keys_of(pp.load(mine, RECIPE, rank=0, world_size=1)) == ["0", "1", "2"]


# ---------------------------------------------------------------------------------------------------- planned in workers


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_more_workers_than_items_leave_some_without_any() -> None:
    loader = pp.load(Counting(3), RECIPE, num_workers=5)
    assert sorted(keys_of(loader)) == ["0", "1", "2"]
    assert (loader.report().seen, loader.report().packed, loader.report().waiting) == (3, 3, 0)
    with pytest.raises(pp.errors.ConfigError, match=r"Counting of 3 items cannot feed 5 workers on each of 1 ranks"):
        pp.load(Counting(3), RECIPE, num_workers=5, steps_per_epoch=2)


def test_nothing_readable_in_any_worker_is_an_error() -> None:
    class Broken(Counting):
        def __getitem__(self, i: int) -> Any:
            return b"no picture", i

    with pytest.raises(pp.errors.SourceError, match="no image to pack, 4 samples seen, 4 rejected"):
        list(pp.load(Broken(), RECIPE, num_workers=2, on_error="skip"))
    with pytest.raises(pp.errors.DecodeError, match="expected a readable"):
        list(pp.load(Broken(), RECIPE, num_workers=2))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_are_shared_among_workers(steps: int) -> None:
    loader = pp.load(Counting(40), RECIPE, num_workers=3, steps_per_epoch=steps, dataloader={"persistent_workers": True})
    for epoch in range(2):
        loader.set_epoch(epoch)
        assert [batch.info.step for batch in loader] == list(range(steps))
        assert len(loader) == steps
        assert loader.report().waiting == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_a_drop_schedule_goes_on_over_epochs_whoever_plans() -> None:
    recipe = pp.recipes.navit(
        drop=pp.drop.Scheduled(midpoint=40, width=4, low=0.1, high=0.9), seq_len=64, resize=pp.resize.Native(64), patch_size=4
    )
    found = []
    for workers in (0, 2, 3):
        loader = pp.load(Counting(20), recipe, num_workers=workers)
        kept = [{i.key: len(i.patches) for batch in loader for i in pp.unpack(batch)} for _ in range(3)]
        assert kept[0] != kept[2]
        found.append(kept)
    assert found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("ignore:2 ranks without steps_per_epoch")
def test_a_ranks_share_does_not_depend_on_its_workers() -> None:
    shares = [
        set(keys_of(pp.load(Counting(20), RECIPE, shuffle=1, rank=1, world_size=2, num_workers=workers))) for workers in (0, 2)
    ]
    assert shares[0] == shares[1]
    assert len(shares[0]) == 10


def test_shuffling_pictures_holds_no_more_of_them() -> None:
    """A block of headers is small, a block of pictures is not."""
    dataset = Counting(2000)
    next(iter(pp.load(dataset, RECIPE.replace(packer=pp.packing.NextFit()), shuffle=1000)))
    assert sum(dataset.read.values()) < 200
