"""The results of `bench.model.navit`: seconds to a target, a table and the plot. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TARGETS = (0.84, 0.87, 0.88)
REFERENCE = "square"
MEANS = ("images/s", "tokens per image", "fill", "data share")
COLOURS = {
    "square": "#9a9a9a",
    "padded": "#3c3c3c",
    "packed": "#3b6fb6",
    "area": "#3f8f5b",
    "resolution": "#c98a1b",
    "drop": "#b8403a",
}
Record = dict[str, Any]
Point = tuple[float, int, float]  # CPU seconds, images, validation accuracy


def cost_to(curve: Sequence[Point], target: float) -> tuple[float, float] | None:
    """Return the CPU seconds and images after which the accuracy first reaches a target, interpolated linearly between two
    points.

    If the first point reaches the target, return its own values. If no point does, return None.
    """
    before: Point | None = None
    for seconds, images, reached in curve:
        if reached >= target:
            if before is None:
                return seconds, images
            share = (target - before[2]) / (reached - before[2])
            return before[0] + share * (seconds - before[0]), before[1] + share * (images - before[1])
        before = (seconds, images, reached)
    return None


def table(lines: Sequence[Record], targets: Sequence[float] = TARGETS) -> dict[str, Record]:
    """Return the results of the final runs of every arm: means and standard deviations over seeds, and ratios to the
    `REFERENCE`.

    The cost of a target is None unless every seed reaches the target. "times" is the reference's cost divided by the arm's,
    with its spread by error propagation. There are two such ratios. The first is of the measured CPU seconds. The second exists
    if the arms ran in turns: it is of the number of images times the median cost of an image. Other work on the machine while
    an arm was trained does not change the second ratio.
    """
    finals: dict[str, list[Record]] = {}
    for line in lines:
        if line["phase"] == "final":
            finals.setdefault(line["arm"], []).append(line)
    paces = {line["arm"]: line["ms"] for line in lines if line["phase"] == "pace"}
    rows: dict[str, Record] = {}
    for name, runs in sorted(finals.items(), key=lambda arm: list(COLOURS).index(arm[0])):
        costs = {target: [cost_to(run["curve"], target) for run in runs] for target in targets}
        reached = {target: None if None in found else np.array(found) for target, found in costs.items()}
        rows[name] = {
            "setting": runs[0]["setting"],
            "seeds": len(runs),
            "test %": _spread([100 * run["test"] for run in runs], 2),
            "images": round(float(np.mean([run["curve"][-1][1] for run in runs]))),
            **{what: round(float(np.mean([run[what] for run in runs])), 4) for what in MEANS},
            "ms": paces.get(name),
            "seconds to": {t: None if cost is None else _spread(cost[:, 0], 1) for t, cost in reached.items()},
            "images to": {t: None if cost is None else _spread(cost[:, 1], 0) for t, cost in reached.items()},
        }
    for row in rows.values():
        row["times"] = {t: _ratio(rows.get(REFERENCE), row, "seconds to", t) for t in targets}
        row["times in turns"] = {t: _ratio(rows.get(REFERENCE), row, "images to", t) for t in targets}
    return rows


def _spread(values: Any, digits: int) -> list[float]:
    """Return the mean, and the standard deviation over n - 1 (0 for one value)."""
    return [round(float(np.mean(values)), digits), round(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, digits)]


def _ratio(reference: Record | None, row: Record, what: str, target: float) -> list[float] | None:
    if reference is None or reference[what][target] is None or row[what][target] is None:
        return None
    (above, d_above), (below, d_below) = reference[what][target], row[what][target]
    ratio = above / below
    if what == "images to":
        if reference["ms"] is None or row["ms"] is None:
            return None
        ratio *= reference["ms"][1] / row["ms"][1]
    return [round(ratio, 2), round(ratio * float(np.hypot(d_above / above, d_below / below)), 2)]


def show(lines: Sequence[Record], rows: Mapping[str, Record]) -> None:
    """Print the table as Markdown, and the other contents of the file."""
    targets = list(next(iter(rows.values()))["seconds to"]) if rows else []
    columns = ["arm", "lr, tokens", "seeds", "test %", "images/s", "tokens per image", "fill", "data", "ms per image"]
    columns += [part for t in targets for part in (f"s to {100 * t:g} %", "images", f"{REFERENCE} takes", "in turns")]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, row in rows.items():
        lr, tokens = row["setting"]
        cells = [name, f"{lr:g}, {tokens}", f"{row['seeds']}", _shown(row["test %"]), f"{row['images/s']:.0f}"]
        cells += [f"{row['tokens per image']:.1f}", f"{row['fill']:.3f}", f"{100 * row['data share']:.0f} %"]
        cells += ["-" if row["ms"] is None else "{1:.2f} ({0:.2f} … {2:.2f})".format(*row["ms"])]
        for target in targets:
            images = row["images to"][target]
            cells += [_shown(row["seconds to"][target]), "-" if images is None else f"{images[0]:,.0f}"]
            cells += [f"{_shown(row[what][target])} ×" for what in ("times", "times in turns")]
        print(f"| {' | '.join(cells)} |")
    for name in rows if any(line["phase"] == "tune" for line in lines) else ():
        tried = [line for line in lines if line["phase"] == "tune" and line["arm"] == name]
        print(f"tried for {name}:", *(f"{line['setting']} {100 * line['curve'][-1][2]:.2f} %" for line in tried), sep="  ")
    print(f"CPU minutes in all: {sum(line.get('CPU seconds with evaluation', 0.0) for line in lines) / 60:.1f}")


def _shown(spread: Sequence[float] | None) -> str:
    return "-" if spread is None else f"{spread[0]:g} ± {spread[1]:g}"


def plot(lines: Sequence[Record], path: Path, *, linear: float | None = None, target: float = TARGETS[-1]) -> None:
    """Draw validation accuracy against CPU seconds: the mean over seeds, and the range from the lowest to the highest seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=150, layout="constrained")
    for name, colour in COLOURS.items():
        curves = [np.array(line["curve"]) for line in lines if line["phase"] == "final" and line["arm"] == name]
        if not curves:
            continue
        # runs are measured at the same moments, to within a step, until the first run ends
        moments = min(map(len, curves))
        seconds = np.mean([curve[:moments, 0] for curve in curves], axis=0)
        accuracy = 100 * np.array([np.interp(seconds, curve[:, 0], curve[:, 2]) for curve in curves])
        axes.fill_between(seconds, accuracy.min(axis=0), accuracy.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(seconds, accuracy.mean(axis=0), color=colour, linewidth=2, marker="o", markersize=3, label=name)
    for name, mark in {"target": target, "a linear classifier": linear}.items():
        if mark is not None:
            axes.axhline(100 * mark, color="black", linewidth=0.8, linestyle=":")
            axes.annotate(f"{name}, {100 * mark:.1f} %", (0.4, 100 * mark), xycoords=("axes fraction", "data"),
                          xytext=(5, 3), textcoords="offset points", va="bottom", fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set(xlabel="CPU seconds, one thread: data, model, optimizer", ylabel="validation accuracy, %")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", title="mean and range over seeds", framealpha=1, edgecolor="none")
    axes.set_title("Quality for compute, Fashion-MNIST cropped to the object", loc="left", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
