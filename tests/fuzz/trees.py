"""JSON that is almost right: a tree of values, and bytes read as edits of it. Edits of the text would hardly ever parse."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, -1, 3, 7, 63, 64, 65, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, (1 << 53) + 1,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 200, -(1 << 31), -(1 << 63), 0.0, 0.5, -0.5, 1e300, float("inf"),
    float("nan"), "", "0", "a", "../a", "/", "\0", "\ud800", "é", "x" * 300, "int64", "|u1", "<u8", [], {}, [0], [0, 0], [-1],
    [[]], [[0, 0]], [None], ["a"], {"a": 0}, {"": []}, {"each": {}}, [0] * 7,
)  # fmt: skip

_EDITS = len(VALUES) + 6


def edited(tree: Any, program: bytes) -> Any:
    """The tree after edits of four bytes each: which node (two bytes), what to do with it, and with which other one."""
    tree = [deepcopy(tree)]
    for at in range(0, len(program) - 3, 4):
        places = list(_places(tree))
        if not places:
            break
        parent, key = places[int.from_bytes(program[at : at + 2], "little") % len(places)]
        if not (key in parent if isinstance(parent, dict) else key < len(parent)):
            continue
        edit, other = program[at + 2] % _EDITS, program[at + 3]
        value = parent[key]
        if edit < len(VALUES):
            parent[key] = deepcopy(VALUES[edit])
        elif edit == len(VALUES):
            if parent is not tree:
                del parent[key]
        elif edit == len(VALUES) + 1:
            from_parent, from_key = places[other % len(places)]
            parent[key] = deepcopy(from_parent[from_key])
        elif edit == len(VALUES) + 2 and isinstance(value, list):
            value.append(deepcopy(value[other % len(value)]) if value else other)
        elif edit == len(VALUES) + 3 and isinstance(value, list) and value:
            del value[other % len(value)]
        elif edit == len(VALUES) + 4 and type(value) is int:
            parent[key] = value + other - 128
        elif edit == len(VALUES) + 5 and isinstance(value, str):
            parent[key] = value[: other % (len(value) + 1)]
    return tree[0]


def _places(tree: Any) -> Any:
    """(parent, key) of every node."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from _places(tree[key])
