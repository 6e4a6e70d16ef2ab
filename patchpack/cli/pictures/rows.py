"""Pictures of packed rows. Every image is drawn with its kept patches. A bar below shows the tokens of the row.

Each image has another colour than its neighbours. In an image, grey hatching is a dropped patch. In a bar, it is padding. A
crossed box is an unreadable image, whose place in the row stays empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import PackedImage, unpack
from patchpack.cli.pictures.sheet import INK, PAPER, beside, cross, font, hatching, hue, is_dark, line, stack
from patchpack.errors import ShapeError
from patchpack.paint.patchify import unpatchify
from patchpack.plan.policies import normalize, positions
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, Size

BAR = 18  # pixels
THINNEST = 6  # pixels of the short side of any image
_CROSSED = 26  # pixels per side of the box of an unreadable image


def drawable(recipe: Recipe) -> Recipe:
    """Return the recipe with uint8 patches and (row, col) positions, which pictures need. The packed pixels do not change."""
    same = recipe.normalize if isinstance(recipe.normalize, normalize.MeanStd) else normalize.HALF
    return recipe.replace(dtype="uint8", positions=positions.Absolute(), normalize=same)


def picture_of(image: PackedImage[ArrayT], patch_size: int, size: Size | None = None) -> Image.Image:
    """Draw one image as the model gets it, with dropped patches hatched. For a clip, draw the middle frame.

    Args:
        image: the image, with uint8 patches and (row, col) positions. A clip has (time, row, col) positions.
        patch_size: pixels per side of a patch.
        size: size of the picture in pixels. Default None: the size of the resized image.

    Raises:
        ShapeError: the patches are not uint8, or the positions are not (row, col).
    """
    patches, ids = np.asarray(image.patches), np.asarray(image.position_ids)
    if image.times is not None:
        frames = patches.shape[1] // (3 * patch_size**2)
        step, frame = divmod(image.times * frames // 2, frames)
        shown = ids[:, 0] == step
        patches, ids = patches[shown].reshape(shown.sum(), frames, -1)[:, frame], ids[shown, 1:]
    if patches.dtype != np.uint8 or ids.dtype != np.int32 or ids.shape[1] != 2:
        raise ShapeError("a picture of a batch needs uint8 patches and absolute (row, col) positions")
    rows, cols = image.grid
    size = size or Size(rows * patch_size, cols * patch_size)
    places = ids[:, 0] * cols + ids[:, 1]
    cells = np.full((rows * cols, patches.shape[1]), 230, dtype=np.uint8)  # near GROUND, which scaling mixes in
    kept = np.zeros(rows * cols, dtype=np.uint8)
    cells[places], kept[places] = patches, 255
    picture = scaled(Image.fromarray(unpatchify(cells, image.grid, patch_size)), size)
    mask = Image.fromarray(kept.reshape(rows, cols)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(picture, hatching(size), mask)


def scaled(picture: Image.Image, size: Size) -> Image.Image:
    """Resize a picture. Pixels are averaged to make it smaller, and repeated to make it larger."""
    larger = size.height >= picture.height and size.width >= picture.width
    return picture.resize((size.width, size.height), Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def fitted(size: Size, scale: float, within: Size) -> Size:
    """Return a size times a scale, or a smaller size if the scaled size does not fit.

    Args:
        size: size in pixels.
        scale: factor for both sides.
        within: largest size in pixels. No side gets shorter than `THINNEST`, so the short side of a long picture may exceed
            `within` a little.
    """
    scale = min(scale, within.height / size.height, within.width / size.width)
    return Size(max(THINNEST, round(size.height * scale)), max(THINNEST, round(size.width * scale)))


def draw_rows(
    batch: PackedBatch[ArrayT],
    *,
    plan: BatchPlan | None = None,
    rows: Sequence[int] | None = None,
    width: int = 1000,
    height: int = 64,
    per_token: float | None = None,
    captions: bool = True,
    legend: bool = False,
    ids: bool = False,
) -> Image.Image:
    """Draw rows of a batch, one below the other.

    Args:
        batch: a batch of numpy arrays or torch tensors, with uint8 patches and absolute positions.
        plan: the plan of the batch. Without it, an unreadable image that no readable image follows looks like padding.
        rows: numbers of the rows to draw. Default None: all.
        width: width of the picture in pixels. Default 1000.
        height: height in pixels of a square image with as many patches as the largest image in the picture. Default 64. All
            other images are drawn to the same scale, unless they are too long to fit. With ``captions=False`` every image is
            drawn as large as fits this height.
        per_token: width of a token in the bars, in pixels. Default None: `seq_len` tokens fill the width. Bars of several
            pictures are comparable if this number is the same.
        captions: True writes above each row how full the row is. Default True.
        legend: True explains above all rows what the picture shows. Default False.
        ids: True writes the slot number below every image, and into the image's section of the bar if it is wide enough.
            Default False.
    """
    slots: list[list[PackedImage[ArrayT] | None]] = [[None] * len(keys) for keys in batch.keys]
    for image in unpack(batch):
        slots[image.row][image.slot] = image
    seq_len = int(batch.segment_ids.shape[1])
    largest = max((image.grid.num_patches for row in slots for image in row if image), default=1) ** 0.5 * batch.patch_size
    scale = min(2, height / largest) if captions else None
    shown = range(len(slots)) if rows is None else rows
    lengths = {row: _lengths(batch, plan, row) for row in shown}
    padded = any(sum(lengths[row]) < seq_len for row in shown)
    parts = [_legend([image for row in shown for image in slots[row]], padded, ids, width)] if legend else []
    for row in shown:
        tokens = sum(len(image.patches) for image in slots[row] if image)
        bar = _bar(slots[row], lengths[row], seq_len, per_token or width / seq_len, ids)
        strip = _strip(slots[row], batch.patch_size, width, height, scale, ids)
        if captions:
            parts.append(stack([line(_caption(row, slots[row], tokens, seq_len), INK, width), strip, bar], gap=4, width=width))
        elif len(slots[row]) == 1:  # a picture and its bar fit one line
            parts.append(_side_by_side(strip, bar, at=2 * height, width=width))
        else:
            parts.append(stack([strip, bar], gap=4, width=width))
    return stack(parts, gap=18 if captions else 10, width=width)


def _caption(row: int, images: Sequence[PackedImage[ArrayT] | None], tokens: int, seq_len: int) -> str:
    readable = sum(image is not None for image in images)
    lost = f", {len(images) - readable} unreadable" if readable < len(images) else ""
    return f"row {row}: {readable} image{'s' * (readable != 1)}{lost}, {tokens:,} of {seq_len:,} tokens"


def _lengths(batch: PackedBatch[ArrayT], plan: BatchPlan | None, row: int) -> list[int]:
    """Return the number of tokens of every slot of a row. An unreadable image keeps its planned tokens, which are padding."""
    if plan is not None:
        lengths: list[int] = plan.table.num_tokens[plan.offsets[row] : plan.offsets[row + 1]].tolist()
        return lengths
    segments = np.asarray(batch.segment_ids[row])
    lengths, end = [0] * len(batch.keys[row]), 0
    for slot in range(len(lengths)):
        mine = np.flatnonzero(segments == slot + 1)
        if len(mine):
            if mine[0] > end:
                lengths[slot - 1] = int(mine[0]) - end
            lengths[slot], end = len(mine), int(mine[-1]) + 1
    return lengths


def _bar(
    images: Sequence[PackedImage[ArrayT] | None], lengths: Sequence[int], seq_len: int, per_token: float, ids: bool
) -> Image.Image:
    sheet = Image.new("RGB", (max(1, round(seq_len * per_token)), BAR), PAPER)
    pen, face, at = ImageDraw.Draw(sheet), font(12), 0
    for slot, (image, length) in enumerate(zip(images, lengths, strict=True)):
        left, right = round(at * per_token), round((at + length) * per_token)
        at += length
        if not length:  # unreadable, and its length is unknown
            continue
        gap = 2 if right - left > 6 else 1 if right - left > 2 else 0  # many short images: colours matter more than gaps
        box = (left, 0, max(left, right - gap - 1), BAR - 1)
        if image is None:
            cross(sheet, box)
        else:
            pen.rectangle(box, fill=hue(slot))
        number = str(slot)
        if ids and pen.textlength(number, face) + 4 <= box[2] - left:
            _number(pen, (left + 3, 2), number, PAPER if image and is_dark(hue(slot)) else INK, face, image is None)
    left = round(at * per_token)
    if left < sheet.width:
        sheet.paste(hatching(Size(BAR, sheet.width - left), outline=True), (left, 0))
    return sheet


def _number(pen: ImageDraw.ImageDraw, at: tuple[int, int], number: str, colour: str, face: Any, clear: bool) -> None:
    if clear:  # room among the crosses
        left, top, right, bottom = pen.textbbox(at, number, face)
        pen.rectangle((left - 1, top - 1, right, bottom), fill=PAPER)
    pen.text(at, number, fill=colour, font=face)


def _side_by_side(strip: Image.Image, bar: Image.Image, *, at: int, width: int) -> Image.Image:
    sheet = Image.new("RGB", (width, strip.height), PAPER)
    sheet.paste(strip.crop((0, 0, at - 8, strip.height)), (0, 0))
    sheet.paste(bar, (at, (strip.height - bar.height) // 2))
    return sheet


def _strip(
    images: Sequence[PackedImage[ArrayT] | None], patch_size: int, width: int, height: int, common: float | None, ids: bool
) -> Image.Image:
    """Draw the images of a row on as many lines as they need. Each image is underlined in its colour.

    `common` is the scale of all images. None draws each image as large as fits the height.
    """
    gap, rule, face = 6, 4, font(12)
    within = Size(3 * height // 2, width) if common else Size(height, min(width, 2 * height - 16))
    lines: list[list[Image.Image]] = [[]]
    for slot, image in enumerate(images):
        if image is None:
            picture = Image.new("RGB", (_CROSSED, _CROSSED), PAPER)
            cross(picture, (0, 0, _CROSSED - 1, _CROSSED - 1))
        else:
            own = Size(image.grid.rows * patch_size, image.grid.cols * patch_size)
            picture = picture_of(image, patch_size, fitted(own, common or float("inf"), within))
        # as wide as its number, so that numbers of narrow images do not touch
        wide = max(picture.width, round(face.getlength(str(slot))) + 3) if ids else picture.width
        cell = Image.new("RGB", (wide, picture.height + 2 + rule + 15 * ids), PAPER)
        pen = ImageDraw.Draw(cell)
        cell.paste(picture, (0, 0))
        if image is not None:
            pen.rectangle((0, picture.height + 2, picture.width - 1, picture.height + 1 + rule), fill=hue(slot))
        if ids:
            pen.text((0, picture.height + 3 + rule), str(slot), fill=INK, font=face)
        if lines[-1] and sum(c.width + gap for c in lines[-1]) + wide > width:
            lines.append([])
        lines[-1].append(cell)
    return stack([beside(cells, gap=gap, margin=0, level="bottom") for cells in lines if cells], gap=gap, width=width)


def _legend(images: Sequence[PackedImage[ArrayT] | None], padded: bool, ids: bool, width: int) -> Image.Image:
    """Explain the marks that occur in these rows."""
    swatches = [Image.new("RGB", (12, 12), hue(slot)) for slot in range(3)]
    entries = [(beside(swatches, gap=1, margin=0), "an image, above and in the bar")]
    hatched = []
    if any(image and len(image.patches) < image.grid.num_patches for image in images):
        hatched.append("a dropped patch (above)")
    if padded:
        hatched.append("padding (in the bar)")
    if hatched:
        entries.append((hatching(Size(12, 24), outline=True), " or ".join(hatched)))
    if None in images:
        swatch = Image.new("RGB", (24, 12), PAPER)
        cross(swatch, (0, 0, 23, 11))
        entries.append((swatch, "an unreadable image: its place is padding, nothing moves up"))
    if ids:
        swatch = Image.new("RGB", (14, 14), hue(0))
        ImageDraw.Draw(swatch).text((4, 0), "0", fill=PAPER, font=font(12))
        entries.append((swatch, "a slot: the place of an image in its row"))
    lines: list[list[Image.Image]] = [[]]
    for swatch, text in entries:
        entry = Image.new("RGB", (swatch.width + 6 + round(font(14).getlength(text)) + 1, 18), PAPER)
        entry.paste(swatch, (0, 10 - swatch.height // 2))
        ImageDraw.Draw(entry).text((swatch.width + 6, 0), text, fill=INK, font=font(14))
        if lines[-1] and sum(e.width + 22 for e in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return stack([beside(entries, gap=22, margin=0) for entries in lines], gap=2, width=width)
