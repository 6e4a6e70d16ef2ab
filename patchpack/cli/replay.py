"""``patchpack replay``: one image as training saw it, in numbers and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

import patchpack as pp
from patchpack.cli import draw
from patchpack.cli.opening import open_typed
from patchpack.cli.preview import drawable, writable
from patchpack.cli.terminal import say
from patchpack.stream.replay import replay


def run(source: str, recipe: pp.Recipe, key: str, *, out: str | None, image: str, target: str | None, **draws: Any) -> int:
    """Print what became of the image, and draw it; returns the exit status."""
    path = None if out is None else writable(Path(out))
    opened, _ = open_typed(source, image=image, target=target)
    found = replay(opened, recipe, key, **draws)
    patch_size = recipe.patch_size_at(draws.get("epoch", 0), draws.get("step", 0))
    (height, width), (rows, cols) = found.source_size, found.grid
    console = Console()
    say(console, f"{key}: {height} x {width} pixels, {rows} x {cols} patches of {patch_size} pixels, {len(found.patches)} kept")
    say(console, f"target {found.target}, digest {pp.digest(found)}")
    if path is not None:
        picture = draw.picture_of(replay(opened, drawable(recipe), key, **draws), patch_size)
        draw.save(picture, path)
        say(console, f"wrote {path}")
    return 0
