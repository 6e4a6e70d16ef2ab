"""Paths and URLs of shards."""

from __future__ import annotations

import os


def is_local(url: str) -> bool:
    """True for a path on this machine."""
    return "://" not in url and not url.startswith("pipe:")


def in_working_folder(path: str) -> str:
    """For an error about a path that is not there: where a relative one was looked for."""
    return "" if os.path.isabs(path) or not is_local(path) else f" (the working folder is {os.getcwd()})"


def absolute(url: str) -> str:
    """The same shard for a process in another folder."""
    return os.path.abspath(url) if is_local(url) else url
