"""The statements a `PackedBatch` makes about itself, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchpack.errors import ShapeError
from patchpack.paint import _arrays
from patchpack.types import PackedBatch


def validate(batch: PackedBatch) -> None:
    """Check every statement `PackedBatch` makes about itself.

    Raises:
        ShapeError: the first that does not hold, with the row.
    """
    b = PackedBatch(*(_arrays.to_numpy(field) for field in batch))
    num_rows, seq_len = b.segment_ids.shape
    slots = b.slot_mask.shape[1]
    depth = b.norm.shape[1] * b.patch_size**2
    for name, shape in (
        ("patches", (num_rows, seq_len, depth)),
        ("position_ids", (num_rows, seq_len, b.position_ids.shape[-1])),
        ("num_images", (num_rows,)),
        ("grid_sizes", (num_rows, slots, 2)),
        ("source_sizes", (num_rows, slots, 2)),
        ("slot_mask", (num_rows, slots)),
    ):
        got = getattr(b, name).shape
        if got != shape:
            raise ShapeError(f"{name} must be {list(shape)}, got {list(got)}")
    if len(b.keys) != num_rows:
        raise ShapeError(f"keys must hold one list per row, {num_rows}, got {len(b.keys)}")
    for row in range(num_rows):
        _validate_row(b, row)
    for values in b.targets.values() if isinstance(b.targets, dict) else [b.targets]:
        _validate_targets(values, b.slot_mask)


def _validate_row(b: PackedBatch, row: int) -> None:
    segments, n = b.segment_ids[row], int(b.num_images[row])
    mask = b.slot_mask[row]

    def require(holds: Any, statement: str) -> None:
        if not np.all(holds):
            raise ShapeError(f"row {row}: {statement}")

    require(0 <= n <= len(mask), f"num_images must be in 0 … {len(mask)}, got {n}")
    require(len(b.keys[row]) == n, f"{n} images but {len(b.keys[row])} keys")
    require(~mask[n:], "slot_mask is set beyond num_images")
    real = segments > 0
    used = segments[real]
    require(used[1:] >= used[:-1], "segment_ids must be 1…1 2…2 … k…k with zeros where padding or unreadable")
    readable = np.flatnonzero(mask) + 1
    require(np.array_equal(np.unique(used), readable), "segment_ids must name exactly the readable slots")
    if len(readable) == n:
        require(real[: len(used)], "padding between readable images")
    for slot in range(len(mask)):
        where = np.flatnonzero(segments == slot + 1)
        grid = b.grid_sizes[row, slot]
        if not mask[slot]:
            require(grid == 0, f"slot {slot} holds no image but grid_sizes {grid.tolist()}")
            continue
        require(np.diff(where) == 1, f"the tokens of slot {slot} are not contiguous")
        require(1 <= len(where) <= int(grid.prod()), f"slot {slot} has {len(where)} tokens of a grid {grid.tolist()}")
        require(b.source_sizes[row, slot] > 0, f"slot {slot} has no source size")
    require(b.patches[row][~real] == 0, "patches must be zero where padding")
    require(b.position_ids[row][~real] == 0, "position_ids must be zero where padding")


def _validate_targets(values: Any, slot_mask: Any) -> None:
    if isinstance(values, np.ndarray):
        empty = values[~slot_mask]
        fine = np.isnan(empty) if values.dtype.kind == "f" else empty == -100
        if values.shape[:2] != slot_mask.shape or not np.all(fine):
            raise ShapeError("targets must be [B, E, ...] with −100 (int64) or NaN (float32) in empty slots")
    elif values is not None and any(
        value is not None
        for row, masks in zip(values, slot_mask, strict=True)
        for value, mask in zip(row, masks, strict=True)
        if not mask
    ):
        raise ShapeError("targets must be None in empty slots")
