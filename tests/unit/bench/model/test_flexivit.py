"""The bench of flexible patch sizes on forty pictures made here: what it compares, goes on from and reports, never how well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import patchpack as pp
from bench import results
from bench.model import fashion, flexivit, flexivit_table
from patchpack.model import ViT

SETTINGS = flexivit.Settings(width=16, depth=1, mlp_dim=16, budget=6000, rows=8)
SMALL = ["--width", "16", "--depth", "1", "--mlp-dim", "16", "--budget", "6000", "--rows", "8"]


def crops(n: int, seed: int) -> fashion.Crops:
    """Bright bars that stand in class 0 and lie in class 1."""
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = np.zeros((n, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        long, short = draws.integers(14, 24), draws.integers(4, 10)
        height, width = (long, short) if label == 0 else (short, long)
        image[2 : 2 + height, 3 : 3 + width] = draws.integers(100, 255, (height, width))
    return fashion.Crops(images, labels)


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = fashion.Splits(crops(40, 0), crops(8, 1), crops(12, 2))
    monkeypatch.setattr(fashion, "splits", lambda folder: data)


@pytest.fixture(scope="module")
def pictures() -> flexivit.Pictures:
    return flexivit.painted(crops(40, 0))


@pytest.mark.parametrize("size", flexivit.SIZES)
def test_pictures_cut_again_are_what_the_loader_paints(pictures: flexivit.Pictures, size: int) -> None:
    source, recipe = crops(40, 0), flexivit.recipe_of((size,), rows=7)
    batches = flexivit.Drawn(pictures, recipe)
    count = 0
    for mine, loaded in zip(batches, pp.load(source, recipe, sizes=source.sizes), strict=True):
        pp.validate(mine)
        assert mine.keys == loaded.keys
        assert (mine.patch_size, mine.segment_ids.shape[1]) == (size, flexivit.TOKENS[size])
        for name in ("patches", "position_ids", "segment_ids", "grid_sizes", "targets", "norm"):
            assert torch.equal(getattr(mine, name), getattr(loaded, name)), name
        count += len(mine.keys)
    assert count == 40


def test_batches_are_whole_passes_of_drawn_sizes(pictures: flexivit.Pictures) -> None:
    recipe = flexivit.recipe_of(flexivit.SIZES, rows=8, seed=3)
    batches = flexivit.Drawn(pictures, recipe, steps=20)  # four passes of five batches
    batches.set_epoch(1)
    seen = list(batches)
    assert [batch.patch_size for batch in seen] == [recipe.patch_size_at(1, step) for step in range(20)]
    assert {batch.patch_size for batch in seen} == {*flexivit.SIZES}
    passes = [[keys[0] for batch in seen[k : k + 5] for keys in batch.keys] for k in range(0, 20, 5)]
    assert all(sorted(map(int, one)) == list(range(40)) for one in passes)
    assert passes[0] != passes[1]
    for batch in seen:
        assert all(batch.targets[row, 0] == int(key) % 2 for row, (key,) in enumerate(batch.keys))


def test_a_teacher_is_remembered(pictures: flexivit.Pictures) -> None:
    teacher = flexivit.build(flexivit.TEACHER, SETTINGS, seed=1).eval()
    (asked,) = flexivit.Drawn(pictures, flexivit.recipe_of((teacher.patch_size,), rows=40))
    other = next(iter(flexivit.Drawn(pictures, flexivit.recipe_of((4,), 8, seed=2), steps=1)))
    with torch.no_grad():
        answers, remembered = teacher(asked), flexivit.Remembered(teacher, pictures)(other)
    assert torch.allclose(remembered, answers[[int(key) for (key,) in other.keys]], atol=1e-5)


def test_arms_differ_in_what_they_say(pictures: flexivit.Pictures) -> None:
    teacher = flexivit.build(flexivit.TEACHER, SETTINGS, seed=1)
    block, before = "blocks.0.qkv.weight", {k: v.clone() for k, v in teacher.state_dict().items()}
    models = {}
    for name, arm in flexivit.ARMS.items():
        model, took = flexivit.train(name, pictures, SETTINGS, 0, teacher)
        per_step = took["tokens"] / took["steps"]
        if len(arm.sizes) == 1:
            assert per_step == 8 * flexivit.TOKENS[arm.sizes[0]]
        tokens = 8 * sum(flexivit.TOKENS[p] for p in arm.sizes) / len(arm.sizes)
        assert took["steps"] == round(arm.share * 6000 / (tokens + flexivit.STEP))
        models[name] = model
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    away = {name: float((models[name].state_dict()[block] - before[block]).norm()) for name in flexivit.FLEXIBLE}
    assert away["start + KL"] < away["KL"] / 2
    assert not torch.equal(models["KL"].head.weight, models["labels"].head.weight)


def test_all_sizes_get_the_same_time() -> None:
    rows, drawn = flexivit.Settings().rows, flexivit.DRAWN
    times = [drawn.count(p) * (rows * flexivit.TOKENS[p] + flexivit.STEP) for p in flexivit.SIZES]
    assert max(times) < 1.12 * min(times)


def call(out: Path, *more: str) -> None:
    flexivit.main(["--out", str(out), *SMALL, *more])


def test_a_run_is_a_line_and_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs.jsonl"
    call(out, "--minutes", "0")
    assert "0 runs, 16 to come" in capsys.readouterr().out
    assert not out.exists()

    call(out, "--seeds", "1", "--arms", "patch 12")
    first = out.read_text()
    line = json.loads(first)
    assert (line["arm"], line["seed"], line["split"]) == ("patch 12", 0, "test")
    assert line["accuracy"].keys() == {"4", "6", "8", "12"}
    assert line["plain"].keys() == {"4", "6", "8"}
    assert (tmp_path / "runs-teacher-0.pt").exists()

    out.write_text(first + first[:40])  # killed while it wrote
    call(out, "--seeds", "1", "--arms", "patch 12", "start + KL")
    assert out.read_text().startswith(first + first[:40] + "\n")
    lines = results.read(out, settings=asdict(SETTINGS), split="test")
    assert [run["arm"] for run in lines] == ["patch 12", "start + KL"]
    assert lines[1]["plain"] == {}
    assert results.read(out, settings=asdict(SETTINGS), split="validation") == []
    assert results.read(out, settings=asdict(flexivit.Settings()), split="test") == []
    assert "2 runs, 0 to come" in capsys.readouterr().out


def test_a_lost_teacher_is_trained_again_and_is_the_same(tmp_path: Path) -> None:
    work = flexivit.Work(tmp_path, "test", tmp_path / "runs.jsonl", SETTINGS)
    first, kept = work.teacher(0), work.teacher(0)
    (tmp_path / "runs-teacher-0.pt").unlink()
    again = work.teacher(0)

    def weights(model: ViT) -> Iterator[torch.Tensor]:
        return iter(model.state_dict().values())

    for other in (kept, again):
        assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def line_of(arm: str, seed: int, *accuracies: float) -> dict[str, object]:
    by_size = dict(zip(map(str, flexivit.SIZES), accuracies, strict=True))
    return {
        "arm": arm, "seed": seed, "accuracy": by_size, "plain": {"6": 0.125} if arm == "patch 4" else {},
        "ms per image": {"4": 0.4, "6": 0.2, "8": 0.1, "12": 0.05}, "steps": 7,
        "cpu s": {"teacher's answers": 5.0, "training": 50.0, "asking": 5.0},
    }  # fmt: skip


LINES = [
    line_of("patch 4", 0, 0.9, 0.4, 0.3, 0.1), line_of("patch 4", 1, 0.8, 0.5, 0.3, 0.1),
    line_of("start + KL", 0, 0.88, 0.8, 0.8, 0.8), line_of("start + KL", 1, 0.81, 0.8, 0.8, 0.7),
]  # fmt: skip


def test_the_tables_by_hand() -> None:
    assert flexivit_table.accuracies(LINES, list(flexivit.ARMS), flexivit.SIZES).splitlines() == [
        "| trained / asked at | 4 | 6 | 8 | 12 |",
        "| --- | --- | --- | --- | --- |",
        "| patch 4 | 85.0 (80.0–90.0) | 45.0 (40.0–50.0) | 30.0 (30.0–30.0) | 10.0 (10.0–10.0) |",
        "| patch 4, plain |  | 12.5 (12.5–12.5) |  |  |",
        "| start + KL | 84.5 (81.0–88.0) | 80.0 (80.0–80.0) | 80.0 (80.0–80.0) | 75.0 (70.0–80.0) |",
    ]
    assert flexivit_table.distances(LINES, flexivit.FIXED, list(flexivit.FLEXIBLE)).splitlines()[2:] == [
        "| start + KL | -0.5 (-2.0 … +1.0) |  |  |  |"
    ]
    costs = flexivit_table.costs(LINES, list(flexivit.ARMS), flexivit.SIZES).splitlines()
    assert costs[2] == "| patch 4 | 55 | 7 | 0.400 | 0.200 | 0.100 | 0.050 |"
    assert costs[-1] == "4.0 CPU minutes in all, without painting"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure_names_every_arm(tmp_path: Path, suffix: str) -> None:
    lines = [line_of(arm, seed, 0.9, 0.8, 0.7, 0.6 + seed / 10) for arm in flexivit.ARMS for seed in (0, 1)]
    path = flexivit_table.draw(lines, flexivit.FIXED, list(flexivit.FLEXIBLE), tmp_path / f"made/figure{suffix}")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert all(text in data.decode() for text in ("fixed at 4", "kernel resized plainly", "flexible, start + KL"))
