"""Tables and the figure of `flexivit.py`, from its lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Line = Mapping[str, Any]

INK, FAINT = "#22272b", "#9aa3ab"
# Okabe and Ito's colours, which colour-blind people tell apart
FIXED_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7")
FLEXIBLE_STYLES = ((FAINT, "-"), ("#0072b2", "-"), ("#d55e00", (0, (4, 2))), (INK, "-"))


class Spread(NamedTuple):
    """Over seeds."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ({self.low:.1f}–{self.high:.1f})"


def spread(lines: Sequence[Line], arm: str, what: str, size: int) -> Spread | None:
    """Of one number of an arm's lines, accuracies in percent; None where there is none."""
    factor = 1 if what == "ms per image" else 100
    values = [factor * line[what][str(size)] for line in lines if line["arm"] == arm and str(size) in line[what]]
    return Spread(float(np.mean(values)), min(values), max(values)) if values else None


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def accuracies(lines: Sequence[Line], arms: Sequence[str], sizes: Sequence[int]) -> str:
    """Accuracy in percent at each patch size, mean and range of the seeds; "plain": kernels resized like pictures."""
    rows = []
    for arm in _known(lines, arms):
        for what, name in (("accuracy", arm), ("plain", f"{arm}, plain")):
            cells = [spread(lines, arm, what, size) for size in sizes]
            if any(cells):
                rows.append([name, *(str(cell or "") for cell in cells)])
    return markdown(["trained / asked at", *map(str, sizes)], rows)


def distances(lines: Sequence[Line], fixed: Mapping[str, int], flexible: Sequence[str]) -> str:
    """Points of accuracy between each flexible arm and the fixed model of a size at that size, seed by seed."""
    own = {(size, line["seed"]): line["accuracy"][str(size)] for arm, size in fixed.items() for line in _of(lines, arm)}
    rows = []
    for arm in _known(lines, flexible):
        cells = []
        for size in fixed.values():
            found = [
                100 * (line["accuracy"][str(size)] - own[size, line["seed"]])
                for line in _of(lines, arm)
                if (size, line["seed"]) in own
            ]
            cells.append(f"{np.mean(found):+.1f} ({min(found):+.1f} … {max(found):+.1f})" if found else "")
        rows.append([arm, *cells])
    return markdown(["flexible − fixed at", *map(str, fixed.values())], rows)


def costs(lines: Sequence[Line], arms: Sequence[str], sizes: Sequence[int]) -> str:
    """CPU seconds and steps of a training, and ms of CPU time per image at inference."""
    rows = []
    for arm in _known(lines, arms):
        of = _of(lines, arm)
        seconds = np.mean([line["cpu s"]["training"] + line["cpu s"]["teacher's answers"] for line in of])
        times = [spread(lines, arm, "ms per image", size) for size in sizes]
        rows.append([arm, f"{seconds:.0f}", str(of[0]["steps"]), *(f"{time.mean:.3f}" if time else "" for time in times)])
    total = sum(sum(line["cpu s"].values()) for line in lines) / 60
    head = ["arm", "CPU s of training", "steps", *(f"ms per image at {size}" for size in sizes)]
    return f"{markdown(head, rows)}\n\n{total:.1f} CPU minutes in all, without painting"


def _of(lines: Sequence[Line], arm: str) -> list[Line]:
    return [line for line in lines if line["arm"] == arm]


def _known(lines: Sequence[Line], arms: Sequence[str]) -> list[str]:
    return [arm for arm in arms if _of(lines, arm)]


def draw(lines: Sequence[Line], fixed: Mapping[str, int], flexible: Sequence[str], path: Path) -> Path:
    """Accuracy against patch size, and against the time of an image at inference; bars are the range of the seeds.

    Args:
        lines: of the runs.
        fixed: arm → its patch size.
        flexible: arms of the flexible models, the last of which is drawn boldest.
        path: .png, .svg or .pdf.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _by_size(left, lines, fixed, flexible)
        _by_time(right, lines, fixed, flexible)
        for panel in (left, right):
            panel.set_ylabel("test accuracy, %")
            panel.grid(color="#e4e8ec", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.tick_params(color=FAINT, length=3)
            for side in ("top", "right"):
                panel.spines[side].set_visible(False)
            for side in ("bottom", "left"):
                panel.spines[side].set_color(FAINT)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def _by_size(panel: Any, lines: Sequence[Line], fixed: Mapping[str, int], flexible: Sequence[str]) -> None:
    """Every model at every size; a fixed one's own size is the large dot."""
    sizes = list(fixed.values())
    for (arm, own), colour in zip(fixed.items(), FIXED_COLOURS, strict=True):
        points = {size: found for size in sizes if (found := spread(lines, arm, "accuracy", size))}
        _line(panel, list(points), list(points.values()), colour, "-", width=1.5, label=f"fixed at {own}")
        plain = {size: found for size in sizes if (found := spread(lines, arm, "plain", size))}
        panel.plot(list(plain), [found.mean for found in plain.values()], "x", color=colour, markersize=5, alpha=0.8)
        if own in points:
            panel.plot(own, points[own].mean, "o", color=colour, markersize=9)
    panel.plot([], [], "x", color=FAINT, label="kernel resized\nlike a picture")
    arm = flexible[-1]
    points = {size: found for size in sizes if (found := spread(lines, arm, "accuracy", size))}
    _line(panel, list(points), list(points.values()), INK, "-", width=2.5, label="one flexible model")
    panel.set_xticks(sizes, [f"{size}" for size in sizes])
    panel.set_xlabel("patch size at inference, pixels")
    panel.set_ylim(0, 100)
    panel.set_title("A fixed model knows its own patch size only", fontsize=10.5, loc="left")
    panel.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 0.0))


def _by_time(panel: Any, lines: Sequence[Line], fixed: Mapping[str, int], flexible: Sequence[str]) -> None:
    """Every size of the flexible models; of the fixed ones their own."""
    for arm, (colour, dashes) in zip(flexible, FLEXIBLE_STYLES, strict=True):
        points = [(size, found) for size in fixed.values() if (found := spread(lines, arm, "accuracy", size))]
        times = [spread(lines, arm, "ms per image", size).mean for size, _ in points]
        bold = arm == flexible[-1]
        _line(
            panel, times, [found for _, found in points], colour, dashes, width=2.5 if bold else 1.6, label=f"flexible, {arm}"
        )
    for (arm, own), colour in zip(fixed.items(), FIXED_COLOURS, strict=True):
        if found := spread(lines, arm, "accuracy", own):
            time = spread(lines, arm, "ms per image", own).mean
            panel.errorbar(
                time, found.mean, [[found.mean - found.low], [found.high - found.mean]],
                fmt="o", color=colour, markersize=9, capsize=3, label=f"fixed at {own}",
            )  # fmt: skip
    panel.set_xlabel("CPU time per image at inference, ms")
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.set_title("Patches of 12, 8, 6 and 4 pixels, from left to right", fontsize=10.5, loc="left")
    panel.legend(frameon=False, fontsize=9, loc="best")


def _line(
    panel: Any, xs: Sequence[float], spreads: Sequence[Spread], colour: str, dashes: Any, *, width: float, label: str
) -> None:
    means = [found.mean for found in spreads]
    below, above = [found.mean - found.low for found in spreads], [found.high - found.mean for found in spreads]
    container = panel.errorbar(xs, means, [below, above], color=colour, linewidth=width, capsize=3, elinewidth=1.2, label=label)
    container.lines[0].set_linestyle(dashes)
