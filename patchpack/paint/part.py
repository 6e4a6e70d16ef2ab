"""The decoding of an image for a batch, and the scaling of its box (the part that is used) to the decoded pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchpack._arrays import UInt8Array
from patchpack.errors import DecodeError
from patchpack.image import draft
from patchpack.image.canvas import widened
from patchpack.image.decode import open_image, oriented_size, require_bytes
from patchpack.image.fast_jpeg import decode_fast_jpeg
from patchpack.image.formats import reading_of
from patchpack.image.picture import picture_bytes, readable, rgb_picture
from patchpack.paint.resample import reads_memory
from patchpack.plan.recipe import Recipe
from patchpack.types import Size


def part_of_picture(
    image: object, size: Size, box: draft.Box, target: tuple[int, int], recipe: Recipe
) -> tuple[Image.Image | UInt8Array, draft.Box]:
    """Decode the image of a sample as the recipe says. Return the decoded image, and the box in pixels of the decoded image.

    If the recipe has ``decode="draft"``, the decoded image may be smaller than the image in the file. The box is then scaled
    down too.

    Args:
        image: any value of `Sample.image` for a single image.
        size: height and width in pixels that were planned, after orientation.
        box: (top, left, height, width) of the part that is used, in pixels of an image of `size`.
        target: (height, width) in pixels that the box will be resampled to.
        recipe: recipe with the decoder, the limits and the background.

    Returns:
        The image and the box. The image is an upright Pillow image of mode RGB, or uint8 ``[H, W, 4]`` of red, green, blue and
        an unused byte. The next call in this thread overwrites such an array.

    Raises:
        DecodeError: the image cannot be decoded, its size differs from `size`, or it has more pixels or bytes than the recipe
            allows.
        SourceError: the file that `image` names cannot be read.
    """
    reading = reading_of(recipe)
    image = readable(image, max_bytes=recipe.max_bytes, background=recipe.background, reading=reading)
    limit, file = recipe.max_pixels, image if isinstance(image, (bytes, bytearray, memoryview)) else None
    if file is not None:
        require_bytes(picture_bytes(file), recipe.max_bytes)
    if recipe.decode == "draft" and file is not None:
        opened = open_image(bytes(file), max_pixels=limit, formats=recipe.formats)
        _match(oriented_size(opened), size)  # before decoding: the box does not fit an image of another size
        drafted = draft.draft(opened, size, box, target, recipe.background, reading)
        if drafted is not None:
            return drafted
    elif reads_memory(recipe) and not isinstance(image, Image.Image):
        simplejpeg, tagged = recipe.decode == "simplejpeg", recipe.icc == "ignore"
        if isinstance(image, np.ndarray):
            pixels: UInt8Array | None = widened(image)
        else:
            pixels = decode_fast_jpeg(bytes(image), limit, simplejpeg=simplejpeg, tagged=tagged)
        if pixels is not None:
            _match(Size(*pixels.shape[:2]), size)
            return pixels, box
    picture = rgb_picture(image, max_pixels=limit, background=recipe.background, reading=reading)
    _match(Size(picture.height, picture.width), size)
    return picture, box


def _match(found: Size, planned: Size) -> None:
    if tuple(found) != tuple(planned):
        raise DecodeError(
            f"expected {planned.height} x {planned.width} pixels (height x width), as the header said, got "
            f"{found.height} x {found.width}"
        )
