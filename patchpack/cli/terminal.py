"""What the commands say: counts in words, names that may hold anything, what was lost, and the command to run next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from patchpack.cli.opening import AUTO
from patchpack.report import Rejection, ShardFault
from patchpack.stream.sample.names import IMAGE

_SHOWN = 10  # rejections in full


def say(console: Console, text: str) -> None:
    """A line as it is: not wrapped, nothing in it taken for markup."""
    console.print(printable(text, console.encoding), markup=False, highlight=False, soft_wrap=True)


def printable(text: str, encoding: str) -> str:
    """Escapes in place of what a terminal would act on, or the encoding lacks: file names may hold anything."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def count_of(number: int, name: str, plural: str = "s") -> str:
    """``1 image``, ``1,024 images``."""
    return f"{number:,} {name}{'' if number == 1 else plural}"


def say_losses(console: Console, rejected: Sequence[Rejection], faults: Sequence[ShardFault]) -> None:
    """The samples that cannot be used, the first ones with their reasons, and the shards that end early."""
    for rejection in rejected[:_SHOWN]:
        inside = "" if rejection.key.endswith(rejection.member) else f" ({rejection.member})"
        say(console, f"  {rejection.key}{inside} [{rejection.stage}]")
        console.print(Padding(Text(printable(rejection.reason, console.encoding)), (0, 0, 0, 4)))
    if len(rejected) > _SHOWN:
        stages = Counter(rejection.stage for rejection in rejected)
        say(console, f"  and {len(rejected) - _SHOWN:,} more; by stage: " + ", ".join(f"{s} {n}" for s, n in stages.items()))
    for fault in faults:
        say(console, f"shard {fault.shard}: {fault.reason}")


def source_arguments(path: str, image: str, target: str | None) -> str:
    """A source and its flags as they were typed, quoted for a shell."""
    flags = "" if image == IMAGE else f" --image {shlex.quote(image)}"
    flags += "" if target == AUTO else " --no-target" if target is None else f" --target {shlex.quote(target)}"
    return shlex.quote(path) + flags
