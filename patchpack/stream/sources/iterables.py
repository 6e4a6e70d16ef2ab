"""Iterables of samples. The planner reads each iterable once. Plans carry the images and targets to the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from patchpack._foreign.datasets import is_split_by_node, stream_behind_error
from patchpack._shown import said
from patchpack.errors import DecodeError, PatchpackError, SampleError, SourceError, TargetError
from patchpack.image.arrays import as_array, is_array, require_image
from patchpack.image.paths import located
from patchpack.image.picture import frame_at, frame_count, frames_of, is_several, picture_bytes
from patchpack.image.size import picture_size
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.items import ToSample, key_of, make_sample, refuse_batch
from patchpack.stream.sample.labels import without_address
from patchpack.stream.sample.source import FieldSource, tell_epoch
from patchpack.stream.sources.huggingface import UNDECODED_FIRST, is_huggingface
from patchpack.stream.sources.inline import InlineReader, InlineSample
from patchpack.stream.sources.shares import origin_of
from patchpack.types import Event, Header, Sample

SAME_KEY = "this key appeared before in the same pass: give every sample its own key"
NO_IMAGES = "a sample must have at least one image, got an empty list: leave the sample out"


class IterableSource(FieldSource):
    """A source of any iterable of samples.

    The planner reads the iterable once. Plans carry the images and targets to the workers.

    Items must be of a kind that `as_sample` takes. If they are not, ``to_sample(number, item)`` must return a `Sample` for
    each. A sample with the same key as an earlier sample of the pass is rejected. With ``repeating=True`` (an endless stream)
    such a sample is accepted, and its random draws also depend on its number in the stream.

    Args:
        items: the iterable.
        members: names of image, label and text, and the limits.
        to_sample: a function ``(number, item) -> Sample``. Default None: `as_sample` converts the items.
        repeating: True if keys may repeat. Default False.
        numbers: numbers that the items have in the whole pipeline, if `items` yields only a part of a pipeline. Default: 0, 1,
            2, ...
    """

    scan_in_process = True

    def __init__(
        self,
        items: Iterable[object],
        members: SampleFields,
        *,
        to_sample: ToSample | None = None,
        repeating: bool = False,
        numbers: Numbers | None = None,
    ) -> None:
        self._items, self._to_sample, self._repeating = items, to_sample, repeating
        self._numbers = numbers or Numbers()
        origin = origin_of(items)
        self.name = f"{type(origin).__name__} of samples"
        if isinstance(origin, Iterator):
            self.name += ", which can be read once"
        self.is_split = is_split(items)
        self._may_be_batched = repeating or _is_pipeline(items)
        self.set_members(members)

    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, see `FieldSource`."""
        self.members, self.reader = members, InlineReader()

    def read_fields(self) -> dict[str, Any]:
        """Return the names of columns and members, and the name of the function that makes samples. See `Source`."""
        return self.members.item_names(self._to_sample)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the iterable, if it has a method `set_epoch` (a stream of `datasets` has one)."""
        tell_epoch(self._items, epoch)

    def scan(self) -> Iterator[Event]:
        """Yield headers, see `Source`.

        An item gives a rejection if it is not a sample, or if the iterable raises an error in its place.
        """
        seen: set[str] = set()
        for count, item in enumerate(read_items(self._items, self.name, self._numbers)):
            if isinstance(item, (Rejection, ShardFault)):
                yield item
                continue
            number = self._numbers.first + count * self._numbers.step
            try:
                if self._may_be_batched and self._to_sample is None:
                    refuse_batch(number, item)
                sample = make_sample(number, item, self.members, self._to_sample)
            except (SampleError, SourceError) as error:
                yield refused(_own_key(item) or self._numbers.key(count), error)
                continue
            own = self._to_sample is not None or isinstance(item, Sample) or _own_key(item) is not None
            key = str(sample.key) if own else self._numbers.key(count)
            if not self._repeating:
                if key in seen:
                    yield Rejection("", key, "", "read", SAME_KEY)
                    continue
                seen.add(key)
            yield carried(key, sample, self.members, count if self._repeating else 0)


class Numbers(NamedTuple):
    """The numbers of items in a whole pipeline, for a reader that gets only every `step`-th item.

    An item without a key gets its number as key.

    Attributes:
        first: number of the first item, default 0.
        step: difference between the numbers of two consecutive items, default 1.
        stream: prefix of the keys, ``"<number of the stream>/"``, if there are several streams and each counts its own items.
            Default ``""``.
    """

    first: int = 0
    step: int = 1
    stream: str = ""

    def key(self, count: int) -> str:
        """Return the key of the item that comes after `count` other items of the same reader."""
        return f"{self.stream}{self.first + count * self.step}"


def read_items(items: Iterable[object], name: str, numbers: Numbers) -> Iterator[object]:
    """Yield the items of an iterable.

    An item for which the iterable raises an error gives a `Rejection`, or a `ShardFault` if no item follows.

    Args:
        items: the iterable.
        name: name of the source, for a `ShardFault`.
        numbers: numbers of the items, which rejections have as keys.
    """
    iterator, number, error = iter(items), 0, None
    state: Any = None  # the state of a stream of datasets from which `items` continues
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            if error is None:
                return
            # a generator ends with its first error; a stream of datasets can be opened again after its position
            behind = stream_behind_error(items) if is_huggingface(items) else None
            if behind is None or behind[1] == state:
                cure = f"; {UNDECODED_FIRST}" if is_huggingface(items) else ""
                yield ShardFault(name, f"{error}; the iterable returned no item after this error{cure}")
                return
            yield Rejection("", numbers.key(number - 1), "", "read", error)
            (items, state), error = behind, None
            iterator = iter(items)
            continue
        except (MemoryError, PatchpackError):
            raise
        except Exception as raised:
            if error is not None:
                yield Rejection("", numbers.key(number - 1), "", "read", error)
            error = without_address(f"item {numbers.key(number)} raised {said(raised)}")
        else:
            if error is not None:
                yield Rejection("", numbers.key(number - 1), "", "read", error)
            error = None
            yield item
        number += 1


def _is_pipeline(items: Iterable[object]) -> bool:
    """Return True for an object of a library whose pipelines make batches of samples."""
    return any(kind.__module__.partition(".")[0] in ("webdataset", "torch", "datasets") for kind in type(items).__mro__)


def is_split(items: Iterable[object]) -> bool:
    """Return True for a stream that is already divided among ranks.

    This is so for webdataset streams with `split_by_node`, and for streams of `datasets` with `split_dataset_by_node`.
    """
    stages = getattr(items, "pipeline", ())
    by_node = any(getattr(stage, "__name__", "") == "split_by_node" for stage in stages)
    return by_node or is_split_by_node(items)


def carried(key: str, sample: Sample, members: SampleFields, repeat: int = 0) -> Header | Rejection:
    """Return a header whose location is the sample itself, or the rejection of the sample.

    Args:
        key: key of the sample.
        sample: the sample, with image and target.
        members: names of image, label and text, and the limits.
        repeat: number of the sample in the stream. If keys repeat, random draws depend on it. Default 0.
    """
    target = None if members.target is None else sample.target

    def locate(part: int, image: object) -> InlineSample:
        return InlineSample(image, target, members.limits)

    return header_of(key, sample, members, locate, repeat, held=True)


def header_of(
    key: str, sample: Sample, members: SampleFields, locate: Callable[[int, object], object], repeat: int = 0, *, held: bool
) -> Header | Rejection:
    """Return the header of a sample, whose images may be of any kind, or the rejection of the sample.

    The rejection of a sample with several images names the image at fault.

    Args:
        key: key of the sample.
        sample: the sample, with image and text.
        members: names of image, label and text, and the limits.
        locate: a function from (number of an image in the sample, the image) to a location from which the image can be read.
        repeat: number of the sample in the stream. If keys repeat, random draws depend on it. Default 0.
        held: True if the image stays in memory until it is painted. Its bytes are then counted.
    """
    image: object = sample.image
    images: Sequence[object] = image if (several := is_several(image)) else [image]
    headers: list[Header] = []
    for part, one in enumerate(images):
        member = f"[{part}]" if several else ""
        try:
            if not isinstance(one, bytes):
                one = as_array(one) if is_array(one) else located(one)
            frames = frames_of(one) if members.limits.clips else None
            count, first = (1, one) if frames is None else (frame_count(frames), frame_at(frames, 0))
            if is_array(first) and len(first.shape) != 4:
                require_image(as_array(first))
            limits = {"max_pixels": members.limits.max_pixels, "max_bytes": members.limits.max_bytes}
            size = picture_size(first, **limits, formats=members.limits.reading.formats)
        except (DecodeError, SourceError) as error:
            return refused(key, error, member)
        num_bytes = picture_bytes(one) if held else 0
        headers.append(Header(key, "", member, size, locate(part, one), repeat, num_bytes, part, frames=count))
    if not headers:
        return refused(key, DecodeError(NO_IMAGES))
    try:
        text = b"" if members.text is None else members.text.tokens(sample.text)
    except TargetError as error:
        return refused(key, error)
    return headers[0]._replace(rest=tuple(headers[1:]), text=text)


def refused(key: str, error: PatchpackError, member: str = "") -> Rejection:
    """Return the rejection of a sample that does not come from a container.

    Args:
        key: key of the sample.
        error: the reason. The class of the error decides the stage of the rejection.
        member: name of the image at fault if the sample has several. Default "".
    """
    stage = "target" if isinstance(error, TargetError) else "header" if isinstance(error, DecodeError) else "read"
    return Rejection("", key, member, stage, str(error))


def _own_key(item: object) -> str | None:
    return key_of(item) if isinstance(item, Mapping) and "__key__" in item else None
