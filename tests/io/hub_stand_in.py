"""A stand-in for the Hugging Face Hub: one repository, over HTTP on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = "THUDM/glm-tiny"
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class _Server(ThreadingHTTPServer):
    """What the handlers of all requests share."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.requested: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    """The requests of huggingface_hub for one repository."""

    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        listing, files = f"api/models/{REPOSITORY}", f"{REPOSITORY}/resolve/"
        if path.startswith(listing):
            self._list(path.removeprefix(listing).strip("/"))
        elif path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            self._send_file(revision, name, with_body=with_body)
        else:
            self._fail("RepoNotFound")

    def _list(self, asked: str) -> None:
        """A revision's files: as a tree, or as those of a model."""
        kind, _, revision = asked.partition("/")
        found = _folder(self.server.folders, revision or "main")
        if found is None:
            self._fail("RevisionNotFound")
            return
        folder, commit = found
        files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if kind == "tree":
            entries = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": _digest(file)}
                for name, file in files.items()
            ]
            self._send(json.dumps(entries).encode())
            return
        siblings = [{"rfilename": name} for name in files]
        self._send(json.dumps({"id": REPOSITORY, "sha": commit, "siblings": siblings}).encode())

    def _send_file(self, revision: str, name: str, *, with_body: bool) -> None:
        found = _folder(self.server.folders, revision)
        if found is None or not (found[0] / name).is_file():
            self._fail("EntryNotFound")
            return
        file, commit = found[0] / name, found[1]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_digest(file)}"'}
        self._send(file.read_bytes(), headers, with_body=with_body)
        if with_body:
            self.server.requested.append(f"{revision}/{name}")

    def _send(
        self, content: bytes, headers: Mapping[str, str] | None = None, *, with_body: bool = True
    ) -> None:
        self.send_response(200)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def hub(folders: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serves folders as the revisions of `REPOSITORY`.

    Args:
      folders: by the revision, one of `COMMITS`.

    Yields:
      The endpoint, and a list that gets the path of every file that is downloaded.
    """
    server = _Server(folders)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.requested
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _folder(folders: Mapping[str, Path], revision: str) -> tuple[Path, str] | None:
    for name, folder in folders.items():
        if revision in (name, COMMITS[name]):
            return folder, COMMITS[name]
    return None


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
