"""Sources of every kind, made from seeds in the working folder; paths are relative, because some draws follow the path."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import webdataset
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from helpers.behaviour import names

COUNT = 40
SHARDS = 4
TEXT_LEN = 32

_ORIENTATION = 0x0112
_ENCODINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("png", "RGB", {}),
    ("jpg", "RGB", {"quality": 90}),
    ("jpg", "L", {"quality": 80}),
    ("png", "RGBA", {}),
    ("webp", "RGB", {"lossless": True}),
    ("png", "P", {}),
    ("jpg", "CMYK", {"quality": 85}),
    ("png", "LA", {}),
    ("jpg", "RGB", {"quality": 75, "subsampling": 2, "turn": 6}),
    ("png", "I;16", {}),
)


@cache
def picture(i: int) -> Image.Image:
    """Return a picture of its own size with edges and a gradient, RGB."""
    rng = np.random.default_rng([7, i])
    height, width = (int(rng.integers(9, 97)) for _ in range(2))
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * y / height, 255 * x / width, 8 * ((x // 5 + y // 7 + i) % 32)], axis=-1)
    pixels += rng.normal(0, 12, (height, width, 1))
    top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
    pixels[top : top + height // 3, left : left + width // 3] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@cache
def encoded(i: int) -> tuple[str, bytes]:
    """Return the extension and the bytes of a picture as a file, each in another encoding."""
    extension, mode, options = _ENCODINGS[i % len(_ENCODINGS)]
    options = dict(options)
    image = picture(i)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.asarray(picture(i + 1).convert("L").resize(image.size))))
    else:
        image = image.convert(mode)
    if turn := options.pop("turn", 0):
        options["exif"] = Image.Exif()
        options["exif"][_ORIENTATION] = turn
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension], **options)
    return extension, file.getvalue()


def caption(i: int) -> str:
    """Return 1 to 6 words."""
    return " ".join(["né", *(f"w{i * k % 7}" for k in range(i % 6))])


def tokenize(text: str) -> list[int]:
    """Return a number for each word."""
    return [sum(ord(letter) * 31**k for k, letter in enumerate(word)) % 30_000 for word in text.split()]


def members(i: int) -> dict[str, bytes]:
    """Return the files of a sample in a shard."""
    extension, data = encoded(i)
    told = {"caption": caption(i), "id": i}
    return {extension: data, "cls": b"%d" % (3 * i), "txt": caption(i).encode(), "json": json.dumps(told).encode()}


def write_tar(path: str, samples: dict[str, dict[str, bytes]]) -> str:
    """Write a shard, compressed if its name says so."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for key, entries in samples.items():
            for extension, data in entries.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(gzip.compress(data, 1, mtime=0) if path.endswith("gz") else data)
    # an index remembers when a file was written
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def shards(suffix: str = "tar", make: Callable[[int], dict[str, bytes]] = members, name: str = "shards") -> list[str]:
    """Write all samples, dealt to shards."""
    paths = [f"{name}-{suffix.replace('.', '-')}/s-{n:03d}.{suffix}" for n in range(SHARDS)]
    for n, path in enumerate(paths):
        if not os.path.exists(path):
            write_tar(path, {f"{i:03d}": make(i) for i in range(n, COUNT, SHARDS)})
    return paths


def pattern() -> str:
    """Write the shards and return a pattern of their names."""
    shards()
    return f"shards-tar/s-{{000..{SHARDS - 1:03d}}}.tar"


def folder(*, classes: bool = True) -> str:
    """Write all pictures as files, with a text beside each; in folders by class, if asked for."""
    root = Path("classes" if classes else "flat")
    if root.exists():
        return str(root)
    for i in range(COUNT):
        extension, data = encoded(i)
        path = root / (f"class-{i % 3}" if classes else "") / f"{i:03d}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(caption(i), encoding="utf-8")
        path.with_suffix(".cls").write_text(str(3 * i))
    (root / "notes.md").write_text("not an image")
    return str(root)


def files() -> list[str]:
    """Write all pictures and return their paths, in another order than sorted."""
    return sorted(map(str, Path(folder(classes=False)).glob("*.[jpw][pne][gb]*")))[::-1]


class Pictures(Dataset[Any]):
    """A torch dataset of pairs: a picture and its class."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        return picture(i), 3 * i


class Seeded(Pictures):
    """A torch dataset whose labels are drawn when they are read: in a worker, from its own seeds."""

    def __getitem__(self, i: int) -> Any:
        return picture(i), int(np.random.randint(1 << 30))  # noqa: NPY002  the global state is what is asked about


class Stored(Pictures):
    """A torch dataset of pairs: the bytes of a file and its class."""

    def __getitem__(self, i: int) -> Any:
        return encoded(i)[1], 3 * i


class Odd(Pictures):
    """A torch dataset of items that only the user knows."""

    def __getitem__(self, i: int) -> Any:
        return {"photo": picture(i), "answer": 3 * i}


class Stream(IterableDataset[Any]):
    """An iterable whose items are made anew at every pass."""

    def __init__(self, make: Callable[[int], Any], count: int = COUNT) -> None:
        self._make, self._count = make, count

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, range(self._count))


def sizes() -> Any:
    """Return height and width of every picture."""
    return np.array([picture(i).size[::-1] for i in range(COUNT)])


def size_of(i: int) -> tuple[int, int]:
    """Return height and width of one picture."""
    width, height = picture(i).size
    return height, width


def sample(i: int, *, text: bool = False) -> Any:
    """Return a sample of the library."""
    return names.find("Sample")(f"s{i}", encoded(i)[1], 3 * i, caption(i) if text else None)


def with_text(i: int) -> Any:
    """Return a sample with a caption."""
    return sample(i, text=True)


def to_sample(number: int, item: Any) -> Any:
    """Make a sample of an item that only the user knows."""
    return names.find("Sample")(f"own-{number}", item["photo"], {"class": item["answer"], "weight": item["answer"] / 7})


def webdataset_dict(i: int) -> Any:
    """Return what webdataset yields without decoding."""
    return {"__key__": f"k{i}", **members(i)}


def row(i: int) -> Any:
    """Return a row as Hugging Face's datasets have them."""
    return {"image": {"bytes": encoded(i)[1], "path": None}, "label": 3 * i, "text": caption(i)}


def pair(i: int) -> Any:
    """Return a picture and its class."""
    return picture(i), 3 * i


@cache
def huggingface() -> Any:
    """Return a dataset of Hugging Face with an image and a label column."""
    rows = [row(i) for i in range(COUNT)]
    columns = {name: [one[name] for one in rows] for name in rows[0]}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def pipeline() -> Any:
    """Return a webdataset pipeline over the shards, undecoded."""
    return webdataset.WebDataset(shards(), shardshuffle=False)


def index(make: Callable[[], list[str]] = shards) -> Any:
    """Return an index of the shards."""
    return names.call("build_index", make())


# label → (how it is made, words for `load`)
SOURCES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "shards": (shards, {}),
    "shards by pattern": (pattern, {"target": ("cls", "json")}),
    "gz shards": (partial(shards, "tar.gz"), {}),
    "index": (index, {}),
    "folder": (folder, {}),
    "flat folder": (partial(folder, classes=False), {"target": None}),
    "files": (files, {"target": "cls"}),
    "dataset": (Pictures, {}),
    "dataset with sizes": (Pictures, {"sizes": "sizes"}),
    "dataset with size_of": (Pictures, {"size_of": size_of}),
    "dataset of bytes": (Stored, {}),
    "odd dataset": (Odd, {"to_sample": to_sample}),
    "huggingface": (huggingface, {}),
    "huggingface stream": (lambda: huggingface().to_iterable_dataset(num_shards=2), {}),
    "samples": (lambda: list(map(sample, range(COUNT))), {}),
    "webdataset dicts": (partial(Stream, webdataset_dict), {}),
    "rows": (partial(Stream, row), {"target": None}),
    "pairs": (partial(Stream, pair), {}),
    "webdataset": (pipeline, {}),
}
SEEKABLE = (
    "shards",
    "index",
    "folder",
    "files",
    "dataset with sizes",
    "huggingface",
    "samples",
    "gz shards",
    "dataset",
    "rows",
)


def source(kind: str) -> tuple[Any, dict[str, Any]]:
    """Return a source and the words that `load` needs for it."""
    make, words = SOURCES[kind]
    return make(), {word: sizes() if value == "sizes" else value for word, value in words.items()}
