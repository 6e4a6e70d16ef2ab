"""The conversion of colours from an embedded colour profile to sRGB, with Pillow's LittleCMS."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, features

from patchpack.image.pillow_warnings import note

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

BROKEN = "the colour profile cannot be used, so colours are not converted"
"""The warning for a profile that LittleCMS cannot read, or that does not fit the pixels, such as CMYK in an RGB file."""

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def is_there() -> bool:
    """Return True if the installed Pillow can convert colour profiles."""
    return bool(features.check_module("littlecms2"))


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert the colours of an image to sRGB, mode RGB or RGBA. If the profile cannot be used, return the image unchanged.

    Args:
        image: a loaded image of 8 bits per channel.
        profile: bytes of the ICC profile that is embedded in the image file.
    """
    from PIL import ImageCms

    try:
        found = _transform(bytes(profile))
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        found = None
    if found is None:
        note(BROKEN)
        return image
    transform, mode = found
    colours, alpha = _taken_apart(image)
    if mode == "RGB" and colours.mode not in ("CMYK", "LAB"):
        colours = colours.convert("RGB")
    if mode == "L" and colours.mode == "1":
        colours = colours.convert("L")
    if colours.mode != mode:
        note(BROKEN)
        return image
    converted = transform.apply(colours)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[ImageCmsTransform, str] | None:
    """Return the transform from a profile to sRGB, and the mode of its input pixels. Return None for an unknown mode."""
    from PIL import ImageCms

    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _MODES.get(given.profile.xcolor_space.strip())
    if mode is None:
        return None
    return ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB"), mode


def _taken_apart(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of an image, and its transparency. The transparency is None if the image has none."""
    if not image.has_transparency_data:
        return image, None
    if image.mode in ("L", "LA", "La"):
        image = image.convert("LA")
        return image.getchannel("L"), image.getchannel("A")
    image = image.convert("RGBA")
    return image.convert("RGB"), image.getchannel("A")
