"""Map-style datasets, such as those of torch and Hugging Face: items that are read by number, in any order.

The key of an item is its number. The user may give the image sizes. Otherwise the sizes come from the items. An item with file
bytes is read twice: first for the header, later for the pixels. A decoded image is held in memory until it is painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from patchpack._arrays import Int64Array
from patchpack._shown import said
from patchpack.errors import ConfigError, DecodeError, SampleError, SourceError
from patchpack.image.arrays import as_array, is_array, require_image
from patchpack.image.paths import located_all, working_folder
from patchpack.image.picture import frame_count, frames_of, is_several, within
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.items import ToSample, make_sample
from patchpack.stream.sample.source import FieldSource, tell_epoch
from patchpack.stream.sources.inline import InlineReader, InlineSample
from patchpack.stream.sources.iterables import carried, header_of, refused
from patchpack.types import Event, Header, Inline, Sample, Size

SizeOf = Callable[[int], tuple[int, int]]
"""Number of an item → oriented height and width in pixels."""


class MapStyleSource(FieldSource):
    """A source of a dataset with ``dataset[i]`` and ``len(dataset)``.

    Args:
        dataset: the dataset. If `to_sample` is None, its items must be of a kind that `as_sample` takes.
        members: names of image, label and text, and the limits.
        to_sample: a function ``(number, item) -> Sample``. None: `as_sample` converts the items.
        sizes: int ``[n, 2]``, height and width of every item in pixels, after EXIF orientation. Every item is then one image.
            None: the sizes are not known.
        size_of: a function that returns (height, width) for the number of an item at little cost. None: there is no such
            function.
        cheap: True if reading an item does not decode the image. The item may then be read twice: for its size, and to paint
            it. Default False.

    If texts are read, every item is read for its text anyway. Then `sizes` and `size_of` save nothing.

    Raises:
        SourceError: the dataset is empty.
        ConfigError: `sizes` are not positive integers, there is not one size for every item, or `sizes` and `size_of` are both
            given.
    """

    one_sample_per_part = True

    def __init__(
        self,
        dataset: Sequence[object],
        members: SampleFields,
        *,
        to_sample: ToSample | None,
        sizes: npt.ArrayLike | None = None,
        size_of: SizeOf | None = None,
        cheap: bool = False,
    ) -> None:
        self.num_parts = len(dataset)
        self.name = f"{type(dataset).__name__} of {self.num_parts} items"
        if not self.num_parts:
            raise SourceError(f"{self.name} is empty: expected at least one item")
        if sizes is not None and size_of is not None:
            raise ConfigError("sizes and size_of both give the sizes: pass only one of them")
        self._sizes = None if sizes is None else _checked_sizes(sizes, self.num_parts)
        self._dataset, self._to_sample, self._size_of = dataset, to_sample, size_of
        self._folder = working_folder()
        if members.text is not None:  # an item is read for its text, which gives its size too
            self._sizes = self._size_of = None
        self.decodes_to_scan = self._sizes is None and self._size_of is None and not cheap
        self.scan_in_process = self._sizes is not None or self.decodes_to_scan  # decoded images would have to be sent
        self.set_members(members)

    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, see `FieldSource`."""
        self.members = members
        self.items = ItemReader(self._dataset, members, self._to_sample, folder=self._folder)
        sized = self._sizes is not None or self._size_of is not None
        self.reader = ItemReader(self._dataset, members.without_text(), self._to_sample, sized=sized, folder=self._folder)

    def read_fields(self) -> dict[str, Any]:
        """Return the names of columns and members, and the name of the function that makes samples. See `Source`."""
        return self.members.item_names(self._to_sample)

    def reading_twice(self) -> MapStyleSource:
        """Return a source of the same items that holds no images in memory.

        An item that is read for its size is later read again for its pixels.
        """
        other = copy(self)
        other.decodes_to_scan, other.scan_in_process = False, self._sizes is not None
        return other

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the dataset, if it has a method `set_epoch`."""
        self.items.set_epoch(epoch)

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each item, see `Source`."""
        return self.scan_parts(range(len(self._dataset)))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield a header or rejection for some items. Every item is a part, see `Source`."""
        for number in parts:
            try:
                yield self._event(number)
            except (SampleError, SourceError) as error:
                yield refused(str(number), error)

    def _event(self, number: int) -> Event:
        limit = self.members.limits.max_pixels
        if self._sizes is not None:
            size = Size(*self._sizes[number].tolist())
        elif self._size_of is not None:
            size = _asked_size(self._size_of, number)
        else:
            try:
                item = self.items.item(number)
            except SourceError as error:
                return refused(str(number), error)
            sample = self.items.sample(number, item)
            if self.decodes_to_scan:
                return carried(str(number), sample, self.members)
            several = is_several(sample.image)
            return header_of(
                str(number), sample, self.members, lambda part, _: (number, part) if several else number, held=False
            )
        return Header(str(number), "", "", within(size, limit), number)


class ItemReader:
    """A `Reader` that returns (image, target) for the number of an item. A location may also be the item itself.

    Args:
        dataset: the map-style dataset.
        members: names of image and label.
        to_sample: a function ``(number, item) -> Sample``. None: `as_sample` converts the items.
        sized: True if the user gave the size of every item. Every item was then planned as one image. Default False.
        folder: folder that relative paths of images start from, in every process. Default None, the working folder.
    """

    def __init__(
        self,
        dataset: Sequence[object],
        members: SampleFields,
        to_sample: ToSample | None,
        *,
        sized: bool = False,
        folder: str | None = None,
    ) -> None:
        self._sized, self._folder = sized, folder
        self._dataset, self._members, self._to_sample = dataset, members, to_sample
        self._inline = InlineReader()
        self._epoch: int | None = None
        self._last: tuple[int, Sample] | None = None  # a sample of several images, which are read one after the other

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the dataset, if it has a method `set_epoch`.

        In a worker this changes the worker's copy of the dataset.
        """
        if epoch != self._epoch:
            self._epoch, self._last = epoch, None
            tell_epoch(self._dataset, epoch)

    def __call__(self, location: int | tuple[int, int] | Inline | InlineSample) -> tuple[object, object]:
        """Return the image and label of a location, see `Reader`.

        If the location is a pair, it holds the number of an item and the number of an image in this item.
        """
        if isinstance(location, tuple) and not isinstance(location, Inline):
            return self._part(*location)
        if not isinstance(location, int):
            return self._inline(location)
        sample = self.sample(location, self.item(location))
        if self._sized:
            self._require_one_image(location, sample.image)
        return sample.image, None if self._members.target is None else sample.target

    def _require_one_image(self, number: int, image: object) -> None:
        """Raise `DecodeError` for several images or a clip, because the user gave a single size for the item.

        An array whose layout is not clear is refused too, because no header was read.
        """
        if is_array(image) and len(image.shape) != 4:
            require_image(as_array(image))
        frames = frames_of(image) if self._members.limits.clips else None
        if is_several(image) or (frames is not None and frame_count(frames) != 1):
            what = f"{len(image)} images" if is_several(image) else "a clip"
            raise DecodeError(
                f"item {number} is {what}, and sizes= and size_of= give the size of one image: leave them out for items of "
                f"several images and for clips"
            )

    def _part(self, number: int, part: int) -> tuple[object, object]:
        if self._last is None or self._last[0] != number or not part:
            self._last = None
            self._last = number, self.sample(number, self.item(number))
        sample = self._last[1]
        if not is_several(sample.image) or part >= len(sample.image):
            raise SourceError(f"item {number} has changed: its image {part} is missing now")
        image = sample.image[part]
        if part == len(sample.image) - 1:
            self._last = None
        return image, None if self._members.target is None else sample.target

    def target(self, location: int | tuple[int, int] | Inline | InlineSample) -> object:
        """Return the label of a location, see `Reader`."""
        return self(location)[1]

    def item(self, number: int) -> object:
        """Return ``dataset[number]``. An error of the dataset is raised as `SourceError`."""
        try:
            return self._dataset[number]
        except MemoryError:
            raise
        except Exception as error:
            raise SourceError(f"item {number} of the dataset raised {said(error)}") from error

    def sample(self, number: int, item: object) -> Sample:
        """Return the `Sample` of an item.

        This method raises the errors of `make_sample`. It also raises `SourceError` for a `Sample` whose key is not the number
        of the item, because such a key would not be used.
        """
        sample = make_sample(number, item, self._members, self._to_sample)
        if sample.key != str(number) and (self._to_sample is not None or isinstance(item, Sample)):
            raise SourceError(
                f"item {number} is a Sample with the key {sample.key!r}, but the key of an item of this dataset must be its "
                f"number: "
                f"use str(number) as the key, or pass an iterable of Samples"
            )
        image: Any = located_all(sample.image, folder=self._folder)
        return sample if image is sample.image else replace(sample, image=image)


def is_map_style(source: object) -> TypeGuard[Sequence[object]]:
    """Return True for an object with items by number and a length. Plain lists and streams give False."""
    import torch.utils.data  # torch gives its streams a `__getitem__` that only raises

    if isinstance(source, (list, tuple, str, bytes, bytearray, torch.utils.data.IterableDataset)):
        return False
    return hasattr(type(source), "__getitem__") and hasattr(type(source), "__len__")


def _checked_sizes(sizes: npt.ArrayLike | None, count: int) -> Int64Array:
    table = np.asarray(sizes)
    if table.shape != (count, 2) or table.dtype.kind not in "iu" or table.min(initial=1) < 1:
        least = f", the smallest is {table.min()}" if table.size and table.dtype.kind in "iuf" else ""
        raise ConfigError(
            f"sizes must be integers [{count}, 2] >= 1, height and width of every item of the dataset, got "
            f"{table.dtype} {list(table.shape)}{least}"
        )
    return table.astype(np.int64)


def _asked_size(size_of: SizeOf, number: int) -> Size:
    try:
        height, width = size_of(number)
        return Size(int(height), int(width))
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"size_of({number}) failed: {said(error)}") from error
