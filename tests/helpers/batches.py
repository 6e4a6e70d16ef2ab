"""Packed batches for tests of the contents of a batch: two made by hand, and a hypothesis strategy of random batches."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

import patchpack as pp
from patchpack.batch_info import BatchInfo
from patchpack.types import Grid

TOKENS = (4, 6, 5)  # and two of padding


def by_hand() -> pp.PackedBatch:
    """One row of 17: grids 2 x 2, 2 x 3 and 3 x 2 (one patch dropped), a fourth slot that is empty."""
    segments = np.repeat(np.array([1, 2, 3, 0], dtype=np.int32), [4, 6, 5, 2])[None]
    grids = [(2, 2), (2, 3), (3, 2)]
    positions = np.zeros((1, 17, 2), dtype=np.int32)
    positions[0, :15] = np.concatenate([pp.positions.Absolute()(Grid(*g))[:n] for g, n in zip(grids, TOKENS, strict=True)])
    patches = np.arange(1, 1 + 17 * 3, dtype=np.uint8).reshape(1, 17, 3)
    patches[0, 15:] = 0
    return pp.PackedBatch(
        patches=patches,
        position_ids=positions,
        segment_ids=segments,
        num_images=np.array([3], dtype=np.int32),
        grid_sizes=np.array([[*grids, (0, 0)]], dtype=np.int32),
        source_sizes=np.array([[(20, 20), (20, 30), (30, 20), (0, 0)]], dtype=np.int32),
        slot_mask=np.array([[True, True, True, False]]),
        targets=np.array([[7, 8, 9, -100]], dtype=np.int64),
        norm=np.array([[127.5] * 3, [127.5] * 3], dtype=np.float32),
        keys=[["a", "b", "c"]],
        patch_size=1,
        info=BatchInfo(),
    )


def with_gap() -> pp.PackedBatch:
    """Three images of two tokens; the second could not be read. A second row with nothing in it."""
    batch = by_hand()
    segments = np.array([[1, 1, 0, 0, 3, 3], [0] * 6], dtype=np.int32)
    real = (segments > 0)[:, :, None]
    return batch._replace(
        patches=(np.arange(1, 1 + 2 * 6 * 3).reshape(2, 6, 3) * real).astype(np.uint8),
        position_ids=(np.array([[0, 0], [0, 1]] * 6).reshape(2, 6, 2) * real).astype(np.int32),
        segment_ids=segments,
        num_images=np.array([3, 0], dtype=np.int32),
        grid_sizes=np.array([[(1, 2), (0, 0), (1, 2)], [(0, 0)] * 3], dtype=np.int32),
        source_sizes=np.array([[(5, 9), (0, 0), (6, 9)], [(0, 0)] * 3], dtype=np.int32),
        slot_mask=np.array([[True, False, True], [False] * 3]),
        targets=[["cat", None, "dog"], [None] * 3],
        keys=[["a", "b", "c"], []],
    )


def to_torch(batch: pp.PackedBatch) -> pp.PackedBatch:
    return pp.PackedBatch(*(torch.as_tensor(f.copy()) if isinstance(f, np.ndarray) else f for f in batch))


ROWS, SEQ_LEN, SLOTS = 3, 20, 5

Slot = tuple[int, bool]  # tokens, readable


def rows() -> st.SearchStrategy[list[Slot]]:
    """Images of one row: their tokens, and whether they could be read."""
    slots = st.lists(st.tuples(st.integers(1, SEQ_LEN), st.booleans()), max_size=SLOTS)
    return slots.map(lambda row: [slot for i, slot in enumerate(row) if sum(n for n, _ in row[: i + 1]) <= SEQ_LEN])


@st.composite
def batches(draw: st.DrawFn, num_rows: st.SearchStrategy[int] = st.integers(0, ROWS)) -> pp.PackedBatch:  # noqa: B008
    """Valid batches of 1-pixel patches in rows of 20 tokens and 5 slots."""
    contents = [draw(rows()) for _ in range(draw(num_rows))]
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    num = len(contents)
    segments = np.zeros((num, SEQ_LEN), dtype=np.int32)
    grids = np.zeros((num, SLOTS, 2), dtype=np.int32)
    slot_mask = np.zeros((num, SLOTS), dtype=np.bool_)
    for r, row in enumerate(contents):
        start = 0
        for s, (tokens, readable) in enumerate(row):
            if readable:
                segments[r, start : start + tokens] = s + 1
                grids[r, s] = (1, tokens)
                slot_mask[r, s] = True
            start += tokens
    real = (segments > 0)[:, :, None]
    return pp.PackedBatch(
        patches=(random.integers(1, 256, (num, SEQ_LEN, 3)) * real).astype(np.uint8),
        position_ids=(random.integers(0, 99, (num, SEQ_LEN, 2)) * real).astype(np.int32),
        segment_ids=segments,
        num_images=np.array([len(row) for row in contents], dtype=np.int32),
        grid_sizes=grids,
        source_sizes=grids * 7,
        slot_mask=slot_mask,
        targets=np.where(slot_mask, random.integers(0, 9, slot_mask.shape), -100),
        norm=np.array([[120, 121, 122], [60, 61, 62]], dtype=np.float32),
        keys=[[f"{r}/{s}" for s in range(len(row))] for r, row in enumerate(contents)],
        patch_size=1,
        info=BatchInfo(),
    )
