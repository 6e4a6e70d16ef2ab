"""The order in which a mixture takes samples from its sources. It depends on integers alone, and not on a random draw.

By samples, the order is made of rounds of 1000 places. A weight that is not a whole number of samples per thousand gives a
source some whole places, and a fraction of one more. Whole places are the same in every round. The places that are left over
are given to other sources in each round. A source that gets such a place in two rounds keeps the place. Any 1000 consecutive
places therefore hold each source's share, rounded up or down.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Literal, Protocol

By = Literal["samples", "tokens"]

ROUND = 1000
"""Number of samples in which a mixture holds its ratios."""


class Schedule(Protocol):
    """The order of a mixture's sources."""

    def choose(self) -> int:
        """Return the number of the source of the next sample."""
        ...

    def took(self, source: int, tokens: int) -> None:
        """Record that the chosen source gave a sample of `tokens` tokens."""
        ...

    def state(self) -> list[int]:
        """Return the state, JSON-safe."""
        ...

    def restore(self, state: Sequence[int]) -> None:
        """Continue from a result of `state`."""
        ...


def schedule_of(by: By, weights: Sequence[Fraction]) -> Schedule:
    """Return a new schedule.

    Args:
        by: ``"samples"`` or ``"tokens"``, what the weights are shares of.
        weights: weight of each source, > 0.
    """
    parts = whole_parts(weights)
    return BySamples(parts) if by == "samples" else ByTokens(parts)


def whole_parts(weights: Sequence[Fraction]) -> list[int]:
    """Return integers in the same ratios as the weights."""
    together = lcm(*(weight.denominator for weight in weights))
    return [int(weight * together) for weight in weights]


class BySamples:
    """A schedule in which every source has its share of the samples.

    Of any 1000 consecutive samples, a source with the share s has ``floor(1000 s)`` or ``ceil(1000 s)``.

    Args:
        parts: weights of the sources, integers >= 1.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        self._total = sum(parts)
        shares = [divmod(ROUND * part, self._total) for part in parts]
        self._whole, self._rest = [whole for whole, _ in shares], [rest for _, rest in shares]
        num_free = sum(self._rest) // self._total
        self._places = _spread([*self._whole, *[1] * num_free])
        self._taken = 0
        self._extra = [0] * len(parts)  # by source: number of free places that it has had
        self._owners = [-1] * num_free  # by free place: the source that has it in this round

    def choose(self) -> int:
        """Return the number of the source of the next sample."""
        number, place = divmod(self._taken, ROUND)
        if place == 0 and self._owners and sum(self._extra) == number * len(self._owners):
            self._give_free_places(number)
        chosen = self._places[place]
        return chosen if chosen < len(self._rest) else self._owners[chosen - len(self._rest)]

    def took(self, source: int, tokens: int) -> None:
        """Record that the chosen source gave a sample."""
        self._taken += 1

    def state(self) -> list[int]:
        """Return the state: the number of samples, and the free places of each source so far and in this round."""
        return [self._taken, *self._extra, *self._owners]

    def restore(self, state: Sequence[int]) -> None:
        """Continue from a result of `state`."""
        stop = 1 + len(self._extra)
        self._taken, self._extra, self._owners = state[0], list(state[1:stop]), list(state[stop:])

    def _give_free_places(self, number: int) -> None:
        """Choose the sources of the free places of round `number`."""
        chosen = _earliest(self._rest, self._extra, self._total, number, len(self._owners))
        new = [source for source in chosen if source not in self._owners]
        for place, owner in enumerate(self._owners):
            if owner not in chosen:
                self._owners[place] = new.pop(0)
        for source in chosen:
            self._extra[source] += 1


class ByTokens:
    """A schedule in which every source has its share of the tokens.

    The next sample comes from the source with the fewest tokens so far, divided by its weight. No source then has more than its
    share of all tokens plus the tokens of one sample.

    Args:
        parts: weights of the sources, integers >= 1.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        self._parts, self._tokens = list(parts), [0] * len(parts)

    def choose(self) -> int:
        """Return the number of the source of the next sample. Of equal sources the first is chosen."""
        best = 0
        for other in range(1, len(self._parts)):  # a fraction is compared without a division
            if self._tokens[other] * self._parts[best] < self._tokens[best] * self._parts[other]:
                best = other
        return best

    def took(self, source: int, tokens: int) -> None:
        """Record that the chosen source gave a sample of `tokens` tokens."""
        self._tokens[source] += tokens

    def state(self) -> list[int]:
        """Return the state: the number of tokens of each source."""
        return list(self._tokens)

    def restore(self, state: Sequence[int]) -> None:
        """Continue from a result of `state`."""
        self._tokens = list(state)


def _spread(counts: Sequence[int]) -> list[int]:
    """Return each number i ``counts[i]`` times, evenly spread: among the first n, i is less than one off its share of n."""
    total = sum(counts)
    given = [0] * len(counts)
    order = []
    for position in range(total):
        (number,) = _earliest(counts, given, total, position, 1)
        given[number] += 1
        order.append(number)
    return order


def _earliest(rates: Sequence[int], given: Sequence[int], total: int, turn: int, count: int) -> list[int]:
    """Return the `count` different sources whose next unit is due first, among those whose next unit may come at `turn`.

    Source i gets ``rate = rates[i] / total`` units per turn. Its unit g may come once ``g / rate < turn + 1``, and is due after
    ``ceil((g + 1) / rate)`` turns. For one unit per turn this keeps every source less than one unit off (Steiner and Yeomans,
    "Level schedules for mixed-model, just-in-time processes", 1993).

    Args:
        rates: units per turn of each source, times `total`.
        given: units that each source has had.
        total: divisor of the rates.
        turn: number of the turn, from 0.
        count: units of the turn, ``sum(rates) / total``.
    """

    def key(source: int) -> tuple[bool, int]:
        early = given[source] * total >= (turn + 1) * rates[source]
        return early, -(-(given[source] + 1) * total // rates[source])

    return sorted((source for source, rate in enumerate(rates) if rate), key=key)[:count]
