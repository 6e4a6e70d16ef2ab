"""The counts of each source of a mix, in a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from patchpack.batch_info import BatchInfo
from patchpack.losses import source_of


@dataclass(frozen=True)
class SourceCounts:
    """The samples of one source of a mix. The numbers always satisfy ``seen == packed + rejected + dropped + waiting``.

    Attributes:
        seen: number of samples of the source that the planner has read, up to the last delivered batch.
        packed: number of its readable samples in delivered batches.
        rejected: number of its samples that did not reach a batch.
        dropped: number of its samples that a rule left out.
        waiting: number of its samples that are planned or queued, but not delivered yet.
        tokens: number of tokens of its packed samples, without texts.
    """

    seen: int = 0
    packed: int = 0
    rejected: int = 0
    dropped: int = 0
    waiting: int = 0
    tokens: int = 0


def counted_by_source(
    before: Mapping[str, SourceCounts], info: BatchInfo, *, delivered: bool = True
) -> dict[str, SourceCounts]:
    """Return the counts by source after one more batch. Without a mix, return an empty dict.

    Args:
        before: the counts before the batch.
        info: info of the batch.
        delivered: False if an error is raised instead of delivering the batch. Its samples then count as waiting. Default True.
    """
    lost = Counter(source_of(rejection.key) for rejection in info.rejections)
    after = dict(before)
    for name, counts in info.by_source.items():
        old, packed = before.get(name, SourceCounts()), counts.get("packed", 0)
        new = replace(
            old,
            packed=old.packed + packed * delivered,
            rejected=old.rejected + lost[name],
            dropped=old.dropped + counts.get("dropped", 0),
            waiting=counts.get("waiting", 0) + packed * (not delivered),
            tokens=old.tokens + counts.get("tokens", 0) * delivered,
        )
        after[name] = replace(new, seen=new.packed + new.rejected + new.dropped + new.waiting)
    return after


def total_by_source(reports: Iterable[Mapping[str, SourceCounts]]) -> dict[str, SourceCounts]:
    """Return the sums of the counts of several streams, by source."""
    total: dict[str, SourceCounts] = {}
    for report in reports:
        for name, counts in report.items():
            old = total.get(name, SourceCounts())
            total[name] = SourceCounts(*(getattr(old, f.name) + getattr(counts, f.name) for f in fields(SourceCounts)))
    return total


def lines_by_source(by_source: Mapping[str, SourceCounts]) -> list[str]:
    """Return a line of text for each source."""
    tokens = sum(counts.tokens for counts in by_source.values()) or 1
    return [
        f"  {name}: {c.seen} seen = {c.packed} packed + {c.rejected} rejected + {c.dropped} dropped + {c.waiting} waiting, "
        f"{100 * c.tokens / tokens:.1f} % of the tokens"
        for name, c in by_source.items()
    ]
