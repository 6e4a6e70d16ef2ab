"""Cases of images that belong together, of texts and of clips, and of packing as a stage of a pipeline of one's own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from helpers.behaviour import data, names, parts
from helpers.behaviour.cases import THREADS, WORKERS, loaded
from helpers.behaviour.recipes import VIDEO, p, plain, recipe
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts


def pages(i: int) -> Any:
    """Return a sample of one to three images."""
    return names.find("Sample")(f"doc{i}", [data.encoded(i + k)[1] for k in range(1 + i % 3)], i, data.caption(i))


def page_files(i: int) -> dict[str, bytes]:
    """Return the files of a sample of several images in a shard; numbers in names are sorted by value."""
    found = {f"p{(9, 10, 100)[k]}.png": _png(data.picture(i + k)) for k in range(1 + i % 3)}
    return found | {"cls": b"%d" % i, "txt": data.caption(i).encode()}


def frames(i: int) -> list[bytes]:
    """Return 1 to 5 frames of one size."""
    picture = data.picture(i)
    return [_png(picture.rotate(10 * k)) for k in range(1 + i % 5)]


def frame_files(i: int) -> dict[str, bytes]:
    """Return the files of a clip in a shard, or of an image."""
    clip = frames(i)
    found = {"png": clip[0]} if len(clip) == 1 else {f"f{k}.jpg": frame for k, frame in enumerate(clip)}
    return found | {"cls": b"%d" % i, "txt": data.caption(i).encode()}


def clip(i: int) -> Any:
    """Return a sample that is a clip, an image, or both together."""
    made = names.find("Clip")(frames(i))
    image: Any = data.encoded(i)[1] if i % 4 == 0 else [made, data.encoded(i)[1]] if i % 7 == 0 else made
    return names.find("Sample")(f"clip{i}", image, i, data.caption(i))


def clip_arrays(i: int) -> Any:
    """Return a pair of a clip as an array and its class."""
    return np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in frames(i)]), i


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def page_row(i: int) -> Any:
    """Return a row with a list of images."""
    return {"images": [data.encoded(i + k)[1] for k in range(1 + i % 3)], "label": i, "text": data.caption(i)}


def listed(make: Callable[[int], Any]) -> Callable[[], Any]:
    """Return how to make a list of samples."""
    return lambda: [make(i) for i in range(data.COUNT)]


TEXT = {"tokenize": data.tokenize, "text_len": data.TEXT_LEN}


def over_kinds() -> None:
    """Enter the cases of several images, texts and clips."""

    def whole() -> Any:
        return recipe(seq_len=140, crop=p("WholeImage"), drop=p("Constant", 0.5), resize=p("NaViT", (24, 48)))

    def moving() -> Any:
        return recipe(**VIDEO)

    def moving_eval() -> Any:
        return plain(video=p("Video", 3), seq_len=200)

    sources: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "texts/shards": (data.shards, TEXT),
        "texts/shards json": (data.shards, {**TEXT, "text": "json:caption", "target": None}),
        "texts/gz shards": (lambda: data.shards("tar.gz"), TEXT),
        "texts/folder": (data.folder, TEXT),
        "texts/samples": (listed(data.with_text), TEXT),
        "texts/rows": (lambda: data.Stream(data.row), TEXT),
        "texts/webdataset dicts": (lambda: data.Stream(data.webdataset_dict), TEXT),
        "texts/huggingface": (data.huggingface, TEXT),
        "texts/too long": (data.shards, {**TEXT, "text_len": 5, "on_error": "skip"}),
        "pages/samples": (listed(pages), {"recipe": whole}),
        "pages/samples with texts": (listed(pages), {"recipe": whole, **TEXT}),
        "pages/shards": (lambda: data.shards("tar", page_files, "pages"), {"recipe": whole, "image": "p*.png"}),
        "pages/shards with texts": (
            lambda: data.shards("tar", page_files, "pages"),
            {"recipe": whole, "image": "p*.png", **TEXT},
        ),
        "pages/rows": (lambda: data.Stream(page_row), {"recipe": whole, "image": "images"}),
        "clips/samples": (listed(clip), {"recipe": moving}),
        "clips/samples with texts": (listed(clip), {"recipe": moving, **TEXT}),
        "clips/all frames": (listed(clip), {"recipe": moving_eval}),
        "clips/shards": (lambda: data.shards("tar", frame_files, "clips"), {"recipe": moving, "frames": "f*.jpg"}),
        "clips/arrays": (lambda: data.Stream(clip_arrays), {"recipe": moving}),
        "clips/not taken": (listed(clip), {"on_error": "skip", "max_in_a_row": None}),
    }
    for name, (make, words) in sources.items():
        add(f"{name}/here", loaded, make, dict(words), images=True)
        add(f"{name}/workers", loaded, make, {**words, **WORKERS, "shuffle": 8})
        add(f"{name}/threads", loaded, make, {**words, **THREADS, "shuffle": 8, "steps_per_epoch": 6, "on_error": "skip"})


# ------------------------------------------------------------------------------------------------ in a pipeline of one's own


def staged(out: Parts, make: Callable[[], Any], words: dict[str, Any], workers: int = 0) -> None:
    """Run the stage over a stream, or in workers of a plain DataLoader."""
    words = {"recipe": recipe, **words}
    stage = names.pack(words.pop("recipe")(), **words)
    stream = names.read(stage, "over")(make())
    batches = list(DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream)
    parts.run_batches(out, batches, images=not workers)
    parts.add_report(out, names.call("collect", batches))
    out.add("workers", [names.read_or_none(names.read(batch, "info"), "worker") for batch in batches])


def composed(out: Parts, workers: int) -> None:
    """Run the stage as the last one of a webdataset pipeline, under a DataLoader."""
    stream = data.pipeline().compose(names.pack(recipe(), epoch=2))
    parts.run_batches(out, DataLoader(stream, batch_size=None, num_workers=workers))


def stage_resumed(out: Parts, make: Callable[[], Any], cut: int) -> None:
    """Stop a stage after some batches and go on with another one."""
    stage = names.pack(recipe(), resumable=True, epoch=1)
    batches = iter(names.read(stage, "over")(make()))
    for _ in range(cut):
        batch = next(batches)
        names.read(stage, "delivered")(batch)
        parts.add_batch(out, batch)
    state = json.loads(json.dumps(names.read(stage, "state_dict")()))
    stage = names.pack(recipe(), resumable=True, epoch=1)
    names.read(stage, "load_state_dict")(state)
    parts.run_batches(out, names.read(stage, "over")(make()))


def over_stages() -> None:
    """Enter the cases of the stage."""
    streams: dict[str, Callable[[], Any]] = {
        "webdataset": data.pipeline,
        "samples": listed(data.with_text),
        "dicts": lambda: data.Stream(data.webdataset_dict),
        "pairs": listed(data.pair),
        "rows": listed(data.row),
        "huggingface stream": lambda: data.huggingface().to_iterable_dataset(num_shards=2),
    }
    for name, make in streams.items():
        own = {"target": "label"} if name == "rows" else {}
        add(f"pack/{name}/here", staged, make, dict(own))
        add(f"pack/{name}/workers", staged, make, {**own, "epoch": 3}, 2)
    for tail in ("short", "drop", "pad", "wrap"):
        add(f"pack/samples/{tail}", staged, streams["samples"], {"tail": tail, "target": None})
    add("pack/samples/twice", staged, lambda: [data.sample(i % 17) for i in range(60)], {})
    add("pack/samples/lookahead", staged, streams["samples"], {"lookahead": 5})
    add("pack/samples/lookahead bytes", staged, streams["samples"], {"lookahead_bytes": 9000})
    add("pack/samples/texts", staged, streams["samples"], TEXT)
    add("pack/dicts/texts", staged, streams["dicts"], {**TEXT, "text": "json:caption"})
    add("pack/samples/pages", staged, listed(pages), {"recipe": lambda: recipe(seq_len=300)})
    add("pack/samples/clips", staged, listed(clip), {"recipe": lambda: recipe(**VIDEO)})
    add("pack/odd", staged, lambda: [data.Odd()[i] for i in range(data.COUNT)], {"to_sample": data.to_sample})
    add("pack/mapped", staged, streams["pairs"], {"map_target": float})
    add("pack/composed/here", composed, 0)
    add("pack/composed/workers", composed, 2)
    for name in ("samples", "webdataset", "pairs"):
        add(f"pack/{name}/resume", stage_resumed, streams[name], 2)


def enter() -> None:
    """Enter the cases."""
    over_kinds()
    over_stages()
