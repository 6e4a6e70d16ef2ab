"""When so many samples are lost that it is an error, whatever `on_error` says."""

from __future__ import annotations

from patchpack.batch_info import BatchInfo
from patchpack.errors import SourceError
from patchpack.losses import Rejection
from patchpack.stream.policy import ErrorJudge, ErrorPolicy

BAD = Rejection("a.tar", "k", "k.jpg", "decode", "no picture")


def batch(lost: int, seen: int, packed: int = 1) -> BatchInfo:
    """The info of a batch."""
    return BatchInfo(seen=seen, packed=packed, rejections=[BAD] * lost)


def test_a_share_is_of_one_epoch() -> None:
    policy = ErrorJudge(ErrorPolicy("skip", max_share=0.1))
    for _ in range(3):
        policy.begin()
        assert policy.judge(batch(lost=15, seen=99)) is None  # too few to say anything of a share
        assert policy.judge(batch(lost=0, seen=150)) is None  # 15 of 150 are no more than a tenth
    error = policy.judge(batch(lost=1, seen=150))
    assert isinstance(error, SourceError)
    assert str(error).startswith("16 of 150 samples cannot be used, more than max_share=0.1")


def test_losses_in_a_row_are_of_one_epoch() -> None:
    policy = ErrorJudge(ErrorPolicy("skip", max_in_a_row=3))
    for _ in range(3):
        policy.begin()
        assert policy.judge(batch(lost=2, seen=2, packed=0)) is None
    assert isinstance(policy.judge(batch(lost=1, seen=3, packed=0)), SourceError)
