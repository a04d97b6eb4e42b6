"""The config of the SQS connector, and the inputs and outputs of its actions."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_aws.access import AwsAccess

_QUEUE_URL = r"^https?://[^/\s]+/\S+$"
_ATTRIBUTE = r"^[A-Za-z0-9_.-]{1,256}$"


class SqsConfig(AwsAccess):
    """The queues, by names of your own, and the way in which they are listened to."""

    queues: dict[str, str] = Field(
        examples=[{"orders": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"}]
    )
    """The URLs of the queues that may be used, by names of your own."""
    listen: list[str] = Field(default_factory=list, max_length=20, examples=[["orders"]])
    """The names of the queues whose messages become events. A message is deleted from its queue
    once its event is saved."""
    bodies: Literal["json", "text"] = "json"
    """With ``json`` the body of an event is the message's object or list; any other body, and each
    with ``text``, is text."""
    wait_seconds: int = Field(default=10, ge=0, le=20)
    """The longest wait for a message in one poll, for all queues together."""
    visibility_seconds: int = Field(default=180, ge=30, le=43_200)
    """The time until an unsaved message comes again, which a poll must not outlast."""

    @model_validator(mode="after")
    def _queues_fit(self) -> SqsConfig:
        if wrong := [name for name, url in self.queues.items() if not re.match(_QUEUE_URL, url)]:
            raise ValueError(f"queues: the URL of {wrong[0]!r} is no URL of a queue")
        if unknown := [name for name in self.listen if name not in self.queues]:
            raise ValueError(f"listen: {unknown[0]!r} is not among the queues")
        if self.listen and self.wait_seconds >= self.timeout_seconds:
            raise ValueError("wait_seconds is to be shorter than timeout_seconds")
        return self


class QueueMessage(BaseModel):
    """A message to be sent."""

    model_config = ConfigDict(extra="forbid")

    body: Any = Field(description="Text, or another JSON value, which is sent as JSON.")
    attributes: dict[str, str] = Field(
        default_factory=dict, max_length=9, description="Attributes of your own, as text."
    )
    delay_seconds: int | None = Field(
        default=None, ge=0, le=900, description="The time until it can be received."
    )
    group: str | None = Field(
        default=None, max_length=128, description="The message group, which a FIFO queue needs."
    )
    deduplication_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Two messages with one id within five minutes are one, in a FIFO queue; by "
        "default the step's own.",
    )


class SendMessageInput(QueueMessage):
    """The input of ``send_message``."""

    queue: str = Field(description="The queue's name in the config.")


class SendBatchInput(BaseModel):
    """The input of ``send_batch``."""

    model_config = ConfigDict(extra="forbid")

    queue: str = Field(description="The queue's name in the config.")
    messages: list[QueueMessage] = Field(
        min_length=1, max_length=10, description="The messages, in their order."
    )


class SentMessage(BaseModel):
    """A message that a queue has."""

    queue: str
    message_id: str
    sequence_number: str | None = None


class SentBatch(BaseModel):
    """Messages that a queue has, in the order of the input."""

    messages: list[SentMessage]
