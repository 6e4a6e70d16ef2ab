"""The decorator that compiles kernels with numba at their first use. Kernels run without the interpreter's lock.

Compiled kernels are cached on disk.

numba's cache checks only the file in which a kernel is written, so it does not notice a change in another file. Therefore a
kernel and every compiled function that it calls are in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def njit(function: Kernel) -> Kernel:
    """Compile a function on its first call. Other processes load the machine code from the disk.

    If neither the package's folder nor the user's cache folder can be written, numba raises an error for ``cache=True``. The
    function is then compiled once per process.
    """
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(function))
