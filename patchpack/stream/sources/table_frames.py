"""DataFrames of pandas and polars, and tables of pyarrow, read as columns. None of these packages is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from patchpack.errors import SourceError
from patchpack.stream.sources.table_files import Table, holds_bytes

_COLUMNS: dict[tuple[str, str], tuple[str, Callable[[Any, int], Sequence[Any]], str]] = {
    ("pandas", "DataFrame"): (
        "columns",
        lambda frame, number: _pandas_column(frame, number),
        'datasets.Dataset.from_pandas(df), or its rows as dicts, df.to_dict("records")',
    ),
    ("polars", "DataFrame"): (
        "columns",
        lambda frame, number: frame.to_series(number).to_list(),
        "datasets.Dataset.from_polars(df), or its rows as dicts, df.to_dicts()",
    ),
    ("pyarrow", "Table"): (
        "column_names",
        lambda table, number: _arrow_column(table, number),
        "datasets.Dataset(table), or its rows as dicts, table.to_pylist()",
    ),
}  # by package and class: the attribute with the names, the cells of a column, and how images in the table are read


def read_frame(source: Any) -> Table | None:
    """Return the columns of a DataFrame or a pyarrow table, or None for any other object.

    Relative paths in the table start from the working folder.

    Raises:
        SourceError: the table has no rows.
    """
    for kind in type(source).__mro__:  # a GeoDataFrame is a DataFrame
        known = _COLUMNS.get((kind.__module__.partition(".")[0], kind.__name__))
        if known is None:
            continue
        names, column, cure = known
        name = f"{kind.__name__} of {len(source)} rows"
        if not len(source):
            raise SourceError(f"{name}: expected at least one row")
        return Table(
            name, os.getcwd(), [str(one) for one in getattr(source, names)], len(source),
            partial(column, source), None, {}, is_text=False, cure=cure,
        )  # fmt: skip
    return None


def _pandas_column(frame: Any, number: int) -> Sequence[Any]:
    """Return the cells of a column. Where an empty cell turned a column of integers into floats, return integers and NaN."""
    column = frame.iloc[:, number]
    cells: list[Any] = column.tolist()
    if getattr(column.dtype, "kind", "") != "f" or not any(cell != cell for cell in cells):
        return cells
    if all(cell != cell or (cell.is_integer() and abs(cell) < 1 << 53) for cell in cells):
        return [cell if cell != cell else int(cell) for cell in cells]
    return cells


def _arrow_column(table: Any, number: int) -> Sequence[Any]:
    kind = table.schema.field(number).type
    if holds_bytes(kind):
        raise SourceError(
            f"column {table.column_names[number]!r} holds bytes ({kind}), not texts or numbers: pass "
            f"datasets.Dataset(table), or its rows as dicts, table.to_pylist()"
        )
    cells: list[Any] = table.column(number).to_pylist()
    return cells
