"""Pillow's warnings about images: recorded by kind, not printed, and never raised as errors.

`warnings.catch_warnings` is not safe when several threads decode images. It replaces the filters of the whole process. If two
threads leave this context in the wrong order, the filters stay replaced. Therefore this module inserts one filter while a
thread decodes an image, and removes the filter afterwards (see `patchpack._foreign.cpython`). The filter records Pillow's
warnings in threads that decode. Other threads are not affected, even with ``-W error``.

Python shows each text of a warning once. If other code in this process has shown a text before, the warning is not recorded.
"""

from __future__ import annotations

import logging
import threading

from patchpack._foreign.cpython import ThreadFilter

SEVERAL_FRAMES = "several frames, the first is taken"
"""The warning for an animation, a TIFF of several pages, or a JPEG of several pictures."""

# part of a text of Pillow → kind; the texts contain numbers, so they cannot be the kinds
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
    """The state of one thread: how many `CapturedWarnings` contexts it is in, and the warnings that it has recorded."""

    deep = 0  # contexts that are entered, one inside the other
    text = ""
    heard: frozenset[str] = frozenset()


_here = _Here()


def note(kind: str) -> None:
    """Record a kind of warning about the image that this thread decodes."""
    _here.heard |= {kind}


def forget() -> None:
    """Forget the warnings that this thread has recorded."""
    _here.heard = frozenset()


def heard() -> list[str]:
    """Return the kinds of warnings that this thread has recorded since `forget`, each once, in alphabetical order."""
    return sorted(_here.heard)


class CapturedWarnings:
    """A context that records Pillow's warnings in this thread. Such contexts may be nested."""

    def __enter__(self) -> None:
        _here.deep += 1
        self._filters = _FILTER.insert()

    def __exit__(self, *_: object) -> None:
        _here.deep -= 1
        _FILTER.remove(self._filters)


def _is_text(text: str) -> bool:  # always True; the next pattern decides
    _here.text = text
    return True


def _is_pillow(module: str) -> bool:  # called after the text, about the same warning
    ours = _here.deep > 0 and module.startswith("PIL.")
    if ours:
        note(next((kind for part, kind in _KINDS.items() if part in _here.text), OTHER))
    return ours


def _is_heard_elsewhere(record: logging.LogRecord) -> bool:
    return _here.deep == 0


_FILTER = ThreadFilter(_is_text, _is_pillow, "PIL")

# before Pillow raises an error about a file, it logs the same error here, and Python prints messages that have no handler
logging.getLogger("PIL.TiffImagePlugin").addFilter(_is_heard_elsewhere)
