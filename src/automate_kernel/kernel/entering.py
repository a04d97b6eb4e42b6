"""How work comes in: events, webhooks, schedules, and workflows that are started."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from automate_kernel.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    WebhookRejectedError,
)
from automate_kernel.kernel.assembly import Assembly
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.ids import new_id
from automate_kernel.storage import Rows
from automate_kernel.webhooks import Ignored, ReplayLedger, WebhookReceipt
from automate_kernel.webhooks.deliveries import delivery_id_of
from automate_kernel.workflows.execution import Event, EventType
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.runner import EVENT
from automate_kernel.workflows.ticker import Scheduled

__all__ = ["Entering"]

logger = logging.getLogger(__name__)


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
    ) -> str:
        """
        Accept the event *name* in the host's *transaction*, and return its id.

        It happens exactly if the transaction commits; without one, when this returns. What
        *transaction* may be is the storage's to say (a SQLAlchemy ``Session``; in Django nothing).
        A second event with the same *idempotency_key* is the first one. Raises `PayloadError`.
        """
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {},
        )  # fmt: skip
        return self.outbox.enqueue_many([item], transaction=transaction)[0]

    async def aemit(
        self, name: str, payload: Any = None, *, transaction: Any = None, **options: Any
    ) -> str:
        """`emit` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        source, tenant_id = options.pop("source", ""), options.pop("tenant_id", None)
        item = self._event_item(name, payload, "event", source, tenant_id, **options)
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
        if not name:
            raise ConfigError("an event needs a name", hint='for example "order.created"')
        body = {
            "name": name,
            "type": kind,
            "source": source,
            "payload": payload,
            "occurred_at": datetime.now(timezone.utc).isoformat(),
        }
        if kept:
            body["headers"] = dict(kept)
        return NewItem(EVENT, body, tenant_id=tenant_id, **options)

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
            raise self._invoker.clean_error(error, f"webhook {trigger!r}") from None

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
    ) -> str:
        """
        Begin an execution of *workflow* by its name, whatever its triggers, and return its id.

        *event* is what it sees as ``event``; by default a manual one with *payload*. With a
        *tenant_id* the workflow may be one of the tenant's own, and the event is the tenant's:
        raises ``INVALID_ARGUMENT`` if it is another's.
        """
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
        definition = self.workflows.get(workflow, event.tenant_id)
        with self.storage.begin(transaction) as rows:
            return self.executions.start(rows, definition, event)

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
