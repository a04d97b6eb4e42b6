"""Events on their way in: the outbox item that carries one, and events that the kernel makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

from automate_kernel.base import runtime
from automate_kernel.outbox.item import (
    ACCEPTED_MAX_ATTEMPTS,
    TRACE_HEADERS,
    NewItem,
    OutboxItem,
    bounded_seconds,
    new_id,
    seconds,
)
from automate_kernel.outbox.labels import Labels
from automate_kernel.relays.cloud_events import CloudEvent, source_uri
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import Redaction, encode_around
from automate_kernel.workflows.decide.waits import DELAY, EVENT
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.definition.triggers import (
    EventTrigger,
    ScheduleTrigger,
    WebhookTrigger,
)
from automate_kernel.workflows.execution import (
    Event,
    EventType,
    check_event_name,
    check_event_source,
)


class StartOptions(TypedDict, total=False):
    """The options of a start, as `Kernel.start` explains them."""

    transaction: Any
    tenant_id: str | None
    event: Event | None
    labels: Labels | None
    idempotency_key: str | None
    priority: int
    delay: float | timedelta
    run_at: datetime | None


class _NewEvent(NewItem):
    """An item whose payload is an event around the caller's own payload."""

    __slots__ = ()

    def _encoded(self, redact: Redaction | None = None) -> JsonText:
        return encode_around(self.payload, self.payload["payload"], redact=redact)


def event_item(
    name: str,
    payload: Any,
    *,
    type: EventType = "event",
    source: str = "",
    event_headers: Mapping[str, str] | None = None,
    headers: Mapping[str, Any] | None = None,
    occurred_at: str | None = None,
    **options: Any,
) -> NewItem:
    """
    Return the outbox item for the event *name*; see `NewItem` for the options.

    *event_headers* are those of a webhook, which workflows see; *headers* are the item's. An event
    *occurred_at* an instant, by default now. Raises `PayloadError` for a name or a source that
    can't be stored.
    """
    check_event_name(name)
    check_event_source(source)
    body = {"name": name, "type": type, "source": source, "payload": payload}
    body["occurred_at"] = occurred_at or _now()
    if (delay := seconds(options.get("delay", 0.0))) > 0:
        # Whenever it is tried, or requeued: it was sent when that was over.
        headers = {**(headers or {}), DELAY: bounded_seconds(delay)}
    if event_headers:
        body["headers"] = dict(event_headers)
    options["max_attempts"] = ACCEPTED_MAX_ATTEMPTS
    return _NewEvent(EVENT, body, headers=headers or {}, lane=name, **options)


def cloud_event(event: Event, item: OutboxItem) -> CloudEvent:
    """Return the CloudEvent of *event*, which came with *item*."""
    headers = item.headers
    return CloudEvent(
        id=event.id, source=source_uri(event.source or ""), type=event.name, data=event.payload,
        time=event.occurred_at, tenant_id=event.tenant_id, partition_key=item.ordering_key,
        labels=event.labels,
        trace={name: headers[name] for name in TRACE_HEADERS if name in headers},
    )  # fmt: skip


def manual_event(workflow: str, payload: Any) -> Event:
    """Return the event of a *workflow* that is started by its name."""
    return Event(id=new_id(), name=workflow, payload=payload, type="manual", occurred_at=_now())


def triggering_event(
    workflow: Workflow,
    payload: Any,
    *,
    name: str | None = None,
    source: str = "",
    headers: Mapping[str, str] | None = None,
) -> Event:
    """Return an event with *payload* as the first trigger of *workflow* expects it."""
    event = replace(manual_event(workflow.name, payload), source=source, headers=headers or {})
    trigger = next(iter(workflow.triggers), None)
    if isinstance(trigger, EventTrigger):
        event = replace(event, type="event", name=trigger.event)
    elif isinstance(trigger, WebhookTrigger):
        usual = f"{trigger.connector}.{trigger.trigger}"
        event = replace(event, type="webhook", name=usual, source=trigger.connector)
    elif isinstance(trigger, ScheduleTrigger):
        given = trigger.payload if payload is None else payload
        event = replace(event, type="schedule", payload=given)
    return replace(event, name=name or event.name)


def scheduled_event(
    workflow: Workflow, tenant_id: str | None, payload: Any, moment: datetime, event_id: str
) -> Event:
    """Return the event of a *workflow* whose schedule has fired."""
    return Event(
        id=event_id,
        name=workflow.name,
        payload=payload,
        type="schedule",
        source="schedule",
        tenant_id=tenant_id,
        occurred_at=moment.isoformat(),
    )


def _now() -> str:
    return runtime.utc_now().isoformat()
