"""Arrays and tensors as images: the layouts and types of numbers that are accepted, and the conversion to 8-bit RGB.

Tensors are recognised by their methods, so this module never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchpack._arrays import UInt8Array
from patchpack._shown import said
from patchpack.errors import DecodeError
from patchpack.image import depth
from patchpack.image.decode import WHITE, Colour, to_rgb
from patchpack.image.formats import DEFAULT, Reading
from patchpack.types import Size

if TYPE_CHECKING:
    import torch

CHANNELS = (1, 3, 4)
"""Numbers of channels of an image: grey, RGB, and RGB with alpha."""

LAYOUTS = "[H, W], [H, W, 1 | 3 | 4] or [1 | 3 | 4, H, W]"
_TYPES = "uint8, uint16 or float in [0, 1]"
_BLOCK = 1 << 15  # floats that are scaled at a time
_HALF = 0.5 / 255  # half a level: a float this far outside [0, 1] is a rounding error, and is rounded to 0 or to 255


def is_array(value: object) -> TypeGuard[npt.NDArray[Any] | torch.Tensor]:
    """Return True for a numpy array and for a torch tensor."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "is_floating_point"))


def as_array(value: object) -> npt.NDArray[Any]:
    """Return an array or a tensor as a numpy array. A tensor in main memory shares its memory with the result.

    Raises:
        DecodeError: the array has masked values, or the tensor has no values that numpy can hold.
    """
    if isinstance(value, np.ndarray):
        if np.ma.is_masked(value):
            raise DecodeError("expected a value for every pixel, got an array with masked values: fill them first")
        return np.asarray(value)
    try:
        tensor = cast("torch.Tensor", value).detach().cpu()
        return np.asarray(tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy())
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"expected a tensor that numpy can hold, got {_shape_of(value)}: {said(error)}") from error


def require_image(array: npt.NDArray[Any]) -> None:
    """Raise `DecodeError` unless an array has a type and a shape that can only mean one image. No pixel is read.

    Args:
        array: an array of two or three axes.

    Raises:
        DecodeError: the type is not accepted, no axis can be the channels, or both the first and the last axis can be.
    """
    if array.ndim == 3 and array.shape[2] == 3 and array.shape[0] > 4 and array.dtype == np.uint8:
        return  # the common case, without the tests below
    if array.ndim not in (2, 3) or (array.ndim == 3 and not {array.shape[0], array.shape[2]} & {*CHANNELS}):
        raise DecodeError(f"expected an array {LAYOUTS}, got {_shape_of(array)}")
    if array.dtype != np.uint8 and not _has_16_bits(array) and array.dtype.kind != "f":
        raise DecodeError(f"expected an array of {_TYPES}, got {_shape_of(array)}{_values(array)}: {_cure(array)}")
    if array.ndim == 3 and array.shape[0] in CHANNELS and array.shape[2] in CHANNELS:
        raise DecodeError(
            f"expected an array whose channels are clear from its shape, got {_shape_of(array)}, where the first and the last "
            f"axis could both be the channels: pass a PIL image, Image.fromarray(array) of an array [H, W, 3]"
        )


def is_image_shape(array: npt.NDArray[Any] | torch.Tensor) -> bool:
    """Return True for a shape of three axes with 1, 3 or 4 channels in front or at the end."""
    return len(array.shape) == 3 and (array.shape[0] in CHANNELS or array.shape[2] in CHANNELS)


def size_of(array: npt.NDArray[Any]) -> Size:
    """Return height and width of an array. See `pixels_of` for the axis of channels.

    Raises:
        DecodeError: the array has no shape of an image.
    """
    height, width = pixels_of(array).shape[:2]
    return Size(int(height), int(width))


def pixels_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view ``[H, W, channels]`` of an array. If both ends could be the channels, they are the last axis.

    Raises:
        DecodeError: the array has no shape of an image.
    """
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3 and array.shape[2] in CHANNELS:
        return array
    if array.ndim == 3 and array.shape[0] in CHANNELS:
        return np.moveaxis(array, 0, 2)
    raise DecodeError(f"expected an array {LAYOUTS}, got {_shape_of(array)}")


def rgb_of(array: npt.NDArray[Any], *, background: Colour = WHITE, reading: Reading = DEFAULT) -> UInt8Array:
    """Convert an array to 8-bit RGB pixels without transparency.

    * Grey fills all three channels. Alpha is composed over `background` as in a file.
    * uint16 is scaled like a 16-bit PNG of the same values: grey is rounded, of colours the upper 8 bits are taken.
    * Floats are multiplied by 255 and rounded, ties to even, like a grey TIFF of floats. Floats less than half a level
      (1/510) outside [0, 1] count as rounding errors.

    With ``reading.deep == "range"`` uint16 and floats are scaled from their smallest value to their largest.

    Args:
        array: an array of an accepted type and layout.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        reading: options for reading images of more than 8 bits. Default: as in a default `Recipe`.

    Returns:
        uint8 ``[H, W, 3]``. A contiguous uint8 array of this shape is returned unchanged.

    Raises:
        DecodeError: the type or the layout is not accepted, or floats are not in [0, 1].
    """
    pixels = pixels_of(array)
    if not pixels.size:
        raise DecodeError(f"expected at least one pixel, got {_shape_of(array)}")
    stretch = reading.deep == "range"
    if pixels.dtype == np.uint8:
        if pixels.shape[2] < 4:
            return np.ascontiguousarray(pixels) if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
        image = Image.fromarray(np.ascontiguousarray(pixels))
    elif _has_16_bits(pixels) and pixels.shape[2] == 1:
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0], dtype=np.uint16))
    elif _has_16_bits(pixels):
        upper = Image.fromarray(np.ascontiguousarray(pixels >> 8, dtype=np.uint8))
        image = depth.eight_bits(upper, depth.Depth(colour=True), stretch=stretch)
    elif pixels.dtype.kind == "f":
        image = Image.fromarray(_levels(pixels, stretch))
    else:
        raise DecodeError(f"expected an array of {_TYPES}, got {_shape_of(array)}{_values(array)}: {_cure(array)}")
    return np.asarray(to_rgb(image, background=background, reading=reading))


def _has_16_bits(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind == "u" and array.itemsize == 2  # in either order of bytes


def _levels(pixels: npt.NDArray[Any], stretch: bool) -> UInt8Array:
    """Return floats ``[H, W, channels]`` in 8 bits. Grey loses its axis of channels."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_HALF and high <= 1 + _HALF):  # also for NaN
        raise DecodeError(f"expected floats in [0, 1], got {_shape_of(pixels)}{_values(pixels)}: {_cure(pixels)}")
    levels: UInt8Array = np.empty(pixels.shape, dtype=np.uint8)
    colours, values = levels[:, :, :3], pixels[:, :, :3]
    low, high = (float(values.min()), float(values.max())) if stretch else (0.0, 1.0)
    _scale(values, low, 255.0 / ((high - low) or 1.0), colours)
    _scale(pixels[:, :, 3:], 0.0, 255.0, levels[:, :, 3:])
    depth.note_narrow(colours)
    return levels[:, :, 0] if levels.shape[2] == 1 else levels


def _scale(values: npt.NDArray[Any], low: float, factor: float, out: UInt8Array) -> None:
    """Write ``(values - low) * factor`` into `out`, rounded, in blocks of rows that stay in the cache."""
    rows = max(1, _BLOCK // (values.shape[1] * values.shape[2] or 1))
    for top in range(0, len(values), rows):
        block = np.subtract(values[top : top + rows], low, dtype=np.float64)
        block *= factor
        np.rint(block, out=block)
        out[top : top + rows] = np.clip(block, 0, 255, out=block)


def _shape_of(value: Any) -> str:
    kind = "" if isinstance(value, np.ndarray) else f"{type(value).__name__} "
    return f"{kind}{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _values(array: npt.NDArray[Any]) -> str:
    """Return the smallest and the largest value for a message, "" if the values have no order."""
    if not array.size or array.dtype.kind not in "biuf":
        return ""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinity"
        return f" with {what} in {int((~np.isfinite(array)).sum())} of {array.size} values"
    return f" with values {array.min():.6g} … {array.max():.6g}" if array.dtype.kind == "f" else (
        f" with values {int(array.min())} … {int(array.max())}"
    )  # fmt: skip


def _cure(array: npt.NDArray[Any]) -> str:
    """Return what a user can do about values that are not accepted."""
    kind = array.dtype.kind
    if kind == "b":
        return "pass array.astype('uint8') * 255"
    if kind not in "iuf" or not array.size:
        return "pass numbers of one of these types"
    low, high = array.min(), array.max()
    if kind in "iu":
        if low >= 0 and high <= 1:
            return "pass array.astype('uint8') * 255"
        small = "uint8" if high <= 255 else "uint16"
        return f"pass array.astype('{small}')" if low >= 0 and high <= 65535 else "scale the values to 0 … 255 and pass uint8"
    if not np.isfinite(array).all():
        return "replace these values first"
    if low >= -0.1 and high <= 1.1:
        return "clip the values to [0, 1]"
    if low >= 0:
        return "divide by the value of white, which is 255 for values from 8 bits, or pass uint8"
    return "leave out Normalize, because the recipe normalises, or scale the values to [0, 1]"
