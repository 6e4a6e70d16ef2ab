"""Recipe(icc="srgb"): embedded colour profiles are converted, on every path alike, and ignored where nobody asks."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import patchpack as pp
from patchpack.image import pillow_warnings, profile
from patchpack.image.decode import decode
from patchpack.image.profile import BROKEN
from tests.helpers.icc import icc_profile

LINEAR, GREY = icc_profile(1.0), icc_profile(1.0, b"GRAY")
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=64, rows_per_batch=1)


def saved(image: Image.Image, format: str = "PNG", icc: bytes = LINEAR, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, icc_profile=icc, **options)
    return file.getvalue()


def converted(data: bytes, **options: Any) -> np.ndarray[Any, Any]:
    return decode(data, icc="srgb", **options)


def by_pillow(image: Image.Image, icc: bytes = LINEAR) -> np.ndarray[Any, Any]:
    given = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    out = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert out is not None
    return np.asarray(out)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_colours_are_those_of_a_screen(format: str) -> None:
    data = saved(Image.fromarray(PIXELS), format, **({"lossless": True} if format == "WEBP" else {}))
    stored = decode(data)
    assert np.array_equal(converted(data), by_pillow(Image.fromarray(stored)))
    assert np.abs(converted(data).astype(int) - stored).max() > 50
    assert decode(saved(Image.new("RGB", (4, 4), (128, 60, 20))), icc="srgb")[0, 0].tolist() == [188, 133, 79]


def test_nothing_is_converted_where_nobody_asks() -> None:
    assert np.array_equal(decode(saved(Image.fromarray(PIXELS))), PIXELS)


def test_a_file_without_a_profile_stays_as_it_is() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    assert np.array_equal(converted(file.getvalue()), PIXELS)


def test_srgb_itself_changes_a_level_at_most() -> None:
    data = saved(Image.fromarray(PIXELS), icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert np.abs(converted(data).astype(int) - PIXELS).max() <= 1


def test_a_palette_has_the_profile_of_its_colours() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    assert np.array_equal(converted(saved(image)), by_pillow(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_greys_have_profiles_too(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert("L").convert(mode)
    assert np.array_equal(converted(saved(image, icc=GREY)), by_pillow(image.convert("L"), GREY))


def test_greys_of_16_bits_have_profiles_too() -> None:
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(converted(saved(deep, icc=GREY)), by_pillow(Image.fromarray(PIXELS[..., 0]), GREY))


def test_a_grey_file_with_a_profile_for_colours() -> None:
    image = Image.fromarray(PIXELS).convert("L")
    assert np.array_equal(converted(saved(image)), by_pillow(image.convert("RGB")))


def test_transparency_is_laid_over_the_background_as_it_is() -> None:
    """The background is the recipe's, and in sRGB."""
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(96) < 48, 255, 0).astype(np.uint8)[None].repeat(64, 0)))
    found = converted(saved(image), background=(10, 20, 30))
    assert np.array_equal(found[:, :48], by_pillow(Image.fromarray(PIXELS))[:, :48])
    assert (found[:, 48:] == (10, 20, 30)).all()
    keyed = Image.new("RGB", (4, 4), (9, 9, 9))
    keyed.putpixel((0, 0), (128, 60, 20))
    found = converted(saved(keyed, transparency=(9, 9, 9)), background=(1, 2, 3))
    assert (found[0, 0].tolist(), found[1, 1].tolist()) == ([188, 133, 79], [1, 2, 3])


@pytest.mark.parametrize(
    ("image", "icc"),
    [
        pytest.param(Image.fromarray(PIXELS), b"no profile", id="broken"),
        pytest.param(Image.fromarray(PIXELS), LINEAR[:200], id="cut"),
        pytest.param(Image.fromarray(PIXELS), GREY, id="of greys, for colours"),
    ],
)
def test_a_profile_that_cannot_be_used_is_counted(image: Image.Image, icc: bytes) -> None:
    pillow_warnings.forget()
    assert np.array_equal(converted(saved(image, icc=icc)), np.asarray(image))
    assert pillow_warnings.heard() == [BROKEN]
    (batch,) = pp.pack_images([saved(image, icc=icc)], RECIPE.replace(icc="srgb"))
    assert batch.info.warnings == {BROKEN: 1}


@pytest.mark.parametrize("decode", ["exact", "draft", "simplejpeg"])
@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_path_converts(decode: Any, resample: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (320, 240), (128, 60, 20))
    data = saved(image, "JPEG", quality=100, subsampling=0, exif=exif)
    recipe = RECIPE.replace(icc="srgb", decode=decode, resample=resample)
    for held in (data, Image.open(io.BytesIO(data))):
        (batch,) = pp.pack_images([held], recipe)
        (packed,) = pp.unpack(batch)
        assert np.abs(packed.patches.reshape(-1, 3).int().numpy() - (188, 133, 79)).max() <= 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pil_image_is_converted_before_it_travels(workers: int) -> None:
    image = Image.open(io.BytesIO(saved(Image.new("RGB", (64, 64), (128, 60, 20)))))
    (batch,) = pp.load([(image, 1)], RECIPE.replace(icc="srgb"), tail="pad", num_workers=workers)
    assert batch.patches[0, 0, :3].tolist() == [188, 133, 79]


def test_a_pillow_without_littlecms_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "is_there", lambda: False)
    with pytest.raises(pp.errors.ConfigError, match="icc='srgb' needs Pillow with LittleCMS"):
        pp.load([], RECIPE.replace(icc="srgb"))
