"""A Hub of our own on loopback: as much of its HTTP interface as huggingface_hub, transformers and datasets use.

Repositories live in memory; private ones answer only to a request with a token. What is not here answers 404 and is
listed, so that a client which starts to ask for something new is noticed.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER = "someone"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass
class Repository:
    """One repository: every commit's files, the last commit being `main`."""

    kind: str
    name: str
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])

    def sha(self, index: int = -1) -> str:
        index = index % len(self.commits)
        return hashlib.sha1(f"{self.kind} {self.name} {index}".encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.commits[-1]
        shas = [self.sha(index) for index in range(len(self.commits))]
        return self.commits[shas.index(revision)] if revision in shas else None


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub:` serves at `hub.url` until the block ends.

    Attributes:
        repositories: by ("model" or "dataset", "someone/name").
        requests: method, path, and whether a token came, of every request.
        unknown: method and path of those that nothing here answers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.unknown: list[tuple[str, str]] = []
        self.lock = Lock()

    def __enter__(self) -> "HubServer":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def files(self, name: str, kind: str = "model") -> dict[str, bytes]:
        """Contents by path of the last commit."""
        return self.repositories[kind, name].commits[-1]


class _Failure(Exception):
    """An answer that is no success: status, the Hub's error code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests.append((self.command, url.path, "Authorization" in self.headers))
            try:
                for methods, pattern, handle in _ROUTES:
                    found = re.fullmatch(pattern, url.path)
                    if found and self.command in methods:
                        parts = [part and unquote(part) for part in found.groups()]
                        return handle(self, *parts)
                self.server.unknown.append((self.command, url.path))
                raise _Failure(404, "NotImplemented", f"No {self.command} {url.path} on this server")
            except _Failure as failure:
                content = json.dumps({"error": str(failure)}).encode()
                self._send(content, failure.status, {"X-Error-Code": failure.code, "X-Error-Message": str(failure)})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _repository(self, kind: str, name: str, revision: str | None = None) -> tuple[Repository, dict[str, bytes]]:
        repository = self.server.repositories.get((kind, name))
        if repository is None or (repository.private and "Authorization" not in self.headers):
            # As the Hub: a private repository is not there for strangers.
            raise _Failure(401, "RepoNotFound", "Repository not found")
        files = repository.files(revision or "main")
        if files is None:
            raise _Failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, files

    # ---- Writing ----

    def whoami(self) -> None:
        if "Authorization" not in self.headers:
            raise _Failure(401, "Unauthorized", "Invalid credentials")
        self._json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        if "Authorization" not in self.headers:
            raise _Failure(401, "Unauthorized", "Invalid credentials")
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{PREFIXES[kind]}{name}", "name": name}
        if (kind, name) in self.server.repositories:
            return self._json({**answer, "error": "You already created this repo"}, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.repositories[kind, name] = Repository(kind, name, private)
        self._json(answer)

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        found = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
        errors = [] if found and isinstance(yaml.safe_load(found[1]), dict) else [{"message": "No metadata"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, kind: str, name: str, revision: str) -> None:
        self._repository(kind, name, revision)
        files = json.loads(self.body)["files"]
        modes = [{"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in files]
        self._json({"files": modes})

    def lfs_batch(self, prefix: str | None, name: str) -> None:
        self._repository(_kind(prefix), name)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            href = {"href": f"{self.server.url}/lfs/{asked['oid']}"}
            present = asked["oid"] in self.server.objects
            objects.append(asked if present else {**asked, "actions": {"upload": href}})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Failure(400, "BadRequest", "The content is not that of the oid")
        self.server.objects[oid] = self.body
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository, files = self._repository(kind, name, revision)
        files = dict(files)
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            elif item["key"] != "header":
                raise _Failure(400, "BadRequest", f"Unknown operation {item['key']}")
        repository.commits.append(files)
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{repository.sha()}", "commitOid": repository.sha()})

    # ---- Reading ----

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repository, files = self._repository(kind, name, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        info = {"id": name, "sha": repository.sha(), "private": repository.private, "siblings": siblings}
        self._json({**info, "tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        _, files = self._repository(kind, name, revision)
        start = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        inside = [path for path in sorted(files) if path.startswith(start)]
        if start and not inside:
            raise _Failure(404, "EntryNotFound", f"{folder} does not exist")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        direct = [path for path in inside if recursive or "/" not in path[len(start) :]]
        folders = {start + path[len(start) :].split("/")[0] for path in inside} - set(inside)
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        self._json(entries + [_entry(path, files[path]) for path in direct])

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        _, files = self._repository(kind, name, revision)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        found = [_entry(path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if path not in files and any(f.startswith(f"{path}/") for f in files)]
        self._json(found + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders])

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository, files = self._repository(_kind(prefix), name, revision)
        if path not in files:
            raise _Failure(404, "EntryNotFound", f"{path} does not exist")
        content = files[path]
        etag = f'"{_entry(path, content)["oid"]}"'
        headers = {"ETag": etag, "X-Repo-Commit": repository.sha(), "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(content, 200, {**headers, "Accept-Ranges": "bytes"})
        first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, headers)


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".bin", ".parquet", ".arrow", ".pt")) else "regular"


def _entry(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if _mode(path) == "lfs":
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _kind(prefix: str | None) -> str:
    return next(kind for kind, start in PREFIXES.items() if start == (prefix or ""))


_API = r"/api/(model|dataset)s/([^/]+/[^/]+)"
_ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), rf"{_API}/preupload/([^/]+)", _Handler.preupload),
    (("POST",), r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs/(\w+)", _Handler.lfs_upload),
    (("POST",), rf"{_API}/commit/([^/]+)", _Handler.commit),
    (("GET",), rf"{_API}(?:/revision/([^/]+))?", _Handler.info),
    (("GET",), rf"{_API}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (("POST",), rf"{_API}/paths-info/([^/]+)", _Handler.paths_info),
    (("GET", "HEAD"), r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]
