"""Hypothesis strategies of sizes, lengths, policies and recipes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from patchpack.plan import packing
from patchpack.plan.packing import PackerFactory
from patchpack.plan.policies import drop, positions, resize
from patchpack.plan.recipe import Recipe


def sizes(max_side: int = 20_000) -> st.SearchStrategy[tuple[int, int]]:
    """Return a strategy of sizes (height, width) in pixels. They reach from single pixels and thin strips to photographs."""
    side = st.one_of(st.integers(1, 40), st.integers(1, 2000), st.integers(1, max_side))
    return st.tuples(side, side)


def size_tables(max_images: int = 12, max_side: int = 20_000) -> st.SearchStrategy[npt.NDArray[np.int64]]:
    """Return a strategy of tables of sizes, int64 ``[n, 2]`` with n >= 1."""
    tables = st.lists(sizes(max_side), min_size=1, max_size=max_images)
    return tables.map(lambda rows: np.array(rows, dtype=np.int64))


def grids(max_side: int = 64) -> st.SearchStrategy[tuple[int, int]]:
    """Return a strategy of grids (rows, cols) in patches."""
    return st.tuples(st.integers(1, max_side), st.integers(1, max_side))


def lengths(seq_len: int, max_items: int = 60) -> st.SearchStrategy[list[int]]:
    """Return a strategy of lists of token counts that fit a row of `seq_len`.

    A list holds small counts only, or a mixture of small counts, arbitrary counts and counts close to `seq_len`. Long lists are
    as likely as short lists.
    """
    small = st.integers(1, max(1, seq_len // 8))
    length = st.one_of(small, st.integers(1, seq_len), st.integers(max(1, seq_len - 3), seq_len))
    counts = st.integers(0, max_items)  # a plain list of up to 60 has five items on average
    return counts.flatmap(lambda n: st.one_of(*(st.lists(each, min_size=n, max_size=n) for each in (small, length))))


def uniform_tables(n: int, draws: int) -> st.SearchStrategy[npt.NDArray[np.float64] | None]:
    """Return a strategy of uniform random numbers for n images, float64 ``[n, draws]`` in [0, 1).

    0 and the largest float below 1 are frequent. If `draws` is 0, every value of the strategy is None.
    """
    if draws == 0:
        return st.none()
    u = st.one_of(st.just(0.0), st.just(1 - 2.0**-53), st.floats(0, 1, exclude_max=True))
    rows = st.lists(st.lists(u, min_size=draws, max_size=draws), min_size=n, max_size=n)
    return rows.map(lambda table: np.array(table, dtype=np.float64).reshape(n, draws))


def resize_policies(patch_size: int = 16) -> st.SearchStrategy[Any]:
    """Return a strategy of patchpack's resize policies, each with random parameters."""
    budget = st.integers(1, 300)
    pixels = st.tuples(st.integers(1, 40_000), st.integers(0, 200_000)).map(lambda p: (p[0], p[0] + p[1]))
    span = st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda r: (r[0], r[0] + r[1]))
    return st.one_of(
        st.builds(resize.Pix2Struct, budget, exact=st.booleans()),
        st.builds(resize.NaFlex, budget, upscale=st.booleans(), search=st.sampled_from(["exact", "bisection"])),
        st.builds(
            lambda p, m, s: resize.SmartResize(p[0], p[1], merge=m, min_side=s),
            pixels,
            st.integers(1, 3),
            st.sampled_from([None, 28]),
        ),
        st.builds(resize.NaViT, span, sampling=st.sampled_from(["uniform", "normal"]), on=st.sampled_from(["side", "area"])),
        st.builds(resize.LongestSide, st.integers(1, 400), upscale=st.booleans()),
        st.builds(lambda n: resize.Square(n * patch_size), st.integers(1, 16)),
        st.builds(
            resize.Native,
            budget,
            edge=st.sampled_from(["crop", "pad"]),
            oversize=st.sampled_from(["shrink", "reject"]),
        ),
    )


def drop_policies() -> st.SearchStrategy[drop.DropPolicy]:
    """Return a strategy of patchpack's drop policies, each with random parameters."""
    rate = st.floats(0, 0.95)
    return st.one_of(
        st.just(drop.NoDrop()),
        st.builds(drop.Constant, rate),
        st.builds(lambda m, share: drop.Beta(m * share, m), st.floats(0.05, 1.0), st.floats(0.05, 0.95)),
        st.builds(drop.ByResolution, rate, rate, st.integers(1, 50), st.integers(51, 500), st.floats(0, 0.1)),
        st.builds(drop.Scheduled, st.floats(0, 1e6), st.sampled_from([-1e4, -1.0, 1.0, 1e5])),
    )


def packer_factories() -> st.SearchStrategy[PackerFactory]:
    """Return a strategy of functions that make patchpack's online packers, with random lookahead."""
    rows = st.integers(1, 12)
    return st.one_of(st.builds(packing.FirstFit, rows), st.builds(packing.BestFit, rows), st.just(packing.NextFit()))


def recipes(patch_size: int = 4) -> st.SearchStrategy[Recipe]:
    """Return a strategy of small recipes. They have policies of every kind, and rows of a few hundred tokens.

    Args:
        patch_size: pixels per side of a patch (default 4).
    """

    def build(policy: Any, extra: int, **fields: Any) -> Recipe:
        return Recipe(resize=policy, seq_len=policy.bound(patch_size) + extra, patch_size=patch_size, **fields)

    policies = resize_policies(patch_size).filter(lambda p: p.bound(patch_size) <= 2000)
    schemes = st.sampled_from(
        [positions.Absolute(), positions.Fractional(), positions.Fractional(True, True), positions.Raster()]
    )
    return st.builds(
        build,
        policies,
        st.integers(0, 200),
        drop=drop_policies(),
        positions=schemes,
        packer=packer_factories(),
        max_images=st.integers(1, 9),
        rows_per_batch=st.integers(1, 4),
        dtype=st.sampled_from(["uint8", "float32"]),
        seed=st.integers(0, 2**64 - 1),
    )
