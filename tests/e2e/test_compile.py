"""Batches of equal shape, one compiled graph: twenty training steps on packed rows that hold different images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import patchpack as pp
from patchpack.model import NaViT, ViT, cross_entropy

STEPS = 20
# few slots and a greedy packer, so that rows end in padding; the packer that looks ahead would fill every row of 128 tokens
RECIPE = pp.recipes.navit(
    resize=pp.resize.NaViT((48, 128)), seq_len=128, max_images=10, rows_per_batch=2, packer=pp.packing.FirstFit()
)
# traces, guards and differentiates as every backend does; only kernels are not generated, which takes half a minute
BACKEND = "aot_eager"


@pytest.fixture(scope="module")
def batches() -> list[pp.PackedBatch]:
    return list(pp.load(pp.samples.shards("train"), RECIPE, steps_per_epoch=STEPS))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def make_model(*, static: bool = True, depth: int = 2) -> NaViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NaViT(patch_size=16, width=32, depth=depth, heads=2, num_classes=10, static=static)


def compiled(model: NaViT, backend: str = BACKEND) -> Callable[[pp.PackedBatch], Tensor]:
    forward: Callable[[pp.PackedBatch], Tensor] = torch.compile(model, fullgraph=True, backend=backend)
    return forward


def train(model: NaViT, forward: Callable[[pp.PackedBatch], Tensor], batches: list[pp.PackedBatch]) -> Iterator[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in batches:
        loss = cross_entropy(forward(batch), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_the_batches_have_one_shape_and_differ_in_everything_else(batches: list[pp.PackedBatch]) -> None:
    assert len(batches) == STEPS
    assert {tuple(batch.patches.shape) for batch in batches} == {(2, 128, 768)}
    assert len({int(batch.slot_mask.sum()) for batch in batches}) > 5
    assert len({str(batch.keys) for batch in batches}) == len({str(batch.info) for batch in batches}) == STEPS
    assert any((batch.segment_ids == 0).any() for batch in batches)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("backend", "count", "depth"), [("eager", 6, 1), pytest.param(BACKEND, STEPS, 2, marks=pytest.mark.slow)]
)
def test_training_steps_compile_once(backend: str, count: int, depth: int, batches: list[pp.PackedBatch]) -> None:
    """Compile with a backend that only traces and guards in the fast tier."""
    plain = make_model(static=False, depth=depth)
    expected = list(train(plain, plain, batches[:count]))

    model = make_model(depth=depth)
    steps = train(model, compiled(model, backend), batches[:count])
    losses = [next(steps)]
    torch.compiler.set_stance("fail_on_recompile")
    losses += steps

    assert expected[-1] != expected[0]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow
def test_a_short_batch_would_compile_anew(batches: list[pp.PackedBatch]) -> None:
    """What the test above relies on: a second graph is an error."""
    forward = compiled(make_model())
    forward(batches[0])
    torch.compiler.set_stance("fail_on_recompile")
    short = pp.PackedBatch(*(value[:1] if name in TENSORS else value for name, value in batches[1]._asdict().items()))
    with pytest.raises(RuntimeError, match="recompile"):
        forward(short)


TENSORS = ("patches", "position_ids", "segment_ids", "num_images", "grid_sizes", "source_sizes", "slot_mask", "targets")


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow
def test_junk_in_padding_stays_out_of_a_compiled_step(batches: list[pp.PackedBatch]) -> None:
    batch = next(batch for batch in batches if (batch.segment_ids == 0).any())
    clean = pp.standardize(batch.to("cpu"))
    padding = (clean.segment_ids == 0)[:, :, None]
    dirty = clean._replace(
        patches=torch.where(padding, torch.nan, clean.patches),
        position_ids=torch.where(padding, 10**6, clean.position_ids),
    )

    def gradients(model: NaViT, forward: Callable[[pp.PackedBatch], Tensor], batch: pp.PackedBatch) -> list[Tensor]:
        return list(torch.autograd.grad(cross_entropy(forward(batch), batch.targets), list(model.parameters())))

    model, plain = make_model(), make_model(static=False)
    torch.testing.assert_close(gradients(model, compiled(model), dirty), gradients(plain, plain, clean))


def test_static_ragged_has_the_same_shapes_for_every_batch(batches: list[pp.PackedBatch]) -> None:
    forms = [pp.ragged(batch, static=True) for batch in batches]
    assert {form.max_seqlen for form in forms} == {128}
    for name in ("patches", "position_ids", "cu_seqlens", "places"):
        assert len({(tuple(getattr(form, name).shape), getattr(form, name).dtype) for form in forms}) == 1
    assert forms[0].patches.shape == (2 * 128, 768)
    assert forms[0].cu_seqlens.shape == (2 * 10 + 2 + 1,)
    assert len({len(pp.ragged(batch).cu_seqlens) for batch in batches}) > 5


@pytest.mark.parametrize("tail", ["drop", "pad", "wrap"])
def test_one_pass_keeps_its_shape_if_the_tail_is_not_short(tail: str) -> None:
    recipe = RECIPE.replace(rows_per_batch=5)
    shapes = {tuple(batch.patches.shape) for batch in pp.load(pp.samples.shards("val"), recipe, tail=tail)}
    assert shapes == {(5, 128, 768)}
    assert len({len(batch.keys) for batch in pp.load(pp.samples.shards("val"), recipe)}) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "parts",
    [{"class_token": True, "registers": 2, "pool": "class"}, {"registers": 1, "pool": "mean"}, {"rope": 100.0}],
    ids=["class", "mean", "rope"],
)
def test_every_part_compiles_as_one_graph(parts: dict[str, Any], batches: list[pp.PackedBatch]) -> None:
    torch.manual_seed(0)
    model = ViT(width=32, depth=2, heads=2, num_classes=10, static=True, **parts)
    torch.testing.assert_close(compiled(model)(batches[0]), model(batches[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # by the model that is not
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own way through a mask
def test_flex_attention_compiles_with_the_model(batches: list[pp.PackedBatch]) -> None:
    """Forward only: on CPU it has no gradient."""
    torch.manual_seed(0)
    model = ViT(width=32, depth=2, heads=2, num_classes=10, static=True, attention="flex")
    with torch.no_grad():
        torch.testing.assert_close(compiled(model)(batches[0]), model(batches[0]))
