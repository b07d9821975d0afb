"""A hub on this machine: the part of the hub's protocol that `snapshot_download` speaks, over a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill_cache(hub: Path, repository: str, source: Path, revision: str = "main") -> Path:
    """Writes a repository into a cache as huggingface_hub lays it out: blobs, refs, snapshots of links.

    Returns:
        The snapshot.
    """
    root = hub / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    for path in source.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (root / "blobs" / digest).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / digest)
    return snapshot


@contextmanager
def serving(repository: str, source: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder as a repository with the branch "main" and the commit `COMMIT`.

    Yields:
        The address for HF_ENDPOINT, and the names of files that were asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def _answer(self, with_content: bool) -> None:
            path, files = self.path.split("?")[0], sorted(source.iterdir())
            model, resolve = f"/api/models/{repository}", f"/{repository}/resolve/"
            if path in (model, f"{model}/revision/main", f"{model}/revision/{COMMIT}"):
                siblings = [{"rfilename": each.name} for each in files]
                self._json({"id": repository, "sha": COMMIT, "siblings": siblings})
            elif path.startswith(f"{model}/tree/"):
                self._json([_entry(each) for each in files])
            elif path.startswith(f"{model}/revision/"):
                self._error(404, "RevisionNotFound")
            elif path.startswith(resolve) and (source / path.split("/")[-1]).is_file():
                file = source / path.split("/")[-1]
                if with_content:
                    asked.append(file.name)
                content, oid = file.read_bytes(), _entry(file)["oid"]
                headers = {"ETag": f'"{oid}"', "X-Repo-Commit": COMMIT}
                self._send(200, content if with_content else b"", headers, len(content))
            else:
                self._error(404, "RepoNotFound")

        def _json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self._send(200, content, {"Content-Type": "application/json"}, len(content))

        def _error(self, status: int, code: str) -> None:
            self._send(status, b"", {"X-Error-Code": code}, 0)

        def _send(self, status: int, content: bytes, headers: dict[str, str], size: int) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(size)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": path.name, "size": len(content), "oid": oid}
