"""Hugging Face `datasets`: rows with images as file bytes, so that headers are read without decoding the images.

`datasets` is imported only if the source is an object of this library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from patchpack._foreign.datasets import may_have_format
from patchpack.errors import ConfigError, SourceError
from patchpack.stream.sample.field_names import label_names
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.names import nearest

UNDECODED_FIRST = "a streamed data set decodes images before .map: cast its image column to Image(decode=False) before"


def is_huggingface(source: object) -> bool:
    """Return True for an object of the `datasets` library."""
    return type(source).__module__.partition(".")[0] == "datasets"


def undecoded(dataset: Any, members: SampleFields) -> tuple[Any, SampleFields, list[str] | None]:
    """Return the data set with its images as ``{"bytes", "path"}`` and only the requested columns.

    A format (`with_format`, `set_format`) gives the same rows in another type, so rows are read without their format. The data
    set is returned unchanged if a function of the user makes the rows (`with_transform`), or if the columns are not known. A
    column of images with a mode (`Image(mode="L")`) is not changed either, because `datasets` converts images to this mode when
    it decodes them.

    Returns:
        Three values: the data set, the fields to read, and the class names. Suppose that the user named no image, that no
        column has a default name, and that there is exactly one column of images. Then this column is the image in the fields.
        The class names come from the label column. If this column has no class names, None is returned in their place.

    Raises:
        ConfigError: the data set lacks a column that the user named, or has no column for a requested field.
    """
    import datasets

    features = dataset.features
    if features is None:
        return dataset, members, None
    if not isinstance(features, Mapping):
        raise SourceError(
            f"a {type(dataset).__name__} is one column of a data set: pass the data set, and the column's name as image="
        )
    pictures = [name for name, feature in features.items() if _is_picture(feature)]
    dataset = _unformatted(dataset)
    features = dataset.features
    pictures = [name for name in pictures if name in features]
    names = {name.lower() for name in features}
    if not members.image_given and len(pictures) == 1 and not {"image", *members.image} & names:
        members = replace(members, image=(pictures[0].lower(),))
    if is_plain(dataset):
        _require_columns(members, features, pictures)
        for name in pictures:
            if _has_mode(features[name]):
                continue
            stored: Any = datasets.Image(decode=False)
            if not isinstance(features[name], datasets.Image):  # a list of images
                stored = type(features[name])(stored, length=features[name].length)
            dataset = dataset.cast_column(name, stored)
        wanted = {"__key__", "__url__", *members.image, *members.labels}
        wanted.update(() if members.image_given else ("image",))
        wanted.update(("label",) if members.labels and not members.target_given else ())
        wanted.update(members.text.columns if members.text else ())
        wanted |= set(members.frames_of(name.lower() for name in features))
        dataset = dataset.select_columns([name for name in features if name.lower() in wanted])
    return dataset, members, _class_names(features, members)


def _is_picture(feature: Any) -> bool:
    import datasets

    return isinstance(getattr(feature, "feature", feature), datasets.Image)


def _has_mode(feature: Any) -> bool:
    """Return True for a column of images that `datasets` converts to a colour mode, such as ``"L"``."""
    picture = getattr(feature, "feature", feature)
    return getattr(picture, "mode", None) is not None and getattr(picture, "decode", False) is True


def converts(dataset: Any) -> bool:
    """Return True if `datasets` still decodes images in the result of `undecoded`, because their column has a mode."""
    return any(_has_mode(feature) for feature in (dataset.features or {}).values())


def _unformatted(dataset: Any) -> Any:
    """Return a data set of the stored rows without the format, but only with the columns that the format shows.

    If a function makes the rows, the data set is returned unchanged.
    """
    form = getattr(dataset, "format", None)
    if form is None:  # a stream
        return dataset.with_format(None) if may_have_format(dataset) else dataset
    if form["type"] in (None, "custom"):
        return dataset
    columns = list(dataset.column_names if form["output_all_columns"] else form["columns"])
    return dataset.with_format(None).select_columns(columns)


def _class_names(features: Any, members: SampleFields) -> list[str] | None:
    by_name = {name.lower(): feature for name, feature in features.items()}
    usual = () if members.target_given or not members.labels else ("label",)
    found = next((by_name[name] for name in (*members.labels, *usual) if name in by_name), None)
    labels = label_names(members.target)
    return getattr(found, "names", None) if len(labels) == 1 and labels[0].field is None else None


def _require_columns(members: SampleFields, features: Any, pictures: list[str]) -> None:
    names = {name.lower() for name in features}
    has = f"the data set's columns are: {', '.join(features)}"
    frames = members.frames_of(names)
    if members.frames and not frames:
        raise ConfigError(f"frames={';'.join(members.frames)!r} matches no column; {has}")
    usual = () if members.image_given else ("image",)
    if not frames and "__key__" not in names and not any(name in names for name in (*members.image, *usual)):
        shown = f"image={';'.join(members.image)!r} is not a column" if members.image_given else "no column is named 'image'"
        cure = f"; pass image= one of {', '.join(pictures)}" if pictures else "; pass its name as image="
        raise ConfigError(f"{shown}; {has}{nearest(members.image[0], features) or cure}")
    given = [name for name in members.image if name in names] if members.image_given and not frames else []
    if len(given) > 1:
        raise ConfigError(
            f"image={';'.join(members.image)!r} names {len(given)} columns of the data set, {' and '.join(given)}, but only "
            f"one can "
            f"be read. For several images per row use a column with lists of images, or to_sample="
        )
    missing = [label for label in members.labels if label not in names]
    if missing and members.target_given:
        name = next(str(name) for name in label_names(members.target) if name.member == missing[0])
        what = "is not a column" if name == missing[0] else f"needs column {missing[0]!r}"
        raise ConfigError(f"target={name!r} {what}; {has}{nearest(missing[0], features)}")
    if missing and "label" not in names - {name.lower() for name in pictures}:
        raise ConfigError(f"expected the name of the label's column as target=, or target=None for no labels; {has}")
    if members.text is not None and not any(name in names for name in members.text.columns):
        raise ConfigError(f"text={members.text.name!r} is not a column; {has}{nearest(members.text.member, features)}")


def is_plain(dataset: Any) -> bool:
    """Return True for rows in their stored form, without a format or transform."""
    return getattr(dataset, "format", {"type": None})["type"] is None
