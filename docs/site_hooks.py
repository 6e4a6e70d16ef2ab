"""What the site needs beside its pages.

`bench/README.md` lies outside of docs/ and is linked from pages: it becomes one. On GitHub the same links go to the file.
Docstrings say "Example:", and griffe reads only "Examples:" as code; tables in them are lines of plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

OUTSIDE = {"bench/README.md": "bench.md"}  # from the repository's top → from docs/
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_TABLE = re.compile(r"^( *)(?:=+ +)+=+$\n(?:.+\n)+?\1(?:=+ +)+=+$\n(?:.+\n)+?\1(?:=+ +)+=+$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that come from elsewhere."""
    top = Path(config.config_file_path).parent
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(top / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at where their files are in the site."""
    here = {to: source for source, to in OUTSIDE.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link[1]))
        if target in OUTSIDE:
            inside = OUTSIDE[target]
        elif here in OUTSIDE and target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        else:
            return link[0]
        return f"]({posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or '.')}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


class Docstrings(Extension):
    """Examples and tables as code instead of running text."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe for whatever it has read."""
        if obj.docstring is not None:
            value = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = _TABLE.sub(r"\1```text\n\g<0>\n\1```", value)
