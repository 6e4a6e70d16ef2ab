"""The bench of positions on forty pictures made here: what it compares, goes on from and reports, never how well."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import patchpack as pp
from bench import results
from bench.model import fashion, positions, positions_plot

KIND = "fractional, sum"


def crops(n: int, seed: int) -> fashion.Crops:
    """Bright bars that stand in class 0 and lie in class 1."""
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = draws.integers(0, fashion.THRESHOLD + 1, (n, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        long, short = draws.integers(14, 24), draws.integers(4, 10)
        height, width = (long, short) if label == 0 else (short, long)
        image[2 : 2 + height, 3 : 3 + width] = 200
    return fashion.Crops(images, labels)


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = fashion.Splits(crops(40, 0), crops(8, 1), crops(12, 2))
    monkeypatch.setattr(fashion, "splits", lambda folder: data)


def call(out: Path, *more: str) -> None:
    positions.main(["--out", str(out), "--train", "30", "--test", "10", "--kinds", KIND, *more])


def test_the_conditions_show_what_they_say() -> None:
    trained, combinations, sizes = positions.CONDITIONS.values()
    assert len(trained) == 15
    assert all(12 <= rows * cols <= 24 for rows, cols in trained)
    assert not {*trained} & {*combinations}
    assert not {*trained} & {*sizes}
    for axis in (0, 1):
        longest = max(grid[axis] for grid in trained)
        assert {grid[axis] for grid in combinations} <= {grid[axis] for grid in trained}
        assert min(grid[axis] for grid in sizes) > longest
    assert max(max(grid) for grid in sizes) == positions.MAX_LEN


def test_every_grid_is_given_to_some_picture() -> None:
    policy = positions.OneOf(positions.TRAINED)
    assert isinstance(policy, pp.resize.ResizePolicy)
    u = (np.arange(15)[:, None] + 0.5) / 15
    assert [tuple(grid) for grid in policy(np.ones((15, 2)), 2, u).tolist()] == list(positions.TRAINED)
    assert policy.bound(2) == 24


@pytest.mark.parametrize("kind", positions.KINDS.values(), ids=positions.KINDS)
def test_every_kind_takes_a_batch_of_every_condition(kind: positions.Kind) -> None:
    model, pictures = positions.build(kind, seed=0), crops(6, 3)
    for grids in positions.CONDITIONS.values():
        for batch in pp.load(pictures, positions.recipe(grids, kind, positions.Settings()), sizes=pictures.sizes):
            assert model(batch)[batch.slot_mask].isfinite().all()


def test_all_but_the_positions_starts_the_same() -> None:
    states = [positions.build(kind, seed=1).state_dict() for kind in positions.KINDS.values()]
    for state in states[1:]:
        rest = {name: values for name, values in state.items() if not name.startswith("positions.")}
        assert rest.keys() == states[0].keys()
        assert all(torch.equal(values, states[0][name]) for name, values in rest.items())


def test_pictures_and_grids_are_the_same_for_every_kind() -> None:
    pictures = crops(20, 4)
    plans = [
        positions.recipe(positions.TRAINED, positions.KINDS[name], positions.Settings(), seed=5) for name in ("none", KIND)
    ]
    one, other = (next(iter(pp.load(pictures, plan, sizes=pictures.sizes, shuffle=1))) for plan in plans)
    assert torch.equal(one.patches, other.patches)
    assert torch.equal(one.grid_sizes, other.grid_sizes)
    assert not torch.equal(one.position_ids, other.position_ids)


def test_a_run_is_a_line_and_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs.jsonl"
    call(out, "--minutes", "0")
    assert "0 runs, 3 to come" in capsys.readouterr().out
    assert not out.exists()

    call(out, "--seeds", "1")
    first = out.read_text()
    line = json.loads(first)
    assert (line["kind"], line["seed"], line["settings"]["train"]) == (KIND, 0, 30)
    assert line["accuracy"].keys() == positions.CONDITIONS.keys()
    assert line["parameters of positions"] == 2 * positions.MAX_LEN * positions.WIDTH
    assert "1 runs, 0 to come" in capsys.readouterr().out

    out.write_text(first + first[:40])  # killed while it wrote
    call(out, "--seeds", "2")
    assert out.read_text().startswith(first + first[:40] + "\n")
    assert [run["seed"] for run in results.read(out, settings=asdict(positions.Settings(train=30, test=10)))] == [0, 1]
    assert results.read(out, settings=asdict(positions.Settings(train=31, test=10))) == []
    assert "2 runs, 0 to come" in capsys.readouterr().out


def test_a_run_repeats_itself(tmp_path: Path) -> None:
    data = fashion.splits(tmp_path)
    one, other = (positions.run(KIND, 3, data, positions.Settings(train=30, test=10)) for _ in range(2))
    assert {**one, "cpu s": 0} == {**other, "cpu s": 0}


def line_of(kind: str, seed: int, *accuracies: float) -> dict[str, object]:
    return {
        "kind": kind, "seed": seed, "accuracy": dict(zip(positions.CONDITIONS, accuracies, strict=True)),
        "parameters of positions": 1536,
    }  # fmt: skip


LINES = [line_of("none", 0, 0.5, 0.4, 0.3), line_of(KIND, 0, 0.8, 0.7, 0.6), line_of(KIND, 1, 0.9, 0.7, 0.2)]


def test_the_table_by_hand() -> None:
    assert positions.table(LINES).splitlines() == [
        "| positions | parameters | trained | combinations | sizes |",
        "|---|---|---|---|---|",
        "| none | 1,536 | 50.0 (50.0–50.0) | 40.0 (40.0–40.0) | 30.0 (30.0–30.0) |",
        f"| {KIND} | 1,536 | 85.0 (80.0–90.0) | 70.0 (70.0–70.0) | 40.0 (20.0–60.0) |",
    ]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure_names_every_kind(tmp_path: Path, suffix: str) -> None:
    draw = partial(positions_plot.draw, positions.summary(LINES), positions.GROUPS, positions.TITLES)
    path = draw(tmp_path / f"made/figure{suffix}")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert all(text in data.decode() for text in ("none", KIND, "unseen sizes"))
