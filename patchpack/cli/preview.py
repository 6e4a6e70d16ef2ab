"""``patchpack preview``: packed rows of somebody's own data, drawn as they are, and each image before and after resizing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import patchpack as pp
from patchpack.cli import draw
from patchpack.cli.opening import open_typed
from patchpack.paint.picture import rgb_picture
from patchpack.types import Header

WIDTH = 1200
PAIRS = 12


class Preview(NamedTuple):
    """The first rows of an epoch and what they were made of."""

    batch: pp.PackedBatch
    originals: dict[str, Image.Image]  # by key, in slot order


def run(source: str, recipe: pp.Recipe, out: str, *, epoch: int, ids: bool, image: str, target: str | None) -> int:
    """Draw the first batch of a source; returns the exit status."""
    opened, target = open_typed(source, image=image, target=target)
    preview = first_rows(opened, drawable(recipe), epoch)
    batch = preview.batch
    parts = [
        draw.draw_rows(batch, width=WIDTH, height=120, legend=True, ids=ids),
        draw.before_after(list(pp.unpack(batch))[:PAIRS], preview.originals, batch.patch_size, width=WIDTH),
    ]
    path = draw.save(draw.beside([draw.stack(parts, gap=28, width=WIDTH)], gap=0, margin=24), Path(out))
    rejected = [pp.Rejection(**r) for r in batch.info["rejections"]]
    tokens, total = int(pp.token_mask(batch).sum()), batch.segment_ids.size
    print(
        f"{batch.info['packed']} images in {len(batch.keys)} rows: {tokens} of {total} tokens, fill {pp.fill_rate(batch):.3f}"
    )
    for rejection in rejected:
        print(f"rejected {rejection}")
    print(f"wrote {path}\nnext: patchpack inspect {source}")
    return 0


def drawable(recipe: pp.Recipe) -> pp.Recipe:
    """The same places and pixels, in the form a picture needs: uint8 patches, (row, col) positions."""
    normalize = recipe.normalize if isinstance(recipe.normalize, pp.MeanStd) else pp.HALF
    return recipe.replace(dtype="uint8", positions=pp.Absolute(), normalize=normalize)


def first_rows(source: Any, recipe: pp.Recipe, epoch: int) -> Preview:
    """Plan and paint the first batch. Raises `SourceError` if no image can be packed."""
    planner = pp.Planner(source, recipe, epoch=epoch)
    plan = next(iter(planner))
    batch = pp.Painter(planner, recipe, on_error="skip")[plan]
    readable = {image.key for image in pp.unpack(batch)}
    wanted: list[Header] = [header for header in plan.headers if header.key in readable][:PAIRS]
    originals = {h.key: _original(planner, h) for h in wanted}
    return Preview(batch, originals)


def _original(planner: pp.Planner, header: Header) -> Image.Image:
    image, _ = planner.source.reader(header.location)
    return rgb_picture(image, max_pixels=planner.recipe.max_pixels, background=planner.recipe.background)
