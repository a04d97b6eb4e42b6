"""How work comes in: events, webhooks, schedules, and workflows that are started."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from automate_kernel.errors import (
    AutomateError,
    ErrorCodes,
    SecretUnavailableError,
    WebhookRejectedError,
)
from automate_kernel.kernel.assembly import Assembly
from automate_kernel.logs import get_logger
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.labels import Labelled, Labels, checked_labels, labelled_ids
from automate_kernel.outbox.payloads import Redaction, check_text, encode_json
from automate_kernel.storage import Rows
from automate_kernel.storage.codec import JsonText
from automate_kernel.tracebacks import log_error
from automate_kernel.webhooks import Ignored, ReplayLedger, WebhookReceipt
from automate_kernel.webhooks.deliveries import delivery_id_of
from automate_kernel.workflows.execution import (
    Event,
    EventType,
    check_event_name,
    check_event_source,
)
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.runner import EVENT
from automate_kernel.workflows.ticker import Scheduled

__all__ = ["Entering"]

logger: logging.Logger = get_logger(__name__)


class _NewEvent(NewItem):
    """An item whose payload is an event around the caller's own payload."""

    __slots__ = ()

    def _encoded(self, redact: Redaction | None = None) -> JsonText:
        return encode_json(self.payload, "payload", inside=1, redact=redact)


class Entering(Assembly):
    """The part of `Kernel` that accepts work."""

    _ledger: ReplayLedger

    def emit(
        self,
        name: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        source: str = "",
        tenant_id: str | None = None,
        delay: float | timedelta = 0.0,
        priority: int = 0,
        idempotency_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> str:
        """
        Accept the event *name* in the host's *transaction*, and return its id.

        It happens exactly if the transaction commits; without one, when this returns. What
        *transaction* may be is the storage's to say (a SQLAlchemy ``Session``; in Django nothing).
        A second event with the same *idempotency_key* is the first one. By *labels*
        (``{"order": 4711}``) the event is found, and the executions that it starts. Raises
        `PayloadError`, before anything is written, for what can't be stored as it is.
        """
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {}, labels=labels,
        )  # fmt: skip
        return self.outbox.enqueue_many([item], transaction=transaction)[0]

    async def aemit(
        self,
        name: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        source: str = "",
        tenant_id: str | None = None,
        delay: float | timedelta = 0.0,
        priority: int = 0,
        idempotency_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> str:
        """`emit` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {}, labels=labels,
        )  # fmt: skip
        return (await self.outbox.aenqueue_many([item], transaction))[0]

    def _event_item(
        self,
        name: str,
        payload: Any,
        kind: EventType,
        source: str,
        tenant_id: str | None,
        kept: Mapping[str, str] | None = None,
        **options: Any,
    ) -> NewItem:
        check_event_name(name)
        check_event_source(source)
        options["headers"] = options.get("headers") or {}
        body = {
            "name": name,
            "type": kind,
            "source": source,
            "payload": payload,
            "occurred_at": datetime.now(timezone.utc).isoformat(),
        }
        if kept:
            body["headers"] = dict(kept)
        return _NewEvent(EVENT, body, tenant_id=tenant_id, **options)

    def receive_webhook(
        self,
        connector_key: str,
        trigger: str,
        headers: Any,
        raw_body: bytes,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
    ) -> WebhookReceipt:
        """
        Verify a webhook and accept it as an event named ``connector.trigger``.

        *headers* is a mapping or a sequence of pairs, *raw_body* the bytes as they came. A
        delivery that was accepted before comes back with ``duplicate`` set and does nothing, and
        so does one that is no event of this trigger, with ``ignored`` set.
        Raises `WebhookRejectedError`, the same for every reason (the log has the reason), and
        `AutomateError` with ``INVALID_ARGUMENT`` for a body that proves its origin but can't be
        read, and `SecretUnavailableError` if the secret to verify with can't be read now.
        """
        connector, spec = self._connector_for(connector_key, trigger)
        if not connector.accepts_webhook(trigger, headers, raw_body):
            logger.warning("webhook %s.%s refused: not proven", connector_key, trigger)
            raise WebhookRejectedError("the webhook was refused")
        payload, delivery_id = self._read_webhook(connector, spec, headers, raw_body)
        if isinstance(payload, Ignored):
            # Its texts are the connector's, which knows secrets, and they are logged and answered.
            reason = self.redactor.redact(payload.reason)
            told = Ignored(reason, self.redactor.redact_value(payload.answer))
            logger.info("webhook %s.%s starts nothing: %s", connector_key, trigger, reason)
            return WebhookReceipt(accepted=True, ignored=told)
        name = spec.event_name or f"{connector_key}.{trigger}"
        kept = spec.kept_headers(headers)
        item = self._event_item(
            name, payload, "webhook", connector_key, tenant_id, kept=kept, id=new_id()
        )
        delivery = (connector_key, trigger, delivery_id or "")
        with self.storage.begin(transaction) as rows:
            # In one transaction: a delivery that is remembered is also enqueued.
            if delivery_id is None or self._ledger.remember(
                rows, *delivery, item.id, tenant_id=tenant_id
            ):
                self.outbox.enqueue_many([item], transaction=rows.native)
                return WebhookReceipt(accepted=True, item_id=item.id)
            first = self._ledger.item_of(rows, *delivery, tenant_id=tenant_id)
        logger.info("webhook %s.%s came again", connector_key, trigger)
        return WebhookReceipt(accepted=True, item_id=first, duplicate=True)

    def _read_webhook(
        self, connector: Any, spec: Any, headers: Any, raw_body: bytes
    ) -> tuple[Any, str | None]:
        """What a verified request says, or why it says nothing, and its delivery's id."""
        trigger = spec.name
        try:
            ignored = connector.ignores_webhook(trigger, headers, raw_body)
            payload = ignored or connector.parse_webhook(trigger, headers, raw_body)
            if isinstance(payload, Ignored) or spec.replay_guard == "off":
                return payload, None
            return payload, delivery_id_of(connector, spec, headers, raw_body)
        except Exception as error:
            # None: what the connector raised may quote its secret, and this is shown and logged.
            clean = self._invoker.clean_error(error, f"webhook {trigger!r}")
            if not isinstance(error, AutomateError):
                what = f"{connector.key}.{trigger}"
                log_error(
                    logger, logging.ERROR, "webhook %s can't be read: %s", what, clean.message,
                    trace=clean.trace,
                )  # fmt: skip
            raise clean from None

    def _connector_for(self, connector_key: str, trigger: str) -> tuple[Any, Any]:
        try:
            connector = self._invoker.instance("connector", connector_key)
            return connector, connector.find_trigger(trigger)
        except SecretUnavailableError:
            raise  # not the sender's fault: it should come again
        except AutomateError as error:
            logger.warning("webhook %s.%s refused: %s", connector_key, trigger, error)
            raise WebhookRejectedError("the webhook was refused") from None

    def start(
        self,
        workflow: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
        event: Event | None = None,
        labels: Labels | None = None,
    ) -> str:
        """
        Begin an execution of *workflow* by its name, whatever its triggers, and return its id.

        *event* is what it sees as ``event``; by default a manual one with *payload*. With a
        *tenant_id* the workflow may be one of the tenant's own, and the event is the tenant's:
        raises ``INVALID_ARGUMENT`` if it is another's, and `PayloadError` for what can't be stored.
        By *labels* (``{"order": 4711}``), added to those of the event, it is found.
        """
        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")
        event = event or Event(
            id=new_id(),
            name=workflow,
            payload=payload,
            type="manual",
            occurred_at=datetime.now(timezone.utc).isoformat(),
        )
        if tenant_id is not None and event.tenant_id is None:
            event = replace(event, tenant_id=tenant_id)
        elif tenant_id not in (None, event.tenant_id):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "the event belongs to another tenant than was given"
            )
        if labels:
            own = self.redactor.redact_value(checked_labels(labels))
            event = replace(event, labels={**event.labels, **own})
        definition = self.workflows.get(workflow, event.tenant_id)
        with self.storage.begin(transaction) as rows:
            return self.executions.start(rows, definition, event)

    def labelled(
        self, label: str, *, tenant_id: str | None = None, limit: int = 50
    ) -> list[Labelled]:
        """
        Items and executions with *label*, the newest first: ``order=4711``, or ``4711``.

        `Kernel.outbox` and `Kernel.executions` have the same for one of the two, with conditions.
        """
        with self.storage.begin(atomic=False) as rows:
            return labelled_ids(rows, label, tenant_id=tenant_id, limit=limit)

    def start_again(self, execution_id: str, *, transaction: Any = None) -> str:
        """
        Begin another execution of the same workflow, as it is now, for what the first one saw.

        Returns the new one's id. Raises ``NOT_FOUND`` if the execution or its workflow is gone.
        """
        first = self.executions.get(execution_id)
        if first is None:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        again = replace(first.event, id=new_id())
        return self.start(first.name, event=again, transaction=transaction)

    def _scheduled(self) -> Iterable[Scheduled]:
        for entry in self.workflows.entries():
            if entry.error is None:
                yield entry.workflow, entry.tenant_id

    def _fire(
        self,
        rows: Rows,
        workflow: Workflow,
        tenant_id: str | None,
        trigger: Any,
        moment: datetime,
    ) -> None:
        event = Event(
            id=new_id(),
            name=workflow.name,
            payload=trigger.payload,
            type="schedule",
            source="schedule",
            tenant_id=tenant_id,
            occurred_at=moment.isoformat(),
        )
        self.executions.start(rows, workflow, event)
