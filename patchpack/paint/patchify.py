"""Pixels to patches and back."""

from __future__ import annotations

import numpy as np

from patchpack.errors import ShapeError
from patchpack.types import Grid


def patchify(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut an image into patches, raster order, (y, x, channel) inside a patch.

    Args:
        image: any dtype ``[H, W, C]`` with H and W multiples of patch_size.
        patch_size: pixels per side.

    Returns:
        The same dtype ``[rows * cols, patch_size * patch_size * C]``; a view where the layout allows, else a copy.

    Raises:
        ShapeError: sides that are not multiples of patch_size.

    Example:
        >>> patchify(np.arange(16).reshape(4, 4, 1), 2)[1].tolist()
        [2, 3, 6, 7]
    """
    view = patch_view(image, patch_size)
    rows, cols = view.shape[:2]
    return view.reshape(rows * cols, -1)


def unpatchify(patches: np.ndarray, grid: Grid | tuple[int, int], patch_size: int) -> np.ndarray:
    """Unpatchify: ``[rows * cols, patch_size**2 * C]`` to ``[rows * patch_size, cols * patch_size, C]``.

    It is the inverse of `patchify`.

    Args:
        patches: ``[rows * cols, patch_size**2 * C]``.
        grid: (rows, cols).
        patch_size: pixels per side.

    Raises:
        ShapeError: a number of patches other than rows * cols, or a length that is not patch_size**2 times channels.
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
    """Unpatchify a clip: return its frames from all of its tubelets.

    Args:
        patches: ``[times * rows * cols, t * patch_size**2 * 3]``.
        times: tubelets along time.
        grid: (rows, cols).
        patch_size: pixels per side.

    Returns:
        ``[times * t, rows * patch_size, cols * patch_size, 3]``; t equal frames for an image.

    Raises:
        ShapeError: another number of tubelets, or a length that is not patch_size**2 times 3 times frames.
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
    """Return a view ``[rows, cols, patch_size, patch_size, C]`` of the image. Raises like `patchify`."""
    if image.ndim != 3 or image.shape[0] % patch_size or image.shape[1] % patch_size or not image.size:
        raise ShapeError(
            f"expected an image [H, W, C] with H and W multiples of patch_size={patch_size}, got {list(image.shape)}"
        )
    h, w, channels = image.shape
    blocks = image.reshape(h // patch_size, patch_size, w // patch_size, patch_size, channels)
    return blocks.transpose(0, 2, 1, 3, 4)
