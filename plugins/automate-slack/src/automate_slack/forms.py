"""The bodies of Slack's requests that are forms: interactions and slash commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.triggers.webhooks.request import BodyError, parse_json

_MOST_FIELDS = 100
_COMMAND = (
    "command", "text", "user_id", "user_name", "channel_id", "channel_name", "team_id",
    "team_domain", "enterprise_id", "api_app_id", "trigger_id",
)  # fmt: skip
# What lets its holder act in Slack: it is not stored with the event.
_CREDENTIALS = ("token", "response_url", "response_urls", "bot_access_token")


def read_interaction(raw_body: bytes) -> dict[str, Any]:
    """Return the interaction in the form's ``payload``, without what its holder could act with."""
    text = _fields(raw_body).get("payload", "")
    try:
        found = parse_json(text.encode("utf-8", "surrogatepass"))
    except BodyError as error:
        raise _unreadable(f"its payload is refused: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise _unreadable("its payload has no type")
    return {name: value for name, value in found.items() if name not in _CREDENTIALS}


def read_command(raw_body: bytes) -> dict[str, Any]:
    """Return the fields of a slash command, without what its holder could act with."""
    fields = _fields(raw_body)
    if not fields.get("command", "").startswith("/") or not fields.get("user_id"):
        raise _unreadable("it is no slash command")
    return {name: fields[name] for name in _COMMAND if name in fields}


def value_at(found: Any, *path: str | int) -> Any:
    """Return what is at *path* in the JSON value *found*, or None."""
    for part in path:
        if isinstance(part, int):
            found = found[part] if isinstance(found, list) and len(found) > part else None
        else:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _fields(raw_body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            raw_body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS,
            errors="strict",
        )  # fmt: skip
    except ValueError:
        raise _unreadable("it is no form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _unreadable("a field is there twice")
    return fields


def _unreadable(problem: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT, f"the body of Slack's request can't be read: {problem}"
    )
