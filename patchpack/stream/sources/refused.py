"""Errors for tables of columns (pandas, polars, arrow) and packed shards, which are not sources. Each error says what to do."""

from __future__ import annotations

from typing import Any

from patchpack.errors import SourceError

_TABLES = {
    ("pandas", "DataFrame"): 'datasets.Dataset.from_pandas(df), or its rows as dicts, df.to_dict("records")',
    ("polars", "DataFrame"): "datasets.Dataset.from_polars(df), or its rows as dicts, df.to_dicts()",
    ("polars", "LazyFrame"): "its rows as dicts, df.collect().to_dicts()",
    ("pyarrow", "Table"): "datasets.Dataset(table), or its rows as dicts, table.to_pylist()",
}


def refuse_tables_and_packed(source: Any) -> None:
    """Raise `SourceError` for a table of columns, and for packed shards, which hold batches instead of samples."""
    kinds = source if isinstance(source, type) else type(source)
    if any(kind.__name__ == "PackedShards" for kind in kinds.__mro__):
        raise SourceError(
            "packed shards hold batches already, not samples: iterate over DataLoader(packed, batch_size=None) instead of load"
        )
    cure = _cure_of_table(source)
    if cure is not None:
        kind = type(source)
        raise SourceError(f"a {kind.__module__.partition('.')[0]} {kind.__name__} has columns, not samples: pass {cure}")


def _cure_of_table(source: Any) -> str | None:
    for kind in type(source).__mro__:  # a GeoDataFrame is a DataFrame
        cure = _TABLES.get((kind.__module__.partition(".")[0], kind.__name__))
        if cure is not None:
            return cure
    return None
