"""Make small ICC profiles: colours or greys with a gamma, as cameras and scanners embed them."""

from __future__ import annotations

import struct

_WHITE = (0.9642, 1.0, 0.8249)
_PRIMARIES = {b"rXYZ": (0.436, 0.2225, 0.0139), b"gXYZ": (0.3851, 0.7169, 0.0971), b"bXYZ": (0.1431, 0.0606, 0.7141)}


def icc_profile(gamma: float, space: bytes = b"RGB ") -> bytes:
    """Return a profile with sRGB's primaries, or of grey (``b"GRAY"``), whose values are a power of the light."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78), b"wtpt": _xyz(*_WHITE)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name: _xyz(*values) for name, values in _PRIMARIES.items()}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"cprt"] = b"text\0\0\0\0x\0"
    table, body = struct.pack(">I", len(tags)), b""
    begin = 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I", begin + len(body)) + b"lcms" + struct.pack(">I", 0x02100000) + b"mntr" + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, _WHITE))
    return head + bytes(128 - len(head)) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))
