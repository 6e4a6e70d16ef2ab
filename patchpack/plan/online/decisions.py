"""The decisions about samples, and the plan of a batch made of rows of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import PackingError
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Header, PlanTable


class SampleDecision(NamedTuple):
    """The decisions about one sample. A packer handles a sample as one item.

    Attributes:
        position: number of the sample in the stream, from 0.
        header: header of the sample.
        table: decisions about the sample's images, one line per image, in order. A row takes either all of these images or none
            of them.
        key_hash: uint64 ``[images]``, hash of the `Header.draw_key` of each image of the sample.
        num_tokens: number of tokens of all images of the sample.
        num_bytes: bytes of memory that the sample's images hold until painting: the sum of `Header.num_bytes`.
        cut: number of tokens that the packer cut off the sample, so that the row ends exactly full. Default 0.
    """

    position: int
    header: Header
    table: PlanTable
    key_hash: npt.NDArray[np.uint64]
    num_tokens: int
    num_bytes: int
    cut: int = 0

    @property
    def num_images(self) -> int:
        """Number of images of the sample."""
        return len(self.key_hash)

    @property
    def num_text(self) -> int:
        """Number of tokens of the sample's text."""
        return self.header.num_text

    def shortened(self, num_tokens: int) -> SampleDecision:
        """Return the decisions about the sample after it is cut to `num_tokens` tokens.

        Only the longest images lose tokens. All images that lose tokens end with the same number of tokens, or differ by one.

        Raises:
            PackingError: `num_tokens` is less than the number of images.
        """
        cut = over = self.num_tokens - num_tokens
        if not over:
            return self
        if num_tokens < self.num_images:
            raise PackingError(
                f"only {num_tokens} tokens are left for the {self.num_images} images of {self.header.key}, which need one each"
            )
        left = self.table.num_tokens.tolist()
        while over:
            longest = max(left)
            among = [i for i, n in enumerate(left) if n == longest]
            step = min(over, (longest - max((n for n in left if n < longest), default=0)) * len(among))
            for k, i in enumerate(among):
                left[i] -= step // len(among) + (k < step % len(among))
            over -= step
        table = self.table._replace(num_tokens=np.array(left, dtype=np.int32))
        return self._replace(table=table, num_tokens=num_tokens, cut=self.cut + cut)


def decide(
    recipe: Recipe, headers: Sequence[tuple[int, Header]], *, epoch: int, ordinals: npt.NDArray[np.int64], patch_size: int
) -> list[SampleDecision]:
    """Make the decisions about samples from their headers.

    Args:
        recipe: recipe with the policies and the seed.
        headers: one pair (position in the stream, header) for each sample.
        epoch: number of the epoch, on which the random draws depend.
        ordinals: int64 ``[n]``, running number of each sample over all epochs, for drop schedules.
        patch_size: pixels per side of a patch.
    """
    if not headers:
        return []
    images = [image for _, header in headers for image in header.images]
    counts = [1 + len(header.rest) for _, header in headers]
    hashes = rng.key_hash(image.draw_key for image in images)
    sizes = np.array([image.size for image in images], dtype=np.int64)
    seen = np.repeat(ordinals, counts)
    frames = None if recipe.video is None else [image.frames for image in images]
    table = plan_table(recipe, sizes, hashes, epoch=epoch, seen=seen, patch_size=patch_size, frames=frames)
    tokens, decisions, start = table.num_tokens.tolist(), [], 0
    for (position, header), count in zip(headers, counts, strict=True):
        stop = start + count
        decision = SampleDecision(
            position,
            header,
            table.part(start, stop),
            hashes[start:stop],
            tokens[start] if count == 1 else sum(tokens[start:stop]),
            header.num_bytes if count == 1 else sum(image.num_bytes for image in header.images),
        )
        decisions.append(decision)
        start = stop
    return decisions


def batch_plan(rows: Sequence[Sequence[SampleDecision]], **fields: Any) -> BatchPlan:
    """Return the plan whose rows hold these samples. `fields` are the other fields of `BatchPlan`."""
    decisions = [decision for row in rows for decision in row]
    counts = [sum(decision.num_images for decision in row) for row in rows]
    return BatchPlan(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        table=PlanTable.concatenate([decision.table for decision in decisions]),
        key_hash=np.concatenate([_NO_KEYS, *(decision.key_hash for decision in decisions)]),
        headers=tuple(header for decision in decisions for header in decision.header.images),
        **fields,
    )


_NO_KEYS = np.empty(0, dtype=np.uint64)
