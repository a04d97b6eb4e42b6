"""Posts that are made once, although a step may be run again."""

from __future__ import annotations

import hashlib
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import PluginContext, current_call
from automate_slack.forms import value_at
from automate_slack.messages import Channel, PostedMessage
from automate_slack.web_api import WebApi, shaped

_EVENT_TYPE = "automate_step"
# A channel shows its newest messages first, a thread its oldest: there the end has to be reached.
_MOST_MESSAGES, _MOST_REPLIES = 1_000, 10_000
_BLIND = (ErrorCodes.PERMISSION_DENIED, ErrorCodes.NOT_FOUND)


class Posts:
    """
    Posts messages, and finds the one that an earlier call with the same key has posted.

    Slack documents no idempotency key. Each message carries the call's key as metadata instead.
    Where a call may have been made before, the newest 1,000 messages of the channel are looked
    through for it, or the first 10,000 replies of the thread.
    """

    def __init__(self, api: WebApi, ctx: PluginContext) -> None:
        self._api, self._ctx = api, ctx

    async def post(self, channel: str, **fields: Any) -> PostedMessage:
        """Post a message to *channel*, unless it is there already."""
        key = _key(channel, fields.get("thread_ts"))
        if key is not None:
            if repeated() and (found := await self._earlier(channel, key, fields)) is not None:
                return found
            payload = {"event_type": _EVENT_TYPE, "event_payload": {"key": key}}
            fields["metadata"] = payload
        return await self._api.call_for(
            PostedMessage, "chat.postMessage", channel=channel, **fields
        )

    async def _earlier(
        self, channel: str, key: str, fields: dict[str, Any]
    ) -> PostedMessage | None:
        try:
            place = await self._place(channel)
            return None if place is None else await self._found(place, key, fields["thread_ts"])
        except AutomateError as error:
            if error.code not in _BLIND:
                raise
            # Not to post at all would turn each failure of Slack's into one for good.
            self._ctx.logger.warning(
                "a step runs again, and it can't be seen whether it has posted before: %s", error
            )
            return None

    async def _found(self, place: str, key: str, thread_ts: str | None) -> PostedMessage | None:
        method, most, where = "conversations.history", _MOST_MESSAGES, {"channel": place}
        if thread_ts is not None:
            method, most = "conversations.replies", _MOST_REPLIES
            where["ts"] = thread_ts
        messages = self._api.items(
            method, "messages", most=most, include_all_metadata=True, **where
        )
        looked_at = 0
        async for each in messages:
            looked_at += 1
            kind = value_at(each, "metadata", "event_type")
            if kind == _EVENT_TYPE and value_at(each, "metadata", "event_payload", "key") == key:
                return shaped(PostedMessage, method, {**each, "channel": place})
        if looked_at >= most:
            self._ctx.logger.warning(
                "a step runs again, and hasn't posted before among the %d messages looked at", most
            )
        return None

    async def _place(self, channel: str) -> str | None:
        """Return the id of the conversation that Slack takes *channel* for; None if unknown."""
        if channel[:1] in "CGD" and channel.isalnum() and channel.isupper():
            return channel
        if channel[:1] in "UW" and channel.isalnum() and channel.isupper():
            return await self._api.call_for_text(
                ("channel", "id"), "conversations.open", users=channel
            )
        listed = self._api.items(
            "conversations.list", "channels", most=10_000, exclude_archived=True,
            types="public_channel,private_channel",
        )  # fmt: skip
        async for each in listed:
            if each.get("name") == channel.removeprefix("#"):
                return shaped(Channel, "conversations.list", each).id
        return None


def repeated() -> bool:
    """Return True if this call may have been made before, by a worker that died for example."""
    call = current_call()
    return call is not None and call.repeated


def _key(channel: str, thread_ts: str | None) -> str | None:
    """Return the key of what this call posts to a place; None without a key."""
    call = current_call()
    if call is None or call.idempotency_key is None:
        return None
    about = f"{call.operation}\n{call.idempotency_key}\n{channel}\n{thread_ts or ''}"
    return hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:32]
