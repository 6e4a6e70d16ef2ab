"""The schedules of a mixture, written from their definitions with fractions, one place at a time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor


def due_first(shares: Sequence[Fraction], given: Sequence[int], turn: int, count: int) -> list[int]:
    """The `count` sources with the earliest deadline for their next unit; those that may not come yet are last."""
    some = [i for i, share in enumerate(shares) if share]
    return sorted(some, key=lambda i: (floor(given[i] / shares[i]) > turn, ceil((given[i] + 1) / shares[i]), i))[:count]


def naive_samples(weights: Sequence[Fraction], count: int) -> list[int]:
    """The sources of the first `count` samples of a mixture by samples."""
    per_thousand = [1000 * weight / sum(weights) for weight in weights]
    whole = [floor(share) for share in per_thousand]
    rest = [share - floor(share) for share in per_thousand]
    num_free = 1000 - sum(whole)
    places: list[int | str] = []
    shares = [Fraction(n, 1000) for n in whole] + [Fraction(1, 1000)] * num_free
    given = [0] * len(shares)
    for turn in range(1000):
        (one,) = due_first(shares, given, turn, 1)
        given[one] += 1
        places.append(one)
    order: list[int] = []
    extra, owners = [0] * len(weights), [None] * num_free
    number = 0
    while len(order) < count:
        chosen = due_first(rest, extra, number, num_free)
        arriving = [i for i in chosen if i not in owners]
        owners = [owner if owner in chosen else arriving.pop(0) for owner in owners]
        for i in chosen:
            extra[i] += 1
        order += [place if place < len(weights) else owners[place - len(weights)] for place in places]
        number += 1
    return order[:count]


def naive_tokens(weights: Sequence[Fraction], tokens: Sequence[Sequence[int]], count: int) -> list[int]:
    """The sources of the first `count` samples of a mixture by tokens; ``tokens[i]`` has those of source i, repeated."""
    had, taken = [Fraction(0)] * len(weights), [0] * len(weights)
    order = []
    for _ in range(count):
        i = min(range(len(weights)), key=lambda i: (had[i] / weights[i], i))
        had[i] += tokens[i][taken[i] % len(tokens[i])]
        taken[i] += 1
        order.append(i)
    return order
