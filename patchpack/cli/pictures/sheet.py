"""The colours and patterns of every picture, and the layout of pictures on white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from patchpack.types import Size

PAPER, INK, SOFT, FAINT = "#ffffff", "#1f2933", "#52606d", "#7b8794"
HATCH, GROUND = "#b4bdc7", "#e4e8ec"
# six colours of Okabe and Ito and two of Paul Tol, in an order in which colour-blind people tell neighbours apart
HUES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#332288", "#56b4e9", "#882255")


def font(size: int) -> Any:
    """Return Pillow's scalable font in a size of `size` pixels."""
    return ImageFont.load_default(size)


def hue(slot: int) -> str:
    """Return the colour of the image in a slot. The eight colours repeat."""
    return HUES[slot % len(HUES)]


def is_dark(colour: str) -> bool:
    """Return True if white letters are easier to read on a colour than black ones."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 130


def line(text: str, colour: str, width: int) -> Image.Image:
    """Draw a line of text, 18 pixels high.

    Args:
        text: the text, with letters that `font` has.
        colour: colour of the letters.
        width: width of the picture in pixels. A longer text is cut off.
    """
    sheet = Image.new("RGB", (width, 18), PAPER)
    ImageDraw.Draw(sheet).text((0, 0), text, fill=colour, font=font(14))
    return sheet


def panel(title: str, lines: Sequence[str], body: Image.Image, *, width: int) -> Image.Image:
    """Put a title and lines of text above a picture.

    Args:
        title: the title, in large letters.
        lines: the text, in small letters.
        body: the picture.
        width: width of the result in pixels.
    """
    head = 34 + 20 * len(lines) + 10
    sheet = Image.new("RGB", (width, head + body.height + 4), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((0, 2), title, fill=INK, font=font(22))
    for i, text in enumerate(lines):
        pen.text((0, 34 + 20 * i), text, fill=SOFT, font=font(14))
    sheet.paste(body, (0, head))
    return sheet


def stack(parts: Sequence[Image.Image], *, gap: int, width: int) -> Image.Image:
    """Put pictures one below the other, at the left.

    Args:
        parts: the pictures.
        gap: pixels between two pictures.
        width: width of the result in pixels.
    """
    sheet = Image.new("RGB", (width, sum(p.height + gap for p in parts) - gap if parts else 1), PAPER)
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height + gap
    return sheet


def beside(parts: Sequence[Image.Image], *, gap: int, margin: int, level: str = "top") -> Image.Image:
    """Put pictures next to each other on white.

    Args:
        parts: the pictures, at least one.
        gap: pixels between two pictures.
        margin: pixels around all pictures together.
        level: the edge at which the pictures are aligned, "top" or "bottom". Default "top".
    """
    width = sum(p.width for p in parts) + gap * (len(parts) - 1) + 2 * margin
    tallest = max(p.height for p in parts)
    sheet = Image.new("RGB", (width, tallest + 2 * margin), PAPER)
    x = margin
    for part in parts:
        sheet.paste(part, (x, margin + (tallest - part.height) * (level == "bottom")))
        x += part.width + gap
    return sheet


def save(picture: Image.Image, path: Path) -> Path:
    """Write a picture as a PNG file, and return the path. A missing folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    return path


def hatching(size: Size, *, outline: bool = False) -> Image.Image:
    """Draw the grey hatching of dropped patches and of padding, with a frame if `outline` is set."""
    tile = Image.new("RGB", (size.width, size.height), GROUND)
    pen = ImageDraw.Draw(tile)
    for x in range(-tile.height, tile.width, 6):
        pen.line((x, tile.height, x + tile.height, 0), fill=HATCH)
    if outline:
        pen.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=HATCH)
    return tile


def cross(sheet: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Draw two crossing lines, the sign of an unreadable image, into a box.

    The box is (left, top, right, bottom) in pixels, with its right column and bottom row included.
    """
    left, top, right, bottom = box
    tile = Image.new("RGB", (right - left + 1, bottom - top + 1), PAPER)
    pen = ImageDraw.Draw(tile)
    for x in range(-tile.height, tile.width, 9):
        pen.line((x, tile.height, x + tile.height, 0), fill=INK)
        pen.line((x, 0, x + tile.height, tile.height), fill=INK)
    pen.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=INK)
    sheet.paste(tile, (left, top))
