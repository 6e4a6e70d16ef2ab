"""Subclasses of the processors that are also instances of transformers' ``BaseImageProcessor``.

This module never imports transformers. A subclass is made only after other code has imported transformers.
"""

from __future__ import annotations

import importlib
import sys
import typing
from dataclasses import fields
from typing import Any

_made: dict[type, type | None] = {}


def native_class(plain: type) -> type:
    """Return a subclass of `plain` and of ``BaseImageProcessor``. Return `plain` itself if transformers is not imported."""
    if sys.modules.get("transformers") is None or plain in _made.values():
        return plain
    if plain not in _made:
        _made.setdefault(plain, _make(plain))  # of two threads, the class of the first stays
    return _made[plain] or plain


def become_native(processor: object) -> bool:
    """Change the class of a processor to the `native_class` of its class. Return True if the class changed."""
    wanted = native_class(type(processor))
    if wanted is type(processor):
        return False
    object.__dict__["__class__"].__set__(processor, wanted)  # the class has a property of this name
    return True


def plain_class(kind: type) -> type:
    """Return the original class of a class that `native_class` made. Return any other class unchanged."""
    return next((plain for plain, native in _made.items() if native is kind), kind)


def _make(plain: Any) -> type | None:
    try:
        base = importlib.import_module("transformers.image_processing_utils").BaseImageProcessor
        common = importlib.import_module("transformers.processing_utils").ImagesKwargs
    except Exception:  # a transformers that cannot import these has no working processors of its own either
        return None
    typed_dict: Any = typing.TypedDict
    own = {field.name: Any for field in fields(plain)}
    valid = typed_dict(f"{plain.__name__}Kwargs", {**common.__annotations__, **own}, total=False)
    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__, "valid_kwargs": valid}
    made: type = type(plain)(plain.__name__, (plain, base), body)
    return made
