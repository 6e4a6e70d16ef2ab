"""Pictures of images before and after resizing. The upper picture is the file. The lower one shows the model's patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from patchpack.batch._types import ArrayT
from patchpack.batch.unpack import PackedImage
from patchpack.cli.pictures.rows import fitted, picture_of, scaled
from patchpack.cli.pictures.sheet import INK, PAPER, SOFT, beside, font, hue, stack
from patchpack.cli.terminal import printable
from patchpack.types import Size

CELL = Size(110, 188)  # six side by side on 1200 pixels
_GAP, _LINE = 14, 17


def draw_pairs(
    images: Sequence[PackedImage[ArrayT]],
    originals: Mapping[tuple[str, int], Image.Image],
    patch_size: int,
    *,
    width: int,
    ids: bool = False,
    features: Mapping[str, Image.Image] | None = None,
) -> Image.Image:
    """Draw each image twice: above as stored in the file, below as the model receives it.

    The line below an image has the colour of this image in the picture of the rows.

    Args:
        images: images of one batch.
        originals: the images as in their files, by (key, number of the image in its sample). Thumbnails of the size `CELL` are
            enough.
        patch_size: pixels per side of a patch.
        width: width of the picture in pixels.
        ids: True writes the numbers of row and slot too. Default False.
        features: pictures of the model's features by key, one pixel per patch. They are drawn below the images. Default None:
            no features.
    """
    per_line = max(1, (width + _GAP) // (CELL.width + _GAP))
    lines = [images[i : i + per_line] for i in range(0, len(images), per_line)]
    return stack([_line_of(line, originals, patch_size, ids, features) for line in lines], gap=18, width=width)


def _line_of(
    images: Sequence[PackedImage[ArrayT]],
    originals: Mapping[tuple[str, int], Image.Image],
    patch_size: int,
    ids: bool,
    features: Mapping[str, Image.Image] | None,
) -> Image.Image:
    names, befores, afters, below = [], [], [], []
    for image in images:
        before = scaled(originals[image.key, image.part], fitted(image.source_size, float("inf"), CELL))
        grid = image.grid
        after = picture_of(image, patch_size, fitted(Size(grid.rows * patch_size, grid.cols * patch_size), float("inf"), CELL))
        underlined = Image.new("RGB", (after.width, after.height + 6), PAPER)
        underlined.paste(after, (0, 0))
        ImageDraw.Draw(underlined).rectangle((0, after.height + 2, after.width - 1, after.height + 5), fill=hue(image.slot))
        name = [_words(shortened(image.key, CELL.width), INK)]
        name += [_words(f"row {image.row}, slot {image.slot}", SOFT)] * ids
        pixels = f"{image.source_size.height} x {image.source_size.width} pixels"
        kept = "all" if len(image.patches) == grid.num_patches else len(image.patches)
        names.append(_cell(name))
        befores.append(_cell([before, _words(pixels, SOFT)]))
        afters.append(_cell([underlined, _words(f"{grid.rows} x {grid.cols} patches, {kept} kept", SOFT)]))
        if features is not None:
            below.append(_cell([features[image.key].resize(after.size, Image.Resampling.NEAREST), _words("features", SOFT)]))
    return stack(
        [beside(cells, gap=_GAP, margin=0, level="bottom") for cells in (names, befores, afters, below) if cells],
        gap=4,
        width=len(images) * (CELL.width + _GAP) - _GAP,
    )


def _cell(parts: Sequence[Image.Image]) -> Image.Image:
    return stack(parts, gap=2, width=CELL.width)


def _words(text: str, colour: str) -> Image.Image:
    sheet = Image.new("RGB", (CELL.width, _LINE), PAPER)
    ImageDraw.Draw(sheet).text((0, 0), text, fill=colour, font=font(13))
    return sheet


def shortened(key: str, width: int) -> str:
    """Return the end of a key, in letters that the font has. The ends of keys differ more than their beginnings.

    The result is at most `width` pixels long.
    """
    text, face = printable(key, "latin-1"), font(13)
    if face.getlength(text) <= width:
        return text
    while face.getlength(f"...{text}") > width:
        text = text[1:]
    return f"...{text}"
