"""A comparison of three ways to batch the same images: by tokens, padding, stretch and speed."""

from __future__ import annotations

import time
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import patchpack as pp
from patchpack.cli.demo import program
from patchpack.model import NaViT, cross_entropy
from patchpack.plan.table import plan_table
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

COMPARED_IMAGES = 96
_REPEATS = 3

Recipes = dict[str, tuple[str, pp.Recipe]]  # name → description and recipe


class Measured(NamedTuple):
    """The measurements of one way of batching.

    Attributes:
        name: name of the way of batching.
        how: description of the way of batching.
        tokens: number of tokens that a model computes on, padding included.
        waste: fraction of padding among these tokens, in [0, 1].
        stretch: mean factor by which one side of an image is stretched against the other, at least 1.
        images_per_second: number of images per second in training steps.
    """

    name: str
    how: str
    tokens: int
    waste: float
    stretch: float
    images_per_second: float


def comparison_recipes() -> Recipes:
    """Return the recipes of the three ways. At native size, an image gets the patches that cover it, at most 144."""
    native = pp.resize.NaFlex(144, upscale=False)
    rows = COMPARED_IMAGES
    return {
        "square": ("128 x 128", pp.recipes.square(size=128, rows_per_batch=rows)),
        "padded": ("native, one per row", pp.Recipe(resize=native, seq_len=144, max_images=1, rows_per_batch=rows)),
        "packed": ("native, packed rows", pp.Recipe(resize=native, seq_len=256, max_images=48, rows_per_batch=rows)),
    }


def measure(recipes: Recipes, samples: list[pp.Sample]) -> list[Measured]:
    """Pack samples in several ways, and time training steps of each way.

    The ways take turns, and the fastest run of each way counts.
    """
    model = program.make_model()
    packed = {name: list(pp.load(samples, recipe)) for name, (_, recipe) in recipes.items()}
    seconds = dict.fromkeys(recipes, float("inf"))
    for name in [*recipes] * _REPEATS:
        # the reference model skips padding; a padded model computes it, so there it counts as part of the image
        computed = [b._replace(segment_ids=b.segment_ids.clamp(min=1)) if name == "padded" else b for b in packed[name]]
        seconds[name] = min(seconds[name], _step_seconds(model, computed))
    found = []
    for name, (how, recipe) in recipes.items():
        tokens = sum(batch.segment_ids.numel() for batch in packed[name])
        real = sum(int(pp.token_mask(batch).sum()) for batch in packed[name])
        sizes = np.concatenate([batch.source_sizes[batch.slot_mask].numpy() for batch in packed[name]])
        speed = len(samples) / seconds[name]
        found.append(Measured(name, how, tokens, 1 - real / tokens, _stretch(recipe, sizes), speed))
    return found


def _step_seconds(model: NaViT, batches: list[pp.PackedBatch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        cross_entropy(model(batch), batch.targets).backward()
        model.zero_grad()
    return time.perf_counter() - start


def _stretch(recipe: pp.Recipe, sizes: npt.NDArray[np.int32]) -> float:
    table = plan_table(recipe, sizes, np.zeros(len(sizes), dtype=np.uint64))
    scale = table.resized / table.box[:, 2:]
    return float(np.exp(np.abs(np.log(scale[:, 0] / scale[:, 1]))).mean())


def sample_list(shards: list[str], count: int) -> list[pp.Sample]:
    """Return the first samples of some shards."""
    source = open_source(shards)
    headers = (event for event in source.scan() if isinstance(event, Header))
    found = []
    for header in islice(headers, count):
        image, target = source.reader(header.location)
        found.append(pp.Sample(header.key, image, target))
    return found
