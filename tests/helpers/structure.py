"""Count how the package is built and compare each figure with an earlier tree and with a target.

    python tests/helpers/structure.py                      # a table: before, now, target
    python tests/helpers/structure.py --check              # exit 1 if a figure misses its target
    python tests/helpers/structure.py --tree ../other      # the figures of another checkout
    python tests/helpers/structure.py --write FILE.json    # write the figures, for --before of a later run

`helpers.arrows` says what an arrow and a room are. The package is parsed and never imported.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))  # a script sees only its own folder

from helpers.arrows import PACKAGE, Module, arrows, circles, folders, layers, origin_of, read, statements, upward  # noqa: E402

ROOT = TESTS.parent
BEFORE = Path(__file__).with_name("structure_before.json")
MAX_LINES = 300
CALLS = ("load", "open_source", "Planner", "Pack", "Painter", "Index.build")  # whose parameters are counted
TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)  # what a name for a type is set to
FOREIGN_KEYS = ("transparency", "icc_profile", "size", "type")  # of what Pillow and fsspec call `info`


def _listed(module: Module) -> list[str] | None:
    """Return the names in a module's ``__all__``, None if it has none."""
    for statement in module.tree.body:
        if isinstance(statement, ast.Assign) and "__all__" in map(ast.unparse, statement.targets):
            return [str(part.value) for part in ast.walk(statement.value) if isinstance(part, ast.Constant)]
    return None


def door(modules: dict[str, Module]) -> tuple[int, dict[str, int]]:
    """Return the number of names in ``patchpack.__all__``, and of those in each of them that is a module."""
    root = modules[PACKAGE]
    bound: dict[str, str] = {}
    for statement in statements(root.tree.body, type_checking=True):
        if isinstance(statement, ast.ImportFrom):
            bound |= {alias.asname or alias.name: f"{origin_of(root, statement)}.{alias.name}" for alias in statement.names}
    names, families = _listed(root) or [], {}
    for name in names:
        if module := modules.get(bound.get(name, f"{PACKAGE}.{name}")):
            public = _listed(module)
            if public is None:
                kinds = (ast.FunctionDef, ast.ClassDef)
                public = [part.name for part in module.tree.body if isinstance(part, kinds) and part.name[0] != "_"]
            families[name] = len(public)
    return len(names), families


def _definition(modules: dict[str, Module], name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """Return the definition that a name at the door stands for, or the only public one that has it."""
    outer, _, inner = name.partition(".")
    parts = [part for module in modules.values() for part in module.tree.body if getattr(part, "name", "") == outer]
    found = [part for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)]
    door_names = [s for s in statements(modules[PACKAGE].tree.body, type_checking=True) if isinstance(s, ast.ImportFrom)]
    for statement in door_names:
        if any(alias.name == outer for alias in statement.names) and (module := modules.get(statement.module or "")):
            found = [part for part in found if part in module.tree.body] or found  # a package's __init__ may hand the name on
    if not found or not inner:
        return found[0] if found else None
    return next((part for part in found[0].body if isinstance(part, ast.FunctionDef) and part.name == inner), None)


def parameters(modules: dict[str, Module], name: str) -> tuple[int, int] | None:
    """Return the number of parameters of a function or class, and of options that ``**options: Unpack[…]`` hands on."""
    found = _definition(modules, name)
    if isinstance(found, ast.ClassDef):
        methods = [part for part in found.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not methods:  # a dataclass
            return sum(isinstance(part, ast.AnnAssign) for part in found.body), 0
        found = methods[0]
    if found is None:
        return None
    given, handed = found.args, 0
    names = [each.arg for each in [*given.posonlyargs, *given.args, *given.kwonlyargs] if each.arg not in ("self", "cls")]
    if given.kwarg and given.kwarg.annotation and "Unpack[" in (hint := ast.unparse(given.kwarg.annotation)):
        options = _definition(modules, hint.split("[")[-1].rstrip("]").split(".")[-1])
        handed = sum(isinstance(part, ast.AnnAssign) for part in options.body) if options else 0
    extra = (given.vararg is not None) + (given.kwarg is not None and not handed)
    return len(names) + extra, handed


def info_keys(modules: dict[str, Module]) -> list[str]:
    """Return place and key of every look-up by a string in something called ``info``; ``in`` and ``.get`` are look-ups, too."""
    found = []

    def is_info(node: ast.AST) -> bool:
        return getattr(node, "id", getattr(node, "attr", "")) == "info"

    for module in modules.values():
        for node in ast.walk(module.tree):
            key: ast.AST | None = None
            if isinstance(node, ast.Subscript) and is_info(node.value):
                key = node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_info(node.func.value) and node.args:
                key = node.args[0] if node.func.attr in ("get", "pop", "setdefault") else None
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn) and is_info(node.comparators[0]):
                key = node.left
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value not in FOREIGN_KEYS:
                found.append(f"{module.name}:{key.lineno} {key.value}")
    return found


def any_names(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Return what stands for `Any` in each module: `Any`, and names of types that contain it, own and imported ones."""
    names = {name: {"Any"} for name in modules}
    for _ in range(4):  # an alias of an alias, imported
        for name, module in modules.items():
            for part in statements(module.tree.body, type_checking=True):
                if isinstance(part, ast.ImportFrom):
                    far = names.get(origin_of(module, part), set())
                    names[name] |= {alias.asname or alias.name for alias in part.names if alias.name in far}
            for part in module.tree.body:
                target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
                value = getattr(part, "value", None)
                if isinstance(target, ast.Name) and target.id[0].isupper() and isinstance(value, TYPES):
                    names[name] |= {target.id} if _contains(value, names[name]) else set()
    return names


def _contains(annotation: ast.expr, names: set[str]) -> bool:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isprintable():
            try:
                node = ast.parse(node.value, mode="eval").body  # a type in quotes
            except SyntaxError:
                continue
            if not isinstance(node, ast.Constant) and _contains(node, names):
                return True
        if getattr(node, "id", getattr(node, "attr", "")) in names:
            return True
    return False


def any_share(modules: dict[str, Module]) -> tuple[int, int, int]:
    """Return the number of annotations that contain `Any`, of those that do under another name, and of all annotations.

    Annotations are those of parameters, returns and fields.
    """
    names, with_any, renamed, number = any_names(modules), 0, 0, 0
    for module in modules.values():
        hints: list[ast.expr | None] = []
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                hints.append(node.returns)
            elif isinstance(node, ast.arg):
                hints.append(node.annotation)
            elif isinstance(node, ast.ClassDef):
                hints += [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]
        given = [hint for hint in hints if hint is not None]
        containing = [hint for hint in given if _contains(hint, names[module.name])]
        number, with_any = number + len(given), with_any + len(containing)
        renamed += sum(not _contains(hint, {"Any"}) for hint in containing)
    return with_any, renamed, number


def any_fields(modules: dict[str, Module], name: str) -> tuple[int, int]:
    """Return how many fields of a class have a type that contains `Any`, and how many it has."""
    found, names = _definition(modules, name), any_names(modules)
    owner = next((module.name for module in modules.values() if found in module.tree.body), "")
    hints = [part.annotation for part in found.body if isinstance(part, ast.AnnAssign)] if found else []
    return sum(_contains(hint, names[owner]) for hint in hints), len(hints)


def measure(tree: Path) -> dict[str, Any]:
    """Return every figure of a tree by its name: an integer, a ratio, or a list of what there should be none of."""
    modules = read(tree)
    found = arrows(modules)
    long = [f"{m.name} {m.lines}" for m in modules.values() if m.lines > MAX_LINES and not m.is_kernel]
    figures: dict[str, Any] = {
        "import circles": [" ↔ ".join(group) for group in circles(found)],
        f"modules over {MAX_LINES} lines, kernels excepted": long,
        "arrows upward": upward(found, layers(tree / "pyproject.toml")),
    }
    for folder, counts in folders(modules, found).items():
        figures |= {f"{folder} {what}": number for what, number in counts.items()}
    figures["names at top level"], families = door(modules)
    figures |= {f"names in {PACKAGE}.{name}": count for name, count in families.items()}
    for name in CALLS:
        if (counted := parameters(modules, name)) is not None:
            figures[f"parameters of {name}"], handed = counted
            if handed:
                figures[f"options that {name} hands on"] = handed
    figures["info look-ups by a string"] = info_keys(modules)
    with_any, renamed, annotations = any_share(modules)
    figures |= {"annotations with Any": with_any, "of these under another name": renamed, "annotations": annotations}
    figures["annotations with Any, per cent"] = round(100 * with_any / annotations, 1)
    figures["fields of PackedBatch with Any"], figures["fields of PackedBatch"] = any_fields(modules, "PackedBatch")
    return figures


# (highest figure wanted, figure it was set beside): where the earlier tree has another figure, the target keeps the ratio
TARGETS: dict[str, tuple[float, float | None]] = {
    "import circles": (0, None),
    f"modules over {MAX_LINES} lines, kernels excepted": (0, None),
    "arrows upward": (0, None),
    f"{PACKAGE}/stream/ room arrows": (60, 141),
    f"{PACKAGE}/plan/ room arrows": (35, 66),
    "names at top level": (45, None),
    "parameters of load": (14, None),
    "info look-ups by a string": (0, None),
    "annotations with Any, per cent": (8, 19),
    "fields of PackedBatch with Any": (0, None),
}


def count(figure: Any) -> Any:
    """Return the length of a list and any other figure unchanged."""
    return len(figure) if isinstance(figure, list) else figure


def target(name: str, before: dict[str, Any]) -> float | None:
    """Return the highest figure that meets the target, None where there is no target."""
    if name not in TARGETS:
        return None
    wanted, beside = TARGETS[name]
    if beside is None or name not in before:
        return wanted
    scaled = float(wanted / beside * count(before[name]))
    return round(scaled, 1) if isinstance(before[name], float) else round(scaled)


def main(arguments: list[str]) -> int:
    """Print the table and the lists behind it; with ``--check`` return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to count (this one)")
    parser.add_argument("--before", type=Path, default=BEFORE, help="figures to compare with (structure_before.json)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args(arguments)
    now = measure(options.tree)
    if options.write:
        options.write.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before = json.loads(options.before.read_text(encoding="utf-8")) if options.before.exists() else {}
    missed = []
    print(f"{'figure':<52}{'before':>8}{'now':>8}{'target':>8}")
    for name in [*now, *(name for name in before if name not in now)]:
        wanted, value = target(name, before), count(now.get(name, "–"))
        if name in TARGETS and (name not in now or value > wanted):
            missed.append(name)
        goal = "–" if wanted is None else f"{wanted:g}"
        print(f"{name:<52}{count(before.get(name, '–')):>8}{value:>8}{goal:>8}{'  missed' if name in missed else ''}")
    for name, listed in now.items():
        if isinstance(listed, list) and listed:
            print(f"\n{name}:", *listed, sep="\n  ")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
