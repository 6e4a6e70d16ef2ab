"""What a state of an epoch brings back, one field at a time: e2e/test_resume.py has whole epochs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import patchpack as pp
from helpers.standin import of_sizes
from patchpack.report import BatchInfo
from patchpack.stream.painting.planned_in_workers import PlannedInWorkers
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.stream.planning.planner import Planner
from patchpack.stream.planning.resume import kind_of, snapshot
from patchpack.types import TargetSpec

RECIPE = pp.Recipe(
    resize=pp.resize.Native(16), patch_size=4, seq_len=16, max_images=4, rows_per_batch=1, packer=pp.packing.NextFit(),
    drop=pp.drop.Scheduled(midpoint=5, width=1e-3, low=0.0, high=0.5),
)  # fmt: skip
IMAGE = np.zeros((16, 16, 3), dtype=np.uint8)


class Samples:
    """Eight images that a loader has to read to know their sizes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> pp.Sample:
        return pp.Sample(str(number), IMAGE, number)


def tokens(plans: Any) -> list[int]:
    return [n for plan in plans for n in plan.table.num_tokens.tolist()]


def test_a_schedule_goes_on_counting_samples_of_earlier_epochs() -> None:
    planner = Planner(Samples(), RECIPE)
    assert tokens(planner) == [16] * 5 + [12] + [8] * 2
    planner.set_epoch(1)
    next(iter(planner))
    state = json.loads(json.dumps(planner.state_dict(1)))
    again = Planner(Samples(), RECIPE)
    again.load_state_dict(state)
    assert again.seen == 8
    assert tokens(again) == [8] * 6


def test_a_schedule_counts_places_in_the_order_of_an_epoch() -> None:
    """Not lines of the index: the first of a shuffled epoch is the first that is met."""
    plan = EpochPlan(of_sizes([(16, 16)] * 8), RECIPE, shuffle=8, seen=5)
    kept = {
        int(header.key.split("/")[1]): n for batch in plan for header, n in zip(batch.headers, tokens([batch]), strict=True)
    }
    order = plan.rows.order.tolist()
    assert order[0] != 0
    assert [kept[line] for line in order] == [12] + [8] * 7


KINDS = [
    None,
    TargetSpec("int64"),
    TargetSpec("float32", (2, 3)),
    {"age": TargetSpec("int64", (4,)), "it": TargetSpec("float32")},
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_targets_survives_json(kind: Any) -> None:
    class Planned:
        def state_dict(self) -> Any:
            return {"account": {"seen": 0}}

    class NoMarks:
        def before(self, sample: int) -> tuple[int, ...]:
            return (0, 0, 0, 0, 0, 0)

    state = json.loads(json.dumps(snapshot(Planned(), NoMarks(), kind)))  # type: ignore[arg-type]
    assert kind_of(state) == kind


def test_after_a_resume_the_turn_is_that_of_the_stream_behind_the_last() -> None:
    streams = PlannedInWorkers(Planner(Samples(), RECIPE), 3)
    for number in (0, 1):
        streams.arrived(BatchInfo(worker=number, state={"number": number}))
    assert streams.state_dict() == {"states": [{"number": 0}, {"number": 1}, None], "first": 2}
    streams.arrived(BatchInfo(worker=2, state={"number": 2}))
    assert streams.state_dict()["first"] == 0
