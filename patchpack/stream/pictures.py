"""The `patchpack.pack_images` function, which packs a list of images of any kind into batches for inference."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, DecodeError, PatchpackError, SourceError
from patchpack.image.arrays import is_array
from patchpack.image.paths import ImageFile, is_text, located
from patchpack.image.picture import is_picture, is_several
from patchpack.losses import Rejection, ShardFault
from patchpack.plan.recipe import Recipe
from patchpack.report import Report
from patchpack.stream.load import load
from patchpack.stream.loader import Loader
from patchpack.stream.policy import ErrorPolicy, OnError
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.names import IMAGE
from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.sample.source import FieldSource
from patchpack.stream.sources.files import FileReader
from patchpack.stream.sources.inline import InlineReader
from patchpack.stream.sources.iterables import NO_IMAGES, Numbers, carried, header_of, is_split, read_items, refused
from patchpack.stream.workers.exits import closed_at_exit
from patchpack.types import Event, Header, Sample

if TYPE_CHECKING:
    from patchpack.types import Picture


class ImageBatches:
    """Batches of a list of images. Made by `pack_images`."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __repr__(self) -> str:
        return f"ImageBatches({self._loader!r})"

    def __iter__(self) -> Iterator[PackedBatch]:
        """Iterate over torch batches. Without a usable image there are no batches.

        Raises:
            PatchpackError: under ``on_error="raise"`` an image is unusable. The error names the key of the image.
            ConfigError: the numbers of keys and images differ.
        """
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[PackedBatch, None, None]:
        try:
            yield from self._loader
        except SourceError as error:
            # without a usable image training cannot go on, but for a list of images no batch is a valid result
            if error is not self._loader.fatal:
                raise

    def report(self) -> Report:
        """Return the report on the images up to the last batch.

        The report's ``rejected`` names the images that are in no batch, each with the reason.
        """
        return self._loader.report()


def pack_images(
    images: Iterable[object],
    recipe: Recipe,
    *,
    keys: Iterable[str] | None = None,
    on_error: OnError | ErrorPolicy = "raise",
    num_workers: int = 0,
    num_threads: int = 0,
    **options: Any,
) -> ImageBatches:
    """Pack images into batches, for inference.

    Images wait until they fill rows well, so batches do not hold the images in the order of `images`. `unpack` gives the key of
    each vector. Images are read one after the other, when a batch needs them. If `images` is a generator, only the waiting
    images are held in memory. For an image given as a path, only the path is held until the image is painted.

    Args:
        images: an iterable of images, a mapping from keys to images, or a single image (but not an array of four axes). An
            image has any form that `Sample.image` may have, such as a path, file bytes, a PIL image, an array or a tensor. Or
            an image is a `Sample`. A recipe with `video` also takes clips: a `Clip`, or an array with an axis of frames in
            front. Kinds may be mixed. A list inside the iterable is one sample, whose images are packed in one row under one
            key.
        recipe: sizes and packing of the images. ``recipe.for_eval()`` has no random draws and drops nothing.
        keys: keys of the images. Default None: the key of an image is its path as you gave it, the key of its `Sample`, or else
            its number, from 0.
        on_error: ``"raise"``, ``"skip"``, a function, or an `ErrorPolicy`, see `load`. Unless you pass an `ErrorPolicy`, any
            number of unusable images in a row is accepted. Default ``"raise"``.
        num_workers: number of processes that paint, default 0, see `load`.
        num_threads: number of threads that paint, instead of `num_workers`, default 0, see `load`.
        **options: further options of `load`, such as ``dataloader``.

    Returns:
        An iterable of torch `PackedBatch`es, with a method `report`.

    Raises:
        ConfigError: an argument cannot work. It is raised by this call, before iteration.

    Example:
        for batch in pp.pack_images(paths, recipe.for_eval(), on_error="skip"):
            for key, vector in pp.unpack(batch, model(batch)):
                ...
    """
    if isinstance(images, Mapping):
        if keys is not None:
            raise ConfigError("images in a dict have their keys there: leave out keys=")
        keys, images = images.keys(), images.values()
    elif _is_one(images):
        images = [images]
    elif not isinstance(images, Iterable):
        raise ConfigError(f"images must be an iterable of images, got {type(images).__name__}")
    for name in ("rank", "world_size"):
        if name in options:
            raise ConfigError(f"pack_images has no option {name}=, because it paints all images in this process")
    source = PictureSource(images, keys)
    loader = load(
        source,
        recipe,
        on_error=on_error if isinstance(on_error, ErrorPolicy) else ErrorPolicy(on_error, max_in_a_row=None),
        num_workers=num_workers,
        num_threads=num_threads,
        rank=0,  # this process packs all of these images
        world_size=1,
        **options,
    )
    return ImageBatches(loader)


_NO_KEY = object()


class PictureSource(FieldSource):
    """A `Source` of images in any form. An image given as a path is read twice: first its header, and later its pixels.

    Args:
        images: the images, in the forms that `pack_images` accepts.
        keys: keys of the images. None: the key of an image is its path, the key of its `Sample`, or else its number.
    """

    scan_in_process = True  # a generator cannot be sent to another process

    def __init__(self, images: Iterable[object], keys: Iterable[str] | None) -> None:
        self._images, self._keys = images, keys
        self.name = "images"
        self.is_split = is_split(images)
        self.set_members(parse_members(IMAGE, None))

    def set_members(self, members: SampleFields) -> None:
        """Set the limits for reading images, see `FieldSource`."""
        self.members, self.reader = members, PictureReader(members.limits.max_bytes)

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each image. Raises `ConfigError` if the numbers of keys and images differ."""
        seen: set[str] = set()
        given = None if self._keys is None else iter(self._keys)
        number = -1
        for number, item in enumerate(read_items(self._images, self.name, Numbers())):
            if isinstance(item, ShardFault):
                yield item
                return  # the images that would follow are not known, so keys cannot be counted
            where = _located(item)
            name = _key_of(item, where, number) if given is None else next(given, _NO_KEY)
            if name is _NO_KEY:
                raise ConfigError(f"there must be one key per image, or keys=None, got {number} keys and more images")
            if name is None:
                raise ConfigError(f"there must be one key per image, or keys=None, got None as the key of image {number}")
            key = str(name)
            if isinstance(item, Rejection):
                yield item._replace(key=key)
                continue
            if key in seen:
                yield Rejection("", key, "", "read", "this key appeared before: give every image its own key with keys=")
                continue
            seen.add(key)
            yield self._event(key, where)
        if given is not None and next(given, _NO_KEY) is not _NO_KEY:
            raise ConfigError(f"there must be one key per image, or keys=None, got {number + 1} images and more keys")

    def _event(self, key: str, image: Any) -> Header | Rejection:
        if isinstance(image, PatchpackError):
            return refused(key, image)
        if isinstance(image, ImageFile):
            path = image.path  # alone it takes fewer bytes in the plan
            event = header_of(key, Sample(key, cast("Picture", image)), self.members, lambda part, one: path, held=False)
            return event._replace(member=os.path.basename(path))
        if not is_several(image):
            return carried(key, Sample(key, image), self.members)
        parts: list[Header] = []
        for number, one in enumerate(image):
            inner = _located(one)
            if is_several(inner):  # the inner list's other images would be lost
                return Rejection(
                    "",
                    key,
                    f"[{number}]",
                    "header",
                    "expected an image in the list of a sample, got a list: put all images of a sample into one list",
                )
            event = self._event(key, inner)
            if isinstance(event, Rejection):
                return event._replace(member=f"[{number}]")
            parts.append(event._replace(part=number, member=f"[{number}]"))
        return parts[0]._replace(rest=tuple(parts[1:])) if parts else Rejection("", key, "", "header", NO_IMAGES)


class PictureReader:
    """A `Reader` of images. It returns (image, None) for an absolute path or for a location that holds the sample itself."""

    def __init__(self, max_bytes: int) -> None:
        self._inline, self._files = InlineReader(), FileReader("", None, max_bytes)

    def __call__(self, location: Any) -> tuple[object, object]:
        """Return the image at the location and None, see `Reader`."""
        return self._files(location) if isinstance(location, str) else self._inline(location)

    def target(self, location: Any) -> object:
        """Return None: these images have no labels."""
        return None


def _located(item: object) -> object:
    """Return the image of an item, with a path as `ImageFile`. A text that is refused gives the error."""
    try:
        return located(item.image if isinstance(item, Sample) else item)
    except (DecodeError, SourceError) as error:
        return error


def _is_one(images: Iterable[object]) -> bool:
    if is_array(images):
        return len(images.shape) in (2, 3)
    return isinstance(images, Sample) or is_picture(images)


def _key_of(item: object, image: object, number: int) -> str:
    if isinstance(item, Sample):
        return item.key
    return os.fsdecode(item) if is_text(item) and isinstance(image, ImageFile) else str(number)
