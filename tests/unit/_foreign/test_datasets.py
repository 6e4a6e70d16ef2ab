"""Streams of `datasets` give the same batches where the library hides what a stream is made of."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node
from PIL import Image

import patchpack as pp
from patchpack._foreign.datasets import is_split_by_node, may_have_format, stream_behind_error

RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=64, rows_per_batch=1)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)


class Hiding:
    """A stream of `datasets` whose private attributes have other names."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        if name in ("_formatting", "_ex_iterable", "_distributed"):
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.stream)

    def with_format(self, form: str | None) -> Hiding:
        return Hiding(self.stream.with_format(form))

    def cast_column(self, *arguments: Any) -> Hiding:
        return Hiding(self.stream.cast_column(*arguments))

    def select_columns(self, *arguments: Any) -> Hiding:
        return Hiding(self.stream.select_columns(*arguments))


Hiding.__module__ = "datasets.iterable_dataset"


def stream(broken: int = -1) -> Any:
    files = []
    for i, pixels in enumerate(PIXELS):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        files.append({"bytes": data.getvalue()[: 40 if i == broken else None], "path": None})
    table = datasets.Dataset.from_dict({"image": files, "label": list(range(5))}).cast_column("image", datasets.Image())
    return table.to_iterable_dataset()


def painted(source: Any) -> list[Any]:
    return [(i.patches.tolist(), i.target) for batch in pp.load(source, RECIPE, tail="pad") for i in pp.unpack(batch)]


@pytest.mark.parametrize("form", [None, "torch"])
def test_without_its_attributes_a_stream_gives_the_same_batches(form: str | None) -> None:
    expected = painted(stream())
    assert len(expected) == 5
    assert painted(stream().with_format(form)) == expected
    assert painted(Hiding(stream().with_format(form))) == expected


def test_what_is_not_told() -> None:
    hiding = Hiding(stream())
    assert (may_have_format(stream()), may_have_format(hiding)) == (False, True)
    mine = split_dataset_by_node(stream(), rank=0, world_size=2)
    assert (is_split_by_node(stream()), is_split_by_node(mine), is_split_by_node(Hiding(mine))) == (False, True, False)


def test_without_the_chain_of_generators_a_stream_ends_with_its_first_error() -> None:
    broken = stream(broken=2).map(dict)
    with pytest.raises(Exception, match=r"cannot identify|truncated|broken"):
        list(broken)
    behind = stream_behind_error(broken)
    assert behind is not None
    assert [row["label"] for row in behind[0]] == [3, 4]
    assert stream_behind_error(Hiding(broken)) is None
