"""A stand-in for the Hugging Face hub over real HTTP: models can be made, committed to and fetched."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """Listens on a free port of this machine; `repos` maps a model's id to its files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        file = re.fullmatch(r"/(\w+/[\w.-]+)/resolve/[^/]+/(.+)", self.path)
        info = re.match(r"/api/models/(\w+/[\w.-]+)", self.path)
        if (file and file[1] not in self.server.repos) or (info and info[1] not in self.server.repos):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif file and file[2] not in self.server.repos[file[1]]:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _COMMIT})
        elif file:
            content = self.server.repos[file[1]][file[2]]
            etag = hashlib.sha256(content).hexdigest()
            self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": _COMMIT})
        elif info:
            files = [{"rfilename": name} for name in self.server.repos[info[1]]]
            self._answer(200, {"id": info[1], "sha": _COMMIT, "siblings": files})
        else:
            self._answer(404, {"error": self.path})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'someone'}/{request['name']}"
            self.server.repos.setdefault(name, {})
            self._answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif preupload := re.match(r"/api/models/(.+)/preupload/", self.path):
            assert preupload[1] in self.server.repos
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif commit := re.match(r"/api/models/(.+)/commit/", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.repos[commit[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.url}/{commit[1]}/commit/{_COMMIT}"
            self._answer(200, {"success": True, "commitUrl": url, "commitOid": _COMMIT, "hookOutput": ""})
        else:
            self._answer(404, {"error": self.path})

    def _answer(self, status: int, content: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
