"""Conversion of the items of users' pipelines to `Sample`s: webdataset dicts, Hugging Face rows, pairs, and Samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from patchpack._arrays import UInt8Array
from patchpack._shown import text_of
from patchpack.errors import DecodeError, PatchpackError, SourceError, TargetError
from patchpack.image.picture import frames_of, is_picture, is_several
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import target_of
from patchpack.stream.sample.names import nearest, nearest_member
from patchpack.stream.sample.recognised import described, is_pair, is_surely_picture
from patchpack.stream.sample.text import Text
from patchpack.types import Clip, Sample

if TYPE_CHECKING:
    from patchpack.types import Picture

ToSample = Callable[[int, Any], Sample]
"""(number in the stream, item) → `Sample`; raises `TargetError` or `DecodeError` for an item that it cannot convert."""


def make_sample(number: int, item: object, members: SampleFields, to_sample: ToSample | None) -> Sample:
    """Return the `Sample` of an item, made by `as_sample` or by the user's function.

    Args:
        number: number of the item in its stream.
        item: an item of the pipeline.
        members: names of image, label and text.
        to_sample: ``(number, item) -> Sample``, or None for `as_sample`.

    Raises:
        SourceError: the kind of item is unknown, or the function failed or returned no `Sample`.
        TargetError, DecodeError: raised by `as_sample` or the function.
    """
    if to_sample is None:
        return as_sample(number, item, members)
    try:
        sample = to_sample(number, item)
    except (MemoryError, PatchpackError):
        raise
    except Exception as error:
        raise SourceError(f"to_sample raised {type(error).__name__} for item {number}: {text_of(error)}") from error
    if not isinstance(sample, Sample):
        raise SourceError(f"to_sample must return a patchpack.Sample, got a {type(sample).__name__} for item {number}")
    return sample


def as_sample(number: int, item: object, members: SampleFields) -> Sample:
    """Convert an item of a user's pipeline to a `Sample`. These kinds of item are known:

    * `Sample`: returned unchanged.
    * webdataset dict (with ``__key__``): its image is the member with the first image extension that the dict has. Its label is
      the label member. If the label is bytes, they are decoded by their extension. If the dict has ``__url__``, the shard's
      file name is part of the key.
    * dicts and rows with frames: the members or columns that match ``members.frames`` are the frames of a clip. If only one
      matches, it may also hold a list of all frames.
    * Hugging Face row: its image is the first column of `members.image` that the row has, as a PIL image or as ``{"bytes",
      "path"}``. Its label is the column `members.target`. If the user did not name the image, it may also be in column
      ``image``. If the user did not name the label, it may also be in column ``label``.
    * pair ``(image, target)``, as from torchvision's datasets. If no target is read, the item may also be the image alone,
      ``(image, text)``, or a list of images that belong together.

    An item may have a list of images in place of one image: ``([image, image], target)``. Column names may be in upper or lower
    case. A text is in a member of the dict, or in a column of the row. The default column is ``txt``, or ``text`` if there is
    no ``txt``. An image has any form that `Sample.image` may have.

    Args:
        number: number of the item in its stream. If the item has no key, the number is its key.
        item: an item of the pipeline.
        members: names of image and label: extensions in a webdataset dict, or columns of a row.

    Raises:
        SourceError: the item is of another kind.
        TargetError: a label or a text is missing, or does not have the form of its extension.
        DecodeError: the item has no image.
    """
    if isinstance(item, Sample):
        _refuse_names(number, "a patchpack.Sample", members)
        return item
    image, target = members.image, members.target
    if isinstance(item, Mapping):
        if isinstance(item.get("__key__", ""), (list, tuple)):
            raise SourceError(
                f"item {number} is a batch: its '__key__' is a list of {len(item['__key__'])} keys. Rows are packed from "
                f"single samples, so leave .batched() out of the pipeline, or call .unbatched() after it"
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
        and all(is_surely_picture(one, members.limits.reading.formats, labelled=target is not None) for one in item)
    ):
        if target is not None:
            raise SourceError(
                f"item {number} is a {type(item).__name__} of {len(item)} images without a label. For images that "
                f"belong together pass target=None, or yield ([image, image], label) if they have a label. If the last one "
                f"is the label, yield patchpack.Sample(key, image, label)"
            )
        _refuse_names(number, "a list of images", members)
        return Sample(str(number), list(item))
    elif isinstance(item, (tuple, list)) and is_pair(item, members.limits.reading.formats):
        _refuse_names(number, "a pair", members)
        text = item[1] if members.text is not None and target is None else None
        return Sample(str(number), item[0], item[1] if target is not None else None, text)
    elif target is None and is_picture(item):
        _refuse_names(number, "an image", members)
        return Sample(str(number), item)
    what = described(item)
    if isinstance(item, (tuple, list)) and len(item) != 2:
        what += f", which is {len(item)} members, not a pair"
    elif target is not None and is_picture(item):
        what += " without a label (target=None for unlabelled images)"
    raise SourceError(
        f"item {number} is {what}: expected a patchpack.Sample, a webdataset dict, a row with an 'image' column "
        f"(or another one, given as image=), or a pair (image, target) with the image as a path, file bytes, an array, a "
        f"tensor or a PIL image; or pass to_sample=, a function (number, item) -> patchpack.Sample"
    )


def _refuse_names(number: int, what: str, members: SampleFields) -> None:
    """Raise `SourceError` if the user named an image or a label, but the item is not a dict or row with names."""
    image = f"image={';'.join(members.image)!r}" if members.image_given else ""
    target = f"target={members.target!r}" if members.target_given and members.target is not None else ""
    if image or target:
        given = " and ".join(filter(None, (image, target)))
        raise SourceError(f"item {number} is {what}, which has no names, so {given} cannot be used: leave it out")


def _refuse_unclear(number: int, item: Mapping[object, object], names: Mapping[str, object], members: SampleFields) -> None:
    """Raise an error if two names differ only in case, or if two default names are present and the user chose neither.

    Raises:
        SourceError: two columns may be the image, or a name occurs twice.
        TargetError: two columns may be the label.
    """
    labels = (*members.labels, *(("label",) if members.labels and not members.target_given else ()))
    if len(names) < len(item):
        asked = {*members.image, *labels, *(() if members.image_given else ("image",))}
        for name in asked & names.keys():
            alike = [repr(other) for other in item if str(other).lower() == name]
            if len(alike) > 1:
                raise SourceError(f"item {number} has {' and '.join(alike)}, which differ only in case: rename all but one")
    if "__key__" in item:
        return
    given = [name for name in members.image if name in names] if members.image_given else []
    if len(given) > 1:
        raise SourceError(
            f"item {number} has columns {' and '.join(map(repr, given))}, and image= names both, but only one can be read. For "
            f"several images per row use a column with lists of images, or to_sample="
        )
    if not members.target_given and len(labels) > 1 and all(name in names for name in labels):
        raise TargetError(f"row {number} has columns {' and '.join(map(repr, labels))}: pass the name of the label as target=")
    if not members.image_given and "image" in names and (others := [name for name in members.image if name in names]):
        raise SourceError(f"item {number} has columns 'image' and {others[0]!r}: pass the name of the image's column as image=")


def refuse_batch(number: int, item: object) -> None:
    """Raise `SourceError` for a pair of n images and n labels, which a pipeline's ``.batched(n)`` makes."""
    if not isinstance(item, (tuple, list)) or len(item) != 2 or isinstance(item[1], (str, bytes, Mapping)):
        return
    images, labels = item
    several = is_several(images) or (hasattr(images, "shape") and len(images.shape) == 4)
    if not several or not hasattr(labels, "__len__") or getattr(labels, "shape", None) == ():
        return
    if 0 < len(images) == len(labels):
        pair = (
            f"{len(images)} images and {len(labels)} labels"
            if len(images) > 1
            else "a list of one image and a list of one label"
        )
        raise SourceError(
            f"item {number} is a pair of {pair}, which looks like a batch. Leave .batched() out of the pipeline. For images "
            f"that belong together yield patchpack.Sample(key, images, labels)"
        )


def key_of(item: Mapping[object, object]) -> str:
    """Return the key of a webdataset dict."""
    key = str(item["__key__"])
    return f"{os.path.basename(str(item['__url__']))}/{key}" if "__url__" in item else key


def _from_webdataset(item: Mapping[object, object], names: Mapping[str, object], members: SampleFields) -> Sample:
    key = key_of(item)
    frames = members.frames_of(names)
    found = frames or members.images_of(names)
    if not found:
        has = ", ".join(str(name) for name in item if not str(name).startswith("__"))
        wanted = (*members.frames, *members.image)
        raise DecodeError(
            f"no image member ({';'.join(wanted)}), it has: {has}{nearest_member(wanted, names) if members.image_given else ''}"
        )
    pictures = [_picture(item[names[e]]) for e in found[: None if frames or members.several else 1]]
    picture = _clip(pictures) if frames else pictures[0] if len(pictures) == 1 else pictures
    for name in members.labels:
        if name not in names:
            has = ", ".join(str(name) for name in item if not str(name).startswith("__"))
            raise TargetError(f"no label member {name!r}, it has: {has}{nearest(name, names)}")
    return Sample(key, picture, target_of(members.target, [item[names[name]] for name in members.labels]))


def _from_row(
    number: int,
    item: Mapping[object, object],
    names: Mapping[str, object],
    columns: list[object],
    members: SampleFields,
) -> Sample:
    pictures = [_picture(item[column]) for column in columns]
    picture = _clip(pictures) if members.frames_of(names) else pictures[0]
    labels = members.labels
    if labels and not members.target_given and labels[0] not in names and names.get("label") not in columns:
        labels = ("label",)
    for label in labels:
        if label not in names:
            raise TargetError(
                f"row {number} has no column {label!r}, it has: {', '.join(map(repr, item))}{nearest(label, item)}"
            )
    return Sample(str(number), picture, target_of(members.target, [item[names[label]] for label in labels], decode=False))


def _text(item: Mapping[object, object], names: Mapping[str, object], asked: Text) -> str:
    return asked.of(item[asked.column(names)])


def _clip(frames: list[object]) -> Clip | UInt8Array:
    """Return a clip of these frames. A single element of `frames` may be a list or an array of all frames."""
    if len(frames) == 1 and frames_of(frames[0]) is not None:
        return cast("Clip | UInt8Array", frames[0])
    given = frames[0] if len(frames) == 1 and is_several(frames[0]) else frames
    return Clip(cast("Sequence[Picture]", given))  # each frame is checked when it is read


def _picture(value: object) -> Any:
    """Return the image of a column. A dict ``{"bytes", "path"}``, as from ``datasets.Image(decode=False)``, is unpacked."""
    if is_several(value):
        return [_picture(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    data, path = value.get("bytes"), value.get("path")
    if data is not None:
        return data
    return Path(path) if isinstance(path, str) and "://" not in path else path  # a Path is never base64
