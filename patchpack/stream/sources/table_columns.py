"""The columns of a table that are read: the choice by name, and the values of their cells."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from patchpack.errors import ConfigError
from patchpack.image.formats import EXTENSIONS
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.names import nearest
from patchpack.stream.sources.table_files import Table, key_of_name

IMAGES = ("image", "file", "file_name", "filename", "path", "image_path", "filepath")  # usual names of a column of paths
LABELS = ("label", "class", "target", "cls")  # usual names of a column of labels
_MISSING = ("NAType", "NaTType")  # classes of pandas
_INTEGER = re.compile(r"[+-]?[0-9]+").fullmatch
_FLOAT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE).fullmatch
_DIGITS = 40  # characters of a number, more are a text
_EXACT = 1 << 24  # float32 holds every integer up to this one


class Columns(NamedTuple):
    """The numbers of the columns that are read.

    Attributes:
        image: column of paths.
        labels: columns of labels, in the order in which the user named them. Empty without labels.
        text: column of texts, None without texts.
        key: column of keys. None: the key of a row is its path.
    """

    image: int
    labels: tuple[int, ...]
    text: int | None
    key: int | None


def wanted(members: SampleFields, keys: str | None) -> frozenset[str]:
    """Return all names that a column to be read may have, in lower case."""
    names = [*(members.image if members.image_given else IMAGES), *_labels_of(members), *([] if keys is None else [keys])]
    return frozenset(map(key_of_name, [*names, *(members.text.columns if members.text else ())]))


def choose(table: Table, members: SampleFields, keys: str | None) -> Columns:
    """Return the columns to read.

    Args:
        table: the table.
        members: names of image, labels and text. If the user did not name the image or the label, exactly one column must have
            a usual name.
        keys: name of the column of keys, or None.

    Raises:
        ConfigError: a column that the user named does not exist, or no column or several columns have a usual name. The error
            lists the columns.
    """
    if members.image_given and len(members.image) > 1:
        raise ConfigError(
            f"image={';'.join(members.image)!r} names {len(members.image)} columns, but one column of {table.name} holds the "
            f"paths: for several images per row put lists of paths into one column of a .jsonl or .parquet table"
        )
    cure = "the name of the column of paths as image="
    image = _named(table, "image", members.image[0]) if members.image_given else _usual(table, IMAGES, "paths", cure)
    cure = "the name of the column of labels as target=, or target=None for images without labels"
    if members.target is None:
        labels = []
    elif members.target_given:
        labels = [_named(table, "target", name) for name in members.labels]
    else:
        labels = [_usual(table, LABELS, "labels", cure)]
    text = None
    if members.text is not None:
        there = [name for name in members.text.columns if _numbers(table, name)]
        text = _named(table, "text", (there or members.text.columns)[0])
    return Columns(image, tuple(labels), text, None if keys is None else _named(table, "keys", keys))


def _labels_of(members: SampleFields) -> Sequence[str]:
    return LABELS if members.target is not None and not members.target_given else members.labels


def _numbers(table: Table, name: str) -> list[int]:
    return [number for number, other in enumerate(table.names) if key_of_name(other) == key_of_name(name)]


def _named(table: Table, option: str, name: str) -> int:
    """Return the column with the name that the user gave in an option."""
    found = _numbers(table, name)
    if len(found) > 1:
        shown = " and ".join(repr(table.names[number]) for number in found)
        raise ConfigError(f"{option}={name!r} is the name of {len(found)} columns of {table.name}, {shown}: rename all but one")
    if not found:
        raise ConfigError(f"{option}={name!r} is not a column of {table.name}, {_has(table)}{nearest(name, table.names)}")
    return found[0]


def _usual(table: Table, names: Sequence[str], of: str, cure: str) -> int:
    """Return the only column with a usual name."""
    found = [number for name in names for number in _numbers(table, name)]
    if len(found) > 1:
        shown = " and ".join(repr(table.names[number]) for number in found)
        raise ConfigError(f"{table.name} has {len(found)} columns that may hold the {of}, {shown}: pass {cure}")
    if not found:
        raise ConfigError(
            f"no column of {table.name} has a usual name for {of} ({', '.join(names)}), {_has(table)}: pass {cure}"
        )
    return found[0]


def _has(table: Table) -> str:
    """Return words that list the columns, and say what is wrong with a first line that does not name columns."""
    text = f"its columns are: {', '.join(map(repr, table.names))}"
    if table.is_text and len(table.names) == 1:
        for mark in ";\t|,":
            if mark in table.names[0]:
                return f"{text} (one column, with {mark!r} in its name: columns are separated by ',' in .csv, by a tab in .tsv)"
    if table.is_text and any(name.rpartition(".")[2].lower() in EXTENSIONS for name in table.names if "." in name):
        return f"{text} (the first line of the table must name the columns)"
    return text


def is_missing(cell: object) -> bool:
    """Return True for None, NaN, and the missing values of pandas."""
    return cell is None or (isinstance(cell, (float, np.floating)) and cell != cell) or type(cell).__name__ in _MISSING


def labels_in(table: Table, column: int) -> list[Any]:
    """Return the labels of a column, None for a missing label.

    All cells of a CSV column become integers of 64 bits if every cell is one. Otherwise they become floats if every cell is a
    number. Otherwise they stay texts. In other tables the values keep their types, but integers up to 16,777,216 become floats
    if the column also has floats.
    """
    cells: Sequence[Any] = table.column(column)
    values = _numbers_in(cells) if table.is_text else [None if is_missing(cell) else cell for cell in cells]
    if {int, float} <= {type(value) for value in values}:
        values = [float(value) if type(value) is int and abs(value) <= _EXACT else value for value in values]
    return values


def _numbers_in(cells: Sequence[str]) -> list[Any]:
    """Return the cells of a CSV column as numbers if all of them are numbers. An empty cell becomes None."""
    values: list[Any] = []
    for cell in cells:
        text = cell.strip()
        if not text or text.lower() == "nan":
            values.append(None)
        elif _INTEGER(text) and len(text) <= _DIGITS and -(1 << 63) <= (value := int(text)) < 1 << 63:
            values.append(value)
        elif _FLOAT(text) and not _INTEGER(text):
            values.append(float(text))
        else:
            return [cell if cell.strip() else None for cell in cells]
    return values


def is_data_uri(path: str) -> bool:
    """Return True for a data URI, which holds the image itself."""
    return path[:5].lower() == "data:"


def paths_in(cell: object) -> str | tuple[str, ...]:
    """Return the path or data URI in a cell, or those of several images that belong together.

    Raises `ValueError` for a cell without a path. Its text is the reason.
    """
    if isinstance(cell, str):
        cell = cell if type(cell) is str else str(cell)
        if not cell.strip():
            raise ValueError("the cell of the path is empty")
        if is_data_uri(cell):
            return cell
        if "://" in cell:
            raise ValueError(f"{cell[:80]!r} is a URL, but images of a table are read from paths on this machine")
        return cell
    if isinstance(cell, os.PathLike):
        return paths_in(os.fsdecode(cell))
    if is_missing(cell):
        raise ValueError("the cell of the path is empty")
    if isinstance(cell, (list, tuple, np.ndarray)):
        parts = [paths_in(one) for one in cell]
        if not parts:
            raise ValueError("the list of paths is empty")
        if all(isinstance(part, str) for part in parts):
            return tuple(part for part in parts if isinstance(part, str))
    raise ValueError(f"expected a path or a list of paths, got a {type(cell).__name__}")


def holds_no_paths(cell: object) -> bool:
    """Return True for a cell that is an image, bytes, or a structure, and so not a path."""
    if isinstance(cell, np.ndarray):
        return cell.dtype.kind not in "OUS"  # an array of texts is a list of paths
    return isinstance(cell, (bytes, bytearray, memoryview, Mapping, Image.Image))
