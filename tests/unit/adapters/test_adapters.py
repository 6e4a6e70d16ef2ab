"""Adapters: exact arguments of small batches, order of images, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers import naive_adapters
from patchpack import adapters
from patchpack.adapters import qwen
from patchpack.paint.patchify import patchify

EVERY: list[Callable[..., Any]] = [adapters.siglip2, adapters.qwen_vl, adapters.pix2struct, adapters.timm_naflex]
GRIDS = {"wide": (2, 6), "tall": (4, 2), "one": (2, 2), "large": (6, 8)}


def sample(key: str, grid: tuple[int, int], p: int = 4) -> pp.Sample:
    """An image that a recipe of `packed` takes as it is: p pixels a patch."""
    random = np.random.default_rng([ord(c) for c in key])
    return pp.Sample(key, random.integers(0, 256, (grid[0] * p, grid[1] * p, 3), dtype=np.uint8), len(key))


def packed(samples: list[pp.Sample], **changes: Any) -> pp.PackedBatch:
    """All of them in one batch of torch tensors; rows of 64 tokens."""
    recipe = pp.Recipe(
        **{"resize": pp.resize.Native(60), "patch_size": 4, "seq_len": 64, "max_images": 5, "rows_per_batch": 9, **changes}
    )
    (batch,) = pp.load(samples, recipe, on_error="skip")
    return batch


def four(**changes: Any) -> pp.PackedBatch:
    return packed([sample(key, grid) for key, grid in GRIDS.items()], **changes)


def alone(key: str, batch: pp.PackedBatch) -> Any:
    """The normalised patches of one image, float32 ``[n, 48]``, raster order: from its pixels."""
    image = patchify(sample(key, GRIDS[key]).image, 4).astype(np.float32)
    mean, std = pp.normalize.HALF.mean[0] * 255, pp.normalize.HALF.std[0] * 255
    return (image - np.float32(mean)) / np.float32(std)


def with_a_gap() -> pp.PackedBatch:
    """The four and one that is found unreadable while painting, in a slot between them."""
    broken = pp.Sample("broken", b"", 0)
    batch = packed([*(sample(key, grid) for key, grid in GRIDS.items())], packer=pp.packing.NextFit())
    row, slot = next((r, s) for r in range(len(batch.keys)) for s in range(len(batch.keys[r])) if len(batch.keys[r]) > s + 1)
    mine = batch.segment_ids[row] == slot + 1
    batch.keys[row][slot] = broken.key
    batch.slot_mask[row, slot] = False
    batch.grid_sizes[row, slot] = batch.source_sizes[row, slot] = 0
    for values in (batch.patches, batch.position_ids, batch.segment_ids):
        values[row, mine] = 0
    return batch


# ------------------------------------------------------------------------------------------------------------ what comes out


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_siglip2(dtype: str) -> None:
    batch = four(dtype=dtype)
    inputs = pp.adapters.siglip2(batch)
    assert set(inputs) == {"pixel_values", "pixel_attention_mask", "spatial_shapes"}
    assert inputs.pixel_values.shape == (4, 48, 48)
    assert [inputs[n].dtype for n in inputs] == [torch.float32, torch.int32, torch.int64]
    for i, key in enumerate(adapters.keys(batch)):
        n = GRIDS[key][0] * GRIDS[key][1]
        assert tuple(inputs.spatial_shapes[i]) == GRIDS[key]
        assert inputs.pixel_attention_mask[i].tolist() == [1] * n + [0] * (48 - n)
        np.testing.assert_allclose(inputs.pixel_values[i, :n], alone(key, batch), rtol=0, atol=1e-6)
        assert not inputs.pixel_values[i, n:].any()


def test_every_image_has_its_slots_place() -> None:
    batch = four()
    assert adapters.keys(batch) == [key for row in batch.keys for key in row]
    images = adapters.padded(batch)
    assert images.keys == adapters.keys(batch)
    assert [batch.keys[r][s] for r, s in images.places.tolist()] == images.keys
    assert images.targets.tolist() == [len(key) for key in images.keys]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("merge", "temporal"), [(2, 2), (1, 1), (2, 3)])
def test_qwen_vl(dtype: str, merge: int, temporal: int) -> None:
    batch = four(dtype=dtype)
    inputs = adapters.qwen_vl(batch, merge_size=merge, temporal_patch_size=temporal)
    assert inputs.image_grid_thw.dtype == torch.int64
    assert inputs.image_grid_thw.tolist() == [[1, *GRIDS[key]] for key in adapters.keys(batch)]
    wanted = [
        naive_adapters.qwen_order(alone(key, batch), GRIDS[key], merge, temporal) for key in adapters.keys(batch)
    ]  # fmt: skip
    np.testing.assert_allclose(inputs.pixel_values, np.concatenate(wanted), rtol=0, atol=1e-6)
    assert inputs.pixel_values.dtype == torch.float32


def test_qwen_kernel_and_device_path_agree() -> None:
    empty = four()
    for values in (empty.segment_ids, empty.slot_mask, empty.grid_sizes):
        values.zero_()
    for batch in (four(), four(dtype="float16"), empty):
        starts, grids, _ = qwen._images(batch, 2)
        there = qwen._reordered_there(batch.patches, starts, grids, batch.norm, 2, 2)
        here = torch.empty_like(there)
        qwen.reorder(batch.patches, starts, grids, batch.norm, 2, 2, here)
        assert torch.equal(here, there)


@pytest.mark.parametrize("ids", [pp.positions.Absolute(), pp.positions.Raster(), pp.positions.Fractional()])
def test_pix2struct(ids: pp.positions.PositionScheme) -> None:
    batch = four(positions=ids)
    inputs = adapters.pix2struct(batch, max_patches=50)
    assert inputs.flattened_patches.shape == (4, 50, 50)
    assert inputs.attention_mask.dtype == torch.float32
    for i, key in enumerate(adapters.keys(batch)):
        rows, cols = GRIDS[key]
        n = rows * cols
        assert inputs.flattened_patches[i, :n, :2].tolist() == [[r + 1, c + 1] for r in range(rows) for c in range(cols)]
        np.testing.assert_allclose(inputs.flattened_patches[i, :n, 2:], alone(key, batch), rtol=0, atol=1e-6)
        assert not inputs.flattened_patches[i, n:].any()
        assert inputs.attention_mask[i].tolist() == [1] * n + [0] * (50 - n)


@pytest.mark.parametrize("ids", [pp.positions.Absolute(), pp.positions.Raster()])
def test_pix2struct_takes_images_that_lost_patches(ids: pp.positions.PositionScheme) -> None:
    batch = four(drop=pp.drop.Constant(0.5), positions=ids)
    inputs = adapters.pix2struct(batch)
    for image, row in zip(pp.unpack(batch), inputs.flattened_patches, strict=True):
        rows_cols = row[: len(image.patches), :2].long() - 1
        number = rows_cols[:, 0] * image.grid.cols + rows_cols[:, 1]
        assert (number.diff() > 0).all()
        whole = torch.from_numpy(alone(image.key, batch))
        torch.testing.assert_close(row[: len(image.patches), 2:], whole[number], rtol=0, atol=1e-6)


def test_timm_naflex() -> None:
    batch = four(positions=pp.positions.Fractional())
    inputs = adapters.timm_naflex(batch, max_seq_len=48)
    assert [inputs[n].dtype for n in ("patches", "patch_coord", "patch_valid")] == [torch.float32, torch.int64, torch.bool]
    for i, key in enumerate(adapters.keys(batch)):
        rows, cols = GRIDS[key]
        n = rows * cols
        assert inputs.patch_coord[i, :n].tolist() == [[r, c] for r in range(rows) for c in range(cols)]
        assert not inputs.patch_coord[i, n:].any()
        assert inputs.patch_valid[i].tolist() == [True] * n + [False] * (48 - n)
        np.testing.assert_allclose(inputs.patches[i, :n], alone(key, batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("adapter", EVERY)
def test_normalised_once(adapter: Callable[..., Any]) -> None:
    """uint8, float32, float32 on its way to a device, and numpy: the same arguments."""
    batch = four()
    numpy_batch = batch._replace(**{n: v.numpy() for n, v in batch._asdict().items() if isinstance(v, torch.Tensor)})
    wanted = adapter(batch)
    for other in (four(dtype="float32"), pp.standardize(batch.to("cpu")), numpy_batch):
        got = adapter(other)
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("adapter", EVERY)
def test_unreadable_images_are_left_out(adapter: Callable[..., Any]) -> None:
    batch = with_a_gap()
    assert any("broken" in row for row in batch.keys)
    names = adapters.keys(batch)
    assert len(names) == 3
    assert "broken" not in names
    wanted = adapter(packed([sample(key, GRIDS[key]) for key in names], packer=pp.packing.NextFit()))
    got = adapter(batch)
    for name, value in wanted.items():
        assert torch.equal(got[name], value)


@pytest.mark.parametrize("adapter", EVERY)
def test_a_batch_without_an_image(adapter: Callable[..., Any]) -> None:
    empty = four()
    for values in (empty.segment_ids, empty.slot_mask, empty.grid_sizes, empty.source_sizes, empty.patches):
        values.zero_()
    for value in adapter(empty).values():
        assert value.shape[0] == 0


@pytest.mark.parametrize("targets", ["dict", "list", "none"])
def test_targets_of_every_kind(targets: str) -> None:
    batch = four()
    labels = {"dict": {"a": batch.targets}, "list": batch.targets.tolist(), "none": None}[targets]
    got = adapters.padded(batch._replace(targets=labels)).targets
    lengths = [len(key) for key in adapters.keys(batch)]
    if targets == "dict":
        assert got["a"].tolist() == lengths
    else:
        assert got == (lengths if targets == "list" else None)


def test_inputs_can_be_moved_and_asked() -> None:
    inputs = adapters.siglip2(four()).to("cpu", torch.float16)
    assert adapters.siglip2(four()).to(torch.float16).pixel_values.dtype == torch.float16  # as pipelines of transformers do
    assert inputs.pixel_values.dtype == torch.float16
    assert inputs.spatial_shapes.dtype == torch.int64
    with pytest.raises(AttributeError, match="inputs have no 'pixels', only pixel_values, pixel_attention_mask"):
        inputs.pixels  # noqa: B018


# -------------------------------------------------------------------------------------------------------------- qwen's way back


def test_unpack_qwen_vl_lays_features_on_their_patches() -> None:
    batch = four()
    inputs = adapters.qwen_vl(batch)
    whole = dict(adapters.unpack_qwen_vl(batch, inputs.pixel_values))
    blocks = dict(adapters.unpack_qwen_vl(batch, inputs.pixel_values[::4]))  # of each block its first patch
    for key, (rows, cols) in GRIDS.items():
        wanted = torch.from_numpy(alone(key, batch)).reshape(rows, cols, 16, 3).transpose(2, 3)  # channel first
        torch.testing.assert_close(whole[key].reshape(rows, cols, 3, 2, 16)[:, :, :, 0], wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(blocks[key], whole[key][::2, ::2])
    with pytest.raises(pp.errors.ShapeError, match=r"\[72, \.\.\.\] per patch or \[18, \.\.\.\] per block, got \[71, 96\]"):
        list(adapters.unpack_qwen_vl(batch, inputs.pixel_values[1:]))


# ------------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("adapter", [adapters.siglip2, adapters.qwen_vl, adapters.timm_naflex])
def test_dropped_patches_are_refused_where_a_model_infers_its_grid(adapter: Callable[..., Any]) -> None:
    batch = four(drop=pp.drop.Constant(0.5))
    first = adapters.keys(batch)[0]
    n = GRIDS[first][0] * GRIDS[first][1]
    with pytest.raises(pp.errors.ConfigError, match=rf"{first} keeps {n // 2} of its {n} patches.*drop=NoDrop\(\)"):
        adapter(batch)


def test_fractions_are_refused_where_they_say_which_patches_are_left() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"Pix2Struct takes rows and columns.*positions=Absolute\(\)"):
        adapters.pix2struct(four(drop=pp.drop.Constant(0.5), positions=pp.positions.Fractional()))


def test_a_grid_that_cannot_be_merged_is_refused() -> None:
    batch = packed([sample("odd", (3, 4))])
    with pytest.raises(pp.errors.ShapeError, match=r"odd has a grid of 3 x 4.*blocks of 2 x 2.*SmartResize\(merge=2\)"):
        adapters.qwen_vl(batch)
    assert adapters.qwen_vl(batch, merge_size=1).image_grid_thw.tolist() == [[1, 3, 4]]


@pytest.mark.parametrize("adapter", [*EVERY, adapters.padded])
def test_another_patch_size_is_refused(adapter: Callable[..., Any]) -> None:
    with pytest.raises(pp.errors.ConfigError, match="patches of 4 pixels, the model takes 16"):
        adapter(four(), patch_size=16)
    adapter(four(), patch_size=4)


@pytest.mark.parametrize(
    ("adapter", "option"),
    [(adapters.siglip2, "max_num_patches"), (adapters.pix2struct, "max_patches"), (adapters.timm_naflex, "max_seq_len"),
     (adapters.padded, "length")],
)  # fmt: skip
def test_an_image_over_the_length_is_refused(adapter: Callable[..., Any], option: str) -> None:
    with pytest.raises(pp.errors.ShapeError, match=r"large has 48 tokens, more than the 47 of a row: .* at least 48"):
        adapter(four(), **{option: 47})


@pytest.mark.parametrize("option", ["merge_size", "temporal_patch_size"])
def test_numbers_of_qwen_are_checked(option: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=option):
        adapters.qwen_vl(four(), **{option: 0})
