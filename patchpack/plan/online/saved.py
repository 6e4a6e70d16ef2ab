"""The samples in the state of an online planner, saved by position and key. They are compared when a run continues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

from patchpack import rng
from patchpack.errors import SourceError
from patchpack.plan.online.decisions import SampleDecision
from patchpack.types import Header


def already_reported(state: Mapping[str, Any]) -> int:
    """Return how many samples were packed, or reported as lost, by plans that were made before the state was saved."""
    account, held = state["account"], state.get("held")
    waiting = len(state.get("waiting", ())) + len(account["rejections"])
    if held is not None:
        waiting += sum(map(len, held["rows"])) + len(held["info"].get("rejections", ()))
    return int(account["seen"]) - waiting


def require_same_samples(state: Mapping[str, Any], headers: Mapping[int, Header], name: str, *, with_texts: bool) -> None:
    """Raise `SourceError` if the samples of a state differ from the samples of the source.

    Args:
        state: state of an `OnlinePlanner`.
        headers: mapping from each position in ``state["samples"]`` to the header of this sample.
        name: name of the source.
        with_texts: True if texts are read.
    """
    for position, key_hash, height, width in state["samples"]:
        header = headers.get(position)
        if header is None or int(rng.key_hash([header.draw_key])[0]) != key_hash:
            what = "is missing or cannot be used" if header is None else f"has another key: {header.key}"
            raise SourceError(f"{name} has changed since the state was saved: its sample {position} {what}")
        if header.size != (height, width):
            size = f"{header.size.height} x {header.size.width} (height x width), but had {height} x {width}"
            raise SourceError(f"{name} has changed since the state was saved: its sample {header.key} has {size}")
    if checksum_of_texts([headers[position] for position, *_ in state["samples"]], with_texts) != state["texts"]:
        raise SourceError(
            f"{name}: tokenize returns other tokens than when the state was saved: restore the texts and tokenize of "
            f"that time, or start without the state"
        )


def samples_to_json(rows: Iterable[Iterable[SampleDecision]], *, with_texts: bool) -> dict[str, Any]:
    """Return position, hash of the key and size of each sample in the rows, and a checksum of the texts of all samples."""
    samples = {one.position: one for row in rows for one in row}
    ordered = [samples[position] for position in sorted(samples)]
    headers = [one.header for one in ordered]
    return {
        "samples": [(one.position, int(one.key_hash[0]), *header.size) for one, header in zip(ordered, headers, strict=True)],
        "texts": checksum_of_texts(headers, with_texts),
    }


def checksum_of_texts(headers: Iterable[Header], with_texts: bool) -> int:
    """Return a checksum of the tokens of all texts, or 0 without texts."""
    found = 0
    if with_texts:
        for header in headers:
            found = crc32(header.text, found)
    return found


def positions_of(rows: list[list[SampleDecision]]) -> list[list[tuple[int, int]]]:
    """Return the position and the number of tokens of each sample in the rows."""
    return [[(decision.position, decision.num_tokens) for decision in row] for row in rows]


def shortened_again(rows: list[list[tuple[int, int]]], decisions: Iterable[SampleDecision]) -> list[list[SampleDecision]]:
    """Return rows of decisions for rows of pairs (position, tokens). Each sample is cut to the number of tokens in its pair."""
    decided = {decision.position: decision for decision in decisions}
    return [[decided[position].shortened(num_tokens) for position, num_tokens in row] for row in rows]
