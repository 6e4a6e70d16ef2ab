"""Hugging Face data sets whose columns have a mode, or whose rows have a format: the pictures are those of the data set."""

from __future__ import annotations

import io
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import patchpack as pp

RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=64, rows_per_batch=1)
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def file(mode: str) -> dict[str, Any]:
    data = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(data, "TIFF" if mode == "CMYK" else "PNG")
    return {"bytes": data.getvalue(), "path": None}


def rows(**options: Any) -> Any:
    files = [file(mode) for mode in ("RGB", "L", "P", "RGBA", "CMYK")]
    names = datasets.ClassLabel(names=list("abcde"))
    table = datasets.Dataset.from_dict({"image": files, "label": list(range(5)), "score": [i / 4 for i in range(5)]})
    return table.cast_column("image", datasets.Image(**options)).cast_column("label", names)


def painted(source: Any, **options: Any) -> dict[str, tuple[list[Any], Any]]:
    loader = pp.load(source, RECIPE, tail="pad", **options)
    return {i.key: (i.patches.tolist(), i.target) for batch in loader for i in pp.unpack(batch)}


def is_grey(patches: list[Any]) -> bool:
    return bool((np.ptp(np.array(patches).reshape(-1, 3), axis=1) == 0).all())


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas", "arrow", "python"])
def test_a_format_changes_no_picture(form: str) -> None:
    plain = painted(rows(), target=("label", "score"))
    assert len(plain) == 5
    assert painted(rows().with_format(form), target=("label", "score")) == plain
    changed = rows()
    changed.set_format(form)
    assert painted(changed, target=("label", "score")) == plain
    if form in ("torch", "numpy"):
        assert painted(rows().to_iterable_dataset().with_format(form), target=("label", "score")) == plain


def test_headers_of_a_formatted_data_set_are_read_and_no_picture_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a picture was decoded by datasets")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    assert len(painted(rows().with_format("torch"))) == 5


def test_a_format_may_leave_columns_out() -> None:
    formatted = rows().with_format("torch", columns=["image", "score"])
    assert [target for _, target in painted(formatted, target="score").values()] == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(pp.errors.ConfigError, match="target='label' is not a column"):
        pp.load(formatted, RECIPE, target="label")
    every = rows().with_format("torch", columns=["score"], output_all_columns=True)
    assert len(painted(every)) == 5


def test_names_of_classes_are_those_of_the_data_set() -> None:
    assert pp.load(rows().with_format("torch"), RECIPE).classes == list("abcde")


@pytest.mark.parametrize("form", [None, "torch"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_mode_of_the_column_is_obeyed(form: str | None, streaming: bool, workers: int) -> None:
    grey = rows(mode="L").with_format(form)
    found = painted(grey.to_iterable_dataset() if streaming else grey, num_workers=workers)
    expected = painted([(image, i) for i, image in enumerate(rows(mode="L")["image"])])
    assert found == expected
    assert all(is_grey(patches) for patches, _ in found.values())
    assert not is_grey(painted(rows(mode="RGB"))["0"][0])


def test_a_mode_says_what_becomes_of_transparency() -> None:
    """`datasets` drops it where the column is RGB."""
    clear = Image.new("RGBA", (48, 48), (10, 20, 30, 0))
    data = io.BytesIO()
    clear.save(data, "PNG")
    table = datasets.Dataset.from_dict({"image": [{"bytes": data.getvalue(), "path": None}], "label": [0]})
    for mode, colour in ((None, [255, 255, 255]), ("RGB", [10, 20, 30]), ("RGBA", [255, 255, 255])):
        patches, _ = painted(table.cast_column("image", datasets.Image(mode=mode)))["0"]
        assert patches[0][:3] == colour


def test_a_mode_of_a_list_of_images_is_obeyed() -> None:
    table = datasets.Dataset.from_dict({"image": [[file("RGB"), file("RGBA")]], "label": [0]})
    for feature in (datasets.List(datasets.Image(mode="L")), datasets.List(datasets.Image())):
        (batch,) = pp.load(table.cast_column("image", feature), RECIPE, tail="pad")
        greys = [is_grey(image.patches.tolist()) for image in pp.unpack(batch)]
        assert greys == [feature.feature.mode == "L"] * 2


def test_a_mode_counts_in_pack_too() -> None:
    (batch,) = pp.Pack(RECIPE)(iter(rows(mode="L")))
    assert all(is_grey(image.patches.tolist()) for image in pp.unpack(batch))


@pytest.mark.parametrize("streaming", [False, True])
def test_two_columns_named_for_one_image_are_refused(streaming: bool) -> None:
    """The first was taken, the other was not used."""
    files = rows().cast_column("image", datasets.Image(decode=False))
    pairs = datasets.Dataset.from_dict({"img": files["image"], "mask": files["image"], "label": files["label"]})
    pairs = pairs.cast_column("img", datasets.Image()).cast_column("mask", datasets.Image())
    source = pairs.to_iterable_dataset() if streaming else pairs
    with pytest.raises(
        pp.errors.ConfigError, match=r"image='img;mask' names 2 columns of the data set, img and mask, but only one can be read"
    ):
        pp.load(source, RECIPE, image=["img", "mask"])
    assert len(painted(source, image=["img", "picture"])) == 5
