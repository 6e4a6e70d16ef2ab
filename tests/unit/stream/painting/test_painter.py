"""The painter of plans, which takes its recipe and its reader from the planner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import patchpack as pp

RECIPE = pp.Recipe(resize=pp.resize.Native(16), patch_size=4, seq_len=16, rows_per_batch=1)
IMAGE = np.zeros((16, 16, 3), dtype=np.uint8)
SAMPLES = [pp.Sample(str(number), IMAGE, number) for number in range(3)]


def plus_ten(label: int) -> int:
    return label + 10


def test_a_painter_paints_with_the_recipe_and_the_labels_of_its_planner() -> None:
    planner = pp.Planner(SAMPLES, RECIPE.replace(dtype="float32"), map_target=plus_ten)
    batches = [pp.Painter(planner)[plan] for plan in planner]
    assert [batch.targets[0, 0] for batch in batches] == [10, 11, 12]
    assert {batch.patches.dtype for batch in batches} == {np.dtype(np.float32)}


@pytest.mark.parametrize("source", [SAMPLES, "train.tar", RECIPE, None])
def test_a_painter_of_anything_but_a_planner_is_refused(source: Any) -> None:
    with pytest.raises(
        pp.errors.ConfigError, match=f"Painter takes the Planner whose plans it paints, got a {type(source).__name__}"
    ):
        pp.Painter(source)
