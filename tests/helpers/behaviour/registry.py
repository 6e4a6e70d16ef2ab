"""The list of cases, and how one is run."""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.behaviour import names
from helpers.behaviour.values import Parts

LIMIT = 60.0  # seconds of one case, after which it has failed

Case = Callable[[Parts], None]
CASES: dict[str, Case] = {}


def add(name: str, case: Callable[..., None], *args: Any, **words: Any) -> None:
    """Enter a case, which is called with the parts that it fills and with these arguments."""
    if name in CASES:
        raise ValueError(f"two cases are named {name!r}")
    CASES[name] = lambda parts: case(parts, *args, **words)


def run(name: str, *, tell: bool = False) -> dict[str, str]:
    """Run a case in the working folder and return its digests, and under "error" the kind of what it raised.

    Args:
        name: of the case.
        tell: print the traceback of an error that is not the library's.
    """
    parts = Parts(os.getcwd())
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  a user's dataset may draw from it
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(LIMIT):
                CASES[name](parts)
        except Exception as error:
            kind = names.kind_of(error)
            parts.say("error", kind)
            if tell and not kind.endswith("Error"):
                print(f"{name}: {kind}", file=sys.stderr)
            elif tell and not isinstance(error, names.find("PatchpackError")):
                print(name, file=sys.stderr)
                traceback.print_exception(error, file=sys.stderr)
    return parts.digests()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the main thread after so many seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change the working folder for a while."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
