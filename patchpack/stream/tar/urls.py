"""Paths and URLs of shards."""

from __future__ import annotations

import os


def is_local(url: str) -> bool:
    """Return True for a path on this machine."""
    return "://" not in url and not url.startswith("pipe:")


def in_working_folder(path: str) -> str:
    """Return the folder that a relative path starts from, in words that end an error about a missing file.

    Return "" for other paths.
    """
    return "" if os.path.isabs(path) or not is_local(path) else f" (working directory {os.getcwd()})"


def absolute(url: str) -> str:
    """Return the absolute path of a shard, for a process with another working folder. A URL is returned unchanged."""
    return os.path.abspath(url) if is_local(url) else url
