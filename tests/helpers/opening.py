"""Sources opened with limits that otherwise only a recipe sets."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.opening import open_within


def opened(source: Any, **options: Any) -> Source:
    """Return the source of some data; options are those of `open_source`, and fields of `Limits`."""
    limits = {field.name: options.pop(field.name) for field in fields(Limits) if field.name in options}
    return open_within(Limits(**limits), source, **options)
