"""Combinations of row lengths and slots, and the recommended one."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

import patchpack as pp
from patchpack.cli.survey.choice import recommend
from patchpack.plan.study import Study, study

HW = np.random.default_rng(0).integers(100, 700, (400, 2))


def studies(**slots: int) -> dict[str, Study]:
    return {name: study(HW, pp.recipes.navit(seq_len=int(name[1:]), max_images=n)) for name, n in slots.items()}


def test_rows_that_run_out_of_slots_are_not_recommended() -> None:
    made = studies(s512=4, s1024=64)
    choice = recommend([*made.values()])
    assert choice.study is made["s1024"]
    assert "for which 64 slots are enough" in choice.reason


def test_a_few_rows_without_slots_are_enough_to_look_on() -> None:
    made = studies(s512=64, s1024=64)
    for share, best in ((0.01, "s512"), (0.02, "s1024")):
        short = replace(made["s512"], out_of_slots=share)
        assert recommend([short, made["s1024"]]).study.recipe.seq_len == int(best[1:])


def test_where_slots_bind_everywhere_the_reason_says_how_many_would_do() -> None:
    choice = recommend([*studies(s512=4, s2048=8).values()])
    slots = re.search(r"run out of their \d+ slots: try --max-images (\d+)", choice.reason)
    assert slots
    seq_len = choice.study.recipe.seq_len
    assert study(HW, pp.recipes.navit(seq_len=seq_len, max_images=int(slots[1]))).out_of_slots <= 0.01


def test_shorter_rows_win_only_when_they_are_near_full() -> None:
    wide = np.array([[256, 240]] * 100)  # 240 tokens
    recipe = pp.Recipe(resize=pp.resize.Native(240), seq_len=1200)
    short, exact = (study(wide, recipe.replace(seq_len=n)) for n in (1000, 1200))
    assert recommend([short, exact]).study is exact  # 96 % against 100 %
    assert recommend([exact, study(wide, recipe.replace(seq_len=1201))]).study is exact
    assert "the shortest within half a point" not in recommend([short, exact]).reason
    few = study(wide, recipe.replace(seq_len=240))  # full, but one image in a row
    assert recommend([few, exact]).study is exact
    assert "at least 4 images a row" not in recommend([few, exact]).reason  # the fullest needs no such excuse
    longer = study(wide, recipe.replace(seq_len=2400))
    assert (
        "the fullest (100.0 %) of those with at least 4 images a row"
        in recommend([few, replace(exact, steady_fill_rate=0.999), longer]).reason
    )
    assert "; 5 images in a row, for which 64 slots are enough; 95 % of images wait for" in recommend([exact]).reason
    assert "one image in a row" not in recommend([few]).reason
    assert "which is few" in recommend([few]).reason


def test_fewer_slots_win_where_they_are_enough() -> None:
    made = [study(HW, pp.recipes.navit(seq_len=512, max_images=n)) for n in (256, 64, 32)]
    assert recommend(made).study is made[2]
