"""The pictures on which throughput is measured: in memory as files and as pixels, and enlarged to 12 megapixels."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import patchpack as pp
from patchpack.image.decode import decode
from patchpack.types import Header

SHARDS = "webdataset shards (default: data/photos of the folder that PATCHPACK_TEST_DATA names, else the package's samples)"
_MEGAPIXELS = 12_000_000


def default_shards() -> list[str]:
    """Return the shards in ``data/photos`` of the folder that PATCHPACK_TEST_DATA names.

    Without it, return the package's samples.
    """
    named = os.environ.get("PATCHPACK_TEST_DATA", "")
    photographs = sorted(map(str, Path(named, "data", "photos").glob("*.tar"))) if named else []
    return photographs or list(pp.samples.shards("train"))


@dataclass(frozen=True)
class Pictures:
    """The same pictures as files and as pixels.

    Attributes:
        files: samples whose image is the bytes of a file.
        arrays: samples whose image is uint8 ``[H, W, 3]``, upright.
        pil: loaded Pillow images of mode RGB, as the peers open them. Their EXIF orientation is not applied.
        formats: formats of the files, for `Image.open`.
        lost: number of files that cannot be decoded. None of the lists has them.
    """

    files: list[pp.Sample]
    arrays: list[pp.Sample]
    pil: list[Image.Image]
    formats: tuple[str, ...]
    lost: int

    def __len__(self) -> int:
        return len(self.files)

    def describe(self) -> dict[str, Any]:
        """Return the sizes of files and pictures, and the formats. The measured figures hold for this distribution."""
        kilobytes = [len(sample.image) / 1e3 for sample in self.files]
        megapixels = [sample.image.shape[0] * sample.image.shape[1] / 1e6 for sample in self.arrays]
        return {
            "images": len(self),
            "lost": self.lost,
            "formats": dict(Counter(Image.open(io.BytesIO(sample.image)).format for sample in self.files)),
            "kB, quartiles": [round(float(q), 1) for q in np.quantile(kilobytes, (0.25, 0.5, 0.75))],
            "kB, mean": round(float(np.mean(kilobytes)), 1),
            "megapixels, quartiles": [round(float(q), 3) for q in np.quantile(megapixels, (0.25, 0.5, 0.75))],
            "megapixels, mean": round(float(np.mean(megapixels)), 3),
        }


def read_pictures(shards: Sequence[str], limit: int) -> Pictures:
    """Return the first pictures of the shards, the same number from each shard."""
    each = -(-limit // len(shards))
    files: list[pp.Sample] = []
    for shard in shards:
        source = pp.Planner([shard], pp.recipes.siglip2_naflex()).source
        headers = [event for event in source.scan() if isinstance(event, Header)][:each]
        for header in headers:
            image, target = source.reader(header.location)
            files.append(pp.Sample(header.key, bytes(image), target))
    return pictures_of(files[:limit])


def pictures_of(files: list[pp.Sample]) -> Pictures:
    """Return the files that can be decoded, as files and as pixels."""
    kept, arrays, opened, formats, lost = [], [], [], set(), 0
    for sample in files:
        try:
            pixels = decode(sample.image)
        except pp.errors.DecodeError:
            lost += 1
            continue
        image = Image.open(io.BytesIO(sample.image))
        formats.add(str(image.format))
        opened.append(image.convert("RGB"))
        kept.append(sample)
        arrays.append(pp.Sample(sample.key, pixels, sample.target))
    return Pictures(kept, arrays, opened, tuple(sorted(formats)), lost)


def enlarged(pictures: Pictures, count: int) -> list[pp.Sample]:
    """Return `count` JPEG files of 12 megapixels, 4:3, quality 90.

    A photograph is enlarged to twice its size and repeated, mirrored at its edges. If it were only enlarged, it would be smooth
    and quick to decode. If it were only repeated, it would be as rough as a thumbnail.
    """
    height, width = 3000, _MEGAPIXELS // 3000
    files = []
    for i in range(count):
        image = pictures.pil[i % len(pictures)]
        image = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        Image.fromarray(_mirrored(np.asarray(image), height, width)).save(out, "JPEG", quality=90)
        files.append(pp.Sample(f"large-{i:04d}", out.getvalue(), i))
    return files


def _mirrored(pixels: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    there_and_back = [np.concatenate([np.arange(n), np.arange(n)[::-1]]) for n in pixels.shape[:2]]
    rows, cols = (np.resize(index, n) for index, n in zip(there_and_back, (height, width), strict=True))
    return np.ascontiguousarray(pixels[rows][:, cols])
