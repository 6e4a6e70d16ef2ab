"""Packed batches put together by hand, for tests of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchpack.batch.packed import PackedBatch
from patchpack.batch_info import BatchInfo


def pack(
    rows: Sequence[Sequence[tuple[tuple[int, int], Tensor]]], *, patch_size: int = 2, fractional: bool = False, spare: int = 0
) -> PackedBatch:
    """Images end to end in their rows, each its grid and its patches; `spare` tokens of padding and, if any, a slot more."""
    seq_len = max(sum(len(patches) for _, patches in row) for row in rows) + spare
    slots = max(len(row) for row in rows) + bool(spare)
    like = next(patches for row in rows for _, patches in row)
    patches = like.new_zeros(len(rows), seq_len, like.shape[1])
    segments = torch.zeros(len(rows), seq_len, dtype=torch.int32)
    ids = torch.zeros(len(rows), seq_len, 2)
    grid_sizes = torch.zeros(len(rows), slots, 2, dtype=torch.int32)
    for b, row in enumerate(rows):
        stop = 0
        for slot, (grid, own) in enumerate(row):
            start, stop = stop, stop + len(own)
            patches[b, start:stop], segments[b, start:stop] = own, slot + 1
            places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).view(-1, 2)
            ids[b, start:stop] = (places + 0.5) / torch.tensor(grid) if fractional else places.float()
            grid_sizes[b, slot] = torch.tensor(grid)
    return PackedBatch(
        patches=patches, position_ids=ids if fractional else ids.int(), segment_ids=segments,
        num_images=segments.amax(1), grid_sizes=grid_sizes, source_sizes=grid_sizes * patch_size,
        slot_mask=grid_sizes[..., 0] > 0, targets=None,
        norm=torch.tensor([[0.0] * 3, [1.0] * 3]), keys=[[] for _ in rows], patch_size=patch_size, info=BatchInfo(),
    )  # fmt: skip
