"""A stand-in for the Hugging Face hub on loopback: repositories in memory, served in the hub's layout.

It answers what huggingface_hub, transformers and datasets ask for when they only read: repository information, file
trees, path information and files, with the hub's headers and error codes. Point `HF_ENDPOINT` at `HubStandIn.endpoint`
before those libraries are imported.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("models", "datasets")


@dataclass
class Repository:
    """One repository at one commit: file path → bytes."""

    kind: str
    name: str
    files: dict[str, bytes]
    gated: bool = False
    sent: dict[str, bytes] = field(default_factory=dict)  # what is sent in place of what is announced
    commit: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(f"{self.kind}/{self.name}".encode())
        for path, data in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha1(data).digest())
        self.commit = digest.hexdigest()

    def entry(self, path: str) -> dict:
        """A file as the tree and path listings show it."""
        data = self.files[path]
        commit = {"id": self.commit, "title": "first", "date": "2024-01-01T00:00:00.000Z"}
        return {"type": "file", "oid": _oid(data), "size": len(data), "path": path, "lastCommit": commit}


def _etag(path: str, data: bytes) -> str:
    """The hub's ETag: sha256 of a large file, git's name of the blob for a small one."""
    return hashlib.sha256(data).hexdigest() if path.endswith((".safetensors", ".parquet")) else _oid(data)


def _oid(data: bytes) -> str:
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubStandIn:
    """The server; use it as a context manager.

    `requests` collects "METHOD path" of everything asked, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(
        self,
        kind: str,
        name: str,
        files: dict[str, bytes],
        *,
        gated: bool = False,
        sent: dict[str, bytes] | None = None,
    ) -> Repository:
        """Serve a repository.

        Args:
            kind: "models" or "datasets".
            name: owner/name.
            files: path in the repository → bytes.
            gated: answer every request for it as one without permission gets.
            sent: path → bytes of the same length that are sent in place of the announced ones.
        """
        repository = Repository(kind, name, files, gated, sent or {})
        self.repositories[kind, name] = repository
        return repository

    def __enter__(self) -> HubStandIn:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Refusal(Exception):
    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        try:
            if not parts:
                self._send(200, b"stand-in", {"Content-Type": "text/plain"})
            elif parts[0] == "api" and len(parts) >= 4 and parts[1] in KINDS:
                self._send_json(self._api(parts[1], "/".join(parts[2:4]), parts[4:], body))
            elif "resolve" in parts:
                self._send_file(parts)
            else:
                raise _Refusal(404, "RepoNotFound")
        except _Refusal as refusal:
            self._send(refusal.status, b"{}", {"X-Error-Code": refusal.code, "X-Error-Message": refusal.code})

    def _repository(self, kind: str, name: str, revision: str) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            raise _Refusal(404, "RepoNotFound")
        if repository.gated:
            raise _Refusal(403, "GatedRepo")
        if revision not in ("main", repository.commit):
            raise _Refusal(404, "RevisionNotFound")
        return repository

    def _api(self, kind: str, name: str, rest: list[str], body: bytes) -> object:
        action, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        repository = self._repository(kind, name, revision)
        if action == "revision":
            return {
                "id": name,
                "sha": repository.commit,
                "lastModified": "2024-01-01T00:00:00.000Z",
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(repository.files)],
            }
        if action == "tree":
            folder = "/".join(rest[2:])
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            return _tree(repository, folder, recursive)
        if action == "paths-info":
            return _paths(repository, _posted_paths(body, self.headers.get("Content-Type", "")))
        raise _Refusal(404, "EntryNotFound")

    def _send_file(self, parts: list[str]) -> None:
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        repository = self._repository(kind, "/".join(parts[:2]), parts[3])
        data = repository.files.get("/".join(parts[4:]))
        if data is None:
            raise _Refusal(404, "EntryNotFound")
        path = "/".join(parts[4:])
        headers = {"ETag": f'"{_etag(path, data)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        data = repository.sent.get(path, data)
        span = self.headers.get("Range", "")
        if span.startswith("bytes=") and "," not in span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            begin = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last), len(data) - 1) if first and last else len(data) - 1
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            self._send(206, data[begin : end + 1], headers)
        else:
            self._send(200, data, headers)

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _tree(repository: Repository, folder: str, recursive: bool) -> list[dict]:
    prefix = f"{folder}/" if folder else ""
    folders: dict[str, dict] = {}
    files = []
    for path in sorted(repository.files):
        if not path.startswith(prefix):
            continue
        inner = path[len(prefix) :].split("/")
        for depth in range(1, len(inner)):
            name = prefix + "/".join(inner[:depth])
            folders.setdefault(name, {"type": "directory", "oid": "0" * 40, "size": 0, "path": name})
        files.append(repository.entry(path))
    if not recursive:
        folders = {name: entry for name, entry in folders.items() if "/" not in name[len(prefix) :]}
        files = [entry for entry in files if "/" not in entry["path"][len(prefix) :]]
    if folder and not folders and not files:
        raise _Refusal(404, "EntryNotFound")
    return [*folders.values(), *files]


def _posted_paths(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        paths = json.loads(body).get("paths", [])
        return [paths] if isinstance(paths, str) else paths
    return parse_qs(body.decode()).get("paths", [])


def _paths(repository: Repository, paths: list[str]) -> list[dict]:
    found = []
    for path in paths:
        if path in repository.files:
            found.append(repository.entry(path))
        elif any(name.startswith(f"{path}/") for name in repository.files):
            found.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
    return found
