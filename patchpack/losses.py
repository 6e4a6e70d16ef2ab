"""Records of losses: samples that reached no batch, and containers that could not be read to their end."""

from __future__ import annotations

from typing import NamedTuple

from patchpack import errors

_STAGE_ERRORS: dict[str, type[errors.PatchpackError]] = {
    "read": errors.SourceError,
    "header": errors.DecodeError,
    "decode": errors.DecodeError,
    "target": errors.TargetError,
    "plan": errors.SizeError,
}


def source_of(key: str) -> str:
    """Return the name of the source of a mix, with which every key and every name of a shard begins."""
    return key.partition("/")[0]


class Rejection(NamedTuple):
    """The record of one sample that did not reach a batch, with the reason.

    Attributes:
        shard: the shard or folder of the sample, "" for an iterable.
        key: the sample's key.
        member: name of the faulty file inside the shard (``n0144.jpg``), or number of the faulty image in the sample (``[2]``
            is the third image). "" if neither is known.
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
        """Return the exception that is raised for this rejection with ``on_error="raise"``."""
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
        """Return the exception that is raised for this fault with ``on_error="raise"``."""
        return errors.ShardError(f"{self.shard}: {self.reason}. Pass on_error='skip' to count it and go on.")
