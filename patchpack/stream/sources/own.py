"""Sources that users write: checks of the class, of each item of a scan, and of each pair that the reader returns."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np

from patchpack._shown import said, shown
from patchpack.errors import ConfigError, PatchpackError, SourceError
from patchpack.losses import STAGES, Rejection, ShardFault
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.labels import MappedReader, without_address
from patchpack.stream.sample.source import ReadSample, Source, tell_epoch
from patchpack.stream.sources.iterables import SAME_KEY
from patchpack.types import Event, Header, Sample, Size, counted

_OWN_ATTRIBUTES = frozenset(Source.__annotations__) - {"reader"} | {"texts"}  # attributes that are read from the user's source
_ITEMS = "patchpack.types.Header, pp.Rejection or pp.ShardFault"
_MAX_SIDE = 2**31 - 1  # plans hold sizes as int32


def checked(source: Source) -> Source:
    """Return the source if its class is of this library. Return an `OwnSource` around a source of a user's class.

    Raises:
        ConfigError: the class does not define all that a source needs.
    """
    return source if type(source).__module__.startswith("patchpack.") else OwnSource(source)


class OwnSource(Source):
    """A source that checks what a source of a user's class yields and returns.

    Sources of this library are not checked, so their samples are read without this cost. All attributes except `reader` are
    those of the user's source.

    Args:
        own: the user's source.

    Attributes:
        own: the given source.

    Raises:
        ConfigError: `own` does not define all that a source needs.
    """

    def __init__(self, own: Source) -> None:
        _require_defined(own)
        self.own = own
        self.reader = OwnReader(own.reader, own.name)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN_ATTRIBUTES:
            here = object.__getattribute__(self, "__dict__")  # an attribute that was set on this object counts, as with a copy
            if name not in here:
                return getattr(here["own"], name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "own":  # asked by `copy` and `pickle` before there is a user's source
            raise AttributeError(name)
        return getattr(self.own, name)

    def __repr__(self) -> str:
        return repr(self.own)

    def scan(self) -> Iterator[Event]:
        """Yield the items of the user's `scan`, see `Source`. A sample with the key of an earlier sample gives a rejection.

        Raises:
            SourceError: an item is not what a source may yield.
        """
        return _checked_events(self.own.scan(), self.name, "scan()", repeats=False)

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield the items of the user's `scan_parts`, see `Source`. Keys are compared within one call.

        If each part is one sample, keys are not compared, because shuffling decides which parts are read in one call.

        Raises:
            SourceError: an item is not what a source may yield.
        """
        numbers = f"[{parts[0]}]" if len(parts) == 1 else f"[{parts[0]}, …, {parts[-1]}]" if len(parts) else "[]"
        events = self.own.scan_parts(parts)
        return _checked_events(events, self.name, f"scan_parts({numbers})", repeats=self.one_sample_per_part)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the user's source, and check its parts again."""
        self.own.set_epoch(epoch)
        _require_parts(self.own)

    def within(self, limits: Limits) -> Source:
        """Return the source with the limits of a recipe, see `Source`."""
        return self._around(self.own.within(limits))

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields that the user's source reads."""
        return self.own.read_fields()

    def reading_twice(self) -> Source:
        """Return a source that holds no decoded images, see `Source`."""
        other = self._around(self.own.reading_twice())
        if other is not self and isinstance(self.reader, MappedReader):
            other.reader = self.reader.around(other.reader)
        return other

    def _around(self, own: Source) -> Source:
        """Return a source that checks `own`, and has the attributes that were set on this object."""
        if own is self.own:
            return self
        other = copy(checked(own))
        for name in _OWN_ATTRIBUTES & vars(self).keys():
            setattr(other, name, getattr(self, name))
        return other


class OwnReader:
    """A reader that checks what a user's reader returns.

    Args:
        reader: the user's reader. If it has no method `target`, targets are taken from the pairs that it returns.
        name: name of the source, for messages.
    """

    def __init__(self, reader: ReadSample, name: str) -> None:
        self._reader, self._name = reader, name

    def __copy__(self) -> OwnReader:
        """Return a copy that opens its own files, for another thread."""
        return OwnReader(copy(self._reader), self._name)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the user's reader, if it has a method `set_epoch`."""
        tell_epoch(self._reader, epoch)

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """Return the image and the target, see `Reader`. Raises `SourceError` if the user's reader fails or gives no pair."""
        try:
            pair = self._reader(location)
        except (MemoryError, OSError, PatchpackError):
            raise
        except Exception as error:
            raise SourceError(without_address(f"the reader of {self._name} raised {said(error)}")) from error
        if not isinstance(pair, tuple) or len(pair) != 2:
            got = f"a tuple of {len(pair)}" if type(pair) is tuple else f"an object of type {type(pair).__name__}"
            raise SourceError(f"the reader of {self._name} returned {got}: expected a tuple (image, target)")
        return pair

    def target(self, location: Any) -> object:
        """Return the target alone, see `Reader`. Raises `SourceError` as `__call__` does.

        If the user's reader has no method `target`, or its method fails, the target is taken from the pair.
        """
        target = getattr(self._reader, "target", None)
        if callable(target):
            try:
                return target(location)
            except (MemoryError, OSError, PatchpackError):
                raise
            except Exception:
                pass  # the reader reports the fault, if the pair cannot be read either
        return self(location)[1]


def _require_defined(own: Source) -> None:
    """Raise `ConfigError` unless the user's source has a name, a reader, and a method for its parts if it has parts."""
    kind = type(own).__name__
    for name, what in (("name", "a str for messages and saved states"), ("reader", "a function location -> (image, target)")):
        if not hasattr(own, name):
            raise ConfigError(f"the source {kind} has no attribute {name}, {what}: set self.{name} in __init__")
    if not isinstance(own.name, str):
        raise ConfigError(f"name of the source {kind} must be a str, got {shown(own.name)}")
    if isinstance(own.reader, type) or not callable(own.reader):
        hint = f"pass an object, {own.reader.__name__}(...)" if isinstance(own.reader, type) else f"got {shown(own.reader)}"
        raise ConfigError(f"reader of {own.name} must be a function location -> (image, target): {hint}")
    if not _takes_one(own.reader):
        raise ConfigError(
            f"reader of {own.name} cannot be called with one argument, the location: define it as reader(location). A function "
            f"that the class holds must be reader(self, location), or a staticmethod"
        )
    _require_parts(own)


def _takes_one(reader: ReadSample) -> bool:
    try:
        inspect.signature(reader).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin function without a signature
        pass
    return True


def _require_parts(own: Source) -> None:
    parts: object = own.num_parts
    if parts is None:
        return
    if not _is_integer(parts) or parts < 0:  # type: ignore[operator]
        raise ConfigError(f"num_parts of {own.name} must be None or the number of its parts, got {shown(parts)}")
    if getattr(own.scan_parts, "__func__", None) is Source.scan_parts:
        raise ConfigError(
            f"{own.name} has num_parts={parts}, but {type(own).__name__} does not define scan_parts(parts): define the method, "
            f"or leave num_parts at None"
        )


def _checked_events(events: Iterable[object], name: str, method: str, *, repeats: bool) -> Iterator[Event]:
    """Yield the items of a scan. A sample with a key that came before in the scan gives a rejection.

    Args:
        events: the items.
        name: name of the source.
        method: the call that returned the items.
        repeats: True if keys are not compared.

    Raises:
        SourceError: an item is not what a source may yield.
    """
    if not isinstance(events, Iterable):
        raise SourceError(f"{method} of {name} returned {shown(events)}: expected an iterator of {_ITEMS}, made with yield")
    seen: set[object] = set()
    number = -1
    try:
        for number, item in enumerate(events):
            event = _checked_event(item, f"item {number} (counted from 0) of {method} of {name}")
            if not repeats and isinstance(event, Header):
                key = (event.key, event.repeat, event.part) if event.repeat or event.part else event.key
                if key in seen:
                    yield Rejection(event.shard, event.key, event.member, "read", SAME_KEY)
                    continue
                seen.add(key)
            yield event
    except RuntimeError as error:
        if isinstance(error.__cause__, StopIteration):  # from a `next` in the user's generator
            raise SourceError(
                f"{method} of {name} raised StopIteration after {counted(number + 1, 'item')}, because a next() found nothing: "
                f"use a for loop, or next(items, None)"
            ) from error
        raise


def _checked_event(item: object, where: str) -> Event:
    if isinstance(item, Header):
        header = _checked_header(item, where)
        if not item.rest:
            return header
        return header._replace(rest=tuple(_checked_header(other, f"rest of {where}") for other in item.rest))
    if isinstance(item, Rejection):
        _require_text(item, Rejection._fields, where)
        if item.stage not in STAGES:
            raise SourceError(f"{where} is a Rejection with stage {item.stage!r}: expected one of {', '.join(STAGES)}")
        return item
    if isinstance(item, ShardFault):
        _require_text(item, ShardFault._fields, where)
        return item
    hint = ". Samples need no Source: pass an iterable of samples to pp.load" if isinstance(item, Sample) else ""
    raise SourceError(f"{where} is of type {type(item).__name__}: expected {_ITEMS}{hint}")


def _checked_header(header: Header, where: str) -> Header:
    """Return the header with a size of two Python integers. Its size may come as integers of numpy, or as a plain pair."""
    if not isinstance(header, Header):
        raise SourceError(f"{where} is of type {type(header).__name__}: expected a patchpack.types.Header for each image")
    _require_text(header, ("key", "shard", "member"), where)
    size: Any = header.size
    if isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_side, size)):
        plain = type(size) is Size and type(size.height) is type(size.width) is int
        return header if plain else header._replace(size=Size(*map(int, size)))
    raise SourceError(
        f"{where} is the Header of {header.key!r} with size {shown(size)}: expected patchpack.types.Size(height, width), two "
        f"integers of 1 … {_MAX_SIDE}"
    )


def _require_text(item: Header | Rejection | ShardFault, fields: Sequence[str], where: str) -> None:
    for field in fields:
        if not isinstance(value := getattr(item, field), str):
            raise SourceError(f"{where} is a {type(item).__name__} with {field} {shown(value)}: expected a str")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return _is_integer(value) and 1 <= value <= _MAX_SIDE
