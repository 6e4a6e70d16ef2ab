"""Cases of every kind of source by mode, of resuming, and of the end of an epoch.

Not a full product: each kind of source meets each mode once, with shuffling, ranks and epochs taken in turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count, product
from typing import Any

import numpy as np

from helpers.behaviour import data, names, parts
from helpers.behaviour.recipes import RECIPES, p, recipe
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts

WORKERS = {"num_workers": 2}
THREADS = {"num_threads": 2}


def loaded(out: Parts, made: Any, words: dict[str, Any], *, images: bool = False, epochs: tuple[int, ...] = ()) -> None:
    """Run a loader over its epochs; its account is added too where it raises."""
    source, own = data.source(made) if isinstance(made, str) else (made(), {})
    words = {"recipe": recipe, **own, **words}
    loader = names.load(source, words.pop("recipe")(), **words)
    for epoch in epochs or (None,):
        if epoch is not None:
            names.read(loader, "set_epoch")(epoch)
        try:
            parts.run_batches(out, loader, images=images)
        finally:
            parts.add_report(out, names.read(loader, "report")())
    parts.say_error(out, "len error", lambda: out.add("len", len(loader)))
    out.add("classes", names.read(loader, "classes"))


def planned(out: Parts, kind: str, words: dict[str, Any]) -> None:
    """Add the plans of two epochs."""
    source, own = data.source(kind)
    planner = names.planner(source, recipe(), **(own | words), of_index=kind == "index")
    for epoch in (0, 1):
        names.read(planner, "set_epoch")(epoch)
        for plan in planner:
            parts.add_plan(out, plan)


def resumed(
    out: Parts,
    kind: str,
    cut: int,
    words: dict[str, Any],
    after: dict[str, Any] | None = None,
    make: Callable[[], Any] = recipe,
) -> None:
    """Iterate one epoch, stop the next after some batches, and add those that another loader goes on with.

    The state travels as JSON.
    """
    source, own = data.source(kind)
    loader = names.load(source, make(), shuffle=8, epoch=1, **(own | words))
    parts.run_batches(out, loader)
    names.read(loader, "set_epoch")(2)
    batches = iter(loader)
    for _ in range(cut):
        parts.add_batch(out, next(batches))
    state = json.loads(json.dumps(names.read(loader, "state_dict")()))
    names.read(batches, "close")()
    source, own = data.source(kind)
    loader = names.load(source, make(), shuffle=8, **(own | (after if after is not None else words)))
    names.read(loader, "load_state_dict")(state)
    parts.run_batches(out, loader)
    parts.add_report(out, names.read(loader, "report")())
    names.read(loader, "set_epoch")(3)
    parts.run_batches(out, loader)


def replayed(out: Parts, kind: str) -> None:
    """Add every fifth image of a run, painted alone, and say that it is the image of the run."""
    source, own = data.source(kind)
    words = {**own, "shuffle": 8, "epoch": 1}
    image_of = {}
    for batch in names.load(source, recipe(), **words):
        image_of |= {names.read(image, "key"): image for image in names.call("unpack", batch)}
    del words["shuffle"]
    own.pop("sizes", None), own.pop("size_of", None)
    same = 0
    for key in sorted(image_of)[::5]:
        image = names.replay(data.source(kind)[0], recipe(), key, epoch=1, **own)
        parts.add_image(out, image, placed=False)
        same += np.array_equal(names.read(image, "patches"), names.read(image_of[key], "patches"))
    out.add("same as in the run", same)
    parts.say_error(out, "unknown key", lambda: names.replay(source, recipe(), "none such", **own))


def over_sources() -> None:
    """Enter the cases of sources by mode."""
    turns = count()
    for kind in data.SOURCES:
        turn = next(turns)
        modes: dict[str, dict[str, Any]] = {
            "here": {"shuffle": 0},
            "epochs": {"shuffle": (True, 8)[turn % 2]},
            "steps": {"steps_per_epoch": 7, "shuffle": (0, 8)[turn % 2], "tail": ("short", "drop", "pad", "wrap")[turn % 4]},
            "workers": {**WORKERS, "shuffle": (8, 0)[turn % 2], "pin_memory": False},
            "threads": {**THREADS, "shuffle": True},
            "ranks": {"rank": turn % 2, "world_size": 2, "tail": "pad", "shuffle": 8},
            "mapped": {"map_target": str, "shuffle": 8},
        }
        if turn % 3 == 0:
            modes["workers and steps"] = {**WORKERS, "steps_per_epoch": 5, "rank": 1, "world_size": 2, "shuffle": 8}
        for mode, words in modes.items():
            epochs = (1, 2) if mode == "epochs" else ()
            add(f"source/{kind}/{mode}", loaded, kind, words, images=mode == "here", epochs=epochs)
        if kind in ("dataset", "odd dataset"):
            words = {**WORKERS, "steps_per_epoch": 5, "rank": 1, "world_size": 2, "shuffle": 8, "tail": "drop"}
            add(f"source/{kind}/workers that plan for a rank", loaded, kind, words)
        add(f"source/{kind}/plans", planned, kind, {"shuffle": 8, "tail": ("pad", "short")[turn % 2]})
    for kind in ("shards", "gz shards", "folder", "files", "samples", "pairs", "huggingface", "dataset with sizes", "rows"):
        add(f"replay/{kind}", replayed, kind)
    for kind in data.SEEKABLE:
        add(f"resume/{kind}/here", resumed, kind, 2, {})
        add(f"resume/{kind}/workers", resumed, kind, 3, WORKERS, None if kind == "dataset" else {})
    for kind in ("shards", "index", "folder"):
        add(f"resume/{kind}/threads to workers", resumed, kind, 1, THREADS, WORKERS)
        add(f"resume/{kind}/steps", resumed, kind, 4, {"steps_per_epoch": 9, "tail": "drop"})
        add(f"resume/{kind}/at the end", resumed, kind, 5, {"steps_per_epoch": 5})
        add(f"resume/{kind}/ranks", resumed, kind, 1, {"rank": 1, "world_size": 2, "tail": "pad"})
        add(f"resume/{kind}/schedule", resumed, kind, 2, {}, make=scheduled)
    add("resume/shards/other recipe", other_state, "shards", {"recipe": lambda: recipe(seed=12)})
    add("resume/shards/other shuffle", other_state, "shards", {"shuffle": 4})
    add("resume/index/other tail", other_state, "index", {"tail": "drop"})
    add("resume/index/other ranks", resumed, "index", 1, {"rank": 0, "world_size": 2}, {"rank": 0, "world_size": 1})
    add("seeds of workers", loaded, data.Seeded, {**WORKERS, "sizes": data.sizes()}, epochs=(0, 1))
    add("seeds of workers that plan", loaded, data.Seeded, WORKERS, epochs=(0, 1))


def scheduled() -> Any:
    """Return a recipe whose drop rate follows the samples seen over three epochs."""
    return recipe(drop=p("Scheduled", midpoint=1.5 * data.COUNT, width=0.4 * data.COUNT, low=0.1, high=0.8))


def other_state(out: Parts, kind: str, words: dict[str, Any]) -> None:
    """Say what a state of another run is refused with."""
    source, own = data.source(kind)
    state = names.read(names.load(source, recipe(), **own), "state_dict")()
    words = {"recipe": recipe, **own, **words}
    loader = names.load(source, words.pop("recipe")(), **words)
    parts.say_error(out, "load", lambda: names.read(loader, "load_state_dict")(state))


def over_ends() -> None:
    """Enter the cases of the end of an epoch."""
    turns = count()
    for kind, tail, steps, rank in product(
        ("shards", "index"), ("short", "drop", "pad", "wrap"), (None, 4, 11), (None, (0, 3), (2, 3))
    ):
        words: dict[str, Any] = {"tail": tail, "steps_per_epoch": steps, "shuffle": next(turns) % 3 * 8}
        words |= {} if rank is None else {"rank": rank[0], "world_size": rank[1]}
        where = "one rank" if rank is None else f"rank {rank[0]} of {rank[1]}"
        add(f"end/{kind}/{tail}/{steps or 'no'} steps/{where}", loaded, kind, words)
    for rank in (0, 1):
        words = {"rank": rank, "world_size": 2, "balance": True, "shuffle": True}
        add(f"end/index/balance/rank {rank}", loaded, "index", {**words, "recipe": lambda: recipe(rows_per_batch=1)})
        add(f"end/huggingface/eval/rank {rank}", loaded, "huggingface", {"rank": rank, "world_size": 2, "tail": "pad"})
    add("end/shards/schedule goes on", loaded, "shards", {"recipe": RECIPES["drop/Scheduled"], "shuffle": 8}, epochs=(0, 1, 2))
    add("end/index/schedule goes on", loaded, "index", {"recipe": RECIPES["drop/Scheduled"], "shuffle": 8}, epochs=(0, 1, 2))


def enter() -> None:
    """Enter the cases."""
    over_sources()
    over_ends()
