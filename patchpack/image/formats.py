"""The formats of image files, the options for reading image files, and the limits on their size."""

from __future__ import annotations

from typing import NamedTuple

from PIL import AvifImagePlugin, Image, WebPImagePlugin

from patchpack.errors import ConfigError
from patchpack.image import profile
from patchpack.plan.recipe import Recipe


class Reading(NamedTuple):
    """The options for reading image files. A `Recipe` has fields with the same names.

    Attributes:
        deep: scaling of images with more than 8 bits, ``"header"`` (default) or ``"range"``.
        icc: treatment of a colour profile, ``"ignore"`` (default) or ``"srgb"``.
        formats: names of further formats. Default none.
    """

    deep: str = "header"
    icc: str = "ignore"
    formats: tuple[str, ...] = ()


DEFAULT = Reading()

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29  # 8 bytes for each of `MAX_PIXELS`: 16-bit colour with alpha, uncompressed
_SUPPORTED = {"WEBP": WebPImagePlugin.SUPPORTED, "AVIF": AvifImagePlugin.SUPPORTED}
FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if _SUPPORTED.get(name, True))

_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"), "PNG": ("png", "apng"), "WEBP": ("webp",), "GIF": ("gif",), "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"), "AVIF": ("avif", "avifs"),
}  # fmt: skip
EXTENSIONS = frozenset(extension for name in FORMATS for extension in _EXTENSIONS[name])  # of files that can be decoded
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def reading_of(recipe: Recipe) -> Reading:
    """Return the options with which a recipe reads image files."""
    return Reading(recipe.deep, recipe.icc, recipe.formats)


def require_readable(reading: Reading) -> None:
    """Raise `ConfigError` if Pillow lacks a plugin for one of the formats, or lacks LittleCMS and `icc` needs it."""
    missing = [name for name in reading.formats if not _is_registered(name)]
    if missing:
        raise ConfigError(
            f"formats={reading.formats!r}: Pillow has no plugin for {missing[0]!r} in this process: register one first, for "
            f"example "
            f"with pillow_heif.register_heif_opener()"
        )
    if reading.icc != "ignore" and not profile.is_there():
        raise ConfigError(f"icc={reading.icc!r} needs Pillow with LittleCMS, which this build of Pillow lacks")


def _is_registered(name: str) -> bool:
    if name not in Image.OPEN:
        Image.init()  # loads Pillow's own plugins, of which the rare ones are imported last
    return name in Image.OPEN


def extensions_of(formats: tuple[str, ...]) -> frozenset[str]:
    """Return the extensions (without a dot) of all formats that can be decoded: the known ones and the given `formats`."""
    if not formats:
        return EXTENSIONS
    return EXTENSIONS | {ending[1:] for ending, name in Image.registered_extensions().items() if name in formats}


def starts_as_image(data: bytes, formats: tuple[str, ...] = ()) -> bool:
    """Return True if `data`, the first 12 bytes of a file, begin an image in one of `FORMATS` or one of `formats`."""
    brand = data[8:12]
    return (
        data.startswith(_STARTS)
        or (data[:4] == b"RIFF" and brand == b"WEBP")
        or ("AVIF" in FORMATS and data[4:8] == b"ftyp" and brand in (b"avif", b"avis"))
        or any(_accepts(name, data) for name in formats)
    )


def _accepts(name: str, data: bytes) -> bool:
    """Return True if Pillow's plugin for a format accepts the first bytes of a file.

    Return False if the plugin rejects these bytes or cannot check them, or if there is no plugin for the format.
    """
    accept = Image.OPEN[name][1] if _is_registered(name) else None
    try:
        return accept is not None and accept(data) is True
    except MemoryError:
        raise
    except Exception:  # a plugin that needs more bytes
        return False
