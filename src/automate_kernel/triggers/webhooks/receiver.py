"""The receiver of webhooks: proof, replay guard and the event that comes of a request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automate_kernel.base.errors import (
    AutomateError,
    SecretUnavailableError,
    StorageError,
    WebhookRejectedError,
)
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.invoker import Invoker
from automate_kernel.outbox.item import NewItem, new_id
from automate_kernel.outbox.store import OutboxStore
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.tracebacks import log_error
from automate_kernel.storage.rows import Rows, Storage, write
from automate_kernel.triggers.webhooks.deliveries import Deliveries
from automate_kernel.triggers.webhooks.ledger import ReplayLedger, WebhookReceipt
from automate_kernel.triggers.webhooks.request import Ignored, delivery_id_of

logger: logging.Logger = get_logger(__name__)

_MOST_SHOWN = 100


DELIVERY_OUTCOMES = ("accepted", "repeated", "ignored", "refused", "failed")
"""The ends of a delivery; one that ``failed`` could not be read or stored."""


class _RefusedError(Exception):
    """A webhook that is refused; its text is for those who run the receiver, not for its sender."""


@dataclass(slots=True)
class WebhookReceiver:
    """
    Verifies webhooks with the connectors of *operations*, and accepts each delivery once.

    *new_item* makes the outbox item of an event, from its name, its payload and options.
    *deliveries* counts by connector and outcome, and keeps the reasons of what started nothing.
    """

    storage: Storage
    ledger: ReplayLedger
    outbox: OutboxStore
    operations: Invoker
    new_item: Callable[..., NewItem]
    deliveries: Deliveries

    def receive(
        self,
        connector_key: str,
        trigger: str,
        headers: Any,
        raw_body: bytes,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
    ) -> WebhookReceipt:
        """Verify a webhook and accept it as an event; see `Kernel.receive_webhook`."""
        # Strangers choose both names: only those that there are are written down.
        known = connector_key in self.operations.sources["connector"]
        names = (connector_key if known else "", "")
        outcome, reason = "failed", ""
        try:
            self._require(connector_key, trigger)
            names = (connector_key, trigger)
            receipt = self._received(
                connector_key, trigger, headers, raw_body, transaction, tenant_id
            )
            if receipt.ignored is not None:
                outcome, reason = "ignored", receipt.ignored.reason
            elif receipt.duplicate:
                outcome, reason = "repeated", "it was accepted before"
            else:
                outcome = "accepted"
            return receipt
        except _RefusedError as error:
            outcome, reason = "refused", str(error)
            shown = (connector_key[:_MOST_SHOWN], trigger[:_MOST_SHOWN])
            logger.warning("webhook %s.%s refused: %s", *shown, reason)
            raise WebhookRejectedError("the webhook was refused") from None
        except StorageError:
            raise  # which can't be written down either
        except AutomateError as error:
            reason = str(error)
            raise
        except Exception as error:
            reason = type(error).__name__
            raise
        finally:
            self.deliveries.tally.add(names[0], outcome)
            if reason:
                self.deliveries.refused.note(*names, outcome, reason, transaction=transaction)

    def _received(
        self,
        connector_key: str,
        trigger: str,
        headers: Any,
        raw_body: bytes,
        transaction: Any,
        tenant_id: str | None,
    ) -> WebhookReceipt:
        connector = self.operations.instance("connector", connector_key)
        if not connector.accepts_webhook(trigger, headers, raw_body):
            raise _RefusedError(self._refusal(connector, trigger, headers, raw_body))
        trigger, spec = self._routed(connector, trigger, headers, raw_body)
        payload, delivery_id = self._read(connector, spec, headers, raw_body)
        if isinstance(payload, Ignored):
            # Its texts are the connector's, which knows secrets, and they are logged and answered.
            redactor = self.operations.redactor
            reason = redactor.redact(payload.reason)
            ignored = Ignored(reason, redactor.redact_value(payload.answer))
            logger.info("webhook %s.%s starts nothing: %s", connector_key, trigger, reason)
            return WebhookReceipt(accepted=True, ignored=ignored)
        item = self.new_item(
            spec.event_name or f"{connector_key}.{trigger}",
            payload,
            type="webhook",
            source=connector_key,
            tenant_id=tenant_id,
            event_headers=spec.kept_headers(headers),
            id=new_id(),
        )
        ids = _ids_of(spec, delivery_id, headers, raw_body) or [item.id]

        def work(rows: Rows) -> WebhookReceipt:
            # In one transaction: a delivery that is remembered is also enqueued.
            for each in ids:
                delivery, listed = (connector_key, trigger, each), each == ids[0]
                if self.ledger.remember(
                    rows, *delivery, item.id, tenant_id=tenant_id, listed=listed
                ):
                    continue
                first = self.ledger.item_of(rows, *delivery, tenant_id=tenant_id)
                return WebhookReceipt(True, first, duplicate=True, answer=spec.answer)
            self.outbox.enqueue_many([item], transaction=rows.native)
            return WebhookReceipt(True, item.id, answer=spec.answer)

        receipt = write(self.storage, transaction, work)
        if receipt.duplicate:
            logger.info("webhook %s.%s came again", connector_key, trigger)
        return receipt

    def _require(self, connector_key: str, trigger: str) -> None:
        """Raise `_RefusedError` if there is no such connector, or it has no such trigger."""
        try:
            self.operations.instance("connector", connector_key).find_trigger(trigger)
        except SecretUnavailableError:
            raise  # not the sender's fault: it should come again
        except AutomateError as error:
            raise _RefusedError(str(error)) from None

    def _refusal(self, connector: Any, trigger: str, headers: Any, raw_body: bytes) -> str:
        try:
            reason: str = connector.webhook_refusal(trigger, headers, raw_body)
        except Exception:  # said when it was asked for the proof
            return "not proven"
        return self.operations.redactor.redact(reason)

    def _routed(
        self, connector: Any, trigger: str, headers: Any, raw_body: bytes
    ) -> tuple[str, Any]:
        """Return the trigger whose event a verified request is, and its spec."""
        try:
            spec = connector.find_trigger(connector.route_webhook(trigger, headers, raw_body))
        except BaseException as error:  # SystemExit too: a plugin must not end its process
            if is_interruption(error):
                raise
            raise self.operations.clean_error(error, f"webhook {trigger!r}") from None
        return spec.name, spec

    def _read(
        self, connector: Any, spec: Any, headers: Any, raw_body: bytes
    ) -> tuple[Any, str | None]:
        """Return the content of a verified request, or an `Ignored`, and its delivery's id."""
        trigger = spec.name
        try:
            ignored = connector.ignores_webhook(trigger, headers, raw_body)
            payload = ignored or connector.parse_webhook(trigger, headers, raw_body)
            if isinstance(payload, Ignored) or spec.replay_guard == "off":
                return payload, None
            return payload, delivery_id_of(connector, spec, headers, raw_body)
        except BaseException as error:
            if is_interruption(error):
                raise
            clean = self.operations.clean_error(error, f"webhook {trigger!r}")
            if not isinstance(error, AutomateError):
                log_error(
                    logger, logging.ERROR, "webhook %s.%s can't be read: %s",
                    connector.key, trigger, clean.message, trace=clean.trace,
                )  # fmt: skip
            # None: the connector's error may quote its secret, and the clean error is shown and
            # logged.
            raise clean from None


def _ids_of(spec: Any, delivery_id: str | None, headers: Any, raw_body: bytes) -> list[str]:
    """Return the ids that must all be new, the signed one first: the other can be made up."""
    if delivery_id is None:
        return []
    second = getattr(spec.signature, "second_id", None)
    signed = second(headers, raw_body) if callable(second) else None
    return list(dict.fromkeys(filter(None, (signed, delivery_id))))
