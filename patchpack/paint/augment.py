"""The function of a recipe that changes pixels (`Recipe.augment`), and the random numbers that it receives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import ConfigError, PatchpackError
from patchpack.plan.recipe import Recipe

Change = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


def change_of(recipe: Recipe, epoch: int, draw_key: str) -> Change | None:
    """Return the function that changes the resized pixels of one image, or None if the recipe has no `augment`.

    The function takes and returns uint8 ``[H, W, 3]``. If `augment` fails, or returns an array of another dtype or shape, the
    function raises a `ConfigError` that names the image.

    `augment` receives a Philox generator of numpy. Two random draws of the image are the key of this generator. The generator
    therefore depends only on the seed, the epoch and the key of the image. Another version of numpy may draw other numbers from
    the same generator.

    Args:
        recipe: the recipe of the batch.
        epoch: epoch on which the random draws depend.
        draw_key: key of the image, on which the random draws depend too (see `Header.draw_key`).
    """
    augment = recipe.augment
    if augment is None:
        return None
    u = rng.uniforms(recipe.seed, epoch, rng.key_hash([draw_key]), rng.Stage.AUGMENT, 2)[0]
    generator = np.random.Generator(np.random.Philox(key=(u * 2.0**53).astype(np.uint64)))

    def change(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        shape = pixels.shape
        try:
            answer: object = augment(pixels, generator)
        except PatchpackError:
            raise
        except Exception as error:
            raise ConfigError(f"augment={augment!r} failed for {draw_key}: {type(error).__name__}: {error}") from error
        if not isinstance(answer, np.ndarray) or answer.dtype != np.uint8 or answer.shape != shape:
            got = f"{answer.dtype} {list(answer.shape)}" if isinstance(answer, np.ndarray) else type(answer).__name__
            raise ConfigError(f"augment={augment!r} must return a uint8 array {list(shape)} for {draw_key}, got {got}")
        return answer

    return change
