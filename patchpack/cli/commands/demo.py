"""``patchpack demo``: a comparison of three ways to make batches, then a training program, with tables and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import patchpack as pp
from patchpack.cli import demo as parts
from patchpack.cli.arguments import describe
from patchpack.cli.pictures import rows, sheet

if TYPE_CHECKING:
    from patchpack.model import Step

DRAWN_IMAGES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Streams the sample shards that patchpack ships, packs them, trains a small NaViT on the packed rows and\n"
        "measures it on held-out images. Needs no data and no network.",
        "patchpack demo",
        "patchpack demo --write train.py && python train.py",
    )
    parser.add_argument(
        "--out", default=".", metavar="DIR", help="write the pictures to this folder (default: ., the current folder)"
    )
    parser.add_argument(
        "--epochs", type=int, default=None, metavar="N", help="train N passes over the training shards (default: 40)"
    )
    parser.add_argument("--write", metavar="FILE", help="write the program of the demo (under 60 lines, public API), and stop")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo, or write its training program to a file. Return the exit status."""
    if arguments.write:
        return _write_program(Path(arguments.write))
    if arguments.epochs is not None and arguments.epochs < 1:
        raise pp.errors.ConfigError(f"--epochs must be at least 1, got {arguments.epochs}")
    console, folder = Console(), Path(arguments.out)
    console.print(f"[bold]patchpack {pp.__version__}[/]: the input side of native-resolution vision transformers\n")
    compared = _compare(console, folder)
    trained = _train(console, folder, arguments.epochs)
    console.print(f"\nwrote {compared}\nwrote {trained}")
    console.print("next: patchpack demo --write train.py && python train.py", highlight=False)
    return 0


def _write_program(path: Path) -> int:
    if path.exists():
        raise pp.errors.ConfigError(f"{path} exists already: choose another name, nothing was overwritten")
    source = Path(str(parts.__file__)).with_name("program.py").read_text(encoding="utf-8")
    path.write_text(source, encoding="utf-8")
    print(f"wrote {path} ({source.count(chr(10))} lines)\nnext: python {path}")
    return 0


def _compare(console: Console, folder: Path) -> Path:
    from patchpack.cli.demo import comparison  # torch takes seconds to import

    samples = comparison.sample_list(pp.samples.shards("train"), comparison.COMPARED_IMAGES)
    recipes = comparison.comparison_recipes()
    table = Table(title=f"The same {len(samples)} images and the same model, three ways", title_justify="left")
    for column in ("", "tokens", "padding", "stretch", "images/s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for m in comparison.measure(recipes, samples):
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
        body = rows.draw_rows(batch, width=width, height=height, per_token=2.1, captions=False)
        panels.append(sheet.panel(name, lines, body, width=width))
    path = sheet.save(sheet.beside(panels, gap=36, margin=24), folder / "patchpack-demo-comparison.png")
    console.print(f"drawn side by side in {path}\n")
    return path


def _train(console: Console, folder: Path, given_epochs: int | None) -> Path:
    from patchpack.cli.demo import program
    from patchpack.model import accuracy

    epochs = given_epochs or program.EPOCHS
    shards, recipe = pp.samples.shards("train"), program.recipe
    loader, model = pp.load(shards, recipe), program.make_model()
    parameters = sum(p.numel() for p in model.parameters())
    console.print(
        f"Training a NaViT of {parameters / 1e6:.1f} M parameters on {len(shards)} shards.\n"
        f"Resolution and token drop are drawn per image; a batch is {recipe.rows_per_batch} rows of {recipe.seq_len} tokens.\n"
    )
    by_epoch = groupby(program.train(model, loader, epochs), key=lambda step: step[0])
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
    drawn = rows.draw_rows(first, height=96, legend=True)
    return sheet.save(sheet.beside([drawn], gap=0, margin=24), folder / "patchpack-demo-rows.png")


def _show_first_epoch(console: Console, steps: Iterable[Step], loader: pp.Loader) -> tuple[pp.PackedBatch, list[float]]:
    """Print one line per batch, and return the first batch and the losses."""
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
            report = loader.report()  # here, because the step after the last one belongs to the next epoch
    assert first is not None  # the loader raises if there is no batch
    console.print(f"\nfirst epoch: {report}\n")
    return first, losses
