"""Pictures of packed rows: every image with its surviving patches in place, and the row's tokens as a bar beneath.

Colours tell the images of a row apart; grey hatching is what was dropped (in an image) or is padding (in a bar).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from patchpack.errors import ShapeError
from patchpack.paint.batch import PackedImage, unpack
from patchpack.paint.patchify import unpatchify
from patchpack.types import PackedBatch

PAPER, INK, FAINT, HATCH = "#ffffff", "#1f2933", "#7b8794", "#c5ccd3"
# ten hues of like lightness, neighbours far apart
HUES = (
    "#3b7dd8", "#e8833a", "#3f9e57", "#c94f7c", "#8a63d2", "#b5932c", "#2a9d9d", "#8c5a3c", "#6b8e23", "#5b6c8f",
)  # fmt: skip


def font(size: int) -> Any:
    """Pillow's own scalable font."""
    return ImageFont.load_default(size)


def picture_of(image: PackedImage, patch_size: int) -> Image.Image:
    """One image as the model gets it: surviving patches at their place, dropped ones hatched.

    Raises:
        ShapeError: patches that are not uint8, or position ids that are not (row, col).
    """
    patches, ids = np.asarray(image.patches), np.asarray(image.position_ids)
    if patches.dtype != np.uint8 or ids.dtype != np.int32 or ids.shape[1] != 2:
        raise ShapeError("a picture of a batch needs uint8 patches and absolute (row, col) positions")
    rows, cols = image.grid
    cells = np.tile(_hatched_patch(patch_size), (rows * cols, 1))
    cells[ids[:, 0] * cols + ids[:, 1]] = patches
    return Image.fromarray(unpatchify(cells, image.grid, patch_size))


def draw_rows(
    batch: PackedBatch,
    *,
    rows: Sequence[int] | None = None,
    width: int = 1000,
    height: int = 64,
    per_token: float | None = None,
    captions: bool = True,
    legend: bool = False,
    ids: bool = False,
) -> Image.Image:
    """Rows of a batch, one under the other.

    Args:
        batch: uint8 patches with absolute positions, numpy or torch.
        rows: which rows, None for all.
        width: pixels of the picture.
        height: pixels that the tallest image of a row is drawn with; without captions, every image.
        per_token: pixels of a token in the bars; None lets seq_len fill the width. The same number in several pictures
            makes their bars comparable.
        captions: say above each row how full it is.
        legend: say below what colours and hatching mean.
        ids: write the slot number under every image and into its part of the bar.
    """
    images: dict[int, list[PackedImage]] = {}
    for image in unpack(batch):
        images.setdefault(image.row, []).append(image)
    seq_len = int(batch.segment_ids.shape[1])
    tallest = max((image.grid.rows for members in images.values() for image in members), default=1) * batch.patch_size
    scale = height / tallest if captions else None
    parts = []
    for row in range(len(batch.keys)) if rows is None else rows:
        members = images.get(row, [])
        bar = _bar(members, seq_len, per_token or width / seq_len, ids)
        strip = _strip(members, batch.patch_size, width, height, scale, ids)
        if captions:
            tokens = sum(len(image.patches) for image in members)
            text = f"row {row}:  {len(members)} image{'s' * (len(members) != 1)},  {tokens} of {seq_len} tokens"
            parts.append(stack([_line(text, INK, width), strip, bar], gap=4, width=width))
        elif len(members) == 1:  # a picture and its bar fit one line
            parts.append(_abreast(strip, bar, at=2 * height, width=width))
        else:
            parts.append(stack([strip, bar], gap=4, width=width))
    if legend:
        text = "one colour per image; hatched squares were dropped; a bar is the row's tokens in order, its hatched end padding"
        parts.append(_line(text, FAINT, width))
    return stack(parts, gap=18 if captions else 10, width=width)


def _line(text: str, colour: str, width: int) -> Image.Image:
    sheet = Image.new("RGB", (width, 18), PAPER)
    ImageDraw.Draw(sheet).text((0, 0), text, fill=colour, font=font(14))
    return sheet


def _bar(images: list[PackedImage], seq_len: int, per_token: float, ids: bool) -> Image.Image:
    sheet = Image.new("RGB", (max(1, round(seq_len * per_token)), 16), PAPER)
    pen = ImageDraw.Draw(sheet)
    at = 0
    for image in images:
        left, right = round(at * per_token), round((at + len(image.patches)) * per_token)
        pen.rectangle((left, 0, max(left, right - 2), 15), fill=HUES[image.slot % len(HUES)])
        if ids and right - left > 16:
            pen.text((left + 3, 1), str(image.slot), fill=PAPER, font=font(12))
        at += len(image.patches)
    _hatch_box(sheet, (round(at * per_token), 0, sheet.width - 1, 15))
    return sheet


def _abreast(strip: Image.Image, bar: Image.Image, *, at: int, width: int) -> Image.Image:
    sheet = Image.new("RGB", (width, strip.height), PAPER)
    sheet.paste(strip.crop((0, 0, at - 8, strip.height)), (0, 0))
    sheet.paste(bar, (at, (strip.height - bar.height) // 2))
    return sheet


def _strip(images: list[PackedImage], patch_size: int, width: int, height: int, common: float | None, ids: bool) -> Image.Image:
    """The images of a row, each underlined in its colour; wrapped into lines where they are too many.

    common: the scale of all; None draws each as large as fits the height.
    """
    gap, line, number = 6, 4, 14 * ids
    pictures = [picture_of(image, patch_size) for image in images]
    lines: list[list[tuple[int, Image.Image, int]]] = [[]]
    x = 0
    for image, picture in zip(images, pictures, strict=True):
        scale = common or min(height / picture.height, (2 * height - 16) / picture.width)
        scale = min(scale, width / picture.width)
        size = (max(3, round(picture.width * scale)), max(3, round(picture.height * scale)))
        if x and x + size[0] > width:
            lines.append([])
            x = 0
        kernel = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        lines[-1].append((x, picture.resize(size, kernel), image.slot))
        x += size[0] + gap
    heights = [max((p.height for _, p, _ in content), default=8) + line + 2 + number for content in lines]
    sheet = Image.new("RGB", (width, sum(heights) + gap * (len(lines) - 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    y = 0
    for content, tall in zip(lines, heights, strict=True):
        base = y + tall - line - 2 - number
        for x, picture, slot in content:
            sheet.paste(picture, (x, base - picture.height))
            pen.rectangle((x, base + 2, x + picture.width - 1, base + 1 + line), fill=HUES[slot % len(HUES)])
            if ids:
                pen.text((x, base + 3 + line), str(slot), fill=INK, font=font(12))
        y += tall + gap
    return sheet


def before_after(
    images: Sequence[PackedImage], originals: Mapping[str, Image.Image], patch_size: int, *, width: int, height: int = 110
) -> Image.Image:
    """Each image as its file shows it, and beneath it what the model gets; sizes in pixels, then the grid in patches."""
    cells = []
    for image in images:
        before, after = originals[image.key], picture_of(image, patch_size)
        thumbs = [p.resize(_within(p, 2 * height, height)) for p in (before, after)]
        h, w = image.source_size
        texts = (f"{h} x {w}", f"{image.grid.rows} x {image.grid.cols}, {len(image.patches)} kept")
        cell = Image.new("RGB", (max(132, *(t.width for t in thumbs)), 2 * (height + 20)), PAPER)
        pen = ImageDraw.Draw(cell)
        for i, (thumb, text) in enumerate(zip(thumbs, texts, strict=True)):
            top = i * (height + 20)
            cell.paste(thumb, (0, top + height - thumb.height))
            pen.text((0, top + height + 2), text, fill=FAINT, font=font(13))
        cells.append(cell)
    lines: list[list[Image.Image]] = [[]]
    for cell in cells:
        if lines[-1] and sum(c.width + 14 for c in lines[-1]) + cell.width > width:
            lines.append([])
        lines[-1].append(cell)
    head = _line(
        "before and after resizing: height x width in pixels; rows x cols of patches and how many were kept", FAINT, width
    )
    return stack([head, *(beside(line, gap=14, margin=0) for line in lines if line)], gap=12, width=width)


def _within(picture: Image.Image, width: int, height: int) -> tuple[int, int]:
    scale = min(width / picture.width, height / picture.height)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def panel(title: str, lines: Sequence[str], body: Image.Image, *, width: int) -> Image.Image:
    """A titled box around a picture."""
    head = 34 + 20 * len(lines) + 10
    sheet = Image.new("RGB", (width, head + body.height + 4), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((0, 2), title, fill=INK, font=font(22))
    for i, line in enumerate(lines):
        pen.text((0, 34 + 20 * i), line, fill=FAINT, font=font(14))
    sheet.paste(body, (0, head))
    return sheet


def stack(parts: Sequence[Image.Image], *, gap: int, width: int) -> Image.Image:
    """Pictures one under the other."""
    sheet = Image.new("RGB", (width, sum(p.height + gap for p in parts) - gap if parts else 1), PAPER)
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height + gap
    return sheet


def beside(parts: Sequence[Image.Image], *, gap: int, margin: int) -> Image.Image:
    """Pictures next to each other, tops aligned, on white with a margin."""
    width = sum(p.width for p in parts) + gap * (len(parts) - 1) + 2 * margin
    sheet = Image.new("RGB", (width, max(p.height for p in parts) + 2 * margin), PAPER)
    x = margin
    for part in parts:
        sheet.paste(part, (x, margin))
        x += part.width + gap
    return sheet


def save(picture: Image.Image, path: Path) -> Path:
    """Write a PNG; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    return path


def _hatched_patch(patch_size: int) -> npt.NDArray[np.uint8]:
    patch = Image.new("RGB", (patch_size, patch_size), "#f3f5f7")
    ImageDraw.Draw(patch).line((0, patch_size - 1, patch_size - 1, 0), fill=HATCH)
    return np.asarray(patch).reshape(1, -1)


def _hatch_box(sheet: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    if right <= left:
        return
    tile = Image.new("RGB", (right - left + 1, bottom - top + 1), "#f3f5f7")
    pen = ImageDraw.Draw(tile)
    for x in range(-tile.height, tile.width, 7):
        pen.line((x, tile.height, x + tile.height, 0), fill=HATCH)
    pen.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=HATCH)
    sheet.paste(tile, (left, top))
