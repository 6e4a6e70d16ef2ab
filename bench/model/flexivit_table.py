"""Tables and the figure of `bench.model.flexivit`, from its lines of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Record = Mapping[str, Any]

INK, FAINT = "#22272b", "#9aa3ab"
# Okabe and Ito's colours, which colour-blind people tell apart
FIXED_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7")
FLEXIBLE_STYLES = ((FAINT, "-"), ("#0072b2", "-"), ("#d55e00", (0, (4, 2))), (INK, "-"))


class Spread(NamedTuple):
    """The mean and the range of a figure over seeds."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ({self.low:.1f}–{self.high:.1f})"


def spread(lines: Sequence[Record], arm: str, what: str, size: int) -> Spread | None:
    """Return the mean and range of one figure of an arm at one patch size, accuracies in percent.

    Return None if there is no line.
    """
    factor = 1 if what == "ms per image" else 100
    values = [factor * line[what][str(size)] for line in lines if line["arm"] == arm and str(size) in line[what]]
    return Spread(float(np.mean(values)), min(values), max(values)) if values else None


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def accuracies(lines: Sequence[Record], arms: Sequence[str], sizes: Sequence[int]) -> str:
    """Return a table of the accuracy in percent at each patch size: mean and range over seeds.

    Lines called "plain" are for kernels resized like pictures.
    """
    rows = []
    for arm in _known(lines, arms):
        for what, name in (("accuracy", arm), ("plain", f"{arm}, plain")):
            cells = [spread(lines, arm, what, size) for size in sizes]
            if any(cells):
                rows.append([name, *(str(cell or "") for cell in cells)])
    return markdown(["trained / asked at", *map(str, sizes)], rows)


def distances(lines: Sequence[Record], fixed: Mapping[str, int], flexible: Sequence[str]) -> str:
    """Return a table of the points of accuracy that each flexible arm has more than the fixed model of a size, at this size.

    The difference is taken for each seed.
    """
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


def costs(lines: Sequence[Record], arms: Sequence[str], sizes: Sequence[int]) -> str:
    """Return a table of the CPU seconds and steps of a training, and the ms of CPU time per image at inference."""
    rows = []
    for arm in _known(lines, arms):
        of = _of(lines, arm)
        seconds = np.mean([line["cpu s"]["training"] + line["cpu s"]["teacher's answers"] for line in of])
        times = [spread(lines, arm, "ms per image", size) for size in sizes]
        rows.append([arm, f"{seconds:.0f}", str(of[0]["steps"]), *(f"{time.mean:.3f}" if time else "" for time in times)])
    total = sum(sum(line["cpu s"].values()) for line in lines) / 60
    head = ["arm", "CPU s of training", "steps", *(f"ms per image at {size}" for size in sizes)]
    return f"{markdown(head, rows)}\n\n{total:.1f} CPU minutes in all, without painting"


def _of(lines: Sequence[Record], arm: str) -> list[Record]:
    return [line for line in lines if line["arm"] == arm]


def _known(lines: Sequence[Record], arms: Sequence[str]) -> list[str]:
    return [arm for arm in arms if _of(lines, arm)]


def draw(lines: Sequence[Record], fixed: Mapping[str, int], flexible: Sequence[str], path: Path) -> Path:
    """Draw accuracy against patch size, and against the time of an image at inference. Bars show the range over seeds.

    Args:
        lines: lines of the runs.
        fixed: arm → its patch size.
        flexible: arms of the flexible models. The last one is drawn boldest.
        path: path of a .png, .svg or .pdf file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _by_size(left, lines, fixed, flexible[-1])
        _by_time(right, lines, fixed, flexible)
        for panel in (left, right):
            panel.set_ylabel("test accuracy, %")
            panel.grid(color="#e4e8ec", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.tick_params(which="both", color=FAINT, length=3)
            for side in ("top", "right"):
                panel.spines[side].set_visible(False)
            for side in ("bottom", "left"):
                panel.spines[side].set_color(FAINT)
            panel.legend(frameon=False, fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.17), handlelength=2.6)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def _by_size(panel: Any, lines: Sequence[Record], fixed: Mapping[str, int], flexible: str) -> None:
    """Draw the fixed models and one flexible model at every patch size. A large dot marks a fixed model's own size."""
    sizes = list(fixed.values())
    for (arm, own), colour in zip(fixed.items(), FIXED_COLOURS, strict=True):
        points = _points(lines, arm, "accuracy", sizes)
        _line(panel, [sizes.index(size) for size in points], points.values(), colour, width=1.5, label=f"fixed at {own}")
        plain = _points(lines, arm, "plain", sizes)
        panel.plot(
            [sizes.index(size) for size in plain], [found.mean for found in plain.values()], "x", color=colour, markersize=5
        )
        if own in points:
            panel.plot(sizes.index(own), points[own].mean, "o", color=colour, markersize=9)
    panel.plot([], [], "x", color=FAINT, label="kernel resized plainly")
    points = _points(lines, flexible, "accuracy", sizes)
    _line(panel, [sizes.index(size) for size in points], points.values(), INK, width=2.5, label=f"flexible, {flexible}")
    panel.set_xticks(range(len(sizes)), [f"{size}" for size in sizes])
    panel.set_xlabel("patch size at inference, pixels")
    panel.set_ylim(0, 100)
    panel.set_title("Each model at every patch size", fontsize=10.5, loc="left")


def _by_time(panel: Any, lines: Sequence[Record], fixed: Mapping[str, int], flexible: Sequence[str]) -> None:
    """Draw the flexible models at every patch size, and the fixed models at their own size.

    At one patch size all models do the same work, except for the resizing of a kernel. So each size has a single time, the
    lowest time that was measured.
    """
    sizes = list(fixed.values())
    times = {size: min(line["ms per image"][str(size)] for line in lines) for size in sizes}
    for arm, (colour, dashes) in zip(flexible, FLEXIBLE_STYLES, strict=True):
        points = _points(lines, arm, "accuracy", sizes)
        width = 2.5 if arm == flexible[-1] else 1.6
        _line(panel, [times[p] for p in points], points.values(), colour, dashes, width=width, label=f"flexible, {arm}")
    for (arm, own), colour in zip(fixed.items(), FIXED_COLOURS, strict=True):
        for found in _points(lines, arm, "accuracy", [own]).values():
            reach = [[found.mean - found.low], [found.high - found.mean]]
            panel.errorbar(
                times[own], found.mean, reach, fmt="o", color=colour, markersize=9, capsize=3, label=f"fixed at {own}"
            )
    panel.set_xlabel("CPU time per image at inference, ms")
    panel.set_xscale("log")
    panel.set_xticks(list(times.values()), [f"{time:.2g}\n({size} px)" for size, time in times.items()])
    panel.set_xticks([], minor=True)
    panel.set_title("What a patch size costs and gives", fontsize=10.5, loc="left")


def _points(lines: Sequence[Record], arm: str, what: str, sizes: Sequence[int]) -> dict[int, Spread]:
    return {size: found for size in sizes if (found := spread(lines, arm, what, size))}


def _line(
    panel: Any, xs: Sequence[float], spreads: Iterable[Spread], colour: str, dashes: Any = "-", *, width: float, label: str
) -> None:
    means, lows, highs = np.array([*spreads], dtype=float).reshape(-1, 3).T
    container = panel.errorbar(
        xs, means, [means - lows, highs - means], color=colour, linewidth=width, capsize=3, elinewidth=1.2, label=label
    )
    container.lines[0].set_linestyle(dashes)
