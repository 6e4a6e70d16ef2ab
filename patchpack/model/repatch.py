"""The cutting of a batch's images into patches of another size, for a teacher and a student with different patch sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ShapeError
from patchpack.model.layout import Layout


def repatch(batch: PackedBatch, patch_size: int) -> PackedBatch:
    """Cut the images of a batch into patches of another size. Each image keeps its pixels, row and slot.

    Args:
        batch: a batch of torch tensors, without dropped tokens, with integer (row, col) positions.
        patch_size: pixels per side of the new patches. It must divide both sides of every image.

    Returns:
        A batch whose rows have no gaps. A row is as long as the fullest row, ``seq_len = max_b Σ_e rows_be · cols_be`` with the
        new grid of the image in row b and slot e. Grids, positions and segments describe the new patches. Targets, keys and
        slots do not change.

    Raises:
        ShapeError: tokens of an image were dropped, or the sides of an image are not multiples of `patch_size`.
    """
    if patch_size == batch.patch_size:
        return batch
    old, slots = batch.patch_size, batch.slot_mask.shape[1]
    layout = Layout.of(batch.segment_ids, slots)
    grids = layout.from_slots(batch.grid_sizes).long()  # [N, 2]
    _require_whole(layout, grids, old, patch_size)
    new_grids = grids * old // patch_size
    lengths = layout.to_slots(new_grids.prod(1))  # [B, E]
    ends = lengths.cumsum(1)
    rows, seq_len = len(lengths), int(ends.amax()) if ends.numel() else 0
    starts = (ends - lengths + torch.arange(rows, device=ends.device)[:, None] * seq_len).flatten()[layout.slots]  # [N]
    tokens = layout.to_ragged(batch.patches)
    firsts = layout.cu_seqlens[:-1].long()

    values = tokens.shape[1] // old**2 * patch_size**2
    patches = tokens.new_zeros(rows * seq_len, values)
    position_ids = batch.position_ids.new_zeros(rows * seq_len, 2)
    segment_ids = batch.segment_ids.new_zeros(rows * seq_len)
    for grid in torch.unique(grids, dim=0).tolist():
        same = (grids == torch.tensor(grid, device=grids.device)).all(1).nonzero()[:, 0]
        count = grid[0] * grid[1]
        cut = _cut_again(tokens[firsts[same, None] + torch.arange(count, device=tokens.device)], grid, old, patch_size)
        new = [side * old // patch_size for side in grid]
        at = (starts[same, None] + torch.arange(cut.shape[1], device=tokens.device)).flatten()
        patches[at] = cut.flatten(0, 1)
        ids = torch.cartesian_prod(*(torch.arange(side, device=tokens.device) for side in new)).to(position_ids)
        position_ids[at] = ids.view(-1, 2).repeat(len(same), 1)
        segment_ids[at] = (layout.slots[same] % slots + 1).to(segment_ids).repeat_interleave(cut.shape[1])
    return batch._replace(
        patches=patches.view(rows, seq_len, values),
        position_ids=position_ids.view(rows, seq_len, 2),
        segment_ids=segment_ids.view(rows, seq_len),
        grid_sizes=layout.to_slots(new_grids).to(batch.grid_sizes),
        patch_size=patch_size,
    )


def _cut_again(patches: Tensor, grid: list[int], old: int, new: int) -> Tensor:
    """Cut n images of one grid into new patches: ``[n, rows · cols, old² · C] → [n, rows' · cols', new² · C]``."""
    rows, cols = grid
    pixels = patches.view(len(patches), rows, cols, old, old, -1).transpose(2, 3)
    pixels = pixels.reshape(len(patches), rows * old // new, new, cols * old // new, new, -1)
    return pixels.transpose(2, 3).flatten(3).flatten(1, 2)


def _require_whole(layout: Layout, grids: Tensor, old: int, new: int) -> None:
    short = (layout.lengths != grids.prod(1)).nonzero()
    if len(short):
        i = int(short[0])
        raise ShapeError(
            f"an image of {int(grids[i, 0])} × {int(grids[i, 1])} patches keeps only {int(layout.lengths[i])} tokens, but "
            f"cutting "
            f"it into other patches needs all of them: use a recipe with drop=NoDrop(), or the teacher's patch size"
        )
    uneven = (grids * old % new).any(1).nonzero()
    if len(uneven):
        height, width = (grids[int(uneven[0])] * old).tolist()
        raise ShapeError(f"an image of {height} × {width} pixels cannot be cut into whole patches of {new} × {new} pixels")
