"""The counts of one epoch over all streams of batches, and the errors that end the epoch."""

from __future__ import annotations

from patchpack.batch_info import BatchInfo
from patchpack.errors import SourceError
from patchpack.report import Account, Report
from patchpack.stream.policy import ErrorJudge, ErrorPolicy


class EpochAccount:
    """The counts of one epoch. Each stream of batches has its own `Account`.

    An `ErrorPolicy` decides whether an unusable sample raises an error.

    Args:
        policy: the policy for unusable samples.

    Attributes:
        fatal: the error that ended the epoch because the planner could make no batch, or no further batch. None without such an
            error.
    """

    def __init__(self, policy: ErrorPolicy) -> None:
        self._judge = ErrorJudge(policy)
        self._streams: dict[int, Account] = {}  # only one if the parent plans
        self.fatal: SourceError | None = None

    def begin(self) -> None:
        """Reset all counts for a new epoch."""
        self._streams, self.fatal = {}, None
        self._judge.begin()

    def judge(self, info: BatchInfo, *, one_ends_all: bool) -> Exception | None:
        """Return the error to raise in place of a batch that has arrived. Return None if the batch is to be delivered.

        Args:
            info: info of the batch. Its field `worker` is the number of the stream.
            one_ends_all: True if the epoch ends when one stream has no further batch.
        """
        seen = info.seen + sum(account.seen for number, account in self._streams.items() if number != info.worker)
        error: Exception | None = self._judge.judge(info, seen)
        if error is None and info.fatal is not None:
            self.fatal = SourceError(info.fatal)
            return self.fatal if one_ends_all else None
        return error

    def add(self, info: BatchInfo, *, before: int, delivered: bool) -> None:
        """Count the samples of a batch.

        Args:
            info: info of the batch. Its field `worker` is the number of the stream.
            before: number of samples in ``info.seen`` that belong to batches before a resume.
            delivered: False if an error is raised in place of the batch.
        """
        self._streams.setdefault(info.worker, Account()).add(info, before=before, delivered=delivered)

    def end(self, name: str, *, whole: bool) -> None:
        """End the epoch. Raise `fatal` if nothing was packed.

        Args:
            name: name of the source.
            whole: True if this object counted all samples of the epoch. Then the epoch fails if every sample was rejected.
        """
        report = self.report()
        if whole and not self.fatal and report.rejected and len(report.rejected) >= report.seen:
            counts = f"{report.seen} samples seen, {len(report.rejected)} rejected"
            self.fatal = SourceError(f"{name}: no image to pack, {counts}; the first: {report.rejected[0]}")
        if self.fatal and not report.packed:
            raise self.fatal

    def report(self) -> Report:
        """Return the report of all streams so far."""
        return Report.total(account.report() for account in self._streams.values())
