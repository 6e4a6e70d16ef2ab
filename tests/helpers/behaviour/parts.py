"""What is pinned of batches, images, plans, reports and errors: each becomes values under fixed labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from helpers.behaviour import names
from helpers.behaviour.values import Parts


def add_batch(parts: Parts, batch: Any, *, images: bool = False) -> None:
    """Add every field of a batch; with ``images`` also every image that `unpack` takes out of it."""
    for label in names.BATCH:
        parts.add(label, names.read(batch, label))
    info = names.read(batch, "info")
    for label in names.INFO:
        value = names.read_or_none(info, label)
        parts.add("info", names.rule_counts(value) if label == "dropped" else value)
    add_losses(parts, "info.losses", info)
    if images:
        add_images(parts, batch)


def add_losses(parts: Parts, label: str, account: Any, rejections: str = "rejections") -> None:
    """Add rejections without their reasons, shards at fault by name, and how often something was warned of."""
    found = names.read_or_none(account, rejections) or []
    parts.add(f"{label}.rejections", list(map(names.rejection_fields, found)))
    parts.add(f"{label}.shards", [names.read(fault, "shard") for fault in names.read_or_none(account, "shard_errors") or []])
    parts.add(f"{label}.warnings", sorted((names.read_or_none(account, "warnings") or {}).values()))


def add_images(parts: Parts, batch: Any) -> None:
    """Add every image of a batch, one by one."""
    for image in names.call("unpack", batch):
        add_image(parts, image)


def add_image(parts: Parts, image: Any, *, placed: bool = True) -> None:
    """Add one image of a batch, with its place there or without."""
    labels = [*names.IMAGE, *(names.IMAGE_PLACE if placed else ())]
    parts.add("images", [names.read(image, label) for label in labels])


def add_report(parts: Parts, report: Any, label: str = "report") -> None:
    """Add the account of an epoch."""
    for one in names.REPORT:
        value = names.read(report, one)
        parts.add(label, names.rule_counts(value) if one == "dropped" else value)
    add_losses(parts, label, report, "rejected")


def add_plan(parts: Parts, plan: Any) -> None:
    """Add what a plan decides, column by column, and the account that it carries."""
    for label, column in names.plan_columns(plan).items():
        parts.add(f"plan.{label.partition('.')[0]}", column)
    info = names.read(plan, "info")
    parts.add("plan.info", [names.read_or_none(info, label) for label in ("step", "epoch", "seen", "shortened")])
    parts.add("plan.info", names.rule_counts(names.read_or_none(info, "dropped")))
    add_losses(parts, "plan.losses", info)


def add_table(parts: Parts, table: Any) -> None:
    """Add the decisions about images."""
    for label in names.TABLE:
        parts.add(f"table.{label}", names.read(table, label))


def add_study(parts: Parts, study: Any) -> None:
    """Add the figures of a study."""
    parts.add("study", [names.read(study, label) for label in names.STUDY])
    parts.add("study.spreads", [list(names.read(study, label)) for label in names.SPREADS])


def add_packing(parts: Parts, packing: Any) -> None:
    """Add rows of items."""
    parts.add("rows", [names.read(packing, label) for label in ("items", "offsets", "cuts", "num_rows")])


def add_index(parts: Parts, index: Any) -> None:
    """Add the columns of an index, and what was lost when it was made."""
    for label in names.INDEX:
        parts.add(f"index.{label}", names.read(index, label))
    parts.add("index.len", len(index))
    parts.add("index.formats", dict(names.read(index, "formats")))
    parts.add("index.rejections", list(map(names.rejection_fields, names.read(index, "rejections"))))
    parts.add("index.shards", [names.read(fault, "shard") for fault in names.read(index, "faults")])
    headers = names.read(index, "headers")(np.arange(len(index)))
    parts.add("index.headers", [[names.read(header, label) for label in names.HEADER] for header in headers])


def say_error(parts: Parts, label: str, action: Callable[[], Any]) -> None:
    """Say which kind of error an action raises, or that it raises none."""
    try:
        action()
    except Exception as error:
        parts.say(label, names.kind_of(error))
    else:
        parts.say(label, "none")


def run_batches(parts: Parts, batches: Iterable[Any], *, images: bool = False) -> int:
    """Add all batches of an iterable and return how many there are."""
    count = 0
    for count, batch in enumerate(batches, 1):  # noqa: B007  the count is returned
        add_batch(parts, batch, images=images)
        del batch  # its memory may be painted again
    return count
