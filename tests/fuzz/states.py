"""Saved states, damaged between saving and loading."""

from __future__ import annotations

import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import patchpack as pp
from helpers.standin import of_sizes
from patchpack.errors import ConfigError
from patchpack.stream.planning.index_planner import IndexPlanner
from patchpack.stream.planning.planner import Planner

from .archives import Entry, archive_with, header_of, image_of, own
from .files import Scratch
from .target import Target
from .trees import edited

RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=32, max_images=4, rows_per_batch=2, patch_size=4, seed=3)
CUT = 2  # steps before a state is saved


def check(data: bytes) -> None:
    """First byte: of which planner. The rest edits the state that it saved.

    A state that is another one now is refused with a `ConfigError` that comes when it is loaded; one that is as it was goes on.
    """
    if not data:
        return
    make, saved, rest = list(cases().values())[data[0] % len(cases())]
    state = edited(json.loads(saved), data[1:])
    planner = make()
    try:
        planner.load_state_dict(state)
    except ConfigError:
        assert json.dumps(state, sort_keys=True) != saved
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a source that is read again from its beginning
        plans = iter(planner)
        found = keys(islice(plans, 20))
    assert json.dumps(state, sort_keys=True) != saved or found == rest, (found, rest)


def keys(plans: Any) -> list[Any]:
    """What plans hold."""
    return [(plan.step, [header.key for header in plan.headers], plan.fatal) for plan in plans]


@cache
def cases() -> dict[str, tuple[Callable[[], Any], str, list[Any]]]:
    """By name: a planner, a state that another one of its kind has saved, and what follows."""
    scratch = Scratch.get()
    urls = []
    for name in "st":
        entries = []
        for n in range(12):
            image, label = image_of(own(str(n))), b"%d" % n
            entries += [Entry(f"{name}{n}", "jpg", image, len(image))] if n != 5 else []
            entries.append(Entry(f"{name}{n}", "cls", label, len(label)))
        pieces = [(header_of(entry, tarfile.GNU_FORMAT), entry.data) for entry in entries]
        urls.append(scratch.write(f"{name}.tar", archive_with(*pieces)))
    sizes = of_sizes([(20, 30), (16, 16), None, (40, 9)] * 3, [(64, 48)] * 7)
    makers: dict[str, Callable[[], Any]] = {
        "shards": lambda: Planner(urls, RECIPE),
        "shuffled": lambda: Planner(urls, RECIPE, shuffle=5, steps_per_epoch=5, tail="pad"),
        "several patch sizes": lambda: Planner(urls, RECIPE.replace(patch_size=(4, 8)), shuffle=5, tail="drop"),
        "a share of all": lambda: Planner(urls, RECIPE.replace(rows_per_batch=1), tail="pad", rank=1, world_size=2),
        "index": lambda: IndexPlanner(sizes, RECIPE, shuffle=6, tail="wrap"),
        "index, so many steps": lambda: IndexPlanner(sizes, RECIPE, steps_per_epoch=7, world_size=2),
    }
    return {name: (make, *state_of(make)) for name, make in makers.items()}


def state_of(make: Callable[[], Any]) -> tuple[str, list[Any]]:
    """A state after some steps, and the steps behind it."""
    planner = make()
    plans: Iterator[Any] = iter(planner)
    for _ in range(CUT):
        next(plans)
    state = json.dumps(planner.state_dict(CUT), sort_keys=True)
    return state, keys(islice(plans, 20))


def seeds() -> list[bytes]:
    """No edit, and one."""
    nothing = [bytes([n]) for n in range(len(cases()))]
    return [*nothing, *(bytes([n % len(cases()), n % 256, n >> 8, 7 * n % 62, 1]) for n in range(400))]


TARGET = Target("state", check, seeds, 21)
