"""The figure of a survey."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.drawn import assert_drawn
from patchpack.cli.pictures.survey import draw_survey
from patchpack.cli.survey.images import Survey
from patchpack.cli.survey.suggestion import suggest
from patchpack.losses import ShardFault


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_many_images_are_drawn_as_a_density(spread: float, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes = (400 * np.exp(spread * np.random.default_rng(0).normal(size=(3000, 2)))).clip(1, 30_000).astype(np.int64)
    kinds = Counter({"JPEG": 3000}), Counter({"RGB": 3000})
    found = Survey(sizes, [str(i) for i in range(3000)], *kinds, [], [ShardFault("a.tar", "ends early")], False)
    assert_drawn(draw_survey(found, suggest(found, labelled=True), "x" * 300, tmp_path / "many.png"))
