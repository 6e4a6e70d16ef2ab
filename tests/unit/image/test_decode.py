"""Pixels come out upright, in 8-bit RGB and over the background, or as one kind of error."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from patchpack.errors import DecodeError
from patchpack.image.decode import decode, decode_image, open_image, oriented_size, to_rgb
from patchpack.image.formats import FORMATS

ORIENTATION = 0x0112
RNG = np.random.default_rng(0)
# 5 high and 9 wide, no two pixels alike: every turn gives another picture
PIXELS = RNG.permutation(5 * 9 * 3).astype(np.uint8).reshape(5, 9, 3)
PICTURE = Image.fromarray(PIXELS)

# tag value → the stored pixels as one should look at them (EXIF 2.3, tag 274)
UPRIGHT = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PIXELS, 1),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def saved(image: Image.Image, format: str, *, orientation: int | None = None, **options: Any) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(size: tuple[int, int], bits: int, colour: int, row: bytes, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG of (height, width) whose rows are all the same; colour 0 is grey, 2 RGB."""
    height, width = size
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + behind + chunk(b"IEND", b"")


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
    def test_lossless_files_come_out_as_defined(self, format: str, options: dict[str, Any], orientation: int) -> None:
        data = saved(PICTURE, format, orientation=orientation, **options)
        np.testing.assert_array_equal(decode(data), UPRIGHT[orientation])
        assert oriented_size(open_image(data)) == UPRIGHT[orientation].shape[:2]

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("format", [f for f in ("JPEG", "WEBP", "AVIF") if f in FORMATS])
    def test_lossy_files_come_out_as_from_pillow(self, format: str, orientation: int) -> None:
        data = saved(PICTURE, format, orientation=orientation)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(decode(data), expected)
        assert oriented_size(open_image(data)) == expected.shape[:2]

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(saved(PICTURE, "JPEG", xmp=XMP), id="jpeg"),
            pytest.param(saved(PICTURE, "TIFF", tiffinfo={700: XMP}), id="tiff"),
            pytest.param(saved(PICTURE, "WEBP", xmp=XMP), id="webp"),
            pytest.param(
                png((5, 9), 8, 2, bytes(27), behind=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
                id="png, behind the pixels",
            ),
            pytest.param(
                png(
                    (5, 9),
                    8,
                    2,
                    bytes(27),
                    behind=chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHHI", ORIENTATION, 3, 1, 6, 0, 0)),
                ),
                id="exif behind the pixels",
            ),
        ],
    )
    def test_tags_in_other_places_count_too(self, data: bytes) -> None:
        assert decode(data).shape == (9, 5, 3)
        assert oriented_size(open_image(data)) == (9, 5)

    def test_a_tag_of_a_later_animation_frame_does_not_count(self) -> None:
        first = chunk(b"acTL", struct.pack(">II", 2, 0)) + frame_control(0)
        second = frame_control(1) + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress((b"\0" + bytes(27)) * 5))
        late = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = png((5, 9), 8, 2, bytes(27), before=first, behind=second + late)
        assert decode(data).shape[:2] == oriented_size(open_image(data)) == (5, 9)

    @pytest.mark.parametrize("tag", [0, 9, 65535])
    def test_a_value_without_meaning_is_upright(self, tag: int) -> None:
        data = saved(PICTURE, "PNG", orientation=tag)
        np.testing.assert_array_equal(decode(data), PIXELS)

    def test_a_broken_tag_does_not_lose_the_picture(self) -> None:
        data = saved(PICTURE, "JPEG", exif=b"Exif\0\0not a TIFF header")
        assert decode(data).shape == (5, 9, 3)
        assert oriented_size(open_image(data)) == (5, 9)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
    def test_a_picture_is_turned_once(self, format: str) -> None:
        data = saved(PICTURE, format, orientation=6)
        once = decode_image(data)
        assert to_rgb(once).size == once.size == (5, 9)
        assert oriented_size(once) == (9, 5)

    def test_a_tag_that_was_set_in_memory_counts(self) -> None:
        image = PICTURE.copy()
        image.getexif()[ORIENTATION] = 6
        assert oriented_size(image) == (9, 5)
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), UPRIGHT[6])

    def test_size_before_and_after_loading(self) -> None:
        for format in ("JPEG", "PNG", "TIFF"):
            image = Image.open(io.BytesIO(saved(PICTURE, format, orientation=6)))
            before = oriented_size(image)
            image.load()
            assert oriented_size(image) == before == (9, 5)
            assert to_rgb(image).size == (5, 9)


def frame_control(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 9, 5, 0, 0, 1, 10, 0, 0))


class TestDepth:
    def test_16_bit_png_ramp(self) -> None:
        ramp = np.linspace(0, 65535, 300, dtype=np.uint16).reshape(1, 300)
        out = decode(saved(Image.fromarray(ramp), "PNG"))
        np.testing.assert_array_equal(out, np.rint(ramp / 257).astype(np.uint8)[..., None].repeat(3, axis=2))
        assert (out.min(), out.max()) == (0, 255)

    def test_16_bit_png_in_colour(self) -> None:
        row = struct.pack(">6H", 0, 32768, 65535, 65535, 256, 0)
        assert decode(png((1, 2), 16, 2, row)).tolist() == [[[0, 128, 255], [255, 1, 0]]]

    def test_big_endian_tiff(self) -> None:
        image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0, 65535))
        assert decode(saved(image, "TIFF"))[0, :, 0].tolist() == [0, 255]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            pytest.param([0, 32768, 65535], [0, 128, 255], id="16 bits of 32"),
            pytest.param([0, 257, 25700], [0, 1, 100], id="dark stays dark"),
            pytest.param([0, 1 << 30, 1 << 31], [0, 128, 255], id="by the maximum"),
            pytest.param([-100, -60, 100], [0, 51, 255], id="negative"),
            pytest.param([7, 7, 7], [0, 0, 0], id="constant"),
            pytest.param([-7, -7, -7], [0, 0, 0], id="negative constant"),
        ],
    )
    def test_32_bit_integers(self, values: list[int], expected: list[int]) -> None:
        array = np.minimum(np.array([values], dtype=np.int64), 2**31 - 1).astype(np.int32)
        np.testing.assert_allclose(decode(saved(Image.fromarray(array), "TIFF"))[0, :, 1], expected, atol=0.5)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            pytest.param([0.0, 0.2, 1.0], [0, 51, 255], id="unit range"),
            pytest.param([0.0, 100.0, 255.0], [0, 100, 255], id="8-bit range"),
            pytest.param([0.0, 500.0, 1000.0], [0, 128, 255], id="larger"),
            pytest.param([-1.0, -0.5, 0.0], [0, 128, 255], id="negative"),
            pytest.param([np.nan, np.inf, 1.0], [0, 0, 255], id="NaN and infinity"),
            pytest.param([-np.inf, -1.0, 1.0], [128, 0, 255], id="minus infinity is 0 as well"),
            pytest.param([-3.4e38, 0.0, 3.4e38], [0, 128, 255], id="the ends of float32"),
        ],
    )
    def test_float_tiffs(self, values: list[float], expected: list[int]) -> None:
        image = Image.fromarray(np.array([values], dtype=np.float32))
        np.testing.assert_allclose(decode(saved(image, "TIFF"))[0, :, 2], expected, atol=0.5)

    def test_a_signalling_nan_is_quiet_here(self) -> None:
        array = np.array([[0x7F800001, 0x3F800000]], dtype=np.uint32).view(np.float32)
        assert to_rgb(Image.frombytes("F", (2, 1), array.tobytes())).getpixel((0, 0)) == (0, 0, 0)


class TestTransparency:
    half_red = Image.new("RGBA", (2, 3), (255, 0, 0, 128))

    @pytest.mark.parametrize(
        ("background", "expected"),
        [((255, 255, 255), (255, 127, 127)), ((0, 0, 0), (128, 0, 0)), ((0, 0, 255), (128, 0, 127))],
    )
    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_half_transparent_red(self, format: str, background: Any, expected: Any) -> None:
        out = decode(saved(self.half_red, format), background=background)
        assert out.shape == (3, 2, 3)
        assert (out == expected).all()

    def test_white_is_the_default(self) -> None:
        assert decode(saved(self.half_red, "PNG"))[0, 0].tolist() == [255, 127, 127]

    def test_grey_with_alpha(self) -> None:
        out = decode(saved(Image.new("LA", (2, 2), (100, 0)), "PNG"), background=(1, 2, 3))
        assert out[0, 0].tolist() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("transparency", "expected"),
        [(1, [[255, 0, 0], [9, 9, 9]]), (bytes([0, 128]), [[9, 9, 9], [4, 4, 132]])],
    )
    @pytest.mark.parametrize("bits", [1, 8])
    def test_palette(self, transparency: int | bytes, expected: list[list[int]], bits: int) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putpixel((1, 0), 1)
        data = saved(image, "PNG", transparency=transparency, bits=bits)
        assert decode(data, background=(9, 9, 9)).tolist() == [expected]

    @pytest.mark.parametrize(
        ("bits", "colour", "row", "key", "expected"),
        [
            pytest.param(1, 0, b"\x40", (1,), [0, 9], id="1-bit grey"),
            pytest.param(2, 0, b"\x30", (3,), [0, 9], id="2-bit grey"),
            pytest.param(4, 0, b"\x2a", (10,), [34, 9], id="4-bit grey"),
            pytest.param(8, 0, b"\x20\x30", (0x30,), [32, 9], id="8-bit grey"),
            pytest.param(16, 0, b"\x20\x20\x30\x31", (0x3031,), [32, 9], id="16-bit grey"),
            pytest.param(8, 2, b"\x20\x20\x20\x30\x30\x30", (0x30,) * 3, [32, 9], id="8-bit colour"),
            pytest.param(16, 2, b"\x12\x34" * 3 + b"\x34\x12" * 3, (0x3412,) * 3, [18, 9], id="16-bit colour"),
        ],
    )
    def test_png_key_colour(self, bits: int, colour: int, row: bytes, key: tuple[int, ...], expected: list[int]) -> None:
        data = png((1, 2), bits, colour, row, before=chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
        assert decode(data, background=(9, 9, 9))[0, :, 0].tolist() == expected

    @pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
    def test_every_mode_with_alpha(self, mode: str) -> None:
        grey = Image.new("LA", (1, 1), (200, 51))
        if mode == "PA":
            image = Image.merge("PA", (Image.new("P", (1, 1), 200), Image.new("L", (1, 1), 51)))
            image.putpalette([value for value in range(256) for _ in range(3)])
        else:
            image = grey if mode == "LA" else grey.convert("La") if mode == "La" else grey.convert("RGBA").convert(mode)
        assert image.mode == mode
        np.testing.assert_allclose(np.asarray(to_rgb(image, background=(0, 0, 0))), 40, atol=1)


class TestColour:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
    def test_modes_of_8_bits_are_converted_as_by_pillow(self, mode: str) -> None:
        image = PICTURE.convert(mode)
        expected = image.convert("RGB")
        assert to_rgb(image).mode == "RGB"
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(expected))

    @pytest.mark.parametrize(("format", "mode"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "LAB"), ("JPEG", "L")])
    def test_files_that_are_not_rgb(self, format: str, mode: str) -> None:
        flat = Image.new("RGB", (8, 8), (200, 100, 50))
        out = decode(saved(flat.convert(mode), format))
        np.testing.assert_allclose(out[4, 4], np.asarray(flat.convert(mode).convert("RGB"))[4, 4], atol=3)

    def test_first_frame_of_an_animation(self) -> None:
        for format in ("GIF", "PNG", "WEBP", "MPO", "TIFF"):
            red, blue = Image.new("RGB", (4, 3), "red"), Image.new("RGB", (4, 3), "blue")
            options = {"lossless": True} if format == "WEBP" else {}
            out = decode(saved(red, format, save_all=True, append_images=[blue], **options))
            np.testing.assert_allclose(out, np.broadcast_to([255, 0, 0], (3, 4, 3)), atol=2, err_msg=format)

    def test_an_upright_rgb_picture_is_not_copied(self) -> None:
        assert to_rgb(PICTURE) is PICTURE
        data = saved(PICTURE, "JPEG")
        assert isinstance(decode_image(data), ImageFile.ImageFile)
        assert decode(data).flags.writeable


class TestRefusal:
    bomb = png((13000, 13000), 1, 0, bytes(1625))

    def test_over_the_limit_before_a_pixel_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
        with pytest.raises(DecodeError, match=r"at most 64000000 pixels, got 13000 x 13000"):
            decode(self.bomb)

    def test_the_limit_itself_is_fine(self) -> None:
        data = saved(PICTURE, "PNG")
        assert decode(data, max_pixels=45).shape == (5, 9, 3)
        with pytest.raises(DecodeError, match="at most 44 pixels, got 5 x 9"):
            decode(data, max_pixels=44)

    def test_over_pillows_own_limit(self) -> None:
        with pytest.raises(DecodeError, match="at most 64000000 pixels"):
            decode(b"GIF89a" + b"\xff" * 4 + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;")

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"not a picture at all", id="garbage"),
            pytest.param(bytes(100_000), id="zeros"),
            pytest.param(saved(PICTURE, "JPEG")[:20], id="JPEG header cut"),
            pytest.param(saved(PICTURE, "PNG")[:20], id="PNG header cut"),
            pytest.param(saved(PICTURE, "EPS"), id="EPS"),
            pytest.param(saved(PICTURE, "PPM"), id="PPM"),
            pytest.param(saved(PICTURE, "TGA"), id="TGA"),
        ],
    )
    def test_what_is_no_picture(self, data: bytes) -> None:
        with pytest.raises(DecodeError, match=f"expected a readable JPEG, .* got {len(data)} bytes"):
            decode(data)

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "TIFF"])
    def test_a_truncated_file(self, format: str) -> None:
        noise = Image.fromarray(RNG.integers(0, 256, (64, 48, 3), dtype=np.uint8))
        data = saved(noise, format)
        with pytest.raises(DecodeError, match="expected a "):
            decode(data[: len(data) // 2])

    def test_the_message_says_what_was_expected_and_what_came(self) -> None:
        data = saved(PICTURE, "PNG")
        with pytest.raises(DecodeError, match=r"expected a complete PNG of 5 x 9 pixels .* got OSError: "):
            decode(data[:-30])

    @pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
    def test_what_is_not_the_files_fault_passes(self, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
        def load(_: Any) -> None:
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", load)
        with pytest.raises(error):
            decode(saved(PICTURE, "JPEG"))

    def test_a_pillow_without_avif_says_so(self) -> None:
        assert ("AVIF" in FORMATS) == features.check_module("avif")


class TestWarnings:
    warned = png((2, 2), 8, 0, b"\0\0", before=chunk(b"acTL", bytes(8)))

    def test_pillows_warnings_stay_inside(self) -> None:
        with pytest.warns(UserWarning, match="Invalid APNG"):
            Image.open(io.BytesIO(self.warned))
        before = list(warnings.filters)
        assert decode(self.warned).shape == (2, 2, 3)  # warnings are errors in this suite
        assert list(warnings.filters) == before

    def test_in_many_threads_too(self) -> None:
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            shapes = list(pool.map(lambda _: decode(self.warned).shape, range(200)))
        assert shapes == [(2, 2, 3)] * 200
        assert list(warnings.filters) == before

    def test_pillows_settings_stay_as_they_were(self) -> None:
        settings = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
        decode(saved(PICTURE, "PNG"), max_pixels=10**9)
        with pytest.raises(DecodeError):
            decode(b"", max_pixels=1)
        assert settings == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
