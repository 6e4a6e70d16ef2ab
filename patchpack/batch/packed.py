"""A packed batch, the only thing a model sees."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

import numpy as np
from typing_extensions import NamedTuple

from patchpack.batch._types import Array, Device, Generic, Targets
from patchpack.errors import ConfigError
from patchpack.report import BatchInfo
from patchpack.types import counted

if TYPE_CHECKING:
    import torch


class PackedBatch(NamedTuple, Generic[Array]):
    """The only thing a model sees: B rows of S tokens, up to E images per row. A painter makes numpy, a loader torch.

    To a type checker `PackedBatch` holds tensors, and ``PackedBatch[np.ndarray]`` arrays.

    Everything else (masks, ragged form, fill rate) is derived by a function, see `patchpack.batch.views`.

    Attributes:
        patches: uint8, float32 or float16 ``[B, S, D]``, ``D = patch_size * patch_size * 3`` in (y, x, channel) order;
            zeros where padding.
        position_ids: int32 ``[B, S, A]``, or float32 if fractional; zeros where padding. A = 1 raster, 2 row and col.
        segment_ids: int32 ``[B, S]``; 0 is padding, k the row's k-th image (1-based).
        num_images: int32 ``[B]`` used slots.
        grid_sizes: int32 ``[B, E, 2]`` rows and cols before dropping; 0 in empty or unreadable slots.
        source_sizes: int32 ``[B, E, 2]`` oriented height and width of the source in pixels.
        slot_mask: bool ``[B, E]``, true where a slot holds a readable image.
        targets: aligned with slots, every image has its sample's, ``[B, E, ...]``: int64 (−100 elsewhere), float32 (NaN
            elsewhere), a dict of these, a nested list (None elsewhere), or None without targets.
        norm: float32 ``[2, 3]``, mean and std on the 0–255 scale: ``value = (patch − mean) / std``; (0, 1) when the
            patches are normalised already.
        keys: ``[B][≤ E]`` nested list of sample keys, one per image.
        patch_size: pixels per side of a patch.
        info: a `BatchInfo`: step, epoch, counters and rejections since the previous batch, and what was drawn for each image.
        sample_ids: int32 ``[B, E]``; 0 in slots that are not used, k for images of the row's k-th sample (1-based): 1, 2, 3, …
            where every sample is one image. None in a batch made by hand says the same.
        text_ids: int32 ``[B, text_len]`` tokens of the texts of a row, one after the other in slot order; zeros where padding.
            None without texts.
        text_segment_ids: int32 ``[B, text_len]``; 0 is padding, k a token of the text of the sample whose first image is the
            row's k-th image (1-based). None without texts.
        times: int32 ``[B, E]`` tubelets along time before dropping, 1 for an image; 0 in empty or unreadable slots. None where
            the recipe takes no clips. With it a token is a tubelet, ``D = t * patch_size * patch_size * 3`` in (frame, y, x,
            channel) order, tokens go by time, then row and col, and the first of A + 1 position ids is the number of the
            tubelet along time, a float where the others are fractions; 0 for an image.
    """

    patches: Array
    position_ids: Array
    segment_ids: Array
    num_images: Array
    grid_sizes: Array
    source_sizes: Array
    slot_mask: Array
    targets: Targets[Array]
    norm: Array
    keys: list[list[str]]
    patch_size: int
    info: BatchInfo
    sample_ids: Array | None = None
    text_ids: Array | None = None
    text_segment_ids: Array | None = None
    times: Array | None = None

    def to(self, device: Device, *, non_blocking: bool = True) -> PackedBatch:
        """Return a new batch with every tensor on a device. Nothing is normalised and no dtype changes, see `standardize`.

        Args:
            device: a device, in any form that torch accepts. numpy arrays become tensors there.
            non_blocking: passed to ``Tensor.to``: a copy from pinned memory then runs beside other work. Default True.

        Raises:
            ConfigError: `device` is a dtype.
        """
        torch = import_module("torch")  # imported here, because a batch of numpy arrays does not need it
        if isinstance(device, torch.dtype):
            raise ConfigError(
                f"to({device}) would convert ids too: batch.to(device) moves the batch and keeps every dtype, "
                f"patchpack.standardize(batch, {device}) gives patches of that dtype"
            )
        return self._each(lambda tensor: torch.as_tensor(tensor).to(device, non_blocking=non_blocking), torch.Tensor)

    def pin_memory(self) -> PackedBatch:
        """Return a new batch whose tensors are in pinned memory, from which `to` does not wait."""
        torch = import_module("torch")
        return self._each(lambda tensor: torch.as_tensor(tensor).pin_memory(), torch.Tensor)

    def _each(self, change: Callable[[object], torch.Tensor], tensor: type) -> PackedBatch:
        changed: PackedBatch = PackedBatch._make(
            _changed(field, change, (tensor, np.ndarray)) for field in self._replace(keys=[])
        )
        return changed._replace(keys=self.keys)

    def __repr__(self) -> str:
        batch = cast("PackedBatch", self)  # what is read here, arrays and tensors have alike
        try:
            rows, seq_len = batch.segment_ids.shape
            dtype = str(batch.patches.dtype).removeprefix("torch.")
        except (AttributeError, TypeError, ValueError):  # some fields are not arrays, as while a batch is sent by a worker
            return f"PackedBatch({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self, strict=True))})"
        size = f"{counted(rows, 'row')} x {seq_len} tokens"
        try:
            full = float((batch.segment_ids != 0).sum()) / max(1, rows * seq_len)
            size += f", {counted(int(batch.slot_mask.sum()), 'image')}, {100 * full:.1f} % full"
            size += (
                ""
                if batch.text_ids is None or batch.text_segment_ids is None
                else f", {int((batch.text_segment_ids != 0).sum())} text tokens"
            )
        except (RuntimeError, TypeError, AttributeError):  # tensors without values
            pass
        device = str(getattr(batch.patches, "device", "cpu"))
        where = "" if device == "cpu" else f", on {device}"
        return f"PackedBatch({size}, patch {self.patch_size}, {dtype}{where})"


def _changed(field: object, change: Callable[[object], torch.Tensor], kinds: tuple[type, ...]) -> object:
    """Return a field of a batch with all of its tensors changed. A target that is not a tensor is left unchanged."""
    if isinstance(field, dict):
        return {name: _changed(entry, change, kinds) for name, entry in field.items()}
    if isinstance(field, list):
        return [_changed(entry, change, kinds[:1]) for entry in field]
    return change(field) if isinstance(field, kinds) else field
