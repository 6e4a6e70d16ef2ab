"""The conversion of labels to targets: members are decoded by extension, joined, and mapped. Pickles are never loaded."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np

from patchpack._shown import said, shown
from patchpack.errors import TargetError
from patchpack.stream.sample.field_names import label_names, parse_object
from patchpack.stream.sample.names import function_name
from patchpack.stream.sample.source import Reader, tell_epoch

MapTarget = Callable[[Any], Any]
"""Decoded label → target, e.g. a vocabulary look-up."""

_ADDRESS = re.compile(" at 0x[0-9a-f]+")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}").fullmatch


def without_address(text: str) -> str:
    """Return a message without addresses in memory, so that two equal runs give equal reports."""
    return _ADDRESS.sub("", text)


def map_name(reader: Reader) -> str | None:
    """Return the name of the user's function that a reader applies to targets. Return None if there is no such function."""
    return reader.name if isinstance(reader, MappedReader) else None


def target_of(target: str | tuple[str, ...] | None, values: Sequence[object], *, decode: bool = True) -> object:
    """Return the target of a sample from the members that hold its labels.

    For one label, the target is the value of the label. For several labels, the target is a dict from names to values. Without
    labels, the target is None.

    Args:
        target: names of the labels, as in `SampleFields`.
        values: the members, in the order of `SampleFields.labels`.
        decode: True (default) decodes a member of bytes by its extension, see `decode_target`. False leaves bytes unchanged,
            because the name of a column is not an extension.

    Raises:
        TargetError: a member does not have the form of its extension, or has no such field.
    """
    if isinstance(target, str) and ":" not in target:  # the usual label
        return _whole(target, values[0], decode)
    names = label_names(target)
    members = dict(zip(dict.fromkeys(name.member for name in names), values, strict=True))
    objects = {m: parse_object("label", m, members[m]) for m in {name.member for name in names if name.field is not None}}
    found = [
        _whole(name.member, members[name.member], decode) if name.field is None else name.of("label", objects[name.member])
        for name in names
    ]
    if target is None:
        return None
    return found[0] if isinstance(target, str) else dict(zip(target, found, strict=True))


def _whole(member: str, value: object, decode: bool) -> object:
    return decode_target(member, value) if decode and isinstance(value, bytes) else value


class MappedReader:
    """A reader that applies a user's function to targets.

    Attributes:
        name: name of the function.
    """

    def __init__(self, reader: Reader, map_target: MapTarget) -> None:
        self._reader, self._map = reader, map_target
        self.name = function_name(map_target)

    def around(self, reader: Reader) -> MappedReader:
        """Return a copy that wraps another reader, and applies the same function to the targets of this reader."""
        return MappedReader(reader, self._map)

    def __copy__(self) -> MappedReader:
        """Return a copy that opens its own files, for another thread."""
        return self.around(copy(self._reader))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the inner reader, if it has a method `set_epoch`."""
        tell_epoch(self._reader, epoch)

    def __call__(self, location: Any) -> tuple[object, object]:
        """Return the image and the mapped target, see `Reader`."""
        image, target = self._reader(location)
        return image, self._mapped(target)

    def target(self, location: Any) -> object:
        """Return the mapped target, see `Reader`."""
        return self._mapped(self._reader.target(location))

    def _mapped(self, target: object) -> object:
        try:
            return self._map(target)
        except Exception as error:
            raise TargetError(f"map_target failed for {shown(target)}: {said(error)}") from error


def decode_target(extension: str, data: bytes) -> object:
    """Return the value of a label member.

    A ``cls`` member must be a decimal integer within 64 bits, the number of a class. A ``txt`` member gives a str, ``json`` the
    JSON value, and ``npy`` the array. Two kinds of array are refused: a pickled array, and an array with further bytes after
    its end. Any other extension gives the bytes.

    Raises:
        TargetError: the bytes do not have the form of the extension.
    """
    kind = extension.rsplit(".", 1)[-1]
    try:
        if kind == "cls":
            return _class_index(data)
        if kind == "txt":
            return data.decode("utf-8")
        if kind == "json":
            return json.loads(data)
        if kind == "npy":
            return _array(data)
    except Exception as error:  # parsers raise many kinds: a header with a wrong size even MemoryError
        shown = data[:40] + (b"..." if len(data) > 40 else b"")
        why = without_address(str(error))
        raise TargetError(f"label member {extension!r} does not hold a {kind}: {shown!r} ({why})") from None
    return data


def _class_index(data: bytes) -> int:
    text = data.strip()
    if _INTEGER(text) and -(1 << 63) <= (value := int(text)) < 1 << 63:  # `int` alone reads 1_0 as ten
        return value
    raise ValueError("expected an integer of 64 bits")


def _array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.tell() != len(data):  # the header describes fewer bytes than there are: the numbers may be wrong
        raise ValueError(f"{len(data) - file.tell()} bytes follow an array of shape {list(array.shape)}")
    return array
