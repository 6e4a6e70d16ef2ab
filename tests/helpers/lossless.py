"""Write lossless JPEG files (SOF3).

Pillow can read them but not write them, and no decoder can decode them at a smaller size.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_CODE_BITS = 4  # one code of 4 bits for each of the lengths 0 … 8 that a difference may have


def lossless_jpeg(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return a file with these pixels, uint8 ``[H, W, 3]``: every value is predicted by its left neighbour."""
    height, width, _ = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 128
    bits = "".join(map(_coded, (values - predicted).reshape(-1).tolist()))
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    names = b"RGB"
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC4, bytes([0, *(9 if length == _CODE_BITS else 0 for length in range(1, 17)), *range(9)])),
            _segment(0xC3, struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([name, 0x11, 0]) for name in names)),
            _segment(0xDA, b"\3" + b"".join(bytes([name, 0]) for name in names) + b"\1\0\0"),
            scan,
            b"\xff\xd9",
        )
    )


def _coded(difference: int) -> str:
    length = abs(difference).bit_length()
    value = difference if difference >= 0 else difference + (1 << length) - 1
    return f"{length:0{_CODE_BITS}b}" + (f"{value:0{length}b}" if length else "")


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
