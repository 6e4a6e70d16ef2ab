"""Sources of a user's class: what they may define, and what happens to items and readers that cannot be used."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import patchpack as pp
from patchpack.stream.sources.own import OwnSource
from patchpack.types import Event, Header, Size

RECIPE = pp.Recipe(resize=pp.resize.Native(60), seq_len=64, max_images=8, rows_per_batch=1, patch_size=16)


def read(location: int) -> tuple[Any, int]:
    return np.full((32, 48, 3), location, dtype=np.uint8), location % 3


class Reader:
    """A reader that can find the target without the image."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def __call__(self, location: int) -> tuple[Any, int]:
        return read(location)

    def target(self, location: int) -> int:
        return location % 3

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def header(i: int, **changes: Any) -> Header:
    return Header(f"k{i}", "box", f"{i}.png", Size(32, 48), i)._replace(**changes)


class Mine(pp.Source):
    """Three samples, and further items."""

    name = "mine"

    def __init__(self, *more: object, reader: Any = read) -> None:
        self.more, self.reader = more, reader

    def scan(self) -> Iterator[Event]:
        yield from map(header, range(3))
        yield from self.more  # type: ignore[misc]


class WithMethod(Mine):
    """A source whose reader is a method."""

    def __init__(self) -> None:
        self.more = ()

    def reader(self, location: int) -> tuple[Any, int]:  # type: ignore[override]
        return read(location)


def run(source: Any, **options: Any) -> tuple[list[int], list[str]]:
    """Return the targets of a source's images, sorted, and its rejections."""
    loader = pp.load(source, RECIPE, on_error="skip", **options)
    targets = sorted(int(image.target) for batch in loader for image in pp.unpack(batch))
    return targets, [str(rejection) for rejection in loader.report().rejected]


# -------------------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("options", [{}, {"num_threads": 2}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize("make", [Mine, lambda: Mine(reader=Reader()), WithMethod], ids=["function", "object", "method"])
def test_any_callable_reads(make: Callable[[], Any], options: dict[str, Any]) -> None:
    assert run(make(), **options) == ([0, 1, 2], [])
    assert run(make(), map_target=(100).__add__, **options) == ([100, 101, 102], [])


def test_a_reader_without_target_gives_the_target_to_a_replay() -> None:
    assert pp.replay(Mine(), RECIPE, "k2").target == 2


def test_a_reader_is_told_the_epoch() -> None:
    reader = Reader()
    list(pp.load(Mine(reader=reader), RECIPE, epoch=4))
    assert set(reader.epochs) == {4}


@pytest.mark.parametrize(
    ("reader", "reason"),
    [
        (lambda i: read(i)[0], "the reader of mine returned an object of type ndarray: expected a tuple (image, target)"),
        (lambda i: (*read(i), 0), "the reader of mine returned a tuple of 3: expected a tuple (image, target)"),
        (lambda i: list(read(i)), "the reader of mine returned an object of type list: expected a tuple (image, target)"),
        (lambda i: {}[i], "the reader of mine raised KeyError: 2"),
        (lambda i: next(iter(())), "the reader of mine raised StopIteration: "),
    ],
    ids=["image", "three", "list", "error", "stop"],
)
@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_reader_that_fails_gives_a_rejection(reader: Any, reason: str, num_threads: int) -> None:
    def sometimes(i: int) -> Any:
        return reader(i) if i == 2 else read(i)

    assert run(Mine(reader=sometimes), num_threads=num_threads) == ([0, 1], [f"k2 (2.png): {reason} [read]"])
    with pytest.raises(pp.errors.SourceError, match="the reader of mine"):
        list(pp.load(Mine(reader=sometimes), RECIPE))


def test_if_target_fails_the_pair_gives_the_target() -> None:
    class Worse(Reader):
        def target(self, location: int) -> int:
            raise KeyError(location)

    assert run(Mine(reader=Worse())) == ([0, 1, 2], [])


@pytest.mark.parametrize("error", [MemoryError, OSError, pp.errors.TargetError])
def test_errors_with_a_meaning_keep_it(error: type[Exception]) -> None:
    def broken(i: int) -> Any:
        raise error("no")

    reader = pp.open_source(Mine(reader=broken)).reader
    with pytest.raises(error, match="no"):
        reader(0)


# ------------------------------------------------------------------------------------------------------- the definition


class Nameless(pp.Source):
    def scan(self) -> Iterator[Event]:
        return map(header, range(3))


class Named(Nameless):
    name = "named"


class Bare(Named):
    reader = read  # the source becomes the first argument


class Parted(Named):
    reader = staticmethod(read)
    num_parts = 3


class Written(Parted):
    num_parts: Any = "3"


class Numbered(Parted):
    name: Any = 3
    num_parts = None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Mine, r"Mine is a class: pass an object of the class, Mine\(...\)"),
        (Nameless(), "the source Nameless has no attribute name, a str"),
        (Numbered(), "name of the source Numbered must be a str, got 3"),
        (Named(), r"the source Named has no attribute reader, a function location -> \(image, target\)"),
        (Mine(reader={}), r"reader of mine must be a function .* got {}"),
        (Mine(reader=Reader), r"reader of mine must be a function .* pass an object, Reader\(...\)"),
        (Bare(), "reader of named cannot be called with one argument, the location"),
        (Parted(), r"named has num_parts=3, but Parted does not define scan_parts\(parts\)"),
        (Written(), "num_parts of named must be None or the number of its parts, got '3'"),
    ],
    ids=["class", "no name", "name", "no reader", "dict", "class of readers", "bare", "no scan_parts", "parts"],
)
@pytest.mark.parametrize("make", [pp.open_source, lambda source: pp.Planner(source, RECIPE)], ids=["open_source", "Planner"])
def test_a_source_that_is_not_defined_says_what_is_missing(make: Any, source: Any, message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        make(source)


def test_another_class_is_no_source() -> None:
    with pytest.raises(pp.errors.SourceError, match=r"from the class int: .* an index, or a patchpack\.Source"):
        pp.load(int, RECIPE)


def test_parts_are_checked_again_after_the_epoch_is_set() -> None:
    class Growing(Parted):
        num_parts = None

        def set_epoch(self, epoch: int) -> None:
            self.num_parts = 4

    with pytest.raises(pp.errors.ConfigError, match="named has num_parts=4, but Growing does not define scan_parts"):
        pp.open_source(Growing()).set_epoch(1)


def test_an_option_for_data_is_refused() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"target= cannot be used, because mine is a source of your own, .*leave"):
        pp.load(Mine(), RECIPE, target="cls")


# ---------------------------------------------------------------------------------------------------------------- items


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "is of type int: expected patchpack.types.Header, pp.Rejection or pp.ShardFault"),
        (pp.Sample("a", None), "is of type Sample: .* pass an iterable of samples to pp.load"),
        (("k9", "", "", (32, 48), 9), "is of type tuple"),
        (header(9, key=9), "is a Header with key 9: expected a str"),
        (header(9, shard=None), "is a Header with shard None: expected a str"),
        (
            header(9, size=Size(0, 48)),
            r"Header of 'k9' with size Size\(height=0, width=48\): .* integers of 1 … 2147483647",
        ),
        (header(9, size=Size(32, 1.5)), "with size"),
        (header(9, size=Size(32, True)), "with size"),
        (header(9, size=Size(2**31, 1)), "with size"),
        (header(9, size=(32, 48, 3)), "with size"),
        (header(9, size=None), "with size None"),
        (header(9, rest=(3,)), "rest of item 3 .* is of type int: expected a patchpack.types.Header"),
        (
            pp.Rejection("", "k9", "", "nostage", "why"),
            "with stage 'nostage': expected one of read, header, decode, target,",
        ),
        (pp.Rejection("", 9, "", "read", "why"), "is a Rejection with key 9: expected a str"),  # type: ignore[arg-type]
        (pp.ShardFault("", ValueError()), "is a ShardFault with reason"),  # type: ignore[arg-type]
    ],
    ids=str,
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_item_of_a_wrong_kind_is_an_error_with_its_number(item: Any, message: str, on_error: Any) -> None:
    number = r"item 3 \(counted from 0\) of scan\(\) of mine"
    with pytest.raises(pp.errors.SourceError, match=message) as raised:
        list(pp.load(Mine(item), RECIPE, on_error=on_error))
    raised.match(number)


def test_an_item_of_a_wrong_kind_is_an_error_of_the_scanner_too() -> None:
    with pytest.raises(pp.errors.SourceError, match=r"item 3 \(counted from 0\) of scan\(\) of mine is of type int"):
        list(pp.load(Mine(3), RECIPE, num_workers=1))


def test_items_that_can_be_used_pass() -> None:
    more = (header(7, size=(32, 48)), header(8, size=Size(np.int64(32), np.int32(48))))  # type: ignore[arg-type]
    losses = (pp.Rejection("box", "k9", "", "header", "no image"), pp.ShardFault("box", "cut"))
    events = list(pp.open_source(Mine(*more, *losses)).scan())
    assert events[-2:] == [*losses]
    assert events[3:5] == [header(7), header(8)]
    assert all(type(side) is int for event in events[:5] for side in event.size)  # type: ignore[union-attr]
    assert run(Mine(*more)) == ([0, 1, 1, 2, 2], [])


def test_a_key_that_came_before_gives_a_rejection() -> None:
    reason = "k1 (1.png): this key appeared before in the same pass: give every sample its own key [read]"
    assert run(Mine(header(1))) == ([0, 1, 2], [reason])
    source = pp.open_source(Mine(header(1, part=1), header(1, repeat=1)))
    assert all(isinstance(event, Header) for event in source.scan())


def test_a_key_may_come_again_in_the_next_pass() -> None:
    loader = pp.load(Mine(), RECIPE, steps_per_epoch=3)
    list(loader)
    report = loader.report()
    assert report.rejected == []
    assert report.seen > 3


class InParts(Parted):
    """Parts of two samples. In each part, the keys are equal."""

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        for part in parts:
            yield from [header(part), header(part)]


def test_keys_are_compared_within_a_part() -> None:
    targets, rejections = run(InParts(), shuffle=2)
    assert targets == [0, 1, 2]
    assert len(rejections) == 3


def test_keys_of_parts_of_one_sample_are_not_compared() -> None:
    source = InParts()
    source.one_sample_per_part = True
    assert all(isinstance(event, Header) for event in pp.open_source(source).scan_parts([0, 1]))


def test_a_fault_in_a_part_names_the_part() -> None:
    class Junk(Parted):
        def scan_parts(self, parts: Sequence[int]) -> Any:
            return [3]

    source = pp.open_source(Junk())
    for parts, shown in (([2], "[2]"), ([0, 2, 1], "[0, …, 1]")):
        with pytest.raises(pp.errors.SourceError) as raised:
            list(source.scan_parts(parts))
        assert f"item 0 (counted from 0) of scan_parts({shown}) of named is of type int" in str(raised.value)


def test_a_scan_that_returns_nothing_says_so() -> None:
    class Silent(Parted):
        num_parts = None

        def scan(self) -> Any:
            return None

    with pytest.raises(pp.errors.SourceError, match=r"scan\(\) of named returned None: expected an iterator"):
        list(pp.load(Silent(), RECIPE))


def test_a_scan_that_stops_by_next_says_so() -> None:
    class Stopping(Mine):
        def scan(self) -> Iterator[Event]:
            yield header(0)
            yield next(iter(()))

    with pytest.raises(pp.errors.SourceError, match=r"scan\(\) of mine raised StopIteration after 1 item, because a next"):
        list(pp.load(Stopping(), RECIPE))


def test_another_error_of_a_scan_stays() -> None:
    class Burning(Mine):
        def scan(self) -> Iterator[Event]:
            yield header(0)
            raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="the disk is on fire"):
        list(pp.load(Burning(), RECIPE))


# -------------------------------------------------------------------------------------------------------------- wrapping


def test_a_source_is_wrapped_once_and_keeps_its_attributes() -> None:
    mine = Mine(header(7))
    opened = pp.open_source(mine)
    assert isinstance(opened, OwnSource)
    assert pp.open_source(opened) is opened
    for source in (opened, copy.copy(opened), pickle.loads(pickle.dumps(opened))):
        assert (source.name, source.num_parts, source.more, repr(source)) == ("mine", None, (header(7),), "Source(mine)")
        with pytest.raises(AttributeError):
            _ = source.nothing
    mine.ignored = {".txt": 3}  # known after a scan
    assert opened.ignored == {".txt": 3}
    assert opened.read_fields() == {}


def test_a_declared_kind_of_targets_holds() -> None:
    mine = Mine()
    opened = pp.open_source(mine, target_kind="float")
    assert mine.target_kind is None
    for source, options in ((opened, {}), (mine, {"target_kind": "float"})):
        (batch,) = pp.load(source, RECIPE, **options)
        assert str(batch.targets.dtype) == "torch.float32"


def test_a_source_of_the_library_is_not_wrapped() -> None:
    source = pp.open_source([pp.Sample("a", np.zeros((32, 48, 3), dtype=np.uint8), 1)])
    assert not isinstance(source, OwnSource)


@pytest.mark.parametrize("method", ["within", "reading_twice"])
def test_a_source_that_a_method_returns_is_wrapped_too(method: str) -> None:
    class Changing(Mine):
        def within(self, limits: Any) -> pp.Source:
            return Mine(header(7)) if method == "within" else self

        def reading_twice(self) -> pp.Source:
            return Mine(header(7)) if method == "reading_twice" else self

    targets = [
        int(image.target)
        for rank in range(2)
        for batch in pp.load(Changing(), RECIPE.for_eval(), tail="pad", rank=rank, world_size=2, map_target=(100).__add__)
        for image in pp.unpack(batch)
    ]
    assert sorted(targets) == [100, 101, 101, 102]
    assert pp.Planner(Changing(), RECIPE, target_kind="float", tail="pad", world_size=2).source.target_kind is not None


def test_an_index_of_a_source_reads_with_its_function() -> None:
    class Listed(Parted):
        def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
            return map(header, parts)

        def scan(self) -> Iterator[Event]:
            return self.scan_parts(range(3))

    index = pp.Index.build(Listed())
    assert run(index) == ([0, 1, 2], [])


def test_a_mix_of_sources_of_ones_own() -> None:
    class Junk(Mine):
        name = "junk"

    mix = pp.Mix([(Mine(), 1), (Mine(header(3), header(4)), 1)], stop="last")
    assert run(mix)[1] == []
    mine = Mine()
    with pytest.raises(pp.errors.ConfigError, match="sources '0' and '1' are the same object"):
        pp.Mix([(mine, 1), (mine, 1)], stop="last")
    with pytest.raises(pp.errors.SourceError, match=r"item 3 \(counted from 0\) of scan\(\) of junk is of type int"):
        list(pp.load(pp.Mix([(Mine(), 1), (Junk(3), 1)], stop="last"), RECIPE))


@pytest.mark.filterwarnings("ignore:mine has no positions to begin at")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_rejects_the_same_samples(num_workers: int) -> None:
    def load() -> pp.Loader:
        more = [header(1), *map(header, range(3, 30)), header(7), header(29)]
        return pp.load(Mine(*more), RECIPE, shuffle=4, on_error="skip", num_workers=num_workers)

    whole = load()
    expected = [pp.digest(batch) for batch in whole]
    for stop in (1, 2, len(expected) - 1):
        first, then = load(), load()
        batches = iter(first)
        found = [pp.digest(next(batches)) for _ in range(stop)]
        then.load_state_dict(first.state_dict())
        assert found + [pp.digest(batch) for batch in then] == expected
        assert [r.key for r in whole.report().rejected].count("k1") == 1
