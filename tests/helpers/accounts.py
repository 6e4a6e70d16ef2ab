"""The real and the expected outcome of every sample of a run, by shard. `faults` says which outcome each fault should have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import patchpack as pp
from helpers.faults import FAULTS, Fault
from helpers.painted import RECIPE, painted_label


class Account(NamedTuple):
    """Of one run.

    Attributes:
        delivered: key to label; twice the same key is an error.
        rejected: (key, stage, member, reason), sorted: a worker paints later than headers are read.
        faults: shard to reason.
        error: why there was no batch at all, "" if there was one.
    """

    delivered: dict[str, int]
    rejected: list[tuple[str, str, str, str]]
    faults: dict[str, str]
    error: str

    def of(self, shard: str) -> Account:
        """One shard's part."""
        return Account(
            {key: label for key, label in self.delivered.items() if key.startswith(f"{shard}/")},
            [entry for entry in self.rejected if entry[0].startswith(f"{shard}/")],
            {name: reason for name, reason in self.faults.items() if name == shard},
            self.error,
        )


def label_of(target: Any) -> int:
    """The label, of several all of which are the same."""
    labels = {int(value) for value in target.values()} if isinstance(target, Mapping) else {int(target)}
    (label,) = labels
    return label


def collect(batches: Iterable[pp.PackedBatch], report: Callable[[list[pp.PackedBatch]], pp.Report]) -> Account:
    """The account of batches, every one of them checked, and every label against the picture that it came with."""
    delivered: dict[str, int] = {}
    kept, error = [], ""
    try:
        for batch in batches:
            pp.validate(batch)
            kept.append(batch._replace(patches=None))
            for image in pp.unpack(batch):
                assert painted_label(image.patches) == label_of(image.target), f"{image.key} has another one's label"
                assert image.key not in delivered, f"{image.key} came twice"
                delivered[image.key] = label_of(image.target)
    except pp.errors.SourceError as found:
        error = str(found)
        assert "no image to pack" in error
        assert not delivered
    said = report(kept)
    assert said.seen == said.packed + len(said.rejected) + sum(said.dropped.values()) + said.waiting
    assert (said.packed, said.waiting, said.dropped) == (len(delivered), 0, {})
    assert all(r.shard == r.key[: len(r.shard)] and r.reason for r in said.rejected)
    faults = {fault.shard: fault.reason for fault in said.shard_errors}
    assert len(faults) == len(said.shard_errors)
    rejected = sorted((r.key, r.stage, r.member, r.reason) for r in said.rejected)
    return Account(delivered, rejected, faults, error)


def load(source: Any, num_workers: int = 0, **asked: Any) -> Account:
    """The account of `pp.load`; `source` is an index, or paths."""
    loader = pp.load(source, RECIPE, num_workers=num_workers, on_error=pp.ErrorPolicy("skip", max_in_a_row=None), **asked)
    return collect(loader, lambda _: loader.report())


def run(paths: list[str], way: str, num_workers: int, target: Any) -> Account:
    """As it goes, or by an index."""
    if way == "indexed":
        return load(pp.Index.build(paths, target=target), num_workers)
    return load(paths, num_workers, target=target)


def differences(fault: Fault, shard: str, found: Account) -> list[str]:
    """In what an account of this shard is not what the table says; [] where it is."""
    wrong = []
    expected = {f"{shard}/{stem}": label for stem, label in fault.labels().items()}
    if found.delivered != expected:
        wrong.append(f"delivered {found.delivered}, not {expected}")
    lost = sorted((f"{shard}/{lost.stem}", lost.stage, lost.named, lost.reason) for lost in fault.rejected)
    if [entry[:3] for entry in found.rejected] != [entry[:3] for entry in lost]:
        wrong.append(f"rejected {found.rejected}, not {lost}")
    else:
        wrong += [f"says {a[3]!r}, not {b[3]!r}" for a, b in zip(found.rejected, lost, strict=True) if b[3] not in a[3]]
    if bool(found.faults) != bool(fault.fault) or (fault.fault and fault.fault not in found.faults[shard]):
        wrong.append(f"faults {found.faults}, not {fault.fault!r}")
    return wrong


def bundles(zipped: bool = False, compressed: bool = True) -> dict[Any, list[Fault]]:
    """All faults by what is asked for: shards that one loader can read."""
    found: dict[Any, list[Fault]] = {}
    for fault in FAULTS.values():
        if not fault.compressed or (compressed and not zipped):
            found.setdefault(fault.target, []).append(fault)
    return found


def name_of(path: str) -> str:
    return os.path.basename(path)
