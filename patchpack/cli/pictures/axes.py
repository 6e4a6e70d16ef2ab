"""The style, headings and axes of the figures, and the text that their font can show.

Figures are drawn with matplotlib's objects, without pyplot. matplotlib is imported only when a figure is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchpack.cli.pictures.sheet import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# two colours of Okabe and Ito, which colour-blind people tell apart: one for the files, one for the recipe
FILES, RECIPE = "#0072b2", "#d55e00"
BAND = "#e4e8ec"
# the user's matplotlib settings would change the picture
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.usetex": False,
    "text.parse_math": False,  # a file name may hold dollars
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.8,
}


@contextmanager
def own_style() -> Iterator[None]:
    """Draw in the style of these figures inside the ``with`` block. Afterwards restore the user's settings of matplotlib."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def heading(axes: Axes, text: str, note: str) -> None:
    """Write a heading above axes.

    Args:
        axes: the axes.
        text: the heading.
        note: a smaller line below the heading.
    """
    axes.annotate(text, (0, 1), (0, 27), xycoords="axes fraction", textcoords="offset points", size=13, weight="bold")
    note_above(axes, note, color=FAINT)


def note_above(axes: Axes, text: str, *, x: float = 0, **style: Any) -> None:
    """Write a small line between the heading and the axes.

    Args:
        axes: the axes.
        text: the line.
        x: position of the line, from 0 (left) to 1 (right). Default 0.
        **style: properties of the text for matplotlib.
    """
    axes.annotate(text, (x, 1), (0, 9), xycoords="axes fraction", textcoords="offset points", **style)


def ticks(axis: Any, low: float, high: float, most: int = 7) -> None:
    """Write plain numbers on a logarithmic axis, as many as fit side by side.

    Args:
        axis: an axis of matplotlib.
        low: lower end of the axis.
        high: upper end of the axis.
        most: the most numbers to write. Default 7.
    """
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        at = np.outer(powers, steps).ravel()
        at = at[(at >= low) & (at <= high)]
        if len(at) <= most:
            break
    mark(axis, {f"{value:,.10g}": value for value in at.tolist()})


def mark(axis: Any, places: dict[str, float]) -> None:
    """Write texts at positions of an axis, and draw a grid line at each position."""
    axis.set_ticks([*places.values()], [*places])
    axis.set_ticks([], minor=True)
    axis.axes.grid(axis=axis.axis_name, color=BAND, lw=0.7)


def source_name(source: str) -> str:
    """Return the last part of a source's name for a picture. Folders, the query of a URL and commands are left out."""
    if source.startswith("pipe:"):
        return "a pipe"
    if "://" in source:
        source = re.split(r"[?#]", source)[0].rstrip("/")
    else:
        source = source if re.search(r"[*?\[{]", source) else str(Path(source).resolve())
    return re.split(r"[/\\](?![^{]*})", source)[-1] or source


def shown(text: str, longest: int) -> str:
    """Return text shortened to fit a title. A character that the font lacks becomes a box, without matplotlib's warning."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    text = "".join(c if ord(c) in glyphs else "\N{WHITE SQUARE}" for c in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"
