"""The project's own images: four small shards of drawn textures, on which every part of the pipeline can be tried.

The images show ten textures in random colours, sizes and file formats. The class of an image is its texture.
`patchpack.samples.draw` draws the images. This module reads no image, so importing it is quick.
"""

from __future__ import annotations

from pathlib import Path

from patchpack.errors import ConfigError, SourceError

CLASS_NAMES: tuple[str, ...] = (
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard",
    "dots",
    "rings",
    "triangles",
    "crosses",
    "zigzags",
    "clouds",
)

_SPLITS = ("train", "val")


def shards(split: str) -> list[str]:
    """Return the sorted paths of the shards of one split.

    A sample is ``<key>.jpg``, ``.png`` or ``.webp`` followed by ``<key>.cls``, an index into `CLASS_NAMES` as text.

    Args:
        split: ``"train"`` or ``"val"``.

    Raises:
        ConfigError: the split is unknown.
        SourceError: the files are not beside this module.
    """
    if split not in _SPLITS:
        raise ConfigError(f"split must be 'train' or 'val', got {split!r}")
    folder = Path(__file__).parent
    found = sorted(str(path) for path in folder.glob(f"shapes-{split}-*.tar"))
    if not found:
        raise SourceError(
            f"{folder} has no shapes-{split}-*.tar: draw them with `python -m patchpack.samples.draw`, "
            "or install patchpack again."
        )
    return found
