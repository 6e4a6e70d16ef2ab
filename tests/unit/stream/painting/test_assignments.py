"""What workers were given and have not brought back is what the next ones are given first, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from patchpack.stream.painting.assignments import InFlight


def plans(count: int) -> Any:
    return [SimpleNamespace(step=step, headers=()) for step in range(count)]


def test_other_workers_are_given_what_has_not_arrived_and_then_the_rest() -> None:
    in_flight = InFlight(plans(6))
    first = iter(in_flight)
    assert [next(first).step for _ in range(4)] == [0, 1, 2, 3]
    for step in (0, 1):
        in_flight.arrived(step)
    assert [plan.step for plan in in_flight] == [2, 3, 4, 5]
    for step in range(2, 6):
        in_flight.arrived(step)
    assert list(in_flight) == []


def test_what_is_waited_for_is_the_first_that_has_not_arrived() -> None:
    header = SimpleNamespace(key="a/7", member="7.jpg", shard="a")
    given = plans(3)
    given[1].headers = (header,)
    in_flight = InFlight(given)
    list(in_flight)
    assert in_flight.next() == ""  # a step without an image is nobody's
    in_flight.arrived(0)
    assert in_flight.next() == "; waited for is step 1, from a/7 (member 7.jpg of a) on"
