"""Folders and lists of image files, with class subfolders as labels."""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from patchpack.errors import ConfigError, DecodeError, SourceError, TargetError
from patchpack.image.decode import require_bytes, too_many_bytes
from patchpack.image.formats import MAX_BYTES, extensions_of, starts_as_image
from patchpack.image.size import read_size_at
from patchpack.report import Rejection
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import decode_target, join
from patchpack.stream.sample.names import nearest
from patchpack.stream.sample.source import Reader, digest
from patchpack.types import Event, Header, Size

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


class FolderSource:
    """A folder of image files. Keys are paths relative to it.

    If the user names a label (``target="json"``), it is read from the file beside the image with the same name and that
    extension. A text is read the same way. Otherwise the class is the first folder below the root, numbered by its position in
    `class_names`.

    Args:
        root: the folder.
        members: the requested image, labels and text, and the limits.
        files: the files to use. None takes every file below `root`, except hidden ones.
        classes: names of the classes in the order of their numbers. None takes the class folders that exist, sorted.

    Attributes:
        class_names: names of the classes, as given or of the existing folders, sorted. None if labels are not taken from
            folders.
        ignored: number of files that are not images, or do not have a requested extension, by extension.
    """

    one_each = True

    def __init__(
        self, root: Path, members: SampleFields, files: list[Path] | None = None, *, classes: Sequence[str] | None = None
    ) -> None:
        self._root, self._members = root, members
        self.name = f"{root.resolve().name}/"
        if files is None:
            files = sorted(_files_below(root))
            seen = [path for path in files if not path.name.startswith(".")]
        else:
            seen = files
        self._files = [path for path in seen if is_asked_image(path, members)]
        self.ignored = _by_extension(files, self._files, members)
        if not self._files:
            wanted, has = ";".join(image_extensions(members)), ", ".join(f"{n} {kind}" for kind, n in self.ignored.items())
            raise SourceError(f"{root}: no file with extension {wanted}; it has: {has or 'nothing'}")
        self._in_classes = members.target is not None and not members.target_given
        if classes is not None and not self._in_classes:
            raise ConfigError(f"classes= names class folders, and target={members.target!r} takes no labels from them")
        self.class_names = _class_names(root, classes) if self._in_classes else None
        if self.class_names and classes is None:
            _warn_of_doubtful_classes(root, self.class_names, self._files)
        if self._in_classes and not self.class_names:
            raise SourceError(
                f"{root} has no class subfolders to take labels from; pass target=None for unlabelled images, or target='json' "
                f"where a .json file beside each image holds its label"
            )
        self.reader: Reader = FileReader(
            str(root),
            self.class_names if self._in_classes else None,
            members.max_bytes,
            target=None if self._in_classes else members.target,
        )
        self._known = set(self.class_names or ())
        self._first = {path: number for number, path in reversed(list(enumerate(self._files)))}
        self.num_parts = len(self._files)
        given = [] if classes is None else self.class_names or []
        self.fingerprint = digest([*(path.relative_to(root).as_posix() for path in self._files), *given])

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each file, see `Source`."""
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield those of some files, see `PartedSource`. Every file is a part, so that a shuffle mixes the classes."""
        for number in parts:
            path = self._files[number]
            key = path.relative_to(self._root).as_posix()
            if self._first[path] != number:
                yield Rejection(self.name, key, path.name, "read", "this path comes twice in the list of files")
                continue
            if self._in_classes and (fault := self._class_fault(key)):
                yield Rejection(self.name, key, path.name, "target", fault)
                continue
            header = scan_file(path, key, self.name, key, self._members)
            missing = [] if self._in_classes else [e for e in self._members.labels if not _beside(path, e).exists()]
            if missing and isinstance(header, Header):
                name = _beside(path, missing[0]).name
                header = Rejection(self.name, key, name, "target", f"no label beside it: {name} is not there")
            yield header

    def _class_fault(self, key: str) -> str:
        name, slash, _ = key.partition("/")
        if not slash:
            return "lies beside the class subfolders, not in one"
        if name in self._known:
            return ""
        return f"its folder {name!r} is not one of the {len(self._known)} classes{nearest(name, self._known)}"


def image_extensions(members: SampleFields) -> tuple[str, ...]:
    """Return the extensions of image files: the user's choice, else the extensions of every format that can be decoded."""
    if members.image_given:
        return members.image
    return tuple(sorted(extensions_of(members.reading.formats) - {*members.labels, *_text_extensions(members)}))


def _text_extensions(members: SampleFields) -> tuple[str, ...]:
    return () if members.text is None else (members.text.member,)


def is_asked_image(path: Path, members: SampleFields) -> bool:
    """Return True for a file with one of `image_extensions`, and without named extensions for an image without extension."""
    extension = path.suffix[1:].lower()
    if extension or members.image_given:
        return extension in image_extensions(members)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return starts_as_image(file.read(12), members.reading.formats)
    except OSError:
        return False


def _by_extension(files: list[Path], images: list[Path], members: SampleFields) -> dict[str, int]:
    """Return how many files are neither images nor labels or texts beside them, by extension."""
    beside = {*members.labels, *_text_extensions(members)}
    asked = set(images)
    kinds = Counter(_kind(path) for path in files if path not in asked)
    return {kind: kinds[kind] for kind in sorted(kinds) if kind[1:] not in beside}


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    return path.suffix.lower() or "no extension"


def _class_names(root: Path, classes: Sequence[str] | None) -> list[str]:
    if classes is not None:
        names = list(classes)
        if (
            not names
            or isinstance(classes, (str, Mapping, Set))
            or not all(isinstance(name, str) for name in names)
            or len(set(names)) < len(names)
        ):
            raise ConfigError(f"classes= is a list of different names of folders, got {classes!r}")
        return names
    # an empty class folder counts, else class numbers would differ between two splits
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _warn_of_doubtful_classes(root: Path, names: list[str], images: list[Path]) -> None:
    """Warn if the folders of `root` do not look like classes."""
    places = [path.relative_to(root).parts for path in images]
    used = {place[0] for place in places if len(place) > 1}
    splits = [name for name in names if name.lower() in _SPLITS]
    if len(splits) > 1 or (used and not any(len(place) == 2 for place in places)):
        shown = ", ".join(splits if len(splits) > 1 else sorted(used)[:4])
        what = "look like splits" if len(splits) > 1 else "hold their images in folders of their own"
        warnings.warn(
            f"{root}: its class folders ({shown}) {what}. If they are splits, load one of them, such as "
            f"{root / (splits or names)[0]}",
            stacklevel=3,
        )
    empty = [name for name in names if name not in used]
    if empty and used:
        shown = ", ".join(empty[:4]) + (", …" if len(empty) > 4 else "")
        warnings.warn(
            f"{root}: {len(empty)} of its {len(names)} class folders hold no image ({shown}), and are numbered as classes all "
            f"the same. Pass classes= to name the folders that are classes",
            stacklevel=3,
        )


def scan_file(path: Path, key: str, shard: str, location: str, asked: SampleFields) -> Header | Rejection:
    """Read the header of an image file.

    Args:
        path: of the file.
        key: of the sample.
        shard: name of the folder, for reports.
        location: location from which a `Reader` later reads the image.
        asked: limits, formats and text.

    Returns:
        The header, or the reason why there is none.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait, reading a device might not end
            raise OSError("is not a regular file")
        with open(path, "rb") as file:
            size = _file_size(file, asked)
    except DecodeError as error:
        return Rejection(shard, key, path.name, "header", str(error))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return Rejection(shard, key, path.name, "read", f"{type(error).__name__}: {error}")
    header = Header(key, shard, path.name, size, location)
    return header if asked.text is None else _with_text(header, path, asked)


def _with_text(header: Header, image: Path, asked: SampleFields) -> Header | Rejection:
    """Return the header of an image with the tokens of the text beside it."""
    assert asked.text is not None
    path = _beside(image, asked.text.member)
    try:
        return header._replace(text=asked.text.tokens(asked.text.of(_read_beside(path, asked.max_bytes))))
    except FileNotFoundError:
        return Rejection(header.shard, header.key, path.name, "target", f"no text beside it: {path.name} is not there")
    except OSError as error:
        return Rejection(header.shard, header.key, path.name, "read", f"{type(error).__name__}: {error}")
    except TargetError as error:
        return Rejection(header.shard, header.key, path.name, "target", str(error))


def _beside(image: Path, extension: str) -> Path:
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
    """A `Reader` from a relative path to (file bytes, label). The label is the class number, or read from the file beside it.

    Args:
        root: the folder that paths are relative to.
        class_names: names of the class folders in the order of their numbers. None if labels are not taken from folders.
        max_bytes: limit of a file, default 512 MiB.
        target: extensions of the label files beside the image, default None.
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

    def __call__(self, location: str) -> tuple[bytes, Any]:
        """Return the bytes and the label of an image, see `Reader`."""
        try:
            with open(Path(self._root, location), "rb") as file:
                require_bytes(os.fstat(file.fileno()).st_size, self._max_bytes)  # it may have grown since planning
                data = file.read()
        except OSError as error:
            raise SourceError(f"{type(error).__name__}: {error}") from None
        return data, self.target(location)

    def target(self, location: str) -> Any:
        """Return the label of an image, see `Reader`."""
        if self._classes is not None:
            return self._classes[location.split("/", 1)[0]]
        image, values = Path(self._root, location), []
        for extension in () if self._target is None else (self._target,) if isinstance(self._target, str) else self._target:
            path = _beside(image, extension)
            try:
                values.append(decode_target(extension, _read_beside(path, self._max_bytes)))
            except OSError as error:
                raise TargetError(f"{path.name}: {type(error).__name__}: {error}") from None
        return join(self._target, values)


def _files_below(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, hidden ones too. Links are followed, but not in a circle. Hidden folders are skipped."""
    above = {str(root): frozenset[str]()}  # by folder: the real paths of the folders that contain it
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in above[folder]:
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        above.update((os.path.join(folder, name), above[folder] | {real}) for name in subfolders)
        # a broken link stays in the list: reading it reports the fault
        yield from (Path(folder, name) for name in files)


def _file_size(file: Any, asked: SampleFields) -> Size:
    length = file.seek(0, os.SEEK_END)

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        data: bytes = file.read(count)
        return data

    limits = {"max_pixels": asked.max_pixels, "max_bytes": asked.max_bytes}
    return read_size_at(read, length, **limits, formats=asked.reading.formats)
