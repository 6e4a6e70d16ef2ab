"""The one way kernels are compiled: on first use, without the interpreter's lock, kept on disk wherever that is possible.

numba's cache looks at the file a kernel is written in and at nothing else, so a kernel and every compiled function it calls
live in one file: a change in another would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def njit(function: Kernel) -> Kernel:
    """Compile on first use; another process takes the machine code from the disk.

    Where neither the package's folder nor the user's can be written, ``cache=True`` raises while a module is imported; such a
    place compiles once per process.
    """
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(function))
