"""The painter as a torch dataset: it fetches a planned batch, in a worker."""

from __future__ import annotations

from typing import Any, Literal

from torch.utils.data import Dataset

from patchpack.errors import ConfigError, PatchpackError, SourceError
from patchpack.paint.painter import paint
from patchpack.plan.recipe import Recipe
from patchpack.stream.sampler import Planner, require_recipe
from patchpack.stream.sources import IMAGE_EXTENSIONS, open_source
from patchpack.types import BatchPlan, PackedBatch, Rejection, ShardFault


class Painter(Dataset[PackedBatch]):
    """Dataset whose index is a `BatchPlan` and whose item is a `PackedBatch` of numpy arrays.

    Args:
        source: the planner's source, or the `Planner` itself.
        recipe: the planner's recipe.
        image, target: as given to the planner.
        on_error: ``"raise"``: a batch that carries a rejection raises it. ``"skip"``: rejections travel in ``batch.info``.
            ``"defer"``: a source without any usable image travels there too, as ``info["fatal"]``, in a batch without rows
            (what `patchpack.load` uses to apply its policy in step order).
    """

    def __init__(
        self,
        source: Any,
        recipe: Recipe,
        *,
        image: str = IMAGE_EXTENSIONS,
        target: str | tuple[str, ...] | None = "cls",
        on_error: Literal["raise", "skip", "defer"] = "raise",
    ) -> None:
        if on_error not in ("raise", "skip", "defer"):
            raise ConfigError(f"on_error is 'raise', 'skip' or 'defer', got {on_error!r}")
        self._recipe = require_recipe(recipe)
        if isinstance(source, Planner):
            source = source.source
        opened = open_source(source, image=image, target=target, max_pixels=recipe.max_pixels)
        self._reader = opened.reader  # not the source: an iterator cannot travel to a worker, and need not
        self._on_error = on_error

    def __getitem__(self, plan: BatchPlan) -> PackedBatch:
        """Paint one plan. Raises per ``on_error``."""
        if plan.fatal and self._on_error != "defer":
            raise SourceError(plan.fatal)
        batch = paint(plan, self._recipe, self._reader)
        if plan.fatal:
            batch.info["fatal"] = plan.fatal
        error = first_error(batch.info)
        if error and self._on_error == "raise":
            raise error
        return batch


def first_error(info: dict[str, Any]) -> PatchpackError | None:
    """The exception that a batch's account becomes under ``on_error="raise"``."""
    for rejection in info["rejections"]:
        return Rejection(**rejection).as_error()
    for fault in info["shard_errors"]:
        return ShardFault(**fault).as_error()
    return None
