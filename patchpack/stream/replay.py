"""The replay of one image as training saw it. The image is planned and painted alone, with the random draws of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import Unpack

from patchpack.batch.unpack import PackedImage, unpack
from patchpack.errors import SourceError
from patchpack.losses import Rejection
from patchpack.paint.painter import paint
from patchpack.plan._integers import require_int
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.packing import FirstFit
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.probe import probe_targets
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.source import tell_epoch
from patchpack.stream.sample.text import require_text_len
from patchpack.stream.sources.opening import SourceOptions, open_within
from patchpack.types import Event, Header


def replay(
    source: Any,
    recipe: Recipe,
    key: str,
    *,
    epoch: int = 0,
    step: int = 0,
    repeat: int = 0,
    ordinal: int = 0,
    num_tokens: int | None = None,
    part: int = 0,
    text_len: int | None = None,
    **reading: Unpack[SourceOptions],
) -> PackedImage[np.ndarray]:
    """Paint one image as a run with this recipe did.

    Args:
        source: the source of the run, in any form that `load` takes.
        recipe: the recipe of the run, with the same seed.
        key: key of the image, as in reports and `PackedBatch.keys`.
        epoch: number of the epoch in the run, default 0.
        step: number of the image's batch, default 0. Only a recipe with several patch sizes uses the number.
        repeat: number of the pass over the source within the epoch. The number is in ``info.repeats`` of the batch. Default 0,
            the first pass.
        ordinal: number of the sample in the run, over all epochs, default 0. Only a drop schedule uses the number.
        num_tokens: number of tokens of the image in its batch, if a packer's ``max_cut`` left fewer than planned. Default None:
            all planned tokens.
        part: number of the image within a sample of several images, from 0. Default 0.
        text_len: ``text_len`` of the run, if the run had texts. Then pass ``tokenize`` and ``text`` of the run too. Default
            None.
        **reading: ``image``, ``target`` and the other options of `open_source` that the run passed to `load`.

    Returns:
        The image as numpy arrays: the patches that were not dropped, ids, grid and target. All values equal the values in the
        run, to the bit.

    Raises:
        SourceError: no sample has that key.
        ConfigError: `num_tokens` is more than planned, or the sample has no image with number `part`.
        PatchpackError: the sample cannot be used, for the reason that the run reported.
    """
    opened = open_within(Limits.of(recipe), source, **reading)
    require_text_len(opened.text, text_len)
    opened.set_epoch(epoch)
    tell_epoch(opened.reader, epoch)
    kind, events = probe_targets(opened.scan(), opened.reader, opened.target_kind)
    images = _found(events, key, opened.name).in_pass(repeat).images
    require_int(f"part of {key}", part, 0, len(images) - 1)
    header = images[part]._replace(rest=(), text=images[0].text)  # every image of a sample has the text of the sample
    alone = recipe.replace(rows_per_batch=1, packer=FirstFit(), patch_size=recipe.patch_size_at(epoch, step))
    planner = OnlinePlanner(alone, epoch=epoch, seen=ordinal, target_kind=kind, name=opened.name, text_len=text_len)
    (plan,) = [*planner.feed([header]), *planner.finish()]
    if num_tokens is not None and plan.headers:
        planned = int(plan.table.num_tokens[0])
        require_int(f"num_tokens of {key}", num_tokens, 1, planned)
        plan = replace(plan, table=plan.table._replace(num_tokens=np.array([num_tokens], dtype=np.int32)))
    batch = paint(plan, alone, opened.reader)
    for rejection in batch.info.rejections:
        raise rejection.as_error()
    (image,) = unpack(batch)
    return image._replace(part=part)


def _found(events: Iterable[Event], key: str, name: str) -> Header:
    met = 0
    for event in events:
        if isinstance(event, Header) and event.key == key:
            return event
        if isinstance(event, Rejection) and event.key == key:
            raise event.as_error()
        met += isinstance(event, Header | Rejection)
    raise SourceError(f"{name} has no sample with the key {key!r} among its {met} samples: copy a key from a report")
