"""Where samples come from: shards, folders, iterables. A source lists headers in order and can fetch what they point at."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from patchpack.errors import ConfigError, DecodeError, PatchpackError, SourceError
from patchpack.paint.decode import MAX_PIXELS, WHITE, Colour, oriented_size, to_rgb
from patchpack.stream.header import read_size, read_size_at
from patchpack.stream.shards import ShardReader, scan_shard, shard_labels
from patchpack.stream.tar import Members
from patchpack.types import Event, Header, Inline, Rejection, Sample, Size

IMAGE_EXTENSIONS = "jpg;jpeg;png;webp"
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Reader(Protocol):
    """Location to pixels and label; picklable, called in workers."""

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """(image, target). Raises `SourceError` or `TargetError`."""
        ...

    def target(self, location: Any) -> Any:
        """The target alone."""
        ...


@runtime_checkable
class Source(Protocol):
    """What `Planner` and `Painter` need of a source of samples."""

    name: str
    reader: Reader

    def scan(self) -> Iterator[Event]:
        """Headers, rejections and container faults, in order; the same order at every call."""
        ...


@runtime_checkable
class PartedSource(Source, Protocol):
    """What a source may add: parts that can be read by themselves (shards), to be permuted and dealt to ranks."""

    num_parts: int

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """As `scan`, of these parts in this order."""
        ...


class ShardSource:
    """Webdataset shards. Keys are ``<shard file name>/<member stem>``."""

    def __init__(self, urls: list[str], members: Members) -> None:
        missing = [url for url in urls if is_local(url) and not os.path.isfile(url)]
        if missing:
            raise SourceError(f"{len(missing)} of {len(urls)} shards are missing, the first is {missing[0]}")
        self.urls, self._members = urls, members
        self.labels = shard_labels(urls)
        self.name = self.labels[0] if len(urls) == 1 else f"{len(urls)} shards ({self.labels[0]} …)"
        self.reader: Reader = ShardReader(urls, members.target)

        self.num_parts = len(urls)

    def scan(self) -> Iterator[Event]:
        """See `Source`."""
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """See `PartedSource`."""
        for number in parts:
            yield from scan_shard(self.urls[number], number, self.labels[number], self._members)


class FolderSource:
    """A folder of image files. Keys are paths relative to it.

    With targets, the first folder below it is the class; indices follow the sorted `class_names`.
    """

    def __init__(self, root: Path, members: Members) -> None:
        self._root, self._members = root, members
        self.name = f"{root.resolve().name}/"
        files = sorted(_visible_files(root))
        self._files = [p for p in files if p.suffix[1:].lower() in members.image]
        if not self._files:
            others = sorted({p.suffix or p.name for p in files})
            raise SourceError(f"{root}: no file with extension {';'.join(members.image)}; it has: {others or 'nothing'}")
        # an empty class folder counts, or the indices of two splits would not mean the same
        self.class_names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if members.target is not None and not self.class_names:
            raise SourceError(f"{root} has no class subfolders to take labels from; pass target=None for unlabelled images")
        self.reader: Reader = FileReader(str(root), self.class_names if members.target is not None else None)

    def scan(self) -> Iterator[Event]:
        """See `Source`."""
        for path in self._files:
            key = path.relative_to(self._root).as_posix()
            if self._members.target is not None and "/" not in key:
                yield Rejection(self.name, key, path.name, "target", "lies beside the class subfolders, not in one")
                continue
            try:
                with open(path, "rb") as file:
                    size = _file_size(file, self._members.max_pixels)
            except DecodeError as error:
                yield Rejection(self.name, key, path.name, "header", str(error))
            except OSError as error:
                yield Rejection(self.name, key, path.name, "read", f"{type(error).__name__}: {error}")
            else:
                yield Header(key, self.name, path.name, size, key)


class FileReader:
    """Relative path to (file bytes, class index)."""

    def __init__(self, root: str, class_names: list[str] | None) -> None:
        self._root = root
        self._classes = None if class_names is None else {name: i for i, name in enumerate(class_names)}

    def __call__(self, location: str) -> tuple[bytes, Any]:
        """See `Reader`."""
        try:
            data = Path(self._root, location).read_bytes()
        except OSError as error:
            raise SourceError(f"{type(error).__name__}: {error}") from None
        return data, self.target(location)

    def target(self, location: str) -> Any:
        """See `Reader`."""
        return None if self._classes is None else self._classes[location.split("/", 1)[0]]


class IterableSource:
    """Any iterable of `Sample`. It is read once, by the planner; images and targets travel in the plans."""

    def __init__(self, samples: Iterable[Sample], max_pixels: int, *, targets: bool = True, background: Colour = WHITE) -> None:
        self._samples, self._max_pixels, self._targets, self._background = samples, max_pixels, targets, background
        self.name = f"{type(samples).__name__} of samples"
        self.reader: Reader = InlineReader()

    def scan(self) -> Iterator[Event]:
        """See `Source`. Raises `SourceError` for an item that is not a `Sample`."""
        seen: set[str] = set()
        for number, sample in enumerate(self._samples):
            if not isinstance(sample, Sample):
                raise SourceError(
                    f"item {number} of {self.name} is a {type(sample).__name__}: wrap it, "
                    f"patchpack.Sample(key=..., image=..., target=...)"
                )
            key = str(sample.key)
            if key in seen:
                yield Rejection("", key, "", "read", "this key came before in the same pass: give every sample its own")
                continue
            seen.add(key)
            try:
                size = size_of(sample.image, self._max_pixels)
            except DecodeError as error:
                yield Rejection("", key, "", "header", str(error))
            else:
                target = sample.target if self._targets else None
                yield Header(key, "", "", size, Passenger(sample.image, target, self._background))


class Passenger:
    """An `Inline` location made by a user: it can always be pickled.

    A plan that cannot be is lost on its way to a worker, and the worker waits for ever. So what does not pickle arrives as
    the error it raised. A PIL image is decoded first: its own pickle forgets what a file says beside its pixels.
    """

    def __init__(self, image: Any, target: Any, background: Colour) -> None:
        self.image, self.target, self._background = image, target, background

    def __reduce__(self) -> tuple[Any, ...]:
        image = self.image
        try:
            if isinstance(image, Image.Image):
                image = np.asarray(to_rgb(image, background=self._background))
            elif isinstance(image, memoryview):
                image = bytes(image)
            return pickle.loads, (pickle.dumps(Inline(image, self.target)),)
        except DecodeError as error:
            return DecodeError, (str(error),)
        except Exception as error:
            return SourceError, (f"cannot be sent to a worker: {type(error).__name__}: {error}",)


class InlineReader:
    """For locations that are the sample itself, or the error it became on its way."""

    def __call__(self, location: Inline | Passenger | PatchpackError) -> tuple[Any, Any]:
        """See `Reader`."""
        if isinstance(location, PatchpackError):
            raise location
        return location.image, location.target

    def target(self, location: Inline | Passenger) -> Any:
        """See `Reader`."""
        return location.target


def open_source(
    source: Any,
    *,
    image: str = IMAGE_EXTENSIONS,
    target: str | None = "cls",
    max_pixels: int = MAX_PIXELS,
    background: Colour = WHITE,
) -> Source:
    """Make a `Source` of what a user has.

    Args:
        source: shards (path, brace pattern ``train-{0000..0099}.tar``, URL or ``pipe:`` command, or a list of them), a folder,
            an iterable of `Sample`, or a `Source`.
        image: extensions of the image member or file, ``;`` between them.
        target: extension of the label member; for folders anything but None takes class subfolders as labels; None for none.
        max_pixels: limit checked on the header.
        background: what a transparent PIL image is laid over before it is sent to a worker.

    Raises:
        SourceError: missing files, an empty folder, or something that is none of these.
        ConfigError: image extensions that are empty.
    """
    if isinstance(source, Source):
        return source
    extensions = tuple(filter(None, (e.strip().lstrip(".").lower() for e in image.split(";"))))
    if not extensions:
        raise ConfigError(f"image must name at least one extension, such as {IMAGE_EXTENSIONS!r}, got {image!r}")
    members = Members(extensions, target.lower().lstrip(".") if target is not None else None, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if os.path.isdir(path):
            return FolderSource(Path(path), members)
        return _shards([path], members)
    if isinstance(source, (list, tuple)) and source and all(isinstance(s, (str, os.PathLike)) for s in source):
        return _shards([os.fspath(s) for s in source], members)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        return IterableSource(source, max_pixels, targets=target is not None, background=background)
    raise SourceError(
        f"cannot read samples from a {type(source).__name__}: expected shards, a folder, or an iterable of patchpack.Sample"
    )


def size_of(image: Any, max_pixels: int) -> Size:
    """Oriented size of what a `Sample` holds. Raises `DecodeError` for anything else, or an image over the limit."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_size(bytes(image), max_pixels=max_pixels)
    if isinstance(image, Image.Image):
        size = oriented_size(image)
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        size = Size(int(image.shape[0]), int(image.shape[1]))
    else:
        got = f"{image.dtype} {list(image.shape)} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise DecodeError(f"expected file bytes, a uint8 [H, W, 3] array or a PIL image, got {got}")
    if not 1 <= size.height * size.width <= max_pixels:
        raise DecodeError(f"{size.height} x {size.width} pixels are not within 1 … max_pixels={max_pixels}")
    return size


def is_local(url: str) -> bool:
    """True for a path on this machine."""
    return "://" not in url and not url.startswith("pipe:")


def _shards(patterns: list[str], members: Members) -> ShardSource:
    urls = []
    for pattern in patterns:
        if "{" in pattern and not pattern.startswith("pipe:"):
            from webdataset.shardlists import expand_urls  # its patterns, its rules

            urls += expand_urls(pattern)
        else:
            urls.append(pattern)
    for url in urls:
        if is_local(url) and os.path.exists(url) and not url.lower().endswith(_ARCHIVES):
            raise SourceError(f"{url} is neither a folder nor a tar file ({', '.join(_ARCHIVES)})")
    return ShardSource(urls, members)


def _visible_files(root: Path) -> Iterator[Path]:
    """Files below a folder, links followed, nothing that is hidden; a folder is entered once, even if links form a ring."""
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        # a link that leads nowhere stays in: reading it will say so
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _file_size(file: Any, max_pixels: int) -> Size:
    length = file.seek(0, os.SEEK_END)

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        data: bytes = file.read(count)
        return data

    return read_size_at(read, length, max_pixels=max_pixels)
