"""
A GitHub that keeps what it is asked to: branches, commits of files, pull requests, reviewers.

It answers as GitHub's documentation says. The answers to what it has done can be lost.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Answer = tuple[int, Any]


def blob(content: bytes) -> str:
    """Return the SHA of a file."""
    return hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()


@dataclass
class Commit:
    """A commit: the whole content of its files, and the commit before it."""

    sha: str
    message: str
    files: dict[str, bytes]
    parent: str | None
    path: str = ""


@dataclass
class OwnGitHub:
    """The repository ``o/r``, with the branch ``main``. *lost* answers are lost after the work."""

    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    """Each request for reviewers that asked somebody anew."""
    lost: int = 0
    sent: list[str] = field(default_factory=list)
    url: str = ""

    def commit(self, branch: str, path: str, content: bytes | None, message: str = "m") -> str:
        """Add a commit that writes a file, or deletes it."""
        parent = self.branches.get(branch)
        files = dict(self.commits[parent].files) if parent else {}
        files.pop(path, None)
        if content is not None:
            files[path] = content
        sha = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, message, files, parent, path)
        self.branches[branch] = sha
        return sha

    def history(self, start: str | None) -> list[Commit]:
        """Return a commit and those before it, the newest first."""
        found = []
        while start:
            found.append(self.commits[start])
            start = found[-1].parent
        return found

    def read(self, branch: str, path: str) -> bytes | None:
        """Return what is in a file."""
        return self.commits[self.branches[branch]].files.get(path)

    def answer(self, method: str, target: str, body: Any) -> Answer:
        """Do what is asked."""
        url = urlsplit(target)
        parts = [unquote(part) for part in url.path.split("/")[4:]]
        query = {name: each[0] for name, each in parse_qs(url.query).items()}
        self.sent.append(f"{method} {'/'.join(parts)}")
        name = f"{method} {parts[0]}"
        if name == "PUT contents":
            return self._write("/".join(parts[1:]), body)
        if name == "GET contents":
            return self._content("/".join(parts[1:]), query)
        if name == "GET commits":
            return self._commits(parts, query)
        if name == "GET compare":
            base, _, head = parts[1].partition("...")
            before = any(each.sha == head for each in self.history(base))
            return 200, {"status": "behind" if before else "diverged"}
        if parts[0] == "git":
            return self._reference(method, parts, body)
        return self._pull(method, parts, query, body)

    def _write(self, path: str, body: Any) -> Answer:
        branch = body.get("branch", "main")
        current, given = self.read(branch, path), body.get("sha")
        if current is not None and given is None:
            return 422, {"message": 'Invalid request.\n\n"sha" wasn\'t supplied.'}
        if given and (current is None or blob(current) != given):
            return 409, {"message": f"{path} does not match {given}"}
        sha = self.commit(branch, path, base64.b64decode(body["content"]), body["message"])
        return 200, {"content": {}, "commit": {"sha": sha}}

    def _content(self, path: str, query: dict[str, str]) -> Answer:
        content = self.read(query.get("ref", "main"), path)
        if content is None:
            return 404, {"message": "Not Found"}
        shown = base64.encodebytes(content).decode()
        return 200, {
            "type": "file", "path": path, "sha": blob(content), "size": len(content),
            "encoding": "base64", "content": shown,
        }  # fmt: skip

    def _commits(self, parts: list[str], query: dict[str, str]) -> Answer:
        if len(parts) > 1:
            name = "main" if parts[1] == "HEAD" else parts[1]
            sha = self.branches.get(name, name)
            if sha not in self.commits:
                return 422, {"message": f"No commit found for SHA: {name}"}
            return 200, {"sha": sha}
        if not self.branches:
            return 409, {"message": "Git Repository is empty."}
        found = self.history(self.branches[query.get("sha", "main")])
        return 200, [
            {"sha": each.sha, "commit": {"message": each.message}}
            for each in found if each.path == query["path"]
        ]  # fmt: skip

    def _reference(self, method: str, parts: list[str], body: Any) -> Answer:
        if method == "POST":
            name = body["ref"].removeprefix("refs/heads/")
            if name in self.branches:
                return 422, {"message": "Reference already exists"}
            if body["sha"] not in self.commits:
                return 422, {"message": "Object does not exist"}
            self.branches[name] = body["sha"]
        else:
            name = "/".join(parts[2:]).removeprefix("heads/")
        return 200, {"object": {"sha": self.branches[name]}}

    def _pull(self, method: str, parts: list[str], query: dict[str, str], body: Any) -> Answer:
        if len(parts) > 1:
            return self._pull_at(method, parts, body)
        if method == "GET":
            return 200, [each for each in self.pulls if f"o:{each['head']['ref']}" == query["head"]]
        for each in self.pulls:
            same = (each["head"]["ref"], each["base"]["ref"]) == (body["head"], body["base"])
            if same and each["state"] == "open":
                said = f"A pull request already exists for o:{body['head']}."
                return 422, {"message": "Validation Failed", "errors": [{"message": said}]}
        sides = {
            side: {"ref": body[side], "sha": self.branches.get(body[side], "b" * 40)}
            for side in ("head", "base")
        }
        self.pulls.append({
            **body, **sides, "number": len(self.pulls) + 1, "state": "open",
            "html_url": "https://github.com/o/r/pull/1", "created_at": "2026-01-01T00:00:00Z",
            "requested_reviewers": [], "requested_teams": [],
        })  # fmt: skip
        return 201, self.pulls[-1]

    def _pull_at(self, method: str, parts: list[str], body: Any) -> Answer:
        pull = self.pulls[int(parts[1]) - 1]
        if parts[2:] == ["reviews"]:
            return 200, self.reviews
        if method == "POST":
            people = [each["login"] for each in pull["requested_reviewers"]]
            teams = [each["slug"] for each in pull["requested_teams"]]
            new = [each for each in body["reviewers"] if each not in people]
            groups = [each for each in body["team_reviewers"] if each not in teams]
            pull["requested_reviewers"] += [{"login": each} for each in new]
            pull["requested_teams"] += [{"slug": each} for each in groups]
            if new or groups:
                self.asked.append(new + groups)
        return 200, pull

    def review(self, login: str) -> None:
        """Let somebody review the newest commit of the first pull request."""
        pull = self.pulls[0]
        asked = pull["requested_reviewers"]
        pull["requested_reviewers"] = [each for each in asked if each["login"] != login]
        self.reviews.append({"user": {"login": login}, "commit_id": pull["head"]["sha"]})


@pytest.fixture
def own_github() -> Iterator[OwnGitHub]:
    """A GitHub on this machine."""
    github = OwnGitHub()
    github.commit("main", "README.md", b"old\n")

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, content = github.answer(self.command, self.path, body)
            if self.command != "GET" and status < 400 and github.lost:
                github.lost -= 1
                status, content = 502, {"message": "sorry"}
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
