"""Label members to values, by extension. Text and numbers only; no pickle is ever loaded."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from patchpack.errors import TargetError


def decode_target(extension: str, data: bytes) -> Any:
    """Value of a label member.

    ``cls``: class index, an integer in text. ``txt``: str. ``json``: what it holds. ``npy``: the array, never pickled.
    Any other extension: the bytes.

    Raises:
        TargetError: bytes that are not what the extension says.
    """
    kind = extension.rsplit(".", 1)[-1]
    try:
        if kind == "cls":
            return int(data.decode("ascii"))
        if kind == "txt":
            return data.decode("utf-8")
        if kind == "json":
            return json.loads(data)
        if kind == "npy":
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # parsers raise many kinds: a header that lies about its size even MemoryError
        shown = data[:40] + (b"..." if len(data) > 40 else b"")
        raise TargetError(f"label member {extension!r} does not hold a {kind}: {shown!r} ({error})") from None
    return data
