"""Several sources as one, mixed by weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from fractions import Fraction
from typing import Any, Literal, NamedTuple, get_args

from patchpack.errors import ConfigError
from patchpack.losses import Rejection, ShardFault
from patchpack.paint.target_kinds import in_words
from patchpack.plan.mixture import By
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.labels import map_name
from patchpack.stream.sample.source import ReadSample, Source, target_at, tell_epoch
from patchpack.stream.sample.text import Text
from patchpack.stream.sources.indexed import IndexSource
from patchpack.stream.sources.mix_arguments import names_of, pairs_of, weight_of
from patchpack.stream.sources.opening import open_source, open_within
from patchpack.stream.sources.own import OwnSource
from patchpack.types import Event, Header

Stop = Literal["first", "last"]


class Mix(Source):
    """A source that takes samples from several sources in fixed ratios.

    Nothing is drawn to choose a source. By samples, the order of the sources follows from the weights alone, so it is the same
    on every rank and with every shuffle. Each source is shuffled and divided among ranks on its own. The key of a sample is
    ``"<name of its source>/<its key>"``, and addresses the sample's random draws.

    A source that ends begins its next pass. Each pass has a new shuffle and new random draws. A mix therefore has no end unless
    `stop` is set, and `load` then needs ``steps_per_epoch``. Every epoch begins each source anew.

    A sample whose header cannot be read is counted as rejected, and the same source gives the next sample instead. A source
    without one readable header ends the mix with a fault that names the source.

    Args:
        sources: a list of pairs (source, weight). A source is anything that `open_source` takes, or a `Source` that you opened
            with options of its own. A weight is an integer, float or `fractions.Fraction` > 0. Only ratios of weights matter.
            A float counts as the decimal number that Python prints for it, so 0.1 is exactly one tenth.
        by: quantity that the weights are shares of. With ``"samples"`` (default), any 1000 consecutive samples of a rank have
            each source's share of 1000, rounded up or down. With ``"tokens"``, each sample comes from the source with the
            fewest tokens so far, divided by its weight. A source then has at most its share of all tokens plus the tokens of
            one sample. A sample counts with the tokens that stay after dropping, at the recipe's first patch size. A drop
            schedule is evaluated at the beginning of the epoch.
        names: a name for each source, for keys and reports. A name is not empty, has no ``/``, and occurs once. Default None:
            the numbers of the sources, ``"0"``, ``"1"``, …
        stop: ``"first"`` ends an epoch when a source has no sample left that is due. ``"last"`` ends it when every source has
            been read to its end at least once. Without ``steps_per_epoch`` one of them is needed. Default None: no end.

    Attributes:
        sources: the opened source by name.
        weights: the weight of each source, as a fraction.
        by, stop: the given options.

    Raises:
        SourceError: a source cannot be read.
        ConfigError: a weight, a name or an option cannot work, or a source cannot be mixed. The error names the source.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Any, int | float | Fraction]],
        *,
        by: By = "samples",
        names: Sequence[str] | None = None,
        stop: Stop | None = None,
    ) -> None:
        pairs = pairs_of(sources)
        if by not in get_args(By):
            raise ConfigError(f"by must be 'samples' or 'tokens', got {by!r}")
        if stop is not None and stop not in get_args(Stop):
            raise ConfigError(f"stop must be 'first', 'last' or None, got {stop!r}")
        known = names_of(names, len(pairs))
        self.by, self.stop = by, stop
        self.weights = tuple(weight_of(weight, name) for name, (_, weight) in zip(known, pairs, strict=True))
        self._set_sources({name: open_source(source) for name, (source, _) in zip(known, pairs, strict=True)})
        _require_mixable(self.sources)
        self.name = f"mix of {', '.join(known)}"
        classes = [source.class_names for source in self.sources.values()]
        self.class_names = classes[0] if all(names == classes[0] for names in classes) else None

    def _set_sources(self, sources: dict[str, Source]) -> None:
        self.sources = sources
        self.reader = MixReader([source.reader for source in sources.values()])
        self.ignored = sum((Counter(source.ignored) for source in sources.values()), Counter())
        self.text = next((source.text for source in sources.values()), None)
        self.scan_in_process = any(source.scan_in_process for source in sources.values())

    @property
    def texts(self) -> list[Text]:
        """The location of texts and the tokenizer of every source."""
        return [text for source in self.sources.values() for text in source.texts]

    def scan(self) -> Iterator[Event]:
        """Yield the headers, rejections and faults of every source once, one source after the other. See `Source`."""
        for number, (name, source) in enumerate(self.sources.items()):
            for event in source.scan():
                yield named(event, number, name)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of every source."""
        for source in self.sources.values():
            source.set_epoch(epoch)

    def within(self, limits: Limits) -> Mix:
        """Return the mix with the limits of a recipe in every source."""
        return self._of({name: open_within(limits, source) for name, source in self.sources.items()})

    def reading_twice(self) -> Mix:
        """Return the mix of sources that hold no decoded images, see `Source`."""
        return self._of({name: source.reading_twice() for name, source in self.sources.items()})

    def _of(self, sources: dict[str, Source]) -> Mix:
        if all(source is self.sources[name] for name, source in sources.items()):
            return self
        other = copy(self)
        other._set_sources(sources)
        return other

    def read_fields(self) -> dict[str, Any]:
        """Return the options of the mix and the fields of every source, as JSON-safe values by name. See `Source`."""
        return {
            "names": list(self.sources),
            "weights": [str(weight / sum(self.weights)) for weight in self.weights],
            "by": self.by,
            "stop": self.stop,
            **{
                f"{name}: {field}": value for name, source in self.sources.items() for field, value in _identity(source).items()
            },
        }


class InSource(NamedTuple):
    """The location of an image in a mix: the number of its source, and the location in this source."""

    source: int
    location: Any


class MixReader:
    """A `Reader` of the images and targets of a mix.

    Args:
        readers: the readers of the sources.
    """

    def __init__(self, readers: Sequence[ReadSample]) -> None:
        self._readers = list(readers)

    def __copy__(self) -> MixReader:
        """Return a copy that opens its own files, for another thread."""
        return MixReader([copy(reader) for reader in self._readers])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of every reader that has a method `set_epoch`."""
        for reader in self._readers:
            tell_epoch(reader, epoch)

    def __call__(self, location: InSource) -> tuple[Any, Any]:
        """Return the image and target of a location, see `Reader`."""
        return self._readers[location.source](location.location)

    def target(self, location: InSource) -> object:
        """Return the target of a location, see `Reader`."""
        return target_at(self._readers[location.source], location.location)


def named(event: Event, number: int, name: str) -> Event:
    """Return an event of a source as an event of the mix. The name of the source is put before keys and shards.

    Args:
        event: the event.
        number: number of the source in the mix.
        name: name of the source.
    """
    shard = f"{name}/{event.shard}" if event.shard else ""
    if isinstance(event, ShardFault):
        return event._replace(shard=shard or name)
    key = f"{name}/{event.key}"
    if isinstance(event, Rejection):
        return event._replace(shard=shard, key=key)
    location = InSource(number, event.location)
    rest = tuple(_named_image(other, number, key, shard) for other in event.rest)
    return event._replace(shard=shard, key=key, location=location, rest=rest)


def _named_image(header: Header, number: int, key: str, shard: str) -> Header:
    return header._replace(shard=shard, key=key, location=InSource(number, header.location))


def _identity(source: Source) -> dict[str, Any]:
    """Return the fields of a saved state by which one source of a mix is recognised."""
    return {
        "source": source.name,
        "samples or shards": source.index.fingerprint if isinstance(source, IndexSource) else source.fingerprint,
        **source.read_fields(),
        "map_target": map_name(source.reader),
        "target_kind": None if source.target_kind is None else in_words(source.target_kind),
        "text": None if source.text is None else source.text.name,
    }


def _require_mixable(sources: Mapping[str, Source]) -> None:
    """Raise `ConfigError` for a source that cannot be a part of a mix."""
    opened: dict[int, str] = {}
    first, text = next((name, source.text) for name, source in sources.items())
    classed: tuple[str, list[str]] | None = None
    for name, source in sources.items():
        if isinstance(source, Mix):
            raise ConfigError(f"source {name!r} is a mix itself: give its sources to the outer mix, with their weights")
        if source.decodes_to_scan:
            raise ConfigError(
                f"source {name!r} ({source.name}) decodes images to find their sizes, so its workers plan, and a mix cannot be "
                f"planned in workers: pass open_source(..., sizes=) or size_of=, or items that are file bytes"
            )
        if source.is_split:
            raise ConfigError(
                f"source {name!r} ({source.name}) is split by rank already, and a mix deals samples to ranks itself: give the "
                f"whole stream"
            )
        given = source.own if isinstance(source, OwnSource) else source
        if id(given) in opened:
            raise ConfigError(
                f"sources {opened[id(given)]!r} and {name!r} are the same object: give it once, with the sum of both weights"
            )
        opened[id(given)] = name
        if source.class_names is not None and map_name(source.reader) is None:
            classed = classed or (name, source.class_names)
            _require_same_classes(*classed, name, source.class_names)
        if (source.text is None) != (text is None):
            with_text, without = (first, name) if source.text is None else (name, first)
            raise ConfigError(
                f"source {with_text!r} was opened with tokenize=, and {without!r} without: every sample of a batch needs a "
                f"text, or none does"
            )


def _require_same_classes(first: str, classes: list[str], name: str, others: list[str]) -> None:
    """Raise `ConfigError` if two sources number different classes, so that equal labels would mean different classes."""
    if classes != others:
        raise ConfigError(
            f"sources {first!r} and {name!r} number different classes, {_briefly(classes)} and {_briefly(others)}, so equal "
            f"labels would mean different classes: open each with the same list, open_source(..., classes=[...]), or with "
            f"map_target="
        )


def _briefly(names: list[str]) -> str:
    return f"({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"


def require_end(mix: Mix, steps_per_epoch: int | None) -> None:
    """Raise `ConfigError` unless either `Mix.stop` or `steps_per_epoch` ends an epoch."""
    if mix.stop is None and steps_per_epoch is None:
        raise ConfigError(f"the {mix.name} has no end: pass steps_per_epoch= to load, or stop='first' or stop='last' to Mix")
    if mix.stop is not None and steps_per_epoch is not None:
        raise ConfigError(
            f"steps_per_epoch={steps_per_epoch} and stop={mix.stop!r} of the {mix.name} both end an epoch: pass one of them"
        )
