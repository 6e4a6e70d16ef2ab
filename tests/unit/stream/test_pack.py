"""`pp.Pack` without pipelines and workers: what it iterates over, and the keys of items without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import IterableDataset

import patchpack as pp
from patchpack.stream import stage, staged_items

RECIPE = pp.Recipe(resize=pp.resize.Native(16), patch_size=4, seq_len=16, rows_per_batch=1)
IMAGE = np.zeros((16, 16, 3), dtype=np.uint8)
PAIRS = [(IMAGE, number) for number in range(6)]


class ByNumber:
    """A dataset that never raises `IndexError`."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> Any:
        if number == self.broken:
            raise ValueError("broken")
        return IMAGE, number


class Divided(IterableDataset[Any]):
    """A stream that gives every worker other items."""

    def __iter__(self) -> Iterator[Any]:
        worker = stage.get_worker_info()
        return iter(PAIRS[worker.id :: worker.num_workers])


def packed(items: Any, worker: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """The (key, label) of every image that a worker packs, and the keys of those that it rejects."""
    info = None if worker is None else SimpleNamespace(id=worker[0], num_workers=worker[1])
    for module in (stage, staged_items):
        monkeypatch.setattr(module, "get_worker_info", lambda: info)
    batches = list(pp.Pack(RECIPE, on_error="skip", **options).over(items))
    kept = [(image.key, int(image.target)) for batch in batches for image in pp.unpack(batch)]
    return kept + [rejection.key for batch in batches for rejection in batch.info.rejections]


def test_a_dataset_by_number_ends_at_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed(ByNumber(), None, monkeypatch) == [(str(n), n) for n in range(6)]
    batches = list(pp.Pack(RECIPE)(ByNumber()))
    assert sum(batch.info.packed for batch in batches) == 6


@pytest.mark.parametrize("items", [PAIRS, ByNumber()], ids=["list", "dataset"])
def test_shares_by_position_have_the_keys_of_the_whole(items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [packed(items, (worker, 2), monkeypatch) for worker in (0, 1)]
    assert shares == [[("0", 0), ("2", 2), ("4", 4)], [("1", 1), ("3", 3), ("5", 5)]]


def test_an_item_that_raises_has_a_position_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [packed(ByNumber(broken=2), (worker, 2), monkeypatch) for worker in (0, 1)]
    assert shares == [[("0", 0), ("4", 4), "2"], [("1", 1), ("3", 3), ("5", 5)]]


def test_a_stream_that_divides_itself_has_keys_by_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [packed(Divided(), (worker, 2), monkeypatch) for worker in (0, 1)]
    assert shares == [[("0/0", 0), ("0/1", 2), ("0/2", 4)], [("1/0", 1), ("1/1", 3), ("1/2", 5)]]


def test_one_worker_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed(Divided(), (0, 1), monkeypatch) == packed(PAIRS, None, monkeypatch)


def test_keys_of_items_that_have_one_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [pp.Sample(f"k{number}", IMAGE, number) for number in range(4)]
    assert packed(samples, (1, 2), monkeypatch) == [("k1", 1), ("k3", 3)]
    dicts = [{"__key__": f"k{number}", "jpg": IMAGE, "cls": number} for number in range(4)]
    assert packed(dicts, (1, 2), monkeypatch) == [("k1", 1), ("k3", 3)]


def test_a_users_function_gets_the_position_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_sample(number: int, item: Any) -> pp.Sample:
        return pp.Sample(str(number), *item)

    assert packed(PAIRS, (1, 2), monkeypatch, to_sample=to_sample) == [("1", 1), ("3", 3), ("5", 5)]


@pytest.mark.parametrize("path", ["s/a.tar", Path("pictures"), ["a.tar", "b.tar"]])
def test_paths_are_refused_with_what_reads_them(path: Any) -> None:
    for use in (pp.Pack(RECIPE).over, lambda items: next(iter(pp.Pack(RECIPE)(items)))):
        with pytest.raises(pp.errors.ConfigError, match=r"is a path: patchpack\.load\(path, recipe\) reads files"):
            use(path)


def test_what_cannot_be_iterated_is_refused() -> None:
    with pytest.raises(pp.errors.ConfigError, match="got a int, which cannot be iterated"):
        pp.Pack(RECIPE).over(3)  # type: ignore[arg-type]


def test_a_stage_without_positions_gives_no_state() -> None:
    with pytest.raises(pp.errors.ConfigError, match="make it with resumable=True"):
        pp.Pack(RECIPE).state_dict()


@pytest.mark.parametrize("resumable", ["yes", 1, None])
def test_resumable_is_true_or_false(resumable: Any) -> None:
    with pytest.raises(pp.errors.ConfigError, match="resumable must be True or False, got"):
        pp.Pack(RECIPE, resumable=resumable)
