"""The figure of `bench.model.positions`: accuracy of each kind of positions under each condition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

INK, FAINT = "#22272b", "#9aa3ab"
# Okabe and Ito's colours, which colour-blind people tell apart
COLOURS = ("#22272b", "#0072b2", "#d55e00", "#009e73")


def draw(
    summary: Mapping[str, Mapping[str, tuple[float, float, float]]],
    groups: Mapping[str, str],
    titles: Mapping[str, str],
    path: Path,
) -> Path:
    """Draw one panel per condition with one line per kind: the mean over seeds, and a bar from the lowest to the highest.

    Args:
        summary: kind → condition → (mean, lowest, highest), in percent.
        groups: kind → group. Each group has a colour and is set apart from the others. A kind called "none" gives each panel
            its vertical line. titles: condition → title above its panel. path: path of a .png, .svg or .pdf file.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    names = [name for name in groups if name in summary]
    colours = dict(zip(dict.fromkeys(groups[name] for name in names), COLOURS, strict=False))
    places, place = {}, 0.0
    for above, name in zip([None, *names], names, strict=False):
        place += 0.0 if above is None else 1.0 if groups[above] == groups[name] else 1.6
        places[name] = place
    style = {"font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "svg.fonttype": "none"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 0.7 + 0.33 * (place + 4)), layout="constrained")
        panels = figure.subplots(1, len(titles), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (condition, title) in zip(panels, titles.items(), strict=True):
            if "none" in summary:
                panel.axvline(summary["none"][condition][0], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            for name in names:
                mean, low, high = summary[name][condition]
                colour = colours[groups[name]]
                panel.plot([low, high], [places[name]] * 2, color=colour, linewidth=2, alpha=0.55, solid_capstyle="round")
                panel.plot(mean, places[name], "o", color=colour, markersize=5.5)
                panel.annotate(
                    f"{mean:.0f}", (high, places[name]), xytext=(6, 0), textcoords="offset points", va="center", size=8.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
            panel.set_title(title, fontsize=10.5, loc="left")
            panel.set_xlabel("accuracy, %")
            panel.margins(x=0.1)
            panel.xaxis.set_major_locator(MultipleLocator(20))
            panel.grid(axis="y", color="#e4e8ec", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.tick_params(color=FAINT, length=3)
            panel.tick_params(axis="y", length=0)
            for side in ("top", "right", "left"):
                panel.spines[side].set_visible(False)
            panel.spines["bottom"].set_color(FAINT)
        panels[0].set_yticks(list(places.values()), names)
        for label, name in zip(panels[0].get_yticklabels(), names, strict=True):
            label.set_color(colours[groups[name]])
        panels[0].set_ylim(place + 0.7, -0.7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)
    return path
