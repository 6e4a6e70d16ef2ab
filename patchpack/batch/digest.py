"""Digests: a short string for the content of a batch or of an image, for bug reports and for comparing runs."""

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
    """Return 32 hexadecimal digits of SHA-256 over the names, dtypes, shapes and bytes of all fields.

    The digest of a batch leaves out `info`. The digest of an image leaves out `row` and `slot`, so an image has the same digest
    in every batch. The number of workers does not change a digest. If a batch is replayed, or read back from packed shards, it
    has the digest of the original batch.

    Args:
        packed: a batch, or an image from `unpack`, with numpy arrays or torch tensors.
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
