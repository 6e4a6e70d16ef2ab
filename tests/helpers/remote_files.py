"""Local file systems that behave like remote ones, and count the requests that they get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import fsspec


class CountedFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """``counted:///path``: files of this machine. `requests` are the ranges asked for, `asked` what else was.

    What it said of a file it says again, until it is told to forget; object stores remember their listings so.
    """

    protocol = "counted"
    requests: ClassVar[list[tuple[str, int, int]]] = []
    asked: ClassVar[list[str]] = []
    remembered: ClassVar[dict[Any, dict[str, Any]]] = {}
    broken = False
    says_etag = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pid = os.getpid()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self.asked.append(Path(path).name)
        if path not in self.remembered:
            status = os.stat(path)
            told = {"name": path, "size": status.st_size, "type": "file"}
            self.remembered[path] = {**told, "ETag": f'"{status.st_mtime_ns:x}"'} if self.says_etag else told
        return self.remembered[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.remembered.pop(path, None)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
        return [self.info(name) for name in names] if detail else names

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if self.broken:
            raise TimeoutError("the line is cut")
        if self._pid != os.getpid():
            raise RuntimeError("this file system is another process's")
        assert start is not None
        assert end is not None
        path = self._strip_protocol(path)
        self.requests.append((Path(path).name, start, end - start))
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    @classmethod
    def forget(cls) -> None:
        """Count anew."""
        cls.requests.clear()
        cls.asked.clear()
        cls.remembered.clear()
        cls.broken, cls.says_etag = False, True


class Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, by ranges unless `serves_ranges` is off."""

    serves_ranges = True

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        part, code = data, 200
        if asked and self.serves_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part, code = data[int(first) : int(last) + 1], 206
        self.send_response(code)
        self.send_header("Content-Length", str(len(part)))
        if code == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def served(folder: Path, *, ranges: bool = True) -> Iterator[str]:
    """The URL under which the files of a folder are served."""
    handler = type("Handler", (Ranges,), {"serves_ranges": ranges})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
