"""The counts of structure are right on a little made-up package that can be counted by hand."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from helpers import arrows, structure

PYPROJECT = """
[tool.importlinter]
root_package = "patchpack"
[[tool.importlinter.contracts]]
type = "layers"
layers = ["patchpack.cli", "patchpack.stream | patchpack.adapters", "patchpack.plan", "patchpack.types"]
"""
SOURCES = {
    "__init__": """
        from typing import TYPE_CHECKING
        from patchpack.plan import rules
        from patchpack.plan.rules import Rule
        from patchpack.types import PackedBatch
        if TYPE_CHECKING:
            from patchpack.stream.loader import Planner, load
        __all__ = ["load", "Planner", "PackedBatch", "Rule", "rules"]
    """,
    "types": """
        from typing import Any, NamedTuple
        Array = Any
        class PackedBatch(NamedTuple):
            patches: Array
            keys: list[str]
            info: dict[str, Any]
    """,
    "plan/__init__": "",
    "plan/rules": """
        from patchpack.plan.deep import first
        class Rule: ...
        def rule(): ...
        def _hidden(): ...
    """,
    "plan/deep/__init__": "",
    "plan/deep/first": "from ..deep import second\nimport patchpack.types",
    "plan/deep/second": """
        def late(x: int) -> None:
            from patchpack.plan.deep.first import x
            from patchpack import __version__
    """,
    "plan/deep/_kernels": "x = 1\n" * 301,
    "stream/__init__": "x = 1\n" * 301,
    "stream/loader": """
        from typing import TypedDict, Unpack
        from patchpack.adapters import pad
        from patchpack.types import Array as Tensors
        class Options(TypedDict):
            image: str
            target: str
        def load(source: "Tensors", recipe, *, seed=0, **options: Unpack[Options]) -> list[Tensors]:
            info = {}
            info["step"], info.get("seen"), source.info["seen"], "fatal" in source.info
            info[0], picture.info["transparency"], info.items()
        class Planner:
            def __init__(self, source, *sizes, **more): ...
    """,
    "adapters/__init__": "",
    "adapters/pad": "",
    "cli/__init__": "import patchpack\nfrom patchpack.stream import loader",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name, source in SOURCES.items():
        path = tmp_path / "patchpack" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path


def test_arrows_are_all_imports_but_those_for_type_checkers(tree: Path) -> None:
    found = arrows.arrows(arrows.read(tree))
    assert {(a.removeprefix("patchpack."), b.removeprefix("patchpack.")) for a, b in found} == {
        ("patchpack", "plan.rules"), ("patchpack", "types"), ("plan.rules", "plan.deep.first"), ("plan.deep.first", "types"),
        ("plan.deep.first", "plan.deep.second"), ("plan.deep.second", "plan.deep.first"), ("plan.deep.second", "patchpack"),
        ("stream.loader", "adapters.pad"), ("stream.loader", "types"), ("cli", "patchpack"), ("cli", "stream.loader"),
    }  # fmt: skip


def test_circles_are_groups_that_reach_themselves() -> None:
    found = {("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("f", "a")}
    assert arrows.circles(found) == [["a", "b", "c"], ["d", "e"]]


def test_arrows_within_a_room_are_none_between_rooms(tree: Path) -> None:
    modules = arrows.read(tree)
    counts = arrows.folders(modules, arrows.arrows(modules))
    assert counts["patchpack/plan/"] == {"modules": 6, "rooms": 2, "module arrows": 3, "room arrows": 1}
    assert counts["patchpack/plan/deep/"] == {"modules": 4, "rooms": 3, "module arrows": 2, "room arrows": 2}


def test_figures_are_those_counted_by_hand(tree: Path) -> None:
    figures = structure.measure(tree)
    assert figures["modules over 300 lines, kernels excepted"] == ["patchpack.stream 301"]
    wrong = ["patchpack.plan.deep.second → patchpack", "patchpack.stream.loader → patchpack.adapters.pad"]
    assert figures["arrows upward"] == wrong
    assert len(figures["import circles"]) == 1  # the door is part of it
    assert (figures["names at top level"], figures["names in patchpack.rules"]) == (5, 2)
    assert (figures["parameters of load"], figures["options that load hands on"]) == (3, 2)
    assert figures["parameters of Planner"] == 3
    assert [place.split()[1] for place in figures["info look-ups by a string"]] == ["step", "seen", "seen", "fatal"]
    # of load: source, options, the result; of late: x, the result; fields: patches, keys, info, image, target
    assert (figures["annotations with Any"], figures["of these under another name"], figures["annotations"]) == (4, 3, 10)
    assert (figures["fields of PackedBatch with Any"], figures["fields of PackedBatch"]) == (2, 3)


def test_a_target_keeps_its_ratio_to_the_tree_before() -> None:
    name = "patchpack/stream/ room arrows"
    assert structure.target(name, {name: 141}) == structure.target(name, {}) == 60
    assert structure.target(name, {name: 282}) == 120
    assert structure.target("annotations with Any, per cent", {"annotations with Any, per cent": 38.0}) == 16.0
    assert structure.target("names at top level", {"names at top level": 500}) == 45
    assert structure.target("annotations", {}) is None


def test_the_check_fails_while_a_target_is_missed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree / "before.json"
    assert structure.main(["--tree", str(tree), "--write", str(before)]) == 0
    assert json.loads(before.read_text()) == structure.measure(tree)
    capsys.readouterr()
    assert structure.main(["--tree", str(tree), "--before", str(before), "--check"]) == 1
    rows = {line[:52].strip(): line[52:].split() for line in capsys.readouterr().out.splitlines() if line}
    assert rows["import circles"] == ["1", "1", "0", "missed"]
    assert rows["parameters of load"] == ["3", "3", "14"]
    (tree / "patchpack" / "cli" / "__init__.py").write_text("")
    assert structure.measure(tree)["patchpack/ module arrows"] == 9


def test_figures_of_the_tree_before_are_of_this_package() -> None:
    before = json.loads(structure.BEFORE.read_text(encoding="utf-8"))
    assert set(structure.TARGETS) <= set(before)


def test_a_folder_without_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected a folder that holds patchpack"):
        structure.measure(tmp_path)
