"""Folders and lists of image files, with class subfolders as labels."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patchpack.errors import DecodeError, SourceError, TargetError
from patchpack.paint.decode import MAX_BYTES, require_bytes, too_many_bytes
from patchpack.stream.header import read_size_at
from patchpack.stream.source import Reader, digest
from patchpack.stream.tar import Members
from patchpack.types import Event, Header, Rejection, Size


class FolderSource:
    """A folder of image files. Keys are paths relative to it.

    With targets, the first folder below it is the class; indices follow the sorted `class_names`. A text is in the file beside
    the image that has its name and another extension.
    """

    one_each = True

    def __init__(self, root: Path, members: Members, files: list[Path] | None = None) -> None:
        self._root, self._members = root, members
        self.name = f"{root.resolve().name}/"
        files = sorted(_visible_files(root)) if files is None else files
        self._files = [p for p in files if p.suffix[1:].lower() in members.image]
        if not self._files:
            others = sorted({p.suffix or p.name for p in files})
            raise SourceError(f"{root}: no file with extension {';'.join(members.image)}; it has: {others or 'nothing'}")
        # an empty class folder counts, or the indices of two splits would not mean the same
        self.class_names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if members.target is not None and not self.class_names:
            raise SourceError(f"{root} has no class subfolders to take labels from; pass target=None for unlabelled images")
        self.reader: Reader = FileReader(str(root), self.class_names if members.target is not None else None, members.max_bytes)
        self.num_parts = len(self._files)
        self.fingerprint = digest(path.relative_to(root).as_posix() for path in self._files)

    def scan(self) -> Iterator[Event]:
        """See `Source`."""
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """See `PartedSource`: every file is a part, or a shuffle in blocks would leave the classes of a folder apart."""
        for path in map(self._files.__getitem__, parts):
            key = path.relative_to(self._root).as_posix()
            if self._members.target is not None and "/" not in key:
                yield Rejection(self.name, key, path.name, "target", "lies beside the class subfolders, not in one")
                continue
            yield scan_file(path, key, self.name, key, self._members)


def scan_file(path: Path, key: str, shard: str, location: str, asked: Members) -> Header | Rejection:
    """The header of an image file, or why it has none."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device have no end
            raise OSError("is not a regular file")
        with open(path, "rb") as file:
            size = _file_size(file, asked)
    except DecodeError as error:
        return Rejection(shard, key, path.name, "header", str(error))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return Rejection(shard, key, path.name, "read", f"{type(error).__name__}: {error}")
    header = Header(key, shard, path.name, size, location)
    return header if asked.text is None else _with_text(header, path, asked)


def _with_text(header: Header, image: Path, asked: Members) -> Header | Rejection:
    """The header of an image with the tokens of the text beside it."""
    assert asked.text is not None
    path = image.with_name(f"{image.stem}.{asked.text.member}")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("is not a regular file")
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length > asked.max_bytes:
                raise TargetError(too_many_bytes(length, asked.max_bytes))
            data = file.read()
        return header._replace(text=asked.text.tokens(asked.text.of(data)))
    except FileNotFoundError:
        return Rejection(header.shard, header.key, path.name, "target", f"no text beside it: {path.name} is not there")
    except OSError as error:
        return Rejection(header.shard, header.key, path.name, "read", f"{type(error).__name__}: {error}")
    except TargetError as error:
        return Rejection(header.shard, header.key, path.name, "target", str(error))


class FileReader:
    """Relative path to (file bytes, class index)."""

    def __init__(self, root: str, class_names: list[str] | None, max_bytes: int = MAX_BYTES) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._classes = None if class_names is None else {name: i for i, name in enumerate(class_names)}

    def __call__(self, location: str) -> tuple[bytes, Any]:
        """See `Reader`."""
        try:
            with open(Path(self._root, location), "rb") as file:
                require_bytes(os.fstat(file.fileno()).st_size, self._max_bytes)  # it may have grown since it was planned
                data = file.read()
        except OSError as error:
            raise SourceError(f"{type(error).__name__}: {error}") from None
        return data, self.target(location)

    def target(self, location: str) -> Any:
        """See `Reader`."""
        return None if self._classes is None else self._classes[location.split("/", 1)[0]]


def _visible_files(root: Path) -> Iterator[Path]:
    """Files below a folder, links followed, nothing that is hidden; a folder is entered once, even if links form a ring."""
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        # a link that leads nowhere stays in: reading it will say so
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _file_size(file: Any, asked: Members) -> Size:
    length = file.seek(0, os.SEEK_END)

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        data: bytes = file.read(count)
        return data

    return read_size_at(read, length, max_pixels=asked.max_pixels, max_bytes=asked.max_bytes)
