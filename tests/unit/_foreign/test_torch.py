"""Batches are the same with a torch that keeps its internals to itself."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.collate import default_collate_fn_map

import patchpack as pp
from patchpack._foreign import torch as foreign
from patchpack.stream.workers import shared_batch, slot_pool, watch

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=16, rows_per_batch=2)


def patches(num_workers: int) -> list[np.ndarray[Any, Any]]:
    samples = [pp.Sample(str(i), picture) for i, picture in enumerate(PICTURES)]
    return [batch.patches.numpy().copy() for batch in pp.load(samples, RECIPE, tail="pad", num_workers=num_workers)]


def assert_the_same() -> None:
    expected = patches(0)
    assert len(expected) > 2
    for one, other in zip(expected, patches(2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_shared_storage_zeros_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = next(kind for kind in torch.UntypedStorage.__mro__ if "_new_shared" in vars(kind))
    monkeypatch.delattr(owner, "_new_shared")
    for num_bytes in (0, 1, 70_000):
        memory = foreign.shared_zeros(num_bytes)
        assert (memory.dtype, memory.shape, memory.is_shared()) == (torch.uint8, (num_bytes,), True)
        assert not memory.any()
    assert slot_pool.SlotPool(2, 5000).take() is not None
    assert_the_same()


def test_without_the_list_of_worker_pids_the_handler_may_raise_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_remove_worker_pids")
    assert_the_same()


def test_an_iterator_that_hides_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = iter([])
    assert foreign.workers_of(nothing) == ()
    with foreign.deaths_raise(nothing):
        foreign.shut_down(nothing)
    monkeypatch.setattr(watch, "workers_of", lambda _: ())
    assert_the_same()


class Slow:
    """A dataset whose only item ends the worker, or takes longer than the loader waits."""

    def __init__(self, dies: bool) -> None:
        self.dies = dies

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> int:
        if self.dies:
            os._exit(3)
        time.sleep(2)
        return 0


@pytest.mark.parametrize("dies", [True, False])
def test_torch_tells_deaths_and_timeouts_by_their_texts(dies: bool) -> None:
    loader: DataLoader[Any] = DataLoader(Slow(dies), batch_size=None, num_workers=1, timeout=60 if dies else 0.2)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError) as raised:
        next(iter(loader))
    assert (foreign.is_death(raised.value), foreign.is_timeout(raised.value)) == (dies, not dies)


def test_without_the_table_of_collation_batches_come_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(default_collate_fn_map, pp.PackedBatch)
    monkeypatch.setitem(sys.modules, "torch.utils.data._utils.collate", None)
    foreign.collate_with(pp.PackedBatch, shared_batch._refuse_to_stack)
    samples = [pp.Sample(str(i), picture) for i, picture in enumerate(PICTURES)]
    batches = list(pp.load(samples, RECIPE, tail="pad"))
    for one, other in zip(batches, DataLoader(batches, batch_size=None), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(one.patches, other.patches)
