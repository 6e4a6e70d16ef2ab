"""The one place that knows how the library spells things: fixed labels to names, old ones first.

A rename is one more spelling in a table here. A label is spelled as the first of its spellings that the tree has, so that one
copy of this package runs on the tree before a rename and on the tree after it, and in the middle. Labels never change: the
cases and the digests are named by them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from typing import Any


def _family(room: str, names: str) -> dict[str, tuple[str, ...]]:
    """Return names at top level that may move into a namespace."""
    return {name: (name, f"{room}.{name}") for name in names.split()}


# label → places, each ``attribute`` or ``attribute.attribute`` of the package, or ``module:attribute``; a label that is not
# here is the attribute of that name
OBJECTS: dict[str, tuple[str, ...]] = {
    **_family("resize", "NaViT Pix2Struct NaFlex SmartResize LongestSide Square Native"),
    **_family("crop", "WholeImage RandomResizedCrop RandomCrop BudgetCrop"),
    **_family("drop", "NoDrop Constant Beta ByResolution Scheduled"),
    **_family("positions", "Absolute Fractional Raster"),
    **_family("normalize", "MeanStd PerImage HALF IMAGENET CLIP"),
    **_family(
        "packing",
        "FirstFit BestFit NextFit Lookahead Prices Item learn_prices pack_lengths pack_histogram pack_stream pack_tight "
        "lower_bound balance imbalance row_costs AttentionCost",
    ),
    **_family(
        "errors",
        "PatchpackError ConfigError ShapeError PackingError SourceError ShardError IndexFileError StaleIndexError WorkerError "
        "SampleError DecodeError TargetError SizeError",
    ),
    "plan_table": ("plan_table", "plan.table:plan_table"),
    "IndexPlanner": ("IndexPlanner", "Planner"),
    "EpochPlan": ("EpochPlan", "stream.epoch_plan:EpochPlan", "stream.planning.epoch_plan:EpochPlan"),
    "open_source": ("open_source", "stream.sources:open_source"),
    "ErrorPolicy": ("ErrorPolicy", "stream.policy:ErrorPolicy"),
    "key_hash": ("rng:key_hash",),
    "write_packed": ("PackedShards.write",),
    "build_index": ("Index.build",),
    "open_index": ("Index.open",),
    "collect": ("Report.collect",),
    "normalize_patches": ("paint.batch:normalize", "batch.views:standardize_patches", "batch.views:standardize"),
    **{name: (name, f"paint.patchify:{name}") for name in ("patchify", "unpatchify")},
    "decode": ("decode", "image.decode:decode"),
    "read_size": ("read_size", "image.size:read_size"),
    **{f"text_{name}": (f"text_{name}", f"text.{name}") for name in ("mask", "attention_mask", "pool_mask", "position_ids")},
    "ragged_text": ("ragged_text", "text.ragged"),
}  # fmt: skip

# label → names of a parameter
PARAMETERS: dict[str, tuple[str, ...]] = {
    "rows_per_batch": ("rows", "rows_per_batch"),
    "flip_prob": ("flip", "flip_prob"),
    "max_rate": ("max", "max_rate"),
    "midpoint": ("mu", "midpoint"),
    "width": ("tau", "width"),
    "max_in_a_row": ("fuse", "max_in_a_row"),
    "max_share": ("fuse", "max_share"),
    "log": ("quarantine", "log"),
}

# parameter's label → label of a value → names of the value
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "decode": {"draft": ("fast", "draft"), "simplejpeg": ("turbo", "simplejpeg")},
}

# options of torch's DataLoader
DATALOADER = {"pin_memory", "prefetch_factor", "persistent_workers", "multiprocessing_context", "generator", "worker_init_fn"}

# label → names of a field, a method or an info key
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "resized": ("target", "resized"),  # the size an image is resized to
    "shortened": ("altered", "shortened"),
}

# what is pinned of each thing, by label
BATCH = [
    "patches", "position_ids", "segment_ids", "num_images", "grid_sizes", "source_sizes", "slot_mask", "targets", "norm",
    "keys", "patch_size", "sample_ids", "text_ids", "text_segment_ids", "times",
]  # fmt: skip
INFO = ["step", "epoch", "seen", "packed", "shortened", "dropped", "repeats", "boxes", "flips", "positions"]
IMAGE = ["key", "part", "patches", "position_ids", "grid", "source_size", "target", "text_ids", "times"]
IMAGE_PLACE = ["row", "slot"]
REJECTION = ["shard", "key", "member", "stage"]
REPORT = ["seen", "packed", "waiting", "dropped", "shortened", "ignored"]
PLAN = ["step", "epoch", "patch_size", "seq_len", "offsets", "repeated_rows", "text_len"]
TABLE = ["box", "resized", "flip", "grid", "num_tokens", "times"]
HEADER = ["key", "shard", "member", "size", "repeat", "part", "text", "frames"]
IMAGE_PLAN = ["grid", "resized", "num_tokens", "num_merged", "times"]
STUDY = [
    "epoch", "num_images", "num_rows", "refused", "over_long", "fill_rate", "steady_fill_rate", "upscaled", "dropped_tokens",
    "shortened", "out_of_slots", "num_tokens", "offsets", "row_lens", "image_waits", "longest_wait", "row_tokens",
]  # fmt: skip
SPREADS = ["images_per_row", "tokens", "distortion", "waits", "attention"]
INDEX = ["sizes", "key_hash", "starts", "num_shards", "num_bytes"]

# words that are said to users and are part of what is pinned: what the library says → label
STAGES = {name: name for name in ("read", "header", "plan", "decode", "target")}
RULES = {name: name for name in ("tail", "steps_per_epoch")}

_ERRORS = [label for label in OBJECTS if label.endswith("Error")]


class NoSuchNameError(LookupError):
    """A label that none of its spellings fits: the table has to be told of a rename."""


@cache
def find(label: str) -> Any:
    """Return the object of a label.

    Raises:
        NoSuchNameError: the tree has none of its spellings.
    """
    spellings = OBJECTS.get(label, (label,))
    for spelling in spellings:
        module, _, path = spelling.rpartition(":")
        try:
            found = import_module(f"patchpack.{module}" if module else "patchpack")
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError):
            continue
        return found
    raise NoSuchNameError(f"{label}: tried {', '.join(spellings)}")


def call(label: str, *args: Any, **words: Any) -> Any:
    """Call an object; words are labels of parameters."""
    function = find(label)
    return function(*args, **spelled(words, function, recipe=label.startswith("recipes.")))


def replaced(recipe: Any, **words: Any) -> Any:
    """Return a recipe with some fields changed."""
    return recipe.replace(**spelled(words, find("Recipe")))


def load(source: Any, recipe: Any, **words: Any) -> Any:
    """Return a loader."""
    return _placed("load", source, recipe, words)


def planner(source: Any, recipe: Any, *, of_index: bool = False, **words: Any) -> Any:
    """Return the planner of a source, or of an index."""
    return _placed("IndexPlanner" if of_index else "Planner", source, recipe, words)


def to_device(batch: Any, device: Any, dtype: Any = None) -> Any:
    """Return a batch on a device, standardised."""
    try:
        return find("to_device")(batch, device, dtype)
    except NoSuchNameError:
        return find("standardize")(batch.to(device), dtype)


def replay(source: Any, recipe: Any, key: str, **words: Any) -> Any:
    """Return one image as a run with the recipe had it."""
    return _placed("replay", source, recipe, words, key)


def pack(recipe: Any, **words: Any) -> Any:
    """Return the stage for a pipeline of one's own."""
    return call("Pack", recipe, **words)


def _placed(label: str, source: Any, recipe: Any, words: dict[str, Any], *more: Any) -> Any:
    """Call with a source; words that the function lacks go to `open_source`, the policy of errors, or torch's options."""
    function = find(label)
    known = _parameters(function)
    given = spelled(words, function)
    strange = {word for word in words if not set(PARAMETERS.get(word, (word,))) & set(known)}
    if "dataloader" in known and (torchs := strange & DATALOADER):
        given["dataloader"] = {word: given.pop(word) for word in torchs}
        strange -= torchs
    if _hands_on(function):  # names of `open_source` are handed on to it
        strange -= set(_parameters(find("open_source")))
    for other, take in (("open_source", None), ("ErrorPolicy", "on_error")):
        theirs = {} if not strange else _parameters(find(other))
        taken = {word for word in strange if set(PARAMETERS.get(word, (word,))) & set(theirs)}
        if not taken:
            continue
        for word in taken:
            given.pop(PARAMETERS.get(word, (word,))[0])
        options = spelled({word: words[word] for word in taken}, find(other))
        if take is None:
            source = find(other)(source, **options)
        else:
            given[take] = find(other)(given.get(take, "raise"), **options)
    return function(source, recipe, *more, **given)


def spelled(words: Mapping[str, Any], function: Callable[..., Any], *, recipe: bool = False) -> dict[str, Any]:
    """Return the words as a function spells them: names of parameters, and values that are names.

    Args:
        words: label of a parameter to its value.
        function: whose parameters.
        recipe: whether the function takes the fields of a recipe too.
    """
    known = _parameters(function) | (_parameters(find("Recipe")) if recipe else {})
    found = {}
    for word, value in words.items():
        spellings = PARAMETERS.get(word, (word,))
        name = next((spelling for spelling in spellings if spelling in known), spellings[0])
        if isinstance(value, str) and value in VALUES.get(word, {}):
            options = VALUES[word][value]
            value = next((one for one in options if repr(one) in known[name] or f'"{one}"' in known[name]), options[0])
        found[name] = value
    return found


def _hands_on(function: Callable[..., Any]) -> bool:
    there = inspect.signature(function).parameters.values()
    return any(one.kind is inspect.Parameter.VAR_KEYWORD and "SourceOptions" in str(one.annotation) for one in there)


def _parameters(function: Callable[..., Any]) -> dict[str, str]:
    """Return the named parameters of a function or the fields of a class, and how each is annotated."""
    if is_dataclass(function):
        return {field.name: str(field.type) for field in fields(function) if field.init}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    there = inspect.signature(function).parameters.values()
    return {one.name: str(one.annotation) for one in there if one.kind not in kinds}


def read(thing: Any, label: str) -> Any:
    """Return the field, method or entry of a label.

    Raises:
        NoSuchNameError: the thing has none of its spellings.
    """
    for spelling in ATTRIBUTES.get(label, (label,)):
        if isinstance(thing, Mapping):
            if spelling in thing:
                return thing[spelling]
        elif hasattr(thing, spelling):
            return getattr(thing, spelling)
    raise NoSuchNameError(f"{label} of a {type(thing).__name__}")


def changed(thing: Any, **values: Any) -> Any:
    """Return a named tuple with some fields changed."""
    spelt = {label: next(one for one in ATTRIBUTES.get(label, (label,)) if hasattr(thing, one)) for label in values}
    return thing._replace(**{spelt[label]: value for label, value in values.items()})


def read_or_none(thing: Any, label: str) -> Any:
    """Return what `read` does; None where there is nothing, or something empty."""
    try:
        found = read(thing, label)
    except NoSuchNameError:
        return None
    found = found.tolist() if hasattr(found, "tolist") else found
    return found or None


def plan_columns(plan: Any) -> dict[str, Any]:
    """Return what a plan says, column by column: all but where the bytes of its images are."""
    found = {label: read(plan, label) for label in PLAN}
    found |= {f"table.{label}": read(read(plan, "table"), label) for label in TABLE}
    found |= {f"header.{label}": [read(header, label) for header in read(plan, "headers")] for label in HEADER}
    return found | {"key_hash": read(plan, "key_hash"), "fatal": read(plan, "fatal") is not None}


def rejection_fields(rejection: Any) -> list[Any]:
    """Return what a rejection says, but for its reason."""
    found = [read(rejection, label) for label in REJECTION]
    return [*found[:3], STAGES.get(found[3], f"unknown stage {found[3]}")]


def rule_counts(counts: Mapping[str, int] | None) -> dict[str, int]:
    """Return the samples that rules left out, by the label of the rule."""
    return {RULES.get(rule, f"unknown rule {rule}"): count for rule, count in (counts or {}).items()}


def kind_of(error: BaseException) -> str:
    """Return the label of an error's class, the nearest one that is public or Python's own."""
    if isinstance(error, NoSuchNameError):
        return f"no such name: {error}"
    ours = {find(label): label for label in _ERRORS}
    for kind in type(error).__mro__:
        if kind in ours:
            return ours[kind]
        if kind.__module__ == "builtins":
            return kind.__name__
    return type(error).__name__
