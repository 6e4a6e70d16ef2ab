"""``patchpack.Pack``: planning and painting as a stage of somebody's own pipeline, in the process that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from torch.utils.data import get_worker_info

from patchpack.errors import ConfigError, SourceError
from patchpack.paint.painter import paint
from patchpack.plan.planner import EpochPlanner, Tail
from patchpack.plan.recipe import Recipe
from patchpack.stream.dataset import first_error
from patchpack.stream.iterables import InlineReader, IterableSource
from patchpack.stream.sampler import probe_targets, require_recipe
from patchpack.stream.samples import ToSample
from patchpack.stream.sources import IMAGE_EXTENSIONS, parse_members
from patchpack.types import PackedBatch

_BLOCK = 16  # items decided at a time; with the packer's open rows the bound on what is held


@dataclass(frozen=True, kw_only=True)
class _Options:
    image: str = IMAGE_EXTENSIONS
    target: str | None = "cls"
    to_sample: ToSample | None = None
    epoch: int = 0
    tail: Tail = "short"
    on_error: Literal["raise", "skip"] = "raise"


class Pack:
    """A stage from samples to `PackedBatch`es of numpy arrays: ``stream.compose(pp.Pack(recipe))``, or call it on an iterable.

    For pipelines that cannot seek. Each stream packs by itself, so batches depend on how the pipeline splits itself over ranks
    and workers; it is never split again here. Picklable. A key may come again (``resampled=True``): draws are addressed by key
    and number in the stream.

    Args:
        recipe: what to do with the samples.
        image, target: members of a webdataset dict, columns of a row; see `patchpack.stream.samples.as_sample`.
        to_sample: ``(number, item) -> Sample`` for items of another kind.
        epoch: of the draws.
        tail: the last rows of a stream that ends, see `EpochPlanner`.
        on_error: ``"raise"``, or ``"skip"``: rejections travel in ``batch.info``, see `Report.collect`.

    Raises:
        ConfigError: at construction.
        SourceError: while iterating, for an item of an unknown kind or a stream without one usable image.
    """

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        self._recipe = require_recipe(recipe)
        try:
            self._options = _Options(**options)
        except TypeError as error:
            raise ConfigError(f"Pack: {error}; its options are {', '.join(_Options.__dataclass_fields__)}") from None
        if self._options.on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error is 'raise' or 'skip', got {self._options.on_error!r}")
        parse_members(self._options.image, self._options.target, recipe.max_pixels)
        EpochPlanner(recipe, epoch=self._options.epoch, tail=self._options.tail)  # what cannot work is refused now

    def __call__(self, items: Iterable[Any]) -> Iterator[PackedBatch]:
        """Batches of the items, in order."""
        o, recipe = self._options, self._recipe
        members = parse_members(o.image, o.target, recipe.max_pixels)
        source = IterableSource(items, members, to_sample=o.to_sample, background=recipe.background, repeating=True)
        kind, events = probe_targets(source.scan(), source.reader)
        planner = EpochPlanner(recipe, epoch=o.epoch, target_kind=kind, name="the stream", tail=o.tail)
        events = iter(events)
        while block := list(islice(events, _BLOCK)):
            yield from map(self._paint, planner.feed(block))
        yield from map(self._paint, planner.finish())

    def _paint(self, plan: Any) -> PackedBatch:
        batch = paint(plan, self._recipe, InlineReader())
        worker = get_worker_info()
        batch.info["worker"] = worker.id if worker else 0
        error = first_error(batch.info) if self._options.on_error == "raise" else None
        if error is None and plan.fatal:
            error = SourceError(plan.fatal)
        if error is not None:
            raise error
        return batch
