"""The kinds of values that `Sample.image` may have: how to tell them apart, and how to get their pixels and their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchpack._arrays import UInt8Array
from patchpack.errors import DecodeError, PatchpackError, SourceError
from patchpack.image import arrays
from patchpack.image.decode import WHITE, Colour, decode_image, oriented_size, to_rgb
from patchpack.image.formats import DEFAULT, MAX_BYTES, MAX_PIXELS, Reading
from patchpack.image.paths import ImageFile, is_text, located
from patchpack.types import Clip, Size

if TYPE_CHECKING:
    from patchpack.types import Picture

_EXPECTED = f"expected a path, file bytes, a PIL image, or an array or tensor {arrays.LAYOUTS}"
NO_VIDEO = "got a clip, but the recipe has video=None: use a recipe with video=Video(...)"


def is_picture(value: object) -> TypeGuard[Picture | Clip]:
    """Return True if a value has a type that `Sample.image` accepts for one image or one clip."""
    if isinstance(value, (bytes, bytearray, memoryview, str, Image.Image, np.ndarray, ImageFile, Clip)):
        return True
    return is_text(value) or arrays.is_array(value)


def frames_of(image: object) -> Sequence[object] | None:
    """Return the frames of a clip in order, without reading a frame. Return None if `image` is not a clip."""
    if isinstance(image, Clip):
        return image.frames
    # an array or a tensor is like a sequence of its frames
    return image if arrays.is_array(image) and len(image.shape) == 4 else None  # type: ignore[return-value]


def is_several(image: object) -> TypeGuard[Sequence[object]]:
    """Return True for a list or a tuple, which holds images that belong together."""
    return isinstance(image, (list, tuple))


def frame_count(frames: Sequence[object]) -> int:
    """Return the number of frames of a clip.

    Raises:
        SourceError: ``len(frames)`` raised an `OSError`.
        DecodeError: ``len(frames)`` raised another error, or is 0.
    """
    with _asking():
        count = len(frames)
    if not count:
        raise DecodeError("a clip must have at least one frame, got 0: leave the sample out")
    return count


def frame_at(frames: Sequence[object], number: int) -> object:
    """Return one frame of a clip.

    Raises:
        SourceError: ``frames[number]`` raised an `OSError`.
        DecodeError: ``frames[number]`` raised another error, or is not a single image.
    """
    with _asking():
        frame = frames[number]
    if frames_of(frame) is not None or is_several(frame):
        raise DecodeError(f"{_EXPECTED} as each frame of a clip, got {type(frame).__name__}")
    return frame


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except (PatchpackError, MemoryError):
        raise
    except OSError as error:
        raise SourceError(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error


def held_size(image: object, *, max_pixels: int = MAX_PIXELS) -> Size:
    """Return the oriented height and width of an image in memory: an array, a tensor or a PIL image.

    A PIL image is not loaded, and the values of an array are not read.

    Raises:
        DecodeError: `image` has another type, or more than `max_pixels` pixels.
    """
    if isinstance(image, Image.Image):
        return within(oriented_size(image), max_pixels)
    if arrays.is_array(image) and len(image.shape) != 4:
        return within(arrays.size_of(arrays.as_array(image)), max_pixels)
    raise _stranger(image)


def readable(
    image: object, *, max_bytes: int = MAX_BYTES, background: Colour = WHITE, reading: Reading = DEFAULT
) -> bytes | bytearray | memoryview | Image.Image | UInt8Array:
    """Return the image of a sample's value as file bytes, a PIL image or a uint8 array ``[H, W, 3]``.

    The file that a path names is read, and an array is converted.

    Args:
        image: any value of `Sample.image` for a single image.
        max_bytes: limit on the bytes of an image file. Default 512 MiB.
        background: (red, green, blue), 0 … 255, the colour behind the transparent pixels of an array. Default white.
        reading: options for reading an array of more than 8 bits. Default: as in a default `Recipe`.

    Raises:
        DecodeError: `image` is no single image, or is over the limit.
        SourceError: the file that `image` names cannot be read.
    """
    if isinstance(image, (bytes, bytearray, memoryview, Image.Image)):
        return image
    if is_text(image):
        image = located(image)
        if isinstance(image, bytes):
            return image
    if isinstance(image, ImageFile):
        return image.read(max_bytes)
    if arrays.is_array(image) and len(image.shape) != 4:
        return arrays.rgb_of(arrays.as_array(image), background=background, reading=reading)
    raise _stranger(image)


def rgb_picture(
    image: object, *, max_pixels: int = MAX_PIXELS, background: Colour = WHITE, reading: Reading = DEFAULT
) -> Image.Image:
    """Return a sample's image as an upright RGB image.

    Args:
        image: any value of `Sample.image` for a single image.
        max_pixels: limit on the pixels of an image file. Default 64 million. It does not apply to arrays and PIL images.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        reading: options for reading files. Default: as in a default `Recipe`.

    Raises:
        DecodeError: `image` has another type, or cannot be decoded.
        SourceError: the file that `image` names cannot be read.
    """
    image = readable(image, background=background, reading=reading)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), max_pixels=max_pixels, background=background, reading=reading)
    if isinstance(image, Image.Image):
        return to_rgb(image, background=background, reading=reading)
    return Image.fromarray(image)


def picture_bytes(image: object) -> int:
    """Return the number of bytes of a sample's image in memory. The pixels of a PIL image count even before they are loaded.

    A path counts as 0. A clip whose frames are in a custom sequence counts as 0, because the size of the sequence is not known.
    """
    if isinstance(image, Clip):
        held = image.frames if isinstance(image.frames, (list, tuple, np.ndarray)) else ()
        return sum(picture_bytes(frame) for frame in held if is_picture(frame))
    if isinstance(image, Image.Image):
        return image.width * image.height * len(image.getbands())
    if isinstance(image, (bytes, bytearray)):
        return len(image)
    return image.nbytes if isinstance(image, memoryview) or arrays.is_array(image) else 0


def within(size: Size, max_pixels: int) -> Size:
    """Return `size` unchanged. Raise `DecodeError` unless it has 1 … `max_pixels` pixels."""
    if min(size) < 1 or size.height * size.width > max_pixels:
        raise DecodeError(f"expected 1 … max_pixels={max_pixels} pixels, got {size.height} x {size.width} (height x width)")
    return size


def is_rgb(image: object) -> TypeGuard[npt.NDArray[np.uint8]]:
    """Return True for a uint8 ``[H, W, 3]`` array."""
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _stranger(image: object) -> DecodeError:
    if frames_of(image) is not None:
        return DecodeError(NO_VIDEO)
    if hasattr(image, "dtype") and hasattr(image, "shape"):  # an array of another library
        return DecodeError(f"{_EXPECTED}, got {type(image).__name__} {image.dtype} {list(image.shape)}")
    return DecodeError(f"{_EXPECTED}, got {type(image).__name__}")
