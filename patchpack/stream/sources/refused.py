"""Errors for objects that are not sources: lazy tables, and packed shards. Each error says what to do."""

from __future__ import annotations

from typing import Any

from patchpack.errors import SourceError


def refuse_lazy_and_packed(source: Any) -> None:
    """Raise `SourceError` for a lazy table, and for packed shards, which hold batches instead of samples."""
    kinds = source if isinstance(source, type) else type(source)
    if any(kind.__name__ == "PackedShards" for kind in kinds.__mro__):
        raise SourceError(
            "packed shards hold batches already, not samples: iterate over DataLoader(packed, batch_size=None) instead of load"
        )
    for kind in type(source).__mro__:
        if (kind.__module__.partition(".")[0], kind.__name__) == ("polars", "LazyFrame"):
            raise SourceError("a polars LazyFrame has no rows yet: pass df.collect()")
