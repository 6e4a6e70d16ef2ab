"""Tables with a column of paths: the columns that are read, keys, labels, texts, and what is said about rows and files."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.opening import opened
from patchpack.stream.sources.opening import open_source
from patchpack.types import Header

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(4), patch_size=16, seq_len=8, rows_per_batch=1)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), "teal").save(file, "png")
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the images ``a.png``, ``b.png`` and ``sub/c.png``."""
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).write_bytes(png())
    return tmp_path


def csv(root: Path, *lines: str, name: str = "train.csv") -> str:
    (root / name).write_text("\n".join(lines) + "\n")
    return str(root / name)


def jsonl(root: Path, *rows: Any) -> str:
    return csv(root, *map(json.dumps, rows), name="train.jsonl")


def labels(source: Any, **options: Any) -> dict[str, Any]:
    """Key to label of all samples of a source."""
    there = open_source(source, **options)
    return {event.key: there.reader.target(event.location) for event in there.scan() if isinstance(event, Header)}


def rejections(source: Any, **options: Any) -> list[tuple[str, str, str]]:
    events = open_source(source, **options).scan()
    return [(event.key, event.stage, event.reason) for event in events if isinstance(event, pp.Rejection)]


# ------------------------------------------------------------------------------------------------------------------ columns


@pytest.mark.parametrize("image", ["image", "file", "file_name", "filename", "path", "image_path", "filepath", " File "])
@pytest.mark.parametrize("label", ["label", "class", "target", "cls", "Label"])
def test_usual_names_of_columns(image: str, label: str, root: Path) -> None:
    assert labels(csv(root, f"id,{image},{label}", "7,a.png,1", "8,b.png,2")) == {"a.png": 1, "b.png": 2}


def test_columns_that_are_named(root: Path) -> None:
    table = csv(root, "Photo,file,score,label", "a.png,x,0.5,cat", "b.png,y,1,dog")
    assert labels(table, image="photo", target="Score") == {"a.png": 0.5, "b.png": 1.0}
    assert labels(table, image="Photo", target=("score", "label"))["b.png"] == {"score": 1.0, "label": "dog"}
    assert labels(table, image="photo", target=None) == {"a.png": None, "b.png": None}
    assert labels(table, image="photo", target="photo")["a.png"] == "a.png"
    assert labels(table, image="photo", target="label", map_target=["dog", "cat"].index) == {"a.png": 1, "b.png": 0}


UNCLEAR: dict[str, tuple[str, dict[str, Any], str]] = {
    "no image": (
        "photo,label",
        {},
        r"no column of train\.csv has a usual name for paths \(image, .*: pass the name of the .*image=",
    ),
    "two images": ("file,path,label", {}, r"has 2 columns that may hold the paths, 'file' and 'path': pass the name"),
    "no label": ("file,number", {}, r"no column of train\.csv has a usual name for labels .*or target=None for images without"),
    "two labels": ("file,label,class", {}, r"2 columns that may hold the labels, 'label' and 'class': pass .* as target="),
    "a wrong image": (
        "file,label",
        {"image": "files"},
        r"image='files' is not a column .*'file', 'label'; did you mean 'file'\?",
    ),
    "a wrong label": ("file,label", {"target": "labels"}, r"target='labels' is not a column .*; did you mean 'label'\?"),
    "a wrong key": ("file,label,id", {"keys": "idx"}, r"keys='idx' is not a column .*; did you mean 'id'\?"),
    "an alike name": ("file,File,label", {"image": "file"}, r"image='file' is the name of 2 columns .*, 'file' and 'File'"),
    "two named": ("file,path,label", {"image": "file;path"}, r"names 2 columns, but one column of train\.csv holds the paths"),
    "semicolons": ("file;label", {}, r"one column, with ';' in its name: columns are separated by ',' in \.csv"),
    "no header": ("a.png,1", {}, r"the first line of the table must name the columns"),
    "no text": ("file,label", {"tokenize": len}, r"text='txt' is not a column of train\.csv"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_columns_that_are_not_clear_are_refused(name: str, root: Path) -> None:
    header, options, said = UNCLEAR[name]
    with pytest.raises(pp.errors.ConfigError, match=said):
        open_source(csv(root, header, ",".join(["a.png"] * (header.count(",") + 1))), **options)


def test_options_that_do_not_fit_are_refused(root: Path) -> None:
    table = csv(root, "file,label", "a.png,1")
    for options, said in (
        ({"classes": ["a"]}, r"classes= is for folders of image files, and train\.csv is not one"),
        ({"sizes": [(1, 1)]}, r"sizes= and size_of= are for datasets"),
        ({"to_sample": len}, r"to_sample= is for the items of a dataset"),
        ({"frames": "*.jpg"}, r"frames='\*\.jpg' needs members of shards or columns of items, and train\.csv has paths"),
        ({"root": 5}, r"root= must be the path of a folder, got 5"),
        ({"keys": 5}, r"keys= must be the name of a column, got 5"),
    ):
        with pytest.raises(pp.errors.ConfigError, match=said):
            open_source(table, **options)
    for source in (root / "sub", pp.samples.shards("val"), [pp.Sample("a", png())]):
        for option in ("root", "keys"):
            with pytest.raises(pp.errors.ConfigError, match=f"{option}= is for tables with a column of paths"):
                open_source(source, target=None, **{option: "x"})


# ------------------------------------------------------------------------------------------------------------- paths, files


def test_paths_start_from_the_folder_of_the_table_or_from_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = csv(root / "sub", "file,label", "c.png,1")
    assert labels(table) == {"c.png": 1}
    table = csv(root / "sub", "file,label", "a.png,1", f"{root}/sub/c.png,2")
    monkeypatch.chdir(root / "sub")
    for where in (root, str(root), "..", "../"):
        assert labels("train.csv", root=where) == {"a.png": 1, f"{root}/sub/c.png": 2}
    source = open_source("train.csv", root="..")
    monkeypatch.chdir("/")  # a worker may have another working folder
    assert [source.reader(event.location)[0][:4] for event in source.scan() if isinstance(event, Header)] == [b"\x89PNG"] * 2


def test_headers_say_key_table_file_and_size(root: Path) -> None:
    (header,) = open_source(csv(root, "file,label", "sub/c.png,1")).scan()
    assert header[:5] == ("sub/c.png", "train.csv", "c.png", (16, 20), ("sub/c.png", 1))


def test_files_that_are_missing_are_named(root: Path) -> None:
    table = csv(root, "file,label", "a.png,1", "no/x.png,2", "b.png,3")
    ((key, stage, reason),) = rejections(table)
    assert (key, stage) == ("no/x.png", "read")
    assert f"{root}/no/x.png" in reason
    with pytest.raises(pp.errors.SourceError, match=r"no/x\.png \(x\.png\): FileNotFoundError"):
        list(pp.load(table, RECIPE))


def test_a_root_that_is_wrong_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{number}.png,1" for number in range(100)]
    table = csv(root, "file,label", *many)
    with pytest.raises(
        pp.errors.SourceError, match=rf"none of the first 100 files exists, the first is {root}/0\.png: pass root=, the folder"
    ):
        open_source(table)
    with pytest.raises(pp.errors.SourceError, match=r"/sub/0\.png: root= is probably wrong"):
        open_source(table, root=root / "sub")
    with pytest.raises(pp.errors.SourceError, match="its only file does not exist: "):
        open_source(csv(root, "file,label", "x.png,1"))
    with pytest.raises(pp.errors.SourceError, match="separated by backslashes"):
        open_source(csv(root, "file,label", "sub\\c.png,1"))
    assert len(rejections(csv(root, "file,label", *many[1:], "a.png,1"))) == 99  # the hundredth exists
    with pytest.raises(pp.errors.SourceError, match=r"root='nowhere' does not exist \(working directory "):
        open_source(table, root="nowhere")
    with pytest.raises(pp.errors.SourceError, match=r"root='.*a\.png' is not a folder"):
        open_source(table, root=root / "a.png")
    monkeypatch.chdir(root)
    with pytest.raises(pp.errors.SourceError, match=r"exists in the working folder: pass root='\.'"):
        open_source(csv(root / "sub", "file,label", "a.png,1"))


def test_rows_without_a_path_are_rejected(root: Path) -> None:
    rows = [{"file": "a.png", "label": 1}, {"label": 1}, {"file": "", "label": 1}, {"file": [], "label": 1}, {"file": 5}]
    rows += [{"file": "https://host/a.png", "label": 1}, {"file": ["a.png", None]}, {"file": [["a.png"]]}]
    found = rejections(jsonl(root, *rows))
    assert [(key, stage) for key, stage, _ in found] == [(f"train.jsonl line {n}", "read") for n in range(2, 9)]
    said = [reason.removeprefix("column 'file': ") for *_, reason in found]
    assert said[:4] == ["the cell of the path is empty"] * 2 + [
        "the list of paths is empty",
        "expected a path or a list of paths, got a int",
    ]
    assert said[4] == "'https://host/a.png' is a URL, but images of a table are read from paths on this machine"


def test_rows_of_a_file_that_cannot_be_read_are_rejected(root: Path) -> None:
    table = csv(root, "file,label", "a.png,1", "b.png", "sub/c.png,1,2")
    assert [(key, stage) for key, stage, _ in rejections(table)] == [
        ("train.csv line 3", "read"),
        ("train.csv line 4", "read"),
    ]
    with pytest.raises(pp.errors.SourceError, match=r"^train\.csv line 3: this row has 1 cells, and the first line"):
        list(pp.load(table, RECIPE))


def test_strange_paths_are_rejections(root: Path) -> None:
    (root / "no.png").write_bytes(b"no image")
    rows = [{"file": name, "label": 1} for name in ("a.png", "sub", "no.png", "a\0.png", "\ud800.png", "a.png/b", "x" * 5000)]
    assert [stage for _, stage, _ in rejections(jsonl(root, *rows))] == ["read", "header", "read", "read", "read", "read"]


# --------------------------------------------------------------------------------------------------------------------- keys


def test_a_path_that_comes_twice_is_rejected_unless_rows_have_keys(root: Path) -> None:
    table = csv(root, "id,file,label", "7,a.png,1", "8,a.png,2", "9,b.png,3")
    ((key, stage, reason),) = rejections(table)
    assert (key, stage) == ("train.csv line 3", "read")
    assert reason.startswith("path 'a.png' appears before in the table, in line 2: pass the name of a column ")
    assert labels(table) == {"a.png": 1, "b.png": 3}
    assert labels(table, keys="id") == {"7": 1, "8": 2, "9": 3}
    assert labels(csv(root, "file,label", "a.png,1", "./a.png,2")) == {"a.png": 1, "./a.png": 2}


def test_keys_are_texts_or_integers_and_different(root: Path) -> None:
    rows = [("x", "a.png"), (5, "a.png"), (None, "b.png"), (0.5, "b.png"), ("", "b.png"), (True, "b.png"), ("x", "b.png")]
    table = jsonl(root, *[{"id": key, "file": path, "label": 1} for key, path in rows])
    assert list(labels(table, keys="id")) == ["x", "5"]
    found = rejections(table, keys="id")
    assert [key for key, *_ in found] == [f"train.jsonl line {n}" for n in range(3, 8)]
    assert found[0][2] == "key 'id' must be a text or an integer, got None"
    assert found[-1][2].startswith("key 'x' appears before in the table, in line 1")


def test_the_state_knows_paths_labels_and_columns(root: Path) -> None:
    table = csv(root, "id,file,label,class", "7,a.png,1,1", "8,b.png,2,2")
    state = pp.load(table, RECIPE, target="label").state_dict()
    pp.load(table, RECIPE, target="label", root=str(root)).load_state_dict(state)
    with pytest.raises(pp.errors.ConfigError, match="target"):
        pp.load(table, RECIPE, target="class").load_state_dict(state)
    with pytest.raises(pp.errors.ConfigError, match="samples or shards differs"):
        pp.load(table, RECIPE, target="label", keys="id").load_state_dict(state)
    for other in (["7,a.png,1,1", "8,b.png,3,2"], ["8,b.png,2,2", "7,a.png,1,1"], ["7,a.png,1,1"]):
        csv(root, "id,file,label,class", *other)
        with pytest.raises(pp.errors.ConfigError, match="samples or shards differs"):
            pp.load(table, RECIPE, target="label").load_state_dict(state)


# -------------------------------------------------------------------------------------------------- labels, texts, documents


def test_a_missing_label_is_a_rejection(root: Path) -> None:
    table = csv(root, "file,label,score", "a.png,1,0.5", "b.png,,1", "sub/c.png,3,nan")
    assert labels(table) == {"a.png": 1, "sub/c.png": 3}
    ((key, stage, reason),) = rejections(table)
    assert (key, stage) == ("train.csv line 3", "target")
    assert reason.startswith("column 'label': the cell of the label is empty. To keep such rows, replace None in map_target=")
    assert [key for key, *_ in rejections(table, target=("label", "score"))] == ["train.csv line 3", "train.csv line 4"]
    with pytest.raises(pp.errors.TargetError, match=r"train\.csv line 3: column 'label': the cell of the label is empty"):
        list(pp.load(table, RECIPE))
    assert len(labels(table, target=None)) == 3


def test_labels_of_json_lines_are_its_values(root: Path) -> None:
    values = [3, 0.5, "cat", [1, 2], {"a": 1}, True]
    rows = [{"file": "a.png", "id": number, "label": value} for number, value in enumerate(values)]
    assert list(labels(jsonl(root, *rows), keys="id").values()) == [3.0, *values[1:]]


def test_texts_are_a_column(root: Path) -> None:
    table = csv(root, "file,text,caption", "a.png,one,three", "b.png,,five", 'sub/c.png,"a b",x')
    (batch,) = pp.load(
        table, RECIPE.replace(seq_len=16), target=None, tokenize=lambda t: [*t.encode()], text_len=8, on_error="skip"
    )
    assert batch.keys == [["a.png", "sub/c.png"]]
    assert batch.text_ids[0].tolist() == [*b"one", *b"a b", 0, 0]
    found = rejections(table, target=None, tokenize=lambda t: [*t.encode()])
    assert [(key, stage) for key, stage, _ in found] == [("b.png", "target")]
    events = opened(table, target=None, text="caption", tokenize=lambda t: [len(t)]).scan()
    assert [np.frombuffer(event.text, np.int32).tolist() for event in events if isinstance(event, Header)] == [[5], [4], [1]]
    rows = jsonl(root, {"file": "a.png", "meta": {"caption": "four"}}, {"file": "b.png", "meta": {}})
    first, second = opened(rows, target=None, text="meta:caption", tokenize=lambda t: [len(t)]).scan()
    assert isinstance(first, Header)
    assert np.frombuffer(first.text, np.int32).tolist() == [4]
    assert isinstance(second, pp.Rejection)
    assert "no field 'caption'" in second.reason


def test_a_list_of_paths_is_one_sample(root: Path) -> None:
    table = jsonl(root, {"file": ["a.png", "sub/c.png"], "label": 1}, {"file": "b.png", "label": 2})
    first, second = open_source(table).scan()
    assert isinstance(first, Header)
    assert [(header.key, header.member, header.part) for header in first.images] == [
        ("a.png", "a.png", 0),
        ("a.png", "c.png", 1),
    ]
    (batch,) = pp.load(table, RECIPE.replace(seq_len=16))
    assert batch.keys == [["a.png", "a.png", "b.png"]]
    assert batch.targets[0, :3].tolist() == [1, 1, 2]
    assert isinstance(second, Header)
    with pytest.raises(pp.errors.SourceError, match=r"a\.png \(x\.png\): FileNotFoundError"):
        list(pp.load(jsonl(root, {"file": ["a.png", "x.png"], "label": 1}), RECIPE))


# --------------------------------------------------------------------------------------------------------------- DataFrames


class Polars:
    """A DataFrame with the methods of polars that are used."""

    __module__ = "polars.dataframe.frame"

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __len__(self) -> int:
        return len(self._columns[self.columns[0]])

    def to_series(self, number: int) -> Any:
        series = type("Series", (), {"to_list": lambda _: self._columns[self.columns[number]]})
        return series()


Polars.__name__ = "DataFrame"


def frames(columns: dict[str, list[Any]]) -> list[Any]:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    return [pandas.DataFrame(columns), pyarrow.table(columns), Polars(columns)]


def test_data_frames_are_read_from_the_working_folder_or_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in frames({"file": ["a.png", "b.png"], "label": [3, 4], "Score": [0.5, None]}):
        assert labels(frame, root=root) == {"a.png": 3, "b.png": 4}
        ((key, stage, _),) = rejections(frame, root=root, target="score")
        assert (key, stage) == (f"{type(frame).__name__} of 2 rows row 1", "target")
        with pytest.raises(pp.errors.SourceError, match="none of the first 2 files exists"):
            open_source(frame)
    monkeypatch.chdir(root)
    for frame in frames({"file": ["a.png", "b.png"], "label": [3, 4]}):
        source = pickle.loads(pickle.dumps(open_source(frame)))
        assert [event.key for event in source.scan()] == ["a.png", "b.png"]


def test_data_frames_without_rows_or_with_images_say_what_to_do(root: Path) -> None:
    for frame in frames({"file": [], "label": []}):
        with pytest.raises(pp.errors.SourceError, match=r"of 0 rows: expected at least one row"):
            open_source(frame, root=root)
    cures = [r'df\.to_dict\("records"\)', r"table\.to_pylist\(\)", r"df\.to_dicts\(\)"]
    for frame, cure in zip(frames({"image": [png()], "label": [1]}), cures, strict=True):
        with pytest.raises(pp.errors.SourceError, match=f"'image' .*holds bytes.*{cure}"):
            open_source(frame, root=root)


def test_cells_of_pandas(root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({
        "file": [Path("a.png"), np.array(["b.png", "sub/c.png"], dtype=object), "sub/c.png"],
        "label": pandas.array([1, None, 3], dtype="Int64"),
        "kind": pandas.Categorical(["x", "y", "x"]),
        5: [1, 2, 3],
    })  # fmt: skip
    assert labels(frame, root=root) == {"a.png": 1, "sub/c.png": 3}
    assert labels(frame, root=root, target="kind") == {"a.png": "x", "b.png": "y", "sub/c.png": "x"}
    assert labels(frame, root=root, target="5") == {"a.png": 1, "b.png": 2, "sub/c.png": 3}
    twice = pandas.DataFrame([["a.png", "b.png", 1]], columns=["file", "file", "label"])
    with pytest.raises(pp.errors.ConfigError, match=r"columns that may hold the paths, 'file' and 'file'"):
        open_source(twice, root=root)
    pictures = pandas.DataFrame({"image": [Image.new("RGB", (4, 4))], "label": [1]})
    with pytest.raises(pp.errors.SourceError, match="holds objects of type Image, not paths: pass "):
        open_source(pictures, root=root)
    subclass = type("GeoDataFrame", (pandas.DataFrame,), {"__module__": "geopandas.geodataframe"})
    assert labels(subclass({"file": ["a.png"], "label": [1]}), root=root) == {"a.png": 1}


# ------------------------------------------------------------------------------------------------------------- several files


def test_tables_that_are_not_passed_alone_say_what_to_do(root: Path) -> None:
    table = csv(root, "file,label", "a.png,1")
    for source in ([table, table], [table, str(root / "a.png")], f"{root}/train*"):
        csv(root, "file,label", "b.png,1", name="train2.csv")
        with pytest.raises(pp.errors.SourceError, match="a table is passed alone: join several tables, for example with"):
            open_source(source)
    for name in ("t.xlsx", "t.feather", "t.json"):
        (root / name).write_bytes(b"x")
        with pytest.raises(pp.errors.SourceError, match="read a table of this kind with pandas, and pass the DataFrame"):
            open_source(root / name)


def test_a_folder_with_the_name_of_a_table_is_a_folder(root: Path) -> None:
    (root / "x.csv").mkdir()
    (root / "x.csv" / "a.png").write_bytes(png())
    assert labels(root / "x.csv", target=None) == {"a.png": None}
