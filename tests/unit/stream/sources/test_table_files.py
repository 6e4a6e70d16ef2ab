"""Tables in files: the cells of CSV, JSON Lines and Parquet, and what is said about tables that are damaged."""

from __future__ import annotations

import builtins
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import patchpack as pp
from patchpack.stream.sources.table_columns import labels_in
from patchpack.stream.sources.table_files import Table, is_table, read_table

NAMES = frozenset({"file", "label"})


def written(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def cells(table: Table) -> dict[str, list[Any]]:
    return {name: list(table.column(number)) for number, name in enumerate(table.names)}


def read(folder: Path, name: str, data: str | bytes) -> Table:
    return read_table(written(folder, name, data), NAMES)


# ---------------------------------------------------------------------------------------------------------------------- csv

CSV = {
    "plain": "file,label\na.png,1\nb.png,2\n",
    "no line end at the end": "file,label\na.png,1\nb.png,2",
    "a byte order mark": "\ufefffile,label\na.png,1\nb.png,2\n",
    "Windows line ends": "file,label\r\na.png,1\r\nb.png,2\r\n",
    "empty lines": "file,label\n\na.png,1\n\n\nb.png,2\n\n",
    "quoted cells": '"file","label"\n"a.png","1"\n"b.png",2\n',
}


@pytest.mark.parametrize("name", CSV)
def test_forms_of_one_csv_table(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", CSV[name])
    assert cells(table) == {"file": ["a.png", "b.png"], "label": ["1", "2"]}
    assert (table.num_rows, table.faults, table.name, table.folder) == (2, {}, "t.csv", str(tmp_path))


def test_tabs_and_compression(tmp_path: Path) -> None:
    text = "file\tlabel\na,b.png\t1\n"
    assert cells(read(tmp_path, "t.tsv", text)) == {"file": ["a,b.png"], "label": ["1"]}
    assert cells(read(tmp_path, "t.TSV.gz", gzip.compress(text.encode()))) == {"file": ["a,b.png"], "label": ["1"]}


def test_a_cell_may_hold_lines_and_the_line_of_a_row_is_its_first(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", 'file,label\na.png,"two\nlines"\nb.png,x\n')
    assert cells(table)["label"] == ["two\nlines", "x"]
    assert [table.place(row) for row in range(2)] == ["line 2", "line 4"]


def test_a_row_with_other_cells_than_columns_is_kept_as_a_fault(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "file,label\na.png,1\nb.png\nc.png,1,2\nd.png,4\n")
    assert cells(table)["file"] == ["a.png", "", "", "d.png"]
    assert list(table.faults) == [1, 2]
    assert table.faults[1] == "this row has 1 cells, and the first line of the table names 2 columns"


def test_a_row_with_a_stray_quotation_mark_is_a_fault(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", 'file,label\n"a".png,1\nb.png,2\n')
    assert list(table.faults) == [0]
    assert "this row is not CSV" in table.faults[0]
    assert cells(table)["file"] == ["", "b.png"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('a.png,1\n"b.png,2\nc.png,3\n', "a quotation mark in line 3 is not closed properly, lines 3 to 4 cannot be read"),
        ('"a.png,1\n"b.png",2\n', "a quotation mark in line 2 is not closed properly, lines 2 to 3 cannot be read"),
        ('a.png,1\n"b.png,2', "a quotation mark in line 3 is not closed properly"),
    ],
)
def test_a_quotation_mark_that_swallows_rows_is_refused(rows: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(pp.errors.SourceError, match=said):
        read(tmp_path, "t.csv", f"file,label\n{rows}")


def test_only_columns_that_may_be_used_are_kept(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "file,other, LABEL \na.png,x,1\n")
    assert table.names == ["file", "other", " LABEL "]
    assert list(table.column(2)) == ["1"]
    with pytest.raises(KeyError):
        table.column(1)


@given(rows=st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1, max_size=8))
@example(rows=[("a\n\rb", '"'), ("", " x ")])
def test_csv_gives_what_was_written(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [tuple(cell.replace("\r", "").replace("\0", "") or "x" for cell in row) for row in rows]  # type: ignore[misc]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("file", "label"), *rows])
    data = text.getvalue().encode("utf-8", "replace")
    table = read(tmp_path_factory.mktemp("t"), "t.csv", data)
    expected = [tuple(cell.encode("utf-8", "replace").decode() for cell in row) for row in rows]
    assert list(zip(*cells(table).values(), strict=True)) == expected
    assert not table.faults


# ------------------------------------------------------------------------------------------------------------------- labels


def labels(*values: Any, is_text: bool = True) -> list[Any]:
    return labels_in(Table("t", "", ["label"], len(values), lambda _: values, None, {}, is_text, ""), 0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1", "-2", "+3", " 4 "], [1, -2, 3, 4]),
        (["1", "2.5", "-1e3"], [1.0, 2.5, -1000.0]),
        (["1", "cat"], ["1", "cat"]),
        (["1", "", "nan"], [1, None, None]),
        (["nan", "cat", "", " "], ["nan", "cat", None, None]),
        (["1_0", "2"], ["1_0", "2"]),
        (["0x10", "2"], ["0x10", "2"]),
        (["007"], [7]),
        (["9223372036854775807", "-9223372036854775808"], [9223372036854775807, -9223372036854775808]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),  # a float would not be this number
        (["1.5", "123456789012345678901"], ["1.5", "123456789012345678901"]),
        (["1.5", "16777217"], [1.5, 16777217]),  # float32 does not hold the integer, so painting rejects its row
        (["inf", "-Infinity", ".5", "5."], [float("inf"), float("-inf"), 0.5, 5.0]),
        (["", ""], [None, None]),
        pytest.param(["9" * 5000], ["9" * 5000], id="5000 digits"),
        (["true", "false"], ["true", "false"]),
    ],
    ids=str,
)
def test_labels_of_a_csv_column(written: list[str], expected: list[Any]) -> None:
    found = labels(*written)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_labels_of_other_tables_keep_their_types() -> None:
    values = [1, None, float("nan"), True, "1", [1, 2], {"a": 1}]
    assert labels(*values, is_text=False) == [1, None, None, True, "1", [1, 2], {"a": 1}]
    assert list(map(type, labels(1, 0.5, is_text=False))) == [float, float]


def naive(text: str) -> Any:
    """Return the number that a text is, by Python's own rules, or the text."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return text if isinstance(value, int) and not -(2**63) <= value < 2**63 else value
    return text


NUMBERS = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False).map(repr),
    st.sampled_from(["cat", "1e5", "", "+1", "-0", "1.", "infinity"]),
)


@given(texts=st.lists(NUMBERS, min_size=1, max_size=5))
def test_labels_of_a_csv_column_by_python_s_own_rules(texts: list[str]) -> None:
    expected: list[Any] = [naive(text) if text else None for text in texts]
    kinds = {type(value) for value in expected if value is not None}
    if str in kinds:
        expected = [text or None for text in texts]
    elif kinds == {int, float}:
        expected = [float(v) if isinstance(v, int) and abs(v) <= 1 << 24 else v for v in expected]
    assert labels(*texts) == expected


# --------------------------------------------------------------------------------------------------------------- json lines


def test_json_lines_may_have_other_names_in_every_line(tmp_path: Path) -> None:
    rows = [{"file": "a.png"}, {"label": 1, "other": 5, "file": "b.png"}, {}, {"label": [1, 2]}]
    text = "\ufeff" + "\n\n".join(map(json.dumps, rows))
    for name, data in (("t.jsonl", text.encode()), ("t.ndjson", text.encode()), ("t.jsonl.gz", gzip.compress(text.encode()))):
        table = read(tmp_path, name, data)
        assert table.names == ["file", "label", "other"]
        assert list(table.column(0)) == ["a.png", "b.png", None, None]
        assert list(table.column(1)) == [None, 1, None, [1, 2]]
        assert [table.place(row) for row in range(4)] == ["line 1", "line 3", "line 5", "line 7"]


HOSTILE = {
    "no JSON": b"file",
    "a list": b"[1]",
    "a number": b"3",
    "half": b'{"file": "a.p',
    "no UTF-8": b'{"file": "\xff"}',
    "deep": b"[" * 100_000,
    "a long integer": b'{"label": ' + b"9" * 5000 + b"}",
    "two objects": b'{"file": "a"} {"file": "b"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_that_is_no_object_is_a_fault(name: str, tmp_path: Path) -> None:
    table = read(tmp_path, "t.jsonl", b'{"file": "a.png"}\n' + HOSTILE[name] + b'\n{"file": "b.png"}\n')
    assert list(table.faults) == [1]
    assert table.faults[1].startswith("this line is not a JSON object: ")
    assert list(table.column(0)) == ["a.png", None, "b.png"]
    with pytest.raises(pp.errors.SourceError, match=r"t\.jsonl has no line with a JSON object, line 1: this line is not"):
        read(tmp_path, "t.jsonl", HOSTILE[name])


# ------------------------------------------------------------------------------------------------------------------ parquet


def parquet(folder: Path, **columns: Any) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet_files

    path = str(folder / "t.parquet")
    parquet_files.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_gives_python_s_values(tmp_path: Path) -> None:
    columns = {"file": ["a.png", None], "label": [1, 2], "boxes": [[0.5], [1.5, 2.5]], "meta": [{"a": 1}, {"a": 2}]}
    table = read_table(parquet(tmp_path, **columns), NAMES)
    assert cells(table) == columns
    assert (table.place(1), table.num_rows, table.is_text) == ("row 1", 2, False)


@pytest.mark.parametrize("cell", [b"\xff\xd8", {"bytes": b"\xff\xd8", "path": "a.jpg"}, [b"\xff\xd8"]], ids=str)
def test_a_parquet_column_of_bytes_says_what_to_do(cell: Any, tmp_path: Path) -> None:
    table = read_table(parquet(tmp_path, image=[cell]), NAMES)
    with pytest.raises(
        pp.errors.SourceError, match=r"column 'image' of .*t\.parquet holds bytes, .*: pass datasets\.load_dataset\('parquet'"
    ):
        table.column(0)


def test_parquet_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = written(tmp_path, "t.parquet", b"PAR1"), builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(pp.errors.ConfigError, match=r"needs pyarrow, .*: pip install 'patchpack\[tables\]'"):
        read_table(path, NAMES)


# ------------------------------------------------------------------------------------------------- what is no table at all

REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    "an empty file": ("t.csv", "", "is empty: expected a first line with the names of the columns"),
    "an empty first line": ("t.csv", ",,\na,b,c\n", "is empty: expected a first line"),
    "only a header": ("t.csv", "file,label\n", "has no rows: expected at least one row"),
    "no lines of JSON": ("t.jsonl", "\n\n", "has no rows: expected at least one row"),
    "Latin-1": ("t.csv", "file,label\nb.png,2\né.png,1\n".encode("latin-1"), "line 3 of table .* is not UTF-8"),
    "UTF-16": ("t.csv", "file,label\n".encode("utf-16"), "line 1 of table .* is not UTF-8"),
    "no gzip": ("t.csv.gz", "file,label\na.png,1\n", "cannot be read: BadGzipFile"),
    "half a gzip": ("t.csv.gz", gzip.compress(b"file,label\na.png,1\n" * 99)[:40], "cannot be read: EOFError"),
    "no Parquet": ("t.parquet", b"x" * 99, "is not a Parquet file"),
    "an empty Parquet": ("t.parquet", b"", "is not a Parquet file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    file, data, said = REFUSED[name]
    with pytest.raises(pp.errors.SourceError, match=said):
        read(tmp_path, file, data)


def test_a_table_that_is_missing_or_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pp.errors.SourceError, match=r"table no\.csv does not exist \(working directory "):
        pp.load("no.csv", pp.recipes.navit())
    with pytest.raises(pp.errors.SourceError, match="is the URL of a table, but tables are read from this machine only"):
        pp.load("s3://bucket/train.csv", pp.recipes.navit())
    with pytest.raises(pp.errors.SourceError, match=r"table no\.jsonl\.gz does not exist"):
        pp.load(Path("no.jsonl.gz"), pp.recipes.navit())


def test_names_of_tables() -> None:
    assert all(map(is_table, ["a.csv", "A.CSV", "b/a.tsv.gz", "a.jsonl", "a.ndjson.gz", "a.parquet", "s3://a/b.csv"]))
    assert not any(map(is_table, ["a.json", "csv", "a.csv.zip", "a.parquet.gz", "pipe:cat a.csv", "a.tar"]))
