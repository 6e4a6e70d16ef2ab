"""Digests of values under labels: equal values have equal digests, whatever the classes that hold them are called.

Nothing of the library is imported here, and no name of it goes into a digest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image


class Parts:
    """Digests of one case, one for each label. What is added under a label goes into its digest in the order it is added.

    Args:
        hidden: a path that is cut out of every text, such as that of a temporary folder; "" for none.
    """

    def __init__(self, hidden: str = "") -> None:
        self._hidden = hidden
        self._hashes: dict[str, Any] = {}
        self._words: dict[str, str] = {}

    def add(self, label: str, value: Any) -> None:
        """Add a value to the digest of a label.

        Raises:
            TypeError: a value of a kind that has no defined bytes.
        """
        feed(self._hashes.setdefault(label, hashlib.blake2b(digest_size=8)), value, self._hidden)

    def say(self, label: str, word: str) -> None:
        """Set what stands under a label in plain text, such as the kind of an error."""
        self._words[label] = word

    def digests(self) -> dict[str, str]:
        """Return label to digest or plain text, sorted by label."""
        found = {label: one.hexdigest() for label, one in self._hashes.items()} | self._words
        return dict(sorted(found.items()))


def digest(value: Any, hidden: str = "") -> str:
    """Return 16 hexadecimal digits that name a value."""
    found = hashlib.blake2b(digest_size=8)
    feed(found, value, hidden)
    return found.hexdigest()


def feed(found: Any, value: Any, hidden: str = "") -> None:
    """Update a hash with a value: its kind, its size and its bytes, so that no two values run into each other.

    Lists and tuples are the same, and so are dicts in any order. An array is its dtype, shape and bytes, and whether it is
    numpy's or torch's.
    """
    if value is None or isinstance(value, bool):
        found.update(f"{value};".encode())
    elif isinstance(value, int):
        found.update(f"int {int(value)};".encode())
    elif isinstance(value, float) and not isinstance(value, np.generic):
        found.update(b"float " + struct.pack("<d", value))
    elif isinstance(value, str):
        text = (value.replace(hidden, "~") if hidden else value).encode("utf-8", "surrogatepass")
        found.update(f"text {len(text)} ".encode() + text)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        found.update(f"bytes {len(value)} ".encode() + bytes(value))
    elif isinstance(value, torch.Tensor):
        found.update(b"torch ")
        feed(found, value.detach().cpu().numpy())
    elif isinstance(value, (np.ndarray, np.generic)):
        _feed_array(found, np.asarray(value), hidden)
    elif isinstance(value, Image.Image):
        feed(found, ["picture", value.mode, value.size, value.tobytes()])
    elif isinstance(value, Mapping):
        items = sorted((digest(key, hidden), key) for key in value)
        found.update(f"dict {len(items)} ".encode())
        for named, key in items:
            found.update(named.encode())
            feed(found, value[key], hidden)
    elif isinstance(value, (list, tuple, range)):
        found.update(f"list {len(value)} ".encode())
        for entry in value:
            feed(found, entry, hidden)
    elif isinstance(value, (set, frozenset)):
        feed(found, ["set", sorted(digest(entry, hidden) for entry in value)])
    else:
        raise TypeError(f"a {type(value).__name__} has no defined bytes: add its fields one by one")


def _feed_array(found: Any, array: np.ndarray[Any, Any], hidden: str) -> None:
    if array.dtype.hasobject:
        feed(found, ["objects", array.shape, array.reshape(-1).tolist()], hidden)
        return
    found.update(f"array {array.dtype.str} {list(array.shape)} ".encode())
    found.update(np.ascontiguousarray(array).tobytes())
