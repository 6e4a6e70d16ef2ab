"""The pixel function of a recipe, and its random numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import ConfigError, PatchpackError
from patchpack.plan.recipe import Recipe

Change = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


def change_of(recipe: Recipe, epoch: int, draw_key: str) -> Change | None:
    """Return the function that changes the resized pixels of one image, uint8 ``[H, W, 3]``, or None without `augment`.

    The generator is numpy's Philox. Its key is two draws of the image at stage AUGMENT, so it depends on (seed, epoch, key)
    alone. numpy may change how its methods use a generator, so equal bits need an equal numpy.

    The returned function raises `ConfigError`, naming the image, if `augment` fails or does not return uint8 of that shape.

    Args:
        recipe: the recipe with `augment`.
        epoch: epoch of the draws.
        draw_key: key of the image for draws.
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
