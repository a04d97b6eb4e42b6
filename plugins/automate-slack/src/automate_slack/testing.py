"""
A double of Slack for tests: real HTTP on this machine, with Slack's own refusals.

::

    with FakeSlack() as slack:
        kernel = Kernel(config={"slack": slack.config}, secrets=slack.secrets)
        kernel.invoke("slack.post_message", {"channel": "C0GENERAL", "text": "hello"})
        assert [each["text"] for each in slack.messages("C0GENERAL")] == ["hello"]

It is written from Slack's documentation, and is no Slack: what it doesn't know, it refuses as
``unknown_method``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from automate_kernel.triggers.webhooks import SlackSignature
from automate_slack.fake_workspace import APP, TEAM, Refused, Workspace
from automate_slack.forms import value_at

SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 - of nothing


@dataclass(frozen=True, slots=True)
class SlackRequest:
    """A request as Slack sends it to an app: its body, and headers with its signature."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Fault:
    status: int = 200
    error: str | None = None
    retry_after: int | None = None
    times: int = 1
    after: bool = False


class FakeSlack(Workspace):
    """
    A workspace with channels, people and messages, and the Web API of one app in it.

    `config` and `secrets` are for a kernel. `messages` is what people see. `click`, `event` and
    `command` are requests that Slack would send to the app. `rate_limit`, `fail` and `lose_answer`
    make the next calls of a method go wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signing_secret = SIGNING_SECRET
        self.calls: list[tuple[str, dict[str, str]]] = []
        """The methods that were called, with their fields; refused ones too."""
        self._faults: dict[str, _Fault] = {}
        self._server: _FakeSlackServer | None = None

    # -- running -----------------------------------------------------------------------------

    def start(self) -> FakeSlack:
        """Serve on 127.0.0.1 until `stop`."""
        self._server = _FakeSlackServer(("127.0.0.1", 0), _FakeSlackHandler)
        self._server.slack = self
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> FakeSlack:  # noqa: PYI034 - Self is new in Python 3.11
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of its Web API."""
        if not self.root:
            raise LookupError("start it first: with FakeSlack() as slack")
        return f"{self.root}/api"

    @property
    def config(self) -> dict[str, Any]:
        """The connector's config."""
        return {"base_url": self.url, "allow_private_networks": ["127.0.0.1"]}

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that the connector reads."""
        return {"SLACK_BOT_TOKEN": self.token, "SLACK_SIGNING_SECRET": self.signing_secret}

    # -- faults ------------------------------------------------------------------------------

    def rate_limit(self, method: str, retry_after: int = 30, *, times: int = 1) -> None:
        """Answer the next calls of *method* with 429 and ``Retry-After``, in seconds."""
        self._faults[method] = _Fault(429, "ratelimited", retry_after, times)

    def fail(self, method: str, error: str | int, *, times: int = 1) -> None:
        """Answer the next calls with an *error* of Slack's, or with that status of HTTP."""
        fault = _Fault(status=error) if isinstance(error, int) else _Fault(error=error)
        fault.times = times
        self._faults[method] = fault

    def lose_answer(self, method: str, *, times: int = 1) -> None:
        """Do what the next calls of *method* ask for, and hang up without an answer."""
        self._faults[method] = _Fault(times=times, after=True)

    # -- requests to the app -----------------------------------------------------------------

    def signed(self, body: bytes, kind: str, *, now: float | None = None) -> SlackRequest:
        """Sign *body* as Slack does; *now* is a time in seconds since 1970."""
        at = time.time() if now is None else now
        headers = SlackSignature().sign(body, self.signing_secret, now=lambda: at)
        return SlackRequest({**headers, "Content-Type": kind}, body)

    def event(self, event: Mapping[str, Any], *, event_id: str | None = None) -> SlackRequest:
        """Return a delivery of the Events API."""
        body = {
            "token": "verification", "type": "event_callback", "team_id": TEAM, "api_app_id": APP,
            "event_id": event_id or f"Ev{self.next_number():08}", "event_time": int(time.time()),
            "event": dict(event),
        }  # fmt: skip
        return self.signed(json.dumps(body).encode(), "application/json")

    def url_verification(self, challenge: str) -> SlackRequest:
        """Return the handshake for an app's request URL."""
        body = {"token": "verification", "type": "url_verification", "challenge": challenge}
        return self.signed(json.dumps(body).encode(), "application/json")

    def command(self, command: str, text: str, *, user: str, channel: str) -> SlackRequest:
        """Return a slash command."""
        fields = {
            "token": "verification", "team_id": TEAM, "team_domain": "fake", "channel_id": channel,
            "channel_name": self.channels[channel]["name"], "user_id": user, "command": command,
            "text": text, "api_app_id": APP, "trigger_id": f"1.{self.next_number()}",
            "response_url": "https://hooks.slack.com/commands/x",
        }  # fmt: skip
        return self.signed(urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def click(
        self,
        message: Mapping[str, Any],
        action_id: str,
        *,
        user: str,
        typed: Mapping[str, str] | None = None,
        now: float | None = None,
    ) -> SlackRequest:
        """
        Return the click of *user* on a button of a *message*.

        *typed* is what the person has typed into inputs, by their block id. Raises `LookupError` if
        the message has no such button: then nobody could click on it.
        """
        action = next(
            (
                each
                for block in message.get("blocks") or ()
                for each in block.get("elements", ())
                if each.get("action_id") == action_id
            ),
            None,
        )
        if action is None:
            raise LookupError(f"the message has no button {action_id!r}")
        return self.interaction(self._block_action(message, action, user, typed or {}), now=now)

    def interaction(self, payload: Mapping[str, Any], *, now: float | None = None) -> SlackRequest:
        """Return an interaction with this payload."""
        body = urlencode({"payload": json.dumps(payload)}).encode()
        return self.signed(body, "application/x-www-form-urlencoded", now=now)

    def _block_action(
        self,
        message: Mapping[str, Any],
        action: Mapping[str, Any],
        user: str,
        typed: Mapping[str, str],
    ) -> dict[str, Any]:
        channel = message["channel"]
        inputs = [each for each in message["blocks"] if each["type"] == "input"]
        values = {
            each["block_id"]: {
                each["element"]["action_id"]: {
                    "type": each["element"]["type"], "value": typed.get(each["block_id"]),
                }
            }
            for each in inputs
        }  # fmt: skip
        return {
            "type": "block_actions",
            "user": {"id": user, "team_id": value_at(self.users, user, "team_id") or TEAM},
            "api_app_id": APP,
            "token": "verification",
            "team": {"id": TEAM, "domain": "fake"},
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": channel},
            "channel": {"id": channel},
            "message": {name: message[name] for name in ("ts", "text", "blocks")},
            "state": {"values": values},
            "trigger_id": f"1.{self.next_number()}",
            "response_url": "https://hooks.slack.com/actions/x",
            "actions": [{**action, "action_ts": f"{time.time():.6f}"}],
        }

    # -- inside ------------------------------------------------------------------------------

    def respond(
        self, method: str, fields: Mapping[str, str], token: str
    ) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        """Return status, answer and headers of a call; None to hang up."""
        with self.lock:
            self.calls.append((method, dict(fields)))
            fault = self._take_fault(method)
            if fault is not None and not fault.after:
                wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return fault.status, {"ok": False, "error": fault.error or "internal_error"}, wait
            try:
                answer = {"ok": True, **self.call(method, fields, token)}
            except Refused as refused:
                answer = refused.answer
            return None if fault is not None else (200, answer, {})

    def _take_fault(self, method: str) -> _Fault | None:
        fault = self._faults.get(method)
        if fault is None:
            return None
        fault.times -= 1
        if fault.times <= 0:
            del self._faults[method]
        return fault


class _FakeSlackServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    slack: FakeSlack

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients may hang up."""


class _FakeSlackHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _FakeSlackServer

    def do_GET(self) -> None:
        """Answer a method that reads."""
        self._serve(self.path.partition("?")[2])

    def do_POST(self) -> None:
        """Answer a method, or take the bytes of a file."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/upload/v1/"):
            self._take(self.path.rpartition("/")[2], body)
        else:
            self._serve(body.decode("utf-8", "replace"))

    def _serve(self, form: str) -> None:
        method = self.path.partition("?")[0].removeprefix("/api/")
        word, _, token = self.headers.get("Authorization", "").partition(" ")
        fields = dict(parse_qsl(form, keep_blank_values=True))
        found = self.server.slack.respond(method, fields, token if word == "Bearer" else "")
        if found is None:
            self.close_connection = True
            return
        status, answer, headers = found
        self._send(status, json.dumps(answer).encode(), headers)

    def _take(self, name: str, content: bytes) -> None:
        file = self.server.slack.files.get(name)
        right = file is not None and file["length"] == len(content)
        if file is not None and right and "Authorization" not in self.headers:
            file["content"] = content
        self._send(200 if right else 400, b"OK" if right else b"wrong length", {})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
