"""What users' pipelines yield, as `Sample`s: webdataset dicts, Hugging Face rows, pairs, and Samples themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from patchpack.errors import DecodeError, SourceError, TargetError
from patchpack.stream.labels import decode_target, join
from patchpack.types import Sample

ToSample = Callable[[int, Any], Sample]
"""(number in the stream, item) → `Sample`; raises `TargetError` or `DecodeError` for one it cannot make out."""


def as_sample(number: int, item: Any, *, image: tuple[str, ...], target: str | tuple[str, ...] | None) -> Sample:
    """The `Sample` an item stands for.

    * `Sample`: itself.
    * webdataset dict (``__key__``): the first of the image extensions that is there; the label member, decoded by extension
      if it is bytes. The shard's file name joins the key where ``__url__`` is known.
    * Hugging Face row (``image`` as a PIL image or as ``{"bytes", "path"}``): the label is column ``target``, or ``label``.
    * pair ``(image, target)``, as torchvision's datasets give.

    Args:
        number: of the item in its stream; the key where the item has none.
        item: what the pipeline yielded.
        image: extensions of the image in a webdataset dict.
        target: name of the label, several for a dict of labels; None for none.

    Raises:
        SourceError: an item that is none of these.
        TargetError: a label that is missing or not what its extension says.
        DecodeError: no image in it, or a path that cannot be read.
    """
    if isinstance(item, Sample):
        return item
    if isinstance(item, Mapping) and "__key__" in item:
        return _from_webdataset(item, image, target)
    if isinstance(item, Mapping) and "image" in item:
        return _from_row(number, item, target)
    if isinstance(item, (tuple, list)) and len(item) == 2 and is_image(item[0]):
        return Sample(str(number), item[0], item[1] if target is not None else None)
    has = f" with {', '.join(map(repr, list(item)[:8]))}" if isinstance(item, Mapping) else ""
    raise SourceError(
        f"item {number} is a {type(item).__name__}{has}: expected a patchpack.Sample, a webdataset dict, a row with an "
        f"'image', or a pair (image, target); or pass to_sample=, a function (number, item) -> patchpack.Sample"
    )


def is_image(value: Any) -> bool:
    """True for what `Sample.image` may be, as far as its type tells."""
    return isinstance(value, (bytes, bytearray, memoryview, Image.Image, np.ndarray))


def _from_webdataset(item: Mapping[Any, Any], image: tuple[str, ...], target: str | tuple[str, ...] | None) -> Sample:
    key = str(item["__key__"])
    if "__url__" in item:
        key = f"{os.path.basename(str(item['__url__']))}/{key}"
    extension = next((e for e in image if e in item), None)
    if extension is None:
        has = ", ".join(str(name) for name in item if not str(name).startswith("__"))
        raise DecodeError(f"no image member ({';'.join(image)}), it has: {has}")
    if target is None:
        return Sample(key, item[extension])
    values = []
    for name in (target,) if isinstance(target, str) else target:
        if name not in item:
            raise TargetError(f"{key}: no label member {name!r}")
        value = item[name]
        values.append(decode_target(name, value) if isinstance(value, bytes) else value)
    return Sample(key, item[extension], join(target, values))


def _from_row(number: int, item: Mapping[Any, Any], target: str | tuple[str, ...] | None) -> Sample:
    picture = item["image"]
    if isinstance(picture, Mapping):  # datasets.Image(decode=False)
        data, path = picture.get("bytes"), picture.get("path")
        if data is None and path is not None:
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError as error:
                raise DecodeError(f"{type(error).__name__}: {error}") from None
        picture = data
    if target is None:
        return Sample(str(number), picture)
    names = (target,) if isinstance(target, str) else target
    columns = ["label"] if len(names) == 1 and names[0] not in item else names
    if any(column not in item for column in columns):
        raise TargetError(f"row {number} has no column {target!r} and no 'label'; it has {', '.join(map(repr, item))}")
    return Sample(str(number), picture, join(target, [item[column] for column in columns]))
