"""Epochs, tails, steps and ranks: who gets which image, how often, in which order."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from patchpack.losses import ShardFault
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.stream.planning.order import Mark, Order, OrderedSource
from patchpack.stream.sources.inline import InlineReader
from patchpack.stream.sources.opening import open_source
from patchpack.testing import check_batch
from patchpack.types import Event, Header, Size

TRAIN, VAL = pp.samples.shards("train"), pp.samples.shards("val")
SLOW = pytest.mark.slow
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=4)


def keys_of(batches: Iterable[pp.PackedBatch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def load(**options: Any) -> pp.Loader:
    return pp.load(TRAIN, options.pop("recipe", RECIPE), **options)


class Listed(pp.Source):
    """A source of sizes alone, in parts; part i yields a fault at its end if told so."""

    name = "listed"
    reader = InlineReader()

    def __init__(self, *parts: int, faults: bool = False) -> None:
        self._parts, self._faults, self.num_parts = parts, faults, len(parts)

    def scan(self) -> Iterable[Event]:
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Iterable[int]) -> Iterable[Event]:
        for part in parts:
            for i in range(self._parts[part]):
                yield Header(f"{part}/{i}", str(part), "", Size(32, 32), None)
            if self._faults:
                yield ShardFault(str(part), "cut")


class Whole(pp.Source):
    """A source without parts."""

    def __init__(self, source: Any) -> None:
        self.name, self.reader, self._source = source.name, source.reader, source

    def scan(self) -> Any:
        return self._source.scan()


def order_of(source: Any, **order: Any) -> list[str]:
    return [event.key for event in OrderedSource(source, Order(**order)).scan() if isinstance(event, Header)]


# ------------------------------------------------------------------------------------------------------------- shuffle


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 20), st.integers(0, 3))
def test_shuffling_keeps_every_header_once(parts: list[int], shuffle: int, epoch: int) -> None:
    source = Listed(*parts)
    assert sorted(order_of(source, shuffle=shuffle, epoch=epoch)) == sorted(order_of(source))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 7), st.booleans(), st.integers(1, 8), st.booleans(),
    st.sampled_from(["parts", "one each", "whole"]), st.data(),
)  # fmt: skip
def test_reading_goes_on_from_any_mark(
    parts: list[int], shuffle: int, repeat: bool, world_size: int, faults: bool, kind: str, data: st.DataObject
) -> None:
    source: Any = Listed(*parts, faults=faults)
    if kind == "one each":
        source = Listed(*[1] * sum(parts or [1]), faults=False)
        source.one_sample_per_part = True
    elif kind == "whole":
        source = Whole(source)
    order = Order(3, 1, shuffle, repeat, data.draw(st.integers(0, world_size - 1)), world_size)
    met = list(islice(OrderedSource(source, order).scan(), 60))
    events = [event for event in met if not isinstance(event, Mark)]
    for i, mark in enumerate(met):
        if isinstance(mark, Mark):
            before = [event for event in met[:i] if not isinstance(event, Mark)]
            assert mark.samples == sum(not isinstance(event, ShardFault) for event in before)
            again = (event for event in OrderedSource(source, order, mark).scan() if not isinstance(event, Mark))
            assert list(islice(again, len(events) - len(before))) == events[len(before) :]
            if not repeat:
                assert list(again) == []


def test_shuffling_moves_shards_and_headers_inside_blocks() -> None:
    order = order_of(Listed(*[10] * 20), shuffle=25, seed=3)
    shards = list(dict.fromkeys(key.split("/")[0] for key in order))
    assert shards != sorted(shards, key=int)
    for i in range(0, 200, 25):  # a block holds the headers of the shards that fill it, no others
        assert len({key.split("/")[0] for key in order[i : i + 25]}) <= 4
    assert order[:10] != sorted(order[:10])


def test_every_block_and_every_pass_has_its_own_permutation() -> None:
    events = OrderedSource(Listed(100), Order(shuffle=25, repeat=True)).scan()
    places = [int(event.key.split("/")[1]) for event in islice(events, 200) if isinstance(event, Header)]
    events.close()
    blocks = [tuple(place % 25 for place in places[i : i + 25]) for i in range(0, 200, 25)]
    assert len(set(blocks)) == 8


def test_epochs_have_different_orders_and_draws_and_the_same_epoch_the_same() -> None:
    loader = load(shuffle=100)
    first, again = keys_of(loader), keys_of(loader)
    assert first == again
    loader.set_epoch(1)
    other = list(loader)
    assert keys_of(other) != first
    assert sorted(keys_of(other)) == sorted(first)
    assert keys_of(load(shuffle=100, epoch=1)) == keys_of(other)


def test_without_shuffle_order_is_the_sources() -> None:
    source = open_source(TRAIN)
    assert order_of(source) == [event.key for event in source.scan() if isinstance(event, Header)]


# --------------------------------------------------------------------------------------------------------------- tails


def test_short_tail_leaves_the_last_batch_short() -> None:
    loader = load()
    rows = [len(batch.keys) for batch in loader]
    assert rows[:-1] == [4] * (len(rows) - 1)
    assert 1 <= rows[-1] <= 4
    assert (loader.report().packed, loader.report().waiting) == (420, 0)


def test_drop_tail_counts_what_it_drops() -> None:
    loader = load(tail="drop")
    batches = list(loader)
    report = loader.report()
    assert {len(batch.keys) for batch in batches} == {4}
    assert report.dropped["tail"] == 420 - report.packed == 420 - len(keys_of(batches)) > 0
    assert report.waiting == 0


def test_pad_tail_adds_empty_rows() -> None:
    loader = load(tail="pad")
    batches = list(loader)
    for batch in batches:
        check_batch(batch)
    assert {len(batch.keys) for batch in batches} == {4}
    assert batches[-1].keys[-1] == []
    assert (batches[-1].targets[-1] == -100).all()
    assert sorted(keys_of(batches)) == sorted(keys_of(load()))


def test_wrap_tail_repeats_the_first_rows_and_does_not_count_them() -> None:
    loader, plain = load(tail="wrap"), list(load())
    batches = list(loader)
    missing = 4 - len(plain[-1].keys)
    assert missing > 0
    assert batches[-1].keys == plain[-1].keys + plain[0].keys[:missing]
    assert torch.equal(batches[-1].patches[-missing:], plain[0].patches[:missing])
    assert loader.report().packed == 420
    assert loader.report().waiting == 0


def test_wrap_goes_round_where_an_epoch_is_shorter_than_a_batch() -> None:
    samples = [pp.Sample(f"s{i}", np.full((32, 32, 3), i, np.uint8), i) for i in range(3)]
    (batch,) = pp.load(samples, pp.recipes.square(size=32, rows_per_batch=8), tail="wrap")
    assert [row[0] for row in batch.keys] == ["s0", "s1", "s2", "s0", "s1", "s2", "s0", "s1"]
    assert batch.info.packed == 3


def test_an_unreadable_image_in_a_wrapped_row_is_rejected_once() -> None:
    good = np.zeros((32, 32, 3), np.uint8)
    png = open_png()
    samples = [pp.Sample("bad", png[: len(png) // 2], 0), pp.Sample("good", good, 1)]
    loader = pp.load(samples, pp.recipes.square(size=32, rows_per_batch=4), tail="wrap", on_error="skip")
    list(loader)
    report = loader.report()
    assert (report.seen, report.packed, len(report.rejected), report.waiting) == (2, 1, 1, 0)


def open_png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def test_a_tail_that_drops_everything_is_an_error_that_says_so() -> None:
    samples = [pp.Sample("only", np.zeros((32, 32, 3), np.uint8), 0)]
    loader = pp.load(samples, pp.recipes.square(size=32, rows_per_batch=8), tail="drop")
    with pytest.raises(pp.errors.SourceError, match=r"no image to pack, 1 samples seen, 0 rejected, dropped: \{'tail': 1\}"):
        list(loader)
    assert loader.report().dropped == {"tail": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail": "short_"}, "tail must be one of short, drop, pad, wrap, got 'short_'"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer in 1"),
        ({"shuffle": -1}, "shuffle is the number of headers permuted at a time"),
        ({"rank": 2, "world_size": 2, "steps_per_epoch": 1}, "need 0 <= rank < world_size, got rank=2, world_size=2"),
        ({"rank": 0}, "rank and world_size go together"),
        ({"recipe": pp.recipes.flexivit(), "tail": "wrap"}, "cannot repeat rows that were planned for another patch size"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        load(**options)


# --------------------------------------------------------------------------------------------------------------- steps


def test_steps_per_epoch_repeats_the_source_with_other_draws() -> None:
    loader = load(steps_per_epoch=50, recipe=pp.recipes.navit(seq_len=256, rows_per_batch=4))
    batches = list(loader)
    assert len(loader) == len(batches) == 50
    times = Counter(keys_of(batches))
    assert max(times.values()) - min(times.values()) <= 1
    assert len(times) == 420
    grids: dict[str, set[tuple[int, ...]]] = {}
    for batch in batches:
        for image in pp.unpack(batch):
            grids.setdefault(image.key, set()).add((*image.grid, len(image.patches)))
    assert sum(len(found) > 1 for found in grids.values()) > 200  # a second pass draws anew
    report = loader.report()
    assert report.seen == report.packed + report.dropped["steps_per_epoch"]
    assert report.waiting == 0


def test_steps_per_epoch_is_the_same_with_workers() -> None:
    here, workers = load(steps_per_epoch=25, shuffle=50), load(steps_per_epoch=25, shuffle=50, num_workers=2)
    for one, other in zip(here, workers, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.patches, other.patches)
    assert here.report() == workers.report()


def test_a_source_without_images_is_not_repeated_for_ever(tmp_path: Path) -> None:
    bad = [pp.Sample("bad", b"not a picture", 0)]
    with pytest.raises(pp.errors.SourceError, match="no image to pack"):
        list(pp.load(bad, RECIPE, steps_per_epoch=3, on_error="skip"))


def test_len_is_unknown_without_steps() -> None:
    with pytest.raises(TypeError, match="steps_per_epoch fixes it"):
        len(load())


def test_a_schedule_goes_on_through_repeats_and_epochs() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Scheduled(midpoint=500, width=100))
    loader = load(recipe=recipe, steps_per_epoch=30)
    kept = [[len(i.patches) / i.grid.num_patches for batch in loader for i in pp.unpack(batch)] for _ in range(2)]
    assert np.mean(kept[0][:100]) > 0.75 > 0.3 > np.mean(kept[1][-100:])


# --------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("world_size", [2, 3, 9])
@pytest.mark.parametrize("parts", [(8,) * 8, (50,), (3, 0, 40, 1)], ids=["eight shards", "one shard", "uneven shards"])
def test_every_sample_goes_to_one_rank(parts: tuple[int, ...], world_size: int) -> None:
    source = Listed(*parts, faults=True)
    shares = [order_of(source, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(key for share in shares for key in share) == sorted(order_of(source))
    if len(parts) < world_size:  # samples are dealt by position: no rank is left without
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    faults = [
        event
        for rank in range(world_size)
        for event in OrderedSource(source, Order(rank=rank, world_size=world_size)).scan()
        if isinstance(event, ShardFault)
    ]
    assert len(faults) == len(parts)


@pytest.mark.parametrize("world_size", [2, 3, pytest.param(9, marks=SLOW)])
def test_training_ranks_make_equal_steps_on_different_samples(world_size: int) -> None:
    loaders = [load(steps_per_epoch=2, shuffle=64, rank=r, world_size=world_size) for r in range(world_size)]
    shares = [list(loader) for loader in loaders]
    assert [len(share) for share in shares] == [2] * world_size
    drawn = [set(keys_of(share)) for share in shares]
    assert all(drawn)
    if world_size <= 3:  # no pass is repeated yet, so no sample is met twice
        assert sum(map(len, drawn)) == len(set.union(*drawn))


@pytest.mark.parametrize("world_size", [1, 3, pytest.param(9, marks=SLOW)])
@pytest.mark.parametrize("shards", [VAL, pytest.param(TRAIN, marks=SLOW)], ids=["one shard", "three shards"])
def test_evaluation_delivers_every_image_once_in_equal_steps(shards: list[str], world_size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is safe, so it must not warn
        loaders = [
            pp.load(shards, RECIPE.for_eval(), tail="pad", rank=rank, world_size=world_size) for rank in range(world_size)
        ]
    shares = [list(loader) for loader in loaders]
    assert len({len(share) for share in shares}) == 1
    assert sorted(keys_of(chain.from_iterable(shares))) == sorted(keys_of(pp.load(shards, RECIPE.for_eval())))
    for loader, share in zip(loaders, shares, strict=True):
        report = loader.report()
        assert report.packed == report.seen == len(keys_of(share))
        assert report.waiting == 0
        for batch in share:
            check_batch(batch)


def test_evaluation_reports_a_rejection_once_over_all_ranks() -> None:
    samples = [pp.Sample(f"s{i}", np.zeros((32, 32, 3), np.uint8), i) for i in range(7)]
    samples.insert(3, pp.Sample("bad", b"not a picture", 0))
    recipe = pp.recipes.square(size=32, rows_per_batch=2)
    reports = []
    for rank in range(3):
        loader = pp.load(samples, recipe, tail="pad", rank=rank, world_size=3, on_error="skip")
        list(loader)
        reports.append(loader.report())
    assert [len(report.rejected) for report in reports] == [1, 0, 0]
    assert sum(report.seen for report in reports) == 8
    assert all(report.waiting == 0 for report in reports)


def test_every_rank_of_an_evaluation_raises_for_what_one_reports(tmp_path: Path) -> None:
    """Or the others would wait for it."""
    samples = [pp.Sample(f"s{i}", np.zeros((32, 32, 3), np.uint8), i) for i in range(7)]
    samples.insert(3, pp.Sample("bad", b"not a picture", 0))
    for rank in range(3):
        with pytest.raises(pp.errors.DecodeError, match="bad: expected a readable"):
            list(pp.load(samples, pp.recipes.square(size=32, rows_per_batch=2), tail="pad", rank=rank, world_size=3))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(Path(TRAIN[0]).read_bytes()[:300_000])
    for rank in range(2):
        with pytest.raises(pp.errors.ShardError, match=r"cut\.tar: is not a complete tar file"):
            list(pp.load(str(cut), RECIPE.for_eval(), tail="pad", rank=rank, world_size=2))


def test_many_ranks_without_steps_warn_of_the_deadlock() -> None:
    with pytest.warns(UserWarning, match="the first to end leaves the others waiting for ever"):
        load(rank=0, world_size=2)


@pytest.mark.parametrize("tail", ["short", "drop", "pad", "wrap"])
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.sampled_from([None, 1, 3]))
def test_conservation_over_tails_and_steps(tail: Any, good: list[bool], rows: int, steps: int | None) -> None:
    recipe = pp.Recipe(resize=pp.resize.Native(16), seq_len=40, patch_size=8, rows_per_batch=rows, max_images=3)
    planner = OnlinePlanner(recipe, tail=tail, max_steps=steps)
    events = [
        Header(str(i), "", "", Size(8 + 8 * (i % 3), 16), None) if ok else pp.Rejection("", str(i), "", "header", "bad")
        for i, ok in enumerate(good)
    ]
    plans = [*planner.feed(events), *planner.finish()]
    info = plans[-1].info
    packed = sum(plan.info.planned for plan in plans)
    rejected = sum(len(plan.info.rejections) for plan in plans)
    dropped = sum(sum(plan.info.dropped.values()) for plan in plans)
    assert info.seen == packed + rejected + dropped
    assert steps is None or plans[-1].fatal or len(plans) <= steps


@pytest.fixture(scope="module")
def eight_shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The validation images in eight shards of 12 or 13."""
    folder = tmp_path_factory.mktemp("eight")
    samples: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {}
    for shard in pp.samples.shards("val"):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(member.name.split(".")[0], []).append((member, file.read()))
    for number in range(8):
        with tarfile.open(folder / f"s-{number}.tar", "w") as tar:
            for members in list(samples.values())[number::8]:
                for member, data in members:
                    tar.addfile(member, io.BytesIO(data))
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_that_wait_for_each_other_at_every_step_all_come_to_the_end(
    world_size: int, eight_shards: list[str], tmp_path: Path
) -> None:
    """Also that torch.distributed is asked for rank and world size, since nobody else says them here."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = (world_size, str(tmp_path / "store"), eight_shards, answers)
    ranks = [context.Process(target=train_and_evaluate_on_a_rank, args=(rank, *arguments)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    found = [answers.get(timeout=240) for _ in ranks]
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * world_size
    check_ranks(found)


def test_ranks_are_those_of_torch_distributed(eight_shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load one rank after the other in this process, with what torch.distributed would say in theirs."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    found = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found.append(train_and_evaluate(eight_shards, lambda: None))
    check_ranks(found)


def check_ranks(found: list[dict[str, Any]]) -> None:
    trained = [set(share["train"]) for share in found]
    assert [share["train steps"] for share in found] == [3] * len(found)
    assert all(trained)
    assert len(set.union(*trained)) == sum(map(len, trained))  # different samples
    assert len({share["eval steps"] for share in found}) == 1
    evaluated = [key for share in found for key in share["eval"]]
    assert len(evaluated) == len(set(evaluated)) == 100


def train_and_evaluate_on_a_rank(rank: int, world_size: int, store: str, shards: list[str], answers: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    answers.put(train_and_evaluate(shards, torch.distributed.barrier))
    torch.distributed.destroy_process_group()


def train_and_evaluate(shards: list[str], wait: Callable[[], None]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    small = RECIPE.replace(rows_per_batch=1, packer=pp.packing.NextFit())  # three steps stay within the first pass
    for name, loader in (
        ("train", pp.load(shards, small, shuffle=20, steps_per_epoch=3)),
        ("eval", pp.load(shards, RECIPE.for_eval(), tail="pad")),
    ):
        batches = []
        for batch in loader:
            wait()  # unequal steps would hang here
            batches.append(batch)
        answer |= {name: keys_of(batches), f"{name} steps": len(batches)}
    return answer


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=SLOW)])
def test_nine_ranks_over_eight_shards_all_have_samples(eight_shards: list[str], workers: int) -> None:
    shares, evaluated = [], []
    for rank in range(9):
        train = pp.load(
            eight_shards,
            RECIPE.replace(rows_per_batch=1),
            shuffle=20,
            steps_per_epoch=2,
            rank=rank,
            world_size=9,
            num_workers=workers,
        )
        shares.append(list(train))
        held_out = pp.load(eight_shards, RECIPE.for_eval(), tail="pad", rank=rank, world_size=9, num_workers=workers)
        evaluated.append(list(held_out))
    assert [len(share) for share in shares] == [2] * 9
    assert all(keys_of(share) for share in shares)
    assert len({len(share) for share in evaluated}) == 1
    keys = keys_of(chain.from_iterable(evaluated))
    assert len(keys) == len(set(keys)) == 100
