"""A filter of warnings that asks about its thread, and what happens where Python hides its list of filters."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.hard_images import cut_exif, saved
from patchpack._foreign import cpython
from patchpack.image.decode import decode
from patchpack.image.pillow_warnings import forget, heard

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_a_filter_is_removed_from_the_list_it_was_put_in() -> None:
    before = list(warnings.filters)
    asked: list[str] = []
    own = cpython.ThreadFilter(lambda text: not asked.append(text), lambda module: module == "mine", "PIL")
    where = own.insert()
    assert where is warnings.filters
    warnings.warn_explicit("a", UserWarning, "some.py", 1, "mine")
    with pytest.raises(UserWarning, match="b"):
        warnings.warn_explicit("b", UserWarning, "some.py", 1, "another")
    own.remove(where)
    own.remove(where)
    assert asked == ["a", "b"]
    assert list(warnings.filters) == before


def test_without_the_list_pixels_are_the_same_and_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's warnings are ignored then, in this process and for good; errors they never become (pytest makes them some)."""
    data = saved(PICTURE, "JPEG", exif=cut_exif())
    forget()
    expected = decode(data)
    assert heard()
    hidden = {name: value for name, value in vars(warnings).items() if name != "filters"}
    monkeypatch.setattr(cpython, "warnings", SimpleNamespace(**hidden))
    forget()
    np.testing.assert_array_equal(decode(data), expected)
    assert heard() == []
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn_explicit("mine", UserWarning, "some.py", 1, "mine")
