"""Image files on this machine: their headers and bytes, and the label and text files in the same folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from patchpack.errors import DecodeError, SourceError, TargetError
from patchpack.image.decode import require_bytes, too_many_bytes
from patchpack.image.formats import MAX_BYTES, extensions_of, starts_as_image
from patchpack.image.size import read_size_in
from patchpack.losses import Rejection
from patchpack.stream.sample.field_names import label_names
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import target_of
from patchpack.types import Header


def image_extensions(members: SampleFields) -> frozenset[str]:
    """Return the extensions of image files that the user chose.

    If the user chose none, return the extensions of all formats that can be decoded.
    """
    if members.image_given:
        return frozenset(members.image)
    return extensions_of(members.limits.reading.formats) - {*members.labels, *text_extensions(members)}


def text_extensions(members: SampleFields) -> tuple[str, ...]:
    """Return the extension of the text file beside an image. Return an empty tuple if no texts are read."""
    return () if members.text is None else (members.text.member,)


def is_asked_image(path: Path, members: SampleFields, extensions: frozenset[str]) -> bool:
    """Return True for a file with one of these extensions.

    If the user named no extension, return True for an image file without extension too.

    Args:
        path: the file.
        members: the fields of a sample.
        extensions: the result of `image_extensions` for `members`.
    """
    extension = path.suffix[1:].lower()
    if extension or members.image_given:
        return extension in extensions
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return starts_as_image(file.read(12), members.limits.reading.formats)
    except OSError:
        return False


def scan_file(path: Path, key: str, shard: str, location: object, asked: SampleFields) -> Header | Rejection:
    """Read the header of an image file.

    Args:
        path: path of the file.
        key: key of the sample.
        shard: name of the folder, for reports.
        location: location from which a `Reader` later reads the image.
        asked: the fields to read, with limits, formats and the location of the text.

    Returns:
        The header, or a rejection with the reason why there is none.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait, reading a device might not end
            raise OSError("is not a regular file")
        with open(path, "rb") as file:
            limits = {"max_pixels": asked.limits.max_pixels, "max_bytes": asked.limits.max_bytes}
            size = read_size_in(file, **limits, formats=asked.limits.reading.formats)
    except DecodeError as error:
        return Rejection(shard, key, path.name, "header", str(error))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return Rejection(shard, key, path.name, "read", f"{type(error).__name__}: {error}")
    header = Header(key, shard, path.name, size, location)
    return header if asked.text is None else _with_text(header, path, asked)


def _with_text(header: Header, image: Path, asked: SampleFields) -> Header | Rejection:
    """Return the header of an image after adding the tokens of the text file beside the image, or a rejection."""
    assert asked.text is not None
    path = beside(image, asked.text.member)
    try:
        return header._replace(text=asked.text.tokens(asked.text.of(_read_beside(path, asked.limits.max_bytes))))
    except FileNotFoundError:
        return Rejection(header.shard, header.key, path.name, "target", f"there is no text file {path.name} beside the image")
    except OSError as error:
        return Rejection(header.shard, header.key, path.name, "read", f"{type(error).__name__}: {error}")
    except TargetError as error:
        return Rejection(header.shard, header.key, path.name, "target", str(error))


def beside(image: Path, extension: str) -> Path:
    return image.with_name(f"{image.stem}.{extension}")


def _read_beside(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file beside an image. Raises `OSError`, or `TargetError` for a file over the limit."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("is not a regular file")
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length > max_bytes:
            raise TargetError(too_many_bytes(length, max_bytes))
        return file.read()


class FileReader:
    """A `Reader` that returns (file bytes, label) for a relative path. Labels are class numbers, or come from label files.

    Args:
        root: the folder that paths are relative to.
        class_names: names of the class folders in the order of their numbers. None: labels are not taken from folders.
        max_bytes: largest size of a file in bytes, default 512 MiB.
        target: names of the labels in files beside the image, as in `SampleFields`. Default None: no label files.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        max_bytes: int = MAX_BYTES,
        *,
        target: str | tuple[str, ...] | None = None,
    ) -> None:
        self._root, self._max_bytes, self._target = root, max_bytes, target
        self._classes = None if class_names is None else {name: i for i, name in enumerate(class_names)}

    def __call__(self, location: str) -> tuple[bytes, object]:
        """Return the bytes and the label of an image, see `Reader`."""
        try:
            with open(Path(self._root, location), "rb") as file:
                require_bytes(os.fstat(file.fileno()).st_size, self._max_bytes)  # the file may have grown since planning
                data = file.read()
        except OSError as error:
            raise SourceError(f"{type(error).__name__}: {error}") from None
        return data, self.target(location)

    def target(self, location: str) -> object:
        """Return the label of an image, see `Reader`."""
        if self._classes is not None:
            return self._classes[location.split("/", 1)[0]]
        image, values = Path(self._root, location), []
        for extension in dict.fromkeys(name.member for name in label_names(self._target)):
            path = beside(image, extension)
            try:
                values.append(_read_beside(path, self._max_bytes))
            except OSError as error:
                raise TargetError(f"{path.name}: {type(error).__name__}: {error}") from None
        return target_of(self._target, values)
