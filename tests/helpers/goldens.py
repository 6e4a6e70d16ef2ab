"""Numbers that other code bases computed, from the files of `tests/golden/data`. The README there describes the files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "golden" / "data"


@cache
def load(name: str) -> dict[str, Any]:
    """Return the arrays of a file, in the types they are stored in; all tests share them."""
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


@cache
def pixels(name: str) -> dict[str, dict[str, Any]]:
    """Return image name → field → array, of a file of pixels.

    ``pixels`` are the peer's float32 of the tokens in ``rows``; the other fields are the peer's own, in small types.
    """
    arrays = load(name)
    images: dict[str, dict[str, Any]] = {}
    for key, values in arrays.items():
        image, _, field = key.partition("__")
        if field:
            images.setdefault(image, {})[field] = values
    if "levels" in arrays:
        for fields in images.values():
            numbers = fields["pixels"]
            levels = np.broadcast_to(arrays["levels"], (len(numbers), 3, 256))
            by_channel = numbers if numbers.ndim == 3 else numbers.reshape(len(numbers), -1, 3).transpose(0, 2, 1)
            found = np.take_along_axis(levels, by_channel.astype(np.intp), axis=2)
            fields["pixels"] = found if numbers.ndim == 3 else found.transpose(0, 2, 1).reshape(numbers.shape)
    return images


@cache
def cases(name: str) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON."""
    return [json.loads(line) for line in (DATA / f"{name}.json").read_text().splitlines()]
