"""The policy for unusable samples: raise an error, skip the sample, record it, or stop when there are too many."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError, PatchpackError, SourceError
from patchpack.losses import Rejection, ShardFault
from patchpack.plan._integers import require_int
from patchpack.plan.online.losses import MAX_IN_A_ROW

OnError = Literal["raise", "skip"] | Callable[[Any], bool]
_ON_ERROR = "on_error is 'raise', 'skip', a function that returns True to continue, or a patchpack.ErrorPolicy; got {!r}"
_ENOUGH = 100  # a share counts only from this many samples on


@dataclass(frozen=True)
class ErrorPolicy:
    """The handling of unusable samples, damaged shards and dead workers: ``on_error`` of `load`, `Pack` and `Painter`.

    Attributes:
        on_error: ``"raise"`` stops at the first unusable sample and names it. ``"skip"`` counts and names unusable samples in
            the report and continues. A function is called with each `Rejection` and `ShardFault` once, in order, and returns
            True to continue.
        log: path of a file to which each unusable sample and shard is appended as one line of JSON, with step, epoch, shard,
            member, key, stage and reason. Default None: no file.
        max_in_a_row: number of unusable samples in a row after which an error is raised, even with ``"skip"``, because the
            source is probably broken. Default 100. None sets no limit.
        max_share: largest accepted fraction of unusable samples, in (0, 1), checked from 100 samples on. Default None: no
            limit.
        timeout: seconds without a batch from any worker, or without a header from the process that reads headers, after which
            these processes count as frozen. An error then names what each process was doing. Default 600. 0 sets no limit. Only
            `load` uses the timeout.
        worker_restarts: number of times in an epoch that workers may be replaced because one died or all are frozen, default 0.
            The new workers paint the unfinished batches, so no batch is lost or doubled. Each restart gives a warning. Only
            `load` restarts workers.

    Raises:
        ConfigError: an attribute has a value that is not described here.
    """

    on_error: OnError = "raise"
    log: str | Path | None = None
    max_in_a_row: int | None = MAX_IN_A_ROW
    max_share: float | None = None
    timeout: float = 600.0
    worker_restarts: int = 0

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip") and not callable(self.on_error):
            raise ConfigError(_ON_ERROR.format(self.on_error))
        if isinstance(self.on_error, type):
            raise ConfigError(f"on_error must be an instance: {self.on_error.__name__}(...), got the class itself")
        if self.max_in_a_row is not None:
            require_int("max_in_a_row", self.max_in_a_row, 1, 1 << 50)
        if self.max_share is not None and not (isinstance(self.max_share, float) and 0 < self.max_share < 1):
            raise ConfigError(f"max_share is a share of the samples in (0, 1), or None; got {self.max_share!r}")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, (int, float)) or not self.timeout >= 0:
            raise ConfigError(f"timeout is a number of seconds, 0 for none, got {self.timeout!r}")
        require_int("worker_restarts", self.worker_restarts, 0, 1 << 30)
        if self.log is not None:
            if not isinstance(self.log, (str, os.PathLike)) or not os.fspath(self.log):
                raise ConfigError(f"log must be the path of a file, or None, got {self.log!r}")
            log = Path(self.log).absolute()
            if log.is_dir():
                raise ConfigError(f"log={str(log)!r} is a folder: give the path of a file to append to")
            if not log.parent.is_dir():
                raise ConfigError(f"log={str(log)!r}: there is no folder {log.parent.name!r} to write it to")
            object.__setattr__(self, "log", log)

    @classmethod
    def of(cls, on_error: OnError | ErrorPolicy) -> ErrorPolicy:
        """Return the policy that the argument ``on_error`` of a public function stands for.

        An `ErrorPolicy` is returned unchanged.
        """
        return on_error if isinstance(on_error, ErrorPolicy) else cls(on_error)

    def require_default(self, user: str, *names: str) -> ErrorPolicy:
        """Return the policy. Raise `ConfigError` if an attribute in `names` does not have its default value.

        `user` is the name of the function or class that cannot use these attributes.
        """
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"{name}={getattr(self, name)!r} is for load, which starts processes; {user} starts none")
        return self


def _goes_on(on_error: Callable[[Any], bool], loss: Rejection | ShardFault) -> bool:
    """Return the answer of a user's function for a loss. Raises `ConfigError` for an answer that is neither True nor False."""
    answer = on_error(loss)
    if not isinstance(answer, (bool, np.bool_)):
        raise ConfigError(f"on_error returned {answer!r} for {loss}: return True to continue, or False to raise the error")
    return bool(answer)


class ErrorJudge:
    """An object that decides about every lost sample of one iteration.

    The loader, the painter and `Pack` call `judge` for every batch.
    """

    def __init__(self, policy: ErrorPolicy) -> None:
        self._policy = policy
        self._in_a_row = self._lost = 0

    def begin(self) -> None:
        """Reset the counts of losses for a new epoch."""
        self._in_a_row = self._lost = 0

    def judge(self, info: BatchInfo, seen: int | None = None) -> PatchpackError | None:
        """Return the error to raise in place of a batch. Return None if the batch is to be delivered.

        Args:
            info: info of the batch.
            seen: number of samples met so far. Default None: ``info.seen``.
        """
        on_error = self._policy.on_error
        losses: list[Rejection | ShardFault] = [*info.rejections, *info.shard_errors]
        self._write(losses, info)
        for loss in losses:
            if on_error == "raise" or (callable(on_error) and not _goes_on(on_error, loss)):
                return loss.as_error()
        if on_error == "raise":  # all ranks stop together
            for loss in info.elsewhere:
                return loss.as_error()
        return self._too_many(info, info.seen if seen is None else seen)

    def _too_many(self, info: BatchInfo, seen: int) -> PatchpackError | None:
        lost, policy = len(info.rejections), self._policy
        self._lost += lost
        self._in_a_row = 0 if info.packed else self._in_a_row + lost
        last = f"the last: {info.rejections[-1]}" if info.rejections else "see the report"
        if policy.max_share is not None and seen >= _ENOUGH and self._lost > policy.max_share * seen:
            return SourceError(f"{self._lost} of {seen} samples cannot be used, more than max_share={policy.max_share}; {last}")
        if policy.max_in_a_row is not None and self._in_a_row >= policy.max_in_a_row:
            return SourceError(f"{self._in_a_row} samples in a row cannot be used (max_in_a_row={policy.max_in_a_row}); {last}")
        return None

    def _write(self, losses: list[Rejection | ShardFault], info: BatchInfo) -> None:
        if self._policy.log is None or not losses:
            return
        where = {"epoch": info.epoch, "step": info.step}
        lines = "".join(json.dumps(where | loss._asdict(), ensure_ascii=False) + "\n" for loss in losses)
        # opened for each write: forked and spawned workers append to the same file, one write at a time
        file = os.open(self._policy.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, lines.encode("utf-8", "backslashreplace"))
        finally:
            os.close(file)
