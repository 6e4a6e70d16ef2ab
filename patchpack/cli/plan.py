"""``patchpack plan``: what a recipe does to images of given sizes at several row lengths, and which of them to take."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from patchpack.cli.sheet import HATCH, INK, PAPER
from patchpack.cli.sizes import Sizes, read_sizes
from patchpack.cli.terminal import count_of, say, say_losses
from patchpack.errors import ConfigError
from patchpack.plan import recipes
from patchpack.plan.recipe import Recipe
from patchpack.plan.study import Study, study

_SEQ_LENS = (512, 1024, 2048, 4096)
_NEAR = 0.005  # fills that far apart are as good as equal
_BINDING = 0.01  # share of rows that may run out of slots
_FEW = 10  # rows; the last of an epoch are emptier
_ENOUGH = 4  # images per row; below, one more or less is a quarter of the row


class Choice(NamedTuple):
    """The combination to take, and why."""

    study: Study
    reason: str


def run(
    path: str,
    *,
    recipe: str,
    seq_lens: list[int] | None,
    max_images: list[int] | None,
    order: str | None,
    limit: int,
    epoch: int,
    out: str | None,
    image: str,
    target: str | None,
) -> int:
    """Study every combination, print one table and a recommendation; returns the exit status."""
    if limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}")
    if out is not None:  # before anything slow
        from patchpack.cli import plots

        plots.check(Path(out))
    combinations = _combinations(recipe, seq_lens, max_images)
    console = Console()
    found = read_sizes(path, console, order=order, limit=limit, image=image, target=target)
    _say_found(console, path, found)
    columns = (SpinnerColumn(), TextColumn("planning"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        studies = [study(found.table, each, epoch=epoch, keys=found.keys) for each in progress.track(combinations)]
    choice = recommend(studies)
    _print_table(console, studies, choice)
    _print_choice(console, recipe, choice)
    if out is not None:
        from patchpack.cli.plots import source_name

        draw(studies, choice, f"{recipe} on {count_of(len(found.table), 'image')} of {source_name(path)}", Path(out))
        say(console, f"wrote {out}")
    return 0


def _combinations(name: str, seq_lens: list[int] | None, max_images: list[int] | None) -> list[Recipe]:
    """The preset at each row length with each number of slots; its own where none are given."""
    preset = recipes.get(name)
    if preset.seq_len is None:  # one image per row: there is nothing to choose
        if seq_lens or max_images:
            raise ConfigError(f"{name} puts one image in a row: leave --seq-len and --max-images out")
        return [preset]
    if seq_lens is None:
        bound = max((preset.resize.bound(p) or 1) for p in preset.patch_sizes)
        seq_lens = [n for n in _SEQ_LENS if n >= bound] or [bound, 2 * bound, 4 * bound]
    own = {seq_len: max_images or [recipes.get(name, seq_len=seq_len).max_images] for seq_len in sorted(set(seq_lens))}
    return [recipes.get(name, seq_len=n, max_images=slots) for n, several in own.items() for slots in sorted(set(several))]


def recommend(studies: list[Study]) -> Choice:
    """The shortest rows, with the fewest slots, that are near the fullest, hold enough images and do not run out of slots.

    Rows are compared by `Study.steady_fill_rate`. Of what nobody fulfils, enough images give way first, then slots.
    """
    free = [s for s in studies if s.out_of_slots <= _BINDING]
    pool = free or [s for s in studies if s.out_of_slots == min(s.out_of_slots for s in studies)]
    ample = [s for s in pool if s.images_per_row.mean >= _ENOUGH]
    ample = pool if len(ample) in (0, len(pool)) else ample
    fullest = max(ample, key=lambda s: s.steady_fill_rate)
    near = [s for s in ample if s.steady_fill_rate >= fullest.steady_fill_rate - _NEAR]
    best = min(near, key=lambda s: (s.row_lens.max(), s.recipe.max_images))
    fill = f"{100 * best.steady_fill_rate:.1f} % full"
    if len(studies) == 1:
        why = f"nothing else was asked for; its rows are {fill}"
    elif best is fullest:
        why = f"no others are fuller: {fill}"
    else:
        why = f"{fill}, and the shortest within half a point of the fullest ({100 * fullest.steady_fill_rate:.1f} %)"
        why += "" if ample is pool else f" of those with at least {_ENOUGH} images a row"
    slots, images = best.recipe.max_images, best.images_per_row
    span = " to ".join(f"{n:.0f}" for n in dict.fromkeys((images.min, images.max)))
    why += f"; {span} images in a row" if slots > 1 else "; one image in a row"
    if best.out_of_slots > _BINDING:
        enough = 1 << int(2 * best.row_lens.max() / best.tokens.mean).bit_length()  # rows of small images hold twice the mean
        why += f", but {100 * best.out_of_slots:.0f} % of rows run out of their {slots} slots: try --max-images {enough}"
    elif slots > 1:
        why += f", for which {slots} slots are enough"
    if slots > 1 and images.mean < _ENOUGH:
        why += f", which is few: under {_ENOUGH} in the mean"
    why += f"; 95 % of images wait for {best.waits.p95:,.0f} others or fewer, the last for {best.longest_wait:,}"
    if best.num_rows < _FEW:
        why += f". So few rows say little: give it more than {count_of(best.num_images, 'image')}"
    return Choice(best, why)


def _say_found(console: Console, path: str, found: Sizes) -> None:
    more = "" if found.complete else " (the first of more)"
    say(console, f"{count_of(len(found.table), 'image')} in {path}{more}")
    if found.without_size:
        say(console, f"{count_of(found.without_size, 'line')} with a side below 1 pixel left out")
    if found.rejected or found.faults:
        say(console, f"{count_of(len(found.rejected), 'sample')} cannot be used:")
        say_losses(console, found.rejected, found.faults)


def _print_table(console: Console, studies: list[Study], choice: Choice) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    lost = any(s.refused or s.over_long for s in studies)
    heads = (
        "seq_len",
        "slots",
        "rows",
        "fill %",
        "steady\nfill %",
        "images\nper row",
        "min-\nmax",
        "% out of\nslots",
        "longest\nwait",
    )
    for name in (*heads, *(["not\ntaken"] if lost else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for s in studies:
        images, chosen = s.images_per_row, s is choice.study
        cells = [
            ("> " if chosen else "") + row_lens(s),
            f"{s.recipe.max_images}",
            f"{s.num_rows:,}",
            f"{100 * s.fill_rate:.2f}",
            f"{100 * s.steady_fill_rate:.2f}",
            f"{images.mean:.1f}",
            f"{images.min:.0f}-{images.max:.0f}",
            f"{100 * s.out_of_slots:.1f}",
            f"{s.longest_wait:,}",
        ]
        table.add_row(*cells, *([f"{s.refused + s.over_long:,}"] if lost else []), style="bold" if chosen else "")
    say(console, "")
    console.print(table)


def row_lens(s: Study) -> str:
    """Tokens per row; the ends where there are several."""
    low, high = int(s.row_lens.min()), int(s.row_lens.max())
    return f"{low}" if low == high else f"{low}-{high}"


def _print_choice(console: Console, name: str, choice: Choice) -> None:
    recipe = choice.study.recipe
    arguments = "" if recipe.seq_len is None else f"seq_len={recipe.seq_len}, max_images={recipe.max_images}"
    lines = [
        "",
        f"recommended: pp.recipes.{name}({arguments})",
        f"because: {choice.reason}",
        "",
        *choice.study.table().split("\n"),
    ]
    for line in lines:
        say(console, line)


def draw(studies: list[Study], choice: Choice, title: str, path: Path) -> Path:
    """Draw fill, images per row and waits of every combination side by side into a file; the path, checked by `plots.check`."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from patchpack.cli import plots

    with style.context(["default", plots.STYLE]):
        figure = Figure(
            figsize=(13, 2.6 + 0.42 * max(3, len(studies))),
            facecolor=PAPER,
            layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2),
        )
        figure.suptitle(plots.drawable(title, 90), size=16, weight="bold", x=0.012, ha="left")
        fills, images, waits = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 1))
        names = [f"{row_lens(s)} tokens, {s.recipe.max_images} slots" for s in studies]
        for place, s in enumerate(studies):
            colour = plots.RECIPE if s is choice.study else plots.FILES
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
        chosen.set(color=plots.RECIPE, weight="bold")
        for axes in (images, waits):
            axes.grid(axis="x", color=plots.BAND, lw=0.7)
        low, high = images.get_xlim()
        plots.ticks(images.xaxis, low, high, most=6)
        for axes in (fills, images, waits):
            axes.tick_params(axis="y", length=0)
        plots.heading(fills, "Fill of rows that closed in the epoch", "recommended: the orange one")
        plots.heading(images, "Images per row", "black: slots")
        plots.heading(waits, "Items an image waits", "until its row is closed")
        figure.savefig(path, dpi=150, format=path.suffix[1:].lower())
    return path
