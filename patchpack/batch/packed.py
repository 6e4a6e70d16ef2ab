"""The packed batch, which is the input of a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from typing_extensions import NamedTuple

from patchpack.batch._types import Array, Device, Generic, Targets
from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError
from patchpack.types import counted

if TYPE_CHECKING:
    import torch


class PackedBatch(NamedTuple, Generic[Array]):
    """A batch of B rows of S tokens, with up to E images per row. A model receives nothing else.

    A painter makes batches of numpy arrays. A loader makes batches of torch tensors. For a type checker, `PackedBatch` holds
    tensors and ``PackedBatch[np.ndarray]`` holds arrays.

    Masks, the ragged form and the fill rate are not stored. The functions of `patchpack.batch.views` compute them.

    Attributes:
        patches: uint8, float32 or float16 ``[B, S, D]``, the pixels of each token in (y, x, channel) order.
            ``D = patch_size * patch_size * 3``. 0 at padding.
        position_ids: int32 ``[B, S, A]`` (float32 for fractional positions), the position of each token in its image. A is 1
            for raster numbers, and 2 for row and column. 0 at padding.
        segment_ids: int32 ``[B, S]``, the image of each token: k for the row's k-th image, counted from 1. 0 at padding.
        num_images: int32 ``[B]``, number of used slots in each row.
        grid_sizes: int32 ``[B, E, 2]``, rows and columns of patches before dropping. 0 in slots without a readable image.
        source_sizes: int32 ``[B, E, 2]``, height and width of the source image in pixels, after EXIF orientation. 0 in slots
            without a readable image.
        slot_mask: bool ``[B, E]``, True where a slot holds a readable image.
        targets: the targets of the slots, ``[B, E, ...]``. Every image has the target of its sample. The targets are an int64
            array, a float32 array, a nested list of objects, or a dict of these. Slots without a readable image have −100
            (int64), NaN (float32) or None (list). None if the source has no targets.
        norm: float32 ``[2, 3]``, mean and std on the 0–255 scale, for ``value = (patch − mean) / std``. Mean 0 and std 1 if
            the patches are normalised already.
        keys: nested list ``[B][≤ E]``, the key of each image's sample.
        patch_size: pixels per side of a patch.
        info: a `BatchInfo`: step, epoch, counters, rejections since the previous batch, and the random draws of each image.
        sample_ids: int32 ``[B, E]``, the sample of each image: k for the row's k-th sample, counted from 1. 0 in unused slots.
            Default None, for a batch made by hand: every image is a sample by itself.
        text_ids: int32 ``[B, text_len]``, tokens of the row's texts, one text after the other in slot order. 0 at padding.
            Default None, no texts.
        text_segment_ids: int32 ``[B, text_len]``. For each text token, the number of the image that its text belongs to,
            counted from 1 in each row. If a sample has several images, its first image counts. 0 at padding. Default None, no
            texts.
        times: int32 ``[B, E]``, number of tubelets along time before dropping, 1 for an image. 0 in slots without a readable
            image.
            Default None, for a recipe without `Recipe.video`. In a batch with `times`, a token is a tubelet: a patch through t
            frames, in (frame, y, x, channel) order. ``D`` is then ``t * patch_size * patch_size * 3``. Tokens are then ordered
            by time, row and column. Position ids then begin with one more entry, the number of the tubelet along time. This
            entry is 0 for an image. It is a float if the other entries are fractional.
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
        """Return a new batch with every tensor on a device. Values and dtypes do not change. To normalise, use `standardize`.

        Args:
            device: a device, in any form that torch accepts. numpy arrays become tensors on this device.
            non_blocking: True lets a copy from pinned memory run while other work goes on (as in ``Tensor.to``). Default True.

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
        """Return a new batch whose tensors are in pinned memory. `to` copies from pinned memory without waiting."""
        torch = import_module("torch")
        return self._each(lambda tensor: torch.as_tensor(tensor).pin_memory(), torch.Tensor)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Return what pickle and `torch.save` write.

        Tensors of a worker's batch share one memory with different dtypes, which `torch.save` refuses. They are copied.
        """
        loaded = sys.modules.get("torch")
        if loaded is None:
            return PackedBatch, tuple(self)
        fields = (_changed(field, _with_own_memory, (loaded.Tensor,)) for field in self._replace(keys=[]))
        return PackedBatch, tuple(PackedBatch._make(fields)._replace(keys=self.keys))

    def _each(self, change: Callable[[object], torch.Tensor], tensor: type) -> PackedBatch:
        changed: PackedBatch = PackedBatch._make(
            _changed(field, change, (tensor, np.ndarray)) for field in self._replace(keys=[])
        )
        return changed._replace(keys=self.keys)

    def __repr__(self) -> str:
        batch = cast("PackedBatch", self)  # arrays and tensors both have the attributes that are read here
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


def _with_own_memory(tensor: Any) -> torch.Tensor:
    """Return the tensor, or a copy of it if its memory also holds other tensors."""
    own: torch.Tensor = tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    return own


def _changed(field: object, change: Callable[[object], torch.Tensor], kinds: tuple[type, ...]) -> object:
    """Return a field of a batch with `change` applied to all of its tensors. Other values stay unchanged."""
    if isinstance(field, dict):
        return {name: _changed(entry, change, kinds) for name, entry in field.items()}
    if isinstance(field, list):
        return [_changed(entry, change, kinds[:1]) for entry in field]
    return change(field) if isinstance(field, kinds) else field
