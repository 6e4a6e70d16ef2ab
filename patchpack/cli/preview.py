"""``patchpack preview``: packed rows of somebody's own data, drawn as they are, and each image before and after resizing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

import patchpack as pp
from patchpack.batch.unpack import PackedImage
from patchpack.cli import draw, pairs, sheet
from patchpack.cli.opening import open_typed
from patchpack.cli.terminal import count_of, say, say_losses, source_arguments
from patchpack.image.formats import reading_of
from patchpack.image.picture import rgb_picture
from patchpack.types import BatchPlan, Header

WIDTH = 1200
PAIRS = 12


class Preview(NamedTuple):
    """The first rows of an epoch and what they were made of."""

    plan: BatchPlan
    batch: pp.PackedBatch[np.ndarray]
    images: list[PackedImage[np.ndarray]]  # up to PAIRS, some of every row
    originals: dict[tuple[str, int], Image.Image]  # of these, by key and part
    features: dict[str, Image.Image] | None = None  # of these, by key, a pixel per patch
    model: str = ""  # whose features


def run(
    source: str,
    recipe: pp.Recipe,
    out: str,
    *,
    name: str,
    epoch: int,
    ids: bool,
    image: str,
    target: str | None,
    model: str | None = None,
    weights: str | None = None,
) -> int:
    """Draw the first batch of a source, and what a model makes of it; returns the exit status."""
    path = writable(Path(out))  # before the data, which may be slow
    loaded = None
    if model is not None:
        from patchpack.cli import features

        loaded = features.load_model(model, weights)
    opened, _ = open_typed(source, image=image, target=target)
    preview = first_rows(opened, drawable(recipe), epoch)
    if model is not None and loaded is not None:
        colours = features.feature_pictures(preview.batch, preview.images, loaded)
        about = f"{model}, {'random weights' if weights is None else Path(weights).name}"
        preview = preview._replace(features=colours, model=about)
    sheet.save(picture(preview, name, epoch, recipe.seed, ids), path)
    batch, console = preview.batch, Console()
    # those that left a hole in a row come first
    rejected = sorted(batch.info.rejections, key=lambda r: r.stage in ("header", "plan"))
    faults = batch.info.shard_errors
    tokens, total = int(pp.token_mask(batch).sum()), batch.segment_ids.size
    say(console, f"{contents(batch)}: {tokens:,} of {total:,} tokens, fill {pp.fill_rate(batch):.3f}")
    if rejected:
        say(console, f"{count_of(len(rejected), 'sample')} on the way cannot be used:")
    say_losses(console, rejected, faults)
    say(console, f"wrote {path}")
    say(console, f"next: patchpack inspect {source_arguments(source, image, target)}")
    return 0


def writable(path: Path) -> Path:
    """The path, once it is known that a PNG can be written there. Raises `ConfigError`."""
    if path.suffix.lower() != ".png":
        raise pp.errors.ConfigError(f"--out must end in .png, got {path.name!r}")
    if path.is_dir():
        raise pp.errors.ConfigError(f"--out must be a file, {path} is a folder: add a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pp.errors.ConfigError(
            f"--out cannot be written, {type(error).__name__}: {error}: choose another place"
        ) from error
    return path


def drawable(recipe: pp.Recipe) -> pp.Recipe:
    """The same places and pixels, in the form a picture needs: uint8 patches, (row, col) positions."""
    normalize = recipe.normalize if isinstance(recipe.normalize, pp.normalize.MeanStd) else pp.normalize.HALF
    return recipe.replace(dtype="uint8", positions=pp.positions.Absolute(), normalize=normalize)


def first_rows(source: Any, recipe: pp.Recipe, epoch: int) -> Preview:
    """Plan and paint the first batch. Raises `SourceError` if no image can be packed."""
    planner = pp.Planner(source, recipe, epoch=epoch)
    plan = next(iter(planner))
    batch = pp.Painter(planner, recipe, on_error="skip")[plan]
    first = sorted(pp.unpack(batch), key=lambda image: (image.slot, image.row))[:PAIRS]
    images = sorted(first, key=lambda image: (image.row, image.slot))
    wanted = {(image.key, image.part) for image in images}
    originals = {(h.key, h.part): _original(planner, h) for h in plan.headers if (h.key, h.part) in wanted}
    return Preview(plan, batch, images, originals)


def _original(planner: pp.Planner, header: Header) -> Image.Image:
    image, _ = planner.source.reader(header.location)
    picture = rgb_picture(
        image, max_pixels=planner.recipe.max_pixels, background=planner.recipe.background, reading=reading_of(planner.recipe)
    )
    shrink = max(picture.height // pairs.CELL.height, picture.width // pairs.CELL.width) // 2
    # twelve large photographs at once would need gigabytes
    return picture.reduce((min(shrink, picture.width), min(shrink, picture.height))) if shrink > 1 else picture


def contents(batch: pp.PackedBatch[np.ndarray]) -> str:
    """How many images there are in how many rows."""
    readable = int(batch.slot_mask.sum())
    lost = sum(map(len, batch.keys)) - readable
    unreadable = f" and {lost} unreadable" if lost else ""
    return f"{count_of(readable, 'image')}{unreadable} in {count_of(len(batch.keys), 'row')}"


def picture(preview: Preview, name: str, epoch: int, seed: int, ids: bool) -> Image.Image:
    """All there is to see: the rows, then images before and after resizing."""
    plan, batch, images, originals, features, model = preview
    p, seq_len = batch.patch_size, batch.segment_ids.shape[1]
    readable = int(batch.slot_mask.sum())
    few = readable <= 4 * len(batch.keys) <= 16
    rows = draw.draw_rows(batch, plan=plan, width=WIDTH, height=200 if few else 120, legend=True, ids=ids)
    about = (
        "Each row is one sequence of tokens for the model: above, the patches of its images in their places; below, as a bar, "
        "its tokens in order.",
        f"Recipe {name}: {seq_len:,} tokens per row, patches of {p} x {p} pixels, epoch {epoch}, seed {seed}, "
        f"fill {pp.fill_rate(batch):.3f}",
    )
    parts = [sheet.panel(contents(batch), about, rows, width=WIDTH)]
    if images:
        some = "" if len(images) == readable else f"{len(images)} of these images. "
        line = f"{some}Sizes are height x width: pixels of the file, then patches for the model."
        lines = [line]
        if features is not None:
            lines.append(f"Features: {model}; colours are the first three principal components over these images.")
        body = pairs.before_after(images, originals, p, width=WIDTH, ids=ids, features=features)
        parts.append(sheet.panel("Before and after resizing", lines, body, width=WIDTH))
    return sheet.beside([sheet.stack(parts, gap=32, width=WIDTH)], gap=0, margin=24)
