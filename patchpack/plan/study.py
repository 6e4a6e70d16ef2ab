"""The effect of a recipe on images of given sizes, without reading a pixel: rows, fill, waits, lost images, shortened images.

The sizes go through `OnlinePlanner` and the recipe's own packer. Training for one epoch with the images in this order would
therefore give the same figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.losses import Rejection
from patchpack.plan._integers import Int64
from patchpack.plan._watch import Watch
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.rng import key_hash
from patchpack.types import BatchPlan, Event, Header, PlanTable, Size

_BLOCK = 1 << 14  # number of sizes decided at a time
_MAX_SIDE = (1 << 31) - 1  # plans hold sizes as int32


class Spread(NamedTuple):
    """The distribution of a quantity: its mean, and its percentiles 0, 5, 50, 95 and 100 (numpy's linear interpolation)."""

    mean: float
    min: float
    p5: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Return the spread of at least one value."""
        return cls(float(values.mean()), *(float(v) for v in np.percentile(values, (0, 5, 50, 95, 100))))


@dataclass(frozen=True, eq=False)
class Study:
    """The figures of one epoch of a recipe over images of given sizes. Show them with ``print(study.table())`` or `plot`.

    Attributes:
        recipe: the recipe that was studied.
        epoch: the epoch that was studied.
        num_images: number of images that are in rows.
        num_rows: number of rows.
        refused: number of images that the resize rule refuses, or that have more than ``recipe.max_pixels`` pixels.
        over_long: number of images that have more tokens than a row.
        fill_rate: share of the token positions of all rows that hold a token.
        steady_fill_rate: fill rate of only the rows that closed before the end of the epoch. It estimates the fill rate of a
            long epoch. If no row closed before the end, `steady_fill_rate` equals `fill_rate`.
        images_per_row: number of images in a row, as a `Spread` over rows.
        tokens: number of packed tokens of an image, as a `Spread` over images.
        upscaled: share of images that are resampled to more pixels than were read.
        distortion: ``|log(aspect after / aspect before)|`` of an image, as a `Spread` over images. This is the change of the
            aspect ratio (width / height) from the part that is read to the resized image.
        dropped_tokens: share of all patches that are in no row, because they were dropped, or cut by the packer.
        shortened: number of images from which the packer cut tokens.
        waits: number of images that arrive between an image and the closing of its row, as a `Spread` over images.
        out_of_slots: share of rows that have no free slot left, although they have room for tokens.
        attention: Σn² / seq_len² of a row with images of n tokens, as a `Spread` over rows. This is the share of a dense
            attention matrix that lies within images.
        num_tokens: int64 ``[num_images]``, tokens of each image, in the order of rows and slots.
        offsets: int64 ``[num_rows + 1]``, begin and end of each row in `num_tokens`.
        row_lens: int64 ``[num_rows]``, number of tokens that each row can hold.
        image_waits: int64 ``[num_images]``, number of images that arrived between each image and the closing of its row. The
            images are in arrival order.
    """

    recipe: Recipe
    epoch: int
    num_images: int
    num_rows: int
    refused: int
    over_long: int
    fill_rate: float
    steady_fill_rate: float
    images_per_row: Spread
    tokens: Spread
    upscaled: float
    distortion: Spread
    dropped_tokens: float
    shortened: int
    waits: Spread
    out_of_slots: float
    attention: Spread
    num_tokens: Int64 = field(repr=False)
    offsets: Int64 = field(repr=False)
    row_lens: Int64 = field(repr=False)
    image_waits: Int64 = field(repr=False)

    @property
    def longest_wait(self) -> int:
        """Largest number of images that arrived between an image and the closing of its row."""
        return int(self.waits.max)

    @property
    def row_tokens(self) -> Int64:
        """Number of tokens in each row, int64 ``[num_rows]``."""
        return np.add.reduceat(self.num_tokens, self.offsets[:-1])

    def table(self) -> str:
        """Return all figures as lines of plain text."""
        spreads = {
            "tokens per image": (self.tokens, 1, ".0f"),
            "images per row": (self.images_per_row, 1, ".1f"),
            "items an image waits": (self.waits, 1, ".0f"),
            "aspect ratio moves by, %": (Spread(*(100 * np.expm1(self.distortion))), 1, ".1f"),
            "attention within images, %": (self.attention, 100, ".1f"),
        }
        lines = [
            self._head(),
            f"fill {100 * self.fill_rate:.2f} %, {100 * self.steady_fill_rate:.2f} % before the last rows; "
            f"{100 * self.out_of_slots:.1f} % of rows ran out of slots",
            f"{100 * self.dropped_tokens:.1f} % of patches dropped, {100 * self.upscaled:.1f} % of images made larger, "
            f"{self.shortened:,} cut to fill a row",
            f"{self.refused:,} refused, {self.over_long:,} too long for a row",
            "",
            f"{'':<26}" + "".join(f"{name:>9}" for name in ("mean", "min", "5 %", "median", "95 %", "max")),
        ]
        for name, (spread, scale, form) in spreads.items():
            lines.append(f"{name:<26}" + "".join(f"{scale * value:>9,{form}}" for value in spread))
        return "\n".join(lines)

    def _head(self) -> str:
        row_lens = " to ".join(f"{n:,}" for n in dict.fromkeys((self.row_lens.min(), self.row_lens.max())))
        slots = f"{self.recipe.max_images:,} slots" if self.recipe.max_images > 1 else "one slot"
        return f"{self.num_images:,} images in {self.num_rows:,} rows of {row_lens} tokens and {slots} (epoch {self.epoch})"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw histograms of tokens per image, images per row, fill of rows and waits into a .png, .pdf or .svg.

        Raises:
            ConfigError: `path` has another suffix or cannot be written, or matplotlib is missing.
        """
        suffix = os.path.splitext(os.fspath(path))[1].lower()
        if suffix not in (".png", ".pdf", ".svg"):
            raise ConfigError(f"expected a path that ends in .png, .pdf or .svg, got {os.fspath(path)!r}")
        try:
            from matplotlib import style
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ConfigError(
                f"a plot needs matplotlib, which is not installed ({error}): pip install 'patchpack[viz]'"
            ) from error
        panels = (
            (self.num_tokens, "tokens per image", "images"),
            (np.diff(self.offsets), f"images per row, of {self.recipe.max_images:,} slots", "rows"),
            (100 * self.row_tokens / self.row_lens, f"fill of a row in %, {100 * self.fill_rate:.2f} in all", "rows"),
            (self.image_waits, "items an image waits for its row to close", "images"),
        )
        with style.context(["default", {"font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}]):
            figure = Figure(figsize=(11, 7.5), layout="constrained")
            for axes, (values, label, unit) in zip(figure.subplots(2, 2).flat, panels, strict=True):
                axes.hist(values, bins=_bins(values), color="#0072b2", alpha=0.75)
                axes.set(xlabel=label, ylabel=unit)
                axes.locator_params(integer=values.dtype.kind == "i")
            figure.suptitle(self._head(), weight="bold")
            try:
                figure.savefig(path, dpi=150, format=suffix[1:])
            except OSError as error:
                raise ConfigError(f"{os.fspath(path)} cannot be written, {type(error).__name__}: {error}") from error


def study(sizes: npt.ArrayLike, recipe: Recipe, *, epoch: int = 0, keys: Sequence[str] | None = None) -> Study:
    """Measure the effect of a recipe from the sizes of images alone.

    Args:
        sizes: int ``[n, 2]``, (height, width) of each image in pixels after orientation, >= 1, in arrival order.
        recipe: recipe with the policies, the packer and the seed.
        epoch: number of the epoch, on which the random draws depend. Default 0.
        keys: keys of the n images. The random draws of an image depend on its key. Default None: "0", "1", …

    Returns:
        `Study`, the figures of the epoch.

    Raises:
        ConfigError: `sizes` are not integers >= 1, the number of `keys` is not n, or the recipe takes none of the images.

    Example:
        >>> import patchpack as pp
        >>> pp.study([[480, 640]] * 100, pp.recipes.siglip2_naflex()).images_per_row.mean
        4.0
    """
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"study needs a Recipe, such as patchpack.recipes.navit(), got {recipe!r}")
    table = _require_sizes(sizes)
    names = [str(i) for i in range(len(table))] if keys is None else list(keys)
    if len(names) != len(table):
        raise ConfigError(f"there must be one key per size, got {len(table)} sizes and {len(names)} keys")
    watch = Watch(recipe.packer)
    planner = OnlinePlanner(recipe.replace(packer=watch), epoch=epoch, name="the list of sizes")
    plans: list[BatchPlan] = []
    for start in range(0, len(table), _BLOCK):
        plans += planner.feed(_events(table, names, recipe.max_pixels, range(start, min(start + _BLOCK, len(table)))))
    plans += planner.finish()
    if plans[-1].fatal:
        raise ConfigError(plans[-1].fatal)

    decided = PlanTable(*(np.concatenate(columns) for columns in zip(*(plan.table for plan in plans), strict=True)))
    tokens = decided.num_tokens.astype(np.int64)
    counts = np.concatenate([np.diff(plan.offsets) for plan in plans]).astype(np.int64)
    row_lens = np.concatenate([np.full(plan.num_rows, plan.seq_len, dtype=np.int64) for plan in plans])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    row_tokens, pairs = np.add.reduceat(tokens, offsets[:-1]), np.add.reduceat(tokens**2, offsets[:-1])
    placed = np.array([header.location for plan in plans for header in plan.headers], dtype=np.int64)
    steady = np.array([i not in watch.at_end for i in placed[offsets[:-1]].tolist()])
    steady = steady if steady.any() else ~steady
    waits = np.array([watch.waits[i] for i in sorted(placed.tolist())], dtype=np.int64)
    height, width = decided.resized.astype(np.float64).T
    box_height, box_width = decided.box[:, 2:].astype(np.float64).T
    outside = np.setdiff1d(np.arange(len(table)), placed)
    refused = _refused(table[outside], [names[i] for i in outside.tolist()], outside, recipe, epoch)
    return Study(
        recipe=recipe,
        epoch=epoch,
        num_images=len(tokens),
        num_rows=len(counts),
        refused=refused,
        over_long=len(outside) - refused,
        fill_rate=float(row_tokens.sum() / row_lens.sum()),
        steady_fill_rate=float(row_tokens[steady].sum() / row_lens[steady].sum()),
        images_per_row=Spread.of(counts),
        tokens=Spread.of(tokens),
        upscaled=float((height * width > box_height * box_width).mean()),
        distortion=Spread.of(np.abs(np.log(width * box_height / (height * box_width)))),
        dropped_tokens=float(1 - tokens.sum() / decided.grid.astype(np.int64).prod(axis=1).sum()),
        shortened=sum(plan.info.shortened for plan in plans),
        waits=Spread.of(waits),
        out_of_slots=float(((counts == recipe.max_images) & (row_tokens < row_lens)).mean()),
        attention=Spread.of(pairs / row_lens**2),
        num_tokens=tokens,
        offsets=offsets,
        row_lens=row_lens,
        image_waits=waits,
    )


def _events(table: Int64, names: list[str], max_pixels: int, positions: range) -> Iterator[Event]:
    """Yield the events of a source with images of these sizes: a header, or a rejection if an image has too many pixels."""
    for i, (height, width) in zip(positions, table[positions.start : positions.stop].tolist(), strict=True):
        if height * width > max_pixels:
            reason = f"{height} x {width} (height x width) has more than max_pixels={max_pixels} pixels"
            yield Rejection("", names[i], "", "header", reason)
        else:
            yield Header(names[i], "", "", Size(height, width), i)


def _refused(sizes: Int64, names: list[str], positions: Int64, recipe: Recipe, epoch: int) -> int:
    """Return how many of some images are refused at every row length. None of these images is in a row."""
    refused = sizes.prod(axis=1) > recipe.max_pixels
    for patch_size in recipe.patch_sizes:
        plan = plan_table(recipe, sizes, key_hash(names), epoch=epoch, seen=positions, patch_size=patch_size)
        refused |= plan.num_tokens == 0
    return int(refused.sum())


def _require_sizes(sizes: npt.ArrayLike) -> Int64:
    table = np.asarray(sizes)
    if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu" or not len(table):
        raise ConfigError(f"sizes must be integers [n, 2], height and width, n >= 1, got {table.dtype} {list(table.shape)}")
    bad = np.flatnonzero(((table < 1) | (table > _MAX_SIDE)).any(axis=1))
    if bad.size:
        raise ConfigError(
            f"sizes must be in 1 … {_MAX_SIDE}, got sizes[{bad[0]}] = {table[bad[0]].tolist()} ({bad.size} such): leave them "
            f"out"
        )
    return table.astype(np.int64)


def _bins(values: np.ndarray) -> npt.NDArray[np.float64]:
    """Return the edges of about 40 bins. If the values are integers, each bin covers the same number of integers."""
    low, high = float(values.min()), float(values.max())
    step = max(1.0, np.ceil((high - low + 1) / 40)) if values.dtype.kind == "i" else max(0.1, (high - low) / 40)
    return np.arange(low - 0.5 * (values.dtype.kind == "i"), high + step, step)
