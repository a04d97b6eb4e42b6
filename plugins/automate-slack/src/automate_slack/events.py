"""The events of Slack's Events API, as workflows see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag


class _Event(BaseModel):
    model_config = ConfigDict(extra="allow")

    event_ts: str | None = None


class MessageEvent(_Event):
    """A message in a channel that the bot is in. A *subtype* tells edits and the like apart."""

    type: Literal["message"]
    channel: str
    ts: str
    user: str | None = None
    text: str | None = None
    subtype: str | None = None
    thread_ts: str | None = None
    bot_id: str | None = None
    channel_type: str | None = None


class AppMention(_Event):
    """A message that names the bot."""

    type: Literal["app_mention"]
    channel: str
    ts: str
    text: str
    user: str | None = None
    thread_ts: str | None = None


class ReactionEvent(_Event):
    """A reaction that was added or removed."""

    type: Literal["reaction_added", "reaction_removed"]
    user: str
    reaction: str
    item: dict[str, Any]
    item_user: str | None = None


class MemberJoined(_Event):
    """A person or a bot that has joined a channel."""

    type: Literal["member_joined_channel"]
    user: str
    channel: str


class ChannelCreated(_Event):
    """A new channel."""

    type: Literal["channel_created"]
    channel: dict[str, Any]


class OtherEvent(_Event):
    """Any other event, with the fields that Slack documents for it."""

    type: str


_KINDS: dict[str, str] = {
    "message": "message",
    "app_mention": "app_mention",
    "reaction_added": "reaction",
    "reaction_removed": "reaction",
    "member_joined_channel": "joined",
    "channel_created": "channel_created",
}


def _kind(event: Any) -> str:
    name = event.get("type") if isinstance(event, dict) else getattr(event, "type", None)
    return _KINDS.get(str(name), "other")


class EventDelivery(BaseModel):
    """A delivery of the Events API: the *event*, and where it happened."""

    model_config = ConfigDict(extra="allow")

    type: Literal["event_callback"]
    team_id: str
    api_app_id: str
    event_id: str
    event_time: int
    event: Annotated[
        Annotated[MessageEvent, Tag("message")]
        | Annotated[AppMention, Tag("app_mention")]
        | Annotated[ReactionEvent, Tag("reaction")]
        | Annotated[MemberJoined, Tag("joined")]
        | Annotated[ChannelCreated, Tag("channel_created")]
        | Annotated[OtherEvent, Tag("other")],
        Discriminator(_kind),
    ]
