"""The benchmark of pictures and captions: its measures by hand, and a short run."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import patchpack as pp
from bench.model import captions
from patchpack.samples import draw


def test_recall_and_chance_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    others = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.9, 0.1]])
    right = torch.eye(3, dtype=torch.bool)
    assert captions.recall(queries, others, right, 1) == 0  # nearest are 1, 0, 1
    assert captions.recall(queries, others, right, 2) == pytest.approx(1 / 3)  # and then 2, 2, 2
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])  # two samples, one caption
    assert captions.recall(queries, others, same, 1) == pytest.approx(2 / 3)
    assert captions.chance(right, 1) == pytest.approx(1 / 3)
    assert captions.chance(same, 1) == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert captions.chance(same, 2) == pytest.approx((1 + 1 + 2 / 3) / 3)


def test_words() -> None:
    words = captions.Words(["b a", "a c"])
    assert words.size == 5
    assert words("a b c new") == [2, 3, 4, captions.UNKNOWN, captions.END]
    assert words("") == [captions.END]


def test_a_text_tower_looks_at_one_text_alone() -> None:
    words = captions.Words(["a b c"])
    recipe = pp.Recipe(resize=pp.resize.Square(16), seq_len=3, max_images=3, rows_per_batch=2)
    image = np.zeros((16, 16, 3), np.uint8)

    def batch(*texts: str) -> pp.PackedBatch:
        samples = [pp.Sample(str(i), image, None, text) for i, text in enumerate(texts)]
        return next(iter(pp.load(samples, recipe, target=None, tokenize=words, text_len=12)))

    torch.manual_seed(0)
    tower = captions.TextTower(words.size, width=8, depth=2, heads=2).double()
    together, alone = tower(batch("a b", "c", "b a", "a")), tower(batch("c"))
    assert torch.allclose(together[0, 1], alone[0, 0], atol=1e-12)
    assert not torch.allclose(together[0, 0], together[0, 2])  # order counts
    assert not together[1, 1:].any()  # empty slots


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    line = captions.run(tmp_path, steps=2, seed=0)
    assert (line["held out"], line["different captions"], line["chance @1"], line["chance @5"]) == (100, 100, 0.01, 0.05)
    assert line["loss"][0] > 2
    paths = captions.write_shards(tmp_path, "val")
    texts = [text for path in paths for text in read(path)]
    assert sorted(texts) == sorted(draw.captions("val").values())


def read(path: str) -> list[str]:
    with tarfile.open(path) as tar:
        return [tar.extractfile(m).read().decode() for m in tar if m.name.endswith(".txt")]  # type: ignore[union-attr]
