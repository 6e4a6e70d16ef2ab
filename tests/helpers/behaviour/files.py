"""Cases of what is written and read again, of lists of images for inference, and of the views of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from helpers.behaviour import data, kinds, names, parts
from helpers.behaviour.cases import loaded
from helpers.behaviour.recipes import VIDEO, p, plain, recipe
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts

# ------------------------------------------------------------------------------------------------------------ indexes and packs


def built(out: Parts, words: dict[str, Any]) -> None:
    """Build an index, save it and open it again."""
    built_now = names.call("build_index", data.shards(), **words)
    parts.add_index(out, built_now)
    names.read(built_now, "save")("some.index")
    opened = names.call("open_index", "some.index")
    parts.add_index(out, opened)
    names.read(opened, "verify")()
    parts.run_batches(out, names.load(opened, recipe(), shuffle=True, on_error="skip"))
    out.add("same fingerprint", names.read(built_now, "fingerprint") == names.read(opened, "fingerprint"))


def updated(out: Parts) -> None:
    """Update an index by shards that have been added."""
    first = names.call("build_index", data.shards()[:2])
    parts.add_index(out, names.call("build_index", data.shards(), update=first))


def planned_epoch(out: Parts, words: dict[str, Any]) -> None:
    """Add the plans of a whole epoch of an index, in any order."""
    plan = names.call("EpochPlan", data.index(), recipe(), 2, **words)
    out.add("len", len(plan))
    for step in reversed(range(len(plan))):
        parts.add_plan(out, plan[step])


def packed(out: Parts, words: dict[str, Any], folder: str) -> None:
    """Write packed shards and read them, whole, by step and in workers."""
    shards = names.call("write_packed", data.index(), recipe(), folder, num_epochs=2, shuffle=True, steps_per_shard=2, **words)
    shards = names.call("PackedShards", names.read(shards, "path"))
    parts.run_batches(out, shards, images=True)
    parts.add_batch(out, shards[-1])
    for epoch, report in sorted(names.read(shards, "reports").items()):
        parts.add_report(out, report)
        out.add("steps", list(names.read(shards, "steps_of")(epoch)))
    out.add("counts", [len(shards), names.read(shards, "num_images"), len(names.read(shards, "shards"))])
    names.read(shards, "verify")()
    parts.run_batches(out, DataLoader(shards, batch_size=None, num_workers=2))
    again = names.call("write_packed", data.index(), recipe(), folder, num_epochs=2, shuffle=True, steps_per_shard=2, **words)
    out.add("same again", len(again) == len(shards))


# ------------------------------------------------------------------------------------------------------------- lists of images


def listed(out: Parts, make: Callable[[], Any], words: dict[str, Any]) -> None:
    """Pack a list of images."""
    words = {"recipe": plain, **words}
    batches = names.call("pack_images", make(), words.pop("recipe")(), **words)
    try:
        parts.run_batches(out, batches, images=True)
    finally:
        parts.add_report(out, names.read(batches, "report")())


def channels_first(i: int) -> torch.Tensor:
    """Return a picture as models have it."""
    return torch.from_numpy(np.moveaxis(np.asarray(data.picture(i)), -1, 0).copy())


def mixed() -> list[Any]:
    """Return images in every form."""
    paths = data.files()
    made: list[Any] = [data.picture(0), np.asarray(data.picture(1)), data.encoded(2)[1], paths[0], Path(paths[1])]
    return [*made, channels_first(3), data.sample(4), [data.picture(5), paths[2]]]


IMAGES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "paths": (data.files, {}),
    "paths and keys": (data.files, {"keys": [f"key {i}" for i in range(data.COUNT)]}),
    "paths in workers": (data.files, {"num_workers": 2}),
    "paths in threads": (data.files, {"num_threads": 2}),
    "pictures": (lambda: map(data.picture, range(20)), {}),
    "pictures in workers": (lambda: map(data.picture, range(20)), {"num_workers": 2}),
    "mapping": (lambda: {f"name {i}": data.encoded(i)[1] for i in range(20)}, {"recipe": recipe}),
    "mixed": (mixed, {}),
    "one": (lambda: data.picture(3), {}),
    "none": (list, {}),
    "broken": (lambda: [data.picture(0), b"no image", data.picture(1), "none.png"], {"on_error": "skip"}),
    "broken stops": (lambda: [data.picture(0), b"no image"], {}),
    "all broken": (lambda: [b"", b"no image"], {"on_error": "skip"}),
    "same key": (lambda: [data.sample(1), data.sample(1), data.sample(2)], {"on_error": "skip"}),
    "too few keys": (lambda: [data.picture(0), data.picture(1)], {"keys": ["a"]}),
    "clips": (lambda: map(kinds.clip, range(12)), {"recipe": lambda: recipe(**VIDEO)}),
}

# ------------------------------------------------------------------------------------------------------------- views of a batch


@cache
def batches(kind: str) -> list[Any]:
    """Return two batches of a kind, torch."""
    sources: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "images": (data.shards, {}),
        "float": (data.shards, {"recipe": lambda: recipe(dtype="float32")}),
        "texts": (data.shards, kinds.TEXT),
        "pages": (kinds.listed(kinds.pages), {"recipe": lambda: plain(seq_len=140)}),
        "clips": (kinds.listed(kinds.clip), {"recipe": lambda: plain(video=p("Video", 2, 4), seq_len=140)}),
        "labels": (data.Odd, {"to_sample": data.to_sample}),
        "whole": (data.shards, {"recipe": plain}),
    }
    make, words = sources[kind]
    words = {"recipe": recipe, **words}
    loader = names.load(make(), words.pop("recipe")(), on_error="skip", **words)
    return [batch for batch, _ in zip(loader, range(2), strict=False)]


def viewed(out: Parts, kind: str) -> None:
    """Add every view of a batch: masks, ragged forms, values by key, moved and normalised."""
    for batch in batches(kind):
        names.call("validate", batch)
        for view in ("token_mask", "attention_mask", "pool_mask", "fill_rate"):
            out.add(view, names.call(view, batch))
        for static in (False, True):
            out.add("ragged", list(names.call("ragged", batch, static=static)))
        if kind == "texts":
            for view in ("text_mask", "text_attention_mask", "text_pool_mask", "text_position_ids"):
                out.add(view, names.call(view, batch))
            out.add("ragged_text", list(names.call("ragged_text", batch)))
        moved = names.to_device(batch, "cpu")
        out.add("moved", [names.read(moved, label) for label in names.BATCH])
        half = names.to_device(batch, "cpu", torch.bfloat16)
        out.add("bfloat16", names.read(half, "patches").float())
        moved = names.read(batch, "to")("cpu")
        out.add("only moved", [names.read(moved, label) for label in names.BATCH])
        out.add("normalized", names.call("normalize_patches", names.read(batch, "patches"), names.read(batch, "norm")))
        segments = names.read(batch, "segment_ids")
        values = {"token": segments[..., None] * 1.5, "slot": names.read(batch, "slot_mask") * 2.0}
        for per, value in values.items():
            pairs = names.call("unpack", batch, value, per=per, several=kind in ("pages", "clips"))
            out.add(f"values per {per}", list(map(list, pairs)))
        parts.say_error(out, "one value", lambda b=batch, v=values: list(names.call("unpack", b, v["slot"], per="slot")))
        parts.say_error(out, "wrong shape", lambda b=batch: list(names.call("unpack", b, torch.zeros(3))))
        several = kind in ("pages", "clips")

        def dense(b: Any = batch, v: Any = values, several: bool = several) -> None:
            out.add("dense", list(map(list, names.call("unpack", b, v["token"], dense=True, several=several))))

        parts.say_error(out, "dense error", dense)


def adapted(out: Parts, name: str, make: Callable[[], Any]) -> None:
    """Add what an adapter makes of a batch."""
    for batch, _ in zip(names.load(data.shards(), make(), on_error="skip"), range(2), strict=False):
        made = names.call(f"adapters.{name}", batch)
        out.add("inputs", dict(made) if isinstance(made, dict) else list(made))
    out.add("keys", names.call("adapters.keys", batch))


def patched(out: Parts) -> None:
    """Cut a picture into patches and put it together."""
    pixels = np.asarray(data.picture(2).resize((48, 32)))
    patches = names.call("patchify", pixels, 8)
    out.add("patches", patches)
    out.add("pixels", names.call("unpatchify", patches, (4, 6), 8))
    parts.say_error(out, "wrong grid", lambda: names.call("unpatchify", patches, (4, 5), 8))


def decoded(out: Parts) -> None:
    """Decode difficult files, or name the error of each."""
    from helpers.hard_images import own

    for file in own():
        for label, words in (
            ("decode", {}),
            ("decode", {"deep": "range", "icc": "srgb", "background": (1, 2, 3)}),
            ("read_size", {}),
        ):
            try:
                out.add(f"{label} {file.name}", names.call(label, file.data, **words))
            except Exception as error:
                out.add(f"{label} {file.name}", names.kind_of(error))


def enter() -> None:
    """Enter the cases."""
    add("index/built", built, {})
    add("index/built in workers", built, {"num_workers": 2, "target": None})
    add("index/built of some", built, {"image": "png", "max_pixels": 4000, "target": ("cls", "txt")})
    add("index/updated", updated)
    for tail, words in {"short": {}, "wrap": {"shuffle": True}, "pad": {"rank": 1, "world_size": 2, "shuffle": 8}}.items():
        add(f"index/epoch {tail}", planned_epoch, {"tail": tail, "seen": 100, **words})
    add("index/epoch balanced", planned_epoch, {"balance": True, "world_size": 2, "steps_per_epoch": 20, "shuffle": True})
    add("packed/here", packed, {"tail": "pad"}, "packed-here")
    add("packed/workers", packed, {"num_workers": 2, "epoch": 4, "seen": 50}, "packed-workers")
    for name, (make, words) in IMAGES.items():
        add(f"images/{name}", listed, make, words)
    for kind in ("images", "float", "texts", "pages", "clips", "labels", "whole"):
        add(f"views/{kind}", viewed, kind)
    add("views/patches", patched)
    add("decode/hard files", decoded)
    adapters: dict[str, Callable[[], Any]] = {
        "padded": plain,
        "siglip2": p("recipes.siglip2_naflex", max_patches=64),
        "timm_naflex": p("recipes.siglip2_naflex", max_patches=64),
        "qwen_vl": p("recipes.qwen2_vl", max_pixels=28**2 * 40),
        "pix2struct": p("recipes.pix2struct", max_patches=100),
    }
    for name, make in adapters.items():
        add(f"adapter/{name}", adapted, name, make)
    add(
        "images/loaded again",
        loaded,
        lambda: [data.sample(i) for i in range(30)],
        {"recipe": plain, "tail": "pad"},
        images=True,
    )
