"""Contenders that take turns in rounds.

Every round runs each contender once over the same pictures. Other work on the machine then slows all contenders alike. Ratios
are taken inside a round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Made(NamedTuple):
    """The contents of a batch: number of images, number of their tokens, and number of positions for tokens in the batch's
    arrays.
    """

    images: int
    tokens: int
    places: int


@dataclass(frozen=True)
class Contender:
    """One way to make batches of the same pictures.

    Attributes:
        name: name in the table.
        batches: function that makes all batches, from the start.
        count: function that counts the contents of one batch. None for a stage that makes no batch.
    """

    name: str
    batches: Callable[[], Iterable[Any]]
    count: Callable[[Any], Made] | None = None


Times = dict[str, list[float]]
"""Name of a contender → milliseconds per image in each round."""


def exhaust(contender: Contender) -> None:
    """Make all batches of a contender, and release each at once."""
    for _ in contender.batches():
        pass


def try_all(contenders: Iterable[Contender], images: int) -> tuple[list[Contender], dict[str, Any], dict[str, str]]:
    """Run each contender once without timing it, so that kernels compile and caches fill.

    Leave out each contender that cannot run.

    Returns:
        The contenders that ran, the counts of what each made, and for each of the others the reason why it does not run.
    """
    able, quality, missing = [], {}, {}
    for contender in contenders:
        try:
            made = [contender.count(batch) if contender.count else None for batch in contender.batches()]
        except Exception as error:  # a peer of another version: the run goes on without it
            missing[contender.name] = f"{type(error).__name__}: {error}"[:300]
            continue
        able.append(contender)
        if counted := [m for m in made if m is not None]:
            total = Made(*(sum(column) for column in zip(*counted, strict=True)))
            quality[contender.name] = {
                "images lost": images - total.images,
                "tokens per image": round(total.tokens / max(1, total.images), 1),
                "fill %": round(100 * total.tokens / max(1, total.places), 1),
            }
    return able, quality, missing


def take_turns(contenders: Sequence[Contender], images: int, rounds: int) -> Times:
    """Return the CPU time of each contender in milliseconds per image, over all threads of this process.

    The order of the contenders moves on by one in each round.
    """
    times: Times = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        start = number % len(contenders)
        for contender in [*contenders[start:], *contenders[:start]]:
            gc.collect()
            begin = time.process_time()
            exhaust(contender)
            times[contender.name].append(1e3 * (time.process_time() - begin) / images)
    return times


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": round(middle, digits), "quartiles": [round(low, digits), round(high, digits)]}


def ratios(times: Times, above: str, below: str) -> list[float]:
    """Return ``above / below`` in each round."""
    return [a / b for a, b in zip(times[above], times[below], strict=True)]


def differences(times: Times, whole: str, *parts: str) -> list[float]:
    """Return ``whole - sum(parts)`` in each round."""
    return [w - sum(p) for w, *p in zip(times[whole], *(times[part] for part in parts), strict=True)]
