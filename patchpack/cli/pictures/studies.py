"""The figure of ``patchpack plan``: fill, images per row and waiting times of every combination, side by side."""

from __future__ import annotations

from pathlib import Path

from patchpack.cli.pictures.axes import BAND, FILES, RECIPE, heading, own_style, shown, ticks
from patchpack.cli.pictures.sheet import HATCH, INK, PAPER
from patchpack.cli.survey.choice import Choice, row_lens_of
from patchpack.plan.study import Study


def draw_studies(studies: list[Study], choice: Choice, title: str, path: Path) -> Path:
    """Draw the fill, images per row and waiting times of every combination into a file. Return the path.

    Args:
        studies: the combinations.
        choice: the recommended combination, which is drawn in another colour.
        title: title of the figure. Characters that the font lacks become boxes.
        path: path of the file, as `figure_path` returns it.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with own_style():
        figure = Figure(
            figsize=(13, 2.6 + 0.42 * max(3, len(studies))),
            facecolor=PAPER,
            layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2),
        )
        figure.suptitle(shown(title, 90), size=16, weight="bold", x=0.012, ha="left")
        fills, images, waits = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 1))
        names = [f"{row_lens_of(s)} tokens, {s.recipe.max_images} slots" for s in studies]
        for place, s in enumerate(studies):
            colour = RECIPE if s is choice.study else FILES
            fill, spread = 100 * s.steady_fill_rate, s.images_per_row
            fills.barh(place, 100, color=PAPER, edgecolor=HATCH, hatch="////", height=0.6, lw=0.8)
            fills.barh(place, fill, color=colour, height=0.6)
            fills.text(102, place, f"{fill:.2f} %", va="center", weight="bold", color=colour)
            images.plot([spread.min, spread.max], [place, place], color=colour, lw=2)
            images.plot([spread.p5, spread.p95], [place, place], color=colour, lw=7, solid_capstyle="butt")
            images.plot(s.recipe.max_images, place, marker="|", ms=18, mew=2.5, color=INK)
            images.plot(spread.mean, place, marker="o", ms=7, mew=2, mec=colour, mfc=PAPER)
            waits.plot([s.waits.median, s.waits.max], [place, place], color=colour, lw=2)
            waits.plot([s.waits.median, s.waits.p95], [place, place], color=colour, lw=7, solid_capstyle="butt")
            waits.annotate(
                f"{s.longest_wait:,}", (s.waits.max, place), (5, 0), textcoords="offset points", va="center", color=colour
            )
        fills.set_yticks(range(len(studies)), names)
        fills.set(xlim=(0, 125), ylim=(len(studies) - 0.4, -0.6), xlabel="real tokens; hatched: padding")
        fills.set_xticks((0, 50, 100), ("0", "50", "100 %"))
        fills.spines[["left", "bottom"]].set_visible(False)
        images.set(xscale="log", xlabel="thin: least to most, thick: 5 to 95 %, dot: mean")
        waits.set(xlim=(0, 1.2 * max(1, *(s.waits.max for s in studies))), xlabel="thick: median to 95 %, thin: to the longest")
        chosen = fills.get_yticklabels()[studies.index(choice.study)]
        chosen.set(color=RECIPE, weight="bold")
        for axes in (images, waits):
            axes.grid(axis="x", color=BAND, lw=0.7)
        low, high = images.get_xlim()
        ticks(images.xaxis, low, high, most=6)
        for axes in (fills, images, waits):
            axes.tick_params(axis="y", length=0)
        heading(fills, "Fill of rows that closed in the epoch", "recommended: the orange one")
        heading(images, "Images per row", "black: slots")
        heading(waits, "Items an image waits", "until its row is closed")
        figure.savefig(path, dpi=150, format=path.suffix[1:].lower())
    return path
