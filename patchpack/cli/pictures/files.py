"""Paths of pictures, which are checked before any slow work begins."""

from __future__ import annotations

from pathlib import Path

from patchpack.errors import ConfigError

FIGURES = (".png", ".pdf", ".svg")  # formats of matplotlib


def png_path(out: str) -> Path:
    """Make the folder of a PNG file, and return the path of the file.

    Raises:
        ConfigError: the path has another suffix than .png, or is a folder, or its folder cannot be made.
    """
    path = Path(out)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out must end in .png, got {path.name!r}")
    _refuse_folder(path)
    _make_folder(path)
    return path


def figure_path(out: str) -> Path:
    """Make the folder of a figure's file, and return the path of the file.

    Raises:
        ConfigError: the path has another suffix than .png, .pdf and .svg, or is a folder, or its folder cannot be made, or
            matplotlib is not installed.
    """
    path = Path(out)
    if path.suffix.lower() not in FIGURES:
        raise ConfigError(f"--out must end in {', '.join(FIGURES)}, got {path.name!r}: choose one of these formats")
    _refuse_folder(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--out draws with matplotlib, which is missing ({error}): pip install 'patchpack[viz]'") from error
    _make_folder(path)
    return path


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"--out must be a file, {path} is a folder: add a file name")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out cannot be written, {type(error).__name__}: {error}: choose another place") from error
