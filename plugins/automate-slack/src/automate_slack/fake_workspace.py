"""The workspace of the double of Slack: its channels, people and messages, and its methods."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automate_slack.forms import value_at

TOKEN = "xoxb-0000-a-token-of-the-fake-slack"  # noqa: S105 - of nothing
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
_Method = Callable[["Workspace", _Fields], dict[str, Any]]
_methods: dict[str, _Method] = {}


class Refused(Exception):  # noqa: N818 - it becomes an answer
    """Slack's no, with the answer that says it."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer = {"ok": False, "error": error, **more}


class Workspace:
    """Channels, people and messages, and what the methods of the Web API do with them."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.root = ""
        """The address at which it is served."""
        self.scopes: set[str] = set(_SCOPES.values())
        """The scopes of the app's token; take one out to see ``missing_scope``."""
        self.channels: dict[str, dict[str, Any]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        """User groups (``S…``) with the ids of their users."""
        self.files: dict[str, dict[str, Any]] = {}
        self.ephemeral: list[dict[str, Any]] = []
        """The messages that only one person saw."""
        self.page_size = 200
        self.posted: dict[str, list[dict[str, Any]]] = {}
        """The messages of each channel, the oldest first."""
        self.lock = threading.RLock()
        self._number = 0
        self.add_channel("C0GENERAL", "general")

    def add_channel(
        self, id: str, name: str, *, member: bool = True, archived: bool = False
    ) -> str:
        """Add a channel, with the bot in it unless *member* is false; return its id."""
        self.channels[id] = {
            "id": id, "name": name, "is_private": False, "is_member": member,
            "is_archived": archived,
        }  # fmt: skip
        self.posted.setdefault(id, [])
        return id

    def add_user(self, id: str, email: str, *, team: str = TEAM, **more: Any) -> str:
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
        with self.lock:
            return [dict(each) for each in self.posted.get(channel, [])]

    # -- for the methods ---------------------------------------------------------------------

    def call(self, method: str, fields: _Fields, token: str) -> dict[str, Any]:
        """Return the answer to a call of *method*; raises `Refused`."""
        if not token:
            raise Refused("not_authed")
        if token != self.token:
            raise Refused("invalid_auth")
        function = _methods.get(method)
        if function is None:
            raise Refused("unknown_method", req_method=method)
        needed = _SCOPES.get(method)
        if needed is not None and needed not in self.scopes:
            raise Refused("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))
        return function(self, fields)

    def find_channel(self, fields: _Fields, *, post: bool = False) -> str:
        """Return the id of the channel that a call names; raises what Slack refuses."""
        given = fields.get("channel", "")
        if given in self.users and post:
            return self.direct(given)
        for each in self.channels.values():
            if given == each["id"] or (post and given.removeprefix("#") == each["name"]):
                if each["is_archived"]:
                    raise Refused("is_archived")
                if not each["is_member"]:
                    raise Refused("not_in_channel")
                return str(each["id"])
        raise Refused("channel_not_found")

    def direct(self, users: str) -> str:
        """Return the id of the direct message with *users*, by their ids with commas."""
        for user in users.split(","):
            if user not in self.users:
                raise Refused("user_not_found")
        place = "D" + users.replace(",", "")[1:]
        if place not in self.channels:
            self.add_channel(place, place.lower())
        return place

    def find_message(self, channel: str, ts: str) -> dict[str, Any]:
        """Return a message itself."""
        for each in self.posted[channel]:
            if each["ts"] == ts:
                return each
        raise Refused("message_not_found")

    def page(self, found: Sequence[Any], fields: _Fields, name: str) -> dict[str, Any]:
        """Return one page of *found*, under *name*."""
        start = int(fields.get("cursor") or 0)
        size = min(int(fields.get("limit") or 100), self.page_size)
        after = start + size
        cursor = str(after) if after < len(found) else ""
        return {name: list(found[start:after]), "response_metadata": {"next_cursor": cursor}}

    def next_number(self) -> int:
        """Return a number that no other thing has."""
        with self.lock:
            self._number += 1
            return self._number

    def new_ts(self) -> str:
        """Return the ts of a new message."""
        return f"{int(time.time())}.{self.next_number():06}"


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
        raise Refused("invalid_blocks_format") from None
    if not isinstance(blocks, list) or not all(isinstance(each, dict) for each in blocks):
        raise Refused("invalid_blocks_format")
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
        raise Refused("invalid_blocks", response_metadata={"messages": ["[ERROR] see the limits"]})
    return blocks


@_method("auth.test")
def _auth_test(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    return {"team": "Fake", "team_id": TEAM, "user": "automate", "user_id": BOT, "bot_id": "B0BOT"}


@_method("chat.postMessage")
def _post_message(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    channel, blocks = slack.find_channel(fields, post=True), _blocks(fields)
    if not fields.get("text") and not blocks:
        raise Refused("no_text")
    message: dict[str, Any] = {
        "type": "message", "channel": channel, "ts": slack.new_ts(), "user": BOT, "app_id": APP,
        "text": fields.get("text", ""),
    }  # fmt: skip
    if blocks is not None:
        message["blocks"] = blocks
    if "metadata" in fields:
        message["metadata"] = json.loads(fields["metadata"])
    if thread := fields.get("thread_ts"):
        slack.find_message(channel, thread)
        message["thread_ts"] = thread
    slack.posted[channel].append(message)
    return {"channel": channel, "ts": message["ts"], "message": message}


@_method("chat.postEphemeral")
def _post_ephemeral(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    if fields.get("user") not in slack.users:
        raise Refused("user_not_in_channel")
    seen = {
        "channel": slack.find_channel(fields),
        "user": fields["user"],
        "text": fields.get("text"),
    }
    slack.ephemeral.append(seen)
    return {"message_ts": slack.new_ts()}


@_method("chat.update")
def _update(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    channel, blocks = slack.find_channel(fields), _blocks(fields)
    message = slack.find_message(channel, fields.get("ts", ""))
    if message["user"] != BOT:
        raise Refused("cant_update_message")
    message["text"] = fields.get("text", message["text"])
    if blocks is not None:
        message["blocks"] = blocks
    message["edited"] = {"user": BOT, "ts": slack.new_ts()}
    return {"channel": channel, "ts": message["ts"], "text": message["text"]}


@_method("conversations.history")
def _history(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    channel = slack.find_channel(fields)
    found = [each for each in slack.posted[channel] if "thread_ts" not in each]
    return slack.page(_shown(found[::-1], fields), fields, "messages")


@_method("conversations.replies")
def _replies(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    channel, ts = slack.find_channel(fields), fields.get("ts", "")
    first = slack.find_message(channel, ts)
    found = [first, *(each for each in slack.posted[channel] if each.get("thread_ts") == ts)]
    return slack.page(_shown(found, fields), fields, "messages")


def _shown(found: Sequence[dict[str, Any]], fields: _Fields) -> list[dict[str, Any]]:
    whole = fields.get("include_all_metadata") == "true"
    return [
        {name: value for name, value in each.items() if whole or name != "metadata"}
        for each in found
    ]


@_method("conversations.list")
def _conversations(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    hide = fields.get("exclude_archived") == "true"
    found = [
        each for each in slack.channels.values()
        if each["id"][0] == "C" and not (hide and each["is_archived"])
    ]  # fmt: skip
    return slack.page(found, fields, "channels")


@_method("conversations.open")
def _open(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    return {"channel": {"id": slack.direct(fields.get("users", ""))}}


@_method("users.info")
def _user(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    if fields.get("user") not in slack.users:
        raise Refused("user_not_found")
    return {"user": slack.users[fields["user"]]}


@_method("users.lookupByEmail")
def _by_email(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    email = fields.get("email", "").lower()
    for each in slack.users.values():
        if each["profile"].get("email", "").lower() == email:
            return {"user": each}
    raise Refused("users_not_found")


@_method("usergroups.users.list")
def _group(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    if fields.get("usergroup") not in slack.groups:
        raise Refused("no_such_subteam")
    return {"users": slack.groups[fields["usergroup"]]}


@_method("reactions.add")
def _react(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    message = slack.find_message(slack.find_channel(fields), fields.get("timestamp", ""))
    reactions = message.setdefault("reactions", [])
    if fields.get("name") in reactions:
        raise Refused("already_reacted")
    reactions.append(fields.get("name"))
    return {}


@_method("files.getUploadURLExternal")
def _upload_url(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    if not fields.get("filename") or not fields.get("length", "").isdigit():
        raise Refused("invalid_arguments")
    name = f"F{slack.next_number():08}"
    slack.files[name] = {
        "id": name, "name": fields["filename"], "length": int(fields["length"]), "content": None,
        "shared": [],
    }  # fmt: skip
    root = slack.root
    return {"file_id": name, "upload_url": f"{root}/upload/v1/{name}"}


@_method("files.completeUploadExternal")
def _complete_upload(slack: Workspace, fields: _Fields) -> dict[str, Any]:
    found = []
    for each in json.loads(fields.get("files", "[]")):
        file = slack.files.get(each.get("id"))
        if file is None or file["content"] is None:
            raise Refused("file_not_found")
        file["title"] = each.get("title", file["name"])
        if "channel_id" in fields:
            channel = slack.find_channel({"channel": fields["channel_id"]})
            message = {
                "type": "message", "channel": channel, "ts": slack.new_ts(), "user": BOT,
                "text": fields.get("initial_comment", ""), "files": [{"id": file["id"]}],
            }  # fmt: skip
            slack.posted[channel].append(message)
            file["shared"].append(channel)
        link = f"https://fake.slack.com/files/{file['id']}"
        found.append({"id": file["id"], "title": file["title"], "permalink": link})
    return {"files": found}
