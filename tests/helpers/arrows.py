"""Modules of the package and the imports between them, read from the source without importing the package.

An arrow is a pair of modules (A, B) where A imports B, at the top of A or inside of a function. Imports for type checkers are
left out. A room of a folder is a module or a sub-package directly inside of the folder.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "patchpack"
Arrow = tuple[str, str]


@dataclass
class Module:
    """A parsed module of the package."""

    name: str  # with dots
    path: Path
    is_package: bool
    tree: ast.Module
    lines: int

    @property
    def is_kernel(self) -> bool:
        """True for a module of compiled functions, which may be long."""
        return self.path.name.startswith("_kernels")


def read(tree: Path) -> dict[str, Module]:
    """Return the modules below ``tree/patchpack`` by their dotted names."""
    modules = {}
    for path in sorted((tree / PACKAGE).rglob("*.py")):
        parts, text = path.relative_to(tree).with_suffix("").parts, path.read_text(encoding="utf-8")
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, parts[-1] == "__init__", ast.parse(text), len(text.splitlines()))
    if PACKAGE not in modules:
        raise SystemExit(f"{tree}: expected a folder that holds {PACKAGE}/__init__.py")
    return modules


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in ast.unparse(test)


def statements(body: list[ast.stmt], *, type_checking: bool = False) -> Iterator[ast.stmt]:
    """Yield the statements of a module with those inside of them, without branches that only type checkers follow."""
    for statement in body:
        yield statement
        skipped = isinstance(statement, ast.If) and _is_type_checking(statement.test) and not type_checking
        for field in ("orelse", "finalbody") if skipped else ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, field, []), type_checking=type_checking)
        for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            yield from statements(part.body, type_checking=type_checking)


def origin_of(module: Module, statement: ast.ImportFrom) -> str:
    """Return the full name of the module that a ``from … import`` names."""
    if not statement.level:
        return statement.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - statement.level + module.is_package]
    return ".".join([*parts, statement.module] if statement.module else parts)


def arrows(modules: dict[str, Module]) -> set[Arrow]:
    """Return the pairs (A, B) where module A imports module B."""
    found = set()
    for module in modules.values():
        for statement in statements(module.tree.body):
            named: list[str] = []
            if isinstance(statement, ast.Import):
                named = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                origin = origin_of(module, statement)
                named = [full if (full := f"{origin}.{alias.name}") in modules else origin for alias in statement.names]
            found |= {(module.name, name) for name in named if name in modules}
    return found - {(name, name) for name in modules}


def circles(found: set[Arrow]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    after: dict[str, set[str]] = {}
    for a, b in found:
        after.setdefault(a, set()).add(b)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = after.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reach = {name: reached(name) for name in after}
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in after if a in reach[a]}
    return sorted(map(list, groups))


def _room(folder: str, name: str) -> str:
    return name.removeprefix(folder + ".").split(".")[0] if name != folder else "__init__"


def folders(modules: dict[str, Module], found: set[Arrow]) -> dict[str, dict[str, int]]:
    """Return modules, rooms, and the arrows between modules and between rooms of every folder."""
    counts = {}
    for folder in (module.name for module in modules.values() if module.is_package):
        inside = {name for name in modules if name == folder or name.startswith(folder + ".")}
        within = {arrow for arrow in found if inside.issuperset(arrow)}
        between = {pair for a, b in within if (pair := (_room(folder, a), _room(folder, b))) and pair[0] != pair[1]}
        rooms = {_room(folder, name) for name in inside - {folder}}
        key = folder.replace(".", "/") + "/"
        counts[key] = {"modules": len(inside), "rooms": len(rooms), "module arrows": len(within), "room arrows": len(between)}
    return counts


def layers(pyproject: Path) -> list[list[str]]:
    """Return the layers of the import contract, the highest first, each with the packages that stand side by side."""
    contracts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    ordered = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip(" ()") for name in re.split(r"[|:]", layer)] for layer in ordered]


def upward(found: set[Arrow], ordered: list[list[str]]) -> list[str]:
    """Return the arrows to a higher layer, to a neighbour in the same layer, or from below the highest layer to the door."""
    levels = {name: level for level, layer in enumerate(ordered) for name in layer}  # 0 is the highest

    def layer_of(module: str) -> str | None:
        return next((name for name in levels if module == name or module.startswith(name + ".")), None)

    wrong = []
    for a, b in sorted(found):
        start, end = layer_of(a), layer_of(b)
        if start is None:
            continue
        if (b == PACKAGE and levels[start] > 0) or (end not in (None, start) and levels[end] <= levels[start]):
            wrong.append(f"{a} → {b}")
    return wrong
