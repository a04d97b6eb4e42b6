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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from automate_kernel.webhooks import SlackSignature
from automate_slack.forms import value_at

__all__ = ["FakeSlack", "SlackRequest"]

TOKEN = "xoxb-0000-a-token-of-the-fake-slack"  # noqa: S105 - of nothing
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 - of nothing
APP, TEAM, BOT = "A0FAKEAPP", "T0FAKETEAM", "U0FAKEBOT"

_SCOPES = {
    "chat.postMessage": "chat:write", "chat.postEphemeral": "chat:write",
    "chat.update": "chat:write", "conversations.history": "channels:history",
    "conversations.replies": "channels:history", "conversations.list": "channels:read",
    "conversations.open": "im:write", "users.info": "users:read",
    "users.lookupByEmail": "users:read.email", "reactions.add": "reactions:write",
    "usergroups.users.list": "usergroups:read", "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
}  # fmt: skip
_Fields = Mapping[str, str]
_Method = Callable[["FakeSlack", _Fields], dict[str, Any]]
_methods: dict[str, _Method] = {}


class _Refused(Exception):  # noqa: N818 - it becomes an answer
    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer = {"ok": False, "error": error, **more}


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


class FakeSlack:
    """
    A workspace with channels, people and messages, and the Web API of one app in it.

    `config` and `secrets` are for a kernel. `messages` is what people see. `click`, `event` and
    `command` are requests that Slack would send to the app. `rate_limit`, `fail` and `lose_answer`
    make the next calls of a method go wrong.
    """

    def __init__(self) -> None:
        self.token, self.signing_secret = TOKEN, SIGNING_SECRET
        self.scopes: set[str] = set(_SCOPES.values())
        """The scopes of the app's token; take one out to see ``missing_scope``."""
        self.calls: list[tuple[str, dict[str, str]]] = []
        """The methods that were called, with their fields; refused ones too."""
        self.channels: dict[str, dict[str, Any]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        """User groups (``S…``) with the ids of their users."""
        self.files: dict[str, dict[str, Any]] = {}
        self.ephemeral: list[dict[str, Any]] = []
        """The messages that only one person saw."""
        self.page_size = 200
        self._messages: dict[str, list[dict[str, Any]]] = {}
        self._faults: dict[str, _Fault] = {}
        self._lock = threading.RLock()
        self._number = 0
        self._server: _Server | None = None
        self.add_channel("C0GENERAL", "general")

    # -- running -----------------------------------------------------------------------------

    def start(self) -> FakeSlack:
        """Serve on 127.0.0.1 until `stop`."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.slack = self
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
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of its Web API."""
        assert self._server is not None, "start it first: with FakeSlack() as slack"
        return f"http://127.0.0.1:{self._server.server_port}/api"

    @property
    def config(self) -> dict[str, Any]:
        """The connector's config."""
        return {"base_url": self.url, "allow_private_networks": ["127.0.0.1"]}

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that the connector reads."""
        return {"SLACK_BOT_TOKEN": self.token, "SLACK_SIGNING_SECRET": self.signing_secret}

    # -- the workspace -----------------------------------------------------------------------

    def add_channel(self, id: str, name: str, *, member: bool = True, archived: bool = False) -> str:  # noqa: A002
        """Add a channel, with the bot in it unless *member* is false; return its id."""
        self.channels[id] = {
            "id": id, "name": name, "is_private": False, "is_member": member,
            "is_archived": archived,
        }  # fmt: skip
        self._messages.setdefault(id, [])
        return id

    def add_user(self, id: str, email: str, *, team: str = TEAM, **more: Any) -> str:  # noqa: A002
        """Add a person; return the id. *more* are fields of Slack's user (``is_bot=True``)."""
        name = email.partition("@")[0]
        profile = {"email": email, "real_name": name.title()}
        self.users[id] = {
            "id": id, "team_id": team, "name": name, "deleted": False, "is_bot": False,
            "real_name": name.title(), "profile": profile, **more,
        }  # fmt: skip
        return id

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """Return the messages in a channel, the oldest first, replies too."""
        with self._lock:
            return [dict(each) for each in self._messages.get(channel, [])]

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
            "event_id": event_id or f"Ev{self._next():08}", "event_time": int(time.time()),
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
            "text": text, "api_app_id": APP, "trigger_id": f"1.{self._next()}",
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
            "trigger_id": f"1.{self._next()}",
            "response_url": "https://hooks.slack.com/actions/x",
            "actions": [{**action, "action_ts": f"{time.time():.6f}"}],
        }

    # -- inside ------------------------------------------------------------------------------

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _ts(self) -> str:
        return f"{int(time.time())}.{self._next():06}"

    def _answer(
        self, method: str, fields: _Fields, token: str
    ) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        """Return status, answer and headers of a call; None to hang up."""
        with self._lock:
            self.calls.append((method, dict(fields)))
            fault = self._take_fault(method)
            if fault is not None and not fault.after:
                wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return fault.status, {"ok": False, "error": fault.error or "internal_error"}, wait
            try:
                answer = {"ok": True, **self._called(method, fields, token)}
            except _Refused as refused:
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

    def _called(self, method: str, fields: _Fields, token: str) -> dict[str, Any]:
        if not token:
            raise _Refused("not_authed")
        if token != self.token:
            raise _Refused("invalid_auth")
        function = _methods.get(method)
        if function is None:
            raise _Refused("unknown_method", req_method=method)
        needed = _SCOPES.get(method)
        if needed is not None and needed not in self.scopes:
            raise _Refused("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))
        return function(self, fields)

    def _channel(self, fields: _Fields, *, post: bool = False) -> str:
        given = fields.get("channel", "")
        if given in self.users and post:
            return self._dm(given)
        for each in self.channels.values():
            if given == each["id"] or (post and given.removeprefix("#") == each["name"]):
                if each["is_archived"]:
                    raise _Refused("is_archived")
                if not each["is_member"]:
                    raise _Refused("not_in_channel")
                return str(each["id"])
        raise _Refused("channel_not_found")

    def _dm(self, users: str) -> str:
        for user in users.split(","):
            if user not in self.users:
                raise _Refused("user_not_found")
        place = "D" + users.replace(",", "")[1:]
        if place not in self.channels:
            self.add_channel(place, place.lower())
        return place

    def _message(self, channel: str, ts: str) -> dict[str, Any]:
        for each in self._messages[channel]:
            if each["ts"] == ts:
                return each
        raise _Refused("message_not_found")

    def _page(self, found: Sequence[Any], fields: _Fields, name: str) -> dict[str, Any]:
        start = int(fields.get("cursor") or 0)
        size = min(int(fields.get("limit") or 100), self.page_size)
        after = start + size
        cursor = str(after) if after < len(found) else ""
        return {name: list(found[start:after]), "response_metadata": {"next_cursor": cursor}}


def _method(name: str) -> Callable[[_Method], _Method]:
    def add(function: _Method) -> _Method:
        _methods[name] = function
        return function

    return add


def _blocks(fields: _Fields) -> list[dict[str, Any]] | None:
    """Return the blocks, within Slack's limits."""
    if "blocks" not in fields:
        return None
    try:
        blocks = json.loads(fields["blocks"])
    except ValueError:
        raise _Refused("invalid_blocks_format") from None
    if not isinstance(blocks, list) or not all(isinstance(each, dict) for each in blocks):
        raise _Refused("invalid_blocks_format")
    ids = [each["block_id"] for each in blocks if "block_id" in each]
    elements = [each for block in blocks for each in block.get("elements", ())]
    texts = [str(value_at(each, "text", "text") or "") for each in blocks]
    if (
        len(blocks) > 50
        or len(ids) != len(set(ids))
        or any(len(each) > 255 for each in ids)
        or any(len(each.get("value", "")) > 2000 for each in elements)
        or any(len(each) > 3000 for each in texts)
        or any("type" not in each for each in blocks)
    ):
        raise _Refused("invalid_blocks", response_metadata={"messages": ["[ERROR] see the limits"]})
    return blocks


@_method("auth.test")
def _auth_test(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    return {"team": "Fake", "team_id": TEAM, "user": "automate", "user_id": BOT, "bot_id": "B0BOT"}


@_method("chat.postMessage")
def _post_message(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    channel, blocks = slack._channel(fields, post=True), _blocks(fields)
    if not fields.get("text") and not blocks:
        raise _Refused("no_text")
    message: dict[str, Any] = {
        "type": "message", "channel": channel, "ts": slack._ts(), "user": BOT, "app_id": APP,
        "text": fields.get("text", ""),
    }  # fmt: skip
    if blocks is not None:
        message["blocks"] = blocks
    if "metadata" in fields:
        message["metadata"] = json.loads(fields["metadata"])
    if thread := fields.get("thread_ts"):
        slack._message(channel, thread)
        message["thread_ts"] = thread
    slack._messages[channel].append(message)
    return {"channel": channel, "ts": message["ts"], "message": message}


@_method("chat.postEphemeral")
def _post_ephemeral(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    if fields.get("user") not in slack.users:
        raise _Refused("user_not_in_channel")
    seen = {"channel": slack._channel(fields), "user": fields["user"], "text": fields.get("text")}
    slack.ephemeral.append(seen)
    return {"message_ts": slack._ts()}


@_method("chat.update")
def _update(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    channel, blocks = slack._channel(fields), _blocks(fields)
    message = slack._message(channel, fields.get("ts", ""))
    if message["user"] != BOT:
        raise _Refused("cant_update_message")
    message["text"] = fields.get("text", message["text"])
    if blocks is not None:
        message["blocks"] = blocks
    message["edited"] = {"user": BOT, "ts": slack._ts()}
    return {"channel": channel, "ts": message["ts"], "text": message["text"]}


@_method("conversations.history")
def _history(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    channel = slack._channel(fields)
    found = [each for each in slack._messages[channel] if "thread_ts" not in each]
    return slack._page(_shown(found[::-1], fields), fields, "messages")


@_method("conversations.replies")
def _replies(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    channel, ts = slack._channel(fields), fields.get("ts", "")
    first = slack._message(channel, ts)
    found = [first, *(each for each in slack._messages[channel] if each.get("thread_ts") == ts)]
    return slack._page(_shown(found, fields), fields, "messages")


def _shown(found: Sequence[dict[str, Any]], fields: _Fields) -> list[dict[str, Any]]:
    whole = fields.get("include_all_metadata") == "true"
    return [
        {name: value for name, value in each.items() if whole or name != "metadata"}
        for each in found
    ]


@_method("conversations.list")
def _conversations(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    hide = fields.get("exclude_archived") == "true"
    found = [
        each for each in slack.channels.values()
        if each["id"][0] == "C" and not (hide and each["is_archived"])
    ]  # fmt: skip
    return slack._page(found, fields, "channels")


@_method("conversations.open")
def _open(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    return {"channel": {"id": slack._dm(fields.get("users", ""))}}


@_method("users.info")
def _user(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    if fields.get("user") not in slack.users:
        raise _Refused("user_not_found")
    return {"user": slack.users[fields["user"]]}


@_method("users.lookupByEmail")
def _by_email(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    email = fields.get("email", "").lower()
    for each in slack.users.values():
        if each["profile"].get("email", "").lower() == email:
            return {"user": each}
    raise _Refused("users_not_found")


@_method("usergroups.users.list")
def _group(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    if fields.get("usergroup") not in slack.groups:
        raise _Refused("no_such_subteam")
    return {"users": slack.groups[fields["usergroup"]]}


@_method("reactions.add")
def _react(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    message = slack._message(slack._channel(fields), fields.get("timestamp", ""))
    reactions = message.setdefault("reactions", [])
    if fields.get("name") in reactions:
        raise _Refused("already_reacted")
    reactions.append(fields.get("name"))
    return {}


@_method("files.getUploadURLExternal")
def _upload_url(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    if not fields.get("filename") or not fields.get("length", "").isdigit():
        raise _Refused("invalid_arguments")
    name = f"F{slack._next():08}"
    slack.files[name] = {
        "id": name, "name": fields["filename"], "length": int(fields["length"]), "content": None,
        "shared": [],
    }  # fmt: skip
    root = slack.url.removesuffix("/api")
    return {"file_id": name, "upload_url": f"{root}/upload/v1/{name}"}


@_method("files.completeUploadExternal")
def _complete_upload(slack: FakeSlack, fields: _Fields) -> dict[str, Any]:
    found = []
    for each in json.loads(fields.get("files", "[]")):
        file = slack.files.get(each.get("id"))
        if file is None or file["content"] is None:
            raise _Refused("file_not_found")
        file["title"] = each.get("title", file["name"])
        if "channel_id" in fields:
            channel = slack._channel({"channel": fields["channel_id"]})
            message = {
                "type": "message", "channel": channel, "ts": slack._ts(), "user": BOT,
                "text": fields.get("initial_comment", ""), "files": [{"id": file["id"]}],
            }  # fmt: skip
            slack._messages[channel].append(message)
            file["shared"].append(channel)
        link = f"https://fake.slack.com/files/{file['id']}"
        found.append({"id": file["id"], "title": file["title"], "permalink": link})
    return {"files": found}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    slack: FakeSlack

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients may hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

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
        found = self.server.slack._answer(method, fields, token if word == "Bearer" else "")  # noqa: SLF001
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
