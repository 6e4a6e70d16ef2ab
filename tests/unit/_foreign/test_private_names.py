"""Private names of other packages stand in `patchpack._foreign` and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import patchpack

ROOT = Path(patchpack.__file__).parent
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples, and of os


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.isidentifier() and name != "_"


def used(tree: ast.AST) -> Iterator[str]:
    """Yield private attributes, private names that `getattr` and the like take, and private parts of imported modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr", "vars"):
            yield from (part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str))
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("patchpack"):
            yield from [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (
                part for alias in node.names if not alias.name.startswith("patchpack") for part in alias.name.split(".")
            )


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives to functions, classes, variables and attributes of `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self":
            yield node.attr


def private_names(tree: ast.AST) -> set[str]:
    return {name for name in used(tree) if is_private(name)} - DOCUMENTED


def test_no_other_module_touches_them() -> None:
    trees = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
    own = {part for path in trees for part in path.with_suffix("").parts}
    own |= {name for tree in trees.values() for name in defined(tree)}
    found = {path.as_posix(): names for path, tree in trees.items() if (names := private_names(tree) - own)}
    assert found == {
        "_foreign/datasets.py": {"_distributed", "_ex_iterable", "_formatting"},
        "_foreign/pillow.py": {"_exif"},
        "_foreign/torch.py": {
            "_C", "_new_shared", "_remove_worker_pids", "_set_worker_pids", "_shutdown_workers", "_utils", "_worker_pids_set",
            "_workers",
        },
    }  # fmt: skip


def test_private_names_are_seen_wherever_they_are_used() -> None:
    source = """
import torch._inductor
from torch._dynamo import config
from PIL.Image import _showxv
torch._C, getattr(image, "_exif", None), hasattr(sending, "_workers"), pair._replace(a=1), self.__dict__, x._own
"""
    assert private_names(ast.parse(source)) == {"_inductor", "_dynamo", "_showxv", "_C", "_exif", "_workers", "_own"}
