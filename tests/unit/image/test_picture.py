"""What a sample may hold: its size, its pixels, its weight in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from patchpack.image.picture import is_picture, picture_bytes, rgb_picture
from patchpack.image.size import picture_size


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(file, "png")
    return file.getvalue()


HELD: dict[str, Any] = {
    "bytes": png(),
    "bytearray": bytearray(png()),
    "memoryview": memoryview(png()),
    "array": np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
    "turned array": np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[::1, ::1],
    "PIL": Image.open(io.BytesIO(png())),
}


@pytest.mark.parametrize("kind", HELD)
def test_a_picture_has_a_size_and_pixels(kind: str) -> None:
    assert is_picture(HELD[kind])
    assert picture_size(HELD[kind]) == (4, 5)
    assert np.array_equal(np.asarray(rgb_picture(HELD[kind])), HELD["array"])


def test_what_is_held_is_weighed() -> None:
    assert picture_bytes(HELD["bytes"]) == picture_bytes(HELD["memoryview"]) == len(png())
    assert picture_bytes(HELD["array"]) == 60
    assert picture_bytes(HELD["PIL"]) == 60  # pixels, though none is decoded yet
    assert picture_bytes(Image.new("L", (5, 4))) == 20


@pytest.mark.parametrize("image", [None, 3, {}, [1]])
def test_anything_else_says_what_it_is(image: Any) -> None:
    for ask in (picture_size, rgb_picture):
        with pytest.raises(pp.errors.DecodeError, match=f"expected a path, file bytes, a PIL.* got {type(image).__name__}"):
            ask(image)


@pytest.mark.parametrize("kind", HELD)
def test_a_picture_over_the_limit_is_refused(kind: str) -> None:
    with pytest.raises(pp.errors.DecodeError, match="19"):
        picture_size(HELD[kind], max_pixels=19)
