"""Folders and lists of image files, with class subfolders as labels."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from patchpack.errors import ConfigError, SourceError
from patchpack.losses import Rejection
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.names import nearest
from patchpack.stream.sample.source import FieldSource, digest
from patchpack.stream.sources.files import FileReader, beside, image_extensions, is_asked_image, scan_file, text_extensions
from patchpack.types import Event, Header

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


class FolderSource(FieldSource):
    """A folder of image files. The key of an image is its path relative to the folder.

    If the user names a label (``target="json"``), the label of ``a.jpg`` is read from ``a.json`` in the same folder. A text is
    read in the same way. If the user names no label, the label is the class number: the position in `class_names` of the first
    folder on the path from the root to the image.

    Args:
        root: the folder.
        members: the requested image, labels and text, and the limits.
        files: the files to use. Default None: every file below `root` that is not hidden.
        classes: names of the classes in the order of their numbers. Default None: the class folders that exist, sorted.

    Attributes:
        class_names: names of the classes: the names in `classes`, or the class folders that exist, sorted. None if labels are
            not taken from folders.
        ignored: number of files that are not used, by extension: files that are no images or do not have a requested extension.
    """

    one_sample_per_part = True

    def __init__(
        self, root: Path, members: SampleFields, files: list[Path] | None = None, *, classes: Sequence[str] | None = None
    ) -> None:
        self._root, self._classes = root, classes
        self.name = f"{root.resolve().name}/"
        self._hidden: list[Path] = []
        self._listed: list[Path] = files or []
        if files is None:
            found = sorted(_files_below(root))
            self._listed = [path for path in found if not path.name.startswith(".")]
            self._hidden = [path for path in found if path.name.startswith(".")]
        self._in_classes = members.target is not None and not members.target_given
        if classes is not None and not self._in_classes:
            raise ConfigError(
                f"classes= is for labels from class folders, but target={members.target!r} reads other labels: leave one of "
                f"them out"
            )
        self.class_names = class_names(root, classes) if self._in_classes else None
        self.set_members(members)
        if self.class_names and classes is None:
            self.warn_of_doubtful_classes(self.class_names)
        if self._in_classes and not self.class_names:
            raise SourceError(
                f"{root} has no class subfolders for labels: pass target=None for unlabelled images, or target='json' "
                f"if a .json file beside each image has its label"
            )

    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, and choose the files that are images. See `FieldSource`."""
        root, extensions = self._root, image_extensions(members)
        self._files = [path for path in self._listed if is_asked_image(path, members, extensions)]
        self.ignored = _by_extension([*self._listed, *self._hidden], self._files, members)
        if not self._files:
            wanted, has = ";".join(sorted(extensions)), ", ".join(f"{n} {kind}" for kind, n in self.ignored.items())
            raise SourceError(f"{root} has no file with extension {wanted}, it has: {has or 'no files'}")
        self.members = members
        self.reader = FileReader(
            str(root),
            self.class_names if self._in_classes else None,
            members.limits.max_bytes,
            target=None if self._in_classes else members.target,
        )
        self._known = set(self.class_names or ())
        self._first = {path: number for number, path in reversed(list(enumerate(self._files)))}
        self.num_parts = len(self._files)
        given = [] if self._classes is None else self.class_names or []
        self.fingerprint = digest([*(path.relative_to(root).as_posix() for path in self._files), *given])

    def part_file(self, part: int) -> str:
        """Return the path of the image file that is part number `part`."""
        return str(self._files[part])

    def part_key(self, part: int) -> str:
        """Return the key of part number `part`, which is the path relative to the folder."""
        return self._files[part].relative_to(self._root).as_posix()

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields, and whether labels are class folders or files beside the images. See `Source`."""
        return {**self.members.names(), "target": ["class folder"]} if self._in_classes else self.members.names()

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each file, see `Source`."""
        return self.scan_parts(range(len(self._files)))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield a header or rejection for some files, see `Source`.

        Every file is a part, so that a shuffle mixes the classes.
        """
        for number in parts:
            path = self._files[number]
            key = path.relative_to(self._root).as_posix()
            if self._first[path] != number:
                yield Rejection(self.name, key, path.name, "read", "this path appears twice in the list of files")
                continue
            if self._in_classes and (fault := self._class_fault(key)):
                yield Rejection(self.name, key, path.name, "target", fault)
                continue
            header = scan_file(path, key, self.name, key, self.members)
            missing = [] if self._in_classes else [e for e in self.members.labels if not beside(path, e).exists()]
            if missing and isinstance(header, Header):
                name = beside(path, missing[0]).name
                header = Rejection(self.name, key, name, "target", f"there is no label file {name} beside the image")
            yield header

    def warn_of_doubtful_classes(self, names: list[str]) -> None:
        """Warn if the folders with these names do not look like classes."""
        _warn_of_doubtful_classes(self._root, names, self._files)

    def _class_fault(self, key: str) -> str:
        name, slash, _ = key.partition("/")
        if not slash:
            return "is not in a class subfolder"
        if name in self._known:
            return ""
        return f"its folder {name!r} is not one of the {len(self._known)} classes{nearest(name, self._known)}"


def _by_extension(files: list[Path], images: list[Path], members: SampleFields) -> dict[str, int]:
    """Return the number of files, by extension, that are neither images nor the labels or texts of images."""
    read_beside = {*members.labels, *text_extensions(members)}
    asked = set(images)
    kinds = Counter(_kind(path) for path in files if path not in asked)
    return {kind: kinds[kind] for kind in sorted(kinds) if kind[1:] not in read_beside}


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    return path.suffix.lower() or "no extension"


def class_names(root: Path, classes: Sequence[str] | None) -> list[str]:
    """Return the names of the classes: `classes`, or the names of the folders in `root`, sorted.

    Raises `ConfigError` if `classes` is not a list of different names.
    """
    if classes is not None:
        names = list(classes)
        if (
            not names
            or isinstance(classes, (str, Mapping, Set))
            or not all(isinstance(name, str) for name in names)
            or len(set(names)) < len(names)
        ):
            raise ConfigError(f"classes= must be a list of different names of folders, got {classes!r}")
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
        what = "look like splits" if len(splits) > 1 else "have their images in subfolders"
        warnings.warn(
            f"{root}: its class folders ({shown}) {what}. If they are splits, load one of them, such as "
            f"{root / (splits or names)[0]}",
            stacklevel=4,
        )
    empty = [name for name in names if name not in used]
    if empty and used:
        shown = ", ".join(empty[:4]) + (", …" if len(empty) > 4 else "")
        warnings.warn(
            f"{root}: {len(empty)} of its {len(names)} class folders have no image ({shown}), but are numbered as classes. "
            f"Pass the names of the class folders as classes=",
            stacklevel=4,
        )


def _files_below(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, hidden files too. Skip hidden folders. Follow links, unless they form a circle."""
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
