"""The list of filters of Python's `warnings`, changed in place.

`warnings.catch_warnings` replaces the filters of the whole process. Two threads that leave it in the wrong order leave them
replaced. A filter that is inserted into the list and removed from it has no such effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any


class ThreadFilter:
    """A filter of warnings that asks two functions, which may look at their own thread.

    If Python has no such list, all warnings of the package are ignored instead, and the functions are not called.

    Args:
        is_text: takes the text of a warning and returns True to go on.
        is_module: takes the name of the module that warns, after `is_text`. True ignores the warning.
        package: name of the package that is ignored in the other case.
    """

    def __init__(self, is_text: Callable[[str], bool], is_module: Callable[[str], bool], package: str) -> None:
        # used by `warnings` like compiled patterns; namespaces of functions can be pickled, as some executors do with filters
        self._entry = ("ignore", SimpleNamespace(match=is_text), Warning, SimpleNamespace(match=is_module), 0)
        self._package = package

    def insert(self) -> list[Any] | None:
        """Put the filter before all others, and return the list that it is in, for `remove`."""
        filters: Any = getattr(warnings, "filters", None)
        if not isinstance(filters, list):
            warnings.filterwarnings("ignore", module=rf"{self._package}\.")
            return None
        filters.insert(0, self._entry)
        return filters

    def remove(self, filters: list[Any] | None) -> None:
        """Remove the filter once from the list that `insert` returned."""
        if filters is not None:
            with suppress(ValueError):  # other code emptied the list meanwhile
                filters.remove(self._entry)
