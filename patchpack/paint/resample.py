"""Antialiased resampling of an RGB image to the numbers in its patches. The results equal Pillow's to the bit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchpack import rng
from patchpack.image.canvas import widened
from patchpack.paint import fused
from patchpack.paint.augment import Change
from patchpack.paint.patchify import patch_view
from patchpack.paint.weights import RADIUS
from patchpack.plan.policies.normalize import MeanStd, PerImage
from patchpack.plan.recipe import Recipe
from patchpack.types import Grid

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def write_pixels(
    out: np.ndarray,
    picture: Image.Image | npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    target: tuple[int, int],
    flip: bool,
    grid: Grid,
    kept: npt.NDArray[np.intp],
    patch_size: int,
    recipe: Recipe,
    places: npt.NDArray[np.int64] | None = None,
    change: Change | None = None,
    frame: tuple[int, int] = (0, 1),
) -> None:
    """Resample one image and write the kept patches.

    Args:
        out: contiguous array ``[len(kept), patch_size**2 * 3]`` of the recipe's dtype. The function writes into this array. For
            tubelets of t frames the second axis is t times as long.
        picture: an upright image of mode RGB, or uint8 ``[H, W, 4]`` of red, green, blue and an unused byte.
        box: (top, left, height, width) of the part that is read, in pixels of `picture`.
        target: (height, width) in pixels that this part is resampled to.
        flip: True mirrors left to right, after resampling and padding. False does not mirror.
        grid: (rows, cols) of patches. The area beyond `target`, at the right and at the bottom, gets pixel value 0.
        kept: ascending numbers of the patches that are not dropped, in raster order.
        patch_size: pixels per side of a patch.
        recipe: recipe with the kernel, the order of its passes, the normalisation and the dtype.
        places: result of ``fused.places(grid, kept)``. Default None, computed here if necessary.
        change: a function that takes and returns the resampled pixels (see `change_of`). Default None, no change.
        frame: (number, t): the number of this frame among the t frames of a tubelet. Only this frame is written. Default
            (0, 1), for images.
    """
    number, tubelet = frame
    if change is not None or not reads_memory(recipe):
        picture = fused.as_picture(picture) if isinstance(picture, np.ndarray) else picture
        pixels = render(picture, box, target, grid, patch_size, recipe, change)
        own = out if tubelet == 1 else out.reshape(len(kept), tubelet, -1)[:, number]
        write_patches(own, pixels[:, ::-1] if flip else pixels, kept, patch_size)
        return
    places = fused.places(grid, kept) if places is None else places
    if tubelet > 1:  # for the kernel each frame of a tubelet is a patch
        places = np.where(places < 0, places, places * tubelet + number)
    cut = fused.Cut(places, patch_size, patch_size, flip)
    numbers = None if recipe.dtype == "uint8" else number_table(recipe)
    fused.paint_patches(picture, box, target, cut, recipe.resample, out, numbers=numbers, order=recipe.resample_order)


def reads_memory(recipe: Recipe) -> bool:
    """Return True if patches are made directly from the memory of an image. Return False if Pillow resizes the whole image."""
    return recipe.resample in RADIUS and isinstance(recipe.normalize, MeanStd) and fused.pillow_order() is not None


def compile_kernels(recipe: Recipe) -> None:
    """Compile the kernels for painting with a recipe, or load them from disk. A second call in a process does nothing."""
    rng.smallest(0, 0, np.zeros(1, dtype=np.uint64), rng.Stage.KEEP, [2], [1])
    widened(np.zeros((1, 1, 3), dtype=np.uint8))
    if recipe.resample in RADIUS:
        fused.compile_kernels(isinstance(recipe.normalize, PerImage))


def render(
    picture: Image.Image,
    box: tuple[int, int, int, int],
    target: tuple[int, int],
    grid: Grid,
    patch_size: int,
    recipe: Recipe,
    change: Change | None = None,
) -> np.ndarray:
    """Compute all pixels of an image's grid of patches, with Pillow.

    Args:
        picture: an upright image of mode RGB.
        box: (top, left, height, width) of the part that is read, in pixels of `picture`.
        target: (height, width) in pixels that this part is resampled to.
        grid: (rows, cols) of patches. The area beyond `target`, at the right and at the bottom, is padded with 0.
        patch_size: pixels per side of a patch.
        recipe: recipe with the kernel, the order of its passes, the normalisation and the dtype.
        change: a function that takes and returns the resampled pixels. Default None, no change.

    Returns:
        Array ``[rows * patch_size, cols * patch_size, 3]``. If the recipe's dtype is uint8, the array is uint8 and not
        normalised. Otherwise it is float32 and normalised.
    """
    order = recipe.resample_order
    if isinstance(recipe.normalize, PerImage):
        # zero is the mean of a standardised image, so padding after standardising is neutral
        return _pad(_resize_numbers(picture, standard_numbers(picture), box, target, recipe.resample, order), grid, patch_size)
    resized = _resize(_cropped(picture, box), target, recipe.resample, order)
    # Pillow's memory is read-only, but the function may write to its argument
    pixels = _pad(np.asarray(resized) if change is None else change(np.array(resized)), grid, patch_size)
    if recipe.dtype == "uint8":
        return pixels
    mean, std = norm_of(recipe.normalize)
    value: np.ndarray = (pixels.astype(np.float32) - mean) / std
    return value


def write_patches(out: np.ndarray, pixels: np.ndarray, kept: npt.NDArray[np.intp], patch_size: int) -> None:
    """Write the kept patches of an image, cast to the dtype of the output.

    Args:
        out: array ``[len(kept), D]``. The function writes into this array. Its rows need not be contiguous.
        pixels: array ``[H, W, 3]``, the image.
        kept: ascending numbers of the patches that are not dropped, in raster order.
        patch_size: pixels per side of a patch.
    """
    view = patch_view(pixels, patch_size)
    rows, cols = view.shape[:2]
    if len(kept) == rows * cols:  # no gather: one strided copy
        out.reshape(view.shape)[...] = view
    else:
        out.reshape(len(kept), *view.shape[2:])[...] = view[kept // cols, kept % cols]


def norm_of(normalize: MeanStd | PerImage) -> npt.NDArray[np.float32]:
    """Return mean and std on the 0–255 scale, float32 ``[2, 3]``. For `PerImage` the mean is 0 and the std is 1."""
    if isinstance(normalize, PerImage):
        return identity_norm()
    return (np.array([normalize.mean, normalize.std], dtype=np.float64) * 255).astype(np.float32)


def identity_norm() -> npt.NDArray[np.float32]:
    """Return the norm of patches that are normalised already, float32 ``[2, 3]``: mean 0 and std 1."""
    return np.array([[0, 0, 0], [1, 1, 1]], dtype=np.float32)


def number_table(recipe: Recipe) -> np.ndarray:
    """Return ``(value − mean) / std`` for every pixel value and channel, ``[256, 3]``.

    The table is computed in float32 and cast to the recipe's dtype. For float32 the table is ``[272, 3]``: 8 rows of the mean
    and 8 rows of the std follow. From these rows, kernels can compute the numbers themselves.
    """
    assert isinstance(recipe.normalize, MeanStd)  # `PerImage` has no fixed table
    return _number_table(tuple(recipe.normalize.mean), tuple(recipe.normalize.std), recipe.dtype)


@lru_cache(maxsize=16)
def _number_table(mean: tuple[float, float, float], std: tuple[float, float, float], dtype: str) -> np.ndarray:
    norm = norm_of(MeanStd(mean, std))
    table: np.ndarray = ((np.arange(256, dtype=np.float32)[:, None] - norm[0]) / norm[1]).astype(dtype)
    return np.concatenate([table, np.repeat(norm, 8, axis=0)]) if dtype == "float32" else table


def standard_numbers(picture: Image.Image) -> npt.NDArray[np.float32]:
    """Return the standardised number of each pixel value of one image, float32 ``[256]``, as in Pix2Struct.

    The number is ``(value − mean) / max(std, 1 / sqrt(N))``, computed in float64. Mean and std are over all N values of the
    image, in all channels together.
    """
    counts = np.array(picture.histogram()).reshape(3, 256).sum(axis=0)
    n, values = counts.sum(), np.arange(256)
    mean = (counts * values).sum() / n
    std = ((counts * (values - mean) ** 2).sum() / n) ** 0.5
    numbers: npt.NDArray[np.float32] = ((values - mean) / max(std, n**-0.5)).astype(np.float32)
    return numbers


def _cropped(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    top, left, height, width = box
    if (height, width) == (picture.height, picture.width):
        return picture
    # before resizing: `resize(box=...)` would let the kernel reach over the edge of the box
    return picture.crop((left, top, left + width, top + height))


def _resize(picture: Image.Image, target: tuple[int, int], kernel: str, order: fused.Order) -> Image.Image:
    height, width = target
    if order == "horizontal_first":  # in two steps, so that Pillow cannot choose the order
        picture = picture.resize((width, picture.height), FILTERS[kernel])
    return picture if picture.size == (width, height) else picture.resize((width, height), FILTERS[kernel])


def _resize_numbers(
    picture: Image.Image,
    numbers: npt.NDArray[np.float32],
    box: tuple[int, int, int, int],
    target: tuple[int, int],
    kernel: str,
    order: fused.Order,
) -> npt.NDArray[np.float32]:
    pixels = np.asarray(_cropped(picture, box))
    if kernel in RADIUS and fused.pillow_order() is not None:
        return fused.resize_numbers(pixels, numbers, target, kernel, order=order)
    planes = [Image.fromarray(numbers[pixels[..., channel]]) for channel in range(3)]
    return np.stack([np.asarray(_resize(plane, target, kernel, order)) for plane in planes], axis=2)


def _pad(pixels: np.ndarray, grid: Grid, patch_size: int) -> np.ndarray:
    height, width = int(grid[0]) * patch_size, int(grid[1]) * patch_size
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
