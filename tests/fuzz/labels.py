"""Bytes of a label to its value."""

from __future__ import annotations

import io
import json

import numpy as np

from patchpack.errors import TargetError
from patchpack.stream.sample.labels import decode_target

from .target import Target

KINDS = ("cls", "txt", "json", "npy", "seg.npy", "bin")


def check(data: bytes) -> None:
    """First byte: the extension. A value that says what the bytes say, or a `TargetError`."""
    if not data:
        return
    extension, member = KINDS[data[0] % len(KINDS)], data[1:]
    try:
        value = decode_target(extension, member)
    except TargetError:
        return
    if extension == "cls":
        assert type(value) is int
        assert value == int(member)
    elif extension == "txt":
        assert value.encode() == member
    elif extension == "json":
        assert repr(value) == repr(json.loads(member))
    elif extension == "bin":
        assert value is member
    else:
        assert isinstance(value, np.ndarray)
        assert not value.dtype.hasobject
        assert value.nbytes <= len(member)


def seeds() -> list[bytes]:
    """Labels as they are written."""
    made = [b"\0" + b"12", b"\0" + b" -7\n", b"\1" + "a cat, ein Bär 🦆".encode(), b"\5\0\1"]
    made += [b"\2" + json.dumps(v).encode() for v in (3, [1.5, None], {"a": {"b": [True, "x"]}}, "text", float("nan"))]
    for array in (
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.float32(1.5),
        np.zeros((0, 4), np.uint8),
        np.array(["ab", "c"]),
    ):
        file = io.BytesIO()
        np.save(file, array)
        made += [b"\3" + file.getvalue(), b"\4" + file.getvalue()]
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(3, dtype=[("a", "<i4"), ("b", "<f8", (2,))]), version=(2, 0))
    return [*made, b"\3" + file.getvalue()]


TARGET = Target("label", check, seeds, 1024)
