"""Ordinary JPEG files on the canvas: the pixels and the errors of Pillow's own open and load, whatever the file."""

from __future__ import annotations

import io
import threading
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers.photographs import files_in
from patchpack.errors import DecodeError
from patchpack.image import canvas
from patchpack.image.decode import decode
from patchpack.image.fast_jpeg import decode_fast_jpeg
from patchpack.image.jpeg import jpeg_size
from patchpack.image.picture import rgb_picture
from patchpack.image.size import read_size
from patchpack.paint import fused
from patchpack.paint.part import part_of_picture
from patchpack.paint.resample import write_pixels
from patchpack.types import Grid, Size

LIMIT = 64_000_000
WAYS = ["exact"] + ["simplejpeg"] * (find_spec("simplejpeg") is not None)
RECIPES = {way: pp.Recipe(resize=pp.resize.NaFlex(64), decode=way) for way in WAYS}  # type: ignore[arg-type]
RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (45, 67, 3), dtype=np.uint8)).resize((134, 90))


def saved(image: Image.Image = PICTURE, format: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(file, format, exif=exif, **options)
    return file.getvalue()


def outcome(data: bytes, way: str | None) -> Any:
    """Pixels, or what the error says; without a way by a picture object."""
    try:
        size = read_size(data)
        if way is None:
            return decode(data, max_pixels=LIMIT)
        picture, box = part_of_picture(data, size, (0, 0, *size), (16, 16), RECIPES[way])
    except DecodeError as error:
        return str(error)
    assert box == (0, 0, *size)
    return picture[..., :3].copy() if isinstance(picture, np.ndarray) else np.asarray(picture)


def same(data: bytes) -> bool:
    exact = outcome(data, None)
    return all(type(exact) is type(ours := outcome(data, way)) and np.array_equal(exact, ours) for way in WAYS)


def short(data: bytes) -> bool:
    """True if every way is the short one."""
    answers = {decode_fast_jpeg(data, LIMIT, simplejpeg=way == "simplejpeg") is not None for way in WAYS}
    assert len(answers) == 1
    return answers.pop()


ORDINARY = {
    "4:2:0": saved(), "4:4:4": saved(subsampling=0), "4:2:2": saved(subsampling=1), "progressive": saved(progressive=True),
    "restarts": saved(restart_marker_blocks=3), "best": saved(quality=100), "worst": saved(quality=1),
    "stored as RGB": saved(keep_rgb=True), "tables made for it": saved(optimize=True),
    "one pixel": saved(PICTURE.crop((0, 0, 1, 1))),
    "what follows does not matter": saved() + b"more",
}  # fmt: skip


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_files_take_the_short_way(kind: str) -> None:
    assert short(ORDINARY[kind])
    assert same(ORDINARY[kind])


OTHERS = {
    **{f"orientation {turn}": saved(orientation=turn) for turn in range(2, 9)},
    "grey": saved(PICTURE.convert("L")), "CMYK": saved(PICTURE.convert("CMYK")), "PNG": saved(format="PNG"),
    "several pictures": saved(format="MPO", save_all=True, append_images=[PICTURE.rotate(180)]), "nothing": b"",
    "cut": saved()[:-700], "no end": saved()[:-2], "no pixels": saved()[:300], "garbage": b"\xff\xd8\xff" + bytes(99),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_all_else_is_left_to_pillow(kind: str) -> None:
    assert not short(OTHERS[kind])
    assert same(OTHERS[kind])


@pytest.mark.parametrize("way", WAYS)
def test_the_limits_are_those_of_pillow(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, box, recipe = Size(90, 134), (0, 0, 90, 134), RECIPES[way]
    with pytest.raises(DecodeError, match=r"expected at most 12059 pixels, got 90 x 134"):
        part_of_picture(saved(), size, box, (16, 16), recipe.replace(max_pixels=90 * 134 - 1))
    assert isinstance(part_of_picture(saved(), size, box, (16, 16), recipe.replace(max_pixels=90 * 134))[0], np.ndarray)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(DecodeError, match=r"expected at most 64000000 pixels, got: Image size"):
        part_of_picture(saved(), size, box, (16, 16), recipe)


@pytest.mark.parametrize("way", WAYS)
def test_another_size_than_the_planned_one(way: str) -> None:
    with pytest.raises(DecodeError, match=r"expected 90 x 135 pixels \(height x width\), as the header said, got 90 x 134"):
        part_of_picture(saved(), Size(90, 135), (0, 0, 90, 135), (16, 16), RECIPES[way])


@given(st.sampled_from([saved(), saved(progressive=True), saved(optimize=True, subsampling=0)]), st.data())
def test_damaged_files(data: bytes, draw: Any) -> None:
    """Cut anywhere, and with bytes changed."""
    broken = bytearray(data[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else data)
    for at in draw.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=4)) if broken else []:
        broken[at] = draw.draw(st.integers(0, 255))
    assert same(bytes(broken))


def test_hard_files(hard_files: list[tuple[str, bytes]]) -> None:
    assert [name for name, data in hard_files if not same(data)] == []


def test_photographs(photographs: list[str]) -> None:
    """All JPEG files take the short way but the grey, the CMYK, the turned and those whose header is left to Pillow."""
    for name, data in files_in(photographs):
        assert same(data), name
        with Image.open(io.BytesIO(data)) as image:
            upright = image.getexif().get(0x0112, 1) not in range(2, 9)
            ordinary = image.format == "JPEG" and image.mode == "RGB" and upright and jpeg_size(data) is not None
        assert short(data) is ordinary, name


# ------------------------------------------------------------------------------------------------ painting from an array


@given(
    st.integers(1, 60), st.integers(1, 60), st.data(), st.booleans(),
    st.sampled_from([
        {}, {"resample": "bicubic"}, {"resample": "lanczos"}, {"dtype": "float32", "normalize": pp.normalize.PerImage()}]),
)  # fmt: skip
def test_an_array_paints_as_its_picture(height: int, width: int, data: Any, flip: bool, changes: dict[str, Any]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)  # any filler
    recipe = RECIPES["exact"].replace(**changes)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    target, grid, kept = (
        (data.draw(st.integers(1, 24)), data.draw(st.integers(1, 32))),
        Grid(3, 4),
        np.array([0, 3, 5, 6, 11]),
    )
    both = []
    for picture in (pixels, Image.fromarray(np.ascontiguousarray(pixels[..., :3]))):
        both.append(np.full((5, 192), 77, dtype=recipe.dtype))
        write_pixels(both[-1], picture, box, target, flip, grid, kept, 8, recipe)
    assert np.array_equal(*both)


def test_an_array_is_read_where_it_lies() -> None:
    pixels = RNG.integers(0, 256, (9, 10, 4), dtype=np.uint8)
    assert np.shares_memory(fused.memory(pixels), pixels)
    assert np.array_equal(np.asarray(fused.as_picture(pixels)), pixels[..., :3])


@pytest.mark.parametrize(
    "changes", [{}, {"resample": "lanczos"}, {"dtype": "float32", "normalize": pp.normalize.PerImage()}], ids=str
)
def test_batches_are_those_of_picture_objects(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [
        pp.Sample(str(i), data) for i, data in enumerate([*ORDINARY.values(), saved(orientation=6), saved(format="PNG")])
    ]
    recipes = [pp.recipes.navit(rows_per_batch=2, decode=way).replace(**changes) for way in WAYS]
    batches = [list(pp.load(samples, recipe, tail="pad")) for recipe in recipes]
    monkeypatch.setattr("patchpack.paint.part.decode_fast_jpeg", lambda *_, **__: None)
    expected = list(pp.load(samples, recipes[0], tail="pad"))
    assert len(expected) > 0
    for ours in batches:
        for one, other in zip(expected, ours, strict=True):
            assert np.array_equal(one.patches, other.patches)
            assert one.keys == other.keys


def test_broken_files_that_somebody_wants_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow fills what is missing with zeros; the canvas holds another picture."""
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert same(saved(quality=100))
    assert same(saved(PICTURE.rotate(180), quality=100)[:-2000])


# ------------------------------------------------------------------------------------------------------------ the canvas


def test_decoded_pictures_are_taken_as_they_are() -> None:
    array = np.array(rgb_picture(saved()))
    for picture in (array, np.asfortranarray(array), array[:, ::-1][:, ::-1]):
        taken, box = part_of_picture(picture, Size(90, 134), (1, 2, 3, 4), (16, 16), RECIPES["exact"])
        assert box == (1, 2, 3, 4)
        assert isinstance(taken, np.ndarray)
        assert np.array_equal(taken[..., :3], array)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_pixels_are_widened(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(canvas.widened(pixels)[..., :3], pixels)
    assert not canvas.widened(pixels)[..., 3].any()


def test_one_canvas_serves_a_thread() -> None:
    large = canvas.canvas(Size(800, 700))
    assert large.shape == (800, 700, 4)
    assert np.shares_memory(large, canvas.canvas(Size(9, 5)))
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(canvas.canvas(Size(800, 700))))
    thread.start()
    thread.join()
    assert not np.shares_memory(large, others[0])


def test_a_huge_picture_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "HELD_BYTES", 4 * 8 * 8)
    first, second = canvas.canvas(Size(8, 9)), canvas.canvas(Size(8, 9))
    assert not np.shares_memory(first, second)
    assert np.shares_memory(canvas.canvas(Size(8, 8)), canvas.canvas(Size(8, 8)))
