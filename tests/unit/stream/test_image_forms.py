"""Every form of an image through `load`, `pack_images` and `Pack`: the same batch as from a file of the same pixels."""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import Dataset

import patchpack as pp
from helpers import deep_files
from patchpack.types import Header

RECIPE = pp.Recipe(
    resize=pp.resize.Native(24, edge="pad"), patch_size=4, seq_len=32, rows_per_batch=1, max_images=4, background=(9, 80, 200)
)

pytestmark = [  # datasets leave open files to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RANDOM = np.random.default_rng(0)
COLOUR, ALPHA = (RANDOM.integers(0, 256, (9, 14, channels), dtype=np.uint8) for channels in (3, 4))
GREY = COLOUR[:, :, 0]
WIDE = RANDOM.integers(0, 65536, (9, 14), dtype=np.uint16)
WIDE_COLOUR = RANDOM.integers(0, 65536, (9, 14, 3), dtype=np.uint16)


def file_of(pixels: Any, form: str = "PNG") -> bytes:
    if pixels.dtype == np.uint16:
        return deep_files.png(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def first(array: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


# name → (array, the file of the same pixels)
ARRAYS: dict[str, tuple[Any, bytes]] = {
    f"{name}, {layout}": (array, file_of(pixels))
    for name, pixels in {"grey": GREY, "RGB": COLOUR, "RGBA": ALPHA, "16 bits": WIDE, "16 bits of colour": WIDE_COLOUR}.items()
    for layout, array in (
        {"plain": pixels, "last": pixels[:, :, None], "first": pixels[None]}
        if pixels.ndim == 2
        else {"last": pixels, "first": first(pixels)}
    ).items()
}
ARRAYS |= {
    f"{name} as {kind}": ((array / 255).astype(kind), file)
    for name, (array, file) in list(ARRAYS.items())
    if array.dtype == np.uint8
    for kind in (("float16", "float32", "float64") if name == "RGBA, first" else ("float32",))
}


def paths(folder: Path) -> dict[str, Any]:
    path = folder / "one.png"
    path.write_bytes(file_of(COLOUR))
    text = base64.b64encode(file_of(COLOUR)).decode()
    return {"Path": path, "str": str(path), "relative": "one.png", "base64": text, "data URI": f"data:image/png;base64,{text}"}


THROUGH: dict[str, Callable[..., Any]] = {
    "load": lambda image, **options: pp.load([pp.Sample("k", image)], RECIPE, target=None, **options),
    "pair": lambda image, **options: pp.load([(image, 7)], RECIPE, **options),
    "list in a pair": lambda image, **options: pp.load([([image], 7)], RECIPE, **options),
    "dict": lambda image, **options: pp.load([{"image": image, "label": 7}], RECIPE, **options),
    "webdataset dict": lambda image, **options: pp.load([{"__key__": "k", "jpg": image, "cls": 7}], RECIPE, **options),
    "alone": lambda image, **options: pp.load(iter([image]), RECIPE, target=None, **options),
    "dataset": lambda image, **options: pp.load(Held(image), RECIPE, **options),
    "dataset with sizes": lambda image, **options: pp.load(Held(image), RECIPE, sizes=[[9, 14]], **options),
    "pack_images": lambda image, **options: pp.pack_images([image], RECIPE, **options),
    "pack_images of a list": lambda image, **options: pp.pack_images([[image]], RECIPE, **options),
    "pack_images of one": lambda image, **options: pp.pack_images(image, RECIPE, **options),
    "Pack": lambda image: pp.Pack(RECIPE)([(image, 7)]),
}


class Held(Dataset[Any]):
    def __init__(self, image: Any) -> None:
        self.image = image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Any:
        return self.image, 7


def patches(batches: Any) -> Any:
    (image,) = pp.unpack(batches)
    assert tuple(image.source_size) == (9, 14)
    return np.asarray(image.patches)


@cache
def of_file(file: bytes) -> Any:
    return patches(pp.load([pp.Sample("k", file)], RECIPE, target=None))


@pytest.mark.parametrize("through", THROUGH)
def test_every_array_is_the_file_of_its_pixels(through: str) -> None:
    for name, (array, file) in ARRAYS.items():
        wanted = of_file(file)
        for image in (array, torch.from_numpy(array.copy())):
            assert np.array_equal(patches(THROUGH[through](image)), wanted), name


@pytest.mark.parametrize("through", THROUGH)
def test_every_path_is_its_file(through: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = of_file(file_of(COLOUR))
    for form, image in paths(tmp_path).items():
        assert np.array_equal(patches(THROUGH[through](image)), wanted), form


class Many(Dataset[Any]):
    def __init__(self, images: list[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        return self.images[number], number


@pytest.mark.slow
@pytest.mark.parametrize("through", ["pairs", "dataset", "pack_images"])
def test_workers_get_the_same(through: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [*paths(tmp_path).values(), first(COLOUR), torch.from_numpy(WIDE), ALPHA / 255, Image.fromarray(COLOUR[:4, :4])]
    found = []
    for options in ({}, {"num_workers": 2, "dataloader": {"multiprocessing_context": "spawn"}}):
        if through == "pack_images":
            batches: Any = pp.pack_images(images, RECIPE, keys=map(str, range(9)), **options)
        else:
            batches = pp.load(Many(images) if through == "dataset" else list(zip(images, range(9))), RECIPE, **options)  # noqa: B905
        found.append({image.key: image.patches.tolist() for batch in batches for image in pp.unpack(batch)})
    assert found[0] == found[1]
    assert found[0].keys() == set(map(str, range(9)))


@pytest.mark.parametrize("decode", ["exact", "draft"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_way_of_painting_takes_them(decode: Any, dtype: Any, tmp_path: Path) -> None:
    recipe = RECIPE.replace(decode=decode, dtype=dtype, resize=pp.resize.NaFlex(6))
    path = tmp_path / "a.png"
    path.write_bytes(file_of(COLOUR))
    images = [file_of(COLOUR), path, first(COLOUR), COLOUR / 255]
    (batch,) = pp.load([pp.Sample(str(i), image) for i, image in enumerate(images)], recipe, target=None)
    wanted, *others = (np.asarray(image.patches) for image in pp.unpack(batch))
    assert all(np.array_equal(other, wanted) for other in others)


# ------------------------------------------------------------------------------------------------------- arrays of others


class Folder(Dataset[Any]):
    """As torchvision's `ImageFolder` with a transform."""

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return self.transform(Image.fromarray(COLOUR[i:])), i


def to_tensor(image: Image.Image) -> torch.Tensor:
    """What torchvision's `ToTensor` computes."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def test_a_dataset_with_to_tensor_gives_the_pixels_of_its_images() -> None:
    ours, theirs = ({i.key: i for b in pp.load(Folder(t), RECIPE) for i in pp.unpack(b)} for t in (to_tensor, lambda x: x))
    assert ours.keys() == theirs.keys() == {"0", "1", "2"}
    assert all(torch.equal(ours[key].patches, theirs[key].patches) for key in ours)


@pytest.mark.parametrize("spec", ["rgb", "torchrgb", "rgb8", "torchrgb8", "pilrgb"])
def test_webdataset_may_decode(spec: str) -> None:
    stream = wds.DataPipeline(lambda: iter([{"__key__": "k", "png": file_of(COLOUR), "cls": b"7"}]), wds.decode(spec))
    wanted = of_file(file_of(COLOUR))
    assert np.array_equal(patches(pp.load(stream, RECIPE)), wanted)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_column_of_paths(streamed: bool, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(file_of(COLOUR))
    rows: Any = datasets.Dataset.from_dict({"photo": [str(path)], "label": [3]})
    rows = rows.to_iterable_dataset() if streamed else rows
    wanted = of_file(file_of(COLOUR))
    assert np.array_equal(patches(pp.load(rows, RECIPE, image="photo")), wanted)


def test_a_clip_of_any_frames(tmp_path: Path) -> None:
    recipe = RECIPE.replace(video=pp.Video(2), seq_len=64)
    (tmp_path / "f.png").write_bytes(file_of(COLOUR))
    frames = [tmp_path / "f.png", first(COLOUR), torch.from_numpy(COLOUR / 255), file_of(COLOUR)]
    stack = np.stack([COLOUR] * 4)
    clips = [
        stack, pp.Clip(frames), pp.Clip(frames[::-1]), np.moveaxis(stack, -1, 1), torch.from_numpy(stack).permute(0, 3, 1, 2),
        stack / 255,
    ]  # fmt: skip
    for images in (clips, [pickle.loads(pickle.dumps(clip)) for clip in clips]):
        found = [image.patches for b in pp.pack_images(images, recipe) for image in pp.unpack(b)]
        assert len(found) == len(clips)
        assert all(torch.equal(other, found[0]) for other in found)
    rows = [{"image": [str(frame) if isinstance(frame, Path) else frame for frame in frames], "label": 1}]
    (batch,) = pp.load(rows, recipe, frames="image")
    assert torch.equal(next(iter(pp.unpack(batch))).patches, found[0])


# ------------------------------------------------------------------------------------------------------- plans of paths


@pytest.mark.parametrize("make", [lambda p: (str(p), 1), lambda p: {"image": str(p), "label": 1}, lambda p: ([p, p], 1)])
def test_a_plan_carries_the_path_and_no_byte_of_the_file(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    pixels = RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path.write_bytes(file_of(pixels) + b"MARK" * 5000)
    (plan,) = pp.Planner([make(path)], RECIPE.replace(seq_len=128))
    sent = pickle.dumps(plan)
    assert len(sent) < 6000
    assert b"MARK" not in sent
    assert all(header.num_bytes == 0 for header in plan.headers)


def test_only_the_header_is_read_to_plan(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(file_of(COLOUR)[:60])  # no pixel is in the file
    (event,) = pp.open_source([(path, 1)]).scan()
    assert isinstance(event, Header)
    assert event.size == (9, 14)


def test_the_key_of_a_pair_is_its_number_and_that_of_an_image_alone_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_of(COLOUR))
    (batch,) = pp.load([(path, 1), (str(path), 2)], RECIPE)
    assert batch.keys == [["0", "1"]]
    images = [path, f"data:image/png;base64,{base64.b64encode(file_of(COLOUR)).decode()}"]
    assert [image.key for image in pp.unpack(pp.pack_images(images, RECIPE))] == [str(path), "1"]


def test_workers_start_from_the_folder_in_which_a_path_was_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(file_of(COLOUR))
    sources: list[Any] = [[("a.png", 7)], Held("a.png"), [{"image": ["a.png"], "label": 7}], Held(["a.png"])]
    for source, options in [*((source, {}) for source in sources), (Held("a.png"), {"sizes": [[9, 14]]})]:
        monkeypatch.chdir(tmp_path)
        planner = pp.Planner(source, RECIPE, **options)
        (plan,) = planner
        monkeypatch.chdir("/")
        painter = pickle.loads(pickle.dumps(pp.Painter(planner)))
        assert pickle.loads(pickle.dumps(painter[plan])).slot_mask[0, 0]


def missing(folder: Path) -> Iterator[tuple[Any, str]]:
    yield folder / "none.png", f"there is no file '{folder}/none.png'"
    yield "none.png", f"there is no file 'none.png' in the working folder {folder}, and the text is not base64 of an image"
    yield "http://a.org/b.png", "got the URL 'http://a.org/b.png'"
    yield folder, "is not a regular file"


@pytest.mark.parametrize("through", sorted(THROUGH.keys() - {"Pack", "pack_images of one", "dataset with sizes"}))
def test_what_cannot_be_read_is_named(through: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for image, said in missing(tmp_path):
        loader = THROUGH[through](image, on_error=pp.ErrorPolicy("skip", max_in_a_row=None))
        with pytest.raises(pp.errors.SourceError) if "pack_images" not in through else _nothing() as caught:
            assert list(loader) == []
        assert caught is None or said in str(caught.value)
        (rejection,) = loader.report().rejected
        assert rejection.stage == "read"
        assert said in rejection.reason


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def test_the_path_of_a_row_of_datasets_is_never_base64() -> None:
    text = base64.b64encode(file_of(COLOUR)).decode()
    with pytest.raises(pp.errors.SourceError, match="there is no file"):
        list(pp.load([{"image": {"bytes": None, "path": text[:200]}, "label": 1}], RECIPE))


def test_a_file_that_vanishes_before_it_is_painted_is_named(tmp_path: Path) -> None:
    for make in (lambda p: [(p, 1)], lambda p: Held(str(p))):
        path = tmp_path / "a.png"
        path.write_bytes(file_of(COLOUR))
        planner = pp.Planner(make(path), RECIPE)
        (plan,) = planner
        path.unlink()
        (rejection,) = pp.Painter(planner, on_error="skip")[plan].info.rejections
        assert rejection.stage == "read"
        assert f"FileNotFoundError: there is no file '{path}'" in rejection.reason


def test_limits_hold_for_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_of(COLOUR))
    for option, said in (("max_bytes", "at most max_bytes=9 bytes"), ("max_pixels", "at most 9 pixels")):
        with pytest.raises(pp.errors.DecodeError, match=said):
            list(pp.load([(path, 1)], RECIPE.replace(**{option: 9})))


# ------------------------------------------------------------------------------------------------------- refused

REFUSED = {
    "either end": (np.zeros((3, 9, 4), np.uint8), "header", "where the first and the last axis could both be the channels"),
    "int64": (np.zeros((9, 14), np.int64), "header", "expected an array of uint8, uint16 or float"),
    "bool": (torch.zeros(9, 14, dtype=torch.bool), "header", r"pass array.astype('uint8') * 255"),
    "two channels": (np.zeros((9, 14, 2), np.uint8), "header", "expected an array [H, W], [H, W, 1 | 3 | 4] or"),
    "0 … 255": (COLOUR.astype(np.float32), "decode", "divide by the value of white, which is 255"),
    "normalised": (torch.from_numpy(COLOUR / 100 - 1), "decode", "leave out Normalize"),
    "NaN": (np.full((9, 14), np.nan), "decode", "with NaN in 126 of 126 values"),
    "a clip": (np.zeros((2, 9, 14, 3), np.uint8), "header", "the recipe has video=None"),
    "number": (7, "header", "expected a path, file bytes, a PIL image, or an array or tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_image_costs_itself_alone(name: str) -> None:
    image, stage, said = REFUSED[name]
    loader = pp.load([pp.Sample("bad", image), pp.Sample("good", COLOUR)], RECIPE, target=None, on_error="skip")
    batches = list(loader)
    assert [image.key for batch in batches for image in pp.unpack(batch)] == ["good"]
    (rejection,) = loader.report().rejected
    assert (rejection.key, rejection.stage) == ("bad", stage)
    assert said in rejection.reason


def test_sizes_given_by_the_user_do_not_settle_the_axes() -> None:
    image = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(pp.errors.DecodeError, match="could both be the channels"):
        list(pp.load(Held(image), RECIPE, sizes=[[4, 4]]))


def test_two_paths_or_tensors_without_a_label_are_two_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_of(COLOUR))
    tensor = torch.from_numpy(COLOUR / 255)
    for item in ([path, str(path)], (tensor, tensor)):
        (batch,) = pp.load([item], RECIPE, target=None)
        assert [image.part for image in pp.unpack(batch)] == [0, 1]
    with pytest.raises(pp.errors.SourceError, match=r"a list of 2 images without a label.*yield patchpack.Sample\(key, image"):
        list(pp.load([[path, str(path)]], RECIPE))


def test_a_path_and_a_caption_or_a_label_is_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_of(COLOUR))
    (batch,) = pp.load([(str(path), "a cat")], RECIPE)
    assert batch.targets[0][0] == "a cat"
    tokenize: Any = lambda text: list(text.encode())  # noqa: E731
    (batch,) = pp.load([(str(path), "a cat")], RECIPE, target=None, tokenize=tokenize, text_len=16)
    assert batch.text_ids is not None
    (batch,) = pp.load([(torch.from_numpy(COLOUR), torch.zeros(9, 14, 3))], RECIPE)
    assert batch.targets.shape == (1, 4, 9, 14, 3)
