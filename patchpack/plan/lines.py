"""Images that are decided, one by one, and the batch that rows of them make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from patchpack import rng
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Header, PlanTable


class Line(NamedTuple):
    """One image between its header and its batch: `PlanTable`'s columns, decided."""

    position: int  # among the samples of the stream
    header: Header
    key_hash: int
    box: list[int]
    target: list[int]
    flip: bool
    grid: list[int]
    num_tokens: int
    cut: int = 0  # tokens that the packer took away, so that its row ends exactly full


def decide(recipe: Recipe, headers: Sequence[tuple[int, Header]], *, epoch: int, ordinals: Any, patch_size: int) -> list[Line]:
    """Lines of headers, which come with their positions; ordinals: int64 ``[n]``, see `plan_table`."""
    if not headers:
        return []
    hashes = rng.key_hash(h.draw_key for _, h in headers)
    sizes = np.array([h.size for _, h in headers], dtype=np.int64)
    table = plan_table(recipe, sizes, hashes, epoch=epoch, seen=ordinals, patch_size=patch_size)
    columns = zip(*(column.tolist() for column in table), strict=True)
    return [
        Line(position, header, key_hash, *decided)
        for (position, header), key_hash, decided in zip(headers, hashes.tolist(), columns, strict=True)
    ]


def shortened(line: Line, num_tokens: int) -> Line:
    """The image with so many of its tokens."""
    if num_tokens == line.num_tokens:
        return line
    return line._replace(num_tokens=num_tokens, cut=line.num_tokens - num_tokens)


def batch_plan(rows: Sequence[Sequence[Line]], **fields: Any) -> BatchPlan:
    """The plan whose rows hold these lines; fields: all of `BatchPlan` that the lines do not say."""
    lines = [line for row in rows for line in row]
    return BatchPlan(
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32),
        table=PlanTable(
            box=np.array([line.box for line in lines], dtype=np.int32).reshape(-1, 4),
            target=np.array([line.target for line in lines], dtype=np.int32).reshape(-1, 2),
            flip=np.array([line.flip for line in lines], dtype=np.bool_),
            grid=np.array([line.grid for line in lines], dtype=np.int32).reshape(-1, 2),
            num_tokens=np.array([line.num_tokens for line in lines], dtype=np.int32),
        ),
        key_hash=np.array([line.key_hash for line in lines], dtype=np.uint64),
        headers=tuple(line.header for line in lines),
        **fields,
    )
