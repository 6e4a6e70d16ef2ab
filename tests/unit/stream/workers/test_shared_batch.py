"""A batch between two processes: what goes in comes out, in one tensor, and keeps no more than it has to."""

from __future__ import annotations

import os
import shutil
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data._utils.collate import default_convert
from torch.utils.data._utils.pin_memory import pin_memory

import patchpack as pp
from patchpack.paint.painter import blank, paint
from patchpack.stream.painting import in_workers
from patchpack.stream.workers.shared_batch import SharedBatch, unwrap, wrap
from patchpack.stream.workers.slot_pool import SPARE, slot_bytes_of
from patchpack.types import BatchPlan

TARGETS: dict[str, Any] = {
    "none": lambda i: None,
    "class": lambda i: i,
    "score": lambda i: i / 2,
    "vector": lambda i: np.arange(3.0) + i,
    "several": lambda i: {"class": i, "box": [0.0, 1.0, 2.0, i]},
    "object": lambda i: f"caption {i}",
}
RECIPE = pp.recipes.navit(seq_len=64, resize=pp.resize.NaViT((16, 64)), rows_per_batch=2, max_images=5)


def plan_of(target: Any, recipe: pp.Recipe = RECIPE) -> tuple[BatchPlan, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    planner = pp.Planner([pp.Sample(f"s{i}", pixels, target(i)) for i in range(6)], recipe)
    return next(iter(planner)), planner.source.reader


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, np.ndarray):
        assert other.dtype == torch.from_numpy(one).dtype
        assert one.tobytes() == other.numpy().tobytes()
        assert tuple(other.shape) == one.shape
    else:
        assert one == other


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_painted_inside_comes_out_as_it_is_painted_alone(target: str, dtype: Any) -> None:
    recipe = RECIPE.replace(dtype=dtype)
    plan, reader = plan_of(TARGETS[target], recipe)
    shared, inside = wrap(blank(plan, recipe))
    paint(plan, recipe, reader, inside)
    sent = default_convert(shared)  # as torch's loader does in the worker
    assert isinstance(sent, SharedBatch)
    arrived = unwrap(sent)
    for name, one, other in zip(arrived._fields, paint(plan, recipe, reader), arrived, strict=True):
        assert_equal(one, other), name


def test_an_empty_batch_can_be_sent() -> None:
    plan, _ = plan_of(TARGETS["class"])
    nothing = blank(plan.take_rows([]), RECIPE)
    arrived = unwrap(wrap(nothing)[0])
    assert [tuple(field.shape) for field in arrived[:7]] == [field.shape for field in nothing[:7]]
    assert arrived.norm.tolist() == nothing.norm.tolist()


def test_who_keeps_the_targets_keeps_no_pixels() -> None:
    plan, _ = plan_of(TARGETS["class"])
    shared, _ = wrap(blank(plan, RECIPE))
    arrived = unwrap(shared)
    assert arrived.patches.data_ptr() == shared.shared.data_ptr()  # not copied
    for field in arrived[1:9]:
        assert field.untyped_storage().nbytes() < 0.1 * shared.shared.untyped_storage().nbytes()


def test_a_pinned_batch_is_unwrapped_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nothing can be pinned, so the walk is what is tested here."""
    pinned: list[int] = []

    def pin(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        pinned.append(tensor.numel())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
    plan, reader = plan_of(TARGETS["several"])
    shared, inside = wrap(blank(plan, RECIPE))
    expected = paint(plan, RECIPE, reader, inside)
    arrived = unwrap(pin_memory(default_convert(shared)))
    assert len(pinned) == 2  # the whole, and the small part that is copied out of it
    for one, other in zip(expected, arrived, strict=True):
        assert_equal(one, other)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="counts this process's open files in /proc, which only Linux has"
)
def test_holding_batches_takes_one_file_descriptor_each() -> None:
    before = len(os.listdir("/proc/self/fd"))
    held = list(pp.load(pp.samples.shards("train"), pp.recipes.navit(seq_len=256, rows_per_batch=1), num_workers=2))
    assert len(held) > 50
    assert len(os.listdir("/proc/self/fd")) - before <= len(held) + 20


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="memory is shared otherwise here")
def test_too_little_shared_memory_is_named_before_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    num_bytes = slot_bytes_of(RECIPE)
    assert 2 * 64 * 768 < num_bytes < 1.1 * 2 * 64 * 768  # rows, tokens, bytes of a patch
    loader = pp.load(pp.samples.shards("val"), RECIPE, num_workers=2, dataloader={"prefetch_factor": 3})
    room = SimpleNamespace(free=9 * num_bytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    with pytest.raises(pp.errors.ConfigError, match=r"/dev/shm has 0 MiB free, but 9 batches of 0\.1 MiB may be in flight"):
        next(iter(loader))
    room.free += 1
    assert len(list(loader)) > 1
    room.free = 0
    assert len(list(pp.load(pp.samples.shards("val"), RECIPE, num_threads=2))) > 1


def test_float_patches_of_several_sizes_are_counted_at_their_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(in_workers, "require_room", lambda *numbers: asked.append(numbers))
    recipe = RECIPE.replace(rows_per_batch=3, dtype="float16", patch_size=(8, 32, 16), resize=pp.resize.NaFlex(64))
    list(pp.load(pp.samples.shards("val"), recipe, num_workers=1))
    ((num_bytes, batches),) = asked
    pixels = 2 * 3 * 64 * 3 * 32 * 32
    assert pixels < num_bytes < 1.1 * pixels
    assert batches == 2 + SPARE  # under way and at hand
