"""Contenders that take turns: every round runs each of them once over the same pictures, so that what disturbs the machine
disturbs them alike, and ratios are taken inside a round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Made(NamedTuple):
    """What a batch holds: images, their tokens, and the places for tokens in the arrays handed over."""

    images: int
    tokens: int
    places: int


@dataclass(frozen=True)
class Contender:
    """One way to make batches of the same pictures.

    Attributes:
        name: in the table.
        batches: makes them all, from the start.
        count: what is in one of them; None for a stage that makes no batch.
    """

    name: str
    batches: Callable[[], Iterable[Any]]
    count: Callable[[Any], Made] | None = None


Times = dict[str, list[float]]
"""Name of a contender → milliseconds per image in each round."""


def exhaust(contender: Contender) -> None:
    """Make all its batches and let go of each at once."""
    for _ in contender.batches():
        pass


def try_all(contenders: Iterable[Contender], images: int) -> tuple[list[Contender], dict[str, Any], dict[str, str]]:
    """Run each once, not timed: kernels compile, caches fill, and who cannot run is left out.

    Returns:
        Those that ran; what they make of the pictures; and why the others do not run.
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
    """CPU time of this process, all its threads, in milliseconds per image; the order moves on by one each round."""
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
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": round(middle, digits), "quartiles": [round(low, digits), round(high, digits)]}


def ratios(times: Times, above: str, below: str) -> list[float]:
    """``above / below`` in each round."""
    return [a / b for a, b in zip(times[above], times[below], strict=True)]


def differences(times: Times, whole: str, *parts: str) -> list[float]:
    """``whole - sum(parts)`` in each round."""
    return [w - sum(p) for w, *p in zip(times[whole], *(times[part] for part in parts), strict=True)]
