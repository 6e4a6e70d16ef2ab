"""Crops, flips and a function of the user's, the same in whatever way an image comes to its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from torch.utils.data import DataLoader

import patchpack as pp
from patchpack.cli.commands.preview import first_rows
from patchpack.cli.opening import open_typed
from patchpack.cli.pictures.preview import draw_preview
from patchpack.cli.pictures.rows import drawable

SHARDS = pp.samples.shards("train")[:1]


def darker(pixels: Any, generator: np.random.Generator) -> Any:
    pixels[...] = pixels * generator.uniform(0.2, 0.9)
    return pixels


RECIPE = pp.recipes.navit(
    seq_len=256,
    rows_per_batch=2,
    crop=pp.crop.RandomResizedCrop(),
    flip_prob=0.5,
    augment=darker,
    drop=pp.drop.Beta(),
    positions=pp.positions.Absolute(of="image"),
)


def digests(batches: Any) -> dict[str, str]:
    return {image.key: pp.digest(image) for image in pp.unpack(batches)}


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return digests(pp.load(SHARDS, RECIPE))


def test_a_crop_is_another_one_in_every_epoch(expected: dict[str, str]) -> None:
    later = digests(pp.load(SHARDS, RECIPE, epoch=1))
    assert later.keys() == expected.keys()
    assert not set(later.values()) & set(expected.values())


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_threads": 2}, {"shuffle": 100}], ids=str)
def test_workers_and_order_change_no_image(options: dict[str, Any], expected: dict[str, str]) -> None:
    assert digests(pp.load(SHARDS, RECIPE, **options)) == expected


def test_an_index_and_packed_shards(expected: dict[str, str], tmp_path: Path) -> None:
    index = pp.Index.build(SHARDS)
    assert digests(pp.load(index, RECIPE)) == expected
    packed = pp.PackedShards.write(index, RECIPE, tmp_path / "packed")
    assert digests(packed) == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its open shards to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stage_draws_by_the_number_in_its_stream(expected: dict[str, str]) -> None:
    def run() -> dict[str, str]:
        stream = webdataset.WebDataset(SHARDS, shardshuffle=False)
        return digests(DataLoader(pp.Pack(RECIPE).over(stream), batch_size=None))

    found = run()
    assert found.keys() == expected.keys()
    assert found == run()


def test_replay_shows_what_training_saw(expected: dict[str, str]) -> None:
    for key in list(expected)[::97]:
        assert pp.digest(pp.replay(SHARDS, RECIPE, key)) == expected[key]


def test_the_preview_draws_crops() -> None:
    source, _ = open_typed(SHARDS[0], image="png", target="cls")
    picture = draw_preview(first_rows(source, drawable(RECIPE), 0), "navit", epoch=0, seed=0, ids=False)
    assert len(picture.resize((60, 60)).getcolors(3600) or ()) > 50
