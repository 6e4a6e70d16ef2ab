"""What a batch says of itself: its JSON form and what is refused, and the account of a stream beside a plain one."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers.batches import by_hand
from patchpack.batch_info import BatchInfo
from patchpack.losses import Rejection, ShardFault
from patchpack.report import Account, Report
from patchpack.source_counts import SourceCounts

COUNTERS = ("step", "epoch", "seen", "planned", "packed", "shortened", "worker", "streams")
COUNTS = st.integers(0, 1 << 40)
TEXTS = st.text(max_size=5)
STAGES = st.sampled_from(["read", "header", "plan", "decode", "target"])
REJECTIONS = st.builds(Rejection, TEXTS, TEXTS, TEXTS, STAGES, TEXTS)
FAULTS = st.builds(ShardFault, TEXTS, TEXTS)
BY_KIND = st.dictionaries(TEXTS, COUNTS, max_size=3)


def per_image(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.lists(st.lists(values, max_size=3), max_size=3)


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(COUNTERS, COUNTS),
    **dict.fromkeys(("dropped", "warnings"), BY_KIND),
    "rejections": st.lists(REJECTIONS, max_size=3),
    "shard_errors": st.lists(FAULTS, max_size=3),
    "elsewhere": st.lists(REJECTIONS | FAULTS, max_size=2),
    "repeats": per_image(COUNTS),
    "boxes": per_image(st.lists(COUNTS, min_size=4, max_size=4)),
    "flips": per_image(st.booleans()),
    "positions": st.none() | st.just("image"),
    "state": st.none() | st.dictionaries(TEXTS, COUNTS | st.lists(TEXTS, max_size=2) | st.none(), max_size=3),
    "fatal": st.none() | TEXTS,
    "by_source": st.dictionaries(TEXTS, st.dictionaries(st.sampled_from(["waiting", "dropped", "packed", "tokens"]), COUNTS)),
}
INFOS = st.fixed_dictionaries({}, optional=FIELDS).map(lambda given: BatchInfo(**given))
BAD, CUT = Rejection("a.tar", "k", "k.jpg", "decode", "no picture"), ShardFault("a.tar", "cut")
SAID: dict[str, Any] = {  # of every field a value that is not its default
    "step": 3, "epoch": 1, "seen": 9, "planned": 4, "packed": 3, "shortened": 2, "dropped": {"tail": 1}, "rejections": [BAD],
    "shard_errors": [CUT], "warnings": {"odd": 1}, "repeats": [[0, 1]], "boxes": [[[0, 1, 2, 3], [4, 5, 6, 7]]],
    "flips": [[True, False]], "positions": "image", "worker": 1, "streams": 2, "state": {"at": [1, "x", None]},
    "fatal": "nothing", "elsewhere": [BAD, CUT], "by_source": {"a": {"waiting": 2, "packed": 3}},
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- JSON


@given(INFOS)
def test_an_info_comes_back_from_json(info: BatchInfo) -> None:
    said = info.to_json()
    again = BatchInfo.from_json(json.loads(json.dumps(said)))
    assert again == info
    assert [type(loss) for loss in again.elsewhere] == [type(loss) for loss in info.elsewhere]
    assert {type(loss) for loss in again.rejections} <= {Rejection}
    assert {type(loss) for loss in again.shard_errors} <= {ShardFault}
    assert said == info.to_json()  # it was not changed by reading


def test_the_table_names_every_field() -> None:
    assert [each.name for each in fields(BatchInfo)] == list(SAID)
    assert FIELDS.keys() == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_every_field_is_said_and_counts_in_a_comparison(name: str) -> None:
    info = BatchInfo(**{name: SAID[name]})
    said = info.to_json()
    assert list(said) == [name]
    assert BatchInfo.from_json(json.loads(json.dumps(said))) == info != BatchInfo()
    assert pickle.loads(pickle.dumps(info)) == info


def test_what_is_not_said_is_the_default() -> None:
    assert BatchInfo().to_json() == {}
    assert BatchInfo.from_json({}) == BatchInfo()
    assert BatchInfo(dropped={}, rejections=[], repeats=None, streams=1) == BatchInfo()
    one, other = BatchInfo(), BatchInfo()
    one.rejections.append(BAD)
    one.dropped["tail"] = 1
    assert other == BatchInfo.from_json({}) == BatchInfo()  # no two share a list


def test_what_earlier_versions_wrote_is_read() -> None:
    """They said every counter, whatever it was."""
    said = {
        "step": 0, "epoch": 0, "seen": 5, "planned": 4, "packed": 3, "shortened": 0, "dropped": {}, "warnings": {"odd": 1},
        "rejections": [BAD._asdict()], "shard_errors": [], "boxes": [[[0, 0, 8, 8]]], "flips": [[False]],
    }  # fmt: skip
    expected = BatchInfo(
        seen=5, planned=4, packed=3, warnings={"odd": 1}, rejections=[BAD], boxes=[[[0, 0, 8, 8]]], flips=[[False]]
    )
    assert BatchInfo.from_json(said) == expected


LOSS = BAD._asdict()
OTHER_KINDS: dict[str, list[Any]] = {
    **{name: ["1", 1.0, True, None, [1]] for name in COUNTERS},
    **{name: [None, [], "tail", {"tail": "1"}, {"tail": 1.5}, {"tail": {}}] for name in ("dropped", "warnings")},
    "rejections": [None, {}, "", [None], [{}], [["stage"]], ["stage"], [CUT._asdict()], [{**LOSS, "more": ""}],
                   [{**LOSS, "key": 1}], [{**LOSS, "reason": None}], [{"stage": "read"}]],
    "shard_errors": [None, {}, "", [LOSS], [{"shard": "a.tar"}], [{"shard": "a.tar", "reason": []}], [["a.tar", "cut"]]],
    "elsewhere": [None, {"rejections": [LOSS], "shard_errors": []}, [[]], [{**LOSS, "shard": 0}]],
    "repeats": [[0], [["0"]], [[None]], {}, 0, [[0, 1.0]]],
    "boxes": [[[0, 1, 2, 3]], [[["0"]]], [[None]], 1],
    "flips": [[True], [[0]], [["true"]]],
    "positions": [0, ["image"]],
    "state": [[], "x", 0],
    "fatal": [0, ["nothing"]],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OTHER_KINDS.items() for value in values])
def test_a_value_of_another_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        BatchInfo.from_json({**BatchInfo(**SAID).to_json(), name: value})


@pytest.mark.parametrize("said", [None, [], [["step", 1]], "", "info", 0, {"steps": 1}, {"step": 1, "": 2}])
def test_what_is_no_info_is_refused(said: Any) -> None:
    with pytest.raises(TypeError):
        BatchInfo.from_json(said)


def test_a_batch_with_losses_is_pickled_saved_and_loaded() -> None:
    batch = by_hand()._replace(info=BatchInfo(**SAID)).to("cpu")
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    for again in (torch.load(file), pickle.loads(pickle.dumps(batch))):  # by default torch loads only types it was told of
        assert type(again.info) is BatchInfo
        assert again.info == batch.info
        assert [type(loss) for loss in again.info.elsewhere] == [Rejection, ShardFault]


# ------------------------------------------------------------------------------------------------------------ accounts


def naive(said: list[tuple[BatchInfo, int, bool]]) -> Report:
    """The account from all infos at once."""
    delivered = [info for info, _, given in said if given]
    infos = [info for info, _, _ in said]

    def summed(counts: list[dict[str, int]]) -> dict[str, int]:
        return {kind: sum(each.get(kind, 0) for each in counts) for kind in dict.fromkeys(k for each in counts for k in each)}

    seen = said[-1][0].seen - said[-1][1] if said else 0
    packed = sum(info.packed for info in delivered)
    rejected = [rejection for info in infos for rejection in info.rejections]
    dropped = summed([info.dropped for info in infos])

    def of(name: str) -> SourceCounts:
        there = [(info.by_source[name], info, given) for info, _, given in said if name in info.by_source]
        ready = sum(counts.get("packed", 0) for counts, _, given in there if given)
        refused = sum(loss.key.split("/")[0] == name for _, info, _ in there for loss in info.rejections)
        left_out = sum(counts.get("dropped", 0) for counts, _, _ in there)
        counts, _, given = there[-1]
        wait = counts.get("waiting", 0) + (0 if given else counts.get("packed", 0))
        tokens = sum(counts.get("tokens", 0) for counts, _, given in there if given)
        return SourceCounts(ready + refused + left_out + wait, ready, refused, left_out, wait, tokens)

    return Report(
        seen=seen,
        packed=packed,
        waiting=seen - packed - len(rejected) - sum(dropped.values()),
        rejected=rejected,
        dropped=dropped,
        shard_errors=[fault for info in infos for fault in info.shard_errors],
        shortened=sum(info.shortened for info in delivered),
        warnings=summed([info.warnings for info in delivered]),
        by_source={name: of(name) for name in dict.fromkeys(name for info in infos for name in info.by_source)},
    )


@given(st.lists(st.tuples(INFOS, st.integers(0, 99), st.booleans()), max_size=6))
def test_an_account_is_that_of_all_infos_at_once(said: list[tuple[BatchInfo, int, bool]]) -> None:
    account = Account()
    for number, (info, before, delivered) in enumerate(said):
        text = info.to_json()
        account.add(info, before=before, delivered=delivered)
        assert info.to_json() == text
        assert account.report() == naive(said[: number + 1])
        assert list(account.report().dropped) == list(naive(said[: number + 1]).dropped)  # in the order they were met
    assert account.report() == naive(said)
    assert account.report(waiting=7).waiting == 7
    assert account.waiting == account.report().waiting


@given(st.lists(st.tuples(INFOS, st.integers(0, 2), st.integers(0, 2)), max_size=8))
def test_accounts_of_streams_add_up(said: list[tuple[BatchInfo, int, int]]) -> None:
    """A stream is known by its worker, and one more begins at step 0."""
    infos = [replace(info, step=step, worker=worker) for info, step, worker in said]
    streams: list[list[BatchInfo]] = []
    for worker in range(3):
        for place, info in enumerate(info for info in infos if info.worker == worker):
            streams += [[]] if place == 0 or info.step == 0 else []
            streams[-1].append(info)
    parts = [naive([(info, 0, True) for info in stream]) for stream in streams]
    collected, total = pp.Report.collect(by_hand()._replace(info=info) for info in infos), pp.Report.total(parts)
    for name in ("seen", "packed", "waiting", "shortened"):
        assert getattr(collected, name) == getattr(total, name) == sum(getattr(part, name) for part in parts)
    whole = naive([(info, 0, True) for info in infos])
    for report in (collected, total):
        assert (report.dropped, report.warnings) == (whole.dropped, whole.warnings)
        assert (sorted(report.rejected), sorted(report.shard_errors)) == (sorted(whole.rejected), sorted(whole.shard_errors))


def test_a_report_is_not_changed_by_what_comes_later() -> None:
    info = BatchInfo(**SAID)
    account = Account()
    account.add(info)
    before, text = account.report(), str(account.report())
    again = account.report()
    account.add(info)
    account.add(BatchInfo(dropped={"tail": 5, "other": 1}, warnings={"odd": 5}, rejections=[BAD], shard_errors=[CUT]))
    assert before == again == naive([(info, 0, True)])
    assert str(before) == text
    before.rejected.clear()
    assert len(account.report().rejected) == 3
    assert len(info.rejections) == 1


def test_many_rejections_are_not_copied_for_every_batch() -> None:
    account = Account()
    held, faults = account.rejected, account.shard_errors
    for step in range(1000):
        account.add(BatchInfo(step=step, seen=100 * (step + 1), rejections=[BAD] * 100))
        assert account.rejected is held
        assert account.shard_errors is faults
    assert len(held) == 100_000
    assert {id(loss) for loss in held} == {id(BAD)}
    assert account.waiting == 0
