"""Size and orientation of a common JPEG, from the segments before its first scan. Any other file is left to Pillow.

The functions return a result only if Pillow would open the file and give the same result. Every segment that Pillow parses must
have a form that Pillow accepts without a warning. If a segment has a rare or a broken form, the result is None.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from patchpack.types import Size

_SEGMENT = Struct(">BBH").unpack_from
_SIDES = Struct(">BHHB").unpack_from
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_NO_MATTER = {0xC4, 0xDD, 0xFE, *range(0xE3, 0xED), 0xEF}  # Huffman tables, restarts, comments, segments of applications
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

_ENTRIES = {b"II*\0": (Struct("<L").unpack_from, Struct("<H").unpack_from, Struct("<HHLHH"), Struct("<L").unpack_from)}
_ENTRIES[b"MM\0*"] = (Struct(">L").unpack_from, Struct(">H").unpack_from, Struct(">HHLHH"), Struct(">L").unpack_from)
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # per value, by type
_ORIENTATION = 0x0112
# tags of a directory that Pillow reads → the (type, count) that is expected
_READ = {_ORIENTATION: (3, 1), 0x011A: (5, 1), 0x0128: (3, 1)}


class JpegHead(NamedTuple):
    """The properties of a JPEG that the segments before its pixels state.

    Attributes:
        size: height and width in pixels, after orientation.
        layers: number of colour components, 1, 3 or 4.
        upright: True if the pixels are stored in the orientation in which they are displayed.
        tagged: True if the file has a colour profile, or a part of a profile. Default False.
    """

    size: Size
    layers: int
    upright: bool
    tagged: bool = False


def jpeg_size(data: bytes) -> Size | None:
    """Return the oriented height and width of a JPEG, or None if Pillow has to read the file.

    Args:
        data: the bytes of a JPEG file, or at least its start with all segments before the pixels.
    """
    head = jpeg_head(data)
    return None if head is None else head.size


def jpeg_head(data: bytes) -> JpegHead | None:
    """Return size, components and orientation of a JPEG, or None if Pillow has to read the file.

    Args:
        data: the bytes of a JPEG file, or at least its start with all segments before the pixels.
    """
    if data[:2] != b"\xff\xd8":
        return None
    height = width = layers = 0
    orientation: int | None = None
    has_exif = elsewhere = tagged = False
    at, last = 2, len(data) - 4
    while at <= last:
        fill, marker, length = _SEGMENT(data, at)
        begin, stop = at + 4, at + 2 + length
        if fill != 0xFF or length < 2 or stop > len(data):
            return None
        at = stop
        if marker in _NO_MATTER:
            continue
        if marker == 0xDB:
            if not _are_tables(data, begin, stop):
                return None
        elif marker in _FRAMES:
            if height or length < 8:
                return None
            bits, height, width, layers = _SIDES(data, begin)
            if bits != 8 or layers not in (1, 3, 4) or length != 8 + 3 * layers or not height or not width:
                return None
        elif marker == 0xE1 and data.startswith(_EXIF, begin):
            if has_exif:
                return None
            tags = _orientation(data[begin + 6 : stop])
            if tags is None:
                return None
            has_exif, orientation = True, tags or None
        elif marker == 0xE1:
            elsewhere = elsewhere or (data.startswith(_XMP, begin) and data.find(b"tiff:Orientation", begin, stop) >= 0)
        elif marker == 0xDA:
            if not height or (elsewhere and orientation is None):
                return None
            size = Size(width, height) if orientation in (5, 6, 7, 8) else Size(height, width)
            return JpegHead(size, layers, orientation not in (2, 3, 4, 5, 6, 7, 8), tagged)
        elif not _is_readable(marker, data[begin:stop]):
            return None
        elif marker == 0xE2:
            tagged = tagged or data.startswith(_ICC, begin)
    return None


def _are_tables(data: bytes, at: int, stop: int) -> bool:
    """Return True if the bytes ``at … stop`` are complete quantisation tables."""
    while at < stop:
        at += 65 if data[at] < 16 else 129
    return at == stop


def _is_readable(marker: int, segment: bytes) -> bool:
    """Return True if Pillow reads an application segment (such as JFIF or Photoshop) without an error."""
    if marker == 0xE0:
        return not segment.startswith(b"JFIF") or len(segment) >= 12
    if marker == 0xE2:  # colour profiles; not the directory of a multi-picture file
        return not segment.startswith(b"MPF\0") and (not segment.startswith(_ICC) or len(segment) >= 14)
    if marker == 0xED:  # Photoshop's resources, if none ends before its name
        return segment[-6:-2] != b"8BIM"
    return marker == 0xEE and len(segment) >= 12


def _orientation(tiff: bytes) -> int | None:
    """Return the orientation tag of the first EXIF directory, or 0 if it is missing. Return None for an unusual directory."""
    if tiff[:4] not in _ENTRIES or len(tiff) < 8:
        return None
    unpack_offset, unpack_count, entry, unpack_place = _ENTRIES[tiff[:4]]
    (at,) = unpack_offset(tiff, 4)
    if at < 8 or at + 2 > len(tiff):
        return None
    (entries,) = unpack_count(tiff, at)
    begin, stop = at + 2, at + 2 + 12 * entries
    if stop + 4 > len(tiff):
        return None
    orientation, seen = 0, set()
    for place, (tag, kind, count, value, _) in zip(range(begin, stop, 12), entry.iter_unpack(tiff[begin:stop]), strict=True):
        size = count * _BYTES.get(kind, 1 << 32)
        if size > 4 and unpack_place(tiff, place + 8)[0] + size > len(tiff):
            return None
        if tag in _READ:
            if tag in seen or _READ[tag] != (kind, count):
                return None
            seen.add(tag)
            if tag == _ORIENTATION:
                orientation = value
    return orientation
