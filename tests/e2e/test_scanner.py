"""Headers read ahead in a process of their own: the same events, and never an orphan or a hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import pytest

import patchpack as pp
from patchpack.stream.planning import scanner
from patchpack.stream.sources.inline import InlineReader
from patchpack.stream.sources.opening import open_source
from patchpack.types import Event


def orphans() -> list[str]:
    return [child.name for child in multiprocessing.active_children() if child.name == "patchpack-scanner"]


class Broken(pp.Source):
    """A source whose scan fails after some headers."""

    name = "broken"
    reader = InlineReader()

    def __init__(self, how: str) -> None:
        self._how = how

    def scan(self) -> Iterator[Event]:
        yield from open_source(pp.samples.shards("val")).scan()
        if self._how == "raise":
            raise RuntimeError("the disk is on fire")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_same_events_in_the_same_order(method: str) -> None:
    source = open_source(pp.samples.shards("train"))
    assert list(scanner.scan_ahead(source, method)) == list(source.scan())
    assert orphans() == []


def test_stopping_early_leaves_no_process() -> None:
    events = scanner.scan_ahead(open_source(pp.samples.shards("train")), "fork")
    next(events)
    assert orphans() == ["patchpack-scanner"]
    events.close()
    assert orphans() == []


def test_leaving_a_loader_early_leaves_no_process() -> None:
    loader = pp.load(pp.samples.shards("train"), pp.recipes.navit(seq_len=256, rows_per_batch=1), num_workers=1)
    for _ in loader:
        break
    assert orphans() == []


def test_an_error_in_the_scanner_is_an_error_here() -> None:
    with pytest.raises(pp.errors.SourceError, match="scanning broken failed: RuntimeError: the disk is on fire"):
        list(scanner.scan_ahead(Broken("raise"), "fork"))


def test_a_killed_scanner_is_an_error_not_a_hang() -> None:
    with pytest.raises(pp.errors.SourceError, match=r"reads headers was killed by SIGKILL \(exit code -9\) after \S+/\S+ \("):
        list(scanner.scan_ahead(Broken("kill"), "fork"))


def test_plans_do_not_depend_on_who_scans() -> None:
    recipe = pp.recipes.navit(seq_len=256, rows_per_batch=2)
    here, ahead = (pp.Planner(pp.samples.shards("train"), recipe, scanner=how) for how in (None, "fork"))
    keys = [[[h.key for h in plan.headers] for plan in planner] for planner in (here, ahead)]
    assert keys[0] == keys[1]
