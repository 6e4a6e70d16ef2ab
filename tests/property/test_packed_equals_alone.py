"""What packing promises: an image's answer is its own, wherever it was put and whatever lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchpack.batch.packed import PackedBatch
from patchpack.batch_info import BatchInfo
from patchpack.model import ViT, cross_entropy
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.waves import FourierPositions

PATCH_SIZE, CLASSES, MAX_LEN = 2, 3, 5
D = PATCH_SIZE * PATCH_SIZE * 3
PLAIN = BlockStyle(bias=False, qk_norm=True)
GRID = {"grid": (3, 2), "width": 8, "how": CONVENTIONS["timm"]}
# every attention backend, each with other parts; `test_every_kind_of_model` has all of them together
MODELS: dict[str, dict[str, Any]] = {
    "bucketed": {"positions": lambda: FactorizedPositions(width=8, max_len=MAX_LEN), "style": PLAIN},
    "loop": {"positions": lambda: None, "rope": 10.0, "pool": "mean", "registers": 2},
    "dense": {"positions": lambda: GridPositions(**GRID), "pool": "class", "class_token": True, "registers": 1},
    "static": {"positions": lambda: FourierPositions(width=8), "class_token": True, "norm": "after"},
}

pytestmark = pytest.mark.parametrize("attention", MODELS)


class Image(NamedTuple):
    patches: Tensor  # float64 [n, D]
    position_ids: Tensor  # int32 [n, 2], raster order, some dropped
    grid: tuple[int, int]
    target: int
    readable: bool


Rows = list[list[Image]]


@st.composite
def images(draw: st.DrawFn) -> Image:
    grid = (draw(st.integers(1, MAX_LEN)), draw(st.integers(1, MAX_LEN)))
    num_patches = grid[0] * grid[1]
    kept = sorted(draw(st.sets(st.integers(0, num_patches - 1), min_size=1)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    patches = torch.randn(len(kept), D, generator=random, dtype=torch.float64)
    position_ids = torch.tensor([divmod(index, grid[1]) for index in kept], dtype=torch.int32)
    readable = draw(st.sampled_from([True, True, True, False]))
    return Image(patches, position_ids, grid, draw(st.integers(0, CLASSES - 1)), readable)


def packings() -> st.SearchStrategy[Rows]:
    """Rows of images; rows may be empty, and some images were not readable when their turn came."""
    return st.lists(st.lists(images(), max_size=4), min_size=1, max_size=3)


def pack(rows: Rows, *, spare_tokens: int = 0, spare_slots: int = 0) -> PackedBatch:
    """Images end to end in their rows; an unreadable one leaves a gap of padding."""
    seq_len = max(sum(len(image.patches) for image in row) for row in rows) + spare_tokens
    max_images = max(len(row) for row in rows) + spare_slots
    patches = torch.zeros(len(rows), seq_len, D, dtype=torch.float64)
    position_ids = torch.zeros(len(rows), seq_len, 2, dtype=torch.int32)
    segment_ids = torch.zeros(len(rows), seq_len, dtype=torch.int32)
    grid_sizes = torch.zeros(len(rows), max_images, 2, dtype=torch.int32)
    slot_mask = torch.zeros(len(rows), max_images, dtype=torch.bool)
    targets = torch.full((len(rows), max_images), -100)
    for b, row in enumerate(rows):
        stop = 0
        for slot, image in enumerate(row):
            start, stop = stop, stop + len(image.patches)
            if image.readable:
                patches[b, start:stop] = image.patches
                position_ids[b, start:stop] = image.position_ids
                segment_ids[b, start:stop] = slot + 1
                grid_sizes[b, slot] = torch.tensor(image.grid)
                slot_mask[b, slot] = True
                targets[b, slot] = image.target
    return PackedBatch(
        patches=patches, position_ids=position_ids, segment_ids=segment_ids,
        num_images=torch.tensor([len(row) for row in rows], dtype=torch.int32), grid_sizes=grid_sizes,
        source_sizes=grid_sizes * PATCH_SIZE, slot_mask=slot_mask, targets=targets,
        norm=torch.tensor([[0.0] * 3, [1.0] * 3]), keys=[[""] * len(row) for row in rows], patch_size=PATCH_SIZE,
        info=BatchInfo(),
    )  # fmt: skip


def readable_images(rows: Rows) -> Iterator[tuple[int, int, Image]]:
    for b, row in enumerate(rows):
        for slot, image in enumerate(row):
            if image.readable:
                yield b, slot, image


@cache
def model(attention: str, parts_of: str | None = None) -> ViT:
    """A small model whose every parameter matters: scales off 1, nothing at zero."""
    parts = dict(MODELS[parts_of or attention])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = ViT(
            patch_size=PATCH_SIZE, width=8, depth=2, heads=2, num_classes=CLASSES, positions=parts.pop("positions")(),
            attention="auto" if attention == "static" else attention, static=attention == "static", **parts,
        ).double()  # fmt: skip
        for parameter in built.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return built


def assert_same(answer: Tensor | list[Tensor], expected: Tensor | list[Tensor]) -> None:
    torch.testing.assert_close(answer, expected, rtol=1e-10, atol=1e-10)


def gradients(net: ViT, scalar: Tensor) -> list[Tensor]:
    """One per parameter; torch raises if a parameter is not reached."""
    return list(torch.autograd.grad(scalar, list(net.parameters())))


def answer_weights(batch: PackedBatch, targets: Tensor) -> Tensor:
    """Any fixed weighting of logits that differs from image to image: here, by target."""
    return (targets[:, :, None] + torch.arange(1.0, CLASSES + 1)).cos().double() * batch.slot_mask[:, :, None]


@given(rows=packings(), spare_tokens=st.integers(0, 5), spare_slots=st.integers(0, 3))
def test_packed_equals_alone(rows: Rows, spare_tokens: int, spare_slots: int, attention: str) -> None:
    net = model(attention)
    batch = pack(rows, spare_tokens=spare_tokens, spare_slots=spare_slots)
    packed = net(batch)
    packed_gradients = gradients(net, (packed * answer_weights(batch, batch.targets)).sum())

    alone_gradients = [torch.zeros_like(parameter) for parameter in net.parameters()]
    for b, slot, image in readable_images(rows):
        alone_batch = pack([[image]])
        alone = net(alone_batch)
        assert_same(packed[b, slot], alone[0, 0])
        own = gradients(net, (alone * answer_weights(alone_batch, alone_batch.targets)).sum())
        alone_gradients = [total + part for total, part in zip(alone_gradients, own, strict=True)]
    assert_same(packed_gradients, alone_gradients)


@given(rows=packings(), spare_tokens=st.integers(1, 5), junk=st.sampled_from([1e6, torch.nan, torch.inf, -torch.inf]))
def test_padding_is_inert(rows: Rows, spare_tokens: int, junk: float, attention: str) -> None:
    net = model(attention)
    clean = pack(rows, spare_tokens=spare_tokens)
    padding = clean.segment_ids == 0
    dirty = clean._replace(
        patches=torch.where(padding[:, :, None], junk, clean.patches),
        position_ids=torch.where(padding[:, :, None], 10**6, clean.position_ids),
    )
    outputs, dirty_outputs = net(clean), net(dirty)
    assert torch.equal(outputs, dirty_outputs)
    pairs = zip(gradients(net, outputs.sum()), gradients(net, dirty_outputs.sum()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@given(rows=packings(), spare_slots=st.integers(0, 3))
def test_empty_slots_are_zero_and_give_no_gradient(rows: Rows, spare_slots: int, attention: str) -> None:
    net = model(attention)
    batch = pack(rows, spare_slots=spare_slots)
    features, logits = net.features(batch), net(batch)
    assert torch.isfinite(features).all()
    assert not features[~batch.slot_mask].any()
    assert not logits[~batch.slot_mask].any()
    assert features[batch.slot_mask].any(-1).all()
    assert not any(gradient.any() for gradient in gradients(net, logits[~batch.slot_mask].sum()))


@given(rows=packings(), data=st.data())
def test_permuting_images_permutes_outputs(rows: Rows, data: st.DataObject, attention: str) -> None:
    net = model(attention)
    orders = [data.draw(st.permutations(range(len(row)))) for row in rows]
    outputs = net(pack(rows))
    permuted = net(pack([[row[slot] for slot in order] for row, order in zip(rows, orders, strict=True)]))
    for b, order in enumerate(orders):
        assert_same(permuted[b, : len(order)], outputs[b, order])


@given(rows=packings(), seed=st.integers(0, 2**32))
def test_order_of_tokens_in_a_row_does_not_matter(rows: Rows, seed: int, attention: str) -> None:
    """Not inside an image, and not even with images interleaved: a token is where its ids say it is."""
    net = model(attention)
    batch = pack(rows)
    shuffle = torch.randperm(batch.segment_ids.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = batch._replace(
        patches=batch.patches[:, shuffle],
        position_ids=batch.position_ids[:, shuffle],
        segment_ids=batch.segment_ids[:, shuffle],
    )
    assert_same(net(shuffled), net(batch))


@given(rows=packings(), spare_slots=st.integers(0, 3))
def test_loss_is_the_mean_over_images(rows: Rows, spare_slots: int, attention: str) -> None:
    net = model(attention)
    batch = pack(rows, spare_slots=spare_slots)
    alone = [pack([[image]]) for _, _, image in readable_images(rows)]
    losses = [cross_entropy(net(one), one.targets) for one in alone]
    mean = torch.stack(losses).mean() if losses else torch.zeros((), dtype=torch.float64)
    assert_same(cross_entropy(net(batch), batch.targets), mean)


@given(rows=packings(), spare_tokens=st.integers(0, 5), spare_slots=st.integers(0, 3))
def test_every_backend_gives_the_same_numbers(rows: Rows, spare_tokens: int, spare_slots: int, attention: str) -> None:
    batch = pack(rows, spare_tokens=spare_tokens, spare_slots=spare_slots)
    answers = []
    for net in (model(attention), model("bucketed", parts_of=attention)):
        logits = net(batch)
        loss = cross_entropy(logits, batch.targets, reduction="sum")
        answers.append([logits, loss, *gradients(net, loss)])
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-11, atol=1e-11)
