"""The planner as a torch sampler: it says what the next batch is, in the parent process, from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import Sampler

from patchpack.errors import ConfigError, SourceError, TargetError
from patchpack.paint.targets import infer_kind
from patchpack.plan.planner import EpochPlanner
from patchpack.plan.recipe import Recipe
from patchpack.stream.scanner import scan_ahead
from patchpack.stream.sources import IMAGE_EXTENSIONS, IterableSource, Reader, Source, open_source
from patchpack.types import BatchPlan, Event, Header, TargetKind

_BLOCK = 64  # headers decided at a time: numpy's cost per call is spread, the first batch does not wait


class Planner(Sampler[BatchPlan]):
    """Sampler of `BatchPlan`s, for ``DataLoader(painter, sampler=planner, batch_size=None)``.

    Everything is decided here, in one process, so the number of workers cannot change a batch.

    Args:
        source: see `patchpack.stream.sources.open_source`.
        recipe: what to do with it.
        image, target: members to use, see `open_source`.
        epoch: the epoch of the draws, see `set_epoch`.
        seen: images seen in earlier epochs, for drop schedules; it grows with every epoch iterated to its end.
        scanner: a multiprocessing context, or the name of a start method: headers of shards and folders are then read ahead
            in a process of their own. None reads them here, between batches. It changes no plan.

    Raises:
        SourceError, ConfigError: at construction.
    """

    def __init__(
        self,
        source: Any,
        recipe: Recipe,
        *,
        image: str = IMAGE_EXTENSIONS,
        target: str | None = "cls",
        epoch: int = 0,
        seen: int = 0,
        scanner: str | BaseContext | None = None,
    ) -> None:
        self.recipe = require_recipe(recipe)
        self.source: Source = open_source(
            source, image=image, target=target, max_pixels=recipe.max_pixels, background=recipe.background
        )
        self.epoch, self.seen = epoch, seen
        # an iterable may not be picklable, and its images would only travel once more
        self._scanner = None if isinstance(self.source, IterableSource) else scanner

    def set_epoch(self, epoch: int) -> None:
        """Draw for another epoch from the next iteration on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchPlan]:
        """Plans of one epoch. A source without one usable image gives a single plan with `BatchPlan.fatal` set."""
        scanned = self.source.scan() if self._scanner is None else scan_ahead(self.source, self._scanner)
        kind, events = _probe_targets(scanned, self.source.reader)
        planner = EpochPlanner(self.recipe, epoch=self.epoch, seen=self.seen, target_kind=kind, name=self.source.name)
        events = iter(events)
        while block := list(islice(events, _BLOCK)):
            yield from planner.feed(block)
        yield from planner.finish()
        self.seen += planner.planned


def require_recipe(recipe: Any) -> Recipe:
    """The recipe, or a `ConfigError` that says how to make one."""
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"expected a Recipe, such as patchpack.recipes.navit(), got {recipe!r}")
    return recipe


def _probe_targets(events: Iterator[Event], reader: Reader) -> tuple[TargetKind, Iterable[Event]]:
    """Kind of the first readable target, and the same events again."""
    met: list[Event] = []
    for event in events:
        met.append(event)
        if isinstance(event, Header):
            try:
                return infer_kind(reader.target(event.location)), chain(met, events)
            except (TargetError, SourceError, OSError):
                continue  # the painter will name it
    return None, met
