"""libtiff prints nothing while an image is decoded, and its errors and pixels do not depend on that."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.hard_images import saved, tiled_tiff
from patchpack._foreign import libtiff
from patchpack.image.decode import decode

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_libtiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    set_handler = libtiff._set_handler()
    if isinstance(set_handler, FunctionType):
        pytest.skip("this Pillow's libtiff cannot be reached")
    told = []
    handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: told.append(1))
    here = ctypes.cast(handler, ctypes.c_void_p).value
    before = set_handler(here)
    try:
        with pytest.raises(pp.errors.DecodeError, match="OSError"):
            decode(tiled_tiff(10, 256), max_pixels=65_536)
        with libtiff.SilentLibtiff(), libtiff.SilentLibtiff():
            pass
        assert not told
        with suppress(OSError):
            Image.open(io.BytesIO(tiled_tiff(10, 256))).load()
        assert told  # as it was, for everybody else
    finally:
        assert set_handler(before) == here
    with pytest.raises(pp.errors.DecodeError, match="OSError"):
        decode(tiled_tiff(10, 256), max_pixels=65_536)
    assert capfd.readouterr() == ("", "")


@pytest.fixture(params=["no library", "no function", "no module of Pillow"])
def unreachable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away the way to libtiff."""

    def fail(_: str) -> Any:
        raise OSError("cannot open shared object file")

    libtiff._set_handler.cache_clear()
    if request.param == "no module of Pillow":
        monkeypatch.delattr(Image, "core")
    else:
        monkeypatch.setattr(ctypes, "CDLL", fail if request.param == "no library" else lambda _: SimpleNamespace())
    set_handler = libtiff._set_handler()
    monkeypatch.undo()  # only the way to libtiff: Pillow decodes with the rest
    assert set_handler(7) == 7
    yield
    libtiff._set_handler.cache_clear()


@pytest.mark.usefixtures("unreachable")
def test_without_libtiff_errors_and_pixels_are_the_same() -> None:
    for compression in ("raw", "tiff_lzw", "jpeg"):
        data = saved(PICTURE, "TIFF", compression=compression)
        np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))
    with pytest.raises(pp.errors.DecodeError, match="OSError"):  # libtiff prints then
        decode(tiled_tiff(10, 256), max_pixels=65_536)
