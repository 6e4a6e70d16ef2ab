"""What Pillow warns of while a picture is opened and decoded: counted by kind, never printed, never an error.

Python's own tools do not do for painting in threads: `warnings.catch_warnings` swaps the filters and the output of the whole
process, so two threads that leave it in the wrong order leave it swapped. Here one filter is put before all others while a
picture is at hand and taken out again; its two patterns are functions, which know of their own thread whether it is decoding.
So a warning of Pillow's is heard in the thread that decodes, and in every other one all is as it was, also under ``-W error``.

A text that this process has shown before, to somebody who decodes without us, is left out by Python the second time, and
so is not counted.
"""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

SEVERAL_FRAMES = "several frames, the first is taken"
"""Of an animation, a multi-page TIFF, a multi-picture JPEG."""

# part of a text of Pillow's → kind; texts have numbers in them, so they are no kinds themselves
_KINDS = {
    "orrupt EXIF": "corrupt EXIF or TIFF tags",
    "Metadata Warning, tag": "corrupt EXIF or TIFF tags",
    "Tag data larger than file": "corrupt EXIF or TIFF tags",
    "Tag offset too large": "corrupt EXIF or TIFF tags",
    "Invalid APNG": "invalid animation, taken as a plain PNG",
    "malformed MPO": "malformed MPO, taken as a plain JPEG",
    "decompression bomb": "more pixels than Pillow's own limit",
    "ransparency": "transparency that Pillow cannot convert",
}
OTHER = "other warnings of Pillow's"


class _Here(threading.local):
    """What this thread is doing."""

    deep = 0  # calls that are hushed, one inside the other
    text = ""
    heard: frozenset[str] = frozenset()


_here = _Here()


def note(kind: str) -> None:
    """Something is odd about the picture at hand."""
    _here.heard |= {kind}


def forget() -> None:
    """A new picture."""
    _here.heard = frozenset()


def heard() -> list[str]:
    """What was odd about the picture that this thread had since `forget`, each kind once, in the order of the alphabet."""
    return sorted(_here.heard)


class CapturedWarnings:
    """Hear Pillow's warnings in this thread while inside. May be entered again inside."""

    def __enter__(self) -> None:
        _here.deep += 1
        self._filters = cast("list[Any]", warnings.filters)
        self._filters.insert(0, _FILTER)

    def __exit__(self, *_: object) -> None:
        _here.deep -= 1
        with suppress(ValueError):  # somebody emptied the list meanwhile
            self._filters.remove(_FILTER)


def _is_text(text: str) -> bool:  # always; the next pattern decides
    _here.text = text
    return True


def _is_pillow(module: str) -> bool:  # asked after the text, about the same warning
    ours = _here.deep > 0 and module.startswith("PIL.")
    if ours:
        note(next((kind for part, kind in _KINDS.items() if part in _here.text), OTHER))
    return ours


def _is_heard_elsewhere(record: logging.LogRecord) -> bool:
    return _here.deep == 0


# what `warnings` takes for compiled patterns; namespaces of functions, so that filters can be pickled, as some executors do
_FILTER = ("ignore", SimpleNamespace(match=_is_text), Warning, SimpleNamespace(match=_is_pillow), 0)

# says what is wrong with a file once more before it raises, and Python prints what nobody handles
logging.getLogger("PIL.TiffImagePlugin").addFilter(_is_heard_elsewhere)
