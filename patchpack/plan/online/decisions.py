"""The decisions about single images, the samples they belong to, and the batch made of rows of samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import PackingError
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import BatchPlan, Header, PlanTable


class ImageDecision(NamedTuple):
    """The decisions about one image, which are a line of `PlanTable`, with the header of the image."""

    header: Header
    key_hash: int
    box: list[int]
    resized: list[int]
    flip: bool
    grid: list[int]
    num_tokens: int
    times: int = 1
    cut: int = 0  # tokens that the packer took away, so that its row ends exactly full


class SampleDecision(NamedTuple):
    """The decisions about one sample. A packer handles a sample as one item.

    Attributes:
        position: number of the sample in the stream, from 0.
        key_hash: hash of the draw key of the sample's first image.
        lines: decisions about the sample's images, in order. A row takes all of these images, or no image of the sample.
    """

    position: int
    key_hash: int
    lines: tuple[ImageDecision, ...]

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all images of the sample."""
        return sum(line.num_tokens for line in self.lines)

    @property
    def num_text(self) -> int:
        """Number of tokens of the sample's text."""
        return self.lines[0].header.num_text

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that the sample's images hold until they are painted, the sum of `Header.num_bytes`."""
        return sum(line.header.num_bytes for line in self.lines)

    @property
    def cut(self) -> int:
        """Number of tokens that the packer took away."""
        return sum(line.cut for line in self.lines)

    def shortened(self, num_tokens: int) -> SampleDecision:
        """Return the sample cut to `num_tokens` tokens. Tokens are taken from its longest images, which become equally long.

        Raises:
            PackingError: `num_tokens` is less than the number of images.
        """
        over = self.num_tokens - num_tokens
        if not over:
            return self
        if num_tokens < len(self.lines):
            raise PackingError(
                f"only {num_tokens} tokens are left for the {len(self.lines)} images of {self.lines[0].header.key}, which need "
                f"one each"
            )
        left = [line.num_tokens for line in self.lines]
        while over:
            longest = max(left)
            among = [i for i, n in enumerate(left) if n == longest]
            step = min(over, (longest - max((n for n in left if n < longest), default=0)) * len(among))
            for k, i in enumerate(among):
                left[i] -= step // len(among) + (k < step % len(among))
            over -= step
        lines = zip(self.lines, left, strict=True)
        return self._replace(lines=tuple(line._replace(num_tokens=n, cut=line.num_tokens - n) for line, n in lines))


def decide(
    recipe: Recipe, headers: Sequence[tuple[int, Header]], *, epoch: int, ordinals: npt.NDArray[np.int64], patch_size: int
) -> list[SampleDecision]:
    """Decide about samples.

    Args:
        recipe: the policies and the seed.
        headers: pairs of a sample's position and its header, one pair per sample.
        epoch: epoch of the draws.
        ordinals: int64 ``[n]``, number of each sample over all epochs, for drop schedules.
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
    columns = zip(*(column.tolist() for column in table), strict=True)
    lines = (
        ImageDecision(image, key_hash, *decided)
        for image, key_hash, decided in zip(images, hashes.tolist(), columns, strict=True)
    )
    decisions = []
    for (position, _), count in zip(headers, counts, strict=True):
        own = tuple(islice(lines, count))
        decisions.append(SampleDecision(position, own[0].key_hash, own))
    return decisions


def batch_plan(rows: Sequence[Sequence[SampleDecision]], **fields: Any) -> BatchPlan:
    """Return the plan whose rows hold these samples. `fields` are the other fields of `BatchPlan`."""
    lines_of = [[line for decision in row for line in decision.lines] for row in rows]
    lines = [line for row in lines_of for line in row]
    return BatchPlan(
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in lines_of])]).astype(np.int32),
        table=PlanTable(
            box=np.array([line.box for line in lines], dtype=np.int32).reshape(-1, 4),
            resized=np.array([line.resized for line in lines], dtype=np.int32).reshape(-1, 2),
            flip=np.array([line.flip for line in lines], dtype=np.bool_),
            grid=np.array([line.grid for line in lines], dtype=np.int32).reshape(-1, 2),
            num_tokens=np.array([line.num_tokens for line in lines], dtype=np.int32),
            times=np.array([line.times for line in lines], dtype=np.int32),
        ),
        key_hash=np.array([line.key_hash for line in lines], dtype=np.uint64),
        headers=tuple(line.header for line in lines),
        **fields,
    )
