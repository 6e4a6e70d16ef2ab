"""Hugging Face `datasets`: their rows with images as file bytes, so that a header is read and not a picture decoded.

The library is never imported from here unless the object at hand comes from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patchpack.stream.tar import Members


def is_huggingface(source: Any) -> bool:
    """True for an object of the `datasets` library."""
    return type(source).__module__.partition(".")[0] == "datasets"


def undecoded(dataset: Any, members: Members) -> tuple[Any, Members]:
    """The data set with its images as ``{"bytes", "path"}`` and only the columns asked for.

    Left as it is where its rows are not the columns as they are stored (`with_transform`, `set_format`), or where it does not
    know its columns.

    Returns:
        The data set, and `members` that name its image column: the only one, if none of those asked for is there.
    """
    import datasets

    features = dataset.features
    if features is None:
        return dataset, members
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(pictures) == 1 and not {"image", *members.image} & {name.lower() for name in features}:
        members = replace(members, image=(pictures[0].lower(),))
    if is_plain(dataset):
        for name in pictures:
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
        wanted = {"__key__", "__url__", "image", *members.image, *members.labels, *(("label",) if members.labels else ())}
        wanted.update(members.text.columns if members.text else ())
        wanted |= set(members.frames_of(name.lower() for name in features))
        dataset = dataset.select_columns([name for name in features if name.lower() in wanted])
    return dataset, members


def is_plain(dataset: Any) -> bool:
    """True for rows as they are stored, without a format or transform on top."""
    return getattr(dataset, "format", {"type": None})["type"] is None
