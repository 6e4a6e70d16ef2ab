"""Images in, results out under their keys: any number, any form, broken ones named, little held at a time."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp

RECIPE = pp.Recipe(resize=pp.resize.Native(24, edge="pad"), patch_size=4, seq_len=64, max_images=8, rows_per_batch=2)


def array(number: int) -> Any:
    """An image whose size and colour say its number; 2 to 24 patches of 4."""
    rows, cols = 2 + number % 3, 1 + number % 6
    return np.full((4 * rows, 4 * cols, 3), (number % 256, number // 256, 7), dtype=np.uint8)


def jpeg(number: int, form: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array(number)).save(file, form)
    return file.getvalue()


def number_of(patches: Any) -> int:
    """Read off the pixels."""
    pixel = patches.reshape(-1, 3)[0].tolist()
    return int(pixel[0] + 256 * pixel[1])


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_every_image_under_its_key(count: int, num_threads: int) -> None:
    batches = pp.pack_images((array(i) for i in range(count)), RECIPE, num_threads=num_threads)
    images = list(pp.unpack(batches))
    assert {image.key: number_of(image.patches) for image in images} == {str(i): i for i in range(count)}
    assert len(images) == batches.report().packed == batches.report().seen == count


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_results_under_their_keys_and_the_rejected_named(count: int, tmp_path: Path) -> None:
    """A third are paths, some of them broken or missing; results are pooled and dense."""
    images: list[Any] = []
    for i in range(count):
        path = tmp_path / f"{i}.png"
        if i % 3 == 0:
            path.write_bytes(jpeg(i) if i % 9 else jpeg(i)[:40])
        images.append({0: path, 1: array(i), 2: jpeg(i)}[i % 3] if i % 50 != 1 else tmp_path / "missing" / f"{i}.png")
    batches = pp.pack_images(images, RECIPE, keys=(f"key {i}" for i in range(count)), on_error="skip")
    pooled, dense = {}, {}
    for batch in batches:
        assert isinstance(batch.patches, torch.Tensor)
        sums = (pp.pool_mask(batch).float() @ batch.patches.float()) / pp.pool_mask(batch).sum(-1, keepdim=True).clamp(min=1)
        pooled |= dict(pp.unpack(batch, sums))
        dense |= dict(pp.unpack(batch, batch.position_ids, dense=True))
    bad = {f"key {i}" for i in range(count) if (i % 9 == 0 and i % 50 != 1) or i % 50 == 1}
    report = batches.report()
    assert {rejection.key for rejection in report.rejected} == bad
    assert all(rejection.stage in ("read", "header", "decode") for rejection in report.rejected)
    good = {f"key {i}": i for i in range(count)}.items()
    assert pooled.keys() == dense.keys() == {key for key, _ in good} - bad
    for key, i in good:
        if key not in bad:
            assert number_of(pooled[key].round()) == i
            rows, cols = 2 + i % 3, 1 + i % 6
            assert dense[key].tolist() == [[[r, c] for c in range(cols)] for r in range(rows)]
    assert len(report.rejected) + report.packed == count


def test_all_rejected_is_an_answer_too(tmp_path: Path) -> None:
    batches = pp.pack_images([b"no image", tmp_path / "none.png"], RECIPE, on_error="skip")
    assert list(batches) == []
    assert [(r.key, r.stage) for r in batches.report().rejected] == [("0", "header"), (str(tmp_path / "none.png"), "read")]


def test_raise_names_the_first(tmp_path: Path) -> None:
    with pytest.raises(pp.errors.DecodeError, match=r"^1: expected a readable"):
        list(pp.pack_images([array(1), b"no image"], RECIPE))
    missing = str(tmp_path / "none.png")
    with pytest.raises(pp.errors.SourceError, match=r"none\.png \(none\.png\): FileNotFoundError.*Pass on_error='skip'"):
        list(pp.pack_images([missing], RECIPE))
    vanishing = tmp_path / "vanishing.png"
    vanishing.write_bytes(jpeg(3))
    batches = iter(pp.pack_images(_then([vanishing, array(1)], vanishing.unlink), RECIPE))
    with pytest.raises(pp.errors.SourceError, match=r"vanishing\.png.*FileNotFoundError"):
        next(batches)


def _then(items: list[Any], action: Any) -> Iterator[Any]:
    yield from items
    action()


def test_limits_and_what_is_no_file(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(jpeg(5) + bytes(1000))
    recipe = RECIPE.replace(max_bytes=1000)
    batches = pp.pack_images([large, jpeg(5) + bytes(1000), tmp_path, array(5)], recipe, on_error="skip")
    assert [image.key for image in pp.unpack(batches)] == ["3"]
    reasons = [rejection.reason for rejection in batches.report().rejected]
    assert all("at most max_bytes=1000 bytes" in reason for reason in reasons[:2])
    assert "is not a regular file" in reasons[2]


def test_what_a_generator_raises_is_not_swallowed() -> None:
    def images() -> Iterator[Any]:
        yield b"no image"
        raise pp.errors.SourceError("the camera is gone")

    with pytest.raises(pp.errors.SourceError, match="the camera is gone"):
        list(pp.pack_images(images(), RECIPE, on_error="skip"))


@pytest.mark.parametrize("form", ["array", "channels first", "tensor", "bytes", "pil", "path", "str", "sample"])
def test_one_image_of_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "9.png"
    path.write_bytes(jpeg(9))
    first = array(9).transpose(2, 0, 1)
    image: Any = {
        "array": array(9), "channels first": first, "tensor": torch.from_numpy(first.copy()), "bytes": jpeg(9),
        "pil": Image.fromarray(array(9)), "path": path, "str": str(path), "sample": pp.Sample("mine", array(9), 5),
    }[form]  # fmt: skip
    key = {"path": str(path), "str": str(path), "sample": "mine"}.get(form, "0")
    for given in (image, [image], iter([image])):
        (found,) = pp.unpack(pp.pack_images(given, RECIPE))
        assert found.key == key
        assert found.target is None
        assert number_of(found.patches) == 9
        assert found.grid == (2, 4)


def test_workers_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(jpeg(5))
    images = [*(array(i) for i in range(40)), path, jpeg(6), Image.fromarray(array(7)), b"no image"]
    found = []
    for num_workers in (0, 2):
        batches = pp.pack_images(images, RECIPE, on_error="skip", num_workers=num_workers)
        found.append([(image.key, image.patches.tolist()) for image in pp.unpack(batches)])
        assert [rejection.key for rejection in batches.report().rejected] == ["43"]
    assert found[0] == found[1]


def test_keys_are_checked() -> None:
    images = [array(i) for i in range(3)]
    with pytest.raises(pp.errors.ConfigError, match="got 2 keys and more images"):
        list(pp.pack_images(images, RECIPE, keys=["a", "b"]))
    with pytest.raises(pp.errors.ConfigError, match="got 3 images and more keys"):
        list(pp.pack_images(images, RECIPE, keys=["a", "b", "c", "d"]))
    batches = pp.pack_images(images, RECIPE, keys=["a", "b", "a"], on_error="skip")
    assert {image.key for image in pp.unpack(batches)} == {"a", "b"}
    assert "this key appeared before" in batches.report().rejected[0].reason


def test_images_by_key(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(jpeg(4))
    images = {"one": array(1), "four": path}
    found = {image.key: number_of(image.patches) for image in pp.unpack(pp.pack_images(images, RECIPE))}
    assert found == {"one": 1, "four": 4}
    with pytest.raises(pp.errors.ConfigError, match="images in a dict have their keys there"):
        pp.pack_images(images, RECIPE, keys=["a", "b"])


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(pp.errors.ConfigError, match="images must be an iterable of images, got int"):
        pp.pack_images(3, RECIPE)
    with pytest.raises(pp.errors.ConfigError, match="on_error"):
        pp.pack_images([], RECIPE, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(pp.errors.ConfigError, match="recipe"):
        pp.pack_images([], "navit")  # type: ignore[arg-type]


def test_a_list_can_be_packed_again() -> None:
    batches = pp.pack_images([array(i) for i in range(20)], RECIPE)
    once, again = (list(pp.unpack(batches)) for _ in range(2))
    assert [image.key for image in once] == [image.key for image in again]


def test_few_images_are_held_at_a_time() -> None:
    """1000 images of a generator: those that wait for a row, and those of a batch or two."""
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def images() -> Iterator[Any]:
        nonlocal alive, most
        for i in range(1000):
            image = array(i)
            weakref.finalize(image, gone)
            alive += 1
            most = max(most, alive)
            yield image
            del image

    packed = 0
    for batch in pp.pack_images(images(), RECIPE):
        packed += int(batch.slot_mask.sum())
        del batch
    gc.collect()
    assert packed == 1000
    assert alive == 0
    assert most < 200
