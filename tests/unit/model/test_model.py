"""The parts of the reference model, on cases small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patchpack.batch.packed import PackedBatch
from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError, ShapeError
from patchpack.model import NaViT, cross_entropy, sigmoid_cross_entropy
from patchpack.model.attention import bucketed, dense, flex, loop
from patchpack.model.block import Block, BlockStyle
from patchpack.model.embed import PatchEmbed
from patchpack.model.layout import Layout
from patchpack.model.pool import AttentionPool, segment_softmax
from patchpack.model.positions import FactorizedPositions
from patchpack.model.static import StaticLayout

# an unreadable image in the middle of the first row, nothing at all in the second, two slots swapped in the third
SEGMENT_IDS = torch.tensor([[1, 1, 0, 0, 3, 3, 0], [0] * 7, [2, 2, 2, 1, 0, 0, 0]], dtype=torch.int32)
NAVIT = BlockStyle(bias=False, qk_norm=True)
GRIDS = {(0, 0): (1, 2), (0, 2): (2, 1), (2, 0): (1, 1), (2, 1): (1, 3)}
MAX_IMAGES = 4


def make_batch(segment_ids: Tensor = SEGMENT_IDS) -> PackedBatch:
    random = torch.Generator().manual_seed(0)
    rows, seq_len = segment_ids.shape
    real = (segment_ids > 0)[:, :, None]
    patches = torch.randint(0, 256, (rows, seq_len, 12), generator=random, dtype=torch.uint8)
    grid_sizes = torch.zeros(rows, MAX_IMAGES, 2, dtype=torch.int32)
    targets = torch.full((rows, MAX_IMAGES), -100)
    for (row, slot), grid in GRIDS.items():
        if (segment_ids[row] == slot + 1).any():
            grid_sizes[row, slot] = torch.tensor(grid)
            targets[row, slot] = row + slot
    return PackedBatch(
        patches=patches * real,
        position_ids=torch.randint(0, 3, (rows, seq_len, 2), generator=random, dtype=torch.int32) * real,
        segment_ids=segment_ids,
        num_images=segment_ids.amax(1),
        grid_sizes=grid_sizes,
        source_sizes=grid_sizes * 2,
        slot_mask=grid_sizes[:, :, 0] > 0,
        targets=targets,
        norm=torch.tensor([[123.0, 116.0, 103.0], [58.0, 57.0, 60.0]]),
        keys=[[], [], []],
        patch_size=2,
        info=BatchInfo(),
    )


def make_model(**changes: object) -> NaViT:
    arguments = {"patch_size": 2, "width": 8, "depth": 2, "heads": 2, "num_classes": 5, "max_len": 4} | changes
    if arguments.get("attention") == "static":
        arguments |= {"attention": "auto", "static": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NaViT(**arguments)


# --- layout


def test_layout_by_hand() -> None:
    layout = Layout.of(SEGMENT_IDS, MAX_IMAGES)
    # shortest image first: row 2 slot 0, then row 0 slots 0 and 2, then row 2 slot 1
    assert layout.slots.tolist() == [8, 0, 2, 9]
    assert layout.lengths.tolist() == [1, 2, 2, 3]
    assert layout.tokens.tolist() == [17, 0, 1, 4, 5, 14, 15, 16]
    assert layout.images.tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    assert layout.cu_seqlens.tolist() == [0, 1, 3, 5, 8]
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.buckets == [(1, 1), (2, 2), (1, 3)]
    assert layout.num_images == 4


def test_layout_there_and_back() -> None:
    layout = Layout.of(SEGMENT_IDS, MAX_IMAGES)
    rows = torch.arange(21).view(3, 7)
    assert torch.equal(layout.to_rows(layout.to_ragged(rows)), rows * (SEGMENT_IDS > 0))
    assert layout.to_slots(layout.lengths).tolist() == [[2, 0, 2, 0], [0, 0, 0, 0], [1, 3, 0, 0]]


def test_layout_of_nothing() -> None:
    layout = Layout.of(torch.zeros(2, 3, dtype=torch.int32), MAX_IMAGES)
    assert layout.num_images == 0
    assert layout.cu_seqlens.tolist() == [0]
    assert layout.buckets == [(0, 1)]


@pytest.mark.parametrize("kind", [Layout, StaticLayout])
@pytest.mark.parametrize("segment_ids", [[[1, 5]], [[-1, 1]], [1, 2]], ids=["beyond_slots", "negative", "not_rows"])
def test_layout_refuses(segment_ids: list[object], kind: type[Layout] | type[StaticLayout]) -> None:
    with pytest.raises(ShapeError, match="segment_ids must be"):
        kind.of(torch.tensor(segment_ids, dtype=torch.int32), MAX_IMAGES)


def test_static_layout_by_hand() -> None:
    layout = StaticLayout.of(SEGMENT_IDS, MAX_IMAGES)
    # slots count through the rows; padding is image 12, after the last slot
    first, third = [0, 0, 12, 12, 2, 2, 12], [9, 9, 9, 8, 12, 12, 12]
    assert layout.images.tolist() == [*first, *[12] * 7, *third]
    assert layout.num_images == 13
    assert layout.used.tolist() == [[True, False, True, False], [False] * 4, [True, True, False, False]]
    assert layout.same_image.shape == (3, 1, 7, 7)
    assert layout.same_image[0, 0, 2].tolist() == [False, False, True, True, False, False, True]


def test_static_layout_there_and_back() -> None:
    layout = StaticLayout.of(SEGMENT_IDS, MAX_IMAGES)
    rows = torch.arange(1, 22).view(3, 7)
    real = rows * (SEGMENT_IDS > 0)
    assert torch.equal(layout.to_ragged(rows), real.flatten())
    assert torch.equal(layout.to_rows(rows.flatten()), real)
    assert layout.to_slots(torch.arange(1, 14)).tolist() == [[1, 0, 3, 0], [0, 0, 0, 0], [9, 10, 0, 0]]


def test_static_layout_keeps_dtypes_and_leaves_nan_behind() -> None:
    layout = StaticLayout.of(SEGMENT_IDS, MAX_IMAGES)
    assert layout.to_ragged(torch.ones(3, 7, 2, dtype=torch.uint8)).dtype == torch.uint8
    broken = torch.full((3, 7, 2), torch.nan, requires_grad=True)
    ragged = layout.to_ragged(broken)
    assert not ragged[layout.images == 12].any()
    ragged.sum().backward()
    assert torch.equal(broken.grad, (SEGMENT_IDS > 0)[:, :, None].expand(3, 7, 2).float())


def test_static_layout_without_padding() -> None:
    model, static = make_model(), make_model(static=True)
    batch = make_batch()
    batch = batch._replace(
        segment_ids=batch.segment_ids[:1, [0, 1, 4, 5]], patches=batch.patches[:1, [0, 1, 4, 5]],
        position_ids=batch.position_ids[:1, [0, 1, 4, 5]], grid_sizes=batch.grid_sizes[:1], slot_mask=batch.slot_mask[:1],
    )  # fmt: skip
    torch.testing.assert_close(static(batch), model(batch))


def test_many_short_images_make_a_handful_of_buckets() -> None:
    lengths = torch.arange(300) % 7 + 1
    segment_ids = torch.repeat_interleave(torch.arange(1, 301), lengths)[None]
    assert len(Layout.of(segment_ids, 300).buckets) == 7


# --- embed


def test_pixels_are_normalised_per_channel() -> None:
    embed = PatchEmbed(patch_size=2, width=12)
    torch.nn.init.eye_(embed.linear.weight)
    patch = torch.tensor([[10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]], dtype=torch.uint8)
    norm = torch.tensor([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])
    expected = [[0.0, 0.0, 0.0, 30.0, 15.0, 10.0, 60.0, 30.0, 20.0, 90.0, 45.0, 30.0]]
    assert embed(patch, norm).tolist() == expected


def test_patch_embedding_is_a_strided_convolution() -> None:
    embed = PatchEmbed(patch_size=4, width=5).double()
    image = torch.randn(12, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    patches = image.view(3, 4, 2, 4, 3).transpose(1, 2).reshape(6, 48)  # (y, x, channel) inside
    kernel = embed.linear.weight.view(5, 4, 4, 3).permute(0, 3, 1, 2)
    convolved = F.conv2d(image.permute(2, 0, 1)[None], kernel, stride=4)[0].flatten(1).T
    identity = torch.tensor([[0.0] * 3, [1.0] * 3])
    torch.testing.assert_close(embed(patches, identity), convolved)


def test_a_position_is_row_entry_plus_column_entry() -> None:
    positions = FactorizedPositions(width=2, max_len=3)
    answer = positions(torch.tensor([[2, 0], [0, 2]], dtype=torch.int32), torch.tensor([[3, 3], [3, 3]]))
    expected = torch.stack([positions.rows[2] + positions.cols[0], positions.rows[0] + positions.cols[2]])
    assert torch.equal(answer, expected)


@pytest.mark.parametrize(
    "position_ids", [torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int32)], ids=["fractional", "raster"]
)
def test_other_position_schemes_are_refused(position_ids: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"integer \(row, col\) pairs"):
        FactorizedPositions(width=2, max_len=3)(position_ids, torch.ones(4, 2))


def test_a_grid_must_fit_the_tables() -> None:
    batch = make_batch()
    make_model(max_len=3)(batch)
    with pytest.raises(ShapeError, match=r"max_len=2 .* grid of 3 "):
        make_model(max_len=2)(batch)


# --- attention


def attend_by_loop(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """The definition: one image, one head, one query at a time."""
    out = torch.zeros_like(v)
    for i in range(len(layout.images)):
        own = layout.images == layout.images[i]
        for head in range(q.shape[1]):
            scores = k[own, head] @ q[i, head] / q.shape[2] ** 0.5
            out[i, head] = scores.exp() / scores.exp().sum() @ v[own, head]
    return out


def test_dense_attention_in_static_shapes_follows_the_definition() -> None:
    ragged, static = Layout.of(SEGMENT_IDS, MAX_IMAGES), StaticLayout.of(SEGMENT_IDS, MAX_IMAGES)
    q, k, v = torch.randn(3, 21, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind(0)
    out = dense(q, k, v, static)
    expected = attend_by_loop(q[ragged.tokens], k[ragged.tokens], v[ragged.tokens], ragged)
    torch.testing.assert_close(out[ragged.tokens], expected)
    assert not out[static.images == static.num_images - 1].any()


@pytest.mark.parametrize("attend", [loop, bucketed, dense])
def test_backends_follow_the_definition(attend: object) -> None:
    layout = Layout.of(SEGMENT_IDS, MAX_IMAGES)
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 8, 2, 4, dtype=torch.float64, generator=random).unbind(0)
    torch.testing.assert_close(attend(q, k, v, layout), attend_by_loop(q, k, v, layout))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # it is only compared with here
@pytest.mark.parametrize("kind", [Layout, StaticLayout])
def test_flex_attention_follows_the_definition(kind: type[Layout] | type[StaticLayout]) -> None:
    """Forward only: on CPU it has no gradient."""
    layout, ragged = kind.of(SEGMENT_IDS, MAX_IMAGES), Layout.of(SEGMENT_IDS, MAX_IMAGES)
    rows = torch.randn(3, 3, 7, 2, 4, generator=torch.Generator().manual_seed(0))
    out = layout.to_rows(flex(*(layout.to_ragged(x) for x in rows), layout))
    expected = attend_by_loop(*(ragged.to_ragged(x) for x in rows), ragged)
    torch.testing.assert_close(ragged.to_ragged(out), expected)


def test_a_function_is_a_backend() -> None:
    batch = make_batch()
    torch.testing.assert_close(make_model(attention=attend_by_loop)(batch), make_model()(batch))
    torch.testing.assert_close(make_model(attention=attend_by_loop, static=True)(batch), make_model()(batch))


def test_images_of_nan_stay_among_themselves() -> None:
    batch = make_batch()
    norm = torch.tensor([[0.0] * 3, [1.0] * 3])
    broken = batch.patches.float()
    broken[0, 0] = torch.nan
    logits = make_model()(batch._replace(patches=broken, norm=norm))
    others = batch.slot_mask.clone()
    others[0, 0] = False
    assert torch.isnan(logits[0, 0]).all()
    assert torch.isfinite(logits[others]).all()


def test_queries_and_keys_are_normalised() -> None:
    model, batch = make_model().double(), make_batch()
    logits = model(batch)
    with torch.no_grad():
        for block in model.blocks:
            block.qkv.weight[:16] *= 7  # queries and keys, not values
    torch.testing.assert_close(model(batch), logits, rtol=1e-4, atol=1e-4)


def test_a_block_adds_to_its_input() -> None:
    block = Block(width=8, heads=2, mlp_dim=32, attend=bucketed, style=NAVIT)
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    layout = Layout.of(SEGMENT_IDS, MAX_IMAGES)
    assert not torch.equal(block(x, layout), x)
    torch.nn.init.zeros_(block.out.weight)
    torch.nn.init.zeros_(block.mlp[-1].weight)
    assert torch.equal(block(x, layout), x)


# --- pool


def test_pool_is_attention_of_one_query_then_an_mlp() -> None:
    pool = AttentionPool(width=8, heads=2, mlp_dim=32, style=NAVIT).double()
    layout = Layout.of(SEGMENT_IDS, MAX_IMAGES)
    x = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    answers = pool(x, layout)
    for image in range(layout.num_images):
        k, v = pool.kv(x[layout.images == image]).view(-1, 2, 2, 4).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(pool.query[:, None], k, v)
        pooled = pool.out(mixed.flatten())
        torch.testing.assert_close(answers[image], pooled + pool.mlp(pool.norm(pooled)))


def test_segment_softmax_is_a_softmax_per_segment() -> None:
    scores = torch.tensor([[0.0, 1e4], [1.0, -1e4], [5.0, 5.0]])
    weights = segment_softmax(scores, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(weights, torch.cat([scores[:2].softmax(0), scores[2:].softmax(0)]))


# --- the whole model


@pytest.mark.parametrize("attention", ["auto", "bucketed", "dense", "static"])
def test_uint8_and_normalised_float_batches_agree(attention: str) -> None:
    batch = make_batch()
    values = batch.patches.unflatten(-1, (-1, 3))
    floats = batch._replace(
        patches=((values - batch.norm[0]) / batch.norm[1]).flatten(-2), norm=torch.tensor([[0.0] * 3, [1.0] * 3])
    )
    model = make_model(attention=attention)
    assert torch.equal(model(batch), model(floats))


def test_without_classes_the_features_come_out() -> None:
    model, batch = make_model(num_classes=0), make_batch()
    assert model(batch).shape == (3, MAX_IMAGES, 8)
    assert torch.equal(model(batch), model.features(batch))


def test_nothing_has_a_bias() -> None:
    assert all(name.endswith(("weight", "rows", "cols", "query")) for name, _ in make_model().named_parameters())


@pytest.mark.parametrize("attention", ["bucketed", "dense", "static"])
def test_a_batch_without_images_is_a_step_like_any_other(attention: str) -> None:
    model, batch = make_model(attention=attention), make_batch(torch.zeros_like(SEGMENT_IDS))
    logits = model(batch)
    loss = cross_entropy(logits, batch.targets)
    loss.backward()
    assert logits.shape == (3, MAX_IMAGES, 5)
    assert not logits.any()
    assert loss.item() == 0
    # zeros, not None: every parameter takes part, as DistributedDataParallel wants
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_a_step_repeats_bit_for_bit() -> None:
    def gradients() -> list[Tensor]:
        model, batch = make_model(), make_batch()
        cross_entropy(model(batch), batch.targets).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    assert all(torch.equal(one, other) for one, other in zip(gradients(), gradients(), strict=True))


def test_training_fits_the_targets() -> None:
    model, batch = make_model(), make_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = cross_entropy(model(batch), batch.targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("attention", ["bucketed", "dense", "static"])
def test_bfloat16(attention: str) -> None:
    batch = make_batch()
    model = make_model(attention=attention)
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(batch).float(), exact, rtol=0.1, atol=0.1)
    torch.testing.assert_close(model.bfloat16()(batch).float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10, "heads": 4}, "width must be a multiple of heads=4, got 10"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
        ({"attention": "flash"}, "attention must be one of 'auto', 'loop', 'bucketed', .* got 'flash'"),
        (
            {"attention": "bucketed", "static": True},
            "'bucketed' changes shapes with every batch: use 'auto'",
        ),
        ({"attention": bucketed, "static": True}, "'bucketed' changes shapes with every batch: use 'auto'"),
    ],
)
def test_a_model_that_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_model(**changes)


def test_a_batch_of_another_kind_is_refused() -> None:
    batch = make_batch()
    with pytest.raises(ShapeError, match=r"patch_size=4, the model's, got 2\. A model made with flexible='pi'"):
        make_model(patch_size=4)(batch)
    with pytest.raises(ShapeError, match="a patch must have 12 values, got 4"):
        make_model()(batch._replace(patches=batch.patches[..., :4]))
    with pytest.raises(ShapeError, match="torch tensors, got ndarray"):
        make_model()(batch._replace(patches=np.zeros((3, 7, 12), np.uint8)))


# --- loss


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [9.0, 9.0]], [[2.0, 2.0], [0.0, torch.log(torch.tensor(3.0))]]])
    targets = torch.tensor([[0, -100], [1, 1]])  # rows of one and of two images
    expected = (2 * torch.log(torch.tensor(2.0)) - torch.log(torch.tensor(0.75))) / 3
    torch.testing.assert_close(cross_entropy(logits, targets), expected)


def test_the_sum_is_what_the_mean_divides() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, -100, 3], [1, 2, 2]])
    each = F.cross_entropy(logits[targets >= 0], targets[targets >= 0], reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(cross_entropy(logits, targets), each.sum() / 5)


def test_another_reduction_is_refused() -> None:
    with pytest.raises(ConfigError, match="reduction must be 'mean' or 'sum', got 'none'"):
        cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64), reduction="none")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_of_no_image(reduction: str) -> None:
    logits = torch.zeros(2, 3, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3), -100), reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_cross_entropy_refuses_other_slots() -> None:
    with pytest.raises(ShapeError, match=r"got \[2, 3, 4\] and \[2, 2\]"):
        cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["index", "multi"])
def test_sigmoid_cross_entropy_is_one_question_per_class(kind: str) -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[0, -100, 3], [1, 2, -100]])
    labelled = targets >= 0
    if kind == "multi":
        one_hot = F.one_hot(targets.clamp(min=0), 4).double()
        targets = torch.where(labelled[..., None], one_hot, torch.nan)
    own = F.one_hot(torch.tensor([0, 3, 1, 2]), 4).double()
    expected = F.binary_cross_entropy_with_logits(logits[labelled], own, reduction="sum")
    torch.testing.assert_close(sigmoid_cross_entropy(logits, targets, reduction="sum"), expected)
    loss = sigmoid_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected / 4)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[~labelled].any()
    with pytest.raises(ShapeError, match=r"got \[2, 3, 4\] and \[2, 2\]"):
        sigmoid_cross_entropy(logits, targets[:, :2] if kind == "index" else targets[:, :2, 0])
