"""The table that faults are entered into, and what an entry says."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from helpers.painted import Maker, members

NO_LABEL, NO_IMAGE = "no label member 'cls', it has: png", "no image member (jpg;jpeg;png;webp), it has: cls"
AGAIN = "this key appeared earlier in the same shard: its members are repeated or not adjacent"


class Lost(NamedTuple):
    """A sample that must be rejected: its stem, the stage, part of the reason, the member named."""

    stem: str
    stage: str
    reason: str
    member: str = "?"

    @property
    def named(self) -> str:
        return f"{self.stem}.png" if self.member == "?" else self.member


@dataclass(frozen=True)
class Fault:
    """What a shard holds, and what must become of it.

    Attributes:
        write: makes its bytes.
        delivered: samples that must arrive, stem to number.
        rejected: samples that must be named.
        fault: part of what must be said of the shard; "" where nothing is.
        target: labels asked for.
        suffix: of the file's name; what is compressed cannot be indexed, and has another than ".tar" here.
    """

    name: str
    write: Callable[[Maker], bytes]
    delivered: Mapping[str, int]
    rejected: tuple[Lost, ...]
    fault: str
    target: str | tuple[str, ...]
    suffix: str

    @property
    def number(self) -> int:
        return list(FAULTS).index(self.name) + 1

    @property
    def compressed(self) -> bool:
        return self.suffix != ".tar"

    def file_name(self, zipped: bool = False) -> str:
        return self.name.replace(" ", "_") + self.suffix + (".gz" if zipped else "")

    def labels(self) -> dict[str, int]:
        """Stem to label of what must arrive."""
        return {stem: Maker(self.number).label(n) for stem, n in self.delivered.items()}

    def write_to(self, folder: Path, zipped: bool = False) -> str:
        """The shard's path; `zipped`: the same bytes as a gzip stream, which is read another way."""
        data = self.write(Maker(self.number))
        path = folder / self.file_name(zipped)
        path.write_bytes(gzip.compress(data, 1, mtime=0) if zipped else data)
        return str(path)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    delivered: str | Mapping[str, int] = "1 3",
    *rejected: Lost,
    fault: str = "",
    target: str | tuple[str, ...] = "cls",
    suffix: str = ".tar",
) -> Callable[[Callable[[Maker], bytes]], Callable[[Maker], bytes]]:
    """Enter the function into the table; `delivered` as a dict, or the numbers of samples with the usual stems."""

    def enter(write: Callable[[Maker], bytes]) -> Callable[[Maker], bytes]:
        assert name not in FAULTS
        stems = {f"s{n}": int(n) for n in delivered.split()} if isinstance(delivered, str) else delivered
        FAULTS[name] = Fault(name, write, stems, rejected, fault, target, suffix)
        return write

    return enter


def table(*entries: tuple[Any, ...], **same: Any) -> None:
    """Several faults that differ in a function of one line: (name, function, delivered, rejected …)."""
    for name, write, *expected in entries:
        fault(name, *expected, **same)(write)


def spliced(data: bytes, begin: int, stop: int, middle: bytes) -> bytes:
    return data[:begin] + middle + data[stop:]


def between(middle: Callable[[Maker], bytes]) -> Callable[[Maker], bytes]:
    """Something instead of the second sample."""
    return lambda m: members(m.samples(1)) + middle(m) + m.whole(3)
