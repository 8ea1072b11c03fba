"""A W&B server on the loopback interface that knows as much GraphQL as a run and a report need, and can fall silent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4


class FakeWandb(ThreadingHTTPServer):
    """A server that keeps of a run what the real one keeps.

    ``calls`` holds (path, body) in order, ``views`` the saved reports, ``lines`` the history of each run id, ``exit_codes`` how each ended,
    ``deleted`` the ids that are refused, and ``silent`` says what is left without an answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, list[str]] = {}
        self.exit_codes: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.silent: str = ""  # "": answer everything; "POST": answer only HEAD and GET; "all": answer nothing
        self.stopping = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Say nothing: W&B hangs up whenever it likes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def operations(self, word: str) -> list[dict[str, Any]]:
        """Return the variables of the GraphQL calls whose text holds ``word``."""
        return [body.get("variables") or {} for path, body in self.calls if path.endswith("/graphql") and word in body.get("query", "")]

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of all runs' histories as they stand."""
        return [json.loads(line) for lines in self.lines.values() for line in lines]

    def keep(self, run: str, body: dict[str, Any]) -> None:
        """Take in a piece of a run's stream: lines replace what stands from their offset on."""
        sent = (body.get("files") or {}).get("wandb-history.jsonl")
        if sent is not None:
            self.lines.setdefault(run, [])[sent["offset"] :] = sent["content"]
        if body.get("complete"):
            self.exit_codes[run] = body["exitcode"]

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "team"}}
            bucket = {"id": "UnVu", "name": given.get("name"), "displayName": given.get("displayName"), "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "UnVu", "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            name = given["id"] or f"view{len(self.views) + 1}"
            if given["id"] and given["id"] not in self.views:
                return {"upsertView": None}
            self.views[name] = json.loads(given["spec"])
            project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
            view = {"id": name, "type": "runs", "name": name, "displayName": given["displayName"], "description": "", "project": project}
            return {"upsertView": {"view": view | {"spec": given["spec"], "updatedAt": None}, "inserted": True}}
        if "internalId" in query:
            return {"project": {"id": "p", "internalId": base64.b64encode(b"ProjectInternalId:1").decode()}}
        if "viewer" in query.lower():
            teams = {"edges": [{"node": {"id": "e", "name": "team"}}]}
            viewer = {
                "id": "u",
                "entity": "team",
                "username": "me",
                "name": "Me",
                "email": "",
                "admin": False,
                "flags": "{}",
                "teams": teams,
            }
            return {"viewer": viewer | {"apiKeys": {"edges": []}, "deletedAt": None}}
        if "models(" in query or "projects(" in query:
            node = {"id": "p", "name": "osediff_exp", "entityName": "team", "createdAt": "", "isBenchmark": False, "user": None}
            edge = {"cursor": "c", "node": node}
            return {"models": {"edges": [edge], "pageInfo": {"endCursor": "c", "hasNextPage": False}}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeWandb

    def log_message(self, *_: Any) -> None:
        """Say nothing: a test's output is no access log."""

    def do_HEAD(self) -> None:
        self._reply(None)

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        self.server.calls.append((self.path, body))
        given = body.get("variables") or {}
        if "upsertBucket" in body.get("query", "") and given.get("name") in self.server.deleted:
            message = f"run {given['name']} was previously created and deleted; try a new run name"
            self._reply({"errors": [{"message": message}]}, status=409)
            return
        if self.path.endswith("/file_stream"):
            self.server.keep(self.path.split("/")[-2], body)
        data = {"data": self.server.answer(body.get("query", ""), given)}
        self._reply(data if self.path.endswith("/graphql") else {"exitcode": None, "limits": {}})

    def _body(self) -> dict[str, Any]:
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            found = json.loads(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _reply(self, content: Any, status: int = 200) -> None:
        if self.server.silent == "all" or (self.server.silent == "POST" and self.command == "POST"):
            self.server.stopping.wait()
            self.close_connection = True
            return
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_wandb() -> Iterator[FakeWandb]:
    """Serve in a thread until the block ends."""
    server = FakeWandb()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
