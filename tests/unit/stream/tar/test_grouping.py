"""Which members of a sample are its images, and in which order."""

from __future__ import annotations

from patchpack.stream.sample.fields import SampleFields

NAMES = ["10.png", "9.png", "cls", "b2.png", "b10.jpg", "2.jpg", "9.b.png"]


def test_images_that_fit_a_pattern_go_by_the_value_of_their_numbers() -> None:
    assert SampleFields(("*.png",), None).images_of(NAMES) == ["9.b.png", "9.png", "10.png", "b2.png"]
    assert SampleFields(("*.png", "*.jpg"), None).images_of(["p10.png", "p9.jpg", "p1.png"]) == ["p1.png", "p9.jpg", "p10.png"]


def test_frames_go_by_the_value_of_their_numbers() -> None:
    assert SampleFields(("jpg",), None, frames=("*.jpg",)).frames_of(["100.jpg", "20.jpg", "3.jpg", "txt"]) == [
        "3.jpg",
        "20.jpg",
        "100.jpg",
    ]
    assert SampleFields(("jpg",), None).frames_of(NAMES) == []


def test_without_a_pattern_the_order_is_that_of_the_extensions_asked_for() -> None:
    assert SampleFields(("png", "jpg"), None).images_of(["jpg", "cls", "png"]) == ["png", "jpg"]
