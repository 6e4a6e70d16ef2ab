"""Pictures with captions in every kind of source, and the expected text arrays."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import patchpack as pp
from patchpack.batch.unpack import PackedImage

COUNT = 24
TEXT_LEN = 24
RECIPE = pp.Recipe(resize=pp.resize.Native(12, edge="pad"), patch_size=4, seq_len=20, max_images=5, rows_per_batch=2)


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4 * (1 + i % 4), 4 * (1 + i % 3)), (i, 0, 255)).save(file, "png")
    return file.getvalue()


def caption(i: int) -> str:
    """1 to 9 words, and one that is not ASCII."""
    return " ".join(["né", *(f"w{(i * k) % 7}" for k in range(i % 9))])


def tokenize(text: str) -> Sequence[int]:
    """Words as numbers that say the whole word, so that nothing can be taken for another; one of them is 0."""
    return [0 if word == "w0" else 1 + sum(ord(c) * 256**k for k, c in enumerate(word)) for word in text.split()]


def ids(i: int) -> list[int]:
    return list(tokenize(caption(i)))


def members(i: int, kind: str = "txt") -> dict[str, bytes]:
    """A sample of a shard. kind: "txt" or "json", where the caption is; "none" for no caption."""
    found = {"png": png(i), "cls": str(i).encode()}
    if kind == "txt":
        found["txt"] = caption(i).encode()
    if kind == "json":
        found["json"] = json.dumps({"id": i, "caption": caption(i)}).encode()
    return found


def write_tar(path: Path, samples: dict[str, dict[str, bytes]], mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for key, entries in samples.items():
            for extension, data in entries.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def write_folder(folder: Path) -> str:
    for i in range(COUNT):
        (folder / f"{i:03d}.png").write_bytes(png(i))
        (folder / f"{i:03d}.txt").write_bytes(caption(i).encode())
    return str(folder)


def number_of(image: PackedImage) -> int:
    """Which picture it is, from its pixels."""
    return int(image.patches[0][0])


def texts_of(batches: Any) -> dict[int, list[int]]:
    """Tokens by picture; every picture once."""
    images = [image for batch in batches for image in pp.unpack(batch)]
    found = {number_of(image): image.text_ids.tolist() for image in images}
    assert len(found) == len(images)
    return found


def naive_texts(batch: pp.PackedBatch, text_of: dict[str, list[int]], text_len: int) -> tuple[Any, Any]:
    """The two text fields of a batch whose samples are all readable, written down from the words of `PackedBatch`."""
    rows = len(batch.keys)
    token, segment = np.zeros((rows, text_len), np.int32), np.zeros((rows, text_len), np.int32)
    for row, keys in enumerate(batch.keys):
        at = 0
        for slot, key in enumerate(keys):
            first = slot == 0 or batch.sample_ids[row][slot] != batch.sample_ids[row][slot - 1]
            for one in text_of[key] if first else []:
                token[row, at], segment[row, at] = one, slot + 1
                at += 1
    return token, segment
