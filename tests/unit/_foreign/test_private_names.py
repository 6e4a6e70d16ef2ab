"""Private names of other packages stand in `patchpack._foreign` and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import patchpack

ROOT = Path(patchpack.__file__).parent
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples, and of os
USED = re.compile(r"[.\"' ](_[A-Za-z]\w*)")  # all uses, and more: what is found is parsed
DEFINED = re.compile(r"(?:\bdef |\bclass |\bself\.|, |^ *)(_[A-Za-z]\w*)", re.MULTILINE)


def used(source: str) -> Iterator[str]:
    """Yield attributes, names that `getattr` and the like take, and parts of the names of imported modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr", "delattr"):
            yield from (part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str))
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("patchpack"):
            yield from [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if not alias.name.startswith("patchpack")]
            yield from (part for name in names for part in name.split("."))


def private_names(source: str, own: set[str]) -> set[str]:
    """Return the private names that a module uses, without its own package's and the documented ones."""
    if not set(USED.findall(source)) - own - DOCUMENTED:
        return set()  # most modules need no parsing
    return {name for name in used(source) if name.startswith("_") and not name.startswith("__")} - own - DOCUMENTED


def test_no_other_module_touches_them() -> None:
    modules = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    own = {part for path in modules for part in path.with_suffix("").parts}
    own |= {name for source in modules.values() for name in DEFINED.findall(source)}
    found = {path.as_posix(): names for path, source in modules.items() if (names := private_names(source, own))}
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
    assert private_names(source, {"_own"}) == {"_inductor", "_dynamo", "_showxv", "_C", "_exif", "_workers"}
    assert private_names("x._own, pair._replace(a=1)", {"_own"}) == set()
