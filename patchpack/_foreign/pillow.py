"""Pillow's internals: the memory of an image, its JPEG decoder, and the tags that it has read."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_core: Any = vars(Image).get("core")  # the module that `Image.load` calls

_address_of = ctypes.pythonapi.PyCapsule_GetPointer
_address_of.restype, _address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
# struct ArrowArray of the Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html) is ten words:
_LENGTH, _OFFSET, _N_BUFFERS, _N_CHILDREN, _BUFFERS, _CHILDREN = 0, 2, 3, 4, 5, 6
_Words = ctypes.c_int64 * 10
_Pointers = ctypes.c_int64 * 2


class _Memory:
    """Bytes at an address, with numpy's array interface."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


def memory_of(picture: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Return the memory of a loaded RGB image, uint8 ``[height * width * 4]``: red, green, blue and an unused byte per pixel.

    The memory is valid as long as the image exists. Return None if the memory is not in one piece, because Pillow allocates in
    blocks of 16 MiB. Also return None if this version of Pillow does not export the memory. The caller then copies the pixels.
    """
    try:
        capsule = _capsule_of(picture)
        address = _address_of(capsule, b"arrow_array")
    except (AttributeError, TypeError, ValueError):
        return None
    size = 4 * picture.width * picture.height
    pixels = _Words.from_address(address)
    if pixels[_N_CHILDREN] != 1:
        return None
    channels = _Words.from_address(ctypes.c_int64.from_address(pixels[_CHILDREN]).value)
    if channels[_LENGTH] != size or channels[_OFFSET] or pixels[_OFFSET] or channels[_N_BUFFERS] != 2:
        return None
    return np.asarray(_Memory(_Pointers.from_address(channels[_BUFFERS])[1], size))


def _capsule_of(picture: Image.Image) -> Any:
    return picture.im.__arrow_c_array__()  # `Image.__arrow_c_array__` also makes a schema, and loads the image


def decode_jpeg(data: bytes, pixels: npt.NDArray[np.uint8]) -> bool:
    """Decode a complete colour JPEG into an array, without an image object.

    Args:
        data: the bytes of the file.
        pixels: contiguous uint8 array ``[height, width, 4]`` for the result. Height and width are the size in the file's
            header. The four channels become red, green, blue and an unused byte.

    Returns:
        True if all pixels are written. False for a file with a fault, or if this version of Pillow has no such decoder. After
        False a part of `pixels` may be overwritten, and the file must be opened with Pillow.
    """
    height, width, _ = pixels.shape
    try:
        image = _core.map_buffer(pixels, (width, height), "raw", 0, ("RGB", 4 * width, 1))
        decoder = _core.jpeg_decoder("RGB", "RGB", "")
        decoder.setimage(image, (0, 0, width, height))
        end, error = decoder.decode(data)
    except (AttributeError, TypeError, ValueError):
        return False
    return bool(end == -1 and error == 0)


def has_unread_exif(image: Image.Image) -> bool:
    """Return True if no EXIF tag of an image was read or set yet. If this Pillow version does not show that, return False."""
    return getattr(image, "_exif", image) is None
