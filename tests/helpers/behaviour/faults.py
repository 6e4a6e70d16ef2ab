"""Cases of data that cannot be used: broken shards, files, items and labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.behaviour import data, kinds, names, parts
from helpers.behaviour.cases import loaded
from helpers.behaviour.recipes import p, plain
from helpers.behaviour.registry import add
from helpers.behaviour.values import Parts


def shard_fault(out: Parts, name: str) -> None:
    """Read one broken shard of `helpers.faults` between two whole ones: passed over, raised for, indexed, and compressed."""
    from helpers.faults import FAULTS

    fault = FAULTS[name]
    folder = Path("faults") / name.replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    broken = fault.write_to(folder)
    whole = data.shards()[:1]
    words: dict[str, Any] = {"target": fault.target}
    for label, paths in (("", [*whole, broken]), ("zipped ", [fault.write_to(folder, zipped=True)])):
        if label and fault.compressed:
            continue
        loader = names.load(paths, plain(), on_error="skip", **words)
        parts.say_error(out, f"{label}skip", lambda one=loader: parts.run_batches(out, one))
        parts.add_report(out, names.read(loader, "report")(), f"{label}report")
    parts.say_error(out, "raise", lambda: parts.run_batches(out, names.load([broken], plain(), **words)))
    if not fault.compressed:
        parts.say_error(out, "index", lambda: parts.add_index(out, names.call("build_index", [broken], **words)))


def broken_image(i: int) -> bytes:
    """Return an image of which every seventh is cut short, and another not an image."""
    found = data.encoded(i)[1]
    return found[: len(found) // 2] if i % 7 == 3 else b"no image" if i % 7 == 5 else found


def broken_members(i: int) -> dict[str, bytes]:
    """Return the files of a sample: some images are broken, some labels are missing or no numbers."""
    found = data.members(i)
    extension = next(iter(found))
    found[extension] = broken_image(i)
    if i % 11 == 2:
        del found["cls"]
    if i % 11 == 8:
        found["cls"] = b"seven"
    if i % 13 == 4:
        del found["txt"]
    return found


class Broken(data.Pictures):
    """A torch dataset of which some items raise and some are no images."""

    def __getitem__(self, i: int) -> Any:
        if i % 9 == 4:
            raise RuntimeError("this item is broken")
        return (broken_image(i), "word" if i % 11 == 2 else i)


def broken_folder() -> str:
    """Write files of which some are broken."""
    for i in range(data.COUNT):
        path = Path(f"broken/class-{i % 3}/{i:03d}.{data.encoded(i)[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(broken_image(i))
    return "broken"


def broken_huggingface() -> Any:
    """Return a dataset of Hugging Face with broken files."""
    import datasets

    rows = {"image": [{"bytes": broken_image(i), "path": None} for i in range(data.COUNT)], "label": list(range(data.COUNT))}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def refuse_some(target: Any) -> Any:
    """Map a label, or raise."""
    if int(target) % 5 == 0:
        raise KeyError(target)
    return target


def logged(out: Parts, workers: int) -> None:
    """Pass over what is broken and write it down; the file is compared without reasons."""
    import json

    path = Path(f"lost-{workers}.jsonl")
    path.unlink(missing_ok=True)
    source = data.shards("tar", broken_members, "broken")
    loader = names.load(source, plain(), on_error="skip", log=str(path), num_workers=workers)
    parts.run_batches(out, loader)
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    out.add("lines", [[names.read(line, "step"), names.read(line, "epoch"), *names.rejection_fields(line)] for line in lines])


def asked(out: Parts) -> None:
    """Ask a function about each loss, until it says to stop."""
    met: list[Any] = []

    def decide(loss: Any) -> bool:
        met.append(names.rejection_fields(loss))
        return len(met) < 4

    loader = names.load(data.shards("tar", broken_members, "broken"), plain(), on_error=decide)
    parts.say_error(out, "stopped by", lambda: parts.run_batches(out, loader))
    out.add("asked", met)
    parts.add_report(out, names.read(loader, "report")())


def enter() -> None:
    """Enter the cases."""
    from helpers.faults import FAULTS

    for name in FAULTS:
        add(f"fault/shard/{name}", shard_fault, name)
    sources: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "shards": (lambda: data.shards("tar", broken_members, "broken"), {}),
        "shards with texts": (lambda: data.shards("tar", broken_members, "broken"), kinds.TEXT),
        "gz shards": (lambda: data.shards("tar.gz", broken_members, "broken"), {}),
        "index": (lambda: data.index(lambda: data.shards("tar", broken_members, "broken")), {}),
        "folder": (broken_folder, {}),
        "dataset": (Broken, {}),
        "dataset with sizes": (Broken, {"sizes": data.sizes()}),
        "huggingface": (broken_huggingface, {}),
        "dicts": (lambda: data.Stream(lambda i: {"__key__": str(i), **broken_members(i)}), {}),
        "samples": (lambda: [names.find("Sample")(f"s{i % 35}", broken_image(i), i) for i in range(data.COUNT)], {}),
        "mapped": (data.shards, {"map_target": refuse_some}),
        "too large": (data.shards, {"recipe": lambda: plain(max_pixels=2000, max_bytes=1500)}),
        "refused": (data.shards, {"recipe": lambda: plain(resize=p("Native", 20, oversize="reject"))}),
    }
    for name, (make, words) in sources.items():
        add(f"fault/{name}/skip", loaded, make, {**words, "on_error": "skip", "shuffle": 8}, images=True)
        add(f"fault/{name}/raise", loaded, make, dict(words))
        if name in ("shards", "index", "dataset", "huggingface"):
            add(f"fault/{name}/workers", loaded, make, {**words, "on_error": "skip", "num_workers": 2, "tail": "pad"})
            add(f"fault/{name}/workers raise", loaded, make, {**words, "num_workers": 2})
        if name in ("folder", "dicts", "index"):
            add(f"fault/{name}/threads", loaded, make, {**words, "on_error": "skip", "num_threads": 2, "steps_per_epoch": 6})
        if name in ("dicts", "samples"):
            add(f"fault/{name}/pack", kinds.staged, make, {**words, "on_error": "skip"})
            add(f"fault/{name}/pack raise", kinds.staged, make, dict(words))
    nothing = {"on_error": "skip", "map_target": int, "target": "txt"}
    broken = sources["shards"][0]
    add("fault/nothing usable", loaded, data.shards, nothing)
    add("fault/nothing usable/workers", loaded, data.shards, {**nothing, "num_workers": 2})
    add("fault/in a row", loaded, data.shards, {**nothing, "max_in_a_row": 7})
    add("fault/share", loaded, lambda: [*broken() * 3], {"on_error": "skip", "max_share": 0.1})
    add("fault/share of a stream", loaded, lambda: data.Stream(many_broken, 150), {"on_error": "skip", "max_share": 0.1})
    few = {"on_error": "skip", "max_share": 0.3}
    add("fault/share of two epochs", loaded, lambda: data.Stream(many_broken, 150), few, epochs=(0, 1))
    add("fault/logged/here", logged, 0)
    add("fault/logged/workers", logged, 2)
    add("fault/asked", asked)


def many_broken(i: int) -> Any:
    """Return a pair, every fourth without an image."""
    return (b"no image" if i % 4 == 1 else data.encoded(i % data.COUNT)[1]), i
