"""The report of an epoch, and the running counts (the account) from which the report is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchpack.batch_info import BatchInfo
from patchpack.losses import Rejection, ShardFault
from patchpack.source_counts import SourceCounts, counted_by_source, lines_by_source, total_by_source

if TYPE_CHECKING:
    from patchpack.batch._types import ArrayT
    from patchpack.batch.packed import PackedBatch


@dataclass(frozen=True)
class Report:
    """The report of one epoch. The numbers of samples always satisfy ``seen == packed + rejected + dropped + waiting``.

    A sample counts once, even if it has several images.

    Attributes:
        seen: number of samples that the planner has read, up to the last delivered batch.
        packed: number of readable samples in delivered batches.
        waiting: number of samples that are planned or queued, but not delivered yet. 0 at the end of an epoch.
        rejected: one `Rejection`, with the reason, for each sample that did not reach a batch.
        dropped: dict from the name of a rule to the number of samples that the rule left out, e.g. ``{"tail": 3}``.
        shard_errors: containers (such as tar files) that could not be read to their end.
        shortened: number of packed samples that lost tokens so that their row ends exactly full (see `Lookahead.max_cut`).
        warnings: dict from the kind of a warning to the number of packed samples with this warning (see
            docs/howto/bad-data.md).
        ignored: dict from a file extension to the number of files of a folder that are not images, or were not requested. These
            files do not count as samples.
        by_source: the counts of each source of a `Mix`, by name. Their sums are the counts of the whole report. Empty without a
            mix.
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
    by_source: dict[str, SourceCounts] = field(default_factory=dict)

    @classmethod
    def collect(cls, batches: Iterable[PackedBatch[ArrayT]]) -> Report:
        """Return the report of batches that `patchpack.Pack` made under your own DataLoader.

        `waiting` counts the samples that were read but not delivered up to the last batch of each stream. A stream that ended
        adds 0.

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
            total.by_source = total_by_source([total.by_source, report.by_source])
        return total.report(waiting)

    def __str__(self) -> str:
        lines = [
            f"{self.seen} seen = {self.packed} packed + {len(self.rejected)} rejected"
            f" + {sum(self.dropped.values())} dropped + {self.waiting} waiting"
        ]
        lines += lines_by_source(self.by_source)
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
        seen, packed, rejected, dropped, shard_errors, shortened, warnings, by_source: the fields of `Report`, for the batches
            so far.
    """

    def __init__(self) -> None:
        self.seen = self.packed = self.shortened = 0
        self.rejected: list[Rejection] = []
        self.shard_errors: list[ShardFault] = []
        self.dropped: dict[str, int] = {}
        self.warnings: dict[str, int] = {}
        self.by_source: dict[str, SourceCounts] = {}

    def add(self, info: BatchInfo, *, before: int = 0, delivered: bool = True) -> None:
        """Add the next batch of the stream.

        Args:
            info: info of the batch.
            before: number of samples in ``info.seen`` that were counted before the stream was resumed. Their batches were not
                added to this account. Default 0.
            delivered: False if an error is raised instead of delivering the batch. Its images then count as waiting. Default
                True.
        """
        self.seen = info.seen - before
        self.rejected += info.rejections
        self.shard_errors += info.shard_errors
        _add(self.dropped, info.dropped)
        self.by_source = counted_by_source(self.by_source, info, delivered=delivered)
        if delivered:
            self.packed += info.packed
            self.shortened += info.shortened
            _add(self.warnings, info.warnings)

    @property
    def waiting(self) -> int:
        """Number of samples that are planned or queued, but not delivered yet."""
        return self.seen - self.packed - len(self.rejected) - sum(self.dropped.values())

    def report(self, waiting: int | None = None) -> Report:
        """Return the report so far. Batches that are added later do not change this report.

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
            by_source=dict(self.by_source),
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for kind, count in counts.items():
        total[kind] = total.get(kind, 0) + count
