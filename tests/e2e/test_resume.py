"""An epoch that is cut after any batch goes on in a loader that has only the state: the same batches, every sample once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from patchpack.errors import ConfigError, SourceError
from patchpack.image.decode import decode
from patchpack.stream.planning.order import Mark
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

TRAIN = pp.samples.shards("train")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2, seed=3, drop=pp.drop.Beta(0.5, 0.9))
NO_POSITIONS = "ignore:.*has no positions to begin at:UserWarning"


def same(one: Any, other: Any) -> bool:
    """Every field of two batches, infos without what is told once."""
    for field in ("patches", "position_ids", "segment_ids", "grid_sizes", "source_sizes", "slot_mask", "targets"):
        if not np.array_equal(getattr(one, field), getattr(other, field)):
            return False
    return bool(one.keys == other.keys and one.info == other.info and one.patch_size == other.patch_size)


def with_states(loader: Any) -> Iterator[tuple[Any, str]]:
    for batch in loader:
        yield batch, json.dumps(loader.state_dict())


def check_cuts(make: Callable[..., Any], cuts: slice = slice(None), then: dict[str, Any] | None = None) -> None:
    """`make(**then)` goes on where `make()` was cut, and plans a whole next epoch."""
    loader = make()
    whole = list(with_states(loader))
    report = loader.report()
    after = json.dumps(loader.state_dict())
    loader.set_epoch(loader.planner.epoch + 1)
    following = list(loader)
    assert len(whole) > 3
    for cut in range(len(whole))[cuts]:
        again = make(**(then or {}))
        again.load_state_dict(json.loads(whole[cut][1]))
        assert json.dumps(again.state_dict()) == whole[cut][1]
        rest = list(with_states(again))
        assert len(rest) == len(whole) - cut - 1
        for (one, state), (other, other_state) in zip(whole[cut + 1 :], rest, strict=True):
            assert same(one, other)
            assert state == other_state
        told = again.report()
        delivered = sum(batch.info.packed for batch, _ in whole[: cut + 1])
        assert delivered + told.packed == report.packed
        assert told.seen == told.packed + len(told.rejected) + sum(told.dropped.values())
        assert told.waiting == 0
        assert json.dumps(again.state_dict()) == after
        again.set_epoch(again.planner.epoch + 1)
        assert all(same(one, other) for one, other in zip(following, again, strict=True))


class Pictures(Dataset[Any]):
    """Decoded pictures and labels; nobody knows their sizes."""

    def __init__(self) -> None:
        self._items = [(np.array(decode(s.image)), s.target) for s in samples()]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Any:
        return self._items[number]


@cache
def samples() -> list[pp.Sample]:
    """Return the first samples of the shipped shards, in memory."""
    source = open_source(TRAIN[:1])
    headers = [event for event in source.scan() if isinstance(event, Header)][:60]
    return [pp.Sample(h.key, *source.reader(h.location)) for h in headers]


FEW = TRAIN[:2]


ORDERS = [
    {}, {"shuffle": 37}, {"shuffle": 10_000, "epoch": 4}, {"tail": "drop"}, {"tail": "pad", "rank": 1, "world_size": 2},
    {"tail": "wrap", "shuffle": 50}, {"steps_per_epoch": 20, "shuffle": 60}, {"steps_per_epoch": 9, "rank": 2, "world_size": 3},
    {"steps_per_epoch": 30, "rank": 2, "world_size": 5, "shuffle": 11},
]  # fmt: skip
RECIPES = {
    "navit": RECIPE,
    "several patch sizes": pp.recipes.flexivit(rows_per_batch=2),
    "a packer of one's own choice": RECIPE.replace(packer=pp.packing.FirstFit(4)),
    "cuts and a schedule": RECIPE.replace(packer=pp.packing.Lookahead(32, max_cut=0.1), drop=pp.drop.Scheduled(300, 40)),
}


def test_reading_begins_at_the_shard_of_the_oldest_image_that_waits() -> None:
    planner = pp.Planner(TRAIN, RECIPE)
    parts = set()
    for plan in planner:
        at = planner.state_dict(plan.step + 1)["at"]
        waiting = [position for position, *_ in at["planner"].get("samples", ())]
        mark = Mark(*at["mark"])
        assert mark.samples <= min(waiting, default=at["planner"]["account"]["seen"])
        parts.add(mark.part)
    assert parts == {0, 1, 2}  # not the beginning each time


PAIRS = [("navit", options) for options in ORDERS] + [
    ("several patch sizes", ORDERS[4]),
    *(pytest.param("several patch sizes", ORDERS[i], marks=pytest.mark.slow) for i in (1, 8)),
    *(("a packer of one's own choice", ORDERS[i]) for i in (0, 3, 5, 7)),
    *(("cuts and a schedule", ORDERS[i]) for i in (2, 4, 5, 6)),
]


@pytest.mark.parametrize(("kind", "options"), PAIRS, ids=str)
def test_plans_after_every_batch(kind: str, options: dict[str, Any]) -> None:
    recipe = RECIPES[kind]
    planner = pp.Planner(FEW, recipe, **options)
    whole = [(plan, json.dumps(planner.state_dict(plan.step + 1))) for plan in planner]
    assert len(whole) > 3
    again = pp.Planner(FEW, recipe, **options)
    for cut in {0, 1, 2, len(whole) // 2, len(whole) - 2, len(whole) - 1}:
        again.load_state_dict(json.loads(whole[cut][1]))
        for ours, (plan, _) in zip(again, whole[cut + 1 :], strict=True):
            assert ours.headers == plan.headers
            assert ours.info == plan.info
            assert all(np.array_equal(a, b) for a, b in zip(ours.table, plan.table, strict=True))
            assert (ours.step, ours.patch_size, ours.offsets.tolist()) == (plan.step, plan.patch_size, plan.offsets.tolist())


@pytest.mark.parametrize(
    "options", [{"steps_per_epoch": 12}, {"shuffle": 50}, {"tail": "pad", "rank": 1, "world_size": 2}], ids=str
)
@pytest.mark.parametrize("source", ["shards", "index"])
def test_an_epoch_whose_last_batch_was_taken_is_over_for_a_schedule_though_no_other_was_asked_for(
    source: str, options: dict[str, Any]
) -> None:
    index = pp.Index.build(FEW)
    recipe = RECIPE.replace(drop=pp.drop.Scheduled(300, 40))

    def make() -> Any:
        return pp.Planner(index, recipe, **options) if source == "index" else pp.Planner(FEW, recipe, **options)

    def second(planner: Any) -> list[list[Any]]:
        planner.set_epoch(1)
        return [[array.tolist() for array in plan.table] for plan in planner]

    whole = make()
    steps = len(list(whole))
    expected = second(whole)
    assert whole.seen > 0

    taken = make()
    plans = iter(taken)  # as loops that know how many batches there are: it is never asked for the one after the last
    for _ in range(steps):
        next(plans)
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(taken.state_dict(steps))))
    assert second(taken) == expected
    assert second(resumed) == expected
    assert resumed.seen == taken.seen == whole.seen


@pytest.mark.parametrize("cuts", [slice(3, 4), pytest.param(slice(1, None, 6), marks=pytest.mark.slow)], ids=["one", "many"])
@pytest.mark.parametrize("options", ORDERS[1::3], ids=str)
def test_shards(options: dict[str, Any], cuts: slice) -> None:
    check_cuts(lambda: pp.load(FEW, RECIPE, **options), cuts)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning")
@pytest.mark.parametrize(
    "then",
    [
        {"num_workers": 1},
        {"num_threads": 3},
        pytest.param({"num_workers": 2}, marks=pytest.mark.slow),
        pytest.param({"num_workers": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_another_number_of_workers(then: dict[str, int]) -> None:
    def make(**options: Any) -> pp.Loader:
        return pp.load(TRAIN[:1], RECIPE, **{"shuffle": 64, "num_workers": 2, **options})

    if "num_threads" in then:
        then = {**then, "num_workers": 0}
    check_cuts(make, slice(2, 3), then)


def test_a_folder(tmp_path: Path) -> None:
    for sample in samples():
        path = tmp_path / str(sample.target) / f"{sample.key.split('/')[1]}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sample.image)
    check_cuts(lambda: pp.load(tmp_path, RECIPE, shuffle=1), slice(0, None, 2))


@pytest.mark.filterwarnings(NO_POSITIONS)
def test_an_iterable_is_read_again() -> None:
    check_cuts(lambda: pp.load(samples(), RECIPE), slice(0, None, 2))


def test_reading_again_is_said() -> None:
    loader = pp.load(samples(), RECIPE)
    (_, state), *_ = with_states(loader)
    loader.load_state_dict(json.loads(state))
    with pytest.warns(UserWarning, match=r"list of samples has no positions to begin at: it is read again"):
        next(iter(loader))


STREAMS = [  # numbers of workers, and where an epoch of theirs is cut
    (0, slice(0, None, 2)),
    (2, slice(1, 2)),
    pytest.param(1, slice(0, None, 2), marks=pytest.mark.slow),
    pytest.param(2, slice(0, None, 2), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("num_workers", "cuts"), STREAMS)
def test_pictures_of_unknown_size(num_workers: int, cuts: slice) -> None:
    """Planned in the workers: each stream has a state of its own."""
    check_cuts(lambda: pp.load(Pictures(), RECIPE, num_workers=num_workers), cuts)


def test_a_schedule_goes_on_after_streams_whose_last_batch_was_taken() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Scheduled(300, 40))
    whole, taken = (pp.load(Pictures(), recipe, num_workers=1, steps_per_epoch=4) for _ in range(2))
    assert len(list(whole)) == 4
    batches = iter(taken)
    for _ in range(4):  # it is never asked for the one after the last
        next(batches)
    assert whole.planner.seen == taken.planner.seen > 0


def test_streams_of_workers_that_outlive_an_epoch() -> None:
    def make() -> pp.Loader:
        return pp.load(Pictures(), RECIPE, num_workers=2, dataloader={"persistent_workers": True})

    loader = make()
    whole = list(with_states(loader))
    loader.load_state_dict(json.loads(whole[1][1]))
    assert all(same(one, other) for (one, _), other in zip(whole[2:], loader, strict=True))
    assert all(same(one, other) for (one, _), other in zip(whole, loader, strict=True))


# ------------------------------------------------------------------------------------------------------------ pp.Pack


def packed(stage: pp.Pack, num_workers: int) -> Iterator[Any]:
    return iter(DataLoader(stage.over(samples()), batch_size=None, num_workers=num_workers))


@pytest.mark.parametrize(
    ("num_workers", "cuts"),
    [
        (0, slice(None)),
        (2, slice(1, 2)),
        pytest.param(1, slice(None), marks=pytest.mark.slow),
        pytest.param(2, slice(None), marks=pytest.mark.slow),
    ],
)
def test_a_stage(num_workers: int, cuts: slice) -> None:
    def make() -> pp.Pack:
        return pp.Pack(RECIPE, resumable=True, epoch=2)

    stage, whole = make(), []
    for batch in packed(stage, num_workers):
        stage.delivered(batch)
        whole.append((batch, json.dumps(stage.state_dict())))
    assert len(whole) > 3
    for cut in range(len(whole))[cuts]:
        again = make()
        again.load_state_dict(json.loads(whole[cut][1]))
        rest = list(packed(again, num_workers))
        for stream in range(num_workers or 1):  # each goes on; who comes first is torch's to say
            ours, expected = (
                [batch for batch in batches if batch.info.worker == stream]
                for batches in (rest, [batch for batch, _ in whole[cut + 1 :]])
            )
            assert all(same(one, other) for one, other in zip(ours, expected, strict=True))


def test_a_stage_begins_its_next_epoch_at_the_beginning() -> None:
    stage = pp.Pack(RECIPE, resumable=True)
    whole = []
    for batch in packed(stage, 0):
        stage.delivered(batch)
        whole.append((batch, stage.state_dict()))
    again = pp.Pack(RECIPE, resumable=True)
    again.load_state_dict(whole[1][1])
    for batch in packed(again, 0):
        again.delivered(batch)
    assert all(same(one, other) for (one, _), other in zip(whole, packed(again, 0), strict=True))


def test_other_streams_than_the_states() -> None:
    stage = pp.Pack(RECIPE, resumable=True)
    stage.delivered(next(packed(stage, 2)))
    again = pp.Pack(RECIPE, resumable=True)
    again.load_state_dict(stage.state_dict())
    with pytest.raises(ConfigError, match="the state is of 2 streams, here are 1: use as many workers"):
        next(packed(again, 0))
    with pytest.raises(ConfigError, match="this batch carries no state: make the stage with resumable=True"):
        again.delivered(next(packed(pp.Pack(RECIPE), 0)))
    with pytest.raises(ConfigError, match="tail differs: the state was saved with short, this loader has drop"):
        pp.Pack(RECIPE, tail="drop").load_state_dict(stage.state_dict())


# ------------------------------------------------------------------------------------------------- what must be the same


def a_state(**options: Any) -> Any:
    loader = pp.load(TRAIN, RECIPE, **options)
    return json.loads(next(state for _, state in with_states(loader)))


@pytest.fixture(scope="module")
def state() -> Any:
    """Return a state as it was saved after a first batch; no test changes it."""
    return a_state()


@pytest.mark.parametrize(
    ("what", "source", "recipe", "options"),
    [
        ("recipe.seed differs: the state was saved with 3, this loader has 4", TRAIN, RECIPE.replace(seed=4), {}),
        (r"recipe.drop differs: .* Beta\(mean=0.5, .*, this loader has No", TRAIN, RECIPE.replace(drop=pp.drop.NoDrop()), {}),
        ("source differs: the state was saved with 3 shards .* this loader has shapes-train-000000", TRAIN[:1], RECIPE, {}),
        ("samples or shards differs", [TRAIN[0], TRAIN[2], TRAIN[1]], RECIPE, {}),
        ("shuffle differs: the state was saved with 0, this loader has 9", TRAIN, RECIPE, {"shuffle": 9}),
        ("tail differs: the state was saved with short, this loader has pad", TRAIN, RECIPE, {"tail": "pad"}),
        ("steps_per_epoch differs: the state was saved with None", TRAIN, RECIPE, {"steps_per_epoch": 3}),
        ("world_size differs", TRAIN, RECIPE, {"rank": 0, "world_size": 2, "tail": "short", "steps_per_epoch": None}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:2 ranks without steps_per_epoch:UserWarning")
def test_what_differs_is_named(what: str, source: Any, recipe: pp.Recipe, options: dict[str, Any], state: Any) -> None:
    with pytest.raises(ConfigError, match=what):
        pp.load(source, recipe, **options).load_state_dict(state)


@pytest.mark.filterwarnings(NO_POSITIONS)
def test_a_source_that_has_changed_is_told() -> None:
    changed = [samples()[0], *(pp.Sample(f"{sample.key}!", sample.image, sample.target) for sample in samples()[1:])]
    loader = pp.load(samples(), RECIPE)
    (_, state), *_ = with_states(loader)
    larger = [
        sample if i == 0 else replace(sample, image=np.zeros((99, 98, 3), np.uint8)) for i, sample in enumerate(samples())
    ]
    for other, what in (
        (changed, "has another key: .*!"),
        (samples()[:4], "is missing or cannot be used"),
        (larger, r"its sample \S+ has 99 x 98 \(height x width\), but had \d+ x \d+"),
    ):
        again = pp.load(other, RECIPE)
        again.load_state_dict(json.loads(state))
        with pytest.raises(SourceError, match=f"has changed since the state was saved: .*{what}"):
            list(again)


def test_a_state_is_small_and_goes_with_the_epoch(state: Any) -> None:
    assert len(json.dumps(a_state(shuffle=100))) < 20_000
    loader = pp.load(TRAIN, RECIPE)
    first = next(iter(loader))
    loader.load_state_dict(state)
    loader.set_epoch(1)  # another one: it begins at its beginning
    assert loader.state_dict()["at"] is None
    loader.set_epoch(0)
    assert same(next(iter(loader)), first)


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "a position that is another one": lambda state: state["at"]["planner"]["waiting"].append(7),
    "a count that is none": lambda state: state["at"]["planner"]["account"].update(seen=-0.5),
    "a mark that is none": lambda state: state["at"].update(mark=3),
    "nothing where it was": lambda state: state.update(at=None),
    "an epoch that none has": lambda state: state.update(epoch=1 << 63),
    "samples that never end": lambda state: state["at"]["planner"]["account"].update(seen=1 << 62),
    "a checksum of another": lambda state: state.update(checksum=state["checksum"] ^ 1),
    "what JSON does not hold": lambda state: state.update(seen={1, 2}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_that_is_damaged_is_refused(damage: str) -> None:
    state = a_state(steps_per_epoch=9)
    DAMAGE[damage](state)
    loader = pp.load(TRAIN, RECIPE, steps_per_epoch=9)
    with pytest.raises(ConfigError, match="the state is damaged: its epoch, seen, at do not match its checksum"):
        loader.load_state_dict(state)


def test_a_damaged_state_of_an_index_or_a_stage_is_refused() -> None:
    index = pp.load(pp.Index.build(FEW), RECIPE)
    next(iter(index))
    stage = pp.Pack(RECIPE, resumable=True)
    stage.delivered(next(iter(stage(samples()))))
    for saver, name in ((index, "step"), (stage, "streams")):
        state = json.loads(json.dumps(saver.state_dict()))
        saver.load_state_dict(state)
        with pytest.raises(ConfigError, match=f"the state is damaged: its .*{name}.* do not match"):
            saver.load_state_dict({**state, name: state[name] + 1})
        with pytest.raises(ConfigError, match=f"the state says nothing of {name}"):
            saver.load_state_dict({key: value for key, value in state.items() if key != name})


def test_streams_of_another_number_of_workers() -> None:
    loader = pp.load(Pictures(), RECIPE, num_workers=2)
    (_, state), *_ = with_states(loader)
    damaged = json.loads(state)
    damaged["at"]["first"] += 1
    with pytest.raises(ConfigError, match="the state is damaged: its epoch, seen, at do not match"):
        loader.load_state_dict(damaged)
    with pytest.raises(ConfigError, match="streams differs: the state was saved with 2, this loader has 1"):
        pp.load(Pictures(), RECIPE).load_state_dict(json.loads(state))
