"""A pool of shared memory: a slot comes back when nothing shows any of it, and not before."""

from __future__ import annotations

import io
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.collate import default_convert
from torch.utils.data._utils.pin_memory import pin_memory

import patchpack as pp
from patchpack.paint.painter import blank, paint
from patchpack.stream.workers.shared_batch import SharedBatch, unwrap, wrap
from patchpack.stream.workers.slot_pool import SlotPool, shared_bytes, slot_bytes_of
from patchpack.types import BatchPlan

VIEWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "itself": lambda t: t,
    "row": lambda t: t[1],
    "slice": lambda t: t[3:5],
    "element": lambda t: t[7, 2],
    "other shape": lambda t: t.reshape(-1),
    "other dtype": lambda t: t.view(torch.int16),
    "transposed": lambda t: t.T,
    "detached": lambda t: t.detach(),
    "storage": lambda t: t.untyped_storage(),
    "numpy": lambda t: t.numpy(),
    "row of numpy": lambda t: t.numpy()[1],
    "numpy of row": lambda t: t[1].numpy(),
    "numpy by asarray": lambda t: np.asarray(t)[2:].reshape(-1)[1:],
    "memory view": lambda t: memoryview(t.numpy())[2:],
    "dlpack": lambda t: np.from_dlpack(t[2:]),
    "tensor of numpy of tensor": lambda t: torch.from_numpy(t[2:].numpy())[1:],
    "saved for backward": lambda t: torch.ones(1, requires_grad=True) * t[0].view(torch.float32),
}
COPIES: dict[str, Callable[[torch.Tensor], Any]] = {
    "clone": lambda t: t[1].clone(),
    "list": lambda t: t.tolist(),
    "other dtype": lambda t: t.float(),
    "copy of numpy": lambda t: t.numpy().copy(),
    "nothing": lambda t: None,
}


def crossed(sent: Any) -> Any:
    """What arrives, as a queue between processes sends it."""
    return ForkingPickler.loads(ForkingPickler.dumps(sent))


def arrival(pool: SlotPool, number: int, value: int, num_bytes: int = 40) -> torch.Tensor:
    """A slot that a worker has filled with one value."""
    slot = pool.slot(number)
    slot.memory[:] = value
    slot.num_bytes = num_bytes
    tensor: torch.Tensor = crossed(slot)
    return tensor


def test_what_is_written_into_a_slot_arrives_without_a_copy() -> None:
    pool = SlotPool(2, 40)
    number = pool.take()
    assert number is not None
    tensor = arrival(pool, number, 7)
    assert tensor.dtype == torch.uint8
    assert tensor.tolist() == [7] * 40
    pool.slot(number).memory[3] = 9
    assert tensor[3] == 9


def test_slots_do_not_overlap() -> None:
    pool = SlotPool(3, 5000)
    numbers = [pool.take() for _ in range(3)]
    assert sorted(numbers) == [0, 1, 2]
    assert pool.take() is None
    tensors = [arrival(pool, number, number + 1, 5000) for number in numbers]
    for number, tensor in zip(numbers, tensors, strict=True):
        assert (tensor == number + 1).all()


@pytest.mark.parametrize("view", VIEWS)
def test_a_slot_is_held_by_whatever_shows_it(view: str) -> None:
    pool = SlotPool(1, 40)
    tensor = arrival(pool, pool.take(), 5).reshape(10, 4)
    held = VIEWS[view](tensor)
    del tensor
    assert pool.take() is None
    del held
    assert pool.take() == 0


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_holds_no_slot(copy: str) -> None:
    pool = SlotPool(1, 40)
    tensor = arrival(pool, pool.take(), 5).reshape(10, 4)
    kept = COPIES[copy](tensor)
    del tensor
    assert pool.take() == 0
    del kept
    assert pool.take() is None  # not given back twice


def test_the_last_slot_back_goes_first() -> None:
    pool = SlotPool(3, 40)
    first, second = pool.take(), pool.take()
    del second
    arrival(pool, first, 1)
    assert pool.take() == first


def test_only_what_did_not_arrive_is_recalled() -> None:
    pool = SlotPool(3, 40)
    lost, held, gone = pool.take(), pool.take(), pool.take()
    tensor = arrival(pool, held, 1)
    arrival(pool, gone, 1)
    pool.recall()
    assert sorted([pool.take(), pool.take()]) == sorted([lost, gone])
    assert pool.take() is None
    assert (tensor == 1).all()


def test_what_arrives_after_it_was_recalled_is_not_looked_at() -> None:
    pool = SlotPool(2, 40)
    number = pool.take()
    pool.recall()
    assert arrival(pool, number, 1).numel() == 0
    assert sorted([pool.take(), pool.take()]) == [0, 1]  # and the slot is not free twice
    assert pool.take() is None


def test_memory_outlives_its_ring_as_long_as_it_is_held() -> None:
    pool = SlotPool(2, 40)
    first, second = pool.take(), pool.take()
    tensor, late = arrival(pool, first, 3), pool.slot(second)
    del pool
    assert (tensor == 3).all()
    assert crossed(late).numel() == 0  # nobody waits for it


def test_a_ring_in_another_process_is_the_memory_alone() -> None:
    pool = SlotPool(2, 40)
    number = pool.take()
    state = pool.__getstate__()
    theirs = SlotPool.__new__(SlotPool)
    theirs.__dict__.update(state)
    theirs.slot(number).memory[:] = 8
    assert arrival(pool, number, 8)[0] == 8
    assert not hasattr(theirs, "_free")


# ---------------------------------------------------------------------------------------------------- batches in slots


def noise(seed: int, height: int, width: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def plans(recipe: pp.Recipe, target: Callable[[int], Any] = int) -> tuple[list[BatchPlan], Any]:
    """Pictures of several sizes, the fourth without its end: its header is fine."""
    sizes = [(50, 70), (64, 64), (30, 91), (77, 33), (120, 40), (33, 33), (47, 101)]
    samples = [pp.Sample(f"s{i}", noise(i, *size)[: -900 if i == 3 else None], target(i)) for i, size in enumerate(sizes)]
    planner = pp.Planner(samples, recipe)
    return list(planner), planner.source.reader


RECIPES = {
    "navit": pp.recipes.navit(seq_len=64, resize=pp.resize.NaViT((16, 64)), rows_per_batch=2, max_images=5),
    "naflex": pp.recipes.siglip2_naflex(max_patches=64, seq_len=150, rows_per_batch=2),
    "float32": pp.recipes.siglip2_naflex(max_patches=64, seq_len=150, rows_per_batch=2, dtype="float32"),
    "float16": pp.recipes.siglip2_naflex(
        max_patches=64, seq_len=150, rows_per_batch=2, dtype="float16", drop=pp.drop.Beta(0.5, 0.9)
    ),
    "pix2struct": pp.recipes.pix2struct(max_patches=64, seq_len=150, rows_per_batch=2),
    "qwen2_vl": pp.recipes.qwen2_vl(max_pixels=28**2 * 64, seq_len=500, rows_per_batch=2),
    "flexivit": pp.recipes.flexivit(size=48, patch_size=(16, 12, 8, 6, 4), rows_per_batch=3),
    "through Pillow": pp.recipes.square(size=64, resample="lanczos", rows_per_batch=3),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and not isinstance(other, dict):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return torch.from_numpy(one).dtype == other.dtype and one.tobytes() == other.numpy().tobytes()
    return bool(one == other)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_a_slot_held_before_does_not_show(recipe: pp.Recipe) -> None:
    """Padding, pixels beyond the target, places of pictures that cannot be read: all of it is written."""
    made, reader = plans(recipe)
    pool, rejected = SlotPool(1, slot_bytes_of(recipe)), 0
    for plan in made:
        clean = blank(plan, recipe)
        clean.patches[...] = 0
        expected = paint(plan, recipe, reader, clean)
        rejected += len(expected.info.rejections)
        for dirt in (0xA5, 0xFF):
            number = pool.take()
            assert number is not None
            slot = pool.slot(number)
            slot.memory[:] = dirt
            sent, inside = wrap(blank(plan, recipe), slot)
            assert not any(isinstance(field, np.ndarray) for field in sent.batch)  # there is room for everything
            paint(plan, recipe, reader, inside)
            arrived = unwrap(crossed(default_convert(sent)))
            assert all(map(same, expected, arrived))
            del arrived
    assert rejected == 1


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_painting_alone_writes_every_patch(recipe: pp.Recipe) -> None:
    made, reader = plans(recipe)
    for plan in made:
        painted = []
        for dirt in (0x00, 0xA5):
            batch = blank(plan, recipe)
            batch.patches.view(np.uint8)[...] = dirt
            painted.append(paint(plan, recipe, reader, batch).patches.tobytes())
        assert painted[0] == painted[1]


def test_who_keeps_the_targets_holds_no_slot() -> None:
    (plan, *_), _ = plans(RECIPES["navit"])
    pool = SlotPool(1, slot_bytes_of(RECIPES["navit"]))
    sent, _ = wrap(blank(plan, RECIPES["navit"]), pool.slot(pool.take()))
    arrived = unwrap(crossed(default_convert(sent)))
    del sent
    assert pool.take() is None
    arrived = arrived._replace(patches=None)
    assert pool.take() == 0


def test_targets_that_a_slot_has_no_room_for_travel_beside() -> None:
    recipe = RECIPES["navit"]
    (plan, *_), reader = plans(recipe, lambda i: {"class": i, "map": np.full(4000, i + 0.5, dtype=np.float32)})
    pool = SlotPool(1, slot_bytes_of(recipe))
    sent, inside = wrap(blank(plan, recipe), pool.slot(pool.take()))
    expected = paint(plan, recipe, reader, blank(plan, recipe))
    paint(plan, recipe, reader, inside)
    assert isinstance(sent.batch.targets["map"], np.ndarray)
    arrived = unwrap(crossed(default_convert(sent)))
    assert all(map(same, expected, arrived))


def test_a_pinned_copy_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nothing can be pinned, so the walk is what is tested here."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *args: tensor.clone())
    recipe = RECIPES["navit"]
    (plan, *_), reader = plans(recipe)
    pool = SlotPool(1, slot_bytes_of(recipe))
    sent, inside = wrap(blank(plan, recipe), pool.slot(pool.take()))
    paint(plan, recipe, reader, inside)
    pinned = pin_memory(crossed(default_convert(sent)))
    assert isinstance(pinned, SharedBatch)
    assert pool.take() == 0
    pool.slot(0).memory[:] = 0xA5
    assert all(map(same, paint(plan, recipe, reader), unwrap(pinned)))


def test_shared_memory_that_is_full_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    with pytest.raises(pp.errors.ConfigError, match=r"has no 2\.0 MiB free .*No space left on device.*enlarge /dev/shm"):
        shared_bytes(2 << 20)
