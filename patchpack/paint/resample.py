"""An RGB picture to its target size: antialiased, through Pillow, in the order the recipe asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchpack.plan.normalize import MeanStd, PerImage
from patchpack.plan.recipe import Recipe

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def render(picture: Image.Image, box: Any, target: Any, grid: Any, patch_size: int, recipe: Recipe) -> npt.NDArray[Any]:
    """The pixels of one image as they enter its patches.

    Args:
        picture: RGB, oriented.
        box: (top, left, height, width) of the part that is read, in its pixels.
        target: (height, width) that part is resampled to.
        grid: (rows, cols); what the target does not cover is zero-padded right and bottom, in pixel values.
        patch_size: pixels per side of a patch.
        recipe: kernel, normalisation, dtype.

    Returns:
        ``[rows * patch_size, cols * patch_size, 3]``: uint8 as it is, or float32 normalised.
    """
    if isinstance(recipe.normalize, PerImage):
        # zero is the mean of a standardised image, so padding after standardising is neutral
        return _pad(_resize_float(standardize(np.asarray(picture)), box, target, recipe.resample), grid, patch_size)
    pixels = _pad(_resize(picture, box, target, recipe.resample), grid, patch_size)
    if recipe.dtype == "uint8":
        return pixels
    mean, std = norm_of(recipe.normalize)
    value: npt.NDArray[Any] = (pixels.astype(np.float32) - mean) / std
    return value


def norm_of(normalize: MeanStd | PerImage) -> npt.NDArray[np.float32]:
    """Mean and std on the 0–255 scale, float32 ``[2, 3]``; (0, 1) for numbers that are standardised already."""
    if isinstance(normalize, PerImage):
        return identity_norm()
    return (np.array([normalize.mean, normalize.std], dtype=np.float64) * 255).astype(np.float32)


def identity_norm() -> npt.NDArray[np.float32]:
    """The norm of patches that are normalised: mean 0, std 1."""
    return np.array([[0, 0, 0], [1, 1, 1]], dtype=np.float32)


def standardize(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """``(x − mean) / max(std, 1 / sqrt(N))`` over all N values, float32 of the same shape (Pix2Struct)."""
    mean, std = image.mean(dtype=np.float64), image.std(dtype=np.float64)
    value: npt.NDArray[np.float32] = ((image - mean) / max(std, image.size**-0.5)).astype(np.float32)
    return value


def _resize(picture: Image.Image, box: Any, target: Any, kernel: str) -> npt.NDArray[np.uint8]:
    top, left, height, width = (int(v) for v in box)
    if (height, width) != (picture.height, picture.width):
        # first: `resize(box=...)` would let the kernel reach over the edge of the box
        picture = picture.crop((left, top, left + width, top + height))
    if (height, width) != tuple(target):
        picture = picture.resize((int(target[1]), int(target[0])), FILTERS[kernel])
    return np.asarray(picture)


def _resize_float(image: npt.NDArray[np.float32], box: Any, target: Any, kernel: str) -> npt.NDArray[np.float32]:
    top, left, height, width = (int(v) for v in box)
    image, size = image[top : top + height, left : left + width], (int(target[1]), int(target[0]))
    out = np.empty((size[1], size[0], image.shape[2]), dtype=np.float32)
    for channel in range(image.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]), mode="F")
        out[..., channel] = np.asarray(plane.resize(size, FILTERS[kernel]))
    return out


def _pad(pixels: npt.NDArray[Any], grid: Any, patch_size: int) -> npt.NDArray[Any]:
    height, width = int(grid[0]) * patch_size, int(grid[1]) * patch_size
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
