"""The kind of the labels of a source: that of its first readable label, whatever the order in which it is read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from patchpack.stream.painting.planned_in_workers import PlannedInWorkers
from patchpack.stream.planning.planner import Planner
from patchpack.types import TargetSpec

RECIPE = pp.Recipe(resize=pp.resize.Native(16), patch_size=4, seq_len=16, rows_per_batch=1)
IMAGE = np.zeros((16, 16, 3), dtype=np.uint8)
INT, FLOAT = TargetSpec("int64"), TargetSpec("float32")


class Labels:
    """A dataset of labels: the first one is a float."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels, self.read = labels, 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Any:
        self.read += 1
        return IMAGE, self.labels[number]


MIXED = [0.5, *range(1, 12)]


def kinds(planner: Any) -> set[Any]:
    return {plan.target_kind for plan in planner}


@pytest.mark.parametrize("epoch", range(4))
@pytest.mark.parametrize("rank", [0, 1])
def test_no_shuffle_and_no_rank_changes_the_kind(epoch: int, rank: int) -> None:
    planner = Planner(Labels(MIXED), RECIPE, shuffle=8, epoch=epoch, rank=rank, world_size=2)
    assert kinds(planner) == {FLOAT}


def test_no_worker_changes_the_kind() -> None:
    planner = Planner(Labels(MIXED), RECIPE)
    streams = PlannedInWorkers(planner, 2)
    for number in range(2):
        assert {plan.target_kind for plan, _ in streams._planner.stream(number, 2)} == {FLOAT}


def test_the_kind_is_looked_for_once() -> None:
    dataset = Labels(MIXED)
    planner = Planner(dataset, RECIPE, sizes=[(16, 16)] * 12, shuffle=8)
    for _ in range(3):
        list(planner)
    assert dataset.read == 1


def test_looking_for_the_kind_draws_no_random_numbers() -> None:
    class Drawing(Labels):
        def __getitem__(self, number: int) -> Any:
            return IMAGE, random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    wanted = Drawing(MIXED)[0][1]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    planner = Planner(Drawing(MIXED), RECIPE, shuffle=8)
    (first,) = next(iter(planner)).headers
    assert first.location.target == wanted


def test_a_label_that_cannot_be_read_has_no_kind(tmp_path: Path) -> None:
    for number, label in enumerate(["x", "1", "2"]):
        Image.fromarray(IMAGE).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.cls").write_text(label)
    assert kinds(Planner(tmp_path, RECIPE, target="cls", shuffle=4)) == {INT}


def test_the_search_ends_after_too_many_in_a_row() -> None:
    dataset = Labels([{1: 1}] * 300 + [1])
    planner = Planner(dataset, RECIPE, sizes=[(16, 16)] * 301, shuffle=8, max_in_a_row=10)
    next(iter(planner))
    assert dataset.read <= 400


def test_a_resumed_run_keeps_the_kind_of_its_state() -> None:
    planner = Planner(Labels(MIXED), RECIPE)
    next(iter(planner))
    state = planner.state_dict(1)
    again = Planner(Labels(list(range(12))), RECIPE)
    again.load_state_dict(state)
    assert kinds(again) == {FLOAT}
