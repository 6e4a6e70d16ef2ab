"""Preparation of the images of a processor's call. All images are checked and measured before the first is decoded.

Then the images are painted one by one: decoded, resized and cut into patches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from patchpack.errors import DecodeError, SampleError, SizeError, SourceError
from patchpack.image.picture import is_rgb
from patchpack.image.size import picture_size
from patchpack.paint.part import part_of_picture
from patchpack.paint.resample import write_pixels
from patchpack.plan.recipe import Recipe
from patchpack.stream.sources.files import FileReader
from patchpack.types import Grid, Size

T = TypeVar("T")


class Prepared(NamedTuple):
    """The images of a processor's call, before decoding. The resize policy has accepted their sizes.

    Attributes:
        pictures: the images, each of a type that a `Sample` may hold.
        names: names of the images, for errors.
        sizes: heights and widths in pixels, after EXIF orientation.
        grids: int64 ``[N, 2]``, (rows, cols) of each image in patches.
    """

    pictures: list[object]
    names: list[str]
    sizes: list[Size]
    grids: npt.NDArray[np.int64]

    @property
    def num_patches(self) -> list[int]:
        """Number of patches of each image, ``rows * cols``."""
        counts: list[int] = self.grids.prod(axis=1).tolist()
        return counts

    def mask(self, length: int) -> npt.NDArray[np.bool_]:
        """Return bool ``[N, length]``, True at patches and False at padding."""
        mask: npt.NDArray[np.bool_] = np.arange(length) < np.array(self.num_patches, dtype=np.int64)[:, None]
        return mask


def prepare(images: object, recipe: Recipe, layout: str | None = None) -> Prepared:
    """Read the headers of the images of a call. Return the images with their sizes and grids.

    Args:
        images: one image, a list of images, or a list of lists. `Processor.__call__` documents the types of an image.
        recipe: a recipe whose resize policy makes no random draws.
        layout: ``"channels_first"`` or ``"channels_last"``, the layout of arrays. None (default) infers the layout from the
            shape of each array.

    Raises:
        SourceError: a path cannot be read.
        DecodeError: an image cannot be decoded.
        SizeError: the resize policy refuses the size of an image.
    """
    pictures, names, sizes = [], [], []
    read = FileReader("", None, recipe.max_bytes)
    limits = {"max_pixels": recipe.max_pixels, "max_bytes": recipe.max_bytes, "formats": recipe.formats}
    for i, image in enumerate(_flat(images)):
        path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
        names.append(f"image {i}" if path is None else path)
        pictures.append(_naming(names[i], _coloured, image, layout) if path is None else _naming(names[i], read, path)[0])
        sizes.append(_naming(names[i], picture_size, pictures[i], **limits))
    return Prepared(pictures, names, sizes, grids_of(sizes, names, recipe))


def grids_of(sizes: list[Size], names: list[str], recipe: Recipe) -> npt.NDArray[np.int64]:
    """Return the grids of images as int64 ``[N, 2]``.

    Args:
        sizes: heights and widths in pixels.
        names: names of the images, for errors.
        recipe: the recipe whose resize policy makes the grids.

    Raises:
        SizeError: the resize policy refuses the size of an image.
    """
    table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    grids = np.asarray(recipe.resize(table, recipe.patch_sizes[0], None), dtype=np.int64)
    refused = np.flatnonzero(grids.min(axis=1, initial=1) == 0)
    if len(refused):
        i = int(refused[0])
        raise SizeError(
            f"{names[i]}: {recipe.resize!r} refuses a size of {sizes[i].height} x {sizes[i].width} (height x width)"
        )
    return grids


def paint(prepared: Prepared, i: int, recipe: Recipe, out: np.ndarray) -> None:
    """Write all patches of one image into an array.

    Args:
        prepared: the images of the call.
        i: number of the image.
        recipe: the recipe of the processor.
        out: array ``[rows * cols, patch_size**2 * 3]`` of the recipe's dtype.

    Raises:
        DecodeError: the image cannot be decoded.
    """
    grid, p, size = Grid(*prepared.grids[i].tolist()), recipe.patch_sizes[0], prepared.sizes[i]
    target = (grid.rows * p, grid.cols * p)
    picture, box = _naming(
        prepared.names[i], part_of_picture, prepared.pictures[i], size, (0, 0, size.height, size.width), target, recipe
    )
    write_pixels(out, picture, box, target, False, grid, np.arange(grid.num_patches), p, recipe)


# --------------------------------------------------------------------------------------------------------------------- images


def _flat(images: object) -> list[object]:
    """Return all images in nested lists and in batches as one list."""
    if not isinstance(images, (list, tuple)) and not (isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim > 3):
        return [images]
    return [one for image in images for one in _flat(image)]


def _coloured(image: Any, layout: str | None) -> object:
    """Return an array or tensor of one or three channels as ``[H, W, 3]``. Return any other image unchanged.

    Raises:
        DecodeError: an array is not uint8, because the processors that are replaced rescale floats once more.
    """
    image = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    if not isinstance(image, np.ndarray):
        return image
    if image.ndim == 2:
        image = image[:, :, None]
    elif image.ndim == 3 and (layout == "channels_first" or (layout is None and _is_channels_first(*image.shape))):
        image = np.ascontiguousarray(np.moveaxis(image, 0, 2))
    if image.ndim == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if not is_rgb(image):
        raise DecodeError(
            f"expected file bytes, a uint8 array of one or three channels or a PIL image, got {type(image).__name__} "
            f"{image.dtype} {list(image.shape)}"
        )
    return image


def _is_channels_first(first: int, _: int, last: int) -> bool:
    return (first == 1 and last not in (1, 3)) or (first == 3 and last != 3)


def _naming(name: str, function: Callable[..., T], *arguments: object, **options: object) -> T:
    try:
        return function(*arguments, **options)
    except (SampleError, SourceError) as error:
        raise type(error)(f"{name}: {error}") from error
