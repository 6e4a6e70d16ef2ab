"""The names with which a test evaluates the repr of a recipe or a policy."""

from __future__ import annotations

from typing import Any

import patchpack as pp

_FAMILIES = (pp, pp.resize, pp.crop, pp.drop, pp.positions, pp.normalize, pp.packing)
NAMES: dict[str, Any] = {name: value for family in _FAMILIES for name, value in vars(family).items()} | {"inf": float("inf")}
