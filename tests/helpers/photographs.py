"""Drawn pictures with the statistics of photographs, encoded in every format of photographs. All follow from a seed.

A scene is a landscape, a still life, pebbles or a facade. It consists of fields with a spectrum of ``1/f**a``, and of objects
with hard edges, shading, texture and power-law sizes. A picture is a part of a scene with sensor noise. `photographs` encodes
96 pictures. `write_shards` writes them as webdataset shards.

Pixels depend on the seed alone. Files also depend on the version of the encoder.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

ORIENTATION = 0x0112
SHARDS = 4
SIZES = [  # height, width of the scenes; a picture is at least four fifths of either side
    (375, 500), (300, 400), (400, 300), (240, 320), (333, 500), (213, 320), (160, 550), (500, 375),
    (480, 640), (200, 200), (281, 500), (96, 128), (320, 240), (600, 256), (360, 480), (150, 200),
    (870, 1160), (300, 300), (256, 256), (500, 333), (112, 84), (300, 450), (128, 192), (427, 320),
]  # fmt: skip
_TILE = 1024  # side of the fields that scenes take windows of; they are periodic

Floats = npt.NDArray[np.float32]


class Encoding(NamedTuple):
    """How a picture is stored.

    Attributes:
        name: what is particular.
        extension: of the file: jpg, png or webp.
        options: for `Image.save`.
        mode: that Pillow opens the file with.
        orientation: of the EXIF tag; the stored pixels are turned so that they look upright.
    """

    name: str
    extension: str
    options: dict[str, Any]
    mode: str = "RGB"
    orientation: int = 1


class Photograph(NamedTuple):
    """A file: its name in a shard, its bytes, its class index and how it is stored."""

    name: str
    data: bytes
    label: int
    encoding: Encoding


def _jpeg(name: str, quality: int, subsampling: str, mode: str = "RGB", orientation: int = 1, **more: Any) -> Encoding:
    options = {"quality": quality, "subsampling": subsampling, **more}
    return Encoding(name, "jpg", options, mode, orientation)


ENCODINGS = [
    _jpeg("usual", 75, "4:2:0"),
    _jpeg("strong", 50, "4:2:0"),
    _jpeg("strongest", 30, "4:2:0"),
    _jpeg("turned 6", 88, "4:2:0", orientation=6),
    _jpeg("good", 85, "4:2:0"),
    _jpeg("progressive", 75, "4:2:0", progressive=True),
    _jpeg("grey", 85, "4:4:4", mode="L"),
    _jpeg("halved across", 80, "4:2:2"),
    _jpeg("full colour", 95, "4:4:4"),
    _jpeg("turned 8", 80, "4:4:4", orientation=8),
    _jpeg("restarts by row", 80, "4:2:0", restart_marker_rows=1),
    Encoding("16 bits", "png", {"compress_level": 1}, mode="I;16"),
    _jpeg("better", 90, "4:2:0"),
    _jpeg("CMYK", 85, "4:2:0", mode="CMYK"),
    _jpeg("turned 3", 75, "4:2:2", orientation=3),
    _jpeg("best", 98, "4:4:4"),
    Encoding("PNG", "png", {"compress_level": 1}),
    _jpeg("progressive, full colour", 92, "4:4:4", progressive=True),
    _jpeg("mirrored", 85, "4:2:0"),  # by 2, 4, 5 or 7, one in a shard
    _jpeg("own tables", 85, "4:2:0", optimize=True),
    Encoding("WebP", "webp", {"quality": 80, "method": 0}),
    _jpeg("restarts by block", 90, "4:2:2", restart_marker_blocks=7),
    _jpeg("very good", 95, "4:2:0"),
    _jpeg("commented", 60, "4:2:2", comment=b"drawn from a seed", dpi=(300, 300)),
]
_MIRRORED = (2, 4, 5, 7)


# ---------------------------------------------------------------------------------------------------------------- drawing


def field(rng: np.random.Generator, slope: float, shape: tuple[int, int] = (_TILE, _TILE)) -> Floats:
    """Return a random field whose power falls as ``1 / f**slope``, of mean 0 and deviation 1; its edges meet."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).astype(np.float32)
    frequency[0, 0] = np.inf
    parts = rng.standard_normal((2, *frequency.shape), dtype=np.float32)
    drawn = np.fft.irfft2((parts[0] + 1j * parts[1]) * frequency ** (-slope / 2), shape).astype(np.float32)
    return drawn / drawn.std()


@cache
def _tile(slope: float, seed: int) -> Floats:
    """Return a field, two times two of it."""
    return np.tile(field(np.random.default_rng([seed, 3, int(10 * slope)]), slope), (2, 2))


class Fields:
    """Windows of three random fields: smooth as light, cloudy, and rough as a texture."""

    def __init__(self, rng: np.random.Generator, seed: int) -> None:
        self._rng, self._seed = rng, seed

    def _window(self, slope: float, height: int, width: int) -> Floats:
        top, left = (int(self._rng.integers(0, 2 * _TILE - side)) for side in (height, width))
        return _tile(slope, self._seed)[top : top + height, left : left + width]

    def light(self, height: int, width: int) -> Floats:
        return self._window(4.0, height, width)

    def clouds(self, height: int, width: int) -> Floats:
        return self._window(3.0, height, width)

    def texture(self, height: int, width: int) -> Floats:
        return self._window(1.6, height, width)


def _colour(rng: np.random.Generator, low: float = 0.1, high: float = 0.8, saturation: float = 0.5) -> Floats:
    """Return a colour: one grey of any brightness, and a share of a hue."""
    grey = rng.uniform(low, high)
    return (grey * (1 + saturation * rng.triangular(-1, 0, 1, 3))).astype(np.float32).clip(0, 1)


def _blend(canvas: Floats, colour: Floats, share: Floats) -> None:
    canvas += share[..., None] * (colour - canvas)


def _solid(
    canvas: Floats, fields: Fields, centre: tuple[float, float], radii: tuple[float, float], angle: float, colour: Floats,
    *, sun: tuple[float, float], texture: float, gloss: float = 0.0, boxy: bool = False,
) -> None:  # fmt: skip
    """Draw an ellipsoid or a box with its light side towards the sun, its edge one pixel wide."""
    reach = max(radii) * (1.5 if boxy else 1.0) + 1
    top, left = (max(0, int(at - reach)) for at in centre)
    part = canvas[top : max(0, int(centre[0] + reach) + 1), left : max(0, int(centre[1] + reach) + 1)]
    if not part.size:
        return
    y = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(left, left + part.shape[1], dtype=np.float32) - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    v, u = (y * cos - x * sin) / np.float32(radii[0]), (y * sin + x * cos) / np.float32(radii[1])
    far = np.maximum(abs(u), abs(v)) if boxy else np.sqrt(u * u + v * v)
    share = ((1 - far) * np.float32(min(radii)) + np.float32(0.5)).clip(0, 1)
    facing = (y * np.float32(sun[0]) + x * np.float32(sun[1])) / np.float32(max(radii))
    shade = 0.62 + 0.38 * facing if boxy else 0.25 + 0.3 * np.sqrt((1 - far * far).clip(0)) + 0.45 * facing
    shade = shade.clip(0.08) * (1 + np.float32(texture) * fields.texture(*share.shape))
    shaded = shade[..., None] * colour
    if gloss:
        shaded += np.float32(gloss) * (facing - far * far * 0.3).clip(0)[..., None] ** 6
    part += share[..., None] * (shaded.clip(0, 1.1) - part)


def _radius(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a radius, small ones more often: as many in an octave as their area shares out."""
    return float((low**-2 + rng.random() * (high**-2 - low**-2)) ** -0.5)


def _sun(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(-2.6, -0.5)
    return float(np.sin(angle)), float(np.cos(angle))


def landscape(rng: np.random.Generator, fields: Fields, height: int, width: int) -> Floats:
    """Sky with clouds, ridges that fade with distance, rough ground with stones or trees."""
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    zenith, haze, cloud = np.float32([0.15, 0.35, 0.7]), _colour(rng, 0.6, 0.9, 0.2), np.float32([0.95, 0.95, 0.93])
    zenith = (zenith * rng.uniform(0.6, 1.2)).astype(np.float32)
    canvas = zenith + (haze - zenith) * (down**0.8)[..., None] + np.zeros((height, width, 1), np.float32)
    _blend(canvas, cloud, (0.4 + 0.5 * fields.clouds(height, width)).clip(0, 1) * (1 - down))
    horizon, sun = rng.uniform(0.25, 0.6), _sun(rng)
    near = _colour(rng, 0.15, 0.35, 0.5)
    ridges = int(rng.integers(3, 6))
    y = np.arange(height, dtype=np.float32)[:, None]
    for ridge in range(ridges):
        distance = 1 - ridge / (ridges - 1)
        line = ((horizon + (1 - distance) * 0.35) * height + height * 0.07 * fields.clouds(1, width)[0]).astype(np.float32)
        top = min(max(0, int(line.min())), height - 1)
        ground = fields.clouds(height - top + 1, width + 1)
        slope = 3 * (ground[1:, 1:] - ground[:-1, :-1])
        grain = fields.texture(height - top, width) * np.float32(0.25 * (1 - distance) + 0.03)
        shade = (np.float32(0.8) + slope + grain).clip(0.1, 1.6)
        colour = (haze * distance * 0.9 + near * (1 - distance * 0.9)).astype(np.float32)
        _blend(canvas[top:], shade[..., None] * colour, (y[top:] - line + np.float32(0.5)).clip(0, 1))
    for _ in range(int(rng.integers(5, 40))):
        row = rng.uniform(horizon + 0.35, 1.05)
        size = _radius(rng, 0.02, 0.12) * height * (row - horizon)
        middle = (row * height, rng.uniform(0, 1) * width)
        radii = (max(1.0, size * rng.uniform(0.7, 1.6)), max(1.0, size))
        _solid(canvas, fields, middle, radii, rng.normal(0, 0.2), _colour(rng, 0.2, 0.5), sun=sun, texture=0.3)
    return canvas


def still_life(rng: np.random.Generator, fields: Fields, height: int, width: int) -> Floats:
    """Shaded balls and boxes with soft shadows on a table, before a wall out of focus."""
    wall, table, sun = _colour(rng, 0.2, 0.8, 0.3), _colour(rng, 0.3, 0.7, 0.4), _sun(rng)
    canvas = (wall * (0.85 + 0.16 * fields.light(height, width))[..., None]).astype(np.float32)
    edge = int(height * rng.uniform(0.3, 0.6))
    boards = (0.9 + 0.1 * fields.light(height, width) + 0.1 * fields.texture(height, width))[edge:]
    canvas[edge:] = table * boards[..., None] * np.linspace(0.75, 1.1, height - edge, dtype=np.float32)[:, None, None]
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    for place in np.sort(rng.uniform(edge / height + 0.05, 0.95, int(rng.integers(4, 12)))):
        size = height * place * rng.uniform(0.06, 0.2)
        foot, middle = height * place, rng.uniform(0, width)
        radii = (size * rng.uniform(0.7, 1.5), size)
        away = ((y - foot) / np.float32(0.3 * size)) ** 2 + ((x - middle + sun[1] * size) / np.float32(1.4 * size)) ** 2
        canvas *= (1 - 0.65 * np.exp(-away))[..., None]
        _solid(
            canvas, fields, (foot - radii[0], middle), radii, rng.normal(0, 0.05), _colour(rng, 0.2, 0.9, 0.7), sun=sun,
            texture=rng.choice([0.03, 0.1, 0.25]), gloss=rng.choice([0.0, 1.5]), boxy=bool(rng.random() < 0.35),
        )  # fmt: skip
    return canvas


def pebbles(rng: np.random.Generator, fields: Fields, height: int, width: int) -> Floats:
    """Pebbles over pebbles, of all sizes: the dead leaves model, whose occlusions give the spectrum of photographs."""
    base, sun = _colour(rng, 0.2, 0.5, 0.6), _sun(rng)
    canvas = (base * 0.5 * (1 + 0.3 * fields.clouds(height, width))[..., None]).astype(np.float32).clip(0, 1)
    light = 1 + 0.35 * fields.light(height, width)
    side = min(height, width)
    for _ in range(330):
        size = _radius(rng, max(1.5, 0.025 * side), 0.4 * side)
        middle = (rng.uniform(0, height), rng.uniform(0, width))
        colour = (base * rng.uniform(0.6, 1.9) * (1 + 0.25 * rng.uniform(-1, 1, 3))).astype(np.float32)
        radii = (size, max(1.0, size * rng.uniform(0.3, 0.9)))
        _solid(canvas, fields, middle, radii, rng.uniform(0, np.pi), colour, sun=sun, texture=0.16)
    return canvas * light[..., None]


def facade(rng: np.random.Generator, fields: Fields, height: int, width: int) -> Floats:
    """A wall of windows with frames, sills and their shadows, under a plain sky."""
    sky, wall, frame = _colour(rng, 0.6, 0.9, 0.2), _colour(rng, 0.3, 0.7, 0.35), _colour(rng, 0.6, 0.9, 0.1)
    canvas = (sky * (1 + 0.03 * fields.light(height, width))[..., None]).astype(np.float32)
    roof = int(height * rng.uniform(0.05, 0.25))
    plaster = 0.9 + 0.12 * fields.light(height, width) + 0.12 * fields.texture(height, width)
    canvas[roof:] = wall * plaster[roof:, :, None]
    courses = max(4, height // int(rng.integers(40, 90)))
    canvas[roof::courses] *= np.float32(0.75)
    rows, cols = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    step = (height - roof) / rows, width / cols
    tall, wide = step[0] * rng.uniform(0.45, 0.7), step[1] * rng.uniform(0.35, 0.6)
    for row in range(rows):
        for col in range(cols):
            top, left = int(roof + (row + 0.2) * step[0]), int((col + 0.25) * step[1])
            bottom, right = int(top + tall), int(left + wide)
            border = max(1, int(wide / 12))
            canvas[top + border : bottom + 2 * border, left + border : right + 2 * border] *= np.float32(0.55)  # the shadow
            canvas[top:bottom, left:right] = frame
            glass = canvas[top + border : bottom - border, left + border : right - border]
            if glass.size:
                seen = (0.35 + 0.25 * fields.clouds(*glass.shape[:2])).clip(0.02, 1)
                glass[:] = sky * seen[..., None] * np.float32(rng.uniform(0.4, 1.1))
                glass[:, glass.shape[1] // 2 : glass.shape[1] // 2 + border] = frame
    return canvas


@cache
def scene(number: int, seed: int) -> Floats:
    """Return a scene of the size of its number, float32 ``[H, W, 3]`` in 0 … 255, without noise."""
    rng = np.random.default_rng([seed, 0, number])
    height, width = SIZES[number]
    draw = (landscape, still_life, pebbles, facade)[(number + number // 4) % 4]
    canvas = draw(rng, Fields(rng, seed), height, width)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    canvas = canvas * (1 - np.float32(0.12) * (y * y + x * x))[..., None]  # the corners of a lens are dark
    for seen in (canvas, canvas.swapaxes(0, 1)):  # and it is never quite sharp
        seen[1:-1] = 0.76 * seen[1:-1] + 0.12 * (seen[2:] + seen[:-2])
    low, high = np.quantile(canvas[::4, ::4], (0.005, 0.99)).astype(np.float32)
    return np.float32(255) * ((canvas - low) / (high - low)).clip(0, 1)


@cache
def _noise(seed: int) -> Floats:
    """Return normal noise that the colours share most of; pictures take parts of it."""
    drawn = np.random.default_rng([seed, 2]).standard_normal((1_500_000, 4), dtype=np.float32)
    return drawn[:, :1] + np.float32(0.4) * drawn[:, 1:]


def pixels(number: int, seed: int = 0) -> Floats:
    """Return a picture as one looks at it: a part of a scene, perhaps mirrored, with sensor noise; float32 in 0 … 255."""
    rng = np.random.default_rng([seed, 1, number])
    whole = scene((number * 7 + number // len(SIZES)) % len(SIZES), seed)
    height, width = (int(side * rng.uniform(0.8, 1.0)) for side in whole.shape[:2])
    top, left = (int(rng.integers(0, side + 1)) for side in (whole.shape[0] - height, whole.shape[1] - width))
    part = whole[top : top + height, left : left + width]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    # photons are counted, so that the noise grows with the root of the light
    strength = np.float32(rng.choice([0.6, 1.5, 3.0, 6.0])) * np.sqrt(np.float32(0.15) + part[..., 1:2] / np.float32(255))
    pool = _noise(seed)
    start = int(rng.integers(0, len(pool) - height * width))
    noise = pool[start : start + height * width].reshape(height, width, 3)
    return (part + strength * noise).clip(0, 255)


# ---------------------------------------------------------------------------------------------------------------- storing


def stored(upright: Floats, mode: str, orientation: int = 1) -> Image.Image:
    """Return the image that is written for what is to be seen."""
    if mode == "I;16":
        grey = upright @ np.float32([0.299, 0.587, 0.114])
        return Image.fromarray(np.rint(grey * 257).clip(0, 65535).astype(np.uint16))
    image = Image.fromarray(np.rint(upright).astype(np.uint8)).convert(mode)
    # what undoes the turn that the tag asks for
    turn = Image.Transpose
    undone = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
        7: turn.TRANSVERSE, 8: turn.ROTATE_270,
    }  # fmt: skip
    return image.transpose(undone[orientation]) if orientation != 1 else image


def encode(upright: Floats, encoding: Encoding) -> bytes:
    """Return the file."""
    file, options = io.BytesIO(), dict(encoding.options)
    if encoding.orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = encoding.orientation
    format = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[encoding.extension]
    stored(upright, encoding.mode, encoding.orientation).save(file, format, **options)
    return file.getvalue()


@cache
def photographs(seed: int = 0) -> Sequence[Photograph]:
    """Return every encoding of another picture, four times over; labels are their numbers."""
    found = []
    for number in range(SHARDS * len(ENCODINGS)):
        shard, place = divmod(number, len(ENCODINGS))
        encoding = ENCODINGS[(place + 5 * shard) % len(ENCODINGS)]  # each place of a shard has another one
        if encoding.name == "mirrored":
            encoding = encoding._replace(orientation=_MIRRORED[shard])
        data = encode(pixels(number, seed), encoding)
        found.append(Photograph(f"{number:03}.{encoding.extension}", data, number, encoding))
    return found


def write_shards(folder: Path, seed: int = 0) -> list[str]:
    """Write the photographs as shards of an image, a ``.cls`` and a ``.json`` each; return their paths."""
    found, each = photographs(seed), len(ENCODINGS)
    paths = []
    for shard in range(SHARDS):
        paths.append(str(folder / f"drawn-{shard:06}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for photo in found[shard * each : (shard + 1) * each]:
                stem, _, extension = photo.name.partition(".")
                told = json.dumps({"encoding": photo.encoding.name, "text": "a drawn picture, " * (photo.label % 5)})
                for name, data in ((extension, photo.data), ("cls", b"%d" % photo.label), ("json", told.encode())):
                    info = tarfile.TarInfo(f"{stem}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return paths


def files_in(shards: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every image file of the shards, by the tar files alone."""
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")):
                    yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]  # a regular file
