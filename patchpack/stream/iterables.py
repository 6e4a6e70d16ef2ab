"""Iterables of samples: read once, by the planner; images and targets travel in the plans."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from patchpack.errors import DecodeError, PatchpackError, SourceError, TargetError
from patchpack.paint.decode import WHITE, Colour, oriented_size, to_rgb
from patchpack.stream.header import read_size
from patchpack.stream.samples import ToSample, as_sample
from patchpack.stream.source import Reader
from patchpack.stream.tar import Members
from patchpack.types import Event, Header, Inline, Rejection, Sample, Size


class IterableSource:
    """Any iterable of samples. It is read once, by the planner; images and targets travel in the plans.

    Items are what `as_sample` takes, or what ``to_sample(number, item)`` makes a `Sample` of. A key that
    comes again in a pass is rejected; with ``repeating`` (an endless stream) it draws under its number in the stream instead.
    """

    def __init__(
        self,
        items: Iterable[Any],
        members: Members,
        *,
        to_sample: ToSample | None = None,
        background: Colour = WHITE,
        repeating: bool = False,
    ) -> None:
        self._items, self._members, self._to_sample = items, members, to_sample
        self._background, self._repeating = background, repeating
        self.name = f"{type(items).__name__} of samples"
        self.reader: Reader = InlineReader()

    def scan(self) -> Iterator[Event]:
        """See `Source`. Raises `SourceError` for an item that is no sample."""
        seen: set[str] = set()
        for number, item in enumerate(self._items):
            try:
                sample = self._sample(number, item)
            except (TargetError, DecodeError) as error:
                stage = "target" if isinstance(error, TargetError) else "header"
                yield Rejection("", _key_of(item, number), "", stage, str(error))
                continue
            key = str(sample.key)
            if not self._repeating:
                if key in seen:
                    yield Rejection("", key, "", "read", "this key came before in the same pass: give every sample its own")
                    continue
                seen.add(key)
            try:
                size = size_of(sample.image, self._members.max_pixels)
            except DecodeError as error:
                yield Rejection("", key, "", "header", str(error))
            else:
                target = None if self._members.target is None else sample.target
                passenger = Passenger(sample.image, target, self._background)
                yield Header(key, "", "", size, passenger, number if self._repeating else 0)

    def _sample(self, number: int, item: Any) -> Sample:
        if self._to_sample is None:
            return as_sample(number, item, image=self._members.image, target=self._members.target)
        sample = self._to_sample(number, item)
        if not isinstance(sample, Sample):
            raise SourceError(f"to_sample made a {type(sample).__name__} of item {number}, expected a patchpack.Sample")
        return sample


def _key_of(item: Any, number: int) -> str:
    return str(item["__key__"]) if isinstance(item, Mapping) and "__key__" in item else str(number)


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
