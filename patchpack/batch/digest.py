"""A short name for what is in a batch or an image, the same wherever it was painted: for bug reports and for comparing runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import PackedImage

_NOT_ITS_OWN = ("info", "row", "slot")  # counters, and where an image was put
_ONLY_IF_THERE = ("text_ids", "text_segment_ids", "times")


def digest(packed: PackedBatch[ArrayT] | PackedImage[ArrayT]) -> str:
    """Return 32 hexadecimal digits of SHA-256 over names, dtypes, shapes and bytes of all fields.

    A batch's `info` is left out, and an image's row and slot: an image has one digest in every batch, painted by any number of
    workers, replayed, or read back from packed shards.

    Args:
        packed: a batch, or one of `unpack`'s images; arrays of numpy or of torch.
    """
    found = hashlib.sha256()
    for name, value in zip(packed._fields, packed, strict=True):
        if name not in _NOT_ITS_OWN and not (value is None and name in _ONLY_IF_THERE):
            for part in _parts(name, value):
                found.update(part)
    return found.hexdigest()[:32]


def _parts(name: str, value: object) -> Iterator[bytes]:
    """Yield the name, dtype and shape of a value, then its bytes."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _parts(f"{name}.{key}", value[key])
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
        yield f"{name} {array.dtype.str} {list(np.shape(value))}\n".encode()
        yield array.tobytes()
    else:
        yield f"{name} {value!r}\n".encode()
