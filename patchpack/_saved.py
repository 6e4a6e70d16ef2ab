"""The registration of types with torch, so that ``torch.load`` can load batches and reports with its default settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_MODULE = "torch.serialization"


def allow_loading(types: Sequence[type]) -> None:
    """Allow torch to load saved instances of `types`. If torch is not imported yet, wait for its import."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _allow(module, types)
    else:
        sys.meta_path.insert(0, _WhenImported(types))


def _allow(module: ModuleType, types: Sequence[type]) -> None:
    add = getattr(module, "add_safe_globals", None)  # torch 2.4
    if add is not None:
        add(list(types))


class _WhenImported(MetaPathFinder):
    """An import hook that waits for the import of ``torch.serialization``, and then registers the types."""

    def __init__(self, types: Sequence[type]) -> None:
        self._types = types

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        loader = getattr(spec, "loader", None)
        if loader is None:  # another finder has this module: Python asks it next
            return None
        run = loader.exec_module

        def run_and_allow(module: ModuleType) -> None:
            run(module)
            _allow(module, self._types)

        loader.exec_module = run_and_allow
        return spec
