"""The function that opens a user's data as a `Source`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy.typing as npt
from typing_extensions import Unpack

from patchpack.errors import ConfigError, SourceError
from patchpack.paint.target_kinds import KindOption, parse_kind
from patchpack.stream.sample.fields import NO_LIMITS, Limits, SampleFields
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.labels import MappedReader, MapTarget
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.options import unknown_option
from patchpack.stream.sample.parsing import parse_members, require_callable, require_unnamed
from patchpack.stream.sample.source import Source
from patchpack.stream.sample.text import TEXT, Tokenize, parse_text
from patchpack.stream.sources.declared import with_kind
from patchpack.stream.sources.file_lists import open_files
from patchpack.stream.sources.folders import FolderSource
from patchpack.stream.sources.huggingface import converts, is_huggingface, is_plain, undecoded
from patchpack.stream.sources.indexed import IndexSource, is_index
from patchpack.stream.sources.iterables import IterableSource
from patchpack.stream.sources.map_style import MapStyleSource, SizeOf, is_map_style
from patchpack.stream.sources.own import OwnSource, checked
from patchpack.stream.sources.refused import refuse_lazy_and_packed
from patchpack.stream.sources.several_folders import FoldersSource
from patchpack.stream.sources.tables import TableSource, open_table


class SourceOptions(TypedDict, total=False):
    """The options of `open_source`. `load`, `Planner` and `replay` take these options too, and pass them on."""

    image: str | Sequence[str]
    frames: str | None
    target: str | tuple[str, ...] | None
    to_sample: ToSample | None
    map_target: MapTarget | None
    classes: Sequence[str] | None
    sizes: npt.ArrayLike | None
    size_of: SizeOf | None
    text: str
    tokenize: Tokenize | None
    target_kind: KindOption
    root: str | os.PathLike[str] | None
    keys: str | None


def open_source(
    source: object,
    *,
    image: str | Sequence[str] = IMAGE,
    frames: str | None = None,
    target: str | tuple[str, ...] | None = LABEL,
    to_sample: ToSample | None = None,
    map_target: MapTarget | None = None,
    classes: Sequence[str] | None = None,
    sizes: npt.ArrayLike | None = None,
    size_of: SizeOf | None = None,
    text: str = TEXT,
    tokenize: Tokenize | None = None,
    target_kind: KindOption = None,
    root: str | os.PathLike[str] | None = None,
    keys: str | None = None,
) -> Source:
    """Return a `Source` of a user's data. The options say which members of every sample are read, and how.

    Args:
        source: the data, in one of these forms: webdataset shards (a path, brace pattern ``train-{0000..0099}.tar``, glob, URL
            or ``pipe:`` command, or a list of these), a folder or a list of folders, image files (one path, a glob, or a list),
            a table with a column of paths (a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, a DataFrame of pandas or
            polars, a pyarrow table), a map-style dataset (torch, Hugging Face), an iterable, an index, or a `Source`.
            The items of an iterable are `Sample`s, webdataset dicts, Hugging Face rows, or pairs (image, target), and their
            images have any form of `Sample.image`: a path, file bytes, an array, … The key of a pair or row is its number, also
            if the image is a path. For an index, `image` and `target` were chosen when the index was built. With a `Source`
            only `map_target` and `target_kind` can be passed, because the source is opened already.
        image: extensions of the image member or file, or columns of a row, as a list or separated by ``;``. A pattern
            (``*.jpg``) stands for all members of a sample that match, see `Sample`. If you leave `image` out, a row's image may
            also be in column ``image``, and a folder's images are all files in a format that can be decoded. For a table,
            `image` names the column of paths. If you leave `image` out for a table, exactly one column must have one of the
            names ``image``, ``file``, ``file_name``, ``filename``, ``path``, ``image_path`` and ``filepath``. A list of paths
            in a cell stands for several images of one sample.
        frames: for a sample in shards or a webdataset dict, patterns of the members (``*.jpg``) that are the frames of a clip.
            Frames are sorted by name, with numbers in names compared by value. For a row, the name of the column that holds the
            frames. A sample without frames is an image. Default None: no clips.
        target: extension of the label member (``cls``, ``txt``, ``json``, ``npy``) or of the file beside an image of a folder,
            or the column of a row. ``"json:label"`` names the field ``label`` of the JSON object in member ``json``. With
            several names the target is a dict of labels by name. None gives unlabelled images. If you pass a name, no other
            name is tried. If you leave `target` out, a row's label may also be in ``label``, and the label of a folder's image
            is the number of its class subfolder. If you leave `target` out for a table, exactly one column must be named
            ``label``, ``class``, ``target`` or ``cls``. The labels of a CSV column are integers if every cell is an integer of
            64 bits. Otherwise they are floats if every cell is a number. Otherwise they are texts.
        to_sample: a function ``(number, item) -> Sample``, for items of any other kind. Default None.
        map_target: a function from the decoded label to the target, such as a look-up. If it raises an error, the sample is
            rejected. Default None.
        classes: names of the class folders in the order of their numbers. Pass them if some class folders may be missing, as in
            a validation split. Default None: the folders that exist, sorted. An image in another folder is rejected.
        sizes: int ``[n, 2]``, height and width in pixels, after EXIF orientation, of every item of a map-style dataset. Every
            item must then be a single image. Default None: the sizes are not known.
        size_of: a function that returns (height, width) for the number of an item at little cost. Pass it instead of `sizes`.
            Default None. Without `sizes` and `size_of`, an item that does not come as file bytes must be decoded to find its
            size. Each worker then plans its own part of the samples, and batches depend on the number of workers.
        text: name of the text, used with ``tokenize``. It is the extension of the text member, or of the text file beside an
            image of a folder, or the column of a row. If a row has no column ``txt``, the default is ``text``.
            ``"json:caption"`` names the field ``caption`` of the JSON object in member ``json``.
        tokenize: a function from a text to its token ids, at least one. Batches then have ``text_ids``. Default None: no texts
            are read. The function runs once per sample and epoch, while headers are read, because a row has room for
            ``text_len`` tokens. It must be picklable if processes are spawned. If it raises an error, the sample is rejected. A
            text with more than ``text_len`` tokens is rejected and never cut, so shorten texts in this function.
        target_kind: kind of all targets, after `map_target`. ``"int"`` and ``"float"`` are numbers, ``("float", (4,))`` is an
            array of this shape, and ``"object"`` is anything: None, texts, lists of any length. For several labels pass a dict
            from the name of each label to its kind. A target of another kind is rejected. Default None: the first readable
            target decides the kind, see `PackedBatch.targets`.
        root: folder that the relative paths of a table start from. Default None: the folder of the table's file, or the working
            folder for a DataFrame.
        keys: name of a table's column of keys, which are texts or integers, different in every row. Default None: the key of a
            row is its path as written, and a row with the path of an earlier row is rejected.

    Raises:
        SourceError: files are missing, a folder or a table is empty, or the kind of source is unknown.
        ConfigError: image extensions are empty, a table lacks a column, sizes cannot be used, or an option does not fit the
            kind of source.
    """
    return open_within(
        NO_LIMITS, source, image=image, frames=frames, target=target, to_sample=to_sample, map_target=map_target,
        classes=classes, sizes=sizes, size_of=size_of, text=text, tokenize=tokenize, target_kind=target_kind, root=root,
        keys=keys,
    )  # fmt: skip


DEFAULTS = {name: one.default for name, one in inspect.signature(open_source).parameters.items() if name != "source"}


def open_within(limits: Limits, source: object, **options: Unpack[SourceOptions]) -> Source:
    """Return a `Source` of a user's data, with the limits of a recipe.

    Args:
        limits: limits of the recipe.
        source: data in any form that `open_source` accepts.
        **options: options of `open_source`.

    Raises:
        SourceError: as in `open_source`.
        ConfigError: as in `open_source`. Or `frames` is given and the recipe takes no clips.
    """
    for name in options:
        if name not in DEFAULTS:  # from a planner or a replay: `load` has checked more names
            raise unknown_option("open_source", name, DEFAULTS)
    given = {name: value for name, value in options.items() if not _is_same(value, DEFAULTS[name])}
    asked: dict[str, Any] = {**DEFAULTS, **options}
    to_sample, map_target, classes, sizes, size_of = (
        asked[name] for name in ("to_sample", "map_target", "classes", "sizes", "size_of")
    )
    if isinstance(source, type) and issubclass(source, Source):
        raise ConfigError(f"{source.__name__} is a class: pass an object of the class, {source.__name__}(...)")
    if isinstance(source, Source):
        source = checked(source)
    require_callable(map_target=map_target, to_sample=to_sample, size_of=size_of)
    kind = parse_kind(asked["target_kind"])
    for name in (name for name in given if name not in ("map_target", "target_kind")):
        if isinstance(source, Source):
            raise ConfigError(f"{name}= cannot be used, because {_why_fixed(source, name)}")
        if is_index(source) and name in ("text", "tokenize"):
            raise ConfigError("an index holds no texts, which tokenize= needs: load the shards without the index")
        if is_index(source):
            raise ConfigError(
                f"{name}= cannot be passed with an index, because it is fixed when the index is built: leave it out"
            )
    if map_target is not None and (isinstance(source, Source) or is_index(source)) and isinstance(source.reader, MappedReader):
        raise ConfigError(f"map_target= cannot be used, because {source.name} was opened with another one: pass one of them")
    if isinstance(source, Source):
        opened = source.within(limits)
        if opened is not source and isinstance(source.reader, MappedReader):
            opened.reader = source.reader.around(opened.reader)
    elif is_index(source):
        opened = IndexSource(source)
    else:
        opened = _opened(limits, source, asked)
    if to_sample is not None and not isinstance(opened, (MapStyleSource, IterableSource)):
        raise ConfigError(
            f"to_sample= is for the items of a dataset or an iterable, and {opened.name} has no such items: leave it out"
        )
    for name in ("root", "keys"):
        if name in given and not isinstance(opened, TableSource):
            raise ConfigError(
                f"{name}= is for tables with a column of paths (a file, or a DataFrame such as dataset.to_pandas()), and "
                f"{opened.name} is not one: leave it out"
            )
    if classes is not None and not isinstance(opened, (FolderSource, FoldersSource)):
        raise ConfigError(f"classes= is for folders of image files, and {opened.name} is not one: leave it out")
    if (sizes is not None or size_of is not None) and not isinstance(opened, MapStyleSource):
        raise ConfigError(
            f"sizes= and size_of= are for datasets with __getitem__, and {opened.name} reads its own sizes: leave them out"
        )
    if asked["frames"] is not None and isinstance(opened, (FolderSource, FoldersSource, TableSource)):
        has = "paths of images" if isinstance(opened, TableSource) else "one image per sample"
        raise ConfigError(
            f"frames={asked['frames']!r} needs members of shards or columns of items, and {opened.name} has {has}"
        )
    if map_target is not None:
        opened = copy(opened)  # the user's source stays unchanged
        opened.reader = MappedReader(opened.reader, map_target)
    return opened if kind is None else with_kind(opened, kind)


def _why_fixed(source: Source, name: str) -> str:
    """Return why an option cannot be passed with a source, and what to do."""
    if isinstance(source, OwnSource):
        return f"{source.name} is a source of your own, and its reader decides what is read: leave {name}= out"
    return f"{source.name} is already opened: leave {name}= out, or pass it to the call of open_source that opened the data"


def _is_same(value: Any, default: Any) -> bool:
    return value is default or (
        isinstance(value, str) and isinstance(default, str) and type(value) is type(default) and value == default
    )


def _opened(limits: Limits, source: object, asked: Mapping[str, Any]) -> Source:
    """Return a source of files or items."""
    members = parse_members(asked["image"], asked["target"], asked["frames"], limits)
    require_unnamed(members, asked["to_sample"])
    members = replace(members, text=parse_text(asked["text"], asked["tokenize"]))
    paths = paths_of(source)
    opened: Source | None = open_table(source, paths, members, asked["root"], asked["keys"])
    if opened is None and paths is not None:
        opened = _open_paths(paths, members, asked["classes"])
    if opened is None:
        opened = _items(source, members, asked["to_sample"], asked["sizes"], asked["size_of"])
    opened.text = members.text
    return opened


def _open_paths(paths: list[str], members: SampleFields, classes: Sequence[str] | None) -> Source:
    """Return a source of the files that paths name."""
    if len(paths) == 1 and paths[0].startswith("file://") and os.path.isdir(paths[0][7:]):
        paths = [paths[0][7:]]
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return FolderSource(Path(paths[0]), members, classes=classes)
    return open_files(paths, members, classes)


def paths_of(source: object) -> list[str] | None:
    """Return the paths or patterns in `source`. Return None if `source` is something else."""
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, (list, tuple)) and source and all(isinstance(s, (str, os.PathLike)) for s in source):
        # a Path is a file, even if its name looks like a command
        return [s if isinstance(s, str) else _as_file(os.fspath(s)) for s in source]
    return None


def _as_file(path: str) -> str:
    return f".{os.sep}{path}" if path.startswith("pipe:") else path


def _items(
    source: object, members: SampleFields, to_sample: ToSample | None, sizes: npt.ArrayLike | None, size_of: SizeOf | None
) -> Source:
    """Return a source of items. Items are read by number if the object allows it, else in iteration order."""
    if isinstance(source, Mapping):
        raise SourceError(
            f"expected one data set, got a {type(source).__name__} of {', '.join(map(repr, source)) or 'nothing'}: pass one of "
            f"its values"
        )
    refuse_lazy_and_packed(source)
    cheap, classes = False, None
    opened: MapStyleSource | IterableSource
    if is_huggingface(source) and to_sample is None:  # the user's function gets the rows in the form that the user knows
        source, members, classes = undecoded(source, members)
        cheap = is_plain(source) and not converts(source)
    if is_map_style(source) or (isinstance(source, (list, tuple)) and (sizes is not None or size_of is not None)):
        opened = MapStyleSource(source, members, to_sample=to_sample, sizes=sizes, size_of=size_of, cheap=cheap)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        opened = IterableSource(source, members, to_sample=to_sample)
    else:
        what = f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"
        raise SourceError(
            f"cannot read samples from {what}: expected shards, a folder, a table, image files, an iterable "
            f"of patchpack.Sample, a dataset with __getitem__ and __len__, an index, or a patchpack.Source"
        )
    opened.class_names = classes
    return opened
