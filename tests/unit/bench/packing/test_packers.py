"""The bench of the packers: whether its figures add up, without peers and without files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from bench import lists
from bench.packing import packers
from bench.packing.peers import Packer, Rows, ours, rows_of

LENGTHS = np.array([6, 4, 5, 5, 7, 3, 2])


@pytest.fixture(scope="module", autouse=True)
def _prices() -> Iterator[None]:
    """Learn the prices of a list once: it takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packers, "_prices", cache(packers._prices))
        yield


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0, 1], [2, 3], [4, 5], [6]], {"rows": 4, "fill": 80.0, "lost": 0, "repeated": 0, "over": 0}),
        ([[0, 1], [2, 3], [4], [6]], {"rows": 4, "fill": 72.5, "lost": 1, "repeated": 0, "over": 0}),
        ([[0, 1], [2, 3], [4, 5], [6, 3]], {"rows": 4, "fill": 92.5, "lost": 0, "repeated": 1, "over": 0}),
        ([[0, 1, 6], [2, 3], [], [4, 5]], {"rows": 3, "fill": 100 * 32 / 30, "lost": 0, "repeated": 0, "over": 1}),
        ([], {"rows": 0, "fill": 0.0, "lost": 7, "repeated": 0, "over": 0}),
    ],
    ids=["right", "lost", "repeated", "over, and an empty row", "nothing"],
)
def test_an_audit_counts_what_is_wrong(rows, expected) -> None:
    assert packers.audit(rows_of(rows), LENGTHS, 10) == pytest.approx(expected)


def test_a_wait_ends_with_the_push_that_closed_the_row() -> None:
    assert packers.waits(rows_of([[0, 3], [1, 2], [4]], [3, 6, 7]), 7) == 5  # item 1 waited for five, item 4 for the end


@pytest.mark.parametrize("packer", ours(), ids=lambda packer: packer.name)
def test_our_greedy_packers_lose_nothing(packer) -> None:
    lengths = lists.make("lognormal", 500, 1024)
    found, rows = packers.measure(packer.prepare, lengths, 1024, 500, 0)
    assert packers.faults(found) == "–"
    assert found["items"] == 500
    assert found["fill"] == pytest.approx(100 * lengths.sum() / 1024 / found["rows"])
    assert (rows.closed[:-1] <= rows.closed[1:]).all()


def next_fit_that_drops(lengths, seq_len):
    """A peer that leaves the first item out."""

    def run():
        rows, room = [], 0
        for i, n in enumerate(lengths.tolist()):
            if n > room:
                rows.append([])
                room = seq_len
            rows[-1] += [i] if i else []
            room -= n
        return rows

    return run, rows_of


def test_offline_beside_a_peer_that_loses_an_item() -> None:
    (answer,) = packers.offline(["lognormal"], [1024], 500, [Packer("dropping", False, next_fit_that_drops, 100)], 0)
    lengths = lists.make("lognormal", 500, 1024)
    assert answer["rows"] <= answer["rows of bfd"]
    assert answer["fill"] == pytest.approx(100 * lengths.sum() / 1024 / answer["rows"])
    assert packers.faults(answer) == "–"
    (peer,) = answer["peers"]
    assert (peer["items"], peer["lost"], peer["within a point"]) == (100, 1, False)
    assert peer["fill"] < peer["fill of ours"]
    assert peer["times as fast"] == pytest.approx(answer["items/s"] / peer["items/s"])


def test_a_cap_is_kept_and_no_share_is_over_the_bound() -> None:
    (answer,) = packers.capped(["lognormal"], 1024, 600)
    assert answer["max_images"] == math.ceil(1.04 * 600 * 1024 / lists.make("lognormal", 600, 1024).sum())
    shares = [answer[method] for method in (*packers.METHODS, "lookahead")]
    assert all(0 < share <= 100 for share in shares)
    assert answer["spread"] >= answer["best_fit_decreasing"]


def test_items_that_arrive() -> None:
    answers = packers.arriving(["lognormal"], 1024, 600, [], 0)
    assert [answer["packer"] for answer in answers] == ["Lookahead(64)", "next-fit", "first-fit, 16 open rows"]
    for answer in answers:
        assert packers.faults(answer) == "–"
        assert 0 < answer["fill"] <= answer.get("fill of ours", 100)
        assert 0 <= answer["longest wait"] < 600


def test_published_efficiencies_on_a_histogram() -> None:
    pytest.importorskip("highspy")
    counts = np.zeros(65, dtype=np.int64)
    counts[[64, 40, 33, 24, 20, 7]] = 3, 10, 4, 12, 9, 40
    answer = packers.published("made up", counts, 64, slow=False, seconds=5)
    assert answer["items"] == 78
    best = answer["pack_tight"][0]
    assert answer["spfhp, depth 3"][0] <= answer["spread"][0] <= best <= answer["at most"] <= 100


def test_the_tables_show_every_answer(capsys) -> None:
    packer = Packer("dropping", True, next_fit_that_drops, 100)
    figures = {
        "offline": packers.offline(["lognormal"], [1024], 500, [packer], 0),
        "capped": packers.capped(["lognormal"], 1024, 500),
        "online": packers.arriving(["lognormal"], 1024, 500, [], 0),
        "published": [{"histogram": "none", "spread": [99.5, 0.1], "at most": 100.0}],
    }
    packers.show(figures)
    shown = capsys.readouterr().out
    assert "1 lost" in shown
    assert all(each in shown for each in ("dropping", "Lookahead(64)", "first_fit", "99.500 (0.1 s)"))


def test_rows_without_items() -> None:
    assert packers.audit(Rows(np.zeros(0, dtype=np.int64), np.zeros(3, dtype=np.int64)), LENGTHS, 10)["rows"] == 0
