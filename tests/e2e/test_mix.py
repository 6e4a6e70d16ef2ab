"""Several sources with weights: ratios, keys, draws, accounts, states, ranks, workers, labels, ends, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

import patchpack as pp
from helpers.painted import picture
from patchpack.errors import ConfigError, ShardError, SourceError
from patchpack.stream.planning.mixed_order import MixMark, OrderedMix, TokenCount
from patchpack.stream.planning.order import Order
from patchpack.stream.sample.source import Source
from patchpack.types import Event, Header, Rejection, ShardFault, Size

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=8, seq_len=16, rows_per_batch=2, max_images=8)
LONG = RECIPE.replace(resize=pp.resize.NaFlex(16), packer=pp.packing.FirstFit(4))


class Reader:
    """An image of the size in the location, and the label beside it."""

    def __call__(self, location: tuple[int, int, Any]) -> tuple[np.ndarray, Any]:
        height, width, label = location
        if height == 99:
            raise SourceError("is gone")
        return np.full((height, width, 3), len(str(label)), dtype=np.uint8), label

    def target(self, location: tuple[int, int, Any]) -> Any:
        return location[2]


class Made(Source):
    """`count` samples without files, in parts of `part`. Sample i is a rejection or a fault if `bad` says so."""

    def __init__(self, count: int, *, part: int = 7, label: Any = 0, side: int = 16, bad: Sequence[int] = ()) -> None:
        self.count, self.part, self.label, self.side, self.bad = count, part, label, side, set(bad)
        self.name, self.reader, self.num_parts = f"{count} made", Reader(), -(-count // part)
        self.fingerprint = f"{count}-{part}"

    def scan(self) -> Iterator[Event]:
        return self.scan_parts(range(self.num_parts or 0))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        for part in parts:
            for i in range(part * self.part, min((part + 1) * self.part, self.count)):
                if i in self.bad:
                    yield Rejection(f"part{part}", str(i), "", "header", "no image")
                    continue
                size = Size(self.side, self.side + 8 * (i % 3))
                yield Header(str(i), f"part{part}", "", size, (*size, self.label))
            if -1 - part in self.bad:
                yield ShardFault(f"part{part}", "cut")


def mixed(by: str = "samples", **options: Any) -> pp.Mix:
    return pp.Mix([(Made(50), 5), (Made(23), 3), (Made(11, side=24), 2)], by=by, names=["a", "b", "c"], **options)  # type: ignore[arg-type]


def fed(mix: pp.Mix, count: int, recipe: pp.Recipe = RECIPE, **options: Any) -> list[Header]:
    """The first headers that a planner reads."""
    ordered = OrderedMix(mix, Order(**options), TokenCount(recipe, options.get("epoch", 0), 0))
    headers = []
    for event in ordered.scan():
        if isinstance(event, Header):
            headers.append(event)
        if len(headers) == count:
            break
    return headers


def names(headers: Sequence[Header]) -> list[str]:
    return [header.key.split("/")[0] for header in headers]


def keys(batches: Sequence[Any]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


# ------------------------------------------------------------------------------------------------------------- ratios


@pytest.mark.parametrize("rank", [(0, 1), (0, 2), (1, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("shuffle", [0, 4, 1024])
def test_any_thousand_samples_of_a_rank_have_the_shares(shuffle: int, rank: tuple[int, int]) -> None:
    got = names(fed(mixed(), 2300, shuffle=shuffle, rank=rank[0], world_size=rank[1]))
    for start in range(0, 1300, 7):
        assert Counter(got[start : start + 1000]) == {"a": 500, "b": 300, "c": 200}


@given(st.lists(st.fractions(Fraction(1, 100), 100, max_denominator=100) | st.floats(0.01, 100), min_size=1, max_size=5))
def test_shares_hold_for_any_weights(weights: list[Fraction | float]) -> None:
    mix = pp.Mix([(Made(9 + i), weight) for i, weight in enumerate(weights)])
    got = names(fed(mix, 1100, shuffle=16))
    exact = [Fraction(str(weight)) if isinstance(weight, float) else weight for weight in weights]
    for start in range(0, 100, 11):
        counts = Counter(got[start : start + 1000])
        for i, weight in enumerate(exact):
            assert abs(counts[str(i)] - 1000 * weight / sum(exact)) < 1


@pytest.mark.parametrize("drop", [pp.drop.NoDrop(), pp.drop.Beta(0.5, 0.9), pp.drop.Scheduled(300, 40)], ids=repr)
def test_by_tokens_counts_the_tokens_that_are_planned(drop: Any) -> None:
    """The tokens that a plan gives to each source are those that the choices were made by."""
    recipe = LONG.replace(drop=drop)
    planner = pp.Planner(mixed("tokens"), recipe, steps_per_epoch=60, shuffle=8)
    tokens: Counter[str] = Counter()
    for plan in planner:
        for header, count in zip(plan.headers, plan.table.num_tokens.tolist(), strict=True):
            tokens[header.key.split("/")[0]] += count
    whole = sum(tokens.values())
    slack = 3 * 16 + 4 * 16  # a sample of each source, and what waits in open rows
    assert whole > 1200
    for name, share in {"a": 0.5, "b": 0.3, "c": 0.2}.items():
        assert abs(tokens[name] - share * whole) < slack


@pytest.mark.parametrize("drop", [pp.drop.NoDrop(), pp.drop.Beta(0.5, 0.9)], ids=repr)
def test_by_tokens_the_source_with_the_fewest_tokens_for_its_weight_is_next(drop: Any) -> None:
    recipe, mix = LONG.replace(drop=drop, seed=5, packer=pp.packing.FirstFit(1)), mixed("tokens")
    planner = pp.Planner(mix, recipe, steps_per_epoch=40, shuffle=8)
    planned = {}
    for plan in planner:
        planned |= {h.draw_key: n for h, n in zip(plan.headers, plan.table.num_tokens.tolist(), strict=True)}
    had = dict.fromkeys("abc", Fraction(0))
    weights = dict(zip("abc", mix.weights, strict=True))
    met = fed(mix, len(planned), recipe, shuffle=8, seed=5)
    for header in met[: len(planned) - 20]:  # the last ones still waited for a row
        name = header.key[0]
        assert had[name] == min(had.values())
        had[name] += planned[header.draw_key] / weights[name]


def test_a_rejected_header_is_replaced_by_the_next_of_its_source() -> None:
    mix = pp.Mix([(Made(30, bad=range(0, 30, 2)), 1), (Made(30), 1)], names=["half", "all"])
    loader = pp.load(mix, RECIPE, steps_per_epoch=12, on_error="skip")
    counts = Counter(key.split("/")[0] for key in keys(list(loader)))
    report = loader.report()
    assert abs(counts["half"] - counts["all"]) < 16
    assert report.by_source["half"].rejected == len(report.rejected) > 10
    assert report.by_source["all"].rejected == 0
    assert_adds_up(report)


# ------------------------------------------------------------------------------------------------- keys, draws, order


def test_keys_carry_the_name_and_repeats_the_pass() -> None:
    mix = mixed()
    headers = fed(mix, 300)
    assert headers[0].key == "a/0"
    assert headers[0].shard == "a/part0"
    of_c = [header for header in headers if header.key.startswith("c/")]
    assert [header.repeat for header in of_c[:23]] == [0] * 11 + [1] * 11 + [2]
    assert [header.key for header in of_c[:12]] == [*(f"c/{i}" for i in range(11)), "c/0"]
    assert of_c[11].draw_key == "c/0#1"


def test_each_pass_and_each_source_has_a_shuffle_of_its_own() -> None:
    twins = pp.Mix([(Made(20), 1), (Made(20), 1)], names=["one", "two"])
    headers = fed(twins, 80, shuffle=64)
    numbers = {n: [int(h.key.split("/")[1]) for h in headers if h.key.startswith(n)] for n in ("one", "two")}
    passes = [numbers[name][start : start + 20] for name in numbers for start in (0, 20)]
    assert all(sorted(one) == list(range(20)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_another_source_does_not_change_the_order_inside_a_source() -> None:
    two = pp.Mix([(Made(50), 1), (Made(23), 1)], names=["a", "b"])
    three = pp.Mix([(Made(50), 2), (Made(23), 3), (Made(11), 1)], names=["a", "b", "c"])
    of_a = [[h.key for h in fed(mix, 200, shuffle=16) if h.key.startswith("a/")][:60] for mix in (two, three)]
    assert of_a[0] == of_a[1]


def test_ranks_share_every_source() -> None:
    shares = [fed(mixed(), 60, shuffle=8, rank=rank, world_size=2) for rank in (0, 1)]
    first = [{h.key for h in share if not h.repeat} for share in shares]
    assert not first[0] & first[1]


@pytest.mark.parametrize("by", ["samples", "tokens"])
def test_workers_and_threads_do_not_change_batches(by: str) -> None:
    def batches(**options: Any) -> list[tuple[Any, Any]]:
        loader = pp.load(mixed(by), RECIPE, steps_per_epoch=9, shuffle=8, **options)
        return [(batch.keys, batch.patches.sum().item()) for batch in loader]

    alone = batches()
    assert batches(num_workers=2) == alone
    assert batches(num_threads=2) == alone


def test_a_mix_of_every_kind_of_source(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "pictures" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / str(i % 2) / f"{i}.png").write_bytes(picture(i))
    shards = pp.samples.shards("val")
    index = pp.Index.build(shards)
    sized = [(picture(i), i) for i in range(6)]
    entries: list[tuple[Any, float]] = [
        (tmp_path / "pictures", 1), (shards, 1), (index, 1), (sized, 1), (pp.open_source(ByNumber(), sizes=[(32, 48)] * 5), 1),
    ]  # fmt: skip
    loader = pp.load(
        pp.Mix(entries, names=["files", "shards", "index", "list", "rows"]), RECIPE, steps_per_epoch=20, shuffle=True
    )
    counts = Counter(key.split("/")[0] for key in keys(list(loader)))
    assert max(counts.values()) - min(counts.values()) <= 16
    assert len(counts) == 5
    assert_adds_up(loader.report())


def length(text: str) -> list[int]:
    return [len(text)]


@pytest.mark.parametrize("by", ["samples", "tokens"])
def test_texts_and_samples_of_several_images(by: str) -> None:
    def items(start: int) -> list[pp.Sample]:
        return [pp.Sample(f"{i}", [picture(start + i), picture(start + i + 50)], i, "x" * (start + i)) for i in range(6)]

    sources = [(pp.open_source(items(1), tokenize=length), 1), (pp.open_source(items(20), tokenize=length), 1)]
    loader = pp.load(pp.Mix(sources, by=by, stop="first"), RECIPE.replace(seq_len=32), text_len=8)  # type: ignore[arg-type]
    seen = []
    for batch in loader:
        assert batch.text_ids is not None
        seen += [int(number) for number in batch.text_ids.flatten() if number]
        for image in pp.unpack(batch):
            assert image.key.split("/")[1] == str(int(image.target))
    assert sorted(seen) == [*range(1, 7), *range(20, 26)]
    assert sum(counts.packed for counts in loader.report().by_source.values()) == 12
    assert_adds_up(loader.report())


class ByNumber(Dataset[Any]):
    """Five images by number."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        return np.full((32, 48, 3), number, dtype=np.uint8), number


# ------------------------------------------------------------------------------------------------------------ accounts


def assert_adds_up(report: pp.Report) -> None:
    by = report.by_source.values()
    assert all(c.seen == c.packed + c.rejected + c.dropped + c.waiting for c in by)
    assert report.seen == report.packed + len(report.rejected) + sum(report.dropped.values()) + report.waiting
    assert sum(c.seen for c in by) == report.seen
    assert sum(c.packed for c in by) == report.packed
    assert sum(c.rejected for c in by) == len(report.rejected)
    assert sum(c.dropped for c in by) == sum(report.dropped.values())
    assert sum(c.waiting for c in by) == report.waiting


OPTIONS: list[dict[str, Any]] = [
    {"steps_per_epoch": 12}, {"steps_per_epoch": 12, "shuffle": 8, "tail": "drop"},
    {"steps_per_epoch": 8, "rank": 1, "world_size": 2},
    {"stop": "first"}, {"stop": "last", "tail": "drop"}, {"stop": "last", "tail": "pad", "rank": 1, "world_size": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_accounts_by_source_add_up_after_every_batch(options: dict[str, Any]) -> None:
    options = dict(options)
    sources = [(Made(40, bad=[3, 4, -2]), 3), (Made(20, side=99), 1), (Made(20), 1)]
    mix = pp.Mix(sources, names=["bad", "gone", "good"], stop=options.pop("stop", None))
    policy = pp.ErrorPolicy("skip", max_in_a_row=None)
    loader = pp.load(mix, RECIPE, on_error=policy, **options)
    delivered: Counter[str] = Counter()
    for batch in loader:
        for r, row in enumerate(batch.keys):
            for slot, key in enumerate(row):
                delivered[key.split("/")[0]] += bool(batch.slot_mask[r, slot])
        report = loader.report()
        assert_adds_up(report)
        assert {name: counts.packed for name, counts in report.by_source.items()} == {n: delivered[n] for n in mix.sources}
    report = loader.report()
    assert report.waiting == 0
    assert report.by_source["gone"].packed == 0
    assert all(line in str(report) for line in ("  bad: ", "  gone: ", "  good: "))


def test_tokens_are_counted_by_source() -> None:
    loader = pp.load(mixed("tokens"), LONG, steps_per_epoch=10)
    batches = list(loader)
    assert sum(c.tokens for c in loader.report().by_source.values()) == sum(pp.token_mask(b).sum() for b in batches)


def test_a_batch_that_an_error_replaces_counts_as_waiting() -> None:
    loader = pp.load(pp.Mix([(Made(40, side=99), 1), (Made(40), 1)]), RECIPE, steps_per_epoch=5)
    with pytest.raises(SourceError, match="0/0: is gone"):
        list(loader)
    assert loader.report().packed == 0
    assert_adds_up(loader.report())


# -------------------------------------------------------------------------------------------------------------- resume


def check_cuts(by: Any, options: dict[str, Any], workers: int = 0) -> None:
    """A loader that has only the state goes on after any batch: the same batches, states and following epoch."""
    options = dict(options)
    stop = options.pop("stop", None)

    def make() -> pp.Loader:
        sources = [(Made(14, part=4, bad=[3, 4, -2]), 3), (Made(7, part=3), 1.5), (Made(9), 1)]
        return pp.load(pp.Mix(sources, by=by, stop=stop), LONG, on_error="skip", num_workers=workers, **options)

    loader = make()
    whole = [(batch, json.dumps(loader.state_dict())) for batch in loader]
    after = json.dumps(loader.state_dict())
    loader.set_epoch(1)
    following = [batch.keys for batch in loader]
    assert len(whole) > 3
    for cut, (_, state) in enumerate(whole):
        again = make()
        again.load_state_dict(json.loads(state))
        assert json.dumps(again.state_dict()) == state
        rest = [(batch, json.dumps(again.state_dict())) for batch in again]
        assert [s for _, s in rest] == [s for _, s in whole[cut + 1 :]]
        for (ours, _), (theirs, _) in zip(rest, whole[cut + 1 :], strict=True):
            assert (ours.keys, ours.info) == (theirs.keys, theirs.info)
            assert (ours.patches == theirs.patches).all()
        assert_adds_up(again.report())
        assert json.dumps(again.state_dict()) == after
        again.set_epoch(1)
        assert [batch.keys for batch in again] == following


CUT: list[Any] = [
    ("samples", {"steps_per_epoch": 7, "shuffle": 8, "tail": "drop"}),
    ("tokens", {"steps_per_epoch": 6, "rank": 1, "world_size": 2}),
    *(pytest.param(by, each, marks=pytest.mark.slow) for by in ("samples", "tokens") for each in OPTIONS),
]


@pytest.mark.parametrize(("by", "options"), CUT, ids=str)
def test_a_run_continues_after_every_batch(by: str, options: dict[str, Any]) -> None:
    check_cuts(by, options)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["samples", "tokens"])
def test_a_run_with_workers_continues_after_every_batch(by: str) -> None:
    check_cuts(by, {"steps_per_epoch": 5, "shuffle": 8}, workers=2)


@given(st.sampled_from(["samples", "tokens"]), st.sampled_from([0, 3, 64]), st.sampled_from([None, "first", "last"]), st.data())
def test_reading_begins_again_at_any_mark(by: str, shuffle: int, stop: Any, data: st.DataObject) -> None:
    """From every mark of a scan, a new scan yields what followed, marks included."""
    sources = [(Made(data.draw(st.integers(1, 12)), part=data.draw(st.integers(1, 5)), bad=[2, -1]), i + 1) for i in range(3)]
    mix = pp.Mix(sources, by=by, stop=stop)  # type: ignore[arg-type]

    def ordered(start: Any = None) -> list[Any]:
        order = Order(shuffle=shuffle, rank=0, world_size=1)
        return list(islice(OrderedMix(mix, order, TokenCount(LONG, 0, 0), start).scan(), 70))

    whole = ordered()
    marks = [at for at, event in enumerate(whole) if isinstance(event, MixMark)]
    for at in marks[:: max(1, len(marks) // 6)]:
        event = whole[at]
        if isinstance(event, MixMark):
            saved = MixMark.of(json.loads(json.dumps(event)))
            assert saved == event
            assert ordered(saved)[: len(whole) - at - 1] == whole[at + 1 :]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rank", [(0, 1), (1, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("cut", [None, 7])
def test_the_samples_seen_between_any_two_batches_have_the_shares(workers: int, rank: tuple[int, int], cut: int | None) -> None:
    """5:3:2 in 1000 is 5:3:2 in every ten, give or take the ends; a resumed run counts on from what it saw before."""

    def make() -> pp.Loader:
        where = {"rank": rank[0], "world_size": rank[1]}
        return pp.load(mixed(), RECIPE, steps_per_epoch=16, shuffle=8, num_workers=workers, **where)  # type: ignore[arg-type]

    seen: list[dict[str, int]] = [dict.fromkeys("abc", 0)]
    loader, before = make(), dict.fromkeys("abc", 0)
    for number, _ in enumerate(loader):
        counts = loader.report().by_source
        seen.append({name: count.seen for name, count in counts.items()})
        if number == cut:
            before = {name: count.seen - count.waiting for name, count in counts.items()}
            break
    if cut is not None:
        again = make()
        again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        for _ in again:
            counts = again.report().by_source
            seen.append({name: before[name] + count.seen for name, count in counts.items()})
    assert len(seen) == 17
    for start, earlier in enumerate(seen):
        for later in seen[start + 1 :]:
            count = sum(later.values()) - sum(earlier.values())
            for name, share in zip("abc", (0.5, 0.3, 0.2), strict=True):
                assert abs(later[name] - earlier[name] - share * count) < 2


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ratios_hold_over_a_resume_in_the_middle(workers: int) -> None:
    def make() -> pp.Loader:
        return pp.load(mixed(), RECIPE, steps_per_epoch=30, shuffle=8, num_workers=workers)

    loader, got = make(), []
    for number, batch in enumerate(loader):
        got += [key.split("/")[0] for row in batch.keys for key in row]
        if number == 13:
            break
    again = make()
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    got += [key.split("/")[0] for key in keys(list(again))]
    uncut = [key.split("/")[0] for key in keys(list(make()))]
    assert got == uncut


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: mixed("tokens"), "by differs"),
        (lambda: pp.Mix([(Made(50), 5), (Made(23), 3), (Made(11, side=24), 1)], names=["a", "b", "c"]), "weights differs"),
        (lambda: pp.Mix([(Made(50), 5), (Made(23), 3), (Made(11, side=24), 2)], names=["a", "b", "d"]), "source differs"),
        (lambda: pp.Mix([(Made(50), 5), (Made(24), 3), (Made(11, side=24), 2)], names=["a", "b", "c"]), "b: source differs"),
        (lambda: pp.Mix([(Made(50), 5), (Made(23, part=6), 3), (Made(11), 2)], names=["a", "b", "c"]), "b: samples or shards"),
        (
            lambda: pp.Mix(
                [(pp.open_source(Made(50), map_target=int), 5), (Made(23), 3), (Made(11), 2)], names=["a", "b", "c"]
            ),
            "a: map_target differs",
        ),
    ],
)
def test_a_state_of_another_mix_is_refused_by_name(change: Any, named: str) -> None:
    loader = pp.load(mixed(), RECIPE, steps_per_epoch=5)
    next(iter(loader))
    state = json.loads(json.dumps(loader.state_dict()))
    with pytest.raises(ConfigError, match=named):
        pp.load(change(), RECIPE, steps_per_epoch=5).load_state_dict(state)


def test_weights_in_the_same_ratios_are_the_same_mix() -> None:
    loader = pp.load(pp.Mix([(Made(50), 0.1), (Made(23), 1)]), RECIPE, steps_per_epoch=5)
    first = next(iter(loader)).keys
    state = loader.state_dict()
    again = pp.load(pp.Mix([(Made(50), Fraction(1, 2)), (Made(23), np.float32(5))]), RECIPE, steps_per_epoch=5)
    assert next(iter(again)).keys == first
    again.load_state_dict(state)


# ---------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("stop", "weights", "counts"),
    [
        ("first", (1, 1), {"0": 12, "1": 12}),
        ("last", (1, 1), {"0": 30, "1": 30}),
        ("first", (3, 1), {"0": 12, "1": 4}),
        ("last", (3, 1), {"0": 90, "1": 30}),
    ],
)
def test_where_a_mix_stops(stop: Any, weights: tuple[int, int], counts: dict[str, int]) -> None:
    mix = pp.Mix([(Made(12), weights[0]), (Made(30), weights[1])], stop=stop)
    got = names(fed(mix, 10_000))
    assert Counter(got) == counts


@pytest.mark.parametrize("stop", ["first", "last"])
def test_sources_of_equal_length_and_weight_end_together(stop: Any) -> None:
    mix = pp.Mix([(Made(15), 1), (Made(15), 1), (Made(15), 1)], stop=stop)
    assert sorted(header.draw_key for header in fed(mix, 1000)) == sorted(f"{n}/{i}" for n in range(3) for i in range(15))


def test_an_epoch_of_a_mix_that_stops_is_the_epoch_of_a_loader() -> None:
    loader = pp.load(pp.Mix([(Made(12), 1), (Made(30), 1)], stop="first"), RECIPE)
    assert Counter(key.split("/")[0] for key in keys(list(loader))) == {"0": 12, "1": 12}
    loader.set_epoch(1)
    assert len(keys(list(loader))) == 24


@pytest.mark.parametrize("parts", [True, False])
def test_a_source_without_a_usable_sample_is_named(parts: bool) -> None:
    empty: Any = Made(10, bad=range(10)) if parts else [b"no image"] * 3
    mix = pp.Mix([(Made(30), 1), (empty, 1)], names=["good", "broken"])
    with pytest.raises(pp.errors.PatchpackError, match="broken/"):
        list(pp.load(mix, RECIPE, steps_per_epoch=5))
    loader = pp.load(mix, RECIPE, steps_per_epoch=5, on_error="skip")
    with pytest.raises(SourceError, match="mix of good, broken"):
        list(loader)
    assert [fault.shard.split("/")[0] for fault in loader.report().shard_errors] == ["broken"]
    assert "no sample that can be read" in loader.report().shard_errors[0].reason


def test_a_rank_without_a_share_of_a_small_source_is_named() -> None:
    with pytest.raises(ShardError, match="no sample that can be read by rank 2 of 3"):
        list(pp.load(pp.Mix([(Made(30), 1), (Made(2), 1)]), RECIPE, steps_per_epoch=5, rank=2, world_size=3))


@pytest.mark.filterwarnings("ignore:.*has no positions:UserWarning")
def test_a_generator_ends_a_mix_when_it_would_be_read_again() -> None:
    def stream() -> Iterator[pp.Sample]:
        return (pp.Sample(str(i), picture(i), 0) for i in range(6))

    with pytest.raises(ShardError, match="give a source that can be read again"):
        list(pp.load(pp.Mix([(stream(), 1), (Made(30), 1)]), RECIPE, steps_per_epoch=9))
    loader = pp.load(pp.Mix([(stream(), 1), (Made(30), 1)], stop="first"), RECIPE)
    assert Counter(key.split("/")[0] for key in keys(list(loader))) == {"0": 6, "1": 6}


def test_a_mix_without_an_end_needs_steps() -> None:
    with pytest.raises(ConfigError, match="steps_per_epoch= to load, or stop='first'"):
        pp.load(mixed(), RECIPE)
    with pytest.raises(ConfigError, match="both end an epoch"):
        pp.load(mixed(stop="first"), RECIPE, steps_per_epoch=3)


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (1, "cat", "those of 'a' are int64, those of 'b' are of type str"),
        ({"x": 1}, 3, "those of 'a' are a dict of x: int64, those of 'b' are int64"),
        ({"x": "text"}, "text", "those of 'a' are of type dict, those of 'b' are of type str"),
        ({"x": 1}, {"y": 1}, "a dict of x: int64, those of 'b' are a dict of y: int64"),
        (None, 3, r"those of 'a' are None \(no labels\), those of 'b' are int64"),
        (1.5, 3, "those of 'a' are float32, those of 'b' are int64"),
        ([1, 2], [1, 2, 3], r"int64 of shape \[2\], those of 'b' are int64 of shape \[3\]"),
    ],
)
def test_labels_of_different_kinds_are_refused(one: Any, other: Any, said: str) -> None:
    mix = pp.Mix([(Made(9, label=one), 1), (Made(9, label=other), 5)], names=["a", "b"])
    with pytest.raises(ConfigError, match=said):
        next(iter(pp.load(mix, RECIPE, steps_per_epoch=2)))


def test_labels_of_iterables_are_compared_without_losing_a_sample() -> None:
    def items(label: Any) -> list[pp.Sample]:
        return [pp.Sample(str(i), picture(i), label) for i in range(8)]

    with pytest.raises(ConfigError, match="those of '0' are int64, those of '1' are of type str"):
        next(iter(pp.load(pp.Mix([(items(1), 9), (items("one"), 1)]), RECIPE, steps_per_epoch=2)))
    loader = pp.load(pp.Mix([(iter(items(1)), 1), (iter(items(2)), 1)], stop="first"), RECIPE)
    assert sorted(keys(list(loader))) == sorted(f"{n}/{i}" for n in range(2) for i in range(8))


def test_map_target_of_an_entry_makes_labels_equal() -> None:
    mix = pp.Mix([(Made(9, label=1), 1), (pp.open_source(Made(9, label="7"), map_target=int), 1)])
    batch = next(iter(pp.load(mix, RECIPE, steps_per_epoch=2)))
    assert set(batch.targets[batch.slot_mask].tolist()) == {1, 7}
    mapped = next(iter(pp.load(mix, RECIPE, steps_per_epoch=2, map_target=lambda label: label + 10)))
    assert set(mapped.targets[mapped.slot_mask].tolist()) == {11, 17}


def test_class_names_are_those_of_all_sources_if_equal() -> None:
    one, same, other = (Made(9) for _ in range(3))
    one.class_names, same.class_names, other.class_names = ["cat", "dog"], ["cat", "dog"], ["dog", "cat"]
    assert pp.load(pp.Mix([(one, 1), (same, 1)]), RECIPE, steps_per_epoch=1).classes == ["cat", "dog"]
    with pytest.raises(pp.errors.ConfigError, match=r"'0' and '1' number different classes, \(cat, dog\) and \(dog, cat\)"):
        pp.Mix([(one, 1), (other, 1)])
    mapped = pp.open_source(other, map_target=lambda label: 1 - label)
    mix = pp.Mix([(one, 1), (mapped, 1)])
    assert pp.load(mix, RECIPE, steps_per_epoch=1).classes is None
    assert [source.class_names for source in mix.sources.values()] == [["cat", "dog"], ["dog", "cat"]]


# --------------------------------------------------------------------------------------------- replay, limits, refusals


def test_replay_finds_a_sample_of_any_pass() -> None:
    recipe = RECIPE.replace(drop=pp.drop.Beta(0.5, 0.9), seed=4)
    mix = mixed()
    for batch in pp.load(mix, recipe, steps_per_epoch=8, shuffle=8):
        for image, repeat in zip(pp.unpack(batch), [n for row in batch.info.repeats or [] for n in row], strict=False):
            again = pp.replay(mix, recipe, image.key, repeat=repeat)
            assert np.array_equal(again.patches, image.patches.numpy())


def test_the_limits_of_a_recipe_reach_every_source() -> None:
    shards = pp.samples.shards("val")
    mix = pp.Mix([(shards, 1), (pp.open_source(shards, map_target=str), 1)])
    small = pp.load(mix, RECIPE.replace(max_pixels=1), steps_per_epoch=1, on_error="skip", map_target=int)
    with pytest.raises(SourceError, match="pixels"):
        list(small)
    assert mix.sources["0"].members.limits.max_pixels > 1  # type: ignore[attr-defined]


def test_a_mix_can_be_pickled_and_printed() -> None:
    mix = mixed()
    assert repr(mix) == "Source(mix of a, b, c)"
    assert [h.key for h in fed(pickle.loads(pickle.dumps(mix)), 50)] == [h.key for h in fed(mix, 50)]


def test_a_scan_of_a_mix_has_every_sample_once() -> None:
    found = [event.key for event in mixed().scan() if isinstance(event, Header)]
    assert found == [f"{name}/{i}" for name, count in (("a", 50), ("b", 23), ("c", 11)) for i in range(count)]


@pytest.mark.parametrize(
    ("entries", "options", "said"),
    [
        ([], {}, r"list of pairs \(source, weight\), at least one, got \[\]"),
        ({"a": 1}, {}, "list of pairs"),
        ([Made(3)], {}, "entry 0 of a mix must be a pair"),
        ([(Made(3), 0)], {}, "weight of source '0' must be a number > 0, got 0"),
        ([(Made(3), -1.5)], {}, "must be a number > 0, got -1.5"),
        ([(Made(3), float("nan"))], {}, "must be a number > 0, got nan"),
        ([(Made(3), float("inf"))], {}, "must be a number > 0, got inf"),
        ([(Made(3), True)], {}, "must be a number > 0, got True"),
        ([(Made(3), "1")], {}, "must be a number > 0, got '1'"),
        ([(Made(3), 1)], {"names": ["a", "b"]}, "one name for each of the 1 sources"),
        ([(Made(3), 1)], {"names": "a"}, "one name for each"),
        ([(Made(3), 1)], {"names": [""]}, "not empty"),
        ([(Made(3), 1)], {"names": ["a/b"]}, "has no '/'"),
        ([(Made(3), 1), (Made(3), 1)], {"names": ["a", "a"]}, "must differ"),
        ([(Made(3), 1)], {"by": "images"}, "by must be 'samples' or 'tokens', got 'images'"),
        ([(Made(3), 1)], {"stop": "never"}, "stop must be 'first', 'last' or None, got 'never'"),
        ([(pp.samples.shards("val"), 1), (ByNumber(), 1)], {"names": ["a", "rows"]}, r"source 'rows' .* decodes .* sizes="),
    ],
)
def test_what_cannot_be_mixed_is_refused(entries: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pp.Mix(entries, **options)


def test_sources_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="is a mix itself"):
        pp.Mix([(mixed(), 1)])
    same = Made(3)
    with pytest.raises(ConfigError, match="'0' and '1' are the same object"):
        pp.Mix([(same, 1), (same, 2)])
    split = Made(3)
    split.is_split = True
    with pytest.raises(ConfigError, match=r"'0' .* split by rank already"):
        pp.Mix([(split, 1)])
    shards = pp.samples.shards("val")
    texts = pp.open_source(shards, tokenize=len, text="cls")
    with pytest.raises(ConfigError, match="source '1' was opened with tokenize=, and '0' without"):
        pp.Mix([(shards, 1), (texts, 1)])


def test_an_entry_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(SourceError, match="missing"):
        pp.Mix([("missing.tar", 1)])
