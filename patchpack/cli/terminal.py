"""Text on the terminal: counts in words, file names with any characters in them, samples that cannot be used, progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn
from rich.text import Text

from patchpack.report import Rejection, ShardFault

_SHOWN = 10  # rejections in full


def say(console: Console, text: str) -> None:
    """Print a line. It is not wrapped, and nothing in it is read as markup."""
    console.print(printable(text, console.encoding), markup=False, highlight=False, soft_wrap=True)


def printable(text: str, encoding: str) -> str:
    """Return text with escapes for control characters and for what the encoding lacks, since file names may hold both."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def count_of(number: int, name: str, plural: str = "s") -> str:
    """Return ``1 image`` or ``1,024 images``.

    Args:
        number: the count.
        name: name of one thing.
        plural: ending of the name for other counts than 1. Default "s".
    """
    return f"{number:,} {name}{'' if number == 1 else plural}"


def percent(share: float) -> str:
    """Return a share in whole percents, which are 0 or 100 only if the share is exactly that."""
    return "under 1 %" if 0 < share < 0.005 else "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def say_losses(console: Console, rejected: Sequence[Rejection], faults: Sequence[ShardFault]) -> None:
    """Print the samples that cannot be used, and the shards that could not be read to their end.

    Args:
        console: the terminal.
        rejected: the samples. The first ten are printed with their reasons, the others counted by stage.
        faults: the shards.
    """
    for rejection in rejected[:_SHOWN]:
        inside = "" if rejection.key.endswith(rejection.member) else f" ({rejection.member})"
        say(console, f"  {rejection.key}{inside} [{rejection.stage}]")
        console.print(Padding(Text(printable(rejection.reason, console.encoding)), (0, 0, 0, 4)))
    if len(rejected) > _SHOWN:
        stages = Counter(rejection.stage for rejection in rejected)
        say(console, f"  and {len(rejected) - _SHOWN:,} more; by stage: " + ", ".join(f"{s} {n}" for s, n in stages.items()))
    for fault in faults:
        say(console, f"shard {fault.shard}: {fault.reason}")


def progress(console: Console, *columns: ProgressColumn) -> Progress:
    """Return a line of progress that disappears at its end, and is not shown where the output is no terminal."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
