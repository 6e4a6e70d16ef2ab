"""Paths and URLs of shards."""

from __future__ import annotations

import os


def is_local(url: str) -> bool:
    """Return True for a path on this machine."""
    return "://" not in url and not url.startswith("pipe:")


def in_working_folder(path: str) -> str:
    """Return the folder in which a relative path was searched, for an error about a missing file; else ""."""
    return "" if os.path.isabs(path) or not is_local(path) else f" (working directory {os.getcwd()})"


def absolute(url: str) -> str:
    """Return a name of the same shard for a process in another folder."""
    return os.path.abspath(url) if is_local(url) else url
