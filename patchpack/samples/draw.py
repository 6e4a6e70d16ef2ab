"""Draw the sample shards: ``python -m patchpack.samples.draw [OUTDIR]``, by default into this module's own folder.

Every picture is a formula: a texture in two colours, evaluated at each pixel. Classes and formats are divided evenly within a
shard. The look of a picture comes from a random generator that is seeded by the sample's number. The class decides only the
texture. The same versions of Pillow and numpy write the same bytes.
"""

from __future__ import annotations

import io
import math
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from patchpack.samples import CLASS_NAMES
from patchpack.samples.textures import TEXTURES, Field, Generator

SEED = 2307
# samples per shard; numbers run on from one shard to the next, so no key is used twice
SHARDS = {
    "shapes-train-000000.tar": 140,
    "shapes-train-000001.tar": 140,
    "shapes-train-000002.tar": 140,
    "shapes-val-000000.tar": 100,
}
FORMATS = ("webp", "png", "jpg")

# (height, width) in pixels of images that every shard has, so that both ends of the range occur
EXTREMES = ((24, 144), (144, 24), (24, 24), (150, 900), (900, 150))
# range of the square root of the area of all other images, in pixels; no side is shorter than the shortest side above
SIDE_PX = (48.0, 92.0)
MIN_SIDE_PX = 24
MAX_ASPECT = 6.0
# quality of JPEG and WebP files; it is low, but flat colours still look right
QUALITY = 35

PALETTE = {
    "navy": (29, 53, 87),
    "slate": (38, 70, 83),
    "plum": (95, 15, 64),
    "moss": (64, 83, 54),
    "berry": (155, 58, 77),
    "teal": (42, 130, 135),
    "terracotta": (214, 96, 70),
    "blue": (69, 123, 187),
    "sage": (126, 172, 120),
    "apricot": (240, 160, 92),
    "sand": (236, 200, 108),
    "sky": (168, 214, 220),
    "blush": (250, 200, 206),
    "cream": (246, 240, 224),
}
# least difference in luma, of 255: less is hard to see in a greyscale copy
MIN_CONTRAST = 80.0
LUMA = np.array([0.299, 0.587, 0.114])
WIDE = 1.5
"""Sides that differ by this or more make a picture a wide or a tall one."""


class Spec(NamedTuple):
    """The properties of a sample, before it is drawn.

    Attributes:
        number: number of the sample, which is in its key and seeds its look.
        label: index into `CLASS_NAMES`.
        extension: extension of the file, one of `FORMATS`.
        height: height in pixels, after EXIF orientation.
        width: width in pixels, after EXIF orientation.
        mode: Pillow mode of the file: ``RGB``, ``L``, ``P`` or ``RGBA``. Default ``RGB``.
        turned: True if the picture is stored on its side, with EXIF orientation 6. Default False.
    """

    number: int
    label: int
    extension: str
    height: int
    width: int
    mode: str = "RGB"
    turned: bool = False

    @property
    def key(self) -> str:
        """Name of the sample inside its shard. The name does not tell the class."""
        return f"shape-{self.number:05d}"


def main(arguments: list[str]) -> None:
    """Draw all shards into the folder that `arguments` names, or by default beside this module."""
    if len(arguments) > 1:
        raise SystemExit("usage: python -m patchpack.samples.draw [OUTDIR]")
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    for path in draw(folder):
        print(f"{path}: {path.stat().st_size} bytes")


def draw(folder: Path) -> list[Path]:
    """Write every shard into a folder, and return the paths of the shards. A missing folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    first = 0
    for name, count in SHARDS.items():
        # no compression: the pictures are compressed already, and a shard should be readable by offset
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for spec in deal(first, count):
                _add(tar, f"{spec.key}.{spec.extension}", encode(spec))
                _add(tar, f"{spec.key}.cls", str(spec.label).encode("ascii"))
        paths.append(folder / name)
        first += count
    return paths


def deal(first: int, count: int) -> list[Spec]:
    """Return the properties of the samples of one shard. Each class and each format is equally frequent. The order is random.

    Args:
        first: number of the first sample in the shard.
        count: number of samples in the shard.
    """
    rng = np.random.default_rng([SEED, first, count])
    # every class gets the same share of each format, so the format says nothing about the class
    pairs = [(i % len(CLASS_NAMES), FORMATS[i // len(CLASS_NAMES) % len(FORMATS)]) for i in range(count)]
    order = rng.permutation(count)
    sizes = [*EXTREMES, *(_size(rng) for _ in range(count - len(EXTREMES)))]
    places = rng.permutation(count)
    specs = []
    for i in range(count):
        label, extension = pairs[order[i]]
        height, width = sizes[places[i]]
        specs.append(Spec(first + i, label, extension, height, width))
    return _vary(specs)


def render(spec: Spec) -> Image.Image:
    """Return the picture as it looks after EXIF orientation, in mode ``RGB`` or ``L``."""
    rng = np.random.default_rng([SEED, spec.number])
    ink = _ink(spec, rng)
    paper_colour, ink_colour = _colours(rng)
    pixels = paper_colour + ink[..., None] * (ink_colour - paper_colour)
    if spec.extension != "png":
        # light from one side; in a PNG it would cost more bytes than the picture
        y, x = _coordinates(spec)
        angle = rng.uniform(0, 2 * np.pi)
        light = (x * np.cos(angle) + y * np.sin(angle)) / (spec.height + spec.width)
        pixels = pixels + 40 * light[..., None]
    rgb = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    image = Image.fromarray(rgb)
    return image.convert("L") if spec.mode == "L" else image


def caption(spec: Spec) -> str:
    """Return the description of a picture by shape, texture and colours, such as ``"wide: teal dots on cream"``."""
    rng = np.random.default_rng([SEED, spec.number])
    _ink(spec, rng)  # draws before the colours do
    paper, ink = _colours(rng)
    if spec.mode == "L":
        names = ["dark grey", "light grey"]
        on, under = names if ink @ LUMA < paper @ LUMA else names[::-1]
    else:
        on, under = _colour_name(ink), _colour_name(paper)
    aspect = spec.width / spec.height
    shape = "wide" if aspect >= WIDE else "tall" if aspect <= 1 / WIDE else "squarish"
    return f"{shape}: {on} {CLASS_NAMES[spec.label]} on {under}"


def captions(split: str) -> dict[str, str]:
    """Return a dict from the key of each sample of a split to its `caption`. A key is for example ``"shape-00000"``.

    The split is ``"train"`` or ``"val"``.
    """
    found: dict[str, str] = {}
    first = 0
    for name, count in SHARDS.items():
        if name.startswith(f"shapes-{split}-"):
            found |= {spec.key: caption(spec) for spec in deal(first, count)}
        first += count
    return found


def encode(spec: Spec) -> bytes:
    """Return the bytes of the picture's file."""
    image = render(spec)
    out = io.BytesIO()
    if spec.extension == "jpg":
        exif = Image.Exif()
        if spec.turned:
            exif[ExifTags.Base.Orientation] = 6  # "turn me 90° clockwise", so it is stored turned the other way
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(out, "JPEG", quality=QUALITY, optimize=True, exif=exif)
    elif spec.extension == "png":
        if spec.mode == "P":
            image = image.quantize(16, dither=Image.Dither.NONE)
        elif spec.mode == "RGBA":
            image.putalpha(255)
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


def _vary(specs: list[Spec]) -> list[Spec]:
    """Give some files a rarer form: grey, a palette, an alpha channel, an orientation tag."""
    seen = dict.fromkeys(FORMATS, 0)
    varied = []
    for spec in specs:
        varied.append(spec._replace(mode=_mode(spec.extension, seen[spec.extension])))
        seen[spec.extension] += 1
    if specs[0].number == 0:
        # stripes, because a reader who forgets the tag takes these two classes for each other
        for name in ("horizontal stripes", "vertical stripes"):
            wanted = (CLASS_NAMES.index(name), "jpg")
            at = next(i for i, spec in enumerate(varied) if (spec.label, spec.extension) == wanted)
            varied[at] = varied[at]._replace(turned=True)
    return varied


def _mode(extension: str, nth: int) -> str:
    """Return the Pillow mode of the nth file of its format in a shard."""
    if extension == "png" and nth == 0:
        return "RGBA"
    if extension == "png" and nth % 2 == 1:
        return "P"
    if extension != "webp" and nth % 10 == 4:
        return "L"
    return "RGB"


def _size(rng: Generator) -> tuple[int, int]:
    """Draw a random (height, width) in pixels.

    Areas are uniform on a logarithmic scale, and medium aspect ratios are frequent.
    """
    side = math.exp(rng.uniform(math.log(SIDE_PX[0]), math.log(SIDE_PX[1])))
    limit = math.log(MAX_ASPECT)
    stretch = math.exp(rng.triangular(-limit, 0.0, limit) / 2)
    return max(MIN_SIDE_PX, round(side / stretch)), max(MIN_SIDE_PX, round(side * stretch))


def _colours(rng: Generator) -> tuple[Field, Field]:
    """Draw two random colours near colours of the palette, far enough apart in lightness. Either may be the lighter one."""
    palette = list(PALETTE.values())
    while True:
        pair = np.array([palette[i] for i in rng.choice(len(palette), 2, replace=False)], dtype=np.float64)
        pair = np.clip(pair + rng.uniform(-14, 14, pair.shape), 0, 255)
        luma = pair @ LUMA
        if abs(luma[0] - luma[1]) >= MIN_CONTRAST:
            return pair[0], pair[1]


def _colour_name(colour: Field) -> str:
    """Return the name of the nearest colour of the palette."""
    names, colours = list(PALETTE), np.array(list(PALETTE.values()), dtype=np.float64)
    return names[int(((colours - colour) ** 2).sum(1).argmin())]


def _coordinates(spec: Spec) -> tuple[Field, Field]:
    """Return the row and column of every pixel centre from the middle of the picture, float64 ``[H, W]`` each, in pixels."""
    y, x = np.mgrid[: spec.height, : spec.width].astype(np.float64)
    return y - (spec.height - 1) / 2, x - (spec.width - 1) / 2


def _ink(spec: Spec, rng: Generator) -> Field:
    """Return how much of each pixel has the ink colour, float64 ``[H, W]`` in [0, 1]."""
    texture = TEXTURES[CLASS_NAMES[spec.label]]
    # in units of the root of the area: a resize to a given area then leaves the texture readable, whatever the aspect
    period_px = rng.uniform(*texture.period) * math.sqrt(spec.height * spec.width)
    turn = math.radians(rng.uniform(-texture.tilt, texture.tilt) + texture.angle * rng.choice([-1, 1]))
    y, x = _coordinates(spec)
    v = (x * math.sin(turn) + y * math.cos(turn)) / period_px + rng.uniform(0, 8)
    u = (x * math.cos(turn) - y * math.sin(turn)) / period_px + rng.uniform(0, 8)
    # lines sway a little, as if drawn by hand
    sway = rng.uniform(0.02, 0.05)
    v, u = (
        v + sway * np.sin(1.7 * u + rng.uniform(0, 2 * np.pi)),
        u + sway * np.sin(1.7 * v + rng.uniform(0, 2 * np.pi)),
    )
    depth = texture.depth(v, u, rng)
    # depth is a distance, so an edge is one pixel wide at any scale
    ink = depth if texture.soft else 0.5 + depth * period_px
    ink = np.clip(ink, 0.0, 1.0)
    if spec.extension != "png":
        return ink
    # few levels keep a PNG small
    steps = 8 if texture.soft else 3
    return np.rint(ink * steps) / steps


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # a bare TarInfo carries no time, owner or group, so the archive is the same for everybody
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main(sys.argv[1:])
