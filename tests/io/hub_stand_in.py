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


@contextmanager
def hub(folders: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serves folders as the revisions of `REPOSITORY`.

    Args:
      folders: by the revision, one of `COMMITS`.

    Yields:
      The endpoint, and a list that gets the path of every file that is downloaded.
    """
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """The four requests of huggingface_hub."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if path.startswith(f"api/models/{REPOSITORY}"):
                self._list(path.removeprefix(f"api/models/{REPOSITORY}").strip("/"))
            elif path.startswith(f"{REPOSITORY}/resolve/"):
                revision, _, name = path.removeprefix(f"{REPOSITORY}/resolve/").partition("/")
                self._file(revision, name, with_body=with_body)
            else:
                self._fail("RepoNotFound")

        def _list(self, asked: str) -> None:
            kind, _, revision = asked.partition("/")
            found = _folder(folders, revision or "main")
            if found is None:
                self._fail("RevisionNotFound")
                return
            folder, commit = found
            names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            if kind == "tree":
                sizes = {name: (folder / name).stat().st_size for name in names}
                entries = [
                    {"type": "file", "path": name, "size": size, "oid": _digest(folder / name)}
                    for name, size in sizes.items()
                ]
                self._json(entries)
                return
            siblings = [{"rfilename": name} for name in names]
            self._json({"id": REPOSITORY, "sha": commit, "siblings": siblings})

        def _file(self, revision: str, name: str, *, with_body: bool) -> None:
            found = _folder(folders, revision)
            if found is None or not (found[0] / name).is_file():
                self._fail("EntryNotFound")
                return
            folder, commit = found
            content = (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{_digest(folder / name)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                requested.append(f"{revision}/{name}")
                self.wfile.write(content)

        def _json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _fail(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requested
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
