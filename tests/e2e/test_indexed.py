"""Indexed mode end to end: painted batches, ranks, workers, accounts, and a resume after every batch."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.standin import of_sizes
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.testing import check_batch

TRAIN, VAL = pp.samples.shards("train"), pp.samples.shards("val")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2)


SLOW = pytest.mark.slow
Entry = tuple[str, bytes]


def index_of(folder: Path, *shards: Sequence[Entry] | str) -> pp.Index:
    """The index of shards, or of what is to be in them: built, saved and opened."""
    folder.mkdir()
    paths = []
    for number, shard in enumerate(shards):
        paths.append(shard if isinstance(shard, str) else str(folder / f"{number}.tar"))
        if not isinstance(shard, str):
            with tarfile.open(paths[-1], "w") as tar:
                for name, data in shard:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    pp.Index.build(paths).save(folder / "a.index")
    return pp.Index.open(folder / "a.index")


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> pp.Index:
    return index_of(tmp_path_factory.mktemp("val") / "val", *VAL)


@pytest.fixture(scope="module")
def samples(val: pp.Index) -> list[list[Entry]]:
    """Image and label of each of the validation images, as members of a shard."""
    found = []
    for i, header in enumerate(val.headers(range(len(val)))):
        image, label = val.reader(header.location)
        found.append([(f"{i:03}{Path(header.member).suffix}", image), (f"{i:03}.cls", b"%d" % label)])
    return found


@pytest.fixture(scope="module")
def eight(samples: list[list[Entry]], tmp_path_factory: pytest.TempPathFactory) -> pp.Index:
    """The validation images as eight shards."""
    shards = [[entry for sample in samples[i::8] for entry in sample] for i in range(8)]
    return index_of(tmp_path_factory.mktemp("eight") / "eight", *shards)


def picture(fmt: str, height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(file, fmt)
    return file.getvalue()


BAD: list[Entry] = [("bad.cls", b"1")]  # no image
BROKEN: list[Entry] = [("broken.jpg", picture("JPEG", 64, 48)[:1500]), ("broken.cls", b"1")]  # a header and too few pixels
LONG: list[Entry] = [("long.png", picture("PNG", 9, 9000)), ("long.cls", b"1")]


def keys_of(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def assert_equal(one: pp.PackedBatch, other: pp.PackedBatch) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), name
        else:
            assert a == b, name


def rows_of(batch: pp.PackedBatch) -> list[tuple[Any, ...]]:
    """Every row that is not empty, as something that compares."""
    return [
        (tuple(keys), patches.numpy().tobytes(), ids.numpy().tobytes(), segments.numpy().tobytes(), targets.tolist())
        for keys, patches, ids, segments, targets in zip(
            batch.keys, batch.patches, batch.position_ids, batch.segment_ids, batch.targets, strict=True
        )
        if keys
    ]


# ------------------------------------------------------------------------------------------------------------- batches


def test_an_epoch_of_an_index(val: pp.Index) -> None:
    loader = pp.load(val, RECIPE, shuffle=50)
    batches = list(loader)
    assert len(loader) == len(batches)
    for batch in batches:
        check_batch(batch)
    assert sorted(keys_of(batches)) == sorted(h.key for h in val.headers(range(100)))
    assert loader.report() == pp.Report(seen=100, packed=100)
    assert [batch.info.step for batch in batches] == list(range(len(batches)))


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2},
        {"num_threads": 2},
        pytest.param({"num_workers": 1, "dataloader": {"multiprocessing_context": "spawn"}}, marks=SLOW),
    ],
)
def test_workers_and_threads_change_nothing(val: pp.Index, options: dict[str, Any]) -> None:
    here, there = pp.load(val, RECIPE, shuffle=50), pp.load(val, RECIPE, shuffle=50, **options)
    for epoch in range(2):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        for one, other in zip(here, there, strict=True):
            assert_equal(one, other)
        assert here.report() == there.report()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=SLOW)])
def test_ranks_merged_in_step_order_paint_the_same_rows(val: pp.Index, workers: int) -> None:
    merged = []
    for world_size in (1, 2, 3, 4):
        ranks = [
            list(pp.load(val, RECIPE, shuffle=50, tail="pad", rank=rank, world_size=world_size, num_workers=workers))
            for rank in range(world_size)
        ]
        # row i of a step is row i // world_size of rank i % world_size
        merged.append(
            [
                row
                for step in zip(*ranks, strict=True)
                for i in range(RECIPE.rows_per_batch)
                for batch in step
                for row in rows_of(pp.PackedBatch(*(_row(field, i) for field in batch)))
            ]
        )
    assert len(merged[0]) > 8
    assert merged[1:] == merged[:1] * 3


def _row(field: Any, i: int) -> Any:
    return field[i : i + 1] if isinstance(field, (torch.Tensor, list)) else field


@pytest.mark.parametrize("world_size", range(1, 10))
def test_nine_ranks_over_eight_shards(world_size: int, eight: pp.Index) -> None:
    recipe = RECIPE.replace(rows_per_batch=1)
    for tail in ("short", "pad", "drop", "wrap"):
        plans = [EpochPlan(eight, recipe, rank=r, world_size=world_size, shuffle=20, tail=tail) for r in range(world_size)]
        assert len({len(plan) for plan in plans}) == 1
        keys = [h.key for plan in plans for batch in plan for h in batch.headers]
        dropped = plans[0].rows.dropped.get("tail", 0)
        assert len(set(keys)) + dropped == 100
        assert len(keys) == len(set(keys)) or tail == "wrap"
        assert dropped == 0 or tail == "drop"
        assert all(any(batch.headers for batch in plan) for plan in plans)
        if tail in ("drop", "wrap"):
            assert all(batch.headers for plan in plans for batch in plan)


def test_rows_are_painted_as_the_streaming_mode_paints_them(val: pp.Index) -> None:
    """The same plan, painted by the loader of an index and by a painter of the shards."""
    plan = EpochPlan(val, RECIPE, 1, shuffle=50)
    painter = pp.Painter(pp.Planner(VAL, RECIPE))
    for batch, one in zip(pp.load(val, RECIPE, shuffle=50, epoch=1), plan, strict=True):
        assert_equal(batch, pp.PackedBatch(*(_torch(field) for field in painter[one])))


def test_every_image_is_what_the_streaming_mode_makes_of_it(val: pp.Index) -> None:
    found = []
    for source in (val, VAL):
        images = [image for batch in pp.load(source, RECIPE, epoch=2) for image in pp.unpack(batch)]
        found.append({image.key: (image.grid, image.patches.numpy().tobytes(), image.target) for image in images})
    assert len(found[0]) == 100
    assert found[0] == found[1]


def _torch(field: Any) -> Any:
    if isinstance(field, dict):
        return field
    return torch.as_tensor(field) if isinstance(field, np.ndarray) else field


def test_an_index_streams_too(val: pp.Index) -> None:
    """`Planner` over an index reads no shard, and plans what it plans of the shards."""
    one, other = (list(pp.Planner(source, RECIPE, shuffle=30)) for source in (val, VAL))
    assert [[h.key for h in plan.headers] for plan in one] == [[h.key for h in plan.headers] for plan in other]


def test_plans_are_a_sequence(val: pp.Index) -> None:
    plan = EpochPlan(val, RECIPE, shuffle=30)
    assert plan[-1].step == len(plan) - 1
    assert [p.step for p in plan[1:3]] == [1, 2]
    assert [p.headers for p in plan] == [plan[i].headers for i in range(len(plan))]
    with pytest.raises(IndexError, match=f"step {len(plan)} of {len(plan)}"):
        plan[len(plan)]


def test_repeated_passes_draw_and_paint_anew(val: pp.Index) -> None:
    loader = pp.load(val, RECIPE, steps_per_epoch=40, shuffle=100, num_workers=2)
    batches = list(loader)
    assert len(batches) == len(loader) == 40
    again = [batch.info.repeats for batch in batches if batch.info.repeats is not None]
    assert max(n for rows in again for row in rows for n in row) >= 1
    report = loader.report()
    assert report.seen == report.packed + report.dropped["steps_per_epoch"]
    assert report.waiting == 0
    streamed = pp.load(VAL, RECIPE, steps_per_epoch=40, shuffle=100)
    kept: list[dict[tuple[str, int], bytes]] = []
    for which in (batches, list(streamed)):
        kept.append({})
        for batch in which:
            repeats = batch.info.repeats or [[0] * len(row) for row in batch.keys]
            numbers = [n for row in repeats for n in row]
            for number, image in zip(numbers, pp.unpack(batch), strict=True):
                kept[-1][image.key, number] = image.patches.numpy().tobytes()
    both = kept[0].keys() & kept[1].keys()
    assert len(both) > 150
    assert all(kept[0][name] == kept[1][name] for name in both)


def test_a_flexible_patch_size(val: pp.Index) -> None:
    recipe = pp.recipes.flexivit(rows_per_batch=4)
    loader = pp.load(val, recipe, shuffle=20, num_workers=2)
    batches = list(loader)
    assert [batch.patch_size for batch in batches] == [recipe.patch_size_at(0, step) for step in range(len(loader))]
    assert sorted(keys_of(batches)) == sorted(h.key for h in val.headers(range(100)))


def test_map_target_and_what_an_index_has_decided(val: pp.Index) -> None:
    (batch, *_) = pp.load(val, RECIPE, map_target=lambda label: float(label) + 0.5)
    assert batch.targets.dtype == torch.float32
    for options in ({"image": "png"}, {"target": None}, {"sizes": [[1, 1]]}, {"to_sample": lambda i, s: s}):
        with pytest.raises(pp.errors.ConfigError, match=f"{next(iter(options))}= cannot be passed with an index"):
            pp.load(val, RECIPE, **options)
    with pytest.raises(pp.errors.ConfigError, match="balance=True needs an index"):
        pp.load(VAL, RECIPE, balance=True)


@pytest.mark.filterwarnings("error")
def test_ranks_of_an_index_do_not_warn(val: pp.Index) -> None:
    assert len({len(pp.load(val, RECIPE, rank=rank, world_size=2)) for rank in range(2)}) == 1


# ------------------------------------------------------------------------------------------------------------ accounts


def cut_behind(folder: Path, samples: Sequence[Sequence[Entry]]) -> pp.Index:
    """An index of a shard that ends inside a member of a sample behind these."""
    entries = [entry for sample in samples for entry in sample]
    whole = index_of(folder, [*entries, ("cut.png", bytes(4000))])
    path = Path(whole.shards[0].url)
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"cut.png") + 2000])
    pp.Index.build(str(path)).save(folder / "a.index")
    return pp.Index.open(folder / "a.index")


@pytest.fixture(scope="module")
def spoilt(samples: list[list[Entry]], tmp_path_factory: pytest.TempPathFactory) -> pp.Index:
    """An index with a rejection, a fault, a size no row takes, and a file that turns out broken."""
    twenty = [*samples[:3], LONG, samples[4], BROKEN, *samples[6:20]]
    return cut_behind(tmp_path_factory.mktemp("spoilt") / "spoilt", [BAD, *twenty])


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_accounts_add_up_over_ranks(spoilt: pp.Index, world_size: int, workers: int) -> None:
    recipe = pp.Recipe(resize=pp.resize.Native(64, oversize="reject"), seq_len=300, rows_per_batch=1, patch_size=16)
    index, reports = spoilt, []
    for rank in range(world_size):
        loader = pp.load(index, recipe, rank=rank, world_size=world_size, on_error="skip", num_workers=workers)
        for batch in loader:
            report = loader.report()
            assert report.seen == report.packed + len(report.rejected) + sum(report.dropped.values()) + report.waiting
            assert batch.info.seen == report.seen
        reports.append(loader.report())
    total = pp.Report.total(reports)
    assert (total.seen, total.waiting, len(total.shard_errors)) == (21, 0, 1)
    stages = sorted((r.stage, r.key.split("/")[-1]) for r in total.rejected)
    broken, long = (index.headers([i])[0].key.split("/")[-1] for i in (5, 3))
    assert ("read", "bad") in stages
    assert ("plan", long) in stages
    assert ("decode", broken) in stages
    assert [len(report.shard_errors) for report in reports] == [1] + [0] * (world_size - 1)


def test_what_is_dropped_is_told_with_the_last_batch(val: pp.Index) -> None:
    for options in ({"tail": "drop"}, {"steps_per_epoch": 3}):
        told = [[batch.info.dropped for batch in EpochPlan(val, RECIPE, rank=rank, world_size=2, **options)] for rank in (0, 1)]
        assert told[0][:-1] == [{}] * (len(told[0]) - 1)
        assert list(told[0][-1]) == ["tail" if "tail" in options else "steps_per_epoch"]
        assert told[1] == [{}] * len(told[0])


class Moody:
    """A policy that keeps one patch more at every call."""

    draws, calls = 0, 0

    def __call__(self, grids: Any, u: Any, seen: Any) -> Any:
        self.calls += 1
        return np.minimum(self.calls, grids.prod(axis=1))


def test_a_policy_that_changes_its_mind_is_named(val: pp.Index) -> None:
    expected = r"had 1 tokens of grid \[.* and then 2 of \[.*Moody.* must be functions of their arg"
    with pytest.raises(pp.errors.ConfigError, match=expected):
        EpochPlan(val, RECIPE.replace(drop=Moody()))


def test_every_rank_raises_for_what_the_first_reports(samples: list[list[Entry]], tmp_path: Path) -> None:
    """Or the others would wait for it."""
    twenty = [entry for sample in samples[:20] for entry in sample]
    rejecting, whole = index_of(tmp_path / "bad", [*BAD, *twenty]), index_of(tmp_path / "whole", twenty)
    small = int(whole.sizes.prod(axis=1).min())
    for index, recipe, error, message in (
        (rejecting, RECIPE, pp.errors.SourceError, r"0\.tar/bad: no image member .* \[read\]"),
        (cut_behind(tmp_path / "cut", samples[:20]), RECIPE, pp.errors.ShardError, r"0\.tar: ends inside cut\.png"),
        (whole, RECIPE.replace(max_pixels=small), pp.errors.DecodeError, f"has more than max_pixels={small} pixels"),
    ):
        for rank in range(3):
            with pytest.raises(error, match=message):
                list(pp.load(index, recipe.replace(rows_per_batch=1), rank=rank, world_size=3))


def test_an_index_without_a_usable_image_says_so(val: pp.Index) -> None:
    for index, message in (
        (of_sizes([None, None]), "no image to pack, 2 samples seen, 2 rejected; the first: 0.tar/0"),
        (of_sizes([]), "no image to pack, 0 samples seen, 0 rejected$"),
    ):
        for options in ({}, {"steps_per_epoch": 3}, {"num_workers": 1}):
            with pytest.raises(pp.errors.SourceError, match=message):
                list(pp.load(index, RECIPE, on_error="skip", **options))
    loader = pp.load(val, RECIPE.replace(rows_per_batch=200), tail="drop")
    with pytest.raises(
        pp.errors.SourceError, match=r"no image to pack, 100 samples seen, 0 rejected, dropped: \{'tail': 100\}"
    ):
        list(loader)
    assert loader.report().dropped == {"tail": 100}


def test_an_image_over_the_recipes_limit_of_pixels_is_rejected(samples: list[list[Entry]], tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    large = [("large.png", file.getvalue()), ("large.cls", b"1")]
    index = index_of(tmp_path / "large", [*samples[0], *large])
    loader = pp.load(index, RECIPE.replace(max_pixels=1_000_000), on_error="skip")
    list(loader)
    (rejection,) = loader.report().rejected
    assert (rejection.stage, rejection.reason) == (
        "header",
        "5000 x 5000 (height x width) has more than max_pixels=1000000 pixels",
    )


# -------------------------------------------------------------------------------------------------------------- resume


DROPPING = RECIPE.replace(drop=pp.drop.Scheduled(midpoint=150, width=40), rows_per_batch=1)


@pytest.fixture(scope="module")
def two_epochs(val: pp.Index) -> list[list[pp.PackedBatch]]:
    """Return the batches of two epochs that nothing interrupts."""
    loader, epochs = pp.load(val, DROPPING, shuffle=50), []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append(list(loader))
    assert len(epochs[0]) > 8
    return epochs


EVERY, FIFTH = slice(None), slice(None, None, 5)  # of the numbers of batches after which it resumes


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        ({}, FIFTH),
        ({"num_workers": 2}, slice(5, 6)),
        ({"num_threads": 2}, slice(4, 5)),
        pytest.param({}, EVERY, marks=SLOW),
        pytest.param({"num_workers": 1}, FIFTH, marks=SLOW),
        pytest.param({"num_workers": 2}, FIFTH, marks=SLOW),
        pytest.param({"num_workers": 4}, FIFTH, marks=SLOW),
        pytest.param({"num_threads": 2}, FIFTH, marks=SLOW),
    ],
)
def test_resume_after_batches(
    val: pp.Index, two_epochs: list[list[pp.PackedBatch]], options: dict[str, Any], cuts: slice
) -> None:
    """Two epochs; the state is of the last batch delivered, however far workers are ahead."""

    def make(**other: Any) -> pp.Loader:
        return pp.load(val, DROPPING, shuffle=50, **other)

    expected = two_epochs
    for cut in range(len(expected[0]) + 1)[cuts]:
        first = make(**options)
        batches = iter(first)
        for _ in range(cut):
            next(batches)
        state = json.loads(json.dumps(first.state_dict()))
        del batches
        assert (state["epoch"], state["step"]) == (0, cut)
        assert len(json.dumps(state)) < 4000
        second = make(**({} if cut % 2 else options))
        second.load_state_dict(state)
        assert second.state_dict() == state
        rest = list(second)
        assert len(rest) == len(expected[0]) - cut
        for one, other in zip(rest, expected[0][cut:], strict=True):
            assert_equal(one, other)
        done = sum(batch.info.packed for batch in rest)
        assert second.report() == pp.Report(seen=done, packed=done)
        second.set_epoch(1)
        for one, other in zip(second, expected[1], strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_account_after_a_resume_is_of_what_comes_after_it(spoilt: pp.Index, world_size: int) -> None:
    recipe = pp.Recipe(resize=pp.resize.Native(64, oversize="reject"), seq_len=100, rows_per_batch=1, patch_size=16)
    for rank in range(world_size):
        options: dict[str, Any] = {"rank": rank, "world_size": world_size, "on_error": "skip"}
        whole = pp.load(spoilt, recipe, **options)
        steps = len(list(whole))
        assert steps >= 2
        for cut in range(1, steps):
            head, rest = (pp.load(spoilt, recipe, **options) for _ in range(2))
            batches = iter(head)
            for _ in range(cut):
                next(batches)
            rest.load_state_dict(head.state_dict())
            list(rest)
            before, after, full = head.report(), rest.report(), whole.report()
            assert after.waiting == 0
            assert before.packed + after.packed == full.packed
            assert before.rejected + after.rejected == full.rejected
            assert before.seen - before.waiting + after.seen == full.seen


def test_resume_plans_no_batch_before_its_step(val: pp.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = pp.load(val, DROPPING, shuffle=50)
    batches = iter(loader)
    for _ in range(6):
        next(batches)
    state = loader.state_dict()
    again = pp.load(val, DROPPING, shuffle=50)
    again.load_state_dict(state)
    asked: list[int] = []
    headers = pp.Index.headers
    monkeypatch.setattr(pp.Index, "headers", lambda self, lines: asked.append(len(lines)) or headers(self, lines))
    batch = next(iter(again))
    assert sum(asked) == len(keys_of([batch]))


def test_a_state_at_the_end_of_an_epoch(val: pp.Index) -> None:
    loader = pp.load(val, DROPPING, shuffle=50, epoch=3)
    batches = list(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["step"], state["seen"]) == (3, 0, 100)
    again = pp.load(val, DROPPING, shuffle=50)
    again.load_state_dict(state)
    again.set_epoch(4)
    loader.set_epoch(4)
    for one, other in zip(again, loader, strict=True):
        assert_equal(one, other)
    assert len(batches) > 8


def test_the_epoch_of_a_state_goes_on_and_any_other_is_whole(val: pp.Index) -> None:
    loader = pp.load(val, RECIPE, shuffle=50, epoch=2)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    same, other = pp.load(val, RECIPE, shuffle=50), pp.load(val, RECIPE, shuffle=50)
    for again in (same, other):
        again.load_state_dict(state)
    same.set_epoch(2)
    other.set_epoch(3)
    assert next(iter(same)).info.step == 1
    assert next(iter(other)).info.step == 0
    assert next(iter(same)).info.step == 0  # only once


@pytest.mark.parametrize("cut", [pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW), 3, pytest.param(4, marks=SLOW)])
def test_resume_with_another_world_size_goes_on_where_the_rows_stopped(val: pp.Index, cut: int) -> None:
    recipe, options = DROPPING.replace(rows_per_batch=1), {"shuffle": 50, "tail": "pad"}

    def rows_from(state: dict[str, Any] | None, world_size: int, steps: int | None = None) -> tuple[list[Any], dict[str, Any]]:
        ranks, states = [], []
        for rank in range(world_size):
            loader = pp.load(val, recipe, rank=rank, world_size=world_size, **options)
            if state is not None:
                loader.load_state_dict(state)
            batches = iter(loader)
            ranks.append([batch for _, batch in zip(range(steps or 1000), batches, strict=False)])
            states.append(loader.state_dict())
        merged = [row for step in zip(*ranks, strict=True) for batch in step for row in rows_of(batch)]
        return merged, {**states[0], "same": len({json.dumps(state) for state in states}) == 1}

    everything, _ = rows_from(None, 1)
    head, state = rows_from(None, 2, cut)
    assert state["same"]
    for world_size in (1, 2, 3, 4):
        if (2 * cut) % world_size:
            loader = pp.load(val, recipe, rank=0, world_size=world_size, **options)
            with pytest.raises(
                pp.errors.ConfigError, match=f"{2 * cut} rows were delivered, which is no whole number of steps"
            ):
                loader.load_state_dict(state)
        else:
            rest, _ = rows_from(state, world_size)
            assert head + rest == everything


OTHERS = {
    "index": ({}, "index differs"),
    "recipe.seed": ({"recipe": RECIPE.replace(seed=1)}, "recipe.seed differs: the state was saved with 0, this loader has 1"),
    "recipe.seq_len": ({"recipe": RECIPE.replace(seq_len=512)}, "recipe.seq_len differs"),
    "shuffle": ({"shuffle": 20}, "shuffle differs: the state was saved with 50, this loader has 20"),
    "tail": ({"tail": "pad"}, "tail differs"),
    "balance": ({"balance": True}, "balance differs"),
    "rows": ({"steps_per_epoch": 7}, "rows per epoch differs"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_something_else_is_refused_by_the_field_that_differs(val: pp.Index, eight: pp.Index, name: str) -> None:
    state = pp.load(val, RECIPE, shuffle=50).state_dict()
    options, message = OTHERS[name]
    options = {"recipe": RECIPE, "shuffle": 50, **options}
    other = pp.load(eight if name == "index" else val, options.pop("recipe"), **options)
    with pytest.raises(pp.errors.ConfigError, match=message):
        other.load_state_dict(state)


def test_states_that_are_none(val: pp.Index) -> None:
    loader = pp.load(val, RECIPE)
    for state, message in ((None, "got NoneType"), ({}, "says nothing of")):
        with pytest.raises(pp.errors.ConfigError, match=message):
            loader.load_state_dict(state)


@pytest.mark.parametrize("options", [{"balance": True}, {"recipe": pp.recipes.flexivit(rows_per_batch=1)}])
def test_another_world_size_is_refused_where_rows_depend_on_it(val: pp.Index, options: dict[str, Any]) -> None:
    recipe = options.pop("recipe", RECIPE)
    state = pp.load(val, recipe, rank=0, world_size=2, **options).state_dict()
    with pytest.raises(pp.errors.ConfigError, match="world_size differs, 2 and 1: with"):
        pp.load(val, recipe, rank=0, world_size=1, **options).load_state_dict(state)


def test_resume_of_a_repeated_index(val: pp.Index) -> None:
    loader = pp.load(val, RECIPE, steps_per_epoch=30, shuffle=30)
    expected = list(loader)
    batches = iter(loader)
    for _ in range(17):
        next(batches)
    again = pp.load(val, RECIPE, steps_per_epoch=30, shuffle=30, num_workers=2)
    again.load_state_dict(loader.state_dict())
    for one, other in zip(again, expected[17:], strict=True):
        assert_equal(one, other)


def test_a_rejected_batch_is_not_delivered(samples: list[list[Entry]], tmp_path: Path) -> None:
    """A state taken after an error is that of the batch before, so that the error comes again."""
    recipe = pp.Recipe(resize=pp.resize.NaFlex(64), seq_len=64, rows_per_batch=1)
    index = index_of(tmp_path / "broken", [entry for sample in (*samples[:3], BROKEN, *samples[4:6]) for entry in sample])
    loader = pp.load(index, recipe)
    with pytest.raises(pp.errors.DecodeError):
        list(loader)
    again = pp.load(index, recipe)
    again.load_state_dict(loader.state_dict())
    with pytest.raises(pp.errors.DecodeError):
        next(iter(again))


def test_a_schedule_goes_on_from_epoch_to_epoch(val: pp.Index) -> None:
    loader = pp.load(val, DROPPING, shuffle=50)
    shares = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        kept = [len(i.patches) / i.grid.num_patches for batch in loader for i in pp.unpack(batch)]
        shares.append(sum(kept) / len(kept))
    assert shares[0] > 0.7 > shares[1] > 0.3 > shares[2]
