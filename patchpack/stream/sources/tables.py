"""Tables with a column of paths, as a source: every row is a sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from patchpack.errors import ConfigError, DecodeError, SourceError, TargetError
from patchpack.image.paths import located
from patchpack.image.size import picture_size
from patchpack.losses import Rejection
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import MappedReader, target_of
from patchpack.stream.sample.source import FieldSource, digest
from patchpack.stream.sources.files import FileReader, scan_file
from patchpack.stream.sources.table_columns import choose, holds_no_paths, is_data_uri, is_missing, labels_in, paths_in, wanted
from patchpack.stream.sources.table_files import Table, is_table, read_table
from patchpack.stream.sources.table_frames import read_frame
from patchpack.stream.tar.urls import in_working_folder
from patchpack.types import Event, Header

_LOOKED_FOR = 100  # files: if all of them are missing, the folder is wrong


def open_table(
    source: object, paths: list[str] | None, members: SampleFields, root: str | os.PathLike[str] | None, keys: str | None
) -> TableSource | None:
    """Return a source of the rows of a table, or None if `source` is not a table.

    Args:
        source: the path of a table, a DataFrame, a pyarrow table, or any other object.
        paths: `source` as a list of paths. None if `source` is not a path.
        members: names of image, labels and text, and the limits.
        root: folder that relative paths in the table start from, or None.
        keys: name of the column of keys, or None.

    Raises:
        SourceError, ConfigError: as in `read_table` and `TableSource`.
    """
    if keys is not None and not isinstance(keys, str):
        raise ConfigError(f"keys= must be the name of a column, got {keys!r}")
    if paths is None:
        table = read_frame(source)
    elif len(paths) == 1 and is_table(paths[0]) and not os.path.isdir(paths[0]):
        table = read_table(paths[0], wanted(members, keys))
    else:
        table = None
    return None if table is None else TableSource(table, members, root=root, keys=keys)


class TableSource(FieldSource):
    """A table with a column of paths of image files. Every row is a sample.

    The key of a row is its path as written, or the first path of a list, or the value in the column that `keys` names. A row
    whose image is a data URI has its number as key, counted from 0. A row is rejected if it has no path, no label that is
    needed, or the key of an earlier row.

    Args:
        table: the columns of the table.
        members: names of image, labels and text, and the limits.
        root: folder that relative paths start from. Default None: the folder of the table.
        keys: name of the column of keys. Default None: the key is the path.

    Raises:
        ConfigError: a column does not exist, or is not clear.
        SourceError: `root` is not a folder, a column does not hold paths, or the first 100 files are all missing.
    """

    one_sample_per_part = True

    def __init__(
        self, table: Table, members: SampleFields, *, root: str | os.PathLike[str] | None = None, keys: str | None = None
    ) -> None:
        columns = choose(table, members, keys)
        self.name, self.num_parts = table.name, table.num_rows
        self._names = {
            "image": [table.names[columns.image]],
            "target": [table.names[number] for number in columns.labels],
            "keys": None if columns.key is None else table.names[columns.key],
        }
        self._root = _folder(table, root)
        self._faults: dict[int, Rejection] = {}
        for row, reason in table.faults.items():
            self._reject(table, row, "read", reason)
        self._paths = self._paths_of(table, columns.image)
        self._keys = None if columns.key is None else self._keys_of(table, columns.key)
        self._reject_repeated(table)
        self._labels = [labels_in(table, number) for number in columns.labels]
        self._unlabelled: dict[int, Rejection] = {}
        for number, labels in zip(columns.labels, self._labels, strict=True):
            for row, label in enumerate(labels):
                if label is None:
                    self._unlabelled.setdefault(row, _without_label(table, row, table.names[number]))
        self._texts = None if columns.text is None else table.column(columns.text)
        self._require_files(root)
        rows = range(self.num_parts)
        self.fingerprint = digest(repr((self._key(row), self._paths[row], *(c[row] for c in self._labels))) for row in rows)
        self.set_members(members)

    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, see `FieldSource`."""
        self.members, self._image_only = members, members.without_text()
        self.reader = TableReader(self._root, members.limits.max_bytes)

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the columns that are read, see `Source`."""
        return {**self.members.names(), **self._names}

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each row, see `Source`."""
        return self.scan_parts(range(len(self._paths)))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield a header or rejection for some rows. Every row is a part, so that a shuffle mixes all rows. See `Source`."""
        return map(self._event, parts)

    def _event(self, row: int) -> Event:
        if row in self._faults:
            return self._faults[row]
        # a user's function, or a declared kind, may take a missing label
        if row in self._unlabelled and self.target_kind is None and not isinstance(self.reader, MappedReader):
            return self._unlabelled[row]
        paths, key = self._paths[row], self._key(row)
        try:
            target = target_of(self.members.target, [c[row] for c in self._labels], decode=False)
        except TargetError as error:
            return Rejection(self.name, key, "", "target", str(error))
        headers: list[Header] = []
        for part, path in enumerate((paths,) if isinstance(paths, str) else paths):
            found = self._scan(path, key, (path, target))
            if isinstance(found, Rejection):
                return found
            headers.append(found._replace(part=part) if part else found)
        header = headers[0]._replace(rest=tuple(headers[1:])) if len(headers) > 1 else headers[0]
        return header if self._texts is None else self._with_text(header, self._texts[row])

    def _scan(self, path: str, key: str, location: tuple[str, object]) -> Header | Rejection:
        if not is_data_uri(path):
            return scan_file(Path(self._root, path), key, self.name, location, self._image_only)
        limits = self.members.limits
        try:
            image = located(path)
            size = picture_size(image, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes, formats=limits.reading.formats)
        except DecodeError as error:
            return Rejection(self.name, key, "", "header", str(error))
        return Header(key, self.name, "", size, location, num_bytes=len(path))

    def _with_text(self, header: Header, text: object) -> Event:
        asked = self.members.text
        assert asked is not None
        try:
            return header._replace(text=asked.tokens(asked.of(text)))
        except TargetError as error:
            return Rejection(self.name, header.key, "", "target", str(error))

    def _key(self, row: int) -> str:
        if self._keys is not None:
            return self._keys[row]
        paths = self._paths[row]
        first = paths if isinstance(paths, str) else paths[0]
        return str(row) if is_data_uri(first) else first

    def _reject(self, table: Table, row: int, stage: str, reason: str) -> None:
        """Note the first fault of a row. The rejection comes when the row is scanned."""
        key = f"{self.name} {table.place(row)}"  # the row may have no path, or the path of another row
        self._faults.setdefault(row, Rejection(self.name, key, "", stage, reason))

    def _paths_of(self, table: Table, column: int) -> list[str | tuple[str, ...]]:
        cells = table.column(column)
        first = next((cell for cell in cells if not is_missing(cell)), None)
        if holds_no_paths(first):
            raise SourceError(
                f"column {table.names[column]!r} of {self.name} holds {_kind(first)}, not paths: pass {table.cure}"
            )
        paths: list[str | tuple[str, ...]] = []
        for row, cell in enumerate(cells):
            try:
                paths.append(paths_in(cell))
            except ValueError as error:
                paths.append("")
                self._reject(table, row, "read", f"column {table.names[column]!r}: {error}")
        return paths

    def _keys_of(self, table: Table, column: int) -> list[str]:
        keys = []
        for row, cell in enumerate(table.column(column)):
            is_key = isinstance(cell, (str, int)) and not isinstance(cell, bool) and cell != ""
            keys.append(str(cell) if is_key else "")
            if not is_key:
                self._reject(table, row, "read", f"key {table.names[column]!r} must be a text or an integer, got {cell!r}")
        return keys

    def _reject_repeated(self, table: Table) -> None:
        first: dict[str, int] = {}
        what = "path" if self._keys is None else "key"
        for row in range(len(self._paths)):
            if row not in self._faults and (before := first.setdefault(self._key(row), row)) != row:
                self._reject(
                    table, row, "read",
                    f"{what} {self._key(row)!r} appears before in the table, in {table.place(before)}: "
                    f"pass the name of a column with a different value in every row as keys=",
                )  # fmt: skip

    def _require_files(self, root: object) -> None:
        """Raise `SourceError` if all of the first files are missing."""
        rows = (paths for row, paths in enumerate(self._paths) if row not in self._faults)
        firsts = (paths if isinstance(paths, str) else paths[0] for paths in rows)
        looked_for = list(islice((path for path in firsts if not is_data_uri(path)), _LOOKED_FOR))
        if not looked_for or any(os.path.exists(os.path.join(self._root, path)) for path in looked_for):
            return
        path = looked_for[0]
        which = f"none of the first {len(looked_for)} files" if len(looked_for) > 1 else "its only file does not exist:"
        cure = "root= is probably wrong" if root is not None else "pass root=, the folder that the paths start from"
        if os.path.exists(path):
            cure = "the file exists in the working folder: pass root='.'"
        elif "\\" in path:
            cure = "the paths are separated by backslashes, which this system does not know: write '/'"
        verb = f"{which} exists, the first is" if len(looked_for) > 1 else which
        raise SourceError(f"{self.name}: {verb} {os.path.join(self._root, path)}: {cure}")


class TableReader:
    """A `Reader` from (path, label) to (file bytes, label). The location has the label, so no worker needs the table.

    Args:
        root: the folder that relative paths start from.
        max_bytes: largest size of a file in bytes.
    """

    def __init__(self, root: str, max_bytes: int) -> None:
        self._files = FileReader(root, None, max_bytes)

    def __call__(self, location: tuple[str, object]) -> tuple[bytes, object]:
        """Return the bytes and the label of an image, see `Reader`."""
        image: bytes = located(location[0]) if is_data_uri(location[0]) else self._files(location[0])[0]  # type: ignore[assignment]  # of a data URI
        return image, location[1]

    def target(self, location: tuple[str, object]) -> object:
        """Return the label of an image, see `Reader`."""
        return location[1]


def _without_label(table: Table, row: int, column: str) -> Rejection:
    reason = (
        f"column {column!r}: the cell of the label is empty. To keep such rows, replace None in map_target=, or pass "
        f"target_kind='object'"
    )
    return Rejection(table.name, f"{table.name} {table.place(row)}", "", "target", reason)


def _kind(cell: object) -> str:
    return "bytes" if isinstance(cell, (bytes, bytearray, memoryview)) else f"objects of type {type(cell).__name__}"


def _folder(table: Table, root: str | os.PathLike[str] | None) -> str:
    if root is None:
        return table.folder
    if not isinstance(root, (str, os.PathLike)):
        raise ConfigError(f"root= must be the path of a folder, got {root!r}")
    path = os.fspath(root)
    if not os.path.isdir(path):
        what = "is not a folder" if os.path.exists(path) else "does not exist"
        raise SourceError(
            f"root={path!r} {what}{in_working_folder(path)}: pass the folder that the paths of the table start from"
        )
    return os.path.abspath(path)
