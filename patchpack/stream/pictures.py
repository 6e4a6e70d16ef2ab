"""``patchpack.pack_images``: a list of images to batches, for inference; whatever holds an image is one."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, SourceError
from patchpack.image.formats import reading_of
from patchpack.image.picture import is_picture, is_several
from patchpack.plan.recipe import Recipe
from patchpack.report import Rejection, Report
from patchpack.stream.load import load
from patchpack.stream.loader import Loader
from patchpack.stream.planning.probe import require_recipe
from patchpack.stream.policy import OnError
from patchpack.stream.sample.names import IMAGE
from patchpack.stream.sample.source import Reader
from patchpack.stream.sources.folders import FileReader, scan_file
from patchpack.stream.sources.iterables import NO_IMAGES, InlineReader, carried, is_split
from patchpack.stream.sources.opening import parse_members
from patchpack.stream.workers.exits import closed_at_exit
from patchpack.types import Event, Header, Sample


class ImageBatches:
    """Batches of a list of images. Made by `pack_images`."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __repr__(self) -> str:
        return f"ImageBatches({self._loader!r})"

    def __iter__(self) -> Iterator[PackedBatch]:
        """Torch batches; none where there is no image, or none that can be used.

        Raises:
            PatchpackError: under ``on_error="raise"`` the first image that cannot be used, by its key.
            ConfigError: fewer or more keys than images.
        """
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[PackedBatch, None, None]:
        try:
            yield from self._loader
        except SourceError as error:
            # not one usable image is an error to a training run, and an answer to who asked about these images
            if error is not self._loader.fatal:
                raise

    def report(self) -> Report:
        """The account up to the last batch: ``report().rejected`` names the images that are in none, and says why."""
        return self._loader.report()


def pack_images(
    images: Any,
    recipe: Recipe,
    *,
    keys: Iterable[str] | None = None,
    on_error: OnError = "raise",
    num_workers: int = 0,
    num_threads: int = 0,
    **dataloader_options: Any,
) -> ImageBatches:
    """Images to packed batches, for inference.

    Images wait until they fill rows well, so they do not come out in the order they went in: `unpack` says whose is what.
    They are read one after the other, as batches are asked for; of a generator only those that wait are held, and of paths
    nothing but the path until the image is painted.

    Args:
        images: an iterable of paths, PIL images, uint8 arrays or tensors ``[H, W, 3]`` or ``[3, H, W]``, file bytes, clips
            (`Clip`, or an axis of frames in front, for a recipe with `video`), or `Sample`s, in any mixture; a mapping of keys
            to them; or one of them, but no array of four axes. A list among them is one sample: images that belong together,
            in one row, under one key.
        recipe: what to do with them; ``recipe.for_eval()`` draws and drops nothing.
        keys: of the images; None for a path as it is given, for a sample's own, else for the image's number, from 0.
        on_error: ``"raise"``, ``"skip"``, or a function of a `Rejection`, see `load`. There is no fuse.
        num_workers, num_threads: that paint, see `load`.
        **dataloader_options: see `load`.

    Returns:
        An iterable of torch `PackedBatch`es with a `report`.

    Raises:
        ConfigError: at construction, for anything that cannot work later.

    Example:
        for batch in pp.pack_images(paths, recipe.for_eval(), on_error="skip"):
            for key, vector in pp.unpack(batch, model(batch)):
                ...
    """
    if isinstance(images, Mapping):
        if keys is not None:
            raise ConfigError("images by key have keys: leave keys= out")
        keys, images = images.keys(), images.values()
    elif _is_one(images):
        images = [images]
    elif not isinstance(images, Iterable):
        raise ConfigError(f"images is an iterable of images, got a {type(images).__name__}")
    for name in ("fuse", "rank", "world_size"):
        if name in dataloader_options:
            raise ConfigError(f"{name}= is no option of pack_images, which paints all images in this process")
    source = PictureSource(images, keys, require_recipe(recipe))
    loader = load(
        source,
        recipe,
        on_error=on_error,
        num_workers=num_workers,
        num_threads=num_threads,
        fuse=None,
        rank=0,  # these images are this process's own
        world_size=1,
        **dataloader_options,
    )
    return ImageBatches(loader)


class PictureSource:
    """A `Source` of images in any form. Paths are looked at twice: at their header, and when they are painted."""

    scan_here = True  # a generator cannot be sent to another process

    def __init__(self, images: Iterable[Any], keys: Iterable[str] | None, recipe: Recipe) -> None:
        self._images, self._keys = images, keys
        clips, reading = recipe.video is not None, reading_of(recipe)
        self._members = parse_members(IMAGE, None, recipe.max_pixels, recipe.max_bytes, clips=clips, reading=reading)
        self._background = recipe.background
        self.name = "images"
        self.is_split = is_split(images)
        self.reader: Reader = PictureReader(recipe.max_bytes)

    def scan(self) -> Iterator[Event]:
        """See `Source`. Raises `ConfigError` for another number of keys than of images."""
        seen: set[str] = set()
        given = None if self._keys is None else iter(self._keys)
        number = -1
        for number, item in enumerate(self._images):
            name = _key_of(item, number) if given is None else next(given, None)
            if name is None:
                raise ConfigError(f"there are {number} keys, and more images: give every image a key, or none")
            key = str(name)
            if key in seen:
                yield Rejection("", key, "", "read", "this key came before: give every image its own by keys=")
                continue
            seen.add(key)
            yield self._event(key, item)
        if given is not None and next(given, None) is not None:
            raise ConfigError(f"there are {number + 1} images, and more keys: give every image a key, or none")

    def _event(self, key: str, item: Any) -> Header | Rejection:
        image = item.image if isinstance(item, Sample) else item
        if isinstance(image, (str, os.PathLike)):
            path = os.fspath(image)
            return scan_file(Path(path), key, "", path, self._members)
        if not is_several(image):
            return carried(key, Sample(key, channels_last(image)), self._members, self._background)
        parts: list[Header] = []
        for number, one in enumerate(image):
            inner = one.image if isinstance(one, Sample) else one
            if is_several(inner):  # its other images would be lost
                return Rejection("", key, f"[{number}]", "header", "a list in a list of images: give all of them in one")
            event = self._event(key, one)
            if isinstance(event, Rejection):
                return event._replace(member=f"[{number}]")
            parts.append(event._replace(part=number, member=f"[{number}]"))
        return parts[0]._replace(rest=tuple(parts[1:])) if parts else Rejection("", key, "", "header", NO_IMAGES)


class PictureReader:
    """Path or passenger to (image, None)."""

    def __init__(self, max_bytes: int) -> None:
        self._inline, self._files = InlineReader(), FileReader("", None, max_bytes)

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """See `Reader`."""
        return self._files(location) if isinstance(location, str) else self._inline(location)

    def target(self, location: Any) -> Any:
        """See `Reader`: images alone have none."""
        return None


def channels_last(image: Any) -> Any:
    """uint8 tensors as arrays, and ``[3, H, W]`` as ``[H, W, 3]``, of frames too; ``[3, W, 3]`` and all else as it is."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray) and image.ndim in (3, 4) and image.shape[-3] == 3 and image.shape[-1] != 3:
        return np.ascontiguousarray(np.moveaxis(image, -3, -1))
    return image


def _is_one(images: Any) -> bool:
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return images.ndim == 3
    return isinstance(images, (str, os.PathLike, Sample, Image.Image)) or is_picture(images)


def _key_of(item: Any, number: int) -> str:
    if isinstance(item, Sample):
        return item.key
    return os.fspath(item) if isinstance(item, (str, os.PathLike)) else str(number)
