"""The policy for unusable samples: raise, skip, record, or stop when there are too many."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from patchpack.errors import ConfigError, PatchpackError, SourceError
from patchpack.plan._integers import require_int
from patchpack.plan.online.planner import FUSE
from patchpack.report import BatchInfo, Rejection, ShardFault

OnError = Literal["raise", "skip"] | Callable[[Any], bool]
Fuse = int | float | None
_ENOUGH = 100  # a share counts only from this many samples on


class ErrorPolicy:
    """The decision about every loss, in one place. The loader, the painter and `Pack` call it for every batch.

    Args:
        on_error: ``"raise"`` raises for the first loss. ``"skip"`` names it in the report and continues. A function of a
            `Rejection` or `ShardFault` returns True to continue. It is called once for each loss, in order.
        quarantine: a file to which each loss is appended as a line of JSON: step, epoch, shard, member, key, stage, reason.
        fuse: raise after this many unusable samples in a row, even with ``on_error="skip"``, because the source is probably
            broken. Default 100. A share in (0, 1) raises once more than that share of at least 100 samples is lost. None never
            raises.

    Raises:
        ConfigError: any other value.
    """

    def __init__(self, on_error: OnError = "raise", quarantine: str | Path | None = None, fuse: Fuse = FUSE) -> None:
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise ConfigError(f"on_error is 'raise', 'skip' or a function of a rejection, got {on_error!r}")
        if isinstance(fuse, float):
            if not 0 < fuse < 1:
                raise ConfigError(f"a fuse is a number of samples in a row, a share in (0, 1), or None, got {fuse}")
        elif fuse is not None:
            require_int("fuse", fuse, 1, 1 << 50)
        if quarantine is not None:
            quarantine = Path(quarantine).absolute()
            if not quarantine.parent.is_dir():
                raise ConfigError(
                    f"quarantine={str(quarantine)!r}: there is no folder {quarantine.parent.name!r} to write it to"
                )
        self.on_error, self.quarantine, self.fuse = on_error, quarantine, fuse
        self._in_a_row = self._lost = 0

    @property
    def in_a_row(self) -> int | None:
        """Number of unusable samples in a row at which the planner stops. None if the fuse is a share or None."""
        return None if isinstance(self.fuse, float) else self.fuse

    def begin(self) -> None:
        """Begin an epoch without losses."""
        self._in_a_row = self._lost = 0

    def judge(self, info: BatchInfo, seen: int | None = None) -> PatchpackError | None:
        """Return the error to raise instead of delivering a batch, or None.

        Args:
            info: of the batch.
            seen: samples met so far; None takes ``info.seen``.
        """
        losses: list[Rejection | ShardFault] = [*info.rejections, *info.shard_errors]
        self._write(losses, info)
        for loss in losses:
            if self.on_error == "raise" or (callable(self.on_error) and not self.on_error(loss)):
                return loss.as_error()
        if self.on_error == "raise":  # all ranks stop together
            for loss in info.elsewhere:
                return loss.as_error()
        return self._blown(info, info.seen if seen is None else seen)

    def _blown(self, info: BatchInfo, seen: int) -> PatchpackError | None:
        lost = len(info.rejections)
        self._lost += lost
        self._in_a_row = 0 if info.packed else self._in_a_row + lost
        if isinstance(self.fuse, float):
            if seen >= _ENOUGH and self._lost > self.fuse * seen:
                return SourceError(f"{self._lost} of {seen} samples cannot be used, more than fuse={self.fuse}; {_last(info)}")
        elif self.fuse is not None and self._in_a_row >= self.fuse:
            return SourceError(f"{self._in_a_row} samples in a row cannot be used (fuse={self.fuse}); {_last(info)}")
        return None

    def _write(self, losses: list[Rejection | ShardFault], info: BatchInfo) -> None:
        if self.quarantine is None or not losses:
            return
        where = {"epoch": info.epoch, "step": info.step}
        lines = "".join(json.dumps(where | loss._asdict(), ensure_ascii=False) + "\n" for loss in losses)
        # opened for each write: forked and spawned workers append to the same file, one write at a time
        file = os.open(self.quarantine, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, lines.encode("utf-8", "backslashreplace"))
        finally:
            os.close(file)


def _last(info: BatchInfo) -> str:
    return f"the last: {info.rejections[-1]}" if info.rejections else "see the report"
