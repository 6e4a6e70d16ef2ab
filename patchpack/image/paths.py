"""Images given as text: paths, data URIs and base64."""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeGuard, cast
from urllib.parse import unquote_to_bytes

from patchpack._shown import said
from patchpack.errors import DecodeError, SourceError
from patchpack.image.decode import require_bytes
from patchpack.image.formats import MAX_BYTES, extensions_of, starts_as_image
from patchpack.types import Clip

_URL = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LEAST = 16  # bytes of an image in base64
_LONGEST = 200  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is in a file of its own. Plans carry this object instead of the bytes.

    Attributes:
        given: the path as the user gave it.
        folder: folder that a relative path starts from, the working folder when the path was met. "" for an absolute path.
        is_text: True if the path was a `str`, which might also have been base64. Default False.
    """

    given: str
    folder: str = ""
    is_text: bool = False

    @property
    def path(self) -> str:
        """The path of the file, absolute unless the working folder was unknown."""
        return os.path.join(self.folder, self.given)

    def open(self) -> BinaryIO:
        """Open the file. The caller closes it.

        Raises:
            SourceError: there is no such file, it is not a regular file, or it cannot be opened.
        """
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # reading a pipe would wait, reading a device might not end
                raise SourceError(f"{_shown(self.path)} is not a regular file")
            return open(self.path, "rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(f"{type(error).__name__}: {self._missing()}") from None
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            what = "" if isinstance(error, OSError) and error.filename else f" for {_shown(self.path)}"
            said_so = self._missing() if len(self.given) > _LONGEST else said(error)
            raise SourceError(said_so + what) from None

    def read(self, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the bytes of the file.

        Raises:
            SourceError: the file cannot be read.
            DecodeError: the file has more than `max_bytes`.
        """
        with self.open() as file:
            require_bytes(os.fstat(file.fileno()).st_size, max_bytes)
            try:
                return file.read()
            except OSError as error:
                raise SourceError(f"{said(error)} for {_shown(self.path)}") from None

    def _missing(self) -> str:
        where = f" in the working folder {self.folder}" if self.folder else ""
        text = ", and the text is not base64 of an image" if self.is_text else ""
        cure = ": '~' is not expanded, so pass os.path.expanduser(path)" if self.given.startswith("~") else ""
        return f"there is no file {_shown(self.given)}{where}{text}{cure}"


def is_text(value: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return True for a value that may name an image: a `str` or an `os.PathLike`."""
    return isinstance(value, (str, os.PathLike))


def is_surely_text_of_image(value: object, formats: tuple[str, ...] = ()) -> bool:
    """Return True for an `os.PathLike`, a data URI, and a `str` that ends with the extension of an image.

    Args:
        value: any value.
        formats: names of further formats, as in `Recipe.formats`. Default none.
    """
    if not isinstance(value, str):
        return isinstance(value, os.PathLike)
    return _is_data_uri(value) or os.path.splitext(value)[1][1:].lower() in extensions_of(formats)


def located(image: object, *, folder: str | None = None) -> object:
    """Return an image given as text as an `ImageFile` or as bytes. Any other value is returned unchanged.

    The frames of a clip are treated in the same way if they are in a list. No file is opened.

    Args:
        image: a value of `Sample.image`.
        folder: folder that relative paths start from. Default None, the working folder.

    Raises:
        SourceError: `image` is a URL or an empty text.
        DecodeError: `image` is a data URI that cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if is_text(image):
        return _of_text(image, folder)
    if isinstance(image, Clip) and isinstance(image.frames, (list, tuple)) and any(map(is_text, image.frames)):
        return Clip([cast("bytes", _located_at(n, frame, folder)) for n, frame in enumerate(image.frames)])
    return image


def _located_at(number: int, frame: object, folder: str | None) -> object:
    try:
        return located(frame, folder=folder)
    except (SourceError, DecodeError) as error:
        raise type(error)(f"frame {number}: {error}") from error


def located_all(image: object, *, folder: str | None = None) -> object:
    """Return `located` of every image of a list, or of a single image.

    A text that is refused is returned unchanged, so that the error is raised when its image is read.

    Args:
        image: a value of `Sample.image`.
        folder: folder that relative paths start from. Default None, the working folder.
    """
    images: Sequence[object] = image if isinstance(image, (list, tuple)) else [image]
    found: list[object] = []
    for one in images:
        try:
            found.append(located(one, folder=folder))
        except (SourceError, DecodeError):
            found.append(one)
    return found if isinstance(image, (list, tuple)) else found[0]


def working_folder() -> str:
    """Return the working folder, "" if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _of_text(given: str | os.PathLike[str], folder: str | None) -> ImageFile | bytes:
    text = os.fsdecode(given)
    if isinstance(given, str):
        if _is_data_uri(text):
            return _data_of_uri(text)
        if not text:
            raise SourceError("expected the path of an image, got an empty text")
        if _URL.match(text):
            local = text.lower().startswith("file:")
            cure = "pass the path without file://" if local else "download the file and pass its path, or write shards"
            raise SourceError(f"expected the path of an image file, got the URL {_shown(text)}: {cure}")
    start = "" if os.path.isabs(text) else working_folder() if folder is None else folder
    file = ImageFile(text, start, isinstance(given, str))
    data = _data_of_base64(text) if isinstance(given, str) else None
    return file if data is None or _exists(file.path) else data


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"


def _data_of_uri(text: str) -> bytes:
    """Return the bytes of a data URI, ``data:[type][;base64],data``. Raises `DecodeError` if the text has another form."""
    head, comma, body = text[5:].partition(",")
    if not comma:
        raise DecodeError(f"expected a data URI such as data:image/png;base64,…, got {_shown(text)} without a comma")
    data = unquote_to_bytes(body)
    if not head.rstrip().lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data.translate(None, b" \t\r\n"), validate=True)
    except ValueError as error:
        raise DecodeError(f"expected base64 in a data URI, got {_shown(text)}: {error}") from None


def _data_of_base64(text: str) -> bytes | None:
    """Return the image whose base64 a text is, or None. The whole text must be base64 with padding."""
    if len(text) % 4 or len(text) * 3 // 4 < _LEAST or "." in text or not text.isascii():  # a name of a file has a dot
        return None
    try:
        if not starts_as_image(base64.b64decode(text[:16], validate=True)):
            return None
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if len(data) >= _LEAST else None


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except (OSError, ValueError):
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
