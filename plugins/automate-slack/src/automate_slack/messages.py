"""The inputs and outputs of the actions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Text = Annotated[
    str,
    Field(max_length=40_000, description="The text, in Slack's mrkdwn; with blocks, the notice."),
]
Blocks = Annotated[
    list[dict[str, Any]],
    Field(max_length=50, description="Block Kit blocks, shown in place of the text."),
]
ChannelId = Annotated[
    str,
    Field(
        min_length=1, max_length=250,
        description="The channel's id (C…); a user's id (U…) or e-mail for a direct message.",
    ),
]  # fmt: skip
MessageChannel = Annotated[
    str,
    Field(
        min_length=1, max_length=250,
        description="The id of the message's channel, as the output of its post has it.",
    ),
]  # fmt: skip
Timestamp = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,12}\.[0-9]{1,6}$", description="The ts of a message, as Slack has it."
    ),
]


class PostedMessage(BaseModel):
    """A message: the *channel* it is in and its *ts*, by which it is changed and answered."""

    channel: str
    ts: str


class SharedFile(BaseModel):
    """A file in Slack."""

    id: str
    title: str | None = None
    permalink: str | None = None


class SlackUser(BaseModel):
    """A person, or a bot, of the workspace."""

    id: str
    name: str
    real_name: str | None = None
    email: str | None = None
    deleted: bool = False
    is_bot: bool = False


class Channel(BaseModel):
    """A channel of the workspace."""

    id: str
    name: str
    is_private: bool = False
    is_member: bool = False
    """True if the bot is in it."""


class ChannelList(BaseModel):
    """Channels of the workspace."""

    channels: list[Channel]


class Conversation(BaseModel):
    """A direct message of the bot with one or more people."""

    channel: str


class ClickOutcome(BaseModel):
    """The outcome of a click on a button of an approval."""

    outcome: Literal["approved", "rejected", "closed", "refused"]
    """``closed``: it was decided before, or waits no longer. ``refused``: who clicked may not
    decide."""
    by: str | None = None
    """The person who has decided."""
    message: str = ""
    """The words that people see."""
