"""What holds of every source, whatever its names, labels and broken items: nothing is replaced, vanishes, or ends a run."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset

import patchpack as pp
from helpers.profiles import examples

RECIPE = pp.Recipe(resize=pp.resize.NaFlex(2), patch_size=8, seq_len=8, rows_per_batch=2, max_images=4)

pytestmark = [  # datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAMES = ("label", "labels", "fine", "score", "image", "img", "mask", "cls", "json")


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 8), (shade, shade, shade)).save(file, "png")
    return file.getvalue()


class Drawn(NamedTuple):
    """A source's columns and items: which hold pictures and which labels, and what is wrong with each item."""

    pictures: tuple[str, ...]
    labels: tuple[str, ...]
    faults: tuple[str, ...]

    def shade(self, number: int, column: str) -> int:
        return (7 * number + 60 * self.pictures.index(column)) % 256

    def value(self, number: int, column: str) -> int:
        return 10 * number + self.labels.index(column)


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    names = draw(st.permutations(NAMES))
    pictures, labels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    faults = draw(st.lists(st.sampled_from(["", "", "", "not an image", "no image", "no label"]), min_size=1, max_size=12))
    return Drawn(tuple(names[:pictures]), tuple(names[pictures : pictures + labels]), tuple(faults))


def rows_of(what: Drawn) -> list[dict[str, Any]]:
    rows = []
    for number, fault in enumerate(what.faults):
        row: dict[str, Any] = {name: {"bytes": png(what.shade(number, name)), "path": None} for name in what.pictures}
        row |= {name: what.value(number, name) for name in what.labels}
        if fault == "not an image":
            row |= {name: {"bytes": b"nonsense", "path": None} for name in what.pictures}
        elif fault:
            for name in what.pictures if fault == "no image" else what.labels:
                row[name] = None
        rows.append(row)
    return rows


class ByNumber(Dataset[Any]):
    """Rows by number; those without an image have no such key."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return {name: value for name, value in self.rows[number].items() if value is not None}


def huggingface(what: Drawn) -> Any:
    rows = rows_of(what)
    columns = {name: [row[name] for row in rows] for name in (*what.pictures, *what.labels)}
    features = datasets.Features(
        {name: datasets.Image() for name in what.pictures} | {name: datasets.Value("int64") for name in what.labels}
    )
    return datasets.Dataset.from_dict(columns, features=features)


SOURCES: dict[str, Callable[[Drawn], Any]] = {
    "rows": lambda what: [{k: v for k, v in row.items() if v is not None} for row in rows_of(what)],
    "by number": lambda what: ByNumber(rows_of(what)),
    "datasets": huggingface,
    "datasets, streamed": lambda what: huggingface(what).to_iterable_dataset(),
}


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=examples(2), suppress_health_check=[HealthCheck.too_slow])
@given(what=drawn(), image=st.sampled_from([None, *NAMES]), target=st.sampled_from([None, *NAMES]), workers=st.just(0))
def test_a_name_is_used_or_refused_and_nothing_vanishes(
    name: str, what: Drawn, image: str | None, target: str | None, workers: int
) -> None:
    """None stands for a name that is not given."""
    options: dict[str, Any] = {} if image is None else {"image": image}
    options |= {} if target is None else {"target": target}
    try:
        loader = pp.load(SOURCES[name](what), RECIPE, on_error="skip", **options)
        found = {i.key: (int(i.patches.flatten()[0]), i.target) for batch in loader for i in pp.unpack(batch)}
    except pp.errors.ConfigError as error:  # refused at the door
        unclear = image is None and "image" not in what.pictures and len(what.pictures) > 1
        assert unclear or (image is not None and image not in what.pictures) or target not in what.labels, error  # noqa: PT017
        return
    except pp.errors.SourceError as error:
        assert "no image to pack" in str(error)  # noqa: PT017
        found = {}
    report = loader.report()
    assert report.seen == len(what.faults) == report.packed + len(report.rejected)
    assert {*found, *(rejection.key for rejection in report.rejected)} == {str(number) for number in range(len(what.faults))}
    for key, (shade, label) in found.items():
        number = int(key)
        columns = [image] if image is not None else [column for column in what.pictures if shade == what.shade(number, column)]
        assert columns
        assert columns[0] in what.pictures
        assert shade == what.shade(number, columns[0])
        named = target or ("cls" if "cls" in what.labels else "label")
        if target in what.pictures or what.faults[number] == "no label":  # a picture as the label, or none, as it is there
            continue
        assert named in what.labels
        assert int(label) == what.value(number, named)
    for number, fault in enumerate(what.faults):
        if not fault and found:
            assert str(number) in found


VALUES = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(-1e6, 1e6, width=32),
    st.booleans(),
    st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=2),
)
KINDS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda value: value,
    "numpy": np.asarray,
    "torch": torch.tensor,
    "torch with gradient": lambda value: (
        torch.tensor(value, dtype=torch.float64, requires_grad=True)
        if isinstance(value, (float, list))
        else torch.tensor(value)
    ),
    "in a dict": lambda value: {"a": torch.tensor(value), "b": 1},
}


def as_shard(labels: list[Any], folder: Path) -> str:
    with tarfile.open(folder / "s.tar", "w") as tar:
        for number, label in enumerate(labels):
            for name, data in ((f"{number:03}.png", png(number)), (f"{number:03}.json", json.dumps(label).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(folder / "s.tar")


@pytest.mark.parametrize("kind", KINDS)
@given(first=VALUES, count=st.integers(1, 5))
def test_a_number_is_the_same_label_whatever_holds_it(kind: str, first: Any, count: int) -> None:
    expected = np.asarray(first, dtype=np.float64)
    items = [(Image.new("RGB", (16, 8)), KINDS[kind](first)) for _ in range(count)]
    loader = pp.load(items, RECIPE, on_error="skip")
    found = [image.target for batch in loader for image in pp.unpack(batch)]
    assert len(found) == count == loader.report().packed
    for target in found:
        value = target["a"] if kind == "in a dict" else target
        np.testing.assert_allclose(np.asarray(value, dtype=np.float64), expected, rtol=1e-7)
