"""What users' pipelines yield, as `Sample`s: webdataset dicts, Hugging Face rows, pairs, and Samples themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from patchpack.errors import DecodeError, PatchpackError, SourceError, TargetError
from patchpack.image.decode import require_bytes
from patchpack.image.formats import starts_as_image
from patchpack.image.picture import frames_of, is_picture, is_several
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import decode_target, join
from patchpack.stream.sample.names import nearest
from patchpack.stream.sample.text import Text
from patchpack.types import Clip, Sample

ToSample = Callable[[int, Any], Sample]
"""(number in the stream, item) → `Sample`; raises `TargetError` or `DecodeError` for one it cannot make out."""


def make_sample(number: int, item: Any, members: SampleFields, to_sample: ToSample | None) -> Sample:
    """The `Sample` an item stands for: `as_sample`, or what the user's function makes of it.

    Raises:
        SourceError: an item of no known kind, or a function that failed or made no `Sample`.
        TargetError, DecodeError: as `as_sample`.
    """
    if to_sample is None:
        return as_sample(number, item, members)
    try:
        sample = to_sample(number, item)
    except (MemoryError, PatchpackError):
        raise
    except Exception as error:
        raise SourceError(f"to_sample raised {type(error).__name__} for item {number}: {error}") from error
    if not isinstance(sample, Sample):
        raise SourceError(f"to_sample made a {type(sample).__name__} of item {number}, expected a patchpack.Sample")
    return sample


def as_sample(number: int, item: Any, members: SampleFields) -> Sample:
    """The `Sample` an item stands for.

    * `Sample`: itself.
    * webdataset dict (``__key__``): the first of the image extensions that is there; the label member, decoded by extension
      if it is bytes. The shard's file name joins the key where ``__url__`` is known.
    * either: the members or columns that fit ``members.frames`` are the frames of a clip, or one of them holds a list of them.
    * Hugging Face row: its image is the first column of ``image`` that is there, as a PIL image or as ``{"bytes", "path"}``;
      its label is column ``target``. Where the user named neither, they may be columns ``image`` and ``label``.
    * pair ``(image, target)``, as torchvision's datasets give; without targets also the image alone, ``(image, text)``, or a
      list of images that belong together.

    Where an image may be, so may a list of images that belong together: ``([image, image], target)``. Column names need not
    match in case. Where text is asked for, it is a member of the dict, or a column of the row (``text`` without ``txt``).

    Args:
        number: of the item in its stream; the key where the item has none.
        item: what the pipeline yielded.
        members: extensions of the image in a webdataset dict, or columns of a row; likewise of the label. A longer file behind
            a path than `SampleFields.max_bytes` is not read.

    Raises:
        SourceError: an item that is none of these.
        TargetError: a label or a text that is missing or not what its extension says.
        DecodeError: no image in it, or a path that cannot be read, or leads to a file over the limit.
    """
    if isinstance(item, Sample):
        _refuse_names(number, "a patchpack.Sample", members)
        return item
    image, target = members.image, members.target
    if isinstance(item, Mapping):
        if isinstance(item.get("__key__", ""), (list, tuple)):
            raise SourceError(
                f"item {number} is a batch: its '__key__' is a list of {len(item['__key__'])} keys. Rows are packed of single "
                f"samples, so leave .batched() out of the pipeline, or call .unbatched() after it"
            )
        names = {str(name).lower(): name for name in item}
        columns = [names[name] for name in members.frames_of(names)]
        usual = () if members.image_given else ("image",)
        _refuse_unclear(number, item, names, members)
        columns = columns or [names[name] for name in (*image, *usual) if name in names][:1]
        if "__key__" in item or columns:
            webdataset = "__key__" in item
            sample = _from_webdataset(item, names, members) if webdataset else _from_row(number, item, names, columns, members)
            return sample if members.text is None else replace(sample, text=_text(item, names, members.text))
    elif (
        isinstance(item, (tuple, list))
        and len(item) > 1
        and all(_is_surely_picture(one, members.reading.formats) for one in item)
    ):
        if target is not None:
            raise SourceError(
                f"item {number} is a {type(item).__name__} of {len(item)} images, and a label is expected. For images that "
                f"belong together pass target=None, or ([image, image], label) where they have a label"
            )
        _refuse_names(number, "a list of images", members)
        return Sample(str(number), list(item))
    elif isinstance(item, (tuple, list)) and len(item) == 2 and _are_pictures(item[0]):
        _refuse_names(number, "a pair", members)
        text = item[1] if members.text is not None and target is None else None
        return Sample(str(number), item[0], item[1] if target is not None else None, text)
    elif target is None and is_picture(item):
        _refuse_names(number, "an image", members)
        return Sample(str(number), item)
    what = _described(item)
    if isinstance(item, (tuple, list)) and len(item) != 2:
        what += f", {len(item)} members where a pair has two"
    elif target is not None and is_picture(item):
        what += " without a label (target=None for unlabelled images)"
    raise SourceError(
        f"item {number} is {what}: expected a patchpack.Sample, a webdataset dict, a row with an 'image' column "
        f"(image= names another), or a pair (image, target) with the image as file bytes, a uint8 [H, W, 3] array or a PIL "
        f"image (not yet a tensor); or pass to_sample=, a function (number, item) -> patchpack.Sample"
    )


def _refuse_names(number: int, what: str, members: SampleFields) -> None:
    """Raise `SourceError` where the user named an image or a label, and the item has no names."""
    image = f"image={';'.join(members.image)!r}" if members.image_given else ""
    target = f"target={members.target!r}" if members.target_given and members.target is not None else ""
    if image or target:
        given = " and ".join(filter(None, (image, target)))
        raise SourceError(f"item {number} is {what}, which has no names, and {given} would not be used: leave it out")


def _refuse_unclear(number: int, item: Mapping[Any, Any], names: Mapping[str, Any], members: SampleFields) -> None:
    """Raise for names that differ in case alone, and for two usual names side by side where the user gave neither.

    Raises:
        SourceError: two columns that could be the image, or the same one twice.
        TargetError: two columns that could be the label.
    """
    labels = (*members.labels, *(("label",) if members.labels and not members.target_given else ()))
    if len(names) < len(item):
        asked = {*members.image, *labels, *(() if members.image_given else ("image",))}
        for name in asked & names.keys():
            alike = [repr(other) for other in item if str(other).lower() == name]
            if len(alike) > 1:
                raise SourceError(f"item {number} has {' and '.join(alike)}, which differ in case alone: rename all but one")
    if "__key__" in item:
        return
    given = [name for name in members.image if name in names] if members.image_given else []
    if len(given) > 1:
        raise SourceError(
            f"item {number} has columns {' and '.join(map(repr, given))}, and image= names both: one of them is read. For "
            f"several images of a row use a column that holds a list of them, or to_sample="
        )
    if not members.target_given and len(labels) > 1 and all(name in names for name in labels):
        raise TargetError(f"row {number} has columns {' and '.join(map(repr, labels))}: pass target= to say which is the label")
    if not members.image_given and "image" in names and (others := [name for name in members.image if name in names]):
        raise SourceError(f"item {number} has columns 'image' and {others[0]!r}: pass image= to say which holds the image")


def refuse_batch(number: int, item: Any) -> None:
    """Raise `SourceError` for a pair of n images and n labels, which a pipeline's ``.batched(n)`` makes."""
    if not isinstance(item, (tuple, list)) or len(item) != 2 or isinstance(item[1], (str, bytes, Mapping)):
        return
    images, labels = item
    several = is_several(images) or (hasattr(images, "shape") and len(images.shape) == 4)
    if not several or not hasattr(labels, "__len__") or getattr(labels, "shape", None) == ():
        return
    if 0 < len(images) == len(labels):
        pair = f"{len(images)} images and {len(labels)} labels" if len(images) > 1 else "a list of one image and one of a label"
        raise SourceError(
            f"item {number} is a pair of {pair}, which looks like a batch. Leave .batched() out of the pipeline; for images "
            f"that belong together yield patchpack.Sample(key, images, labels)"
        )


def _is_surely_picture(value: Any, formats: tuple[str, ...]) -> bool:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return starts_as_image(bytes(value[:12]), formats)
    return isinstance(value, (Image.Image, Clip)) or (
        isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim >= 3 and value.shape[-1] == 3
    )


def _are_pictures(value: Any) -> bool:
    return is_picture(value) or (is_several(value) and bool(value) and all(map(is_picture, value)))


def _described(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"a {type(item).__name__} with {', '.join(map(repr, list(item)[:8]))}"
    if isinstance(item, (tuple, list)):
        return f"a {type(item).__name__} of {', '.join(_described(entry) for entry in item[:4])}"
    if is_picture(item):
        return f"a {type(item).__name__}"
    if hasattr(item, "dtype") and hasattr(item, "shape"):
        return f"a {type(item).__name__} {item.dtype} {list(item.shape)}"
    return f"a {type(item).__name__}"


def key_of(item: Mapping[Any, Any]) -> str:
    """The key of a webdataset dict."""
    key = str(item["__key__"])
    return f"{os.path.basename(str(item['__url__']))}/{key}" if "__url__" in item else key


def _from_webdataset(item: Mapping[Any, Any], names: Mapping[str, Any], members: SampleFields) -> Sample:
    key, target = key_of(item), members.target
    frames = members.frames_of(names)
    found = frames or members.images_of(names)
    if not found:
        has = ", ".join(str(name) for name in item if not str(name).startswith("__"))
        raise DecodeError(f"no image member ({';'.join((*members.frames, *members.image))}), it has: {has}")
    pictures = [_picture(item[names[e]], members.max_bytes) for e in found[: None if frames or members.several else 1]]
    picture = _clip(pictures) if frames else pictures[0] if len(pictures) == 1 else pictures
    if target is None:
        return Sample(key, picture)
    values = []
    for name in (target,) if isinstance(target, str) else target:
        if name not in names:
            has = ", ".join(str(name) for name in item if not str(name).startswith("__"))
            raise TargetError(f"no label member {name!r}, it has: {has}{nearest(name, names)}")
        value = item[names[name]]
        values.append(decode_target(name, value) if isinstance(value, bytes) else value)
    return Sample(key, picture, join(target, values))


def _from_row(
    number: int,
    item: Mapping[Any, Any],
    names: Mapping[str, Any],
    columns: list[Any],
    members: SampleFields,
) -> Sample:
    target, pictures = members.target, [_picture(item[column], members.max_bytes) for column in columns]
    picture = _clip(pictures) if members.frames_of(names) else pictures[0]
    if target is None:
        return Sample(str(number), picture)
    labels = (target,) if isinstance(target, str) else target
    if not members.target_given and labels[0] not in names and names.get("label") not in columns:
        labels = ("label",)
    for label in labels:
        if label not in names:
            raise TargetError(
                f"row {number} has no column {label!r}, it has: {', '.join(map(repr, item))}{nearest(label, item)}"
            )
    return Sample(str(number), picture, join(target, [item[names[label]] for label in labels]))


def _text(item: Mapping[Any, Any], names: Mapping[str, Any], asked: Text) -> str:
    return asked.of(item[asked.column(names)])


def _clip(frames: list[Any]) -> Any:
    """The clip of these frames, or of the one list or array of them."""
    if len(frames) == 1 and frames_of(frames[0]) is not None:
        return frames[0]
    return Clip(frames[0] if len(frames) == 1 and is_several(frames[0]) else frames)


def _picture(value: Any, max_bytes: int) -> Any:
    """What a column holds, taken out of ``{"bytes", "path"}`` as ``datasets.Image(decode=False)`` gives it."""
    if is_several(value):
        return [_picture(one, max_bytes) for one in value]
    if not isinstance(value, Mapping):
        return value
    data, path = value.get("bytes"), value.get("path")
    if data is None and path is not None:
        try:
            with open(path, "rb") as file:
                require_bytes(os.fstat(file.fileno()).st_size, max_bytes)
                data = file.read()
        except OSError as error:
            raise DecodeError(f"{type(error).__name__}: {error}") from None
    return data
