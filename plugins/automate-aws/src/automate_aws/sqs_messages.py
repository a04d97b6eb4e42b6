"""Messages of SQS: what is sent, and what comes as an event."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from uuid import uuid4

from automate_aws.sqs_models import QueueMessage
from automate_kernel import AutomateError, ErrorCodes, PayloadError, PolledEvent, current_call
from automate_kernel.storage.values import encode_json, read_json

MOST_BYTES: int = 1024 * 1024
"""The most bytes of a request's messages, with their attributes."""
_KEY_ATTRIBUTE = "idempotency-key"


def is_fifo(url: str) -> bool:
    """Return True if the queue at *url* keeps the order, and drops duplicates."""
    return url.endswith(".fifo")


def entry_of(message: QueueMessage, url: str, number: int = 0) -> dict[str, Any]:
    """Return *message* as SQS takes it; *number* is its place in a batch."""
    body = message.body
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, allow_nan=False)
    if not text:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "a message has no body")
    call = current_call()
    key = call.idempotency_key if call is not None else None
    attributes = dict(message.attributes)
    if key is not None:
        # A queue that isn't FIFO keeps both messages of a step that was repeated: who receives
        # them can tell by this.
        attributes.setdefault(_KEY_ATTRIBUTE, f"{key}#{number}")
    entry: dict[str, Any] = {"MessageBody": text, **_order_of(message, url, key, number)}
    if attributes:
        entry["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    if message.delay_seconds is not None:
        entry["DelaySeconds"] = message.delay_seconds
    return entry


def check_size(entries: list[dict[str, Any]]) -> None:
    """Raise ``INVALID_ARGUMENT`` if *entries* are more than one request may hold."""
    size = sum(_size(each) for each in entries)
    if size > MOST_BYTES:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the messages have {size:,} bytes, and SQS takes {MOST_BYTES:,}",
            hint="put the content into S3, and send its key",
        )


def event_of(message: dict[str, Any], queue: str, *, as_json: bool) -> PolledEvent | None:
    """Return a received message as an event, or None if the outbox could not keep it."""
    text = message.get("Body") or ""
    system = message.get("Attributes") or {}
    payload = {
        "queue": queue,
        "message_id": message["MessageId"],
        "body": text,
        "attributes": _attributes_of(message),
        "group": system.get("MessageGroupId"),
        "sent_at_ms": int(system.get("SentTimestamp") or 0),
        "receive_count": int(system.get("ApproximateReceiveCount") or 1),
    }
    parsed = _parsed(text) if as_json else text
    for body in (parsed, text):
        try:
            encode_json({**payload, "body": body}, "message")
        except PayloadError:
            continue
        return PolledEvent(message["MessageId"], {**payload, "body": body})
    return None


def _order_of(message: QueueMessage, url: str, key: str | None, number: int) -> dict[str, str]:
    if not is_fifo(url):
        return {} if message.group is None else {"MessageGroupId": message.group}
    if message.group is None:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "a message to a FIFO queue needs a group",
            hint="messages of one group keep their order",
        )  # fmt: skip
    own = hashlib.sha256(f"{key}#{number}".encode()).hexdigest() if key else uuid4().hex
    return {
        "MessageGroupId": message.group,
        "MessageDeduplicationId": message.deduplication_id or own,
    }


def _size(entry: dict[str, Any]) -> int:
    attributes = entry.get("MessageAttributes") or {}
    texts = [entry["MessageBody"], *attributes]
    texts += [text for value in attributes.values() for text in value.values()]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _parsed(text: str) -> Any:
    try:
        found = read_json(text)
    except ValueError:
        return text
    return found if isinstance(found, (dict, list)) else text


def _attributes_of(message: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in (message.get("MessageAttributes") or {}).items():
        data = value.get("BinaryValue")
        text = value.get("StringValue")
        found[name] = base64.b64encode(data).decode("ascii") if text is None and data else text
    return {name: text for name, text in found.items() if isinstance(text, str)}
