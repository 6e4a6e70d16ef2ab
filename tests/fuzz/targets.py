"""All targets by name, each imported when it is asked for: most need no torch, and starting is what a short run takes."""

from __future__ import annotations

from importlib import import_module

from .target import Target

_PLACES = {
    "jpeg": ("headers", "JPEG"),
    "header": ("headers", "HEADER"),
    "tar": ("archives", "TAR"),
    "samples": ("archives", "SAMPLES"),
    "shard": ("archives", "SHARD"),
    "label": ("labels", "TARGET"),
    "index": ("indexes", "TARGET"),
    "state": ("states", "TARGET"),
    "packed": ("packs", "STEP"),
    "manifest": ("packs", "MANIFEST"),
}
NAMES = tuple(_PLACES)


def find(name: str) -> Target:
    """The target of this name."""
    module, attribute = _PLACES[name]
    target: Target = getattr(import_module(f"fuzz.{module}"), attribute)
    return target
