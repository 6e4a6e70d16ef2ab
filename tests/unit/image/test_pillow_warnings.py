"""Pillow's warnings are counted in the thread that decodes, and nowhere else changed; its errors are one error."""

from __future__ import annotations

import io
import logging
import pickle
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

import patchpack as pp
from helpers.hard_images import Hard, cut_exif, own, saved
from patchpack.image import pillow_warnings
from patchpack.image.decode import decode, decode_image, open_image, oriented_size, to_rgb
from patchpack.image.pillow_warnings import OTHER, SEVERAL_FRAMES, CapturedWarnings, forget, heard
from patchpack.paint.part import part_of_picture
from patchpack.types import Size

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
BAD_EXIF, GOOD = saved(PICTURE, "JPEG", exif=cut_exif()), saved(PICTURE, "JPEG")
CORRUPT, MPO = "corrupt EXIF or TIFF tags", "malformed MPO, taken as a plain JPEG"


def readable() -> list[Hard]:
    """Return the files that must be decoded; asked in tests, because making all files takes a second."""
    return [file for file in own() if file.size is not None and not file.either]


def kinds_of(data: bytes) -> list[str]:
    forget()
    decode(data)
    return heard()


# --------------------------------------------------------------------------------------------------------------- counted


def test_what_is_odd_about_a_file_has_a_kind() -> None:
    for file in readable():
        assert kinds_of(file.data) == ([file.warning] if file.warning else []), file.name


@pytest.mark.parametrize("way", ["exact", "draft", "simplejpeg"])
def test_every_way_to_decode_counts_the_same(way: Any) -> None:
    recipe = pp.recipes.square(size=16, decode=way)
    for file in readable():
        assert file.size is not None
        forget()
        part_of_picture(file.data, Size(*file.size), (0, 0, *file.size), (16, 16), recipe)
        assert heard() == [file.warning] * bool(file.warning), file.name


TEXTS = [
    ("Corrupt EXIF data.  Expecting to read 12 bytes but only got 2. ", CORRUPT),
    ("Possibly corrupt EXIF data.  Expecting to read 5 bytes but only got 1. Skipping tag 3", CORRUPT),
    ("Possibly corrupt EXIF MakerNote data.  Expecting to read 5 bytes but only got 1.", CORRUPT),
    ("Metadata Warning, tag 274 had too many entries: 2, expected 1", CORRUPT),
    ("Tag data larger than file. Skipping tag 0", CORRUPT),
    ("Tag offset too large", CORRUPT),
    ("Invalid APNG, will use default PNG image if possible", "invalid animation, taken as a plain PNG"),
    (
        "Image appears to be a malformed MPO file, it will be interpreted as a base JPEG file",
        "malformed MPO, taken as a plain JPEG",
    ),
    ("Image size (99 pixels) exceeds limit, could be decompression bomb DOS attack.", "more pixels than Pillow's own limit"),
    ("Palette images with Transparency expressed in bytes should be", "transparency that Pillow cannot convert"),
    ("Couldn't allocate palette entry for transparency", "transparency that Pillow cannot convert"),
    ("something that the next release says", OTHER),
]


@pytest.mark.parametrize(("text", "kind"), TEXTS)
def test_texts_become_kinds(text: str, kind: str) -> None:
    forget()
    with CapturedWarnings():
        warn(text)
        warn(text)
    assert heard() == [kind]


def warn(text: str, module: str = "PIL.SomePlugin", category: type[Warning] = UserWarning) -> None:
    warnings.warn_explicit(text, category, "some.py", 1, module)


def test_a_picture_over_pillows_own_limit_is_counted_where_ours_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert kinds_of(saved(PICTURE, "PNG")) == ["more pixels than Pillow's own limit"]


def test_images_are_counted_and_not_texts() -> None:
    recipe = pp.recipes.siglip2_naflex(max_patches=16, rows_per_batch=1)
    data = [BAD_EXIF, GOOD, BAD_EXIF, saved(PICTURE, "TIFF", save_all=True, append_images=[PICTURE]), BAD_EXIF[:900]]
    loader = pp.load([pp.Sample(str(i), d, 0) for i, d in enumerate(data)], recipe, on_error="skip")
    (batch,) = loader
    assert batch.info.warnings == loader.report().warnings == {CORRUPT: 2, SEVERAL_FRAMES: 1}
    assert [r.stage for r in loader.report().rejected] == ["decode"]  # which has a reason, and is not counted
    (batch,) = pp.Pack(recipe, on_error="skip")(pp.Sample(str(i), d, 0) for i, d in enumerate(data))
    assert batch.info.warnings == pp.Report.collect([batch]).warnings == {CORRUPT: 2, SEVERAL_FRAMES: 1}
    assert pp.Report.total([loader.report()] * 2).warnings == {CORRUPT: 4, SEVERAL_FRAMES: 2}


def test_rows_that_come_again_are_not_counted_again() -> None:
    samples = [pp.Sample(str(i), BAD_EXIF, 0) for i in range(3)]
    recipe = pp.recipes.square(size=16, rows_per_batch=2)
    loader = pp.load(samples, recipe, tail="wrap")
    assert [batch.info.warnings for batch in loader] == [{CORRUPT: 2}, {CORRUPT: 1}]


# ------------------------------------------------------------------------------------------------ nobody else's warnings


def test_warnings_of_others_are_as_they_were() -> None:
    forget()
    with CapturedWarnings():
        with pytest.raises(UserWarning, match="of mine"):
            warn("of mine", "mine")
        with pytest.raises(DeprecationWarning, match="of mine"):
            warn("of mine", "PILOT.engine", DeprecationWarning)
    with pytest.raises(UserWarning, match="behind"):  # and Pillow's, where nobody decodes
        warn("behind")
    assert heard() == []


def test_one_inside_the_other() -> None:
    before = list(warnings.filters)
    with CapturedWarnings():
        with CapturedWarnings():
            warn("a")
        warn("b")
    assert list(warnings.filters) == before
    with CapturedWarnings():
        warnings.resetwarnings()  # pytest puts them back
    with CapturedWarnings(), warnings.catch_warnings():
        pass
    assert pillow_warnings._here.deep == 0


@contextmanager
def decoding_elsewhere() -> Iterator[None]:
    """Another thread is in the middle of a file."""
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with CapturedWarnings():
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_another_thread_hears_its_own() -> None:
    forget()
    with decoding_elsewhere():
        with pytest.raises(UserWarning, match="in this thread"):
            warn("in this thread")
        with pytest.warns(UserWarning, match="recorded"):
            warn("recorded")
        assert logging.getLogger("PIL.TiffImagePlugin").filter(record())
    assert heard() == []


def test_threads_count_for_themselves_and_leave_no_filter() -> None:
    before = list(warnings.filters)
    animated = saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)])
    files, expected = [BAD_EXIF, GOOD, animated], [[CORRUPT], [], [SEVERAL_FRAMES]]
    start = threading.Barrier(3)

    def work(number: int) -> list[list[str]]:
        start.wait(60)
        return [kinds_of(files[number]) for _ in range(60)]

    with ThreadPoolExecutor(3) as pool:
        for found, kinds in zip(pool.map(work, range(3)), expected, strict=True):
            assert found == [kinds] * 60
    assert list(warnings.filters) == before


def test_filters_can_be_pickled_while_a_file_is_decoded() -> None:
    """As executors do that carry them to their workers."""
    with CapturedWarnings():
        assert pickle.loads(pickle.dumps(warnings.filters[0]))[0] == "ignore"


def record() -> logging.LogRecord:
    return logging.LogRecord("PIL.TiffImagePlugin", logging.ERROR, "", 0, "More samples per pixel", None, None)


def test_what_pillow_logs_of_a_broken_tiff_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    tags = [(256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 99), (279, 4, 16)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(pp.errors.DecodeError):
        decode(data)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("PIL.TiffImagePlugin").filter(record())


# ---------------------------------------------------------------------------------------------------------------- errors


ERRORS = [
    SyntaxError("a"), OSError("a"), ValueError("a"), struct.error("a"), zlib.error("a"), EOFError("a"), OverflowError("a"),
    IndexError("a"), KeyError("a"), TypeError("a"), AttributeError("a"), ZeroDivisionError("a"), AssertionError("a"),
    NotImplementedError("a"), RuntimeError("a"), RecursionError("a"), UnicodeDecodeError("ascii", b"", 0, 1, "a"),
    ImportError("a"), Image.DecompressionBombError("a"), Image.UnidentifiedImageError("a"), UserWarning("a"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["open", "load"])
def test_whatever_pillow_raises_over_a_file_is_one_error(place: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(place, error, monkeypatch)
    with pytest.raises(pp.errors.DecodeError) as found:
        decode(saved(PICTURE, "PNG"))
    if place == "load":  # when it is opened, Pillow itself takes some of them for another format
        assert f"{type(error).__name__}: {error}" in str(found.value)
        assert found.value.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["open", "load"])
def test_what_is_not_the_files_fault_passes(place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(PICTURE, "PNG")
    raising(place, error, monkeypatch)
    with pytest.raises(type(error)):
        decode(data)
    if place == "load":
        with pytest.raises(type(error)):
            list(pp.load([pp.Sample("a", data)], pp.recipes.navit(), on_error="skip"))


def raising(place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "_open" if place == "open" else "load_prepare", fail)


def test_a_fault_in_a_policy_is_no_fault_of_a_file() -> None:
    class Faulty:
        draws = False

        def __call__(self, *_: Any) -> Any:
            return undefined_name  # type: ignore[name-defined]  # noqa: F821

        def bound(self, _: int) -> int:
            return 4

    recipe = pp.Recipe(resize=Faulty(), seq_len=16)
    with pytest.raises(NameError):
        list(pp.load([pp.Sample("a", GOOD)], recipe, on_error="skip"))


# ------------------------------------------------------------------------------------------------------------ animations


def test_of_several_frames_the_first_is_taken() -> None:
    files = [file for file in own() if file.warning == SEVERAL_FRAMES]
    assert files
    for file in files:
        first = Image.open(io.BytesIO(file.data))
        first.seek(0)
        np.testing.assert_array_equal(decode(file.data), np.asarray(first.convert("RGB")), err_msg=file.name)
        assert file.size == oriented_size(open_image(file.data)), file.name


def test_a_multi_picture_jpeg_gives_its_first() -> None:
    file = io.BytesIO()
    PICTURE.save(file, "MPO", save_all=True, append_images=[PICTURE.rotate(180)])
    data = file.getvalue()
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert kinds_of(data) == [SEVERAL_FRAMES]


def test_a_frame_that_somebody_chose_stays() -> None:
    """A picture that is no file of ours is taken as it is."""
    file = io.BytesIO(saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]))
    image = Image.open(file)
    image.seek(1)
    forget()
    chosen = np.asarray(to_rgb(image))
    assert heard() == []
    assert image.tell() == 1
    np.testing.assert_array_equal(chosen, np.asarray(image.convert("RGB")))


def test_a_second_frame_that_is_broken_costs_nothing() -> None:
    whole = saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)])
    expected = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
    second = whole.rindex(b"," + struct.pack("<4H", 0, 0, 40, 30))
    for cut in range(second - 8, second + 40):
        np.testing.assert_array_equal(decode(whole[:cut]), expected)
    with pytest.raises(struct.error):  # what Pillow says of one of them
        _ = Image.open(io.BytesIO(whole[: second + 4])).is_animated  # type: ignore[attr-defined]


def test_plugins_that_are_not_ours_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    assert isinstance(open_image(GOOD), JpegImagePlugin.JpegImageFile)
    for format in ("PPM", "TGA", "ICO", "PCX"):
        with pytest.raises(pp.errors.DecodeError, match="expected a readable JPEG"):
            decode_image(saved(PICTURE, format))
