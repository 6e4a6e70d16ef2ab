"""Several folders of image files as one source, in the order in which the user lists them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import Any

from patchpack.errors import SourceError
from patchpack.losses import Rejection
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.source import FieldSource, ReadSample, digest, target_at
from patchpack.stream.sources.folders import FolderSource, class_names
from patchpack.stream.sources.shards import shard_labels
from patchpack.types import Event, Header


class FoldersSource(FieldSource):
    """Several folders of image files, read one after the other.

    The key of an image is the name of its folder and its path relative to the folder. If two folders have the same name, the
    folders above them are part of the names. The classes are the class folders of all folders together, sorted.

    Args:
        roots: paths of the folders.
        members: the requested image, labels and text, and the limits.
        classes: names of the classes in the order of their numbers. Default None: the class folders that exist, sorted.

    Attributes:
        class_names: names of the classes. None if labels are not taken from folders.
        ignored: number of files that are not read, by extension, in all folders together.

    Raises:
        SourceError: a folder is listed twice, lies in another folder of the list, has no images, or has no class folders
            although labels are taken from folders.
        ConfigError: `classes` is not a list of different names, or is given together with another label.
    """

    one_sample_per_part = True

    def __init__(self, roots: Sequence[str], members: SampleFields, *, classes: Sequence[str] | None) -> None:
        _refuse_repeated(roots)
        self._names = shard_labels([os.path.abspath(root) for root in roots])
        self.name = f"{len(roots)} folders ({self._names[0]}/ …)"
        there: list[list[str]] = []
        if classes is None and members.target is not None and not members.target_given:
            there = [class_names(Path(root), None) for root in roots]
            classes = sorted({name for names in there for name in names}) if all(there) else None
        self._folders: list[FolderSource] = [FolderSource(Path(root), members, classes=classes) for root in roots]
        for folder, names in zip(self._folders, there, strict=False):
            folder.warn_of_doubtful_classes(names)
        self.class_names = self._folders[0].class_names
        self.set_members(members)

    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read in every folder, see `FieldSource`."""
        self.members = members
        self._folders = [copy(folder) for folder in self._folders]  # a copy of this source must not change this source
        for folder in self._folders:
            folder.set_members(members)
        counts = [folder.num_parts or 0 for folder in self._folders]
        self._starts = [0, *accumulate(counts[:-1])]
        self.num_parts = sum(counts)
        ignored = sum((Counter(folder.ignored) for folder in self._folders), Counter[str]())
        self.ignored = {kind: ignored[kind] for kind in sorted(ignored)}
        self.reader = FoldersReader([folder.reader for folder in self._folders])
        self.fingerprint = digest(
            text for name, folder in zip(self._names, self._folders, strict=True) for text in (name, folder.fingerprint or "")
        )

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields, and whether labels are class folders or files beside the images. See `Source`."""
        return self._folders[0].read_fields()

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each file, see `Source`."""
        return self.scan_parts(range(self.num_parts or 0))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield a header or rejection for some files. Every file is a part. See `Source`."""
        for part in parts:
            number = bisect_right(self._starts, part) - 1
            for event in self._folders[number].scan_parts([part - self._starts[number]]):
                if isinstance(event, Header):
                    event = event._replace(location=(number, event.location))
                if isinstance(event, Header | Rejection):
                    event = event._replace(key=f"{self._names[number]}/{event.key}", shard=f"{self._names[number]}/")
                yield event


class FoldersReader:
    """A `Reader` from (number of a folder, location in this folder) to (file bytes, label).

    Args:
        readers: the reader of every folder.
    """

    def __init__(self, readers: list[ReadSample]) -> None:
        self._readers = readers

    def __call__(self, location: tuple[int, object]) -> tuple[object, object]:
        """Return the bytes and the label of an image, see `Reader`."""
        return self._readers[location[0]](location[1])

    def target(self, location: tuple[int, object]) -> object:
        """Return the label of an image, see `Reader`."""
        return target_at(self._readers[location[0]], location[1])


def _refuse_repeated(roots: Sequence[str]) -> None:
    """Raise `SourceError` if a folder is listed twice, or is inside another folder of the list."""
    real = {root: os.path.realpath(root) for root in roots}
    for number, root in enumerate(roots):
        for other in roots[:number]:
            inner, outer = (root, other) if len(real[root]) >= len(real[other]) else (other, root)
            if real[inner] == real[outer]:
                also = "" if root == other else f", as {other} too"
                raise SourceError(f"folder {root} is listed twice{also}: its images would repeat within one pass")
            if os.path.commonpath([real[inner], real[outer]]) == real[outer]:
                raise SourceError(f"folder {inner} is inside the folder {outer}: its images would repeat within one pass")
