"""The conversion of images to patches, and of patches to images."""

from __future__ import annotations

import numpy as np

from patchpack.errors import ShapeError
from patchpack.types import Grid


def patchify(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut an image into patches, in raster order. The values of a patch are in (y, x, channel) order.

    Args:
        image: array ``[H, W, C]`` of any dtype. H and W are multiples of `patch_size`.
        patch_size: pixels per side of a patch.

    Returns:
        Array ``[rows * cols, patch_size * patch_size * C]`` of the dtype of `image`. The array is a view if the memory
        layout allows a view, else a copy.

    Raises:
        ShapeError: `image` does not have three axes, or H or W is not a positive multiple of `patch_size`.

    Example:
        >>> patchify(np.arange(16).reshape(4, 4, 1), 2)[1].tolist()
        [2, 3, 6, 7]
    """
    view = patch_view(image, patch_size)
    rows, cols = view.shape[:2]
    return view.reshape(rows * cols, -1)


def unpatchify(patches: np.ndarray, grid: Grid | tuple[int, int], patch_size: int) -> np.ndarray:
    """Join all patches of an image (the inverse of `patchify`). Return ``[rows * patch_size, cols * patch_size, C]``.

    Args:
        patches: array ``[rows * cols, patch_size**2 * C]``, in raster order.
        grid: (rows, cols) of patches.
        patch_size: pixels per side of a patch.

    Raises:
        ShapeError: the number of patches is not rows * cols, or the length of a patch is not a multiple of ``patch_size**2``.
    """
    rows, cols = grid
    if patches.ndim != 2 or len(patches) != rows * cols or patches.shape[1] % patch_size**2:
        raise ShapeError(
            f"expected [{rows * cols}, {patch_size}**2 * channels] patches for a grid of {rows} x {cols}, got "
            f"{list(patches.shape)}"
        )
    blocks = patches.reshape(rows, cols, patch_size, patch_size, -1)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(rows * patch_size, cols * patch_size, -1)


def unpatchify_clip(patches: np.ndarray, times: int, grid: Grid | tuple[int, int], patch_size: int) -> np.ndarray:
    """Join all tubelets of a clip, and return its frames. A tubelet is a patch through t frames.

    Args:
        patches: array ``[times * rows * cols, t * patch_size**2 * 3]``, ordered by time, row and column.
        times: number of tubelets along time.
        grid: (rows, cols) of patches.
        patch_size: pixels per side of a patch.

    Returns:
        Array ``[times * t, rows * patch_size, cols * patch_size, 3]``. For an image all t frames are equal.

    Raises:
        ShapeError: the number of tubelets is not times * rows * cols, or the length of a tubelet is not a multiple of
            ``3 * patch_size**2``.
    """
    rows, cols = grid
    if patches.ndim != 2 or len(patches) != times * rows * cols or patches.shape[1] % (3 * patch_size**2):
        raise ShapeError(
            f"expected [{times * rows * cols}, t * {patch_size}**2 * 3] tubelets for {times} steps of {rows} x {cols}, "
            f"got {list(patches.shape)}"
        )
    blocks = patches.reshape(times, rows, cols, -1, patch_size, patch_size, 3)
    return blocks.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, rows * patch_size, cols * patch_size, 3)


def patch_view(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Return a view ``[rows, cols, patch_size, patch_size, C]`` of an image.

    Raises:
        ShapeError: `image` does not have three axes, or a side is not a positive multiple of `patch_size`.
    """
    if image.ndim != 3 or image.shape[0] % patch_size or image.shape[1] % patch_size or not image.size:
        raise ShapeError(
            f"expected an image [H, W, C] with H and W multiples of patch_size={patch_size}, got {list(image.shape)}"
        )
    h, w, channels = image.shape
    blocks = image.reshape(h // patch_size, patch_size, w // patch_size, patch_size, channels)
    return blocks.transpose(0, 2, 1, 3, 4)
