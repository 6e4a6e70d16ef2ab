"""The equal-quality benchmark: a run on pictures made here, going on after a stop, and its table by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

import patchpack as pp
from bench.model import fashion, navit, navit_arms, navit_table
from patchpack.types import Grid

TINY = navit_arms.Protocol(
    width=8, depth=1, heads=1, seconds=60, settings=(navit_arms.Setting(1e-2, 98), navit_arms.Setting(1e-3, 98)), seeds=(0,),
    compiled=False, points=(0.5, 1.0), enough=2.0,
)  # fmt: skip


def clock() -> Iterator[int]:
    """A second passes whenever one looks at it."""
    return count().__next__


def crops(n: int) -> fashion.Crops:
    """Upright bars of class 0, lying ones of class 1."""
    images = np.zeros((n, 28, 28), np.uint8)
    for i in range(n):
        long, short = 12 + i % 9, 6 + i % 3
        height, width = (long, short) if i % 2 == 0 else (short, long)
        images[i, 2 : 2 + height, 3 : 3 + width] = 200
    return fashion.Crops(images, np.arange(n) % 2)


@pytest.fixture(scope="module")
def data() -> fashion.Splits:
    return fashion.Splits(crops(60), crops(21), crops(22))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("navit") / "navit.jsonl"
    assert navit.restore(path, data, TINY, names=["packed"], clock=clock())[1]
    return path


def test_settings_are_tried_then_the_best_is_run(finished) -> None:
    about, *lines = map(json.loads, finished.read_text().splitlines())
    assert about["protocol"]["seconds"] == 60
    assert [(line["phase"], line["setting"]) for line in lines[:2]] == [("tune", [0.01, 98]), ("tune", [0.001, 98])]
    best = max(lines[:2], key=lambda line: line["curve"][-1][2])
    final = lines[2]
    assert (final["phase"], final["setting"], final["seed"]) == ("final", best["setting"], 0)
    assert [line["test"] is None for line in lines] == [True, True, False]
    assert 0 <= final["test"] <= 1
    assert [seconds >= when for (seconds, _, _), when in zip(final["curve"], (30, 60), strict=True)] == [True, True]
    assert lines[0]["curve"][-1][0] < final["curve"][0][0]  # a quarter of the length
    assert final["steps"] > lines[0]["steps"]
    assert 0.5 < final["fill"] <= 1
    assert 0 < final["data share"] < 1
    assert final["tokens per image"] == pytest.approx(8, abs=3)


@pytest.mark.parametrize("kept", [1, 2, 3, 3.5])
def test_a_stopped_call_goes_on(finished, data, tmp_path: Path, kept: float) -> None:
    """Whole lines stay, a line that was cut short is run again, and comes out the same."""
    whole = finished.read_text().splitlines(keepends=True)
    path = tmp_path / "navit.jsonl"
    path.write_text("".join(whole[: int(kept)]) + (whole[int(kept)][:40] if kept % 1 else ""))
    lines, done = navit.restore(path, data, TINY, names=["packed"], clock=clock())
    assert done
    assert lines == [json.loads(line) for line in whole]


def test_nothing_is_begun_when_time_is_over_or_all_is_done(finished, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(navit, "train", lambda *_: pytest.fail("a run was begun"))
    lines, done = navit.restore(tmp_path / "new.jsonl", data, TINY, names=["packed"], minutes=0)
    assert (len(lines), done) == (1, False)
    lines, done = navit.restore(finished, data, TINY, names=["packed"])
    assert (len(lines), done) == (4, True)


def test_results_of_another_protocol_are_refused(finished, data) -> None:
    other = navit_arms.Protocol(width=16)
    with pytest.raises(ValueError, match="another protocol"):
        navit.restore(finished, data, other, names=["packed"])


def test_a_new_arm_goes_on_in_an_old_file_and_a_changed_one_does_not(finished, tmp_path: Path) -> None:
    about, *lines = map(json.loads, finished.read_text().splitlines())
    path = tmp_path / "navit.jsonl"
    older = {name: arm for name, arm in about["arms"].items() if name != "area"}
    path.write_text("\n".join(map(json.dumps, [{**about, "arms": older}, *lines])))
    assert navit.read(path, TINY) == [about, *lines]
    path.write_text(json.dumps({**about, "arms": {**older, "packed": "another"}}))
    with pytest.raises(ValueError, match="other arms"):
        navit.read(path, TINY)


def test_finals_come_seed_after_seed() -> None:
    protocol = navit_arms.Protocol(settings=(navit_arms.Setting(1.0, 98),), seeds=(0, 1))  # nothing to try
    runs = list(navit.todo([], protocol, ["square", "drop"]))
    assert [(run.arm, run.seed) for run in runs] == [("square", 0), ("drop", 0), ("square", 1), ("drop", 1)]


def test_a_run_ends_when_it_is_good_enough(data) -> None:
    protocol = dataclasses.replace(TINY, points=(0.1, 0.2, 0.6, 1.0), enough=0.0)
    line = navit.train(navit_arms.Run("final", "packed", TINY.settings[0], 0), data, protocol, clock())
    assert [seconds for seconds, _, _ in line["curve"]] == [pytest.approx(6, abs=4)]
    assert line["test"] is not None


@pytest.mark.parametrize("name", list(navit_arms.arms()))
def test_every_arm_trains(name: str, data) -> None:
    line = navit.train(navit_arms.Run("final", name, navit_arms.Setting(1e-2, 98), 0), data, TINY, clock())
    alone = navit_arms.arms()[name].max_images == 1
    assert line["steps"] * 2 == line["curve"][-1][1] if alone else line["curve"][-1][1] > line["steps"] * 2
    assert (line["tokens per image"] == 49) == (name == "square")


def test_the_pace_is_time_per_image(data) -> None:
    runs = [navit_arms.Run("final", name, navit_arms.Setting(1e-2, 98), 0) for name in ("square", "drop")]
    square, drop = navit.pace(runs, data, TINY, rounds=3, steps=2, clock=clock())
    # a step of two squares looks at the clock twice, and each two steps once more: five seconds for four images
    assert square["ms"] == [1250, 1250, 1250]
    assert drop["ms"][0] <= drop["ms"][1] <= drop["ms"][2] < 1250
    assert [line["arm"] for line in (square, drop)] == ["square", "drop"]


def test_one_image_per_row_in_the_arms_to_beat_and_none_dropped_in_evaluation() -> None:
    recipes = navit_arms.arms()
    assert [name for name, recipe in recipes.items() if recipe.max_images == 1] == ["square", "padded"]
    assert [name for name, recipe in recipes.items() if recipe.drop != pp.drop.NoDrop()] == ["drop"]
    assert all(recipe.for_eval().drop == pp.drop.NoDrop() for recipe in recipes.values())


def test_positions_are_places_in_the_image() -> None:
    assert np.array_equal(navit_arms.Lattice()(Grid(7, 7)), pp.positions.Absolute()(Grid(7, 7)))
    assert navit_arms.Lattice()(Grid(2, 3)).tolist() == [[1, 1], [1, 3], [1, 5], [5, 1], [5, 3], [5, 5]]
    assert navit_arms.Lattice()(Grid(14, 1))[:, 0].tolist() == [i // 2 for i in range(14)]


def test_weights_are_averaged_with_polynomial_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=navit._towards)
    expected = 0.0
    for step, value in enumerate((3.0, -1.0, 2.5, 7.0), start=1):
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        expected += 9 / (step + 8) * (value - expected)
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)


CURVE = [(10.0, 100, 0.80), (20.0, 200, 0.84), (40.0, 400, 0.88), (80.0, 800, 0.87)]


@pytest.mark.parametrize(
    ("target", "cost"),
    [
        (0.7, (10, 100)), (0.80, (10, 100)), (0.82, (15, 150)), (0.84, (20, 200)), (0.87, (35, 350)), (0.88, (40, 400)),
        (0.9, None),
    ],
)  # fmt: skip
def test_the_cost_of_a_target_by_hand(target: float, cost: tuple[float, float] | None) -> None:
    found = navit_table.cost_to(CURVE, target)
    assert found is None if cost is None else found == pytest.approx(cost)


def final(arm: str, seed: int, times: float, **changes: object) -> navit_table.Record:
    line = {
        "phase": "final", "arm": arm, "setting": [0.001, 98], "seed": seed, "test": 0.86 + seed / 100,
        "curve": [(times * seconds, images, accuracy) for seconds, images, accuracy in CURVE],
        "images/s": 100.0, "tokens per image": 49.0, "fill": 1.0, "data share": 0.1,
    }  # fmt: skip
    return {**line, **changes}


def test_the_table_by_hand() -> None:
    lines = [
        {"phase": "about"}, final("square", 0, 2.0), final("square", 1, 3.0), final("packed", 0, 1.0), final("packed", 1, 1.0),
        final("drop", 0, 1.0), final("drop", 1, 1.0, curve=CURVE[:2]), {"phase": "tune", "arm": "square"},
        {"phase": "pace", "arm": "square", "ms": [1.9, 2.0, 2.2]}, {"phase": "pace", "arm": "packed", "ms": [1.2, 1.25, 1.3]},
    ]  # fmt: skip
    rows = navit_table.table(lines, targets=(0.82, 0.88))
    assert list(rows) == ["square", "packed", "drop"]
    # 30 and 45 s; 80 and 120 s; standard deviations |a - b| / sqrt(2)
    assert rows["square"]["seconds to"] == {0.82: [37.5, 10.6], 0.88: [100.0, 28.3]}
    assert rows["packed"]["seconds to"] == {0.82: [15.0, 0.0], 0.88: [40.0, 0.0]}
    assert rows["drop"]["seconds to"] == {0.82: [15.0, 0.0], 0.88: None}  # one of two never
    assert rows["drop"]["images to"] == {0.82: [150.0, 0.0], 0.88: None}
    assert rows["square"]["times"][0.82][0] == 1
    assert rows["packed"]["times"] == {0.82: [2.5, 0.71], 0.88: [2.5, 0.71]}
    assert rows["drop"]["times"][0.88] is None
    assert rows["packed"]["times in turns"] == {0.82: [1.6, 0.0], 0.88: [1.6, 0.0]}  # equal images, 2 ms over 1.25
    assert rows["drop"]["times in turns"] == {0.82: None, 0.88: None}  # never run in turns
    assert rows["square"]["test %"] == [86.5, 0.71]


def test_table_and_plot_are_made_of_any_file(finished, capsys, tmp_path: Path) -> None:
    lines = navit.read(finished, TINY)
    navit_table.show(lines, navit_table.table(lines))
    printed = capsys.readouterr().out
    assert "| packed |" in printed
    assert "tried for packed:" in printed
    navit_table.plot(lines, tmp_path / "plots" / "navit.png", linear=0.8367)
    assert (tmp_path / "plots" / "navit.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_whole_command_and_again(finished, data, tmp_path: Path, capsys, monkeypatch) -> None:
    results, image = tmp_path / "r.jsonl", tmp_path / "r.png"
    results.write_text(finished.read_text())
    monkeypatch.setattr(navit, "Protocol", lambda seconds: TINY)
    monkeypatch.setattr(navit.Protocol, "seconds", 60, raising=False)
    monkeypatch.setattr(fashion, "splits", lambda folder: data)
    for _ in range(2):
        navit.main(["--results", str(results), "--plot", str(image), "--arms", "packed"])
        assert "all runs are done" in capsys.readouterr().out
    phases = [json.loads(line)["phase"] for line in results.read_text().splitlines()]
    assert phases == ["about", "tune", "tune", "final", "linear", "pace"]
    assert image.exists()


def test_a_missing_folder_says_how_to_install(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="apt-get install"):
        navit.main(["--data", str(tmp_path), "--results", str(tmp_path / "r.jsonl")])
