"""The picture of ``patchpack preview``: packed rows, and their images before and after resizing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import PackedImage
from patchpack.batch.views import fill_rate
from patchpack.cli.pictures import sheet
from patchpack.cli.pictures.pairs import draw_pairs
from patchpack.cli.pictures.rows import draw_rows
from patchpack.cli.terminal import count_of
from patchpack.types import BatchPlan

WIDTH = 1200


class Preview(NamedTuple):
    """The contents of a preview: the first rows of an epoch, and the images in these rows.

    Attributes:
        plan: plan of the batch.
        batch: the batch of the first rows.
        images: the images that are drawn before and after resizing.
        originals: the pictures in the images' files, by (key, number of the image in its sample).
        features: pictures of the model's features of the images by key, one pixel per patch. None without a model.
        model: name and weights of the model.
    """

    plan: BatchPlan
    batch: PackedBatch[np.ndarray]
    images: list[PackedImage[np.ndarray]]
    originals: dict[tuple[str, int], Image.Image]
    features: dict[str, Image.Image] | None = None
    model: str = ""


def contents(batch: PackedBatch[np.ndarray]) -> str:
    """Return the number of images and rows of a batch as text."""
    readable = int(batch.slot_mask.sum())
    lost = sum(map(len, batch.keys)) - readable
    unreadable = f" and {lost} unreadable" if lost else ""
    return f"{count_of(readable, 'image')}{unreadable} in {count_of(len(batch.keys), 'row')}"


def draw_preview(preview: Preview, name: str, *, epoch: int, seed: int, ids: bool) -> Image.Image:
    """Draw the rows, then images before and after resizing.

    Args:
        preview: the contents to draw.
        name: name of the preset, for the text.
        epoch: number of the epoch, for the text.
        seed: seed of the random draws, for the text.
        ids: True writes the numbers of slots. False leaves them out.
    """
    plan, batch, images, originals, features, model = preview
    p, seq_len = batch.patch_size, batch.segment_ids.shape[1]
    readable = int(batch.slot_mask.sum())
    few = readable <= 4 * len(batch.keys) <= 16
    rows = draw_rows(batch, plan=plan, width=WIDTH, height=200 if few else 120, legend=True, ids=ids)
    about = (
        "Each row is one sequence of tokens for the model: above, the patches of its images in their places; below, as a bar, "
        "its tokens in order.",
        f"Recipe {name}: {seq_len:,} tokens per row, patches of {p} x {p} pixels, epoch {epoch}, seed {seed}, "
        f"fill {fill_rate(batch):.3f}",
    )
    parts = [sheet.panel(contents(batch), about, rows, width=WIDTH)]
    if images:
        some = "" if len(images) == readable else f"{len(images)} of these images. "
        lines = [f"{some}Sizes are height x width: pixels of the file, then patches for the model."]
        if features is not None:
            lines.append(f"Features: {model}; colours are the first three principal components over these images.")
        body = draw_pairs(images, originals, p, width=WIDTH, ids=ids, features=features)
        parts.append(sheet.panel("Before and after resizing", lines, body, width=WIDTH))
    return sheet.beside([sheet.stack(parts, gap=32, width=WIDTH)], gap=0, margin=24)
