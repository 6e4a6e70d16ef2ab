"""Difficult files, drawn or from Pillow's own test suite (13.0.0), and what its plain decoding makes of them."""

from __future__ import annotations

import io
import json
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from helpers.hard_images import Hard, own
from helpers.photographs import files_in
from patchpack.errors import DecodeError
from patchpack.image.decode import decode
from patchpack.image.formats import FORMATS
from patchpack.image.size import read_size, read_size_at


class Case(NamedTuple):
    """One file: what is known of it and what came of it."""

    name: str
    expected: dict[str, Any]
    data: bytes
    pixels: npt.NDArray[np.uint8] | None


def known_of(file: Hard) -> dict[str, Any]:
    """What is known of a drawn file, in the words of the other ones."""
    known: dict[str, Any] = {"expect": "ok" if file.size else "reject", "or_decode": file.either, "transparency": False}
    known["clipped_by_plain_convert"] = file.deep
    if file.size is None:
        return known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        image = Image.open(io.BytesIO(file.data))
        known["transparency"] = image.has_transparency_data
        plain = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return known | {"size": file.size[::-1], "rgb_mean": plain.mean(axis=(0, 1))}


@pytest.fixture(scope="module", params=["drawn", "real"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    if request.param == "drawn":
        files = [(file.name, known_of(file), file.data) for file in own()]
    else:
        folder = request.getfixturevalue("hostile_files")
        expected = json.loads((folder / "expected.json").read_text())["files"]
        files = [
            (name, known, (folder / "files" / name).read_bytes())
            for name, known in sorted(expected.items())
            if known["format"] != "AVIF" or "AVIF" in FORMATS
        ]
    found = []
    for name, known, data in files:
        try:
            pixels = decode(data)
        except DecodeError:
            pixels = None
        found.append(Case(name, known, data, pixels))
    return found


@pytest.fixture(scope="module")
def readable(cases: list[Case]) -> list[tuple[Case, npt.NDArray[np.uint8]]]:
    return [(case, case.pixels) for case in cases if case.expected["expect"] == "ok" and case.pixels is not None]


def size_in_parts(data: bytes) -> tuple[int, int] | str:
    try:
        return read_size_at(lambda offset, count: data[offset : offset + count], len(data))
    except DecodeError as error:
        return str(error)


def size_of_whole(data: bytes) -> tuple[int, int] | str:
    try:
        return read_size(data)
    except DecodeError as error:
        return str(error)


def test_the_right_files_are_refused(cases: list[Case]) -> None:
    wrong = [
        case.name
        for case in cases
        if (case.pixels is None) != (case.expected["expect"] == "reject") and not case.expected.get("or_decode")
    ]
    assert wrong == []


def test_sizes_are_those_after_orientation(readable: list[tuple[Case, npt.NDArray[np.uint8]]]) -> None:
    wrong = [
        (case.name, case.expected["size"], pixels.shape, read_size(case.data))
        for case, pixels in readable
        if not tuple(reversed(case.expected["size"])) == pixels.shape[:2] == read_size(case.data)
    ]
    assert wrong == []


def test_colours_are_those_of_the_reference(readable: list[tuple[Case, npt.NDArray[np.uint8]]]) -> None:
    # the reference drops alpha where we show a background, and clips what has more than 8 bits
    comparable = [
        (case, pixels)
        for case, pixels in readable
        if not case.expected["transparency"] and not case.expected.get("clipped_by_plain_convert")
    ]
    wrong = [
        (case.name, case.expected["rgb_mean"], pixels.mean(axis=(0, 1)))
        for case, pixels in comparable
        if np.abs(pixels.mean(axis=(0, 1)) - case.expected["rgb_mean"]).max() > 2.0
    ]
    assert len(comparable) >= 15
    assert wrong == []


def test_deep_pictures_are_not_clipped(readable: list[tuple[Case, npt.NDArray[np.uint8]]]) -> None:
    deep = [(case.name, np.ptp(pixels)) for case, pixels in readable if case.expected.get("clipped_by_plain_convert")]
    assert len(deep) >= 3
    assert [name for name, spread in deep if spread == 0] == []


def test_sizes_do_not_depend_on_how_a_file_is_read(cases: list[Case]) -> None:
    wrong = [case.name for case in cases if size_in_parts(case.data) != size_of_whole(case.data)]
    assert wrong == []


def test_only_decode_errors_come_from_files_cut_anywhere(cases: list[Case]) -> None:
    for case in cases:
        for cut in range(0, min(len(case.data), 400), 7):
            try:
                pixels = decode(case.data[:cut])
            except DecodeError:
                continue
            assert pixels.shape[:2] == read_size(case.data[:cut]), (case.name, cut)


def test_photographs(photographs: list[str]) -> None:
    """Some of them turned, some grey."""
    for name, data in files_in(photographs):
        assert size_in_parts(data) == read_size(data) == decode(data).shape[:2], name
