"""Records of the samples on their way into batches: the losses, the facts about each batch, and the report of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

from patchpack import errors

if TYPE_CHECKING:
    from patchpack.batch._types import ArrayT
    from patchpack.batch.packed import PackedBatch

_STAGE_ERRORS: dict[str, type[errors.PatchpackError]] = {
    "read": errors.SourceError,
    "header": errors.DecodeError,
    "decode": errors.DecodeError,
    "target": errors.TargetError,
    "plan": errors.SizeError,
}


class Rejection(NamedTuple):
    """The record of one sample that did not reach a batch, with the reason.

    Attributes:
        shard: the shard or folder of the sample, "" for an iterable.
        key: the sample's key.
        member: the file with the fault inside the shard (``n0144.jpg``), or the image with the fault among the sample's images
            (``[2]`` is the third). "" if there is neither.
        stage: the stage that failed: ``read`` (the bytes), ``header`` (the size), ``plan`` (no row takes the image or the
            text), ``decode`` (the pixels), or ``target`` (the label or the text).
        reason: the cause: what was expected, and what was found.
    """

    shard: str
    key: str
    member: str
    stage: str
    reason: str

    def __str__(self) -> str:
        where = f" ({self.member})" if self.member else ""
        return f"{self.key}{where}: {self.reason} [{self.stage}]"

    def as_error(self) -> errors.PatchpackError:
        """Return the exception this rejection becomes under ``on_error="raise"``."""
        return _STAGE_ERRORS[self.stage](f"{self}. Pass on_error='skip' to count such samples and go on.")


class ShardFault(NamedTuple):
    """The record of a container that could not be read to its end. Samples read before the fault are kept.

    Attributes:
        shard: name of the container.
        reason: the cause of the fault.
    """

    shard: str
    reason: str

    def as_error(self) -> errors.ShardError:
        """Return the exception this fault becomes under ``on_error="raise"``."""
        return errors.ShardError(f"{self.shard}: {self.reason}. Pass on_error='skip' to count it and go on.")


@dataclass
class BatchInfo:
    """The facts about a batch beside its tensors: its place in the epoch, its counters, and the losses before it.

    Attributes:
        step: number of the batch in its epoch, from 0.
        epoch: number of the epoch, which addresses the draws.
        seen: number of samples that the planner has read in this epoch, up to this batch.
        planned: number of samples that the plan has for this batch. Rows repeated from earlier in the epoch do not count.
        packed: number of these samples that could be painted. 0 in a plan.
        shortened: number of packed samples that lost tokens so that their row ends exactly full.
        dropped: number of samples that a rule left out since the previous batch, by the name of the rule.
        rejections: samples that were lost since the previous batch.
        shard_errors: containers that could not be read to their end, since the previous batch.
        warnings: number of painted samples with a warning, by kind of warning.
        repeats: nested list like `PackedBatch.keys`, a number for each image, which together with the key addresses its draws:
            the number of the pass over the source, or a place in an endless stream. None if all are 0.
        boxes: nested list, (top, left, height, width) of the part of each image that was read, in source pixels. None if the
            recipe does not crop.
        flips: nested list, True for each image that is mirrored. None if the recipe does not mirror.
        positions: "image" if position ids are positions in the whole image and not in its crop. Else None.
        worker: number of the stream that made the batch, from 0.
        streams: number of streams.
        state: state of the stream after this batch (see `patchpack.Pack`). None unless it was requested.
        fatal: the reason if this batch is empty and no batch follows. Else None.
        elsewhere: the first losses that another rank reports, so that all ranks can stop together.
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
    """Return True if each of `values` has the type `kind`: a class, `Any`, a union, or a list or dict of one of these."""
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


@dataclass(frozen=True)
class Report:
    """The report of one epoch. The numbers of samples always satisfy ``seen == packed + rejected + dropped + waiting``.

    A sample counts once, even if it has several images.

    Attributes:
        seen: number of samples that the planner has read, up to the last delivered batch.
        packed: number of readable samples in delivered batches.
        waiting: number of samples that are planned or queued, but not delivered yet. 0 at the end of an epoch.
        rejected: samples that did not reach a batch, with the reason.
        dropped: number of samples that a rule left out, by the name of the rule, e.g. ``{"tail": 3}``.
        shard_errors: containers that could not be read to their end.
        shortened: number of packed samples that lost tokens so that their row ends exactly full (a packer's ``max_cut``).
        warnings: number of packed samples with a warning, by kind of warning (see docs/howto/bad-data.md).
        ignored: number of files in a folder that are not images or do not have a requested extension, by extension. They are
            not samples.
    """

    seen: int = 0
    packed: int = 0
    waiting: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    shard_errors: list[ShardFault] = field(default_factory=list)
    shortened: int = 0
    warnings: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)

    @classmethod
    def collect(cls, batches: Iterable[PackedBatch[ArrayT]]) -> Report:
        """Return the report of batches that `patchpack.Pack` made under your own DataLoader.

        `waiting` is the number of samples that were not delivered after the last batch of each stream. It is 0 for streams that
        ended.

        Args:
            batches: all batches, in the order in which the DataLoader delivered them. Each worker has one stream. A batch with
                step 0 begins a new stream.
        """
        open_streams: dict[int, Account] = {}
        done: list[Account] = []
        for batch in batches:
            worker = batch.info.worker
            if batch.info.step == 0 and worker in open_streams:
                done.append(open_streams.pop(worker))
            open_streams.setdefault(worker, Account()).add(batch.info)
        return cls.total(account.report() for account in (*done, *open_streams.values()))

    @classmethod
    def total(cls, reports: Iterable[Report]) -> Report:
        """Return the sum of the reports of several streams."""
        total = Account()
        waiting = 0
        for report in reports:
            total.seen += report.seen
            total.packed += report.packed
            total.shortened += report.shortened
            waiting += report.waiting
            total.rejected += report.rejected
            total.shard_errors += report.shard_errors
            _add(total.dropped, report.dropped)
            _add(total.warnings, report.warnings)
        return total.report(waiting)

    def __str__(self) -> str:
        lines = [
            f"{self.seen} seen = {self.packed} packed + {len(self.rejected)} rejected"
            f" + {sum(self.dropped.values())} dropped + {self.waiting} waiting"
        ]
        lines += [f"  rejected {r}" for r in self.rejected]
        lines += [f"  dropped {n} by {rule}" for rule, n in self.dropped.items()]
        lines += [f"  shortened {self.shortened} of the packed, to fill rows exactly"] if self.shortened else []
        lines += [f"  shard {f.shard}: {f.reason}" for f in self.shard_errors]
        lines += [f"  warnings for {n} of the packed: {kind}" for kind, n in self.warnings.items()]
        lines += [f"  ignored {n} files that are not requested images: {kind}" for kind, n in self.ignored.items()]
        return "\n".join(lines)


class Account:
    """The running report of one stream, to which batches are added one by one.

    Attributes:
        seen, packed, rejected, dropped, shard_errors, shortened, warnings: the fields of `Report`, for the batches so far.
    """

    def __init__(self) -> None:
        self.seen = self.packed = self.shortened = 0
        self.rejected: list[Rejection] = []
        self.shard_errors: list[ShardFault] = []
        self.dropped: dict[str, int] = {}
        self.warnings: dict[str, int] = {}

    def add(self, info: BatchInfo, *, before: int = 0, delivered: bool = True) -> None:
        """Add the next batch of the stream.

        Args:
            info: info of the batch.
            before: number of samples in ``info.seen`` that belong to earlier batches, which were not added here because the
                stream was resumed. Default 0.
            delivered: False if an error is raised instead of delivering the batch. Its images then count as waiting. Default
                True.
        """
        self.seen = info.seen - before
        self.rejected += info.rejections
        self.shard_errors += info.shard_errors
        _add(self.dropped, info.dropped)
        if delivered:
            self.packed += info.packed
            self.shortened += info.shortened
            _add(self.warnings, info.warnings)

    @property
    def waiting(self) -> int:
        """Number of samples that are planned or queued, but not delivered yet."""
        return self.seen - self.packed - len(self.rejected) - sum(self.dropped.values())

    def report(self, waiting: int | None = None) -> Report:
        """Return the report so far. Batches that are added later do not change it.

        Args:
            waiting: value for `Report.waiting`. Default None, the `waiting` of this account.
        """
        return Report(
            seen=self.seen,
            packed=self.packed,
            waiting=self.waiting if waiting is None else waiting,
            rejected=list(self.rejected),
            dropped=dict(self.dropped),
            shard_errors=list(self.shard_errors),
            shortened=self.shortened,
            warnings=dict(self.warnings),
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for kind, count in counts.items():
        total[kind] = total.get(kind, 0) + count
