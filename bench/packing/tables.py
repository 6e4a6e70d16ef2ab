"""The results of `packing` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in rows:
        assert len(row) == len(columns)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def _rate(per_second: float) -> str:
    """Return items/s as text, in millions or thousands."""
    return f"{per_second / 1e6:.3g} M" if per_second >= 1e6 else f"{per_second / 1e3:.3g} k"


def faults(record: Record) -> str:
    """Return the faults that an audit found, as text."""
    return ", ".join(f"{record[fault]} {fault}" for fault in ("lost", "repeated", "over") if record[fault]) or "–"


def _effort(figure: Any) -> str:
    """Return efficiency and seconds, or a bound, or another value, as text."""
    if isinstance(figure, list):
        return f"{figure[0]:.3f} ({figure[1]:.2g} s)"
    return f"{figure:.3f}" if isinstance(figure, float) else f"{figure}"


def _mebibytes(record: Record) -> str:
    """Return the peak memory as text, empty if it was not measured."""
    return f"{record['MiB']:.1f}" if "MiB" in record else ""


def show(answer: Record) -> None:
    """Print all tables."""
    names = list(dict.fromkeys(peer["packer"] for row in answer["offline"] for peer in row["peers"]))
    cells = []
    for row in answer["offline"]:
        cell = {p["packer"]: f"{p['times as fast']:,.0f} × ({p['fill']:.2f} %, {p['items']:,})" for p in row["peers"]}
        cell |= {p["packer"]: f"*{cell[p['packer']]}*" for p in row["peers"] if not p["within a point"]}
        near = [p["times as fast"] for p in row["peers"] if p["within a point"]]
        ours = [_rate(row["items/s"]), f"{row['fill']:.2f}", row["rows"] - row["rows of bfd"], _mebibytes(row)]
        least = f"{min(near):,.0f} ×" if near else "–"
        cells.append([row["list"], row["seq_len"], *ours, least, *(cell[name] for name in names)])
    columns = ["list", "L", "items/s", "fill %", "rows over BFD's", "MiB", "least near", *names]
    about = "times as fast as each peer (its fill, its items; in italics where its fill is over a point below BFD's)"
    _table(f"`pack_lengths`, {answer['offline'][0]['items']:,} items: {about}", columns, cells)
    wrong = [(r["list"], r["seq_len"], p["packer"], faults(p)) for r in answer["offline"] for p in r["peers"]]
    wrong = [each for each in wrong if each[-1] != "–"]
    print("\nItems lost or repeated, rows over L:", *(wrong or ["none"]))
    columns = list(answer["capped"][0])
    share = [[f"{row[k]:.2f}" if isinstance(row[k], float) else row[k] for k in columns] for row in answer["capped"]]
    _table("Share of max(sum/L, n/max_images) in %", columns, share)
    cells = []
    for row in answer["online"]:
        mine = f"{row['fill of ours']:.3f}" if "fill of ours" in row else ""
        pushed = f", pushed {_rate(row['pushed items/s'])}" if "pushed items/s" in row else ""
        speed, fill = _rate(row["items/s"]) + pushed, f"{row['fill']:.3f}"
        cell = [row["list"], row["seq_len"], row["packer"], f"{row['items']:,}", fill, mine, speed, row["longest wait"]]
        cells.append([*cell, _mebibytes(row), faults(row)])
    columns = ["list", "L", "packer", "items", "fill %", "ours on the same items", "items/s", "longest wait", "MiB", "faults"]
    _table("As items arrive", columns, cells)
    columns = list(dict.fromkeys(key for row in answer["published"] for key in row))
    cells = [[_effort(row.get(column)) for column in columns] for row in answer["published"]]
    _table("Krell et al., efficiency in %", columns, cells)
