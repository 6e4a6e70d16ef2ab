"""Scaling of images from more than 8 bits to 8 bits. The header of the file decides which value is white.

Images with hardly any contrast get a warning.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from patchpack.image.pillow_warnings import note

NARROW = "more than 8 bits, less than a tenth of the range is used"
"""The warning for an image of nearly one colour, such as 12 bits in a 16-bit file whose header does not say so."""

_GREYS = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_BITS, _WHITE_AT, _SIGN = 0x0102, 0x0106, 0x0153  # BitsPerSample, PhotometricInterpretation, SampleFormat
_UNSIGNED, _SIGNED = 1, 2
# white → how far beyond it, and below 0, a float may be: the overshoot of a resampling, and values that round to 255
_FLOATS = ((1.0, 0.05), (255.0, 0.5))
_FEW = 1000  # one in a thousand values at either end does not count as used


class Depth(NamedTuple):
    """The properties of pixels of more than 8 bits, as the header of their file states them.

    Attributes:
        white: value of white. Default None, not known: for floats and for 32-bit integers the header does not state this value.
        low_bits: number of significant bits from a PNG's sBIT chunk, 0 without the chunk. If the pixel values use the low bits,
            white is ``2**low_bits − 1``. Default 0.
        inverted: True if white is stored as 0. Default False.
        unsigned: True for unsigned 32-bit integers, which Pillow reads as signed integers. Default False.
        colour: True for a colour image, of which Pillow decodes only the upper 8 bits of each value. Default False.
    """

    white: float | None = None
    low_bits: int = 0
    inverted: bool = False
    unsigned: bool = False
    colour: bool = False


def of(image: Image.Image) -> Depth | None:
    """Return what the header says about pixels of more than 8 bits, or None for an image of 8 bits.

    Call this function before the image is loaded: loading a PNG loses its sBIT chunk.
    """
    tags = getattr(image, "tag_v2", {})
    bits = max(_numbers(tags.get(_BITS)), default=0)
    if image.mode not in _GREYS:
        stored = str(image.tile[0][3]) if isinstance(image, PngImagePlugin.PngImageFile) and image.tile else ""
        return Depth(colour=True) if bits > 8 or stored.endswith(";16B") else None
    inverted = tags.get(_WHITE_AT) == 0
    if image.mode == "F":
        return Depth(inverted=inverted)
    sign = max(_numbers(tags.get(_SIGN)), default=_UNSIGNED)
    if image.mode == "I":
        white = 32767.0 if bits == 16 and sign == _SIGNED else None
        return Depth(white, inverted=inverted, unsigned=bits == 32 and sign == _UNSIGNED)
    return Depth(float((1 << bits) - 1) if 8 < bits < 16 else 65535.0, _low_bits(image), inverted)


def eight_bits(image: Image.Image, depth: Depth, *, stretch: bool) -> Image.Image:
    """Convert a loaded image to 8 bits per channel.

    A grey image gets mode L, or mode LA if one of its values means transparent. A colour image keeps its mode.

    Args:
        image: a loaded image that has more than 8 bits in its file.
        depth: result of `of` for this image.
        stretch: True scales from the image's smallest value to its largest, whatever value the header gives for white. False
            scales as the header says.
    """
    if depth.colour:
        return _colour(image, stretch)
    if image.mode not in _GREYS:  # of a plugin that knows the mode only after decoding
        return image
    values: npt.NDArray[Any] = np.asarray(image)
    if depth.unsigned:
        values = values.view(np.uint32)
    finite = np.isfinite(values)
    scaled = np.where(finite, values, 0).astype(np.float64)
    low, high = _ends(scaled, image.mode, depth)
    if stretch:
        known = scaled[finite]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    scaled -= low
    scaled *= 255.0 / ((high - low) or 1.0)
    levels = np.rint(scaled).clip(0, 255).astype(np.uint8)
    if depth.inverted:
        levels = 255 - levels
    if stretch:
        levels[~finite] = 0
    grey = Image.fromarray(levels)
    key = image.info.get("transparency")
    if key is None:
        note_narrow(levels)
        return grey
    opaque = values != key
    note_narrow(levels[opaque])
    return Image.merge("LA", (grey, Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8))))


def _ends(values: npt.NDArray[np.float64], mode: str, depth: Depth) -> tuple[float, float]:
    """Return the value of black and the value of white."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        for white, beyond in _FLOATS:
            if high <= white + beyond and low >= (-beyond if high > white / 2 else 0.0):
                return 0.0, white
        return low, high
    if low < 0:
        return low, high
    if depth.low_bits and high < 1 << depth.low_bits and _stand_low(values, depth.low_bits):
        return 0.0, float((1 << depth.low_bits) - 1)
    return 0.0, max(high, 65535.0) if depth.white is None else depth.white


def _stand_low(values: npt.NDArray[np.float64], bits: int) -> bool:
    """Return True if the values use the low `bits` bits, that is, if they were not scaled to 16 bits as PNG requires.

    In values that were scaled, the number in the lowest ``16 − bits`` bits is 0 or 1.
    """
    return bool((values.astype(np.int64) & ((1 << (16 - bits)) - 1)).max() > 1)


def _colour(image: Image.Image, stretch: bool) -> Image.Image:
    if image.mode not in ("RGB", "RGBA", "RGBX"):
        return image
    if stretch:
        if "transparency" in image.info:  # a colour in the file's values, not the stretched ones
            image = image.convert("RGBA")
        pixels = np.array(image)
        low, high = int(pixels[..., :3].min()), int(pixels[..., :3].max())
        pixels[..., :3] = np.rint((pixels[..., :3].astype(np.float64) - low) * (255.0 / ((high - low) or 1)))
        image = Image.fromarray(pixels if image.mode == "RGBA" else np.ascontiguousarray(pixels[..., :3]))
    note_narrow(np.asarray(image)[..., :3])
    return image


def note_narrow(levels: npt.NDArray[np.uint8]) -> None:
    """Record a warning if an image's values lie within a tenth of the range.

    The lowest and the highest thousandth of the values do not count.

    Args:
        levels: values in 8 bits, of any shape.
    """
    if not levels.size:
        return
    counts = np.array(Image.fromarray(np.ascontiguousarray(levels.reshape(len(levels), -1))).histogram())
    edges = np.cumsum(counts)
    few = levels.size // _FEW
    low, high = np.searchsorted(edges, few, side="right"), np.searchsorted(edges, levels.size - few, side="left")
    if high - low < 25.5:
        note(NARROW)


def _low_bits(image: Image.Image) -> int:
    """Return the number of significant bits of grey from a PNG's sBIT chunk, 0 without the chunk.

    The file's position does not change.
    """
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile or image.fp is None:
        return 0
    file, place = image.fp, image.fp.tell()
    try:
        file.seek(8)
        while True:
            start = file.read(8)
            if len(start) < 8 or start[4:] == b"IDAT":
                return 0
            if start[4:] == b"sBIT":
                bits = file.read(1)
                return bits[0] if bits and 0 < bits[0] < 16 else 0
            file.seek(int.from_bytes(start[:4], "big") + 4, 1)
    finally:
        file.seek(place)


def _numbers(value: object) -> tuple[int, ...]:
    found = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in found if isinstance(number, int))
