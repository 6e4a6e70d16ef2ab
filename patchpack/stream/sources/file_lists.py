"""Patterns and lists of files, which are shards or single images, and lists of folders."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from patchpack.errors import SourceError
from patchpack.image.formats import EXTENSIONS
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.files import image_extensions, is_asked_image
from patchpack.stream.sources.folders import FolderSource
from patchpack.stream.sources.several_folders import FoldersSource
from patchpack.stream.sources.shards import ShardSource
from patchpack.stream.sources.table_files import EXTENSIONS as TABLES
from patchpack.stream.sources.table_files import is_table
from patchpack.stream.tar.urls import in_working_folder, is_local

_OTHER_TABLES = (".json", ".xlsx", ".xls", ".feather", ".arrow", ".orc", ".pkl", ".csv.zip", ".csv.bz2", ".csv.xz")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def open_files(patterns: list[str], members: SampleFields, classes: Sequence[str] | None) -> Source:
    """Return a source of the shards, the image files or the folders that patterns match, but only of one of these kinds.

    Args:
        patterns: paths, URLs, ``pipe:`` commands, brace patterns of webdataset, or glob patterns.
        members: names of image, label and text.
        classes: names of the classes if the files are images in class folders. None: the folders that exist, sorted.

    Raises:
        SourceError: a pattern matches nothing, a file is missing, or the files are of several kinds or of another kind.
    """
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
    if folders and len(folders) == len(urls):
        return FoldersSource(folders, members, classes=classes)
    if folders:
        other = next(url for url in urls if url not in folders)
        raise SourceError(
            f"{folders[0]} is a folder and {other} is not: pass a list of folders, whose subfolders are the classes, or a list "
            f"of files"
        )
    extensions = image_extensions(members)
    strange = [url for url in pictures if os.path.exists(url) and not is_asked_image(Path(url), members, extensions)]
    if strange or len(pictures) < len(urls):
        shown, wanted = (strange or pictures)[0], ";".join(sorted(extensions))
        hint = "; a list holds shards or images, not both" if len(pictures) < len(urls) else ""
        if shown.lower().endswith(".index"):
            hint = f"; a saved index is opened by patchpack.Index.open({shown!r})"
        if shown.lower().endswith((".heic", ".heif")):
            hint = "; HEIC needs a plugin of Pillow, see Recipe.formats"
        if is_table(shown):
            hint = "; a table is passed alone: join several tables, for example with pandas.concat, and pass the DataFrame"
        if shown.lower().endswith(_OTHER_TABLES):
            hint = "; read a table of this kind with pandas, and pass the DataFrame"
        raise SourceError(
            f"{shown} is neither a folder nor a tar file ({', '.join(_ARCHIVES)}) nor a table ({', '.join(TABLES)}) nor an "
            f"image ({wanted}){hint}"
        )
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
