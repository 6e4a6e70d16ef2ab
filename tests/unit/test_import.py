"""What `import patchpack` costs and offers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch  # noqa: F401 - here, so that no test is charged for it

import patchpack as pp


def fresh(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("statement", ["import patchpack", "from patchpack import Recipe, recipes, unpack"])
def test_import_leaves_the_heavy_ones_out(statement: str) -> None:
    heavy = ("torch", "webdataset", "numba", "PIL", "hypothesis")
    assert fresh(f"{statement}; import sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_modules_come_when_asked_for() -> None:
    """No module is there because another one was asked for."""
    code = """
import sys
import patchpack as pp
for name in ("samples", "testing", "model", "adapters"):
    there = f"patchpack.{name}" in sys.modules
    print(there, getattr(pp, name).__name__)
"""
    assert fresh(code).splitlines() == [f"False patchpack.{name}" for name in ("samples", "testing", "model", "adapters")]


def test_a_star_import_gives_every_public_name() -> None:
    there: dict[str, object] = {}
    exec("from patchpack import *", there)
    assert [name for name in pp.__all__ if there.get(name) is None or there[name] is not getattr(pp, name)] == []


def test_dir_is_complete() -> None:
    assert set(pp.__all__) <= set(dir(pp))
    assert {"adapters", "samples", "testing", "model", "__version__"} <= set(dir(pp))
    assert dir(pp) == sorted(set(dir(pp)))


def test_public_names_are_named_once() -> None:
    assert len(pp.__all__) == len(set(pp.__all__))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'patchpack' has no attribute 'lod'"):
        pp.lod  # noqa: B018


@pytest.mark.parametrize("error", [name for name in vars(pp.errors) if name.endswith("Error")])
def test_errors_share_one_root_and_are_made_of_one_string(error: str) -> None:
    leaf = getattr(pp.errors, error)
    assert issubclass(leaf, pp.errors.PatchpackError)
    assert str(leaf("what and why")) == "what and why"


def test_local_shards_need_no_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)  # an import of it fails
    index = pp.Index.build(pp.samples.shards("val"))
    index.verify()
    assert next(iter(pp.load(index, pp.recipes.navit(seq_len=256)))).patches.any()
