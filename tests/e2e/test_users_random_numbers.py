"""Random numbers that a user's dataset draws in workers: others for every seed, epoch, rank and worker."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import patchpack as pp

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(1), patch_size=16, seq_len=1, rows_per_batch=1, max_images=1)
COUNT = 8
DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002  as users write it
    "random": random.random,
}


class Drawing(Dataset[Any]):
    """Labels are random numbers, as a random crop or a choice among captions would draw them."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> Any:
        return np.zeros((16, 16, 3), np.uint8), self.draw()


def drawn(loader: pp.Loader) -> list[float]:
    return [float(image.target) for batch in loader for image in pp.unpack(batch)]


def load(draw: str, *, seed: int = 0, rank: int = 0, planned: bool = False, **options: Any) -> pp.Loader:
    sizes = None if planned else [(16, 16)] * COUNT
    options = {"num_workers": 1, **options, "dataloader": {"multiprocessing_context": "fork", **options.get("dataloader", {})}}
    place = {"rank": rank, "world_size": 2, "steps_per_epoch": 4}
    return pp.load(Drawing(DRAWS[draw]), RECIPE.replace(seed=seed), sizes=sizes, **place, **options)


@pytest.mark.parametrize("planned", [False, True], ids=["painted in workers", "planned in workers"])
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_depend_on_seed_epoch_and_rank_and_on_nothing_else(draw: str, planned: bool) -> None:
    """They were the same on every rank, in every run, for every seed."""
    here = drawn(load(draw, planned=planned))
    assert len(set(here)) == 4
    torch.manual_seed(123)
    random.seed(123)
    assert drawn(load(draw, planned=planned)) == here
    assert not set(drawn(load(draw, planned=planned, seed=5))) & set(here)
    assert not set(drawn(load(draw, planned=planned, rank=1))) & set(here)
    assert not set(drawn(load(draw, planned=planned, epoch=1))) & set(here)


@pytest.mark.parametrize("planned", [False, True], ids=["painted in workers", "planned in workers"])
def test_workers_that_outlive_an_epoch_draw_as_new_ones_do(planned: bool) -> None:
    loader = load("numpy", planned=planned, dataloader={"persistent_workers": True})
    first = drawn(loader)
    loader.set_epoch(1)
    assert drawn(loader) == drawn(load("numpy", planned=planned, epoch=1)) != first


def test_two_workers_draw_different_numbers() -> None:
    assert len(set(drawn(load("numpy", num_workers=2)))) == 4


def test_a_generator_of_the_users_seeds_in_torchs_way() -> None:
    def run(seed: int) -> list[float]:
        return drawn(load("torch", dataloader={"generator": torch.Generator().manual_seed(seed)}))

    assert run(1) == run(1) != run(2)


def test_a_start_of_the_users_may_seed_once_for_all_epochs() -> None:
    loader = load("random", dataloader={"worker_init_fn": lambda worker: random.seed(worker), "persistent_workers": True})
    numbers = random.Random(0)
    expected = [numbers.random() for _ in range(8)]
    found = drawn(loader)
    loader.set_epoch(1)
    torch.testing.assert_close(found + drawn(loader), expected)


def test_the_parents_generators_stay_untouched() -> None:
    """But for what the dataset itself draws where the first label is looked at, in the parent: here, from `random`."""
    torch.manual_seed(7)
    states = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    drawn(load("random"))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
