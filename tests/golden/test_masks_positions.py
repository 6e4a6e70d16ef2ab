"""Masks, positions and pooling as vit-pytorch, transformers and timm make them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers.by_hand import pack
from helpers.goldens import load
from patchpack import adapters
from patchpack.batch.packed import PackedBatch
from patchpack.model.layout import Layout, with_prefix
from patchpack.model.pool import MeanPool
from patchpack.types import Grid

Grids = list[tuple[int, int]]
TABLES = load("packed_masks_positions")


def cases(prefix: str, field: str) -> list[str]:
    return [name.removesuffix(field) for name in TABLES if name.startswith(prefix) and name.endswith(field)]


def packed(rows: list[Grids]) -> PackedBatch:
    """Images of these grids, without pixels."""
    return pack([[(grid, torch.zeros(grid[0] * grid[1], 12)) for grid in row] for row in rows])


@pytest.mark.parametrize("case", cases("navit", "_pack_h_w"))
def test_navit_of_vit_pytorch(case: str) -> None:
    """Its queries at padding look at the first image of the row; nothing reads them, and ours look at nothing."""
    rows: dict[int, Grids] = {}
    for number, height, width in TABLES[f"{case}_pack_h_w"].tolist():
        rows.setdefault(number, []).append((height, width))
    batch = packed(list(rows.values()))
    real = pp.token_mask(batch)
    attention = torch.from_numpy(TABLES[f"{case}_attn_mask"])[:, 0]
    assert attention.shape == pp.attention_mask(batch).shape
    assert torch.equal(pp.attention_mask(batch)[real], attention[real])
    assert torch.equal(Layout.of(batch.segment_ids, batch.slot_mask.shape[1]).same_image[:, 0][real], attention[real])
    assert torch.equal(pp.pool_mask(batch), torch.from_numpy(TABLES[f"{case}_pool_mask"])[:, 0])


@pytest.mark.parametrize("case", cases("pixtral", "_hw"))
def test_pixtral(case: str) -> None:
    grids = [(height, width) for height, width in TABLES[f"{case}_hw"].tolist()]
    assert torch.equal(pp.attention_mask(packed([grids]))[0], torch.from_numpy(TABLES[f"{case}_mask_is_open"]))


def of_qwen(case: str) -> PackedBatch:
    """The images and clips of a case, each in a row of its own. The channels of a tubelet are its step of time, row, column."""
    grid_thw = TABLES[f"{case}_grid_thw"].tolist()
    places = [torch.cartesian_prod(*map(torch.arange, grid)).float() for grid in grid_thw]
    batch = pack([[((1, len(own)), own.repeat(1, 2 * 4))] for own in places])
    grids = torch.tensor(grid_thw, dtype=torch.int32)
    keys = [[str(i)] for i in range(len(grid_thw))]
    return batch._replace(keys=keys, grid_sizes=grids[:, None, 1:], times=grids[:, :1], source_sizes=grids[:, None, 1:] * 2)


@pytest.mark.parametrize("case", cases("qwen", "_grid_thw"))
def test_patches_come_in_the_order_of_qwens_positions(case: str) -> None:
    grid_thw = TABLES[f"{case}_grid_thw"]
    steps = [np.repeat(np.arange(times), rows * cols) for times, rows, cols in grid_thw.tolist()]
    expected = np.column_stack([np.concatenate(steps), TABLES[f"{case}_position_ids_merge2"]])
    inputs = adapters.qwen_vl(of_qwen(case))
    assert np.array_equal(inputs.image_grid_thw, grid_thw)
    assert np.array_equal(inputs.pixel_values.reshape(-1, 3, 8), np.repeat(expected[:, :, None], 8, axis=2))


@pytest.mark.parametrize("case", [case for case in cases("qwen", "_grid_thw") if TABLES[f"{case}_grid_thw"][:, 0].max() == 1])
def test_where_qwens_images_begin(case: str) -> None:
    batch = packed([[(rows, cols)] for _, rows, cols in TABLES[f"{case}_grid_thw"].tolist()])
    expected = TABLES[f"{case}_cu_seqlens"].astype(np.int64)
    flat = pp.ragged(batch)
    assert np.array_equal(flat.cu_seqlens, expected)
    assert flat.max_seqlen == np.diff(expected).max()


def test_buckets_of_idefics2_are_fractional_ids_of_a_table() -> None:
    """Of 146 grids and tables, 10,517 tokens: a fraction times the side of the table, rounded down, in float32 as theirs."""
    start = 0
    for side, rows, cols in TABLES["idefics2_side_rows_cols"].tolist():
        entry = np.floor(pp.positions.Fractional()(Grid(rows, cols)) * np.float32(side)).astype(np.int64)
        expected = TABLES["idefics2_ids"][start : start + rows * cols]
        assert np.array_equal(entry[:, 0] * side + entry[:, 1], expected), (side, rows, cols)
        start += rows * cols
    assert start == len(TABLES["idefics2_ids"]) == 10_517


POOLED = load("mask_pool_timm")


@pytest.mark.parametrize("case", sorted(name.removesuffix("_valid") for name in POOLED if name.endswith("_valid")))
def test_naflex_of_timm(case: str) -> None:
    """One image to a row. Its class and register tokens are in front, ours at the end of the row."""
    valid = torch.from_numpy(POOLED[f"{case}_valid"])
    segments, slots = valid.int(), torch.ones(len(valid), 1, dtype=torch.bool)
    batch = packed([[(1, 1)]])._replace(segment_ids=segments)
    assert torch.equal(pp.attention_mask(batch), torch.from_numpy(POOLED[f"{case}_mask_prefix0_is_open"])[:, 0])
    for prefix in (0, 2):
        answer = Layout.of(with_prefix(segments, slots, prefix), 1).same_image[:, 0]
        real = torch.cat([torch.ones(len(valid), prefix, dtype=torch.bool), valid], 1)
        expected = torch.from_numpy(POOLED[f"{case}_mask_prefix{prefix}_is_open"])[:, 0]
        assert torch.equal(answer.roll((prefix, prefix), (1, 2))[real], expected[real])
    layout = Layout.of(segments, 1)
    x = torch.from_numpy(POOLED[f"{case}_x"])
    mean = layout.to_slots(MeanPool()(layout.to_ragged(x), layout))[:, 0]
    torch.testing.assert_close(mean, torch.from_numpy(POOLED[f"{case}_pool_avg"]), rtol=0, atol=1e-6)
