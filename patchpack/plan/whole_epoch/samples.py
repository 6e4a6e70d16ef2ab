"""The samples of an epoch in order. Grids are decided on request. Samples that fit no row are recorded as refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import shuffled_lines
from patchpack.plan.table import GridTable, decide_grids, plan_table

HashAgain = Callable[[IntegerArray, int], rng.U64]
"""A function from lines and the number of a pass to the hashes of the lines' draw keys in this pass, uint64 ``[n]``."""

BLOCK = 1 << 13  # number of samples decided at a time: numpy's columns stay in the cache
TOO_MANY_PIXELS, TOO_MANY_BYTES = -1, -2  # used instead of a token count
_COMPARED = 64  # number of samples decided twice, to find policies that are not deterministic
_EMPTY_PASSES = 10  # the same number as in `patchpack.plan.online.planner`


class Sizes(NamedTuple):
    """The integers that an index holds about n samples.

    Attributes:
        sizes: int ``[n, 2]``, height and width of each image in pixels, after orientation.
        key_hash: uint64 ``[n]``, the hashes of the keys (see `patchpack.rng.key_hash`).
        starts: int64 ``[shards + 1]``, first sample of each shard.
        hash_again: a function that returns the hashes of the keys in a later pass. It is needed only if samples are repeated.
            Default None.
        num_bytes: int ``[n]``, size of each image file in bytes. Default None, unknown.
    """

    sizes: IntegerArray
    key_hash: rng.U64
    starts: Int64
    hash_again: HashAgain | None = None
    num_bytes: IntegerArray | None = None

    def hashes(self, lines: IntegerArray, number: int) -> rng.U64:
        """Return the hash of the `Header.draw_key` of each sample in `lines`, in pass `number`, as uint64."""
        if not number:
            hashes: rng.U64 = self.key_hash[lines]
            return hashes
        assert self.hash_again is not None  # always set for a plan that repeats samples
        return self.hash_again(lines, number)


class EpochSamples:
    """The samples of an epoch, in the epoch's order. With `repeat`, another pass begins when a pass ends.

    Args:
        recipe: recipe with the policies and the seed.
        epoch: number of the epoch, on which the random draws depend.
        table: the samples.
        shuffle: number of samples that are permuted at a time (see `shuffled_lines`). 0 keeps the order of the index.
        seen: number of samples in earlier epochs, for drop schedules.
        repeat: True begins another pass when a pass ends. False ends the epoch after one pass.
    """

    def __init__(self, recipe: Recipe, table: Sizes, *, epoch: int, shuffle: int, seen: int, repeat: bool) -> None:
        self._recipe, self._table, self._epoch = recipe, table, epoch
        self._shuffle, self._seen, self._repeat = shuffle, seen, repeat
        self.num_samples = len(table.sizes)
        self._passes = [self._order(0)]
        self._next, self._taken_any = 0, False
        self._refused: list[tuple[IntegerArray, npt.NDArray[Any]]] = []

    @property
    def order(self) -> IntegerArray:
        """The line of the index at each position, over all passes that have begun."""
        return np.concatenate(self._passes) if len(self._passes) > 1 else self._passes[0]

    def refused(self) -> tuple[Int64, npt.NDArray[np.int32]]:
        """Return the positions of images that no row can take, rising, and the token counts of these images.

        The count is 0 for a size that the policy refuses, and < 0 for a sample over a limit.
        """
        where = np.concatenate([np.empty(0, dtype=np.int64), *(positions for positions, _ in self._refused)])
        tokens = np.concatenate([np.empty(0, dtype=np.int32), *(tokens for _, tokens in self._refused)])
        order = np.argsort(where, kind="stable")
        return where[order], tokens[order]

    def require_functions(self, patch_size: int) -> None:
        """Call the policies twice on the first samples. Raise `ConfigError` if the two decisions differ.

        Every rank plans the epoch for itself. If policies decided differently, ranks would make different rows, and lose
        samples without a message.
        """
        positions = np.arange(min(_COMPARED, self.num_samples), dtype=np.int64)
        first, again = (self._decide(positions, 0, patch_size) for _ in range(2))
        differ = first.num_tokens != again.num_tokens
        for one, other in ((first.grid, again.grid), (first.crop, again.crop)):
            if one is not None and other is not None:
                differ |= (one != other).any(axis=1)
        if differ.any():
            i = int(np.argmax(differ))
            size, recipe = self._table.sizes[self._passes[0][i]].tolist(), self._recipe
            raise ConfigError(
                f"a {size} image (height, width) had {first.num_tokens[i]} tokens of grid {first.grid[i].tolist()}, and then "
                f"{again.num_tokens[i]} of {again.grid[i].tolist()}: {recipe.crop!r}, {recipe.resize!r} and {recipe.drop!r} "
                f"must be functions of their arguments"
            )

    def take(self) -> Int64:
        """Return the next few thousand positions, all of one pass. Return an empty array at the end."""
        n, start = self.num_samples, self._next
        if start == n * len(self._passes):
            nothing_usable = not self._taken_any and len(self._passes) >= (_EMPTY_PASSES if self._recipe.redraws else 1)
            if not self._repeat or not n or nothing_usable:
                return np.empty(0, dtype=np.int64)
            self._passes.append(self._order(len(self._passes)))
        self._next = min(start + BLOCK, n * len(self._passes))
        return np.arange(start, self._next, dtype=np.int64)

    def decide(self, positions: Int64, patch_size: int, seq_len: int) -> tuple[Int64, GridTable]:
        """Return the given positions whose images fit a row of `seq_len` tokens, and the grids of these images.

        Args:
            positions: int64 ``[n]``, rising, at least one.
            patch_size: pixels per side of a patch.
            seq_len: tokens per row.
        """
        kept, decided = [], []
        for number in range(len(self._passes)):
            low, high = np.searchsorted(positions, (number * self.num_samples, (number + 1) * self.num_samples))
            for start in range(low, high, BLOCK):
                part = positions[start : min(start + BLOCK, high)]
                grids = self._decide(part, number, patch_size)
                tokens = grids.num_tokens
                good = (tokens >= 1) & (tokens <= seq_len)
                if not good.all():
                    self._refused.append((part[~good], tokens[~good]))
                    part, grids = part[good], grids.take(good)
                kept.append(part)
                decided.append(grids.compact())
                self._taken_any = self._taken_any or len(part) > 0
        return np.concatenate(kept), GridTable.concatenate(decided)

    def sample(self, count: int, patch_size: int, seq_len: int) -> Int64:
        """Return the token counts of at most `count` samples, which are spread evenly over the index.

        The random draws are those of the first pass.

        Args:
            count: largest number of samples.
            patch_size: pixels per side of a patch.
            seq_len: tokens per row. Samples that do not fit a row are left out.
        """
        n = self.num_samples
        lines = np.unique(np.linspace(0, max(0, n - 1), min(count, n)).astype(np.int64))
        sizes, hashes = self._table.sizes[lines].astype(np.int64), self._table.key_hash[lines]
        whole = plan_table(  # all columns of the table, so that each policy is checked before the epoch begins
            self._recipe, sizes, hashes, epoch=self._epoch, seen=self._seen + lines, patch_size=patch_size
        )
        tokens = self._within_limits(lines, sizes, whole.num_tokens)
        shuffled = rng.permutation(0, 0, rng.Stage.HEADERS, 0, len(lines))  # neighbours may be alike
        tokens = tokens[shuffled]
        return tokens[(tokens >= 1) & (tokens <= seq_len)].astype(np.int64)

    def _order(self, number: int) -> IntegerArray:
        return shuffled_lines(
            self._table.starts, seed=self._recipe.seed, epoch=self._epoch, shuffle=self._shuffle, number=number
        )

    def _decide(self, positions: Int64, number: int, patch_size: int) -> GridTable:
        """Return the grids of the samples at some positions of one pass. Samples over a limit have a negative token count."""
        lines = self._passes[number][positions - number * self.num_samples]
        sizes, hashes = self._table.sizes[lines].astype(np.int64), self._table.hashes(lines, number)
        grids = decide_grids(
            self._recipe, sizes, hashes, epoch=self._epoch, ordinals=self._seen + positions, patch_size=patch_size
        )
        return grids._replace(num_tokens=self._within_limits(lines, sizes, grids.num_tokens))

    def _within_limits(self, lines: IntegerArray, sizes: Int64, tokens: IntegerArray) -> IntegerArray:
        """Replace the token counts of samples over a limit by `TOO_MANY_PIXELS` or `TOO_MANY_BYTES`, and return the counts."""
        tokens[sizes[:, 0] * sizes[:, 1] > self._recipe.max_pixels] = TOO_MANY_PIXELS
        if self._table.num_bytes is not None:
            tokens[self._table.num_bytes[lines] > self._recipe.max_bytes] = TOO_MANY_BYTES
        return tokens
