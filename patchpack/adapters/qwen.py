"""The adapter for Qwen2-VL, Qwen2.5-VL and Qwen3-VL in transformers.

These models take patches in blocks, and merge the patches of a block. Each patch covers two frames. The values of a patch have
the order (channel, frame, row, column). For an image the two frames are equal. A clip is a sequence of steps in time. Each step
is like an image whose two frames differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from patchpack._arrays import IndexArray, Int64Array
from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import keys, require_patch_size, require_whole
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import ValueT
from patchpack.batch.views import standardize_patches
from patchpack.errors import ConfigError, ShapeError
from patchpack.plan._integers import require_int
from patchpack.stream.workers.shared_batch import as_tensors


def qwen_vl(
    batch: PackedBatch[ArrayT], *, merge_size: int = 2, temporal_patch_size: int = 2, patch_size: int | None = None
) -> ModelInputs:
    """Return the image arguments of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL model: a vision model or a complete model.

    Images follow each other without padding. The patches of an image come in blocks of ``merge_size x merge_size``: blocks in
    raster order, and patches in raster order inside a block. The values of a patch have the order (channel, frame, row,
    column). For an image, the ``temporal_patch_size`` frames of a patch are equal. For a clip, they are frames of the clip in
    order of time. Clips need a recipe with ``video=Video(tubelet=temporal_patch_size)``. The model infers positions from the
    grid, so no patch may have been dropped.

    Args:
        batch: a batch made with ``recipes.qwen2_vl`` or ``recipes.qwen3_vl``, or with another recipe whose grids are multiples
            of `merge_size`.
        merge_size: number of patches per side of a block that the model merges (default 2).
        temporal_patch_size: number of frames per patch of the model (default 2).
        patch_size: patch size of the model. It must equal the patch size of the batch. None (default) skips the comparison.

    Returns:
        A dict for N readable images and clips, in (row, slot) order, with T patches in total. ``pixel_values`` is float32
        ``[T, 3 * temporal_patch_size * patch_size**2]``. ``image_grid_thw`` is int64 ``[N, 3]``: (times, rows, cols) of each
        image or clip. An image has times 1.

        Call a vision model with ``model(inputs.pixel_values, grid_thw=inputs.image_grid_thw)``. A complete model takes
        clips under other names: ``pixel_values_videos`` and ``video_grid_thw``.

    Raises:
        ConfigError: an image lost patches, the patch sizes differ, or the batch's tubelets do not have `temporal_patch_size`
            frames.
        ShapeError: a grid is not a multiple of `merge_size`.
    """
    require_int("merge_size", merge_size, 1, 1 << 10)
    require_int("temporal_patch_size", temporal_patch_size, 1, 1 << 10)
    require_patch_size(batch, patch_size)
    tensors = as_tensors(batch)
    starts, grids, times = _images(tensors, merge_size)
    copies = temporal_patch_size
    if tensors.times is not None:
        tubelet, copies = tensors.patches.shape[-1] // (3 * tensors.patch_size**2), 1
        if tubelet != temporal_patch_size:
            raise ConfigError(
                f"the batch has tubelets of {tubelet} frames, the model takes {temporal_patch_size} frames: pack with a recipe "
                f"of video=Video(tubelet={temporal_patch_size})"
            )
    grid_thw = grid_of_times(grids, times).to(tensors.patches.device)
    starts, grids = _steps(starts, grids, times)
    if tensors.patches.device.type == "cpu":
        pixels = tensors.norm.new_empty((int(grids.prod(axis=1).sum()), copies * tensors.patches.shape[-1]))
        reorder(tensors.patches, starts, grids, tensors.norm, merge_size, copies, pixels)
    else:
        pixels = _reordered_there(tensors.patches, starts, grids, tensors.norm, merge_size, copies)
    return ModelInputs(pixel_values=pixels, image_grid_thw=grid_thw)


def unpack_qwen_vl(batch: PackedBatch[ArrayT], features: ValueT, *, merge_size: int = 2) -> Iterator[tuple[str, ValueT]]:
    """Return the features of a Qwen model for each image, arranged on the grid of the image.

    Args:
        batch: the batch with which `qwen_vl` was called.
        features: features ``[T, ...]`` per patch, in the order of ``pixel_values``, or ``[T / merge_size**2, ...]`` per merged
            block.
        merge_size: patches per side of a block, as in the call of `qwen_vl` (default 2).

    Yields:
        ``(key, [rows, cols, ...])`` for features per patch, or ``(key, [rows / merge_size, cols / merge_size, ...])`` for
        features per block. With a recipe that has `video`, an axis of time comes first.

    Raises:
        ShapeError: the number of features is neither the number of patches nor the number of blocks.
    """
    tensors = as_tensors(batch)
    _, grids, times = _images(tensors, merge_size)
    patches = int((grids.prod(axis=1) * times).sum())
    if len(features) not in (patches, patches // merge_size**2):
        raise ShapeError(
            f"features must be [{patches}, ...] per patch or [{patches // merge_size**2}, ...] per block, got "
            f"{list(features.shape)}"
        )
    merged = len(features) != patches
    start = 0
    for key, (rows, cols), steps in zip(keys(tensors), grids.tolist(), times.tolist(), strict=True):
        if merged:
            rows, cols = rows // merge_size, cols // merge_size
        own = features[start : start + steps * rows * cols]
        start += steps * rows * cols
        own = own.reshape(steps, rows * cols, *own.shape[1:])
        own = own if merged else own[:, np.argsort(block_order(rows, cols, merge_size))]
        own = own.reshape(steps, rows, cols, *own.shape[2:])
        yield key, (own[0] if tensors.times is None else own)


def block_order(rows: int, cols: int, merge: int) -> IndexArray:
    """Return the order of patches in blocks, as int64 ``[rows * cols]``: entry k is the raster number of the k-th patch.

    Args:
        rows: rows of the grid in patches, a multiple of `merge`.
        cols: columns of the grid in patches, a multiple of `merge`.
        merge: patches per side of a block.
    """
    numbers = np.arange(rows * cols).reshape(rows // merge, merge, cols // merge, merge)
    return numbers.transpose(0, 2, 1, 3).reshape(-1)


def reorder(
    patches: Tensor, starts: Int64Array, grids: Int64Array, norm: Tensor, merge_size: int, temporal: int, out: Tensor
) -> None:
    """Normalise patches and write them in Qwen's order. All tensors are in CPU memory.

    Args:
        patches: uint8 or float ``[..., D]``. The patches of image i follow in raster order from patch number ``starts[i]`` on.
            A patch of a clip has several frames.
        starts: int64 ``[N]``, number of the first patch of each image.
        grids: int64 ``[N, 2]``, (rows, cols) of each image.
        norm: ``[2, 3]``, mean and standard deviation per channel, with which the patches are normalised.
        merge_size: patches per side of a block.
        temporal: number of equal frames that each patch becomes.
        out: float32 ``[T, temporal * D]``, the array for the result.
    """
    from patchpack.adapters import _kernels_qwen as kernels  # numba costs 0.15 s to import

    table = np.empty(0, dtype=np.float32)
    if patches.dtype == torch.uint8:
        mean, std = norm.numpy()
        table = ((np.arange(256, dtype=np.float32)[:, None] - mean) / std).reshape(-1)
    else:
        patches = standardize_patches(patches, norm)
    kernels.reorder(
        patches.contiguous().numpy().reshape(-1), starts, grids, merge_size, temporal, table, out.numpy().reshape(-1)
    )


def _reordered_there(
    patches: Tensor, starts: Int64Array, grids: Int64Array, norm: Tensor, merge_size: int, temporal: int
) -> Tensor:
    """Return the result of `reorder` for patches on a device other than the CPU."""
    orders = [start + block_order(rows, cols, merge_size) for start, (rows, cols) in zip(starts, grids.tolist(), strict=True)]
    order = torch.from_numpy(np.concatenate([*orders, np.empty(0, dtype=np.int64)])).to(patches.device)
    mine = standardize_patches(patches.reshape(-1, patches.shape[-1])[order], norm)
    pixels = mine.reshape(len(order), 1, patches.shape[-1] // 3, 3).transpose(1, 3).transpose(2, 3)  # [T, channel, 1, y x]
    answer: Tensor = pixels.expand(-1, -1, temporal, -1).reshape(len(order), temporal * patches.shape[-1])
    return answer


def _images(batch: PackedBatch, merge_size: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return three int64 arrays about N readable images.

    They are the number of each image's first patch ``[N]``, its grid ``[N, 2]``, and its number of steps in time ``[N]``.
    """
    segments, slot_mask = batch.segment_ids.cpu().numpy(), batch.slot_mask.cpu().numpy()
    seq_len, slots = segments.shape[1], slot_mask.shape[1]
    token = np.flatnonzero(segments)
    image = token // max(1, seq_len) * slots + segments.reshape(-1)[token] - 1
    _, first, counts = np.unique(image, return_index=True, return_counts=True)
    grids = batch.grid_sizes.cpu().numpy()[slot_mask].astype(np.int64)
    times = np.ones(len(grids), dtype=np.int64)
    if batch.times is not None:
        times = batch.times.cpu().numpy()[slot_mask].astype(np.int64)
    names = keys(batch)
    require_whole(names, torch.from_numpy(counts), torch.from_numpy(np.column_stack([times, grids])), "Qwen-VL")
    odd = np.flatnonzero((grids % merge_size).any(axis=1))
    if len(odd):
        i = int(odd[0])
        raise ShapeError(
            f"{names[i]} has a grid of {grids[i, 0]} x {grids[i, 1]} patches, which does not divide into blocks of "
            f"{merge_size} x {merge_size}: use recipes.qwen2_vl(), or a recipe with resize=SmartResize(merge={merge_size})"
        )
    return token[first].astype(np.int64), grids, times


def _steps(starts: Int64Array, grids: Int64Array, times: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the first patch and the grid of every step in time, as if each step were an image."""
    if (times == 1).all():
        return starts, grids
    step = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(starts, times) + step * np.repeat(grids.prod(axis=1), times), np.repeat(grids, times, axis=0)


def grid_of_times(grids: Int64Array, times: Int64Array) -> Tensor:
    """Return the grid of every image or clip as int64 ``[N, 3]``: steps in time, rows and columns."""
    return torch.from_numpy(np.column_stack([times, grids]))
