"""``patchpack demo``: one comparison, then the shipped program runs in sight, with tables, progress and pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import patchpack as pp
from patchpack.cli import draw, train
from patchpack.model import accuracy, cross_entropy
from patchpack.plan.table import plan_table
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

COMPARED_IMAGES = 96
DRAWN_IMAGES = 16
_REPEATS = 3

Recipes = dict[str, tuple[str, pp.Recipe]]
Step = tuple[int, pp.PackedBatch, float, float]  # what the program yields: epoch, batch, loss, seconds


def write_program(path: str) -> int:
    """Write the program that `run` runs; returns the exit status."""
    target = Path(path)
    if target.exists():
        raise pp.errors.ConfigError(f"{target} exists already: choose another name, nothing was overwritten")
    source = Path(str(train.__file__)).read_text(encoding="utf-8")
    target.write_text(source, encoding="utf-8")
    print(f"wrote {target} ({source.count(chr(10))} lines)\nnext: python {target}")
    return 0


def run(out: str, epochs: int | None) -> int:
    """The whole demo; returns the exit status."""
    console = Console()
    if epochs is not None and epochs < 1:
        raise pp.errors.ConfigError(f"--epochs must be at least 1, got {epochs}")
    folder = Path(out)
    console.print(f"[bold]patchpack {pp.__version__}[/]: the input side of native-resolution vision transformers\n")
    picture = _compare(console, folder)
    rows = _train(console, folder, epochs or train.EPOCHS)
    console.print(f"\nwrote {picture}\nwrote {rows}")
    console.print("next: patchpack demo --write train.py && python train.py", highlight=False)
    return 0


# ---------------------------------------------------------------------------------------------------------- comparison


class Measured(NamedTuple):
    """What one way of batching does to the same images."""

    name: str
    how: str
    tokens: int
    waste: float
    stretch: float
    images_per_second: float


def comparison_recipes() -> Recipes:
    """The three ways; native size means the grid of whole patches that covers an image, at most 144 of them."""
    native = pp.resize.NaFlex(144, upscale=False)
    rows = COMPARED_IMAGES
    return {
        "square": ("128 x 128", pp.recipes.square(size=128, rows=rows)),
        "padded": (
            "native, one per row",
            pp.Recipe(resize=native, seq_len=144, max_images=1, rows=rows),
        ),
        "packed": (
            "native, packed rows",
            pp.Recipe(resize=native, seq_len=256, max_images=48, rows=rows),
        ),
    }


def measure(recipes: Recipes, samples: list[pp.Sample]) -> list[Measured]:
    """Pack the same samples in several ways; time a training step on each, in turns, and keep the fastest."""
    model = train.make_model()
    packed = {name: list(pp.load(samples, recipe)) for name, (_, recipe) in recipes.items()}
    seconds = dict.fromkeys(recipes, float("inf"))
    for name in [*recipes] * _REPEATS:
        # the reference model skips padding; a padded model computes it, so there it counts as part of the image
        computed = [b._replace(segment_ids=b.segment_ids.clamp(min=1)) if name == "padded" else b for b in packed[name]]
        seconds[name] = min(seconds[name], _step_seconds(model, computed))
    found = []
    for name, (how, recipe) in recipes.items():
        tokens = sum(batch.segment_ids.numel() for batch in packed[name])
        real = sum(int(pp.token_mask(batch).sum()) for batch in packed[name])
        sizes = np.concatenate([batch.source_sizes[batch.slot_mask].numpy() for batch in packed[name]])
        speed = len(samples) / seconds[name]
        found.append(Measured(name, how, tokens, 1 - real / tokens, _stretch(recipe, sizes), speed))
    return found


def _step_seconds(model: Any, batches: list[pp.PackedBatch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        cross_entropy(model(batch), batch.targets).backward()
        model.zero_grad()
    return time.perf_counter() - start


def _stretch(recipe: pp.Recipe, sizes: Any) -> float:
    """Mean factor by which one side of an image is stretched against the other, >= 1."""
    table = plan_table(recipe, sizes, np.zeros(len(sizes), dtype=np.uint64))
    scale = table.target / table.box[:, 2:]
    return float(np.exp(np.abs(np.log(scale[:, 0] / scale[:, 1]))).mean())


def _compare(console: Console, folder: Path) -> Path:
    samples = sample_list(pp.samples.shards("train"), COMPARED_IMAGES)
    recipes = comparison_recipes()
    table = Table(title=f"The same {COMPARED_IMAGES} images and the same model, three ways", title_justify="left")
    for column in ("", "tokens", "padding", "stretch", "images/s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for m in measure(recipes, samples):
        numbers = (f"{m.tokens:,}", f"{m.waste:.1%}", f"{m.stretch:.2f} x", f"{m.images_per_second:.0f}")
        table.add_row(f"[bold]{m.name}[/]: {m.how}", *numbers)
    console.print(table)
    console.print("tokens computed, mean stretch of one side against the other, images/s of training steps")
    panels = []
    for name, (how, recipe) in recipes.items():
        batch = next(iter(pp.load(samples[:DRAWN_IMAGES], recipe)))
        tokens, waste = batch.segment_ids.numel(), 1 - pp.fill_rate(batch)
        lines = [how, f"{DRAWN_IMAGES} images cost {tokens:,} tokens, {waste:.0%} of them padding"]
        width, height = (560, 72) if name == "packed" else (400, 40)
        body = draw.draw_rows(batch, width=width, height=height, per_token=2.1, captions=False)
        panels.append(draw.panel(name, lines, body, width=width))
    path = draw.save(draw.beside(panels, gap=36, margin=24), folder / "patchpack-demo-comparison.png")
    console.print(f"drawn side by side in {path}\n")
    return path


def sample_list(shards: list[str], count: int) -> list[pp.Sample]:
    """The first samples of some shards."""
    source = open_source(shards)
    headers = (event for event in source.scan() if isinstance(event, Header))
    found = []
    for header in islice(headers, count):
        image, target = source.reader(header.location)
        found.append(pp.Sample(header.key, image, target))
    return found


# ------------------------------------------------------------------------------------------------------------ training


def _train(console: Console, folder: Path, epochs: int) -> Path:
    shards, recipe = pp.samples.shards("train"), train.recipe
    loader, model = pp.load(shards, recipe), train.make_model()
    parameters = sum(p.numel() for p in model.parameters())
    console.print(
        f"Training a NaViT of {parameters / 1e6:.1f} M parameters on {len(shards)} shards.\n"
        f"Resolution and token drop are drawn per image; a batch is {recipe.rows} rows of {recipe.seq_len} tokens.\n"
    )
    by_epoch = groupby(train.train(model, loader, epochs), key=lambda step: step[0])
    first, losses = _show_first_epoch(console, next(by_epoch)[1], loader)
    last = losses
    with Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs  loss {task.fields[loss]:.3f}  fill {task.fields[fill]:.3f}  {task.fields[speed]:.0f} images/s"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("", total=epochs, completed=1, loss=losses[-1], fill=1.0, speed=0.0)
        for epoch, steps in by_epoch:
            last = []
            for _, batch, loss, seconds in steps:
                last.append(loss)
                speed = batch.info.packed / seconds
                progress.update(task, loss=loss, fill=pp.fill_rate(batch), speed=speed)
            progress.update(task, completed=epoch + 1)
    console.print(f"loss {np.mean(losses):.2f} in the first epoch, {np.mean(last):.2f} in the last")
    held_out = pp.load(pp.samples.shards("val"), recipe.for_eval())
    share = accuracy(model, held_out)
    console.print(f"[bold]held-out accuracy: {share:.3f}[/] on {held_out.report().packed} images never seen")
    rows = draw.draw_rows(first, height=96, legend=True)
    return draw.save(draw.beside([rows], gap=0, margin=24), folder / "patchpack-demo-rows.png")


def _show_first_epoch(console: Console, steps: Iterable[Step], loader: pp.Loader) -> tuple[pp.PackedBatch, list[float]]:
    """One line per batch; the first batch and the losses."""
    table = Table(title="First epoch, batch by batch", title_justify="left")
    for column in ("batch", "rows", "images", "tokens", "fill", "rejected", "loss", "images/s"):
        table.add_column(column, justify="right")
    first, losses, report = None, [], loader.report()
    with Live(table, console=console, refresh_per_second=8):
        for _, batch, loss, seconds in steps:
            first = first or batch
            losses.append(loss)
            info, tokens = batch.info, int(pp.token_mask(batch).sum())
            counts = (info.step, len(batch.keys), info.packed, tokens)
            numbers = (f"{pp.fill_rate(batch):.3f}", len(info.rejections), f"{loss:.2f}", f"{info.packed / seconds:.0f}")
            table.add_row(*map(str, counts + numbers))
            report = loader.report()  # now: the step after the last one belongs to the next epoch
    assert first is not None  # the loader raises where there is no batch
    console.print(f"\nfirst epoch: {report}\n")
    return first, losses
