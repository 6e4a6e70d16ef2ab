"""Tables of every kind, from end to end: the batches of a folder, under workers, resumed, on three ranks, and damaged."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack.cli import main
from patchpack.testing import check_batch

COUNT = 40
RECIPE = pp.recipes.navit(resize=pp.resize.NaViT((32, 96)), patch_size=16, seq_len=64, max_images=8, rows_per_batch=2)
KINDS = ("csv", "tsv.gz", "jsonl", "parquet", "DataFrame")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``photos/`` with three class folders, and tables of its images in the order of their paths."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        path = folder / "photos" / ["ant", "bee", "cat"][i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + 13 * i % 70, 20 + 29 * i % 90, 3), dtype=np.uint8)).save(path)
    return folder


def rows_of(folder: Path) -> list[tuple[str, int]]:
    paths = sorted((folder / "photos").rglob("*.png"))
    names = [path.relative_to(folder / "photos").as_posix() for path in paths]
    return [(name, ["ant", "bee", "cat"].index(name.split("/")[0])) for name in names]


@pytest.fixture(scope="module")
def table(folder: Path) -> Callable[[str], Any]:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows_of(folder), columns=["file", "label"])
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_csv(folder / "t.tsv.gz", index=False, sep="\t")
    frame.to_json(folder / "t.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "t.parquet")
    return lambda kind: frame if kind == "DataFrame" else str(folder / f"t.{kind}")


def digests(source: Any, folder: Path, **options: Any) -> list[str]:
    root = {} if source is folder else {"root": folder / "photos"}
    batches = list(pp.load(folder / "photos" if source is folder else source, RECIPE, shuffle=True, **root, **options))
    for batch in batches:
        check_batch(batch)
    return [pp.digest(batch) for batch in batches]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_table_gives_the_batches_of_the_folder_to_the_bit(kind: str, epoch: int, table: Any, folder: Path) -> None:
    expected = digests(folder, folder, epoch=epoch)
    assert digests(table(kind), folder, epoch=epoch) == expected
    assert digests(table(kind), folder, epoch=epoch, num_threads=2) == expected


@pytest.mark.parametrize("kind", ["csv", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_change_nothing(kind: str, method: str, table: Any, folder: Path) -> None:
    options = {"num_workers": 2, "dataloader": {"multiprocessing_context": method}}
    assert digests(table(kind), folder, **options) == digests(table(kind), folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_resumed_after_any_step(kind: str, table: Any, folder: Path) -> None:
    def loader() -> pp.Loader:
        return pp.load(table(kind), RECIPE, root=folder / "photos", shuffle=True, steps_per_epoch=6)

    whole = [pp.digest(batch) for batch in loader()]
    for stop in (1, 3, 5):
        first = loader()
        steps = iter(first)
        for _ in range(stop):
            next(steps)
        state = json.loads(json.dumps(first.state_dict()))
        rest = loader()
        rest.load_state_dict(state)
        assert [pp.digest(batch) for batch in rest] == whole[stop:]


@pytest.mark.parametrize("kind", KINDS)
def test_three_ranks_evaluate_every_row_once_with_its_label(kind: str, table: Any, folder: Path) -> None:
    found, steps = [], []
    for rank in range(3):
        loader = pp.load(
            table(kind), RECIPE.for_eval(), root=folder / "photos", tail="pad", rank=rank, world_size=3
        )  # fmt: skip
        batches = list(loader)
        steps.append(len(batches))
        found += [(image.key, int(image.target)) for batch in batches for image in pp.unpack(batch)]
    assert len(set(steps)) == 1
    assert sorted(found) == rows_of(folder)


@pytest.mark.parametrize("source", ["table", "folders"])
def test_a_single_image_is_replayed(source: str, table: Any, folder: Path) -> None:
    photos = folder / "photos"
    given, options = (
        (table("csv"), {"root": photos}) if source == "table" else ([photos / "ant", photos / "cat"], {"target": None})
    )
    image = next(iter(pp.unpack(next(iter(pp.load(given, RECIPE, shuffle=True, **options))))))
    again = pp.replay(given, RECIPE, image.key, **options)
    assert np.array_equal(again.patches, image.patches)


@pytest.mark.parametrize("column", ["label", "number"])
def test_the_commands_read_tables_with_and_without_labels(
    column: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"file,{column}", *(f"{name},{label}" for name, label in rows_of(folder))]
    table = folder / "photos" / "t.csv"
    table.write_text("\n".join(lines))
    assert main(["inspect", str(table)]) == 0
    printed = capsys.readouterr().out
    assert f"{COUNT} images in " in printed
    assert ("target=None" in printed) == (column == "number")
    assert len(pp.Index.build(str(table), target="label" if column == "label" else None)) == COUNT


DAMAGE = ["good", "good", "missing", "no image", "no label", "no path", "again", "short"]


@given(kinds=st.lists(st.sampled_from(DAMAGE), min_size=1, max_size=20), shuffle=st.booleans())
def test_every_row_is_packed_or_named(kinds: list[str], shuffle: bool, folder: Path, tmp_path_factory: Any) -> None:
    photos = folder / "photos"
    (photos.parent / "no.png").write_bytes(b"no image")
    names = iter(name for name, _ in rows_of(folder))
    first, lines, good = f"{photos}/{next(names)}", [], {}
    lines.append(f"{first},0")
    for number, kind in enumerate(kinds, 1):
        path = first if kind == "again" else f"{photos}/{next(names)}"
        if kind == "good":
            good[path] = number
        path = {"missing": f"{photos}/{number}.png", "no image": f"{photos}/../no.png", "no path": ""}.get(kind, path)
        lines.append(path if kind == "short" else f"{path},{'' if kind == 'no label' else number}")
    table = tmp_path_factory.getbasetemp() / "damaged.csv"
    table.write_text("\n".join(["file,label", *lines]))
    loader = pp.load(table, RECIPE, shuffle=shuffle, on_error=pp.ErrorPolicy("skip", max_in_a_row=None))
    packed = {image.key: int(image.target) for batch in loader for image in pp.unpack(batch)}
    assert packed == {first: 0, **good}
    report = loader.report()
    assert report.seen == len(lines) == report.packed + len(report.rejected)
    assert len({rejection.key for rejection in report.rejected}) >= len(report.rejected) - kinds.count("no image")


def test_a_missing_label_is_kept_where_something_takes_it(folder: Path) -> None:
    names = [name for name, _ in rows_of(folder)][:4]
    table = folder / "photos" / "gaps.csv"
    table.write_text("file,label\n" + "\n".join(f"{name},{'' if i == 0 else i}" for i, name in enumerate(names)))
    frame = pandas.read_csv(table)
    for source, options in ((str(table), {}), (frame, {"root": table.parent})):
        loader = pp.load(source, RECIPE, on_error="skip", **options)
        assert sorted(int(image.target) for batch in loader for image in pp.unpack(batch)) == [1, 2, 3]
        assert "pass target_kind='object'" in loader.report().rejected[0].reason
        mapped = pp.load(source, RECIPE, map_target=lambda label: -100 if label is None else label, **options)
        assert sorted(int(image.target) for batch in mapped for image in pp.unpack(batch)) == [-100, 1, 2, 3]
        kept = pp.load(source, RECIPE, target_kind="object", **options)
        assert {image.target for batch in kept for image in pp.unpack(batch)} == {None, 1, 2, 3}


def test_an_image_in_a_cell_is_a_data_uri(folder: Path) -> None:
    names = [name for name, _ in rows_of(folder)][:3]
    encoded = [base64.b64encode((folder / "photos" / name).read_bytes()).decode() for name in names]
    rows = [{"image": f"data:image/png;base64,{text}", "label": i} for i, text in enumerate(encoded)]
    rows.append({"image": names[0], "label": 3})
    rows.append({"image": "data:image/png;base64,AAAA", "label": 4})
    table = folder / "photos" / "inline.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    for workers in (0, 1):
        loader = pp.load(str(table), RECIPE.for_eval(), on_error="skip", num_workers=workers)
        images = {image.key: image for batch in loader for image in pp.unpack(batch)}
        assert {key: int(image.target) for key, image in images.items()} == {"0": 0, "1": 1, "2": 2, names[0]: 3}
        assert np.array_equal(images["0"].patches, images[names[0]].patches)
        assert [(r.key, r.stage) for r in loader.report().rejected] == [("4", "header")]
