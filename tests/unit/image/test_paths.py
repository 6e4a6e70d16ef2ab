"""Images given as text: what is a path, a data URI or base64, and what is said about the rest."""

from __future__ import annotations

import base64
import io
import os
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from patchpack.image.paths import ImageFile, is_surely_text_of_image, located, located_all
from patchpack.image.picture import picture_bytes, rgb_picture
from patchpack.image.size import picture_size

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)


def encoded(form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form)
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a b.png"
    path.write_bytes(encoded())
    return path


class Named(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "a b.png"


@pytest.mark.parametrize("form", ["Path", "str", "relative", "relative Path", "PathLike", "numpy str"])
def test_a_path_has_a_size_and_pixels(form: str, file: Path) -> None:
    image: Any = {
        "Path": file, "str": str(file), "relative": "a b.png", "relative Path": Path("a b.png"), "PathLike": Named(),
        "numpy str": np.str_(file),
    }[form]  # fmt: skip
    found = located(image)
    assert isinstance(found, ImageFile)
    assert found.path == str(file)
    for value in (image, found):
        assert picture_size(value) == (5, 9)
        assert np.array_equal(np.asarray(rgb_picture(value)), PIXELS)
        assert picture_bytes(value) == 0


def test_a_relative_path_keeps_the_folder_it_was_met_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = located("a b.png")
    monkeypatch.chdir("/")
    found = pickle.loads(pickle.dumps(found))
    assert picture_size(found) == (5, 9)
    assert picture_size(located("a b.png", folder=str(file.parent))) == (5, 9)
    with pytest.raises(pp.errors.SourceError, match=r"FileNotFoundError: there is no file 'a b.png' in the working folder /,"):
        picture_size("a b.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_base64_and_data_uris_are_the_bytes(form: str) -> None:
    data = encoded(form)
    text = base64.b64encode(data).decode()
    for image in (
        text,
        f"data:image/{form.lower()};base64,{text}",
        f"DATA:;BASE64,{text}",
        f"data:image/png;charset=x;base64,{quote(text, safe='')}",
        f"data:;base64,{text[:40]}\n {text[40:]}",
        f"data:image/png,{quote(data)}",
    ):
        assert located(image) == data


def test_a_file_comes_before_base64(file: Path) -> None:
    text = base64.b64encode(b"GIF89a" + bytes(12)).decode()
    assert located(text) == b"GIF89a" + bytes(12)
    assert isinstance(located(Path(text)), ImageFile)
    (file.parent / text).write_bytes(encoded())
    assert isinstance(located(text), ImageFile)


TEXT = base64.b64encode(encoded()).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:-1],
        TEXT[:40] + "!!!!" + TEXT[40:],
        TEXT[:40] + 4 * "\n" + TEXT[40:],
        base64.b64encode(bytes(99)).decode(),
        "R0lGODlh",
        "é" * 24,
    ],
    ids=["no padding", "a stranger", "lines", "no image", "short", "not ASCII"],
)
def test_what_is_not_quite_base64_is_a_missing_file(text: str) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"there is no file '.{,210}' .*and the text is not base64 of an image"):
        picture_size(text)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", pp.errors.SourceError, "expected the path of an image, got an empty text"),
        ("https://a.org/b.png", pp.errors.SourceError, "got the URL 'https://a.org/b.png': download the file"),
        ("s3://a/b.png", pp.errors.SourceError, "download the file and pass its path, or write shards"),
        ("file:///a/b.png", pp.errors.SourceError, "pass the path without file://"),
        ("data:image/png;base64", pp.errors.DecodeError, "such as data:image/png;base64,…, got .* without a comma"),
        ("data:image/png;base64,abc", pp.errors.DecodeError, "expected base64 in a data URI, got .*: .*padding"),
        ("data:image/png;base64,ab*d", pp.errors.DecodeError, "expected base64 in a data URI"),
        ("data:text/plain,hello", pp.errors.DecodeError, "expected a readable .* got 5 bytes that start with b'hello'"),
        ("~/nowhere.png", pp.errors.SourceError, r"'~' is not expanded, so pass os.path.expanduser\(path\)"),
        ("/nowhere/a.png", pp.errors.SourceError, "there is no file '/nowhere/a.png', and the text"),
        ("a\0b.png", pp.errors.SourceError, r"null byte for '.*a\\x00b.png'"),
    ],
)
def test_a_text_that_is_no_image_says_what_to_do(text: str, error: type[Exception], said: str) -> None:
    for ask in (picture_size, rgb_picture):
        with pytest.raises(error, match=said):
            ask(text)


def test_a_path_that_is_no_text_is_never_base64() -> None:
    with pytest.raises(pp.errors.SourceError, match=r"there is no file 'none.png' in the working folder [^,]*$"):
        picture_size(Path("none.png"))


def test_limits_and_what_is_no_regular_file(file: Path) -> None:
    size = file.stat().st_size
    with pytest.raises(pp.errors.DecodeError, match=f"at most max_bytes={size - 1} bytes, got {size}"):
        picture_size(file, max_bytes=size - 1)
    with pytest.raises(pp.errors.DecodeError, match="at most max_bytes=9 bytes"):
        ImageFile(str(file)).read(9)
    with pytest.raises(pp.errors.DecodeError, match="at most 44 pixels"):
        picture_size(file, max_pixels=44)
    os.mkfifo(file.parent / "pipe")
    for path in (file.parent, file.parent / "pipe"):
        for ask in (picture_size, rgb_picture):
            with pytest.raises(pp.errors.SourceError, match=f"'{path}' is not a regular file"):
                ask(path)


def test_frames_are_located_and_a_bad_one_is_named(file: Path) -> None:
    clip: Any = located(pp.Clip(["a b.png", PIXELS, str(file)]))
    assert [getattr(frame, "path", None) for frame in clip.frames] == [str(file), None, str(file)]
    assert located(still := pp.Clip([PIXELS])) is still
    with pytest.raises(pp.errors.SourceError, match="frame 1: expected the path of an image file, got the URL"):
        located(pp.Clip([PIXELS, "http://a.png"]))


def test_what_is_refused_waits_for_its_turn(file: Path) -> None:
    first, url = located_all(["a b.png", "http://a.png"])  # type: ignore[misc]
    assert isinstance(first, ImageFile)
    assert url == "http://a.png"


def test_what_is_surely_an_image() -> None:
    assert all(map(is_surely_text_of_image, [Path("a"), "a.PNG", "./b/c.jpeg", "data:,x"]))
    assert not any(map(is_surely_text_of_image, ["a", "a.txt", "a caption of two words.", "", 3, b"a.png"]))
