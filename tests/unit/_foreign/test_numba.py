"""Batches are the same with a numba whose extensions are elsewhere, and on a machine that is not known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import llvmlite.binding
import numpy as np
import pytest

import patchpack as pp
from patchpack import paint
from patchpack.paint import _kernels_resample as kernels
from patchpack.paint import fused, resample

PICTURES = [np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((90, 134), (5, 3), (64, 64))]
RECIPES = {
    "bilinear": pp.recipes.navit(rows_per_batch=2),
    "bicubic": pp.recipes.navit(rows_per_batch=2, resample="bicubic", resample_order="horizontal_first", dtype="float32"),
    "per image": pp.recipes.pix2struct(rows_per_batch=1, seq_len=2048),
}


def patches(recipe: pp.Recipe) -> list[np.ndarray[Any, Any]]:
    samples = [pp.Sample(str(i), picture) for i, picture in enumerate(PICTURES)]
    return [batch.patches.numpy() for batch in pp.load(samples, recipe, tail="pad")]


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the import of the kernels fail, as it does where numba lacks what they import."""
    monkeypatch.delattr(paint, "_kernels_resample")
    monkeypatch.setitem(sys.modules, kernels.__name__, None)
    fused.pillow_order.cache_clear()
    yield
    fused.pillow_order.cache_clear()


@pytest.fixture(scope="module")
def expected() -> dict[str, list[np.ndarray[Any, Any]]]:
    return {name: patches(recipe) for name, recipe in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_without_the_kernels_pillow_resizes(name: str, expected: Any, without_kernels: None) -> None:
    assert fused.pillow_order() is None
    assert not resample.reads_memory(RECIPES[name])
    for one, other in zip(expected[name], patches(RECIPES[name]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])
def test_an_unknown_machine_gets_code_for_any_machine(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """That its pixels are the same is tested with a generic machine, in ``tests/unit/paint/test_fused.py``."""

    def fail() -> Any:
        raise error

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", fail)
    assert kernels._host_has_avx2() is False
