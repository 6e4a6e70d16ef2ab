"""The recipe that suits the images of a survey."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.cli.survey.images import Survey
from patchpack.plan import recipes
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.recipe import Recipe
from patchpack.types import Header, Size

_ROW_LENS = (512, 1024, 2048, 4096)


class Packed(NamedTuple):
    """The result of packing the sizes of a survey with a recipe.

    Attributes:
        seq_len: tokens per row.
        tokens: number of tokens of every image.
        fill: fraction of real tokens in all rows except the last, which is seldom full. If there is only one row, the fraction
            in this row.
        num_rows: number of rows.
    """

    seq_len: int
    tokens: npt.NDArray[np.int64]
    fill: float
    num_rows: int


class Suggestion(NamedTuple):
    """A recipe that suits the images of a survey.

    Attributes:
        call: the recipe as code.
        reason: the reason for this recipe, as text.
        packed: the result of packing the sizes of the survey with the recipe.
        tried: the results of this preset at every row length that was tried.
    """

    call: str
    reason: str
    packed: Packed
    tried: list[Packed]


def suggest(found: Survey, *, labelled: bool) -> Suggestion:
    """Return a preset for these images, with the shortest rows that are at most half a percent less full than longer rows."""
    dense = bool(np.median(found.native_tokens) > 2048)
    if dense:
        name, budget, reason = "siglip2_naflex", 1024, "large pages or screenshots: a budget of 1024 patches keeps them legible"
    elif labelled:
        name, budget, reason = "navit", None, "labelled images: resolution and token drop drawn per image train fastest"
    else:
        name, budget, reason = "siglip2_naflex", 256, "unlabelled images: one budget of 256 patches, nothing dropped"
    options = {} if budget is None else {"max_patches": budget}
    lengths = [n for n in _ROW_LENS if n >= (budget or 256)]
    tried = [pack_sizes(recipes.get(name, seq_len=n, **options), n, found) for n in lengths]
    best = tried[0]
    for packed in tried[1:]:
        if packed.fill > best.fill + 0.005:
            best = packed
    arguments = ", ".join(f"{k}={v}" for k, v in {"seq_len": best.seq_len, **options}.items())
    return Suggestion(f"pp.recipes.{name}({arguments})", reason, best, tried)


def pack_sizes(recipe: Recipe, seq_len: int, found: Survey) -> Packed:
    """Plan an epoch from sizes alone.

    Args:
        recipe: the recipe.
        seq_len: number of tokens per row.
        found: the survey. It has at least one image.
    """
    planner = OnlinePlanner(recipe)
    headers = [Header(key, "", "", Size(int(h), int(w)), None) for key, (h, w) in zip(found.keys, found.sizes, strict=True)]
    plans = [*planner.feed(headers), *planner.finish()]
    rows = np.concatenate([np.add.reduceat(plan.table.num_tokens, plan.offsets[:-1]) for plan in plans])
    full = rows[:-1] if len(rows) > 1 else rows
    return Packed(seq_len, np.concatenate([plan.table.num_tokens for plan in plans]), float(full.mean()) / seq_len, len(rows))
