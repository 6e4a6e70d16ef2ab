"""The check that the fields of a `PackedBatch` agree with its documentation and with each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchpack.batch import _arrays
from patchpack.batch._types import ArrayT, Objects
from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import sample_ids
from patchpack.errors import ShapeError

_DTYPES = {
    "patches": ("uint8", "float32", "float16"),
    "position_ids": ("int32", "float32"),
    "segment_ids": ("int32",),
    "num_images": ("int32",),
    "grid_sizes": ("int32",),
    "source_sizes": ("int32",),
    "slot_mask": ("bool",),
    "norm": ("float32",),
    "sample_ids": ("int32",),
    "text_ids": ("int32",),
    "text_segment_ids": ("int32",),
    "times": ("int32",),
}
_OPTIONAL = ("sample_ids", "text_ids", "text_segment_ids", "times")


def validate(batch: PackedBatch[ArrayT]) -> None:
    """Check that a batch keeps every rule that the docstring of `PackedBatch` states.

    Raises:
        ShapeError: a rule is broken. The message states the first broken rule, and the row if the rule is about a row.
    """
    b: PackedBatch[np.ndarray] = PackedBatch._make(map(_arrays.to_numpy, batch))
    left_out = {name for name in _OPTIONAL if getattr(b, name) is None}
    if (b.text_ids is None) != (b.text_segment_ids is None):
        raise ShapeError("text_ids and text_segment_ids must both be given, or neither")
    for name, dtypes in _DTYPES.items():
        if name in left_out:
            continue
        dtype = str(getattr(b, name).dtype)
        if dtype not in dtypes:
            raise ShapeError(f"{name} must be {' or '.join(dtypes)}, got {dtype}")
    for name, num_axes in (("segment_ids", 2), ("position_ids", 3), ("slot_mask", 2), ("norm", 2)):
        shape = getattr(b, name).shape
        if len(shape) != num_axes:
            raise ShapeError(f"{name} must have {num_axes} axes, got {list(shape)}")
    num_rows, seq_len = b.segment_ids.shape
    slots, channels = b.slot_mask.shape[1], b.norm.shape[1]
    pixels = channels * b.patch_size**2
    tubelet = 1 if b.times is None else max(1, b.patches.shape[-1] // pixels)
    for name, shape in (
        ("patches", (num_rows, seq_len, tubelet * pixels)),
        ("position_ids", (num_rows, seq_len, b.position_ids.shape[-1])),
        ("num_images", (num_rows,)),
        ("grid_sizes", (num_rows, slots, 2)),
        ("source_sizes", (num_rows, slots, 2)),
        ("slot_mask", (num_rows, slots)),
        ("norm", (2, channels)),
        ("sample_ids", (num_rows, slots)),
        ("times", (num_rows, slots)),
    ):
        if name in left_out:
            continue
        got = getattr(b, name).shape
        if got != shape:
            raise ShapeError(f"{name} must be {list(shape)}, got {list(got)}")
    if b.patches.dtype != np.uint8 and not np.array_equal(b.norm, [[0] * channels, [1] * channels]):
        raise ShapeError("norm must be mean 0 and std 1 for patches that are not uint8")
    if len(b.keys) != num_rows:
        raise ShapeError(f"keys must hold one list per row, {num_rows}, got {len(b.keys)}")
    samples = sample_ids(b)
    for row in range(num_rows):
        _validate_row(b, samples[row], row)
    if b.text_ids is not None and b.text_segment_ids is not None:
        _validate_texts(b, samples, b.text_ids, b.text_segment_ids)
    for values in b.targets.values() if isinstance(b.targets, dict) else [b.targets]:
        _validate_targets(values, b.slot_mask)


def _validate_row(b: PackedBatch[np.ndarray], samples: np.ndarray, row: int) -> None:
    segments, n = b.segment_ids[row], int(b.num_images[row])
    mask = b.slot_mask[row]

    def require(holds: npt.ArrayLike, statement: str) -> None:
        if not np.all(holds):
            raise ShapeError(f"row {row}: {statement}")

    require(0 <= n <= len(mask), f"num_images must be in 0 … {len(mask)}, got {n}")
    require(len(b.keys[row]) == n, f"there must be one key per image, got {n} images and {len(b.keys[row])} keys")
    require(~mask[n:], "slot_mask must be False beyond num_images")
    require(samples[n:] == 0, "sample_ids must be 0 beyond num_images")
    require(
        np.isin(np.diff(samples[:n], prepend=0), (0, 1)) & (samples[:n] > 0),
        "sample_ids must be 1 … 1, 2 … 2, …, k … k in used slots",
    )
    require(segments >= 0, "segment_ids must not be negative")
    real = segments > 0
    used = segments[real]
    require(used[1:] >= used[:-1], "segment_ids must not decrease, except for zeros at padding and unreadable images")
    readable = np.flatnonzero(mask) + 1
    require(np.array_equal(np.unique(used), readable), "segment_ids must contain the readable slots and no others")
    if len(readable) == n:
        require(real[: len(used)], "padding must come after the last image")
    for slot in range(len(mask)):
        where = np.flatnonzero(segments == slot + 1)
        grid, times = b.grid_sizes[row, slot], 1 if b.times is None else int(b.times[row, slot])
        if not mask[slot]:
            require(grid == 0, f"slot {slot} has no image, so its grid_sizes must be 0, got {grid.tolist()}")
            require(b.times is None or times == 0, f"slot {slot} has no image, so its times must be 0, got {times}")
            continue
        require(np.diff(where) == 1, f"the tokens of slot {slot} must be contiguous")
        whole = grid.tolist() if b.times is None else [times, *grid.tolist()]
        require(
            1 <= len(where) <= times * int(grid.prod()),
            f"slot {slot} must have 1 … all tokens of its grid {whole}, got {len(where)}",
        )
        if b.times is not None:
            steps = b.position_ids[row, where, 0]
            in_order = (np.diff(steps, prepend=0) >= 0) & (steps < times)
            require(in_order, f"the tokens of slot {slot} must be in order of time, 0 … {times - 1}")
        require(b.source_sizes[row, slot] > 0, f"slot {slot} must have a source size")
    require(b.patches[row][~real] == 0, "patches must be zero at padding")
    require(b.position_ids[row][~real] == 0, "position_ids must be zero at padding")


def _validate_texts(b: PackedBatch[np.ndarray], sample_ids: np.ndarray, ids: np.ndarray, segments: np.ndarray) -> None:
    if ids.ndim != 2 or len(ids) != len(b.num_images) or ids.shape != segments.shape:
        raise ShapeError(f"text_ids and text_segment_ids must be [B, text_len], got {list(ids.shape)}, {list(segments.shape)}")
    for row, (here, mask, samples) in enumerate(zip(segments, b.slot_mask, sample_ids, strict=True)):

        def require(holds: npt.ArrayLike, statement: str, row: int = row) -> None:
            if not np.all(holds):
                raise ShapeError(f"row {row}: {statement}")

        require(here >= 0, "text_segment_ids must not be negative")
        used = here[here > 0]
        require(used[1:] >= used[:-1], "text_segment_ids must not decrease, except for zeros at padding and unreadable samples")
        begins = np.flatnonzero(mask & (np.diff(samples, prepend=0) > 0)) + 1
        require(
            np.array_equal(np.unique(used), begins),
            "text_segment_ids must contain the first slot of every readable sample and no others",
        )
        for segment in begins:
            require(np.diff(np.flatnonzero(here == segment)) == 1, f"the text of slot {segment - 1} must be contiguous")
        require(ids[row][here == 0] == 0, "text_ids must be zero at padding")


def _validate_targets(values: np.ndarray | Objects | None, slot_mask: np.ndarray) -> None:
    if isinstance(values, np.ndarray):
        filler = {"int64": -100, "float32": np.nan}.get(str(values.dtype))
        if filler is None or values.shape[:2] != slot_mask.shape:
            raise ShapeError(f"targets must be int64 or float32 [B, E, ...], got {values.dtype} {list(values.shape)}")
        if not np.array_equal(values[~slot_mask], np.full_like(values[~slot_mask], filler), equal_nan=True):
            raise ShapeError("targets must be −100 (int64) or NaN (float32) in empty slots")
    elif values is not None:
        if [len(row) for row in values] != [len(row) for row in slot_mask]:
            raise ShapeError(f"targets must be lists, one of {slot_mask.shape[1]} per row")
        filled = (value is not None for row in values for value in row)
        if any(has and not mask for has, mask in zip(filled, slot_mask.flat, strict=True)):
            raise ShapeError("targets must be None in empty slots")
