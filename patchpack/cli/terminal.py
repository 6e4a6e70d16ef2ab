"""Text on the terminal: counts, file names with any characters, samples that cannot be used, and progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn
from rich.text import Text

from patchpack.losses import Rejection, ShardFault

_SHOWN = 10  # rejections in full


def say(console: Console, text: str) -> None:
    """Print a line. It is not wrapped, and nothing in it is read as markup."""
    console.print(printable(text, console.encoding), markup=False, highlight=False, soft_wrap=True)


def printable(text: str, encoding: str) -> str:
    """Return text with escapes for control characters and for characters that the encoding lacks. File names may hold both."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def count_of(number: int, name: str, plural: str = "s") -> str:
    """Return a number with its noun, such as ``1 image`` or ``1,024 images``.

    Args:
        number: the count.
        name: noun for one thing.
        plural: ending of the noun for any count except 1. Default "s".
    """
    return f"{number:,} {name}{'' if number == 1 else plural}"


def percent(share: float) -> str:
    """Return a fraction as a whole number of percent. The number is 0 or 100 only if the fraction is exactly 0 or 1."""
    return "under 1 %" if 0 < share < 0.005 else "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def say_losses(console: Console, rejected: Sequence[Rejection], faults: Sequence[ShardFault]) -> None:
    """Print the samples that cannot be used, and the shards that could not be read to their end.

    Args:
        console: the terminal.
        rejected: the samples that cannot be used. The first ten are printed with their reasons. The rest are counted by stage.
        faults: the shards that could not be read to their end.
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
    """Return a progress line that disappears when it ends. It is not shown if the output is not a terminal."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
