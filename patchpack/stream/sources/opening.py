"""The opening of a user's data as a `Source`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchpack.errors import ConfigError, SourceError
from patchpack.image.decode import WHITE, Colour
from patchpack.image.formats import DEFAULT, EXTENSIONS, MAX_BYTES, MAX_PIXELS, Reading
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.labels import MappedReader, MapTarget
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.parsing import parse_members, require_callable, require_unnamed
from patchpack.stream.sample.source import Source
from patchpack.stream.sample.text import TEXT, Tokenize, parse_text
from patchpack.stream.sources.files import image_extensions, is_asked_image
from patchpack.stream.sources.folders import FolderSource
from patchpack.stream.sources.huggingface import converts, is_huggingface, is_plain, undecoded
from patchpack.stream.sources.indexed import IndexSource, is_index
from patchpack.stream.sources.iterables import IterableSource
from patchpack.stream.sources.map_style import MapStyleSource, SizeOf, is_map_style
from patchpack.stream.sources.shards import ShardSource
from patchpack.stream.tar.urls import in_working_folder, is_local

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def open_source(
    source: Any,
    *,
    image: str | Sequence[str] = IMAGE,
    frames: str | None = None,
    clips: bool = False,
    target: str | tuple[str, ...] | None = LABEL,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    background: Colour = WHITE,
    reading: Reading = DEFAULT,
    to_sample: ToSample | None = None,
    map_target: MapTarget | None = None,
    classes: Sequence[str] | None = None,
    sizes: Any = None,
    size_of: SizeOf | None = None,
    text: str = TEXT,
    tokenize: Tokenize | None = None,
) -> Source:
    """Make a `Source` of a user's data.

    Args:
        source: shards (path, brace pattern ``train-{0000..0099}.tar``, glob, URL or ``pipe:`` command, or a list of them), a
            folder, image files (one, a glob, or a list), a map-style dataset (torch, Hugging Face), an iterable of samples,
            an index of shards (image and target were chosen when it was built), or a `Source`, taken unchanged.
        image: extensions of the image member or file, or columns of a row, as a list or separated by ``;``. A pattern
            (``*.jpg``) stands for all members of a sample that match, see `Sample`. If it is left out, a row's image may also
            be in column ``image``, and a folder's images are all files in a format that can be decoded.
        frames: patterns of members, or of columns, that are the frames of a clip, see `load`. Default None.
        clips: True if the recipe takes clips, else they are refused. Default False.
        target: extension of the label member or of the file beside an image, or the column of a row. Several give a dict of
            labels, None gives no labels. If it is left out, a row's label may also be in column ``label``, and the label of an
            image file is the number of its class subfolder.
        max_pixels: limit of pixels per image, checked on the header. Default 64 million.
        max_bytes: limit of an image file, checked before it is read. Default 512 MiB.
        background: colour under a transparent PIL image that is sent to a worker, default white.
        reading: options for reading image files, and PIL images that are sent to a worker.
        to_sample: ``(number, item) -> Sample``, for items that `as_sample` does not know.
        map_target: decoded label → target, e.g. a look-up. An exception in it rejects the sample.
        classes: names of the class folders in the order of their numbers. None takes the folders that exist, sorted.
        sizes: int ``[n, 2]``, heights and widths of a map-style dataset, if they are known. See `MapStyleSource`.
        size_of: number → (height, width), instead of ``sizes``. See `MapStyleSource`.
        text: with ``tokenize``, the extension of the text member or of the file beside the image, or the column of a row.
            ``"json:caption"`` is a field of the JSON object in that member.
        tokenize: text → token ids, stored in `Header.text`. It runs in the process that reads headers.

    Raises:
        SourceError: files are missing, a folder is empty, or the kind of source is unknown.
        ConfigError: image extensions are empty; sizes cannot be used; an index cannot have texts; the recipe or the source does
            not take frames.
    """
    require_callable(map_target=map_target, to_sample=to_sample, size_of=size_of)
    members = parse_members(image, target, max_pixels, max_bytes, frames, clips, reading)
    require_unnamed(members, to_sample)
    members = replace(members, text=parse_text(text, tokenize))
    if isinstance(source, Source):
        opened: Source = source
        for name, asked, given in (("image", image, members.image_given), ("target", target, members.target_given)):
            if given:
                raise ConfigError(
                    f"{name}={asked!r} cannot be used, because {opened.name} is already opened: leave it out, or pass it to "
                    f"open_source"
                )
    elif is_index(source):
        if tokenize is not None:
            raise ConfigError("an index holds no texts, which text_len= needs: load the shards without the index")
        opened = IndexSource(source)
    elif (paths := _paths(source)) is not None:
        if len(paths) == 1 and paths[0].startswith("file://") and os.path.isdir(paths[0][7:]):
            paths = [paths[0][7:]]
        in_folder = len(paths) == 1 and os.path.isdir(paths[0])
        opened = FolderSource(Path(paths[0]), members, classes=classes) if in_folder else _files(paths, members, classes)
    else:
        opened = _items(source, members, background, to_sample, sizes, size_of)
    if to_sample is not None and not isinstance(opened, (MapStyleSource, IterableSource)):
        raise ConfigError(
            f"to_sample= is for the items of a dataset or an iterable, and {opened.name} has no such items: leave it out"
        )
    if classes is not None and not (isinstance(opened, FolderSource) and not isinstance(source, Source)):
        raise ConfigError(f"classes= is for folders of image files, and {opened.name} is not one: leave it out")
    if (sizes is not None or size_of is not None) and not isinstance(opened, MapStyleSource):
        raise ConfigError(
            f"sizes= and size_of= are for datasets with __getitem__, and {opened.name} reads its own sizes: leave them out"
        )
    if frames is not None and (is_index(source) or isinstance(opened, FolderSource)):
        raise ConfigError(
            f"frames={frames!r} needs members of shards or columns of items, and {opened.name} has one image per sample"
        )
    if map_target is not None:
        opened = copy(opened)  # the user's source stays unchanged
        opened.reader = MappedReader(opened.reader, map_target)
    return opened


def _paths(source: Any) -> list[str] | None:
    """Return the paths or patterns that a source consists of, or None if it is something else."""
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, (list, tuple)) and source and all(isinstance(s, (str, os.PathLike)) for s in source):
        # a Path is a file, even if its name looks like a command
        return [s if isinstance(s, str) else _as_file(os.fspath(s)) for s in source]
    return None


def _as_file(path: str) -> str:
    return f".{os.sep}{path}" if path.startswith("pipe:") else path


def _items(
    source: Any, members: SampleFields, background: Colour, to_sample: ToSample | None, sizes: Any, size_of: SizeOf | None
) -> Source:
    """Return a source of items: by number if the object allows it, else in iteration order."""
    if isinstance(source, Mapping):
        raise SourceError(
            f"expected one data set, got a {type(source).__name__} of {', '.join(map(repr, source)) or 'nothing'}: pass one of "
            f"its values"
        )
    if (cure := _of_a_table(source)) is not None:
        kind = type(source)
        raise SourceError(f"a {kind.__module__.partition('.')[0]} {kind.__name__} has columns, not samples: pass {cure}")
    cheap, classes = False, None
    opened: MapStyleSource | IterableSource
    if is_huggingface(source) and to_sample is None:  # the user's function gets the rows in the form that the user knows
        source, members, classes = undecoded(source, members)
        cheap = is_plain(source) and not converts(source)
    if is_map_style(source) or (isinstance(source, (list, tuple)) and (sizes is not None or size_of is not None)):
        opened = MapStyleSource(
            source, members, to_sample=to_sample, background=background, sizes=sizes, size_of=size_of, cheap=cheap
        )
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        opened = IterableSource(source, members, to_sample=to_sample, background=background)
    else:
        raise SourceError(
            f"cannot read samples from a {type(source).__name__}: expected shards, a folder, image files, an iterable of "
            f"patchpack.Sample, or a dataset with __getitem__ and __len__"
        )
    opened.class_names = classes
    return opened


_TABLES = {
    ("pandas", "DataFrame"): 'datasets.Dataset.from_pandas(df), or its rows as dicts, df.to_dict("records")',
    ("polars", "DataFrame"): "datasets.Dataset.from_polars(df), or its rows as dicts, df.to_dicts()",
    ("polars", "LazyFrame"): "its rows as dicts, df.collect().to_dicts()",
    ("pyarrow", "Table"): "datasets.Dataset(table), or its rows as dicts, table.to_pylist()",
}


def _of_a_table(source: Any) -> str | None:
    """Return the cure for a table, which is not a source; None for anything else."""
    for kind in type(source).__mro__:  # a GeoDataFrame is a DataFrame
        cure = _TABLES.get((kind.__module__.partition(".")[0], kind.__name__))
        if cure is not None:
            return cure
    return None


def _files(patterns: list[str], members: SampleFields, classes: Sequence[str] | None) -> Source:
    """Return a source of the shards or the image files behind some patterns, but not of both."""
    urls = [url for pattern in patterns for url in _expand(pattern)]
    remote = next((url for url in urls if "://" in url and _is_picture(url, members)), None)
    if remote is not None:
        raise SourceError(
            f"{remote} is the URL of an image, but single images are read from this machine only: download them, "
            f"or put them into tar shards, which are read from URLs too"
        )
    pictures = [url for url in urls if is_local(url) and not url.lower().endswith(_ARCHIVES)]
    if not pictures:
        return ShardSource(urls, members)
    folders = [url for url in pictures if os.path.isdir(url)]
    if folders:
        raise SourceError(
            f"{folders[0]} is a folder, but a list must hold files: pass one folder, whose subfolders are the classes, or a "
            f"list of files"
        )
    extensions = image_extensions(members)
    strange = [url for url in pictures if os.path.exists(url) and not is_asked_image(Path(url), members, extensions)]
    if strange or len(pictures) < len(urls):
        shown, wanted = (strange or pictures)[0], ";".join(sorted(extensions))
        hint = "; a list holds shards or images, not both" if len(pictures) < len(urls) else ""
        if shown.lower().endswith((".heic", ".heif")):
            hint = "; HEIC needs a plugin of Pillow, see Recipe.formats"
        raise SourceError(f"{shown} is neither a folder nor a tar file ({', '.join(_ARCHIVES)}) nor an image ({wanted}){hint}")
    missing = [url for url in pictures if not os.path.exists(url)]
    if missing:
        raise SourceError(
            f"{len(missing)} of {len(pictures)} files are missing, the first is {missing[0]}{in_working_folder(missing[0])}"
        )
    root = os.path.commonpath([os.path.dirname(os.path.abspath(url)) for url in pictures])
    return FolderSource(Path(root), members, [Path(os.path.abspath(url)) for url in pictures], classes=classes)


def _is_picture(url: str, members: SampleFields) -> bool:
    extension = url.partition("?")[0].partition("#")[0].rpartition("/")[2].rpartition(".")[2].lower()
    return extension in EXTENSIONS or (members.image_given and extension in members.image)


def _expand(pattern: str) -> list[str]:
    if pattern.startswith("pipe:") or os.path.exists(pattern):
        return [pattern]
    parts = pattern.split("::")
    if "{" not in pattern and len(parts) > 1 and all(part.lower().endswith(_ARCHIVES) for part in parts):
        raise SourceError(f"expected one shard or pattern, got {pattern}: pass several shards as a list, {parts!r}")
    if "{" in pattern:
        from webdataset.shardlists import expand_urls  # patterns follow webdataset's rules

        urls: list[str] = expand_urls(pattern)
        return urls
    if is_local(pattern) and glob.has_magic(pattern) and not os.path.exists(pattern):
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise SourceError(f"no file matches {pattern}{in_working_folder(pattern)}")
        return found
    return [pattern]
