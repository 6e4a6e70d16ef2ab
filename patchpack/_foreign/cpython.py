"""A warning filter that is put into the list of filters of Python's `warnings`, and later removed from this list.

`warnings.catch_warnings` replaces that list for the whole process. If two threads leave `warnings.catch_warnings` in the wrong
order, the list stays replaced. Inserting and removing one filter has no such effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any


class ThreadFilter:
    """A warning filter that asks two functions. They are called in the thread that warns.

    If `warnings` has no list of filters, the functions are not called. All warnings of one package are then ignored.

    Args:
        is_text: a function from the text of a warning to a bool. If it is True, `is_module` decides. If it
            is False, the filter does not apply.
        is_module: a function from the name of the module that warns to a bool. If it is True, the warning
            is ignored. If it is False, the filter does not apply.
        package: name of the package whose warnings are ignored if there is no list.
    """

    def __init__(self, is_text: Callable[[str], bool], is_module: Callable[[str], bool], package: str) -> None:
        # used by `warnings` like compiled patterns; namespaces of functions can be pickled, as some executors do with filters
        self._entry = ("ignore", SimpleNamespace(match=is_text), Warning, SimpleNamespace(match=is_module), 0)
        self._package = package

    def insert(self) -> list[Any] | None:
        """Put the filter before all other filters.

        Return the changed list, which `remove` needs. Return None if there is no list.
        """
        filters: Any = getattr(warnings, "filters", None)
        if not isinstance(filters, list):
            warnings.filterwarnings("ignore", module=rf"{self._package}\.")
            return None
        filters.insert(0, self._entry)
        return filters

    def remove(self, filters: list[Any] | None) -> None:
        """Remove the filter from the list that `insert` returned. If the list has the filter twice, remove only one."""
        if filters is not None:
            with suppress(ValueError):  # other code emptied the list meanwhile
                filters.remove(self._entry)
