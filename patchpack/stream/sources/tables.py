"""Tables of columns (pandas, polars, arrow), which are not sources, and what to pass instead."""

from __future__ import annotations

from typing import Any

_TABLES = {
    ("pandas", "DataFrame"): 'datasets.Dataset.from_pandas(df), or its rows as dicts, df.to_dict("records")',
    ("polars", "DataFrame"): "datasets.Dataset.from_polars(df), or its rows as dicts, df.to_dicts()",
    ("polars", "LazyFrame"): "its rows as dicts, df.collect().to_dicts()",
    ("pyarrow", "Table"): "datasets.Dataset(table), or its rows as dicts, table.to_pylist()",
}


def cure_of_table(source: Any) -> str | None:
    """Return the cure for a table, which is not a source; None for anything else."""
    for kind in type(source).__mro__:  # a GeoDataFrame is a DataFrame
        cure = _TABLES.get((kind.__module__.partition(".")[0], kind.__name__))
        if cure is not None:
            return cure
    return None
