"""Tables in files: CSV, JSON Lines and Parquet, read as columns. A row that cannot be read is kept, with the reason."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Any, NamedTuple, cast

from patchpack.errors import ConfigError, SourceError
from patchpack.stream.tar.urls import in_working_folder, is_local

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")  # all but .parquet may be followed by .gz
_ENDINGS = (*EXTENSIONS, *(f"{extension}.gz" for extension in EXTENSIONS if extension != ".parquet"))


class Table(NamedTuple):
    """The columns of a table.

    Attributes:
        name: name of the table in reports.
        folder: folder that relative paths in the table start from.
        names: names of all columns, in order.
        num_rows: number of rows, including the rows that cannot be read.
        column: a function from the number of a column in `names` to its cells, one for every row. A cell that is missing is
            None, or an empty text in CSV.
        lines: number of the line at which each row begins, from 1. None for a table without lines.
        faults: the reason why a row cannot be read, by the number of the row.
        is_text: True if all cells are texts, as in CSV.
        cure: words for an error that say how images inside the table are read.
    """

    name: str
    folder: str
    names: list[str]
    num_rows: int
    column: Callable[[int], Sequence[Any]]
    lines: Sequence[int] | None
    faults: dict[int, str]
    is_text: bool
    cure: str

    def place(self, row: int) -> str:
        """Return ``"line 17"``, the line at which a row begins, or ``"row 16"``, counted from 0, in a table without lines."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def is_table(path: str) -> bool:
    """Return True for a path or URL with the extension of a table."""
    return not path.startswith("pipe:") and path.lower().endswith(_ENDINGS)


def read_table(path: str, wanted: Collection[str]) -> Table:
    """Read a table from a file.

    Args:
        path: path of the file.
        wanted: names of the columns that may be used, in lower case. Only these columns of a file of text are kept in memory.

    Raises:
        SourceError: the file is missing, empty, damaged, or not a table of its kind.
        ConfigError: the package that reads Parquet is not installed.
    """
    if not is_local(path):
        raise SourceError(f"{path} is the URL of a table, but tables are read from this machine only: download the table")
    if not os.path.isfile(path):
        what = "is not a file" if os.path.exists(path) else "does not exist"
        raise SourceError(f"table {path} {what}{in_working_folder(path)}")
    kind = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    try:
        if kind == ".parquet":
            table = _read_parquet(path)
        elif kind in (".csv", ".tsv"):
            table = _read_csv(path, wanted, "\t" if kind == ".tsv" else ",")
        else:
            table = _read_json_lines(path, wanted)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"table {path} cannot be read: {type(error).__name__}: {error}") from None
    if not table.num_rows:
        raise SourceError(f"table {path} has no rows: expected at least one row")
    return table


def key_of_name(name: object) -> str:
    """Return the form in which names of columns are compared: lower case, without space around it."""
    return str(name).strip().lower()


def _opened(path: str) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.lower().endswith(".gz") else open(path, "rb")


def _text_lines(file: IO[bytes], path: str) -> Iterator[str]:
    """Yield the lines of a file in UTF-8, without a byte order mark at its beginning."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"line {number} of table {path} is not UTF-8 ({error.reason}): save the table as UTF-8") from None


def _read_csv(path: str, wanted: Collection[str], delimiter: str) -> Table:
    with _opened(path) as file:
        rows = csv.reader(_text_lines(file, path), delimiter=delimiter, strict=True)
        names = next(_records(rows, path), (0, [], ""))[1]
        if not any(name.strip() for name in names):
            raise SourceError(f"table {path} is empty: expected a first line with the names of the columns")
        kept = [number for number, name in enumerate(names) if key_of_name(name) in wanted]
        columns: dict[int, list[str]] = {number: [] for number in kept}
        lines, faults = array("q"), {}
        for line, cells, fault in _records(rows, path):
            if not fault and len(cells) != len(names):
                fault = f"this row has {len(cells)} cells, and the first line of the table names {len(names)} columns"
            if fault:
                faults[len(lines)] = fault
                cells = [""] * len(names)
            lines.append(line)
            for number in kept:
                columns[number].append(cells[number])
    return _table(path, names, len(lines), columns.__getitem__, lines=lines, faults=faults, is_text=True)


def _records(rows: Any, path: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield (line, cells, fault) of every row of a CSV file that is not an empty line.

    Raises `SourceError` if a quotation mark swallows lines.
    """
    while True:
        line, cells, fault = rows.line_num + 1, [], ""
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"this row is not CSV: {error}"
            if rows.line_num > line or "end of data" in str(error):
                raise SourceError(
                    f"table {path}: a quotation mark in line {line} is not closed properly, lines {line} to {rows.line_num} "
                    f"cannot be read ({error}): double a quotation mark inside a quoted cell, and close every quoted cell"
                ) from None
        if cells or fault:
            yield line, cells, fault


def _read_json_lines(path: str, wanted: Collection[str]) -> Table:
    names: dict[str, int] = {}
    columns: dict[int, tuple[str, list[Any]]] = {}
    lines, faults = array("q"), {}
    with _opened(path) as file:
        for line, data in enumerate(file, 1):
            if not data.strip():
                continue
            item: dict[str, Any] = {}
            try:
                item = _json_object(data, first=line == 1)
            except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or an integer of too many digits
                faults[len(lines)] = f"this line is not a JSON object: {error}"
            for name in item if item.keys() - names.keys() else ():
                if name not in names and key_of_name(name) in wanted:
                    columns[len(names)] = name, [None] * len(lines)
                names.setdefault(name, len(names))
            for name, cells in columns.values():
                cells.append(item.get(name))
            lines.append(line)
    if faults and len(faults) == len(lines):
        raise SourceError(f"table {path} has no line with a JSON object, line {lines[0]}: {faults[0]}")
    return _table(path, list(names), len(lines), lambda number: columns[number][1], lines=lines, faults=faults)


def _json_object(data: bytes, *, first: bool) -> dict[str, Any]:
    item = json.loads(data.decode("utf-8-sig" if first else "utf-8"))
    if not isinstance(item, dict):
        raise ValueError(f"got a {type(item).__name__}")
    return item


def _read_parquet(path: str) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow, which is not installed ({error}): pip install 'patchpack[tables]'"
        ) from None
    cure = f"datasets.load_dataset('parquet', data_files={path!r}, split='train')"
    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"table {path} is not a Parquet file: {error}") from None

    def column(number: int) -> Sequence[Any]:
        if holds_bytes(schema.field(number).type):
            raise SourceError(f"column {schema.names[number]!r} of {path} holds bytes, not texts or numbers: pass {cure}")
        try:
            cells: list[Any] = file.read(columns=[schema.names[number]]).column(0).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise SourceError(f"column {schema.names[number]!r} of {path} cannot be read: {error}") from None
        return cells

    return _table(path, list(schema.names), file.metadata.num_rows, column, cure=cure)


def holds_bytes(kind: Any) -> bool:
    """Return True for the type of a pyarrow column whose cells are bytes, or structures with bytes inside."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return holds_bytes(kind.value_type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _table(
    path: str,
    names: list[str],
    num_rows: int,
    column: Callable[[int], Sequence[Any]],
    *,
    lines: Sequence[int] | None = None,
    faults: dict[int, str] | None = None,
    is_text: bool = False,
    cure: str = "images as paths",
) -> Table:
    folder = os.path.dirname(os.path.abspath(path))
    return Table(os.path.basename(path), folder, names, num_rows, column, lines, faults or {}, is_text, cure)
