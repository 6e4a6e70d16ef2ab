"""decode="turbo": the pixels and the errors of "exact", whatever the file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack.errors import DecodeError
from patchpack.paint import fused
from patchpack.paint.picture import part_of_picture, rgb_picture
from patchpack.paint.resample import write_pixels
from patchpack.paint.turbo import decode_ordinary

pytest.importorskip("simplejpeg")
LIMIT = 64_000_000
TURBO = pp.Recipe(resize=pp.NaFlex(64), decode="turbo")
RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (45, 67, 3), dtype=np.uint8)).resize((134, 90))


def saved(image: Image.Image = PICTURE, format: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(file, format, exif=exif, **options)
    return file.getvalue()


def outcome(data: bytes, recipe: pp.Recipe) -> Any:
    """Pixels, or what the error says."""
    try:
        size = pp.read_size(data)
        picture, box = part_of_picture(data, size, (0, 0, *size), (16, 16), recipe)
    except DecodeError as error:
        return str(error)
    assert box == (0, 0, *size)
    return picture[..., :3] if isinstance(picture, np.ndarray) else np.asarray(picture)


def same(data: bytes) -> bool:
    exact, turbo = outcome(data, TURBO.replace(decode="exact")), outcome(data, TURBO)
    return type(exact) is type(turbo) and np.array_equal(exact, turbo)


ORDINARY = {
    "4:2:0": saved(), "4:4:4": saved(subsampling=0), "4:2:2": saved(subsampling=1), "progressive": saved(progressive=True),
    "restarts": saved(restart_marker_blocks=3), "best": saved(quality=100), "worst": saved(quality=1),
    "stored as RGB": saved(keep_rgb=True), "tables made for it": saved(optimize=True),
    "one pixel": saved(PICTURE.crop((0, 0, 1, 1))),
    "what follows does not matter": saved() + b"more",
}  # fmt: skip


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_files_take_the_short_way(kind: str) -> None:
    assert decode_ordinary(ORDINARY[kind], LIMIT) is not None
    assert same(ORDINARY[kind])


OTHERS = {
    **{f"orientation {turn}": saved(orientation=turn) for turn in range(2, 9)},
    "grey": saved(PICTURE.convert("L")), "CMYK": saved(PICTURE.convert("CMYK")), "PNG": saved(format="PNG"),
    "several pictures": saved(format="MPO", save_all=True, append_images=[PICTURE.rotate(180)]), "nothing": b"",
    "cut": saved()[:-700], "no end": saved()[:-2], "no pixels": saved()[:300], "garbage": b"\xff\xd8\xff" + bytes(99),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_all_else_is_left_to_pillow(kind: str) -> None:
    assert decode_ordinary(OTHERS[kind], LIMIT) is None
    assert same(OTHERS[kind])


def test_the_limits_are_those_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    size, box = pp.Size(90, 134), (0, 0, 90, 134)
    with pytest.raises(DecodeError, match=r"expected at most 12059 pixels, got 90 x 134"):
        part_of_picture(saved(), size, box, (16, 16), TURBO.replace(max_pixels=90 * 134 - 1))
    assert isinstance(part_of_picture(saved(), size, box, (16, 16), TURBO.replace(max_pixels=90 * 134))[0], np.ndarray)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(DecodeError, match=r"expected at most 64000000 pixels, got: Image size"):
        part_of_picture(saved(), size, box, (16, 16), TURBO)


def test_another_size_than_the_planned_one() -> None:
    with pytest.raises(DecodeError, match=r"the header said 90 x 135 \(height x width\), the pixels are 90 x 134"):
        part_of_picture(saved(), pp.Size(90, 135), (0, 0, 90, 135), (16, 16), TURBO)


@given(st.sampled_from([saved(), saved(progressive=True), saved(optimize=True, subsampling=0)]), st.data())
def test_damaged_files(data: bytes, draw: Any) -> None:
    """Cut anywhere, and with bytes changed."""
    broken = bytearray(data[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else data)
    for at in draw.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=4)) if broken else []:
        broken[at] = draw.draw(st.integers(0, 255))
    assert same(bytes(broken))


def test_hostile_files(shared: Path) -> None:
    files = sorted((shared / "data" / "hostile" / "files").iterdir())
    assert len(files) >= 60
    assert [file.name for file in files if not same(file.read_bytes())] == []


def test_photographs(shared: Path) -> None:
    count = short = 0
    for shard in sorted((shared / "data" / "photos").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in [member for member in tar if member.name.endswith(".jpg")]:
                data = tar.extractfile(member).read()  # type: ignore[union-attr]  # a regular file
                assert same(data), member.name
                count, short = count + 1, short + (decode_ordinary(data, LIMIT) is not None)
    assert count == 400
    assert short >= 380  # all but the grey and the turned


# ------------------------------------------------------------------------------------------------ painting from an array


@given(
    st.integers(1, 60), st.integers(1, 60), st.data(), st.booleans(),
    st.sampled_from([{}, {"resample": "bicubic"}, {"resample": "lanczos"}, {"dtype": "float32", "normalize": pp.PerImage()}]),
)  # fmt: skip
def test_an_array_paints_as_its_picture(height: int, width: int, data: Any, flip: bool, changes: dict[str, Any]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)  # any filler
    recipe = TURBO.replace(decode="exact", **changes)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    target, grid, kept = (
        (data.draw(st.integers(1, 24)), data.draw(st.integers(1, 32))),
        pp.Grid(3, 4),
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


def test_a_batch_is_the_exact_one() -> None:
    samples = [
        pp.Sample(str(i), data) for i, data in enumerate([*ORDINARY.values(), saved(orientation=6), saved(format="PNG")])
    ]
    exact, turbo = (
        list(pp.load(samples, pp.recipes.navit(rows=2, decode=decode), tail="pad")) for decode in ("exact", "turbo")
    )
    assert len(exact) == len(turbo) > 0
    for one, other in zip(exact, turbo, strict=True):
        assert np.array_equal(one.patches, other.patches)
        assert one.keys == other.keys


def test_decoded_pictures_are_taken_as_they_are() -> None:
    array = np.array(rgb_picture(saved()))
    picture, _ = part_of_picture(array, pp.Size(90, 134), (0, 0, 90, 134), (16, 16), TURBO)
    assert np.array_equal(np.asarray(picture), array)
