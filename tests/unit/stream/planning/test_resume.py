"""What a state of an epoch brings back, one field at a time: e2e/test_resume.py has whole epochs."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.standin import of_sizes
from patchpack.batch_info import BatchInfo
from patchpack.stream.painting.planned_in_workers import PlannedInWorkers
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.stream.planning.planner import Planner
from patchpack.stream.planning.resume import kind_of, snapshot
from patchpack.stream.sources.inline import InlineReader
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
    TargetSpec("object", (), True),
    {"age": TargetSpec("int64", (), True), "it": TargetSpec("object", (), True)},
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


# ------------------------------------------------------------------------------- what is read must be what was read before


def first_label(label: Any) -> Any:
    return label


def other_label(label: Any) -> Any:
    return label


def as_sample(number: int, item: Any) -> pp.Sample:
    return pp.Sample(str(number), IMAGE, number)


def other_sample(number: int, item: Any) -> pp.Sample:
    return pp.Sample(str(number), IMAGE, number + 1)


class Rows:
    """Four rows with two images and two labels."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"a": IMAGE, "b": IMAGE, "x": number, "y": number + 1}


ROWS = [Rows()[number] for number in range(4)]
READING = {"image": "a", "target": "x"}


@pytest.mark.parametrize("source", [Rows(), ROWS], ids=["dataset", "iterable"])
@pytest.mark.parametrize(
    ("saved", "now", "said"),
    [
        (READING, READING | {"target": "y"}, "target differs: the state was saved with x, this loader has y"),
        (READING, READING | {"target": ["x", "y"]}, "target differs: the state was saved with x, this loader has "),
        (READING, READING | {"target": None}, "target differs: the state was saved with x, this loader has None"),
        (READING, READING | {"image": "b"}, "image differs"),
        (READING, READING | {"map_target": first_label}, "map_target differs: the state was saved with None, this loader has"),
        (READING | {"map_target": first_label}, READING | {"map_target": other_label}, "map_target differs"),
        ({"to_sample": as_sample}, {"to_sample": other_sample}, "to_sample differs: the state was saved with as_sample, this"),
    ],
    ids=["target", "targets", "no target", "image", "map_target", "other map_target", "to_sample"],
)  # fmt: skip
def test_a_state_of_other_fields_is_refused(source: Any, saved: dict[str, Any], now: dict[str, Any], said: str) -> None:
    loader = pp.load(source, RECIPE, **saved)
    next(iter(loader))
    state = json.loads(json.dumps(loader.state_dict()))
    pp.load(source, RECIPE, **saved).load_state_dict(state)
    with pytest.raises(pp.errors.ConfigError, match=said):
        pp.load(source, RECIPE, **now).load_state_dict(state)
    if source is ROWS:
        stage = pp.Pack(RECIPE, resumable=True, **saved)
        stage.delivered(next(iter(stage(source))))
        with pytest.raises(pp.errors.ConfigError, match=said):
            pp.Pack(RECIPE, resumable=True, **now).load_state_dict(json.loads(json.dumps(stage.state_dict())))


CLIPS = pp.Recipe(
    resize=pp.resize.Native(16), patch_size=4, seq_len=64, rows_per_batch=1, video=pp.Video(num_frames=2, tubelet=1),
)  # fmt: skip


def test_a_state_of_other_frames_is_refused() -> None:
    rows = [{"__key__": str(n), "a.npy": IMAGE, "1.png": IMAGE, "2.png": IMAGE, "cls": n} for n in range(4)]
    loader = pp.load(rows, CLIPS, frames="1.png")
    next(iter(loader))
    with pytest.raises(pp.errors.ConfigError, match="frames differs"):
        pp.load(rows, CLIPS, frames="2.png").load_state_dict(loader.state_dict())


def test_a_state_of_a_folder_whose_labels_were_its_classes_is_refused_for_labels_beside(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.cls").write_text("3")
    loader = pp.load(tmp_path, RECIPE)
    next(iter(loader))
    with pytest.raises(
        pp.errors.ConfigError, match=r"target differs: the state was saved with \['class folder'\], this loader"
    ):
        pp.load(tmp_path, RECIPE, target="cls").load_state_dict(loader.state_dict())


class Labels(InlineReader):
    """A reader of an index without pixels: every label is 1."""

    def target(self, location: Any) -> Any:
        return 1


def test_a_state_of_an_index_with_another_map_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    index = of_sizes([(16, 16)] * 8)
    monkeypatch.setattr(index, "reader", Labels())
    state = pp.load(index, RECIPE, map_target=first_label).state_dict()
    pp.load(index, RECIPE, map_target=functools.partial(first_label)).load_state_dict(state)
    with pytest.raises(
        pp.errors.ConfigError, match="map_target differs: the state was saved with first_label, this loader has"
    ):
        pp.load(index, RECIPE, map_target=other_label).load_state_dict(state)


def test_a_state_of_another_tokenizer_is_refused() -> None:
    rows = [{"image": IMAGE, "label": 1, "text": "a"}] * 2
    loader = pp.load(rows, RECIPE, tokenize=lambda text: [1], text_len=4)
    state = loader.state_dict()
    with pytest.raises(pp.errors.ConfigError, match="tokenize differs"):
        pp.load(rows, RECIPE, tokenize=len, text_len=4).load_state_dict(state)


def test_a_state_of_an_earlier_version_is_refused_by_its_number() -> None:
    loader = pp.load(Rows(), RECIPE, **READING)
    state = loader.state_dict()
    with pytest.raises(pp.errors.ConfigError, match="the state has version 5, this loader reads version 6"):
        loader.load_state_dict(state | {"state": 5})


@pytest.mark.parametrize("source", [Rows(), of_sizes([(16, 16)] * 8)], ids=["dataset", "index"])
def test_a_state_of_numpys_numbers_is_json(source: Any) -> None:
    options = {"epoch": np.int64(3), "steps_per_epoch": np.int64(2), "rank": np.int64(0), "world_size": np.int64(1)}
    names = READING if isinstance(source, Rows) else {}
    planner = Planner(source, RECIPE, shuffle=np.int64(4), seen=np.int64(5), **names, **options)
    state = json.loads(json.dumps(planner.state_dict()))
    assert (state["epoch"], state["seen"]) == (3, 5)
    planner.set_epoch(np.int64(4))
    assert json.loads(json.dumps(planner.state_dict()))["epoch"] == 4
