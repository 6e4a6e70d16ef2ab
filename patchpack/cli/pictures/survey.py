"""The figure of ``patchpack inspect``: sizes, shapes and tokens of the images, and the fill of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from patchpack.cli.pictures.axes import BAND, FILES, RECIPE, heading, mark, note_above, own_style, shown, source_name, ticks
from patchpack.cli.pictures.sheet import FAINT, HATCH, INK, PAPER
from patchpack.cli.survey.images import OFF_SQUARE, Survey
from patchpack.cli.survey.suggestion import Suggestion
from patchpack.cli.terminal import count_of, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 1500  # images; up to this number each is a dot


def draw_survey(found: Survey, chosen: Suggestion, source: str, path: Path) -> Path:
    """Draw a survey and its suggestion into a file. Return the path.

    Args:
        found: the survey. It has at least one image.
        chosen: the suggestion for it.
        source: the source as the user typed it. Only its last part is shown.
        path: path of the file, as `figure_path` returns it.
    """
    from matplotlib.figure import Figure

    with own_style():
        figure = Figure(figsize=(12, 10), facecolor=PAPER)
        _head(figure, found, source)
        _sizes(figure.add_axes((0.08, 0.475, 0.315, 0.378)), found)  # a square
        _shapes(figure.add_axes((0.535, 0.475, 0.435, 0.378)), found)
        _tokens(figure.add_axes((0.08, 0.06, 0.375, 0.285)), found, chosen)
        _fills(figure.add_axes((0.61, 0.06, 0.36, 0.285)), chosen)
        figure.savefig(path, dpi=150, format=path.suffix[1:].lower())
    return path


def _head(figure: Figure, found: Survey, source: str) -> None:
    count = count_of(len(found.sizes), "image") + ("" if found.complete else ", the first of more")
    title = f"{shown(source_name(source), 58 - len(count))}: {count}"
    losses = f"{count_of(len(found.rejected), 'sample')} cannot be used" if found.rejected else "every sample can be used"
    if found.faults:
        losses += f", {count_of(len(found.faults), 'shard')} cut short"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.formats.most_common(5))
    figure.text(0.08, 0.957, title, size=18, weight="bold")
    figure.text(0.08, 0.93, losses, size=11.5, color=RECIPE if found.rejected or found.faults else FAINT)
    figure.text(0.97, 0.93, kinds, size=11.5, color=FAINT, ha="right")


def _sizes(axes: Axes, found: Survey) -> None:
    """Draw height against width on equal scales, so that all images of one shape lie on a diagonal."""
    from matplotlib.patheffects import withStroke

    low, high = _span(found.sizes, least=4.0)
    ends = np.array([low, high])
    axes.fill_between(ends, ends / OFF_SQUARE, ends * OFF_SQUARE, color=BAND, lw=0, zorder=0)
    start = low * (high / low) ** 0.05
    for ratio, name, where in ((1, "square", "bottom"), (2, "twice as tall", "bottom"), (0.5, "twice as wide", "top")):
        axes.plot(ends, ends * ratio, color=FAINT, lw=0.9, ls="-" if ratio == 1 else (0, (4, 3)), zorder=3)
        if ratio == 1 and high / low > 300:  # no room between the lines
            continue
        axes.annotate(
            name, (start / min(1, ratio), start * max(1, ratio)), (0, 5 if where == "bottom" else -5), rotation=45,
            textcoords="offset points", rotation_mode="anchor", va=where, size=9, color=INK, zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER, alpha=0.8)],
        )  # fmt: skip
    heights, widths = found.sizes.T
    note = _dots_or_density(axes, widths, heights, (low, high))
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="width in pixels", ylabel="height in pixels")
    for axis in (axes.xaxis, axes.yaxis):
        ticks(axis, low, high, most=6)
    heading(axes, "Height and width", note)


def _dots_or_density(axes: Axes, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], span: tuple[float, float]) -> str:
    """Draw a dot per image for few images, and a density for many. Return a note that says which was drawn."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    if len(x) <= _DOTS:
        places, counts = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
        order = np.argsort(-counts)  # small dots over large ones
        area = np.clip(400 / np.sqrt(len(x)), 22, 90) * np.sqrt(counts[order])
        axes.scatter(
            places[order, 0], places[order, 1], s=area, color=FILES, alpha=0.55, edgecolor=PAPER, linewidth=0.5, zorder=2
        )
        return "a dot per size, larger where several images share it"
    shades = LinearSegmentedColormap.from_list("shades", ["#a9d3ee", FILES, "#00243d"])
    low, high = np.log10(span)
    extent = (low, high, low, high)
    cells = axes.hexbin(
        x, y, gridsize=(46, 26), xscale="log", yscale="log", extent=extent, mincnt=1, norm=LogNorm(),
        cmap=shades, linewidths=0.2, edgecolors="face", zorder=2,
    )  # fmt: skip
    cells.set_clim(vmin=1)
    bar = axes.figure.colorbar(cells, cax=axes.inset_axes((1.03, 0, 0.035, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0, labelsize=9)
    ticks(bar.ax.yaxis, *cells.get_clim(), most=6)
    return "images per cell"


def _shapes(axes: Axes, found: Survey) -> None:
    """Draw a histogram of width / height. No bin holds both square images and images that are not square."""
    slant = np.exp(np.abs(np.log(found.aspects)))  # the long side over the short one
    reach = min(16.0, max(4.0, float(np.quantile(slant, 0.999))))
    per_band = 5 if len(found.sizes) > 200 else 3
    step = 2 * np.log(OFF_SQUARE) / per_band
    count = int(np.ceil((np.log(reach) - np.log(OFF_SQUARE)) / step)) + per_band // 2
    edges = np.exp(step * (np.arange(-count - 1, count + 1) + 0.5))
    inner = np.clip(found.aspects, 1 / OFF_SQUARE * 1.0001, OFF_SQUARE / 1.0001)
    values = np.clip(np.where(found.off_square, found.aspects, inner), edges[0], edges[-1])
    counts, _ = np.histogram(values, edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    outside = np.abs(np.log(middle)) > np.log(OFF_SQUARE)
    axes.axvspan(1 / OFF_SQUARE, OFF_SQUARE, color=BAND, lw=0, zorder=0)
    axes.bar(
        edges[:-1], counts, np.diff(edges), align="edge", edgecolor=PAPER, linewidth=0.8,
        color=np.where(outside, FILES, "#7fb8d8"), zorder=2,
    )  # fmt: skip
    axes.set(
        xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, counts.max() * 1.08), xlabel="taller  ←  width / height  →  wider"
    )
    marks = {"1.5": 1.5, "2": 2.0, "3": 3.0, "4": 4.0} if reach < 6 else {"2": 2.0, "4": 4.0, "8": 8.0, "16": 16.0}
    names = ["2/3" if name == "1.5" else f"1/{name}" for name in marks]
    places = {**{name: 1 / at for name, at in zip(names, marks.values(), strict=True)}, "1": 1.0, **marks}
    mark(axes.xaxis, {name: at for name, at in places.items() if edges[0] <= at <= edges[-1]})
    _count_axis(axes)
    beyond = "; the bars at the ends hold all that is beyond" if slant.max() > edges[-1] else ""
    heading(
        axes, f"{percent(found.off_square.mean())} of images are more than 20 % from square", f"shaded: within 20 %{beyond}"
    )


def _tokens(axes: Axes, found: Survey, chosen: Suggestion) -> None:
    """Draw the tokens per image at the size in the file and under the recipe. The row length is marked on the same axis."""
    packed, native = chosen.packed, found.native_tokens
    low, high = _span(np.concatenate([native, packed.tokens, [packed.seq_len]]), least=8.0)
    edges = np.unique(np.floor(np.geomspace(low, high, 34))) + 0.5  # a count lies between two edges
    edges = np.concatenate([[edges[0] / 2], edges]) if edges[0] > low else edges
    for tokens, colour, solid in ((native, FILES, True), (packed.tokens, RECIPE, False)):
        counts, _ = np.histogram(tokens, edges)
        drawn = np.where(counts, counts, np.nan)  # no line along zero
        axes.stairs(drawn, edges, fill=solid, color=colour, alpha=0.55 if solid else 1, lw=2, zorder=2 + (not solid))
    axes.axvline(packed.seq_len, color=INK, lw=1.2, ls=(0, (4, 3)), zorder=1)
    axes.set(xscale="log", xlim=(low, high), xlabel="tokens per image")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    right = np.log(packed.seq_len / low) > 0.6 * np.log(high / low)
    axes.annotate(
        f"seq_len {packed.seq_len}", (packed.seq_len, 1), (-5 if right else 5, -2), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right" if right else "left", va="top", size=9.5,
    )  # fmt: skip
    ticks(axes.xaxis, low, high)
    _count_axis(axes)
    heading(axes, "Tokens per image in patches of 16 x 16", "")
    for place, side, name, tokens, colour in (
        (0, "left", "files", native, FILES),
        (1, "right", "suggested recipe", packed.tokens, RECIPE),
    ):
        note_above(axes, f"{name}: median {np.median(tokens):,.0f}", x=place, ha=side, color=colour, weight="bold")


def _fills(axes: Axes, chosen: Suggestion) -> None:
    """Draw the fraction of real tokens, for one image per row and for packed rows of several lengths."""
    tokens = chosen.packed.tokens
    bars = [(f"one image\nper row of {tokens.max()}", float(tokens.mean() / tokens.max()), "padded", False)]
    for packed in chosen.tried:
        per_row = "one row" if packed.num_rows <= 1 else f"{len(packed.tokens) / packed.num_rows:.0f} images/row"
        bars.append((f"packed rows\nof {packed.seq_len}", packed.fill, per_row, packed is chosen.packed))
    for place, (_, fill, note, best) in enumerate(bars):
        colour = RECIPE if best else "#8a94a0" if place == 0 else "#efb48d"
        axes.barh(place, 1, color=PAPER, edgecolor=HATCH, hatch="////", height=0.62, lw=0.8, zorder=1)
        axes.barh(place, fill, color=colour, height=0.62, zorder=2)
        axes.text(1.015, place, f"{100 * fill:.1f} %\n", va="center", weight="bold", linespacing=1.2)
        axes.text(1.015, place, f"\n{note}", va="center", size=9, color=FAINT, linespacing=1.2)
    axes.set(xlim=(0, 1.22), ylim=(len(bars) - 0.5, -0.5), xlabel="real tokens in all rows but the last; hatched: padding")
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "25", "50", "75", "100 %"))
    axes.tick_params(axis="y", length=0)
    for label, (*_, best) in zip(axes.get_yticklabels(), bars, strict=True):
        label.set(color=RECIPE if best else INK, weight="bold" if best else "normal")
    axes.spines[["left", "bottom"]].set_visible(False)
    heading(axes, "How full the rows get", chosen.call)


def _span(values: npt.NDArray[Any], *, least: float) -> tuple[float, float]:
    """Return the ends of a logarithmic axis around some values. The ends are at least a factor `least` apart."""
    low, high = float(values.min()), float(values.max())
    margin = max(1.15 * (high / low) ** 0.03, (least * low / high) ** 0.5)
    return low / margin, high * margin


def _count_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,g}k" if value >= 1e4 else f"{value:,.0f}"))
    axes.set_ylabel("images")
    axes.grid(axis="y", color=BAND, lw=0.7)
