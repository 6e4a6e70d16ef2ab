"""Views of a `PackedBatch`: masks, ragged form, images back out. One truth, many views; nothing here is stored.

Every function takes a batch of numpy arrays or of torch tensors and answers in kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from patchpack.errors import ShapeError
from patchpack.paint import _arrays
from patchpack.types import Grid, PackedBatch, Size


def token_mask(batch: PackedBatch) -> Any:
    """bool ``[B, S]``: True where a token belongs to a readable image. ``segment_ids > 0``."""
    return batch.segment_ids > 0


def attention_mask(batch: PackedBatch) -> Any:
    """bool ``[B, S, S]``: True where token i may look at token j: same image, neither is padding.

    ``mask[b, i, j] = segment_ids[b, i] == segment_ids[b, j] > 0``; rows of padding are all False. Block diagonal
    (NaViT 2307.06304 section 2.2). For scaled_dot_product_attention insert a head axis: ``mask[:, None]``.
    """
    segments = batch.segment_ids
    return (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]


def pool_mask(batch: PackedBatch) -> Any:
    """bool ``[B, E, S]``: True where token s belongs to slot e. ``mask[b, e, s] = segment_ids[b, s] == e + 1``."""
    slots = _arrays.arange(batch.segment_ids, batch.slot_mask.shape[1]) + 1
    return batch.segment_ids[:, None, :] == slots[None, :, None]


def fill_rate(batch: PackedBatch) -> float:
    """Real tokens / (rows * seq_len), in [0, 1]; 0 for a batch without rows."""
    mask = token_mask(batch)
    share: float = float(mask.sum()) / max(1, mask.shape[0] * mask.shape[1])
    return share


class Ragged(NamedTuple):
    """All images of a batch end to end, as variable-length attention kernels take them.

    Attributes:
        patches: ``[T, D]``.
        position_ids: ``[T, A]``.
        cu_seqlens: int32 ``[N + 1]``, image i holds ``patches[cu_seqlens[i]:cu_seqlens[i + 1]]``.
        max_seqlen: longest image in tokens; ``S`` in the static form.
        places: int64 ``[N, 2]`` (row, slot) of each image, to scatter results back; (−1, −1) for static padding.
    """

    patches: Any
    position_ids: Any
    cu_seqlens: Any
    max_seqlen: int
    places: Any


def ragged(batch: PackedBatch, static: bool = False) -> Ragged:
    """The batch without its padding.

    Args:
        batch: the batch.
        static: fixed shapes for compiled models: ``T = B * S`` and ``N = B * E + B``. Slots follow each other in order,
            an empty one has length 0; the padding follows as B segments of at most S tokens.

    Returns:
        `Ragged`; images in row-major slot order, tokens in raster order.
    """
    mask = token_mask(batch)
    num_rows, seq_len = mask.shape
    lengths = pool_mask(batch).sum(-1)  # [B, E]
    if static:
        order = _arrays.stable_argsort(~mask.reshape(-1))  # real tokens first, order kept
        patches, positions = (
            values.reshape(num_rows * seq_len, values.shape[2])[order] for values in (batch.patches, batch.position_ids)
        )
        slots = lengths.shape[1]
        count = _arrays.arange(lengths, num_rows * slots)
        places = _arrays.stack([count // max(1, slots), count % max(1, slots)])
        filler = _arrays.stack([_arrays.arange(lengths, num_rows) * 0 - 1] * 2)
        padding = mask.shape[0] * seq_len - lengths.sum()
        chunks = (padding - _arrays.arange(lengths, num_rows) * seq_len).clip(0, seq_len)
        all_lengths = _arrays.concatenate([lengths.reshape(-1), chunks])
        return Ragged(patches, positions, _arrays.cumulative(all_lengths), int(seq_len), _arrays.concatenate([places, filler]))
    readable = lengths > 0
    places = _arrays.nonzero(readable)
    used = lengths[readable]
    longest = int(used.max()) if len(used) else 0
    return Ragged(batch.patches[mask], batch.position_ids[mask], _arrays.cumulative(used), longest, places)


class PackedImage(NamedTuple):
    """One image taken back out of a batch.

    Attributes:
        key: the sample's key.
        row, slot: where it was.
        patches: ``[n, D]`` surviving patches in raster order.
        position_ids: ``[n, A]``.
        grid: rows and cols before dropping.
        source_size: oriented size of the source in pixels.
        target: its target, as stored.
    """

    key: str
    row: int
    slot: int
    patches: Any
    position_ids: Any
    grid: Grid
    source_size: Size
    target: Any


def unpack(batch: PackedBatch, values: Any = None) -> Iterator[Any]:
    """The readable images of a batch, in row-major slot order.

    Args:
        batch: the batch.
        values: None, or results to hand back by key: per token ``[B, S, ...]`` or per slot ``[B, E, ...]``; where S equals
            E they are taken as per slot.

    Yields:
        `PackedImage`s; with values, pairs ``(key, value)``: ``[n, ...]`` per token, ``[...]`` per slot.

    Raises:
        ShapeError: values of another shape.
    """
    num_rows, seq_len = batch.segment_ids.shape
    slots = batch.slot_mask.shape[1]
    if values is not None and tuple(values.shape[:2]) not in ((num_rows, seq_len), (num_rows, slots)):
        raise ShapeError(
            f"values must be [{num_rows}, {seq_len}, ...] per token or [{num_rows}, {slots}, ...] per slot, got "
            f"{list(values.shape)}"
        )
    per_slot = values is not None and values.shape[1] == slots
    for row, keys in enumerate(batch.keys):
        for slot, key in enumerate(keys):
            if not bool(batch.slot_mask[row, slot]):
                continue
            mine = batch.segment_ids[row] == slot + 1
            if values is not None:
                yield key, (values[row, slot] if per_slot else values[row][mine])
                continue
            yield PackedImage(
                key,
                row,
                slot,
                batch.patches[row][mine],
                batch.position_ids[row][mine],
                Grid(*batch.grid_sizes[row, slot].tolist()),
                Size(*batch.source_sizes[row, slot].tolist()),
                _target_at(batch.targets, row, slot),
            )


def normalize(patches: Any, norm: Any, dtype: Any = None) -> Any:
    """``(patch − mean) / std`` per channel.

    Args:
        patches: ``[..., D]`` with the channel as the fastest axis, uint8 or float; numpy or torch.
        norm: float32 ``[2, C]`` mean and std on the patches' own scale, as in a batch.
        dtype: of the result, numpy or torch like the patches; None is float32. The arithmetic is float32.

    Returns:
        The same shape.
    """
    channels = norm.shape[1]
    pixels = patches.reshape(*patches.shape[:-1], patches.shape[-1] // channels, channels)
    if isinstance(patches, np.ndarray):
        pixels = pixels.astype(np.float32)
        value = ((pixels - norm[0]) / norm[1]).reshape(patches.shape)
        return value if dtype is None else value.astype(dtype)
    value = ((pixels.float() - norm[0]) / norm[1]).reshape(patches.shape)
    return value if dtype is None else value.to(dtype)


def _target_at(targets: Any, row: int, slot: int) -> Any:
    if targets is None:
        return None
    if isinstance(targets, dict):
        return {name: values[row, slot] for name, values in targets.items()}
    return targets[row][slot]
