"""Slack's errors (``{"ok": false, "error": "…"}``) as errors of the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from automate_kernel.base.errors import AutomateError, ErrorCodes


class _Failure(NamedTuple):
    code: ErrorCodes
    remedy: str | None = None


_TOKEN = _Failure(
    ErrorCodes.UNAUTHENTICATED,
    "put the bot's current token (xoxb-…, from OAuth & Permissions of your app) into the secret",
)
_INVITE = _Failure(ErrorCodes.PERMISSION_DENIED, "invite the bot to the channel: /invite @your-app")
_AWAY = _Failure(ErrorCodes.UNAVAILABLE)
_ABSENT = _Failure(ErrorCodes.NOT_FOUND)
_ADMIN = _Failure(ErrorCodes.PERMISSION_DENIED, "an administrator of the workspace decides this")

_FAILURES: Mapping[str, _Failure] = {
    "invalid_auth": _TOKEN,
    "not_authed": _TOKEN,
    "token_revoked": _TOKEN,
    "token_expired": _TOKEN,
    "account_inactive": _TOKEN,
    "missing_scope": _Failure(ErrorCodes.PERMISSION_DENIED),
    "no_permission": _ADMIN,
    "ekm_access_denied": _ADMIN,
    "restricted_action": _ADMIN,
    "not_allowed_token_type": _Failure(ErrorCodes.PERMISSION_DENIED, "use the bot's token, xoxb-…"),
    "not_in_channel": _INVITE,
    "cant_update_message": _Failure(
        ErrorCodes.PERMISSION_DENIED, "the bot can change its own messages only"
    ),
    "channel_not_found": _Failure(
        ErrorCodes.NOT_FOUND, "give the channel's id (C…); the bot sees private ones it is in"
    ),
    "is_archived": _Failure(ErrorCodes.FAILED_PRECONDITION, "unarchive the channel"),
    "users_not_found": _Failure(
        ErrorCodes.NOT_FOUND, "nobody in the workspace has this e-mail address"
    ),
    "user_not_found": _ABSENT,
    "message_not_found": _ABSENT,
    "thread_not_found": _ABSENT,
    "ratelimited": _Failure(ErrorCodes.RESOURCE_EXHAUSTED),
    "rate_limited": _Failure(ErrorCodes.RESOURCE_EXHAUSTED),
    "message_limit_exceeded": _Failure(ErrorCodes.RESOURCE_EXHAUSTED),
    "internal_error": _AWAY,
    "fatal_error": _AWAY,
    "service_unavailable": _AWAY,
    "team_added_to_org": _AWAY,
    "request_timeout": _AWAY,
    "accesslimited": _AWAY,
}


def failure_of(method: str, answer: Mapping[str, Any], token_key: str) -> AutomateError:
    """
    Return the error for the *answer* ``ok: false`` to *method*.

    What Slack says of itself (an outage, a limit) may be tried again. Everything else stays wrong.
    *token_key* is the key of the secret with the token, for the remedy.
    """
    name = str(answer.get("error") or "unknown_error")[:100]
    code, remedy = _FAILURES.get(name, _Failure(ErrorCodes.INVALID_ARGUMENT))
    if code is ErrorCodes.UNAUTHENTICATED:
        remedy = f"{remedy} {token_key!r}"
    if name == "missing_scope":
        needed = str(answer.get("needed") or "the scope")[:200]
        remedy = f"add {needed} to the app's bot token scopes, and install the app again"
    details = answer.get("response_metadata")
    said = details.get("messages") if isinstance(details, Mapping) else None
    words = "; ".join(map(str, said[:3])) if isinstance(said, list) else ""
    text = f"Slack's {method} answered {name}" + (f": {words[:300]}" if words else "")
    return AutomateError(code, text, hint=remedy, details={"slack_error": name})
