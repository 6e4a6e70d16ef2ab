"""Whatever is packed: an adapter's image is that image alone, and every token of every readable image is there once."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers import naive_adapters
from helpers.batches import batches, to_torch
from patchpack.adapters import _kernels_qwen as kernels
from patchpack.adapters import keys, padded
from patchpack.adapters.qwen import block_order
from patchpack.batch.views import standardize_patches


@given(batches())
def test_padded_of_a_batch_is_its_images_alone(batch: pp.PackedBatch) -> None:
    images = list(pp.unpack(batch))
    got = padded(to_torch(batch))
    assert got.keys == keys(batch) == [image.key for image in images]
    assert got.places.tolist() == [[image.row, image.slot] for image in images]
    assert got.num_tokens.tolist() == [len(image.patches) for image in images]
    if not images:
        assert got.patches.shape[0] == 0
        return
    wanted, mask = naive_adapters.one_per_row(
        [standardize_patches(image.patches, batch.norm) for image in images], got.patches.shape[1]
    )
    assert np.array_equal(got.patches, wanted)
    assert np.array_equal(got.token_mask, mask)
    ids, _ = naive_adapters.one_per_row([image.position_ids for image in images], got.patches.shape[1])
    assert np.array_equal(got.position_ids, ids)
    assert got.targets.tolist() == [int(image.target) for image in images]
    assert [tuple(size) for size in got.source_sizes.tolist()] == [image.source_size for image in images]
    assert [tuple(grid) for grid in got.grid_sizes.tolist()] == [image.grid for image in images]


@st.composite
def _blocks(draw: st.DrawFn) -> tuple[int, int, int, list[tuple[int, int]], int]:
    merge, temporal, p = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    side = st.integers(1, 4).map(lambda n: n * merge)
    return merge, temporal, p, draw(st.lists(st.tuples(side, side), max_size=4)), draw(st.integers(0, 2**32))


@given(_blocks())
def test_qwen_kernel_is_its_twin(case: tuple[int, int, int, list[tuple[int, int]], int]) -> None:
    merge, temporal, p, grids, seed = case
    random, d = np.random.default_rng(seed), p * p * 3
    lengths = [rows * cols for rows, cols in grids]
    gap = 2  # tokens between images that belong to nobody
    patches = random.integers(0, 256, (sum(lengths) + gap * (len(grids) + 1), d), dtype=np.uint8)
    starts = np.array([gap * (i + 1) + sum(lengths[:i]) for i in range(len(grids))], dtype=np.int64)
    table = random.random((256, 3), dtype=np.float32)
    out = np.empty((sum(lengths), temporal * d), dtype=np.float32)
    sides = np.array(grids, dtype=np.int64).reshape(-1, 2)
    kernels.reorder(patches.reshape(-1), starts, sides, merge, temporal, table.reshape(-1), out.reshape(-1))
    numbers = table[patches.reshape(-1, p * p, 3), np.arange(3)].reshape(-1, d)
    wanted = [
        naive_adapters.qwen_order(numbers[start : start + rows * cols], (rows, cols), merge, temporal)
        for start, (rows, cols) in zip(starts, grids, strict=True)
    ]
    assert np.array_equal(out, np.concatenate([*wanted, np.empty((0, temporal * d), dtype=np.float32)]))
    kernels.reorder(numbers.reshape(-1), starts, sides, merge, temporal, np.empty(0, dtype=np.float32), out.reshape(-1))
    assert np.array_equal(out, np.concatenate([*wanted, np.empty((0, temporal * d), dtype=np.float32)]))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_block_order_is_a_permutation_with_blocks_together(merge: int, rows: int, cols: int) -> None:
    rows, cols = rows * merge, cols * merge
    order = block_order(rows, cols, merge)
    assert sorted(order.tolist()) == list(range(rows * cols))
    blocks = torch.from_numpy(order).reshape(-1, merge * merge)
    assert all(len({(n // cols // merge, n % cols // merge) for n in block}) == 1 for block in blocks.tolist())
