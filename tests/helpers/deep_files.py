"""Write pictures of more than 8 bits with headers that Pillow cannot write: 12 bits, white as 0, sBIT, no sign."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def tiff(pixels: Array, *, bits: int, white_at: int = 1, sample_format: int = 1, big: bool = False, samples: int = 1) -> bytes:
    """Return an uncompressed TIFF of grey ``[H, W]``, or of ``[H, W, 3]`` with ``samples=3``, of 12, 16 or 32 bits."""
    end = ">" if big else "<"
    height, width = pixels.shape[:2]
    if bits == 12:
        data = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pixels.reshape(-1, 2).astype(int).tolist())
    else:
        kind = {1: "u", 2: "i", 3: "f"}[sample_format]
        data = pixels.astype(f"{end}{kind}{bits // 8}").tobytes()
    begin = 8 + 2 + 11 * 12 + 4
    longs = {256: width, 257: height, 273: begin + 8, 278: height, 279: len(data)}
    shorts = {258: bits, 259: 1, 262: 2 if samples == 3 else white_at, 277: samples, 284: 1, 339: sample_format}
    entries = b""
    for tag in sorted(longs | shorts):
        if tag in longs:
            entries += struct.pack(f"{end}HHII", tag, 4, 1, longs[tag])
        elif tag == 258 and samples == 3:
            entries += struct.pack(f"{end}HHII", tag, 3, 3, begin)
        else:
            entries += struct.pack(f"{end}HHIHH", tag, 3, 1, shorts[tag], 0)
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{end}IH", 8, 11)
    return head + entries + bytes(4) + struct.pack(f"{end}4H", bits, bits, bits, 0) + data


def png(pixels: Array, *, sbit: int | None = None, key: int | None = None) -> bytes:
    """Return a 16-bit PNG of grey ``[H, W]`` or colour ``[H, W, 3]``: with sBIT, or with a grey that means transparent."""
    height, width = pixels.shape[:2]
    colour = pixels.ndim == 3
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2 if colour else 0, 0, 0, 0))]
    if sbit is not None:
        chunks.append(_chunk(b"sBIT", bytes([sbit] * (3 if colour else 1))))
    if key is not None:
        chunks.append(_chunk(b"tRNS", struct.pack(">H", key)))
    chunks += [_chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
