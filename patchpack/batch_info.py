"""The facts about a batch that are not in its tensors, and the conversion of these facts to JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import chain
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from patchpack.losses import Rejection, ShardFault


@dataclass
class BatchInfo:
    """The facts about a batch that are not in its tensors: position in the epoch, counters, and losses before the batch.

    Attributes:
        step: number of the batch in its epoch, from 0.
        epoch: number of the epoch, on which the random draws depend.
        seen: number of samples that the planner has read in this epoch, up to this batch.
        planned: number of samples that the plan has for this batch. Rows repeated from earlier in the epoch do not count.
        packed: number of the planned samples that could be painted. 0 in a plan.
        shortened: number of packed samples that lost tokens so that their row ends exactly full.
        dropped: dict from the name of a rule to the number of samples that the rule left out since the previous batch.
        rejections: samples that were lost since the previous batch.
        shard_errors: containers (such as tar files) whose reading failed since the previous batch.
        warnings: dict from the kind of a warning to the number of painted samples with this warning.
        repeats: nested list like `PackedBatch.keys`, with a number for each image: the number of the pass over the source, or a
            position in an endless stream. The image's random draws depend on its key and on this number. None if all are 0.
        boxes: nested list with the part of each image that was read: (top, left, height, width) in source pixels. None if the
            recipe does not crop.
        flips: nested list of bools, True if the image is mirrored, False if not. None if the recipe does not mirror.
        positions: "image" if position ids are positions in the whole image and not in its crop. Else None.
        worker: number of the stream that made the batch, from 0.
        streams: number of streams.
        state: state of the stream after this batch (see `patchpack.Pack`). None unless it was requested.
        fatal: reason why planning had to stop. The batch is then empty, and no batch follows. Else None.
        elsewhere: the first losses that another rank reports, so that all ranks can stop together.
        by_source: for each source of a mix, by name, the numbers of its samples: ``"waiting"`` after this batch, ``"dropped"``
            since the previous batch, ``"packed"`` in this batch, and the ``"tokens"`` of the packed samples. Empty without a
            mix.
    """

    step: int = 0
    epoch: int = 0
    seen: int = 0
    planned: int = 0
    packed: int = 0
    shortened: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    shard_errors: list[ShardFault] = field(default_factory=list)
    warnings: dict[str, int] = field(default_factory=dict)
    repeats: list[list[int]] | None = None
    boxes: list[list[list[int]]] | None = None
    flips: list[list[bool]] | None = None
    positions: str | None = None
    worker: int = 0
    streams: int = 1
    state: dict[str, Any] | None = None
    fatal: str | None = None
    elsewhere: list[Rejection | ShardFault] = field(default_factory=list)
    by_source: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the fields that differ from their defaults, as a dict for JSON. `from_json` reads this dict."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(_PLAIN, f.name)}
        for name in _LOSSES & said.keys():
            said[name] = [loss._asdict() for loss in said[name]]
        return said

    @classmethod
    def from_json(cls, said: object) -> BatchInfo:
        """Return the `BatchInfo` from a result of `to_json`.

        Raises:
            TypeError: `said` has an unknown field, or a value of a wrong type.
        """
        if not isinstance(said, dict):
            raise TypeError(f"info must be a dict, got {said!r:.60}")
        given = dict(said)
        for name in _LOSSES & given.keys():
            if isinstance(given[name], list):
                given[name] = [_loss_from_json(loss) for loss in given[name]]
        info = cls(**given)
        for name in given:
            if not _are([given[name]], _KINDS[name]):
                raise TypeError(f"{name} of info has the wrong type: {said[name]!r:.60}")
        return info


_PLAIN = BatchInfo()
_LOSSES = {"rejections", "shard_errors", "elsewhere"}
_KINDS = get_type_hints(BatchInfo)


def _loss_from_json(said: dict[str, str]) -> Rejection | ShardFault:
    loss = (Rejection if "stage" in said else ShardFault)(**said)
    if not _are(list(loss), str):
        raise TypeError(f"a loss of info must be a rejection or a fault of a shard, got {said!r:.60}")
    return loss


def _are(values: list[Any], kind: object) -> bool:
    """Return True if each value has the type `kind`. `kind` is a class, `Any`, a union, or a list or dict of one of these."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if Any in kinds:
        return True
    classes = {get_origin(each) or each: get_args(each) for each in kinds}
    if not set(map(type, values)) <= classes.keys():
        return False
    for of, args in classes.items():
        inside = chain.from_iterable(v if of is list else v.values() for v in values if type(v) is of) if args else ()
        if args and not _are(list(inside), args[-1]):
            return False
    return True
