"""Batches are the same with a Pillow that keeps its internals to itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.hard_images import saved
from patchpack._foreign import pillow
from patchpack.image import decode
from patchpack.image.fast_jpeg import decode_fast_jpeg

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((90, 134), (5, 3), (64, 64))]
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = [
    saved(picture, format, **options)
    for picture in PICTURES
    for format, options in (("JPEG", {}), ("JPEG", {"exif": TURNED}), ("PNG", {}), ("PNG", {"exif": TURNED}))
]
RECIPES = [
    pp.recipes.navit(rows_per_batch=2),
    pp.recipes.navit(rows_per_batch=2, resample="bicubic", dtype="float32", normalize=pp.normalize.IMAGENET),
]


def patches() -> list[np.ndarray[Any, Any]]:
    samples = [pp.Sample(str(i), data) for i, data in enumerate(FILES)]
    return [np.asarray(batch.patches) for recipe in RECIPES for batch in pp.load(samples, recipe, tail="pad")]


def assert_the_same(expected: list[np.ndarray[Any, Any]]) -> None:
    assert len(expected) >= len(RECIPES)
    for one, other in zip(expected, patches(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_is_read_where_it_is() -> None:
    memory = pillow.memory_of(PICTURES[0])
    assert memory is not None
    assert np.array_equal(memory.reshape(90, 134, 4)[..., :3], np.asarray(PICTURES[0]))


def no_attribute(_: Any) -> Any:
    raise AttributeError("'ImagingCore' object has no attribute '__arrow_c_array__'")


@pytest.mark.parametrize("other", [no_attribute, lambda _: (1, 2), lambda _: None], ids=["none", "a pair", "nothing in it"])
def test_without_the_capsule_pixels_are_copied(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = patches()
    monkeypatch.setattr(pillow, "_capsule_of", other)
    assert pillow.memory_of(PICTURES[0]) is None
    assert_the_same(expected)


@pytest.mark.parametrize("missing", ["map_buffer", "jpeg_decoder", "setimage", "all of it"])
def test_without_the_decoder_pillow_opens_the_file(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, core = patches(), pillow._core
    names = {"map_buffer": core.map_buffer, "jpeg_decoder": core.jpeg_decoder}
    if missing == "setimage":
        names["jpeg_decoder"] = lambda *_: SimpleNamespace(decode=None)
    names.pop(missing, None)
    monkeypatch.setattr(pillow, "_core", None if missing == "all of it" else SimpleNamespace(**names))
    assert decode_fast_jpeg(FILES[0], 64_000_000) is None
    assert_the_same(expected)


def test_without_the_mark_of_unread_tags_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pillow.has_unread_exif(SimpleNamespace())  # type: ignore[arg-type]
    expected, sizes = patches(), [decode.oriented_size(decode.open_image(data)) for data in FILES]
    monkeypatch.setattr(decode, "has_unread_exif", lambda _: False)
    assert [decode.oriented_size(decode.open_image(data)) for data in FILES] == sizes
    assert_the_same(expected)
