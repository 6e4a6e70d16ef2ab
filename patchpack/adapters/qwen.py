"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL in transformers: patches in blocks that the model merges, channel first, two frames.

To them a clip is its steps of time one after the other, each like an image whose two frames differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from patchpack._arrays import IndexArray, Int64Array
from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import keys, require_patch_size, require_whole
from patchpack.adapters.prepare import Prepared, paint
from patchpack.adapters.process import STEPS, Kernel, Processor, Triple, colours_of, like
from patchpack.adapters.settings import Family, Settings
from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import ValueT
from patchpack.batch.views import standardize
from patchpack.errors import ConfigError, ShapeError
from patchpack.paint.resample import norm_of
from patchpack.plan._integers import require_int
from patchpack.plan.policies.normalize import CLIP, MeanStd
from patchpack.plan.policies.resize import SmartResize
from patchpack.plan.recipe import Recipe
from patchpack.stream.workers.shared_batch import as_tensors


def qwen_vl(
    batch: PackedBatch[ArrayT], *, merge_size: int = 2, temporal_patch_size: int = 2, patch_size: int | None = None
) -> ModelInputs:
    """Arguments of the vision models of Qwen2-VL, 2.5 and 3, and of whole ones beside their text.

    Images follow each other without padding. The patches of an image go by blocks of ``merge_size x merge_size``, in raster
    order of blocks and inside a block; a patch is (channel, frame, row, column), an image being ``temporal_patch_size`` equal
    frames. The model infers positions from the grid, so an image must have all its patches. Of a recipe with
    ``video=Video(tubelet=temporal_patch_size)`` frames are those of the clip, and its steps of time follow each other.

    Args:
        batch: made by ``recipes.qwen2_vl`` or ``recipes.qwen3_vl``, or another whose grids are multiples of merge_size.
        merge_size, temporal_patch_size: of the model.
        patch_size: the model's, to be compared with the batch's.

    Returns:
        ``pixel_values`` float32 ``[T, 3 * temporal_patch_size * patch_size**2]`` of T patches in all, ``image_grid_thw`` int64
        ``[N, 3]`` (times, rows, cols), times 1 for an image; N readable images and clips in (row, slot) order. Call a vision
        model with ``model(inputs.pixel_values, grid_thw=inputs.image_grid_thw)``; a whole one has its own arguments for clips,
        ``pixel_values_videos`` and ``video_grid_thw``.

    Raises:
        ConfigError: an image that lost patches, another patch size, or tubelets of another number of frames.
        ShapeError: a grid that is no multiple of merge_size.
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
                f"the batch has tubelets of {tubelet} frames, the model takes {temporal_patch_size}: pack with a recipe of "
                f"video=Video(tubelet={temporal_patch_size})"
            )
    grid_thw = _grid_thw(grids, times).to(tensors.patches.device)
    starts, grids = _steps(starts, grids, times)
    if tensors.patches.device.type == "cpu":
        pixels = tensors.norm.new_empty((int(grids.prod(axis=1).sum()), copies * tensors.patches.shape[-1]))
        reorder(tensors.patches, starts, grids, tensors.norm, merge_size, copies, pixels)
    else:
        pixels = _reordered_there(tensors.patches, starts, grids, tensors.norm, merge_size, copies)
    return ModelInputs(pixel_values=pixels, image_grid_thw=grid_thw)


def unpack_qwen_vl(batch: PackedBatch[ArrayT], features: ValueT, *, merge_size: int = 2) -> Iterator[tuple[str, ValueT]]:
    """A Qwen model's features, each laid on the grid of its image.

    Args:
        batch: what `qwen_vl` was called with.
        features: ``[T, ...]`` per patch, in the order of ``pixel_values``, or ``[T / merge_size**2, ...]`` per merged block.
        merge_size: as there.

    Yields:
        ``(key, [rows, cols, ...])``, or with one entry per block ``(key, [rows / merge_size, cols / merge_size, ...])``; of a
        recipe with `video` with an axis of time in front.

    Raises:
        ShapeError: another number of features.
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
    """int64 ``[rows * cols]``: number in raster order of the patch that comes k-th in blocks of merge x merge."""
    numbers = np.arange(rows * cols).reshape(rows // merge, merge, cols // merge, merge)
    return numbers.transpose(0, 2, 1, 3).reshape(-1)


def reorder(
    patches: Tensor, starts: Int64Array, grids: Int64Array, norm: Tensor, merge_size: int, temporal: int, out: Tensor
) -> None:
    """Patches ``[..., D]`` in memory of the CPU, in Qwen's order and normalised.

    Args:
        patches: uint8 or float, in raster order from ``starts`` on; or tubelets, which are patches of so many times the pixels.
        starts: int64 ``[N]``, numbers of patches.
        grids: int64 ``[N, 2]``.
        norm: ``[2, 3]``, of the patches.
        merge_size: patches per side of a block.
        temporal: how often each patch is put as a frame.
        out: float32 ``[T, temporal * D]``.
    """
    from patchpack.adapters import _kernels_qwen as kernels  # numba costs 0.15 s to import

    table = np.empty(0, dtype=np.float32)
    if patches.dtype == torch.uint8:
        mean, std = norm.numpy()
        table = ((np.arange(256, dtype=np.float32)[:, None] - mean) / std).reshape(-1)
    else:
        patches = standardize(patches, norm)
    kernels.reorder(
        patches.contiguous().numpy().reshape(-1), starts, grids, merge_size, temporal, table, out.numpy().reshape(-1)
    )


def _reordered_there(
    patches: Tensor, starts: Int64Array, grids: Int64Array, norm: Tensor, merge_size: int, temporal: int
) -> Tensor:
    """The same where the patches are on a device."""
    orders = [start + block_order(rows, cols, merge_size) for start, (rows, cols) in zip(starts, grids.tolist(), strict=True)]
    order = torch.from_numpy(np.concatenate([*orders, np.empty(0, dtype=np.int64)])).to(patches.device)
    mine = standardize(patches.reshape(-1, patches.shape[-1])[order], norm)
    pixels = mine.reshape(len(order), 1, patches.shape[-1] // 3, 3).transpose(1, 3).transpose(2, 3)  # [T, channel, 1, y x]
    answer: Tensor = pixels.expand(-1, -1, temporal, -1).reshape(len(order), temporal * patches.shape[-1])
    return answer


def _images(batch: PackedBatch, merge_size: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """First patch in ``[B * S]`` of each readable image, ``[N]``, its grid, ``[N, 2]``, its steps of time, ``[N]``; int64."""
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
            f"{names[i]} has a grid of {grids[i, 0]} x {grids[i, 1]} patches, which cannot be merged by {merge_size} x "
            f"{merge_size}: use a recipe whose grids are multiples, such as recipes.qwen2_vl() or one of "
            f"SmartResize(merge={merge_size})"
        )
    return token[first].astype(np.int64), grids, times


def _steps(starts: Int64Array, grids: Int64Array, times: Int64Array) -> tuple[Int64Array, Int64Array]:
    """First patches and grids of every step of time, as if each were an image."""
    if (times == 1).all():
        return starts, grids
    step = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(starts, times) + step * np.repeat(grids.prod(axis=1), times), np.repeat(grids, times, axis=0)


def _grid_thw(grids: Int64Array, times: Int64Array) -> Tensor:
    return torch.from_numpy(np.column_stack([times, grids]))


@dataclass(frozen=True, kw_only=True)
class QwenVLProcessor(Processor):
    """What ``Qwen2VLImageProcessor`` of transformers makes, on its Pillow backend, sooner; see `qwen_vl`. Qwen2.5 and 3
    use it too.

    The defaults are those of Qwen2-VL. Qwen3-VL: ``patch_size=16, min_pixels=256**2, max_pixels=4096**2`` and 0.5 for mean and
    deviation; or `like`, with its configuration.

    Attributes:
        min_pixels, max_pixels: of an image as the model sees it, there ``size["shortest_edge"]`` and ``["longest_edge"]``.
        patch_size, temporal_patch_size, merge_size, image_mean, image_std: as there.
        resample: kernel, see `Recipe`.
    """

    min_pixels: int = 56**2
    max_pixels: int = 28**2 * 1280
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    image_mean: Triple = CLIP.mean
    image_std: Triple = CLIP.std
    resample: Kernel = "bicubic"

    model_input_names: ClassVar[list[str]] = ["pixel_values", "image_grid_thw"]
    _FAMILY: ClassVar[Family] = Family(
        "Qwen2VLImageProcessor",
        r"Qwen\w*ImageProcessor\w*",
        ("size", "min_pixels", "max_pixels", "merge_size", "image_mean", "image_std", "resample"),
    )

    @classmethod
    def like(cls, processor: object, **changes: object) -> QwenVLProcessor:
        """With the settings of another processor; `changes` are fields that win over them.

        Args:
            processor: one of transformers, one of text and images that holds it, the folder that either was saved to, its
                ``processor_config.json`` or ``preprocessor_config.json``, or the dict in that.
            **changes: fields of this processor.

        Raises:
            ConfigError: what carries no such settings, or a step beside resizing and normalising.
        """
        return like(cls, processor, changes)

    @property
    def size(self) -> Mapping[str, int]:
        """The limits under their names in transformers; not to be written to."""
        return MappingProxyType({"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels})

    @cached_property
    def recipe(self) -> Recipe:  # type: ignore[override]  # made when it is asked for
        """The same for `load` and `pack_images`, whose batches the adapter takes."""
        resize = SmartResize(self.min_pixels, self.max_pixels, self.merge_size)
        return Recipe(
            resize=resize,
            patch_size=self.patch_size,
            seq_len=resize.bound(self.patch_size),
            rows=2,
            resample=self.resample,
            normalize=MeanStd(self.image_mean, self.image_std),
        )

    def _arrays(self, prepared: Prepared) -> dict[str, np.ndarray]:
        counts, channels = prepared.num_patches, self.patch_size**2 * 3
        pixels = torch.empty((sum(counts), self.temporal_patch_size * channels))
        scratch = np.empty((max(counts, default=0), channels), dtype=np.uint8)  # one image in raster order
        norm, begin, first = torch.from_numpy(norm_of(self.recipe.normalize)), 0, np.zeros(1, dtype=np.int64)
        for i, count in enumerate(counts):
            paint(prepared, i, self.recipe, scratch[:count])
            mine = pixels[begin : begin + count]
            grid = prepared.grids[i : i + 1]
            reorder(torch.from_numpy(scratch), first, grid, norm, self.merge_size, self.temporal_patch_size, mine)
            begin += count
        return {
            "pixel_values": pixels.numpy(),
            "image_grid_thw": _grid_thw(prepared.grids, np.ones(len(counts), dtype=np.int64)).numpy(),
        }

    def _stated(self) -> dict[str, object]:
        return {
            **STEPS,
            **colours_of(self),
            "size": dict(self.size),
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
        }

    def _fields(self, settings: Settings) -> dict[str, object]:
        edges = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
        size = settings.entries("size", (*edges, *edges.values()))
        limits = Settings({edges.get(name, name): pixels for name, pixels in size.items()})
        names = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
        taken = limits.whole(min_pixels="min_pixels", max_pixels="max_pixels")
        taken |= settings.whole(**{name: name for name in names})  # theirs too lets limits outside of size win
        return {**taken, **settings.colours()}
