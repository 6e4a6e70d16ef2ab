"""Cases of arguments that cannot work. An error is pinned by its class and not by its message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.behaviour import data, kinds, names, parts
from helpers.behaviour.recipes import p, plain, recipe
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts


def wrong(out: Parts, action: Callable[[], Any]) -> None:
    """Say what an action raises."""
    parts.say_error(out, "raises", action)


def wrong_recipe(out: Parts, fields: dict[str, Any]) -> None:
    """Say what a recipe with some fields raises; functions make what is not to be made before."""
    wrong(out, lambda: recipe(**{word: value() if callable(value) else value for word, value in fields.items()}))


def through(action: Callable[[], Any]) -> Callable[[], Any]:
    """Return an action that iterates to the end."""
    return lambda: list(action())


# fields of a recipe that cannot work, by what is wrong with them
FIELDS: dict[str, dict[str, Any]] = {
    "a class for a policy": {"resize": lambda: names.find("NaViT")},
    "no policy": {"drop": lambda: 0.5},
    "a packer that is a class": {"packer": lambda: names.find("Lookahead")},
    "rows 0": {"rows_per_batch": 0},
    "rows of a float": {"rows_per_batch": 2.0},
    "max_images 0": {"max_images": 0},
    "flip above 1": {"flip_prob": 1.5},
    "flip true": {"flip_prob": True},
    "seed negative": {"seed": -1},
    "seq_len too short": {"seq_len": 20},
    "seq_len none": {"seq_len": None},
    "no patch size": {"patch_size": ()},
    "patch size 0": {"patch_size": 0},
    "unknown kernel": {"resample": "cubic"},
    "unknown dtype": {"dtype": "int8"},
    "unknown decode": {"decode": "quick"},
    "unknown deep": {"deep": "max"},
    "unknown icc": {"icc": "p3"},
    "formats not in capitals": {"formats": ("heif",)},
    "PerImage of uint8": {"normalize": p("PerImage")},
    "normalize none": {"normalize": None},
    "augment of PerImage": {"normalize": p("PerImage"), "dtype": "float32", "augment": lambda: len},
    "augment no function": {"augment": 3},
    "video no Video": {"video": 2},
    "background of two": {"background": (1, 2)},
    "background too large": {"background": (1, 2, 300)},
    "max_pixels 0": {"max_pixels": 0},
    "max_bytes a text": {"max_bytes": "8"},
    "unknown field": {"colour": 3},
}

POLICIES: dict[str, Callable[[], Any]] = {
    "NaViT range": p("NaViT", (256, 64)),
    "NaViT sampling": p("NaViT", 64, sampling="cauchy"),
    "Pix2Struct 0": p("Pix2Struct", 0),
    "NaFlex search": p("NaFlex", 64, search="best"),
    "SmartResize limits": p("SmartResize", 4000, 1000),
    "Square 0": p("Square", 0),
    "LongestSide text": p("LongestSide", "64"),
    "Native edge": p("Native", 16, edge="mirror"),
    "RandomResizedCrop scale": p("RandomResizedCrop", (0.0, 1.0)),
    "RandomResizedCrop ratio": p("RandomResizedCrop", ratio=2),
    "RandomCrop 0": p("RandomCrop", 0),
    "BudgetCrop 0": p("BudgetCrop", 0),
    "Constant 1": p("Constant", 1.0),
    "Beta mean": p("Beta", 0.9, max_rate=0.5),
    "ByResolution ends": p("ByResolution", 0.1, 0.2, 9, 3),
    "Scheduled width": p("Scheduled", midpoint=3, width=0),
    "Absolute of": p("Absolute", of="pixel"),
    "Video 0": p("Video", 0),
    "MeanStd std": p("MeanStd", (0.5, 0.5, 0.5), (0.5, 0.5, 0.0)),
    "FirstFit 0": p("FirstFit", 0),
    "Lookahead cut": p("Lookahead", max_cut=1.0),
    "Lookahead prices": p("Lookahead", prices=[1, 2]),
    "Prices steps": p("Prices", 10, 5, ((3, 2), (3, 4))),
    "unknown preset": p("recipes.get", "navid"),
    "preset attribute": lambda: getattr(names.find("recipes"), "navid"),  # noqa: B009  a name that is not there
    "preset field": p("recipes.navit", colour=3),
    "replace field": lambda: names.replaced(recipe(), colour=3),
    "for_eval without a budget": lambda: names.read(plain(resize=p("Square", 64)), "for_eval")(max_patches=4),
    "pack_lengths too long": p("pack_lengths", [5, 200], seq_len=100),
    "pack_lengths floats": p("pack_lengths", [5.5], seq_len=100),
    "pack_lengths method": p("pack_lengths", [5], seq_len=100, method="best"),
    "pack_histogram negative": p("pack_histogram", [0, -1], seq_len=100),
    "balance ranks": p("balance", [[3], [4]], num_ranks=0),
    "study sizes": lambda: names.call("study", [[0, 5]], recipe()),
    "study keys": lambda: names.call("study", [[9, 5]], recipe(), keys=["a", "b"]),
    "study nothing fits": lambda: names.call("study", [[90, 95]], plain(resize=p("Native", 4, oversize="reject"))),
    "plan_image size": lambda: names.call("plan_image", (0, 5), recipe()),
    "plan_image refused": lambda: names.call("plan_image", (99, 95), plain(resize=p("Native", 4, oversize="reject"))),
    "plan_image patch sizes": lambda: names.call("plan_image", (9, 5), recipe(patch_size=(8, 16))),
    "plan_image clip": lambda: names.call("plan_image", (9, 5), recipe(), frames=4),
    "decode nothing": p("decode", b""),
    "decode too large": lambda: names.call("decode", data.encoded(0)[1], max_pixels=4),
    "read_size text": p("read_size", b"text"),
    "patchify sides": lambda: names.call("patchify", np.zeros((9, 8, 3), np.uint8), 4),
}

LOADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "missing file": ("none.tar", {}),
    "missing folder": ("none/", {}),
    "pattern of nothing": ("none-*.tar", {}),
    "an empty folder": (lambda: (Path("empty").mkdir(exist_ok=True), "empty")[1], {}),
    "a number": (3, {}),
    "a dict": ({"train": []}, {}),
    "an empty list": ([], {}),
    "not a recipe": ("shards", {"recipe": lambda: "navit"}),
    "unknown word": ("shards", {"shufle": True}),
    "batch_size": ("shards", {"batch_size": 4}),
    "collate_fn": ("shards", {"collate_fn": list}),
    "workers and threads": ("shards", {"num_workers": 1, "num_threads": 1}),
    "threads negative": ("shards", {"num_threads": -1}),
    "timeout negative": ("shards", {"timeout": -1}),
    "restarts negative": ("shards", {"worker_restarts": -1}),
    "tail": ("shards", {"tail": "cut"}),
    "wrap of patch sizes": ("shards", {"tail": "wrap", "recipe": lambda: recipe(patch_size=(8, 16))}),
    "steps 0": ("shards", {"steps_per_epoch": 0}),
    "shuffle negative": ("shards", {"shuffle": -1}),
    "rank alone": ("shards", {"rank": 0}),
    "rank too large": ("shards", {"rank": 2, "world_size": 2, "tail": "pad"}),
    "index rank too large": ("index", {"rank": 2, "world_size": 2, "tail": "pad"}),
    "balance of shards": ("shards", {"balance": True}),
    "on_error": ("shards", {"on_error": "ignore"}),
    "max_in_a_row 0": ("shards", {"max_in_a_row": 0}),
    "max_share 1": ("shards", {"max_share": 1.0}),
    "log in no folder": ("shards", {"log": "none/lost.jsonl"}),
    "text_len alone": ("shards", {"text_len": 5}),
    "tokenize alone": ("shards", {"tokenize": data.tokenize}),
    "texts of an index": ("index", kinds.TEXT),
    "target of an index": ("index", {"target": "txt"}),
    "image of an index": ("index", {"image": "png"}),
    "sizes of shards": ("shards", {"sizes": [[3, 4]]}),
    "sizes of another number": ("dataset", {"sizes": [[3, 4]]}),
    "size_of raises": ("dataset", {"size_of": lambda i: 1 / 0}),
    "classes of shards": ("shards", {"classes": ["a"]}),
    "classes missing": ("folder", {"classes": ["class-0"]}),
    "frames without video": ("shards", {"frames": "f*.jpg"}),
    "image empty": ("shards", {"image": ""}),
    "image not there": ("shards", {"image": "bmp"}),
    "target not there": ("shards", {"target": "json5"}),
    "target empty": ("shards", {"target": ()}),
    "target a number": ("shards", {"target": 3}),
    "to_sample raises": ("odd dataset", {"to_sample": lambda number, item: item["none"]}),
    "to_sample makes no sample": ("odd dataset", {"to_sample": lambda number, item: item}),
    "odd items": ("odd dataset", {"to_sample": None}),
    "rows without an image": ("rows", {"image": "photo"}),
    "tokenize raises": ("shards", {"tokenize": lambda text: 1 / 0, "text_len": 9}),
    "augment raises": ("shards", {"recipe": lambda: recipe(augment=lambda pixels, generator: 1 / 0)}),
    "augment of another shape": ("shards", {"recipe": lambda: recipe(augment=lambda pixels, generator: pixels[:4])}),
    "pipe fails": ("pipe:false", {}),
}


def wrong_load(out: Parts, source: Any, words: dict[str, Any]) -> None:
    """Say what making a loader raises, or else what iterating it does."""
    words = {"recipe": recipe, **words}
    chosen = words.pop("recipe")()
    own: dict[str, Any] = {}
    if source in data.SOURCES if isinstance(source, str) else False:
        source, own = data.source(source)
    opened = source() if callable(source) else source
    made: list[Any] = []
    wrong(out, lambda: made.append(names.load(opened, chosen, **(own | words))))
    if made:
        parts.say_error(out, "iterating", lambda: [None for _ in made[0]])


def enter() -> None:
    """Enter the cases."""
    for name, fields in FIELDS.items():
        add(f"wrong/recipe/{name}", wrong_recipe, fields)
    for name, action in POLICIES.items():
        add(f"wrong/policy/{name}", wrong, action)
    for name, (source, words) in LOADS.items():
        add(f"wrong/load/{name}", wrong_load, source, words)
    others: dict[str, Callable[[], Any]] = {
        "pack tail": lambda: names.pack(recipe(), tail="cut"),
        "pack lookahead": lambda: names.pack(recipe(), lookahead=0),
        "pack recipe": lambda: names.pack("navit"),
        "pack batches": through(lambda: names.pack(recipe())([([data.picture(0)] * 2, [1, 2])])),
        "pack not resumable": lambda: names.read(names.pack(recipe()), "delivered")(
            next(names.pack(recipe())([data.sample(0)]))
        ),
        "index of gz": lambda: names.call("build_index", data.shards("tar.gz")),
        "index missing": lambda: names.call("open_index", "none.index"),
        "index of several": lambda: names.call("build_index", data.shards(), image="*.png"),
        "packed missing": lambda: names.call("PackedShards", "none"),
        "pack_images number": through(lambda: names.call("pack_images", 3, recipe())),
        "pack_images many keys": through(lambda: names.call("pack_images", [data.picture(0)], plain(), keys=["a", "b"])),
        "state foreign": lambda: names.read(names.load(data.shards(), recipe()), "load_state_dict")({"epoch": 1}),
        "to a dtype": lambda: names.read(next(iter(names.load(data.shards(), recipe()))), "to")(np.float32),
        "validate": lambda: names.call("validate", names.changed(next(names.pack(recipe())([data.sample(0)])), patch_size=3)),
        "unknown name": lambda: getattr(names.find("recipes"), "x"),  # noqa: B009  a name that is not there
    }
    for name, action in others.items():
        add(f"wrong/{name}", wrong, action)
