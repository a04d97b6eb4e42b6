"""Events over HTTP: our own form, and CloudEvents in the modes of their HTTP binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from automate_kernel.base.errors import PayloadError
from automate_kernel.http.answers import (
    HttpAnswer,
    HttpError,
    bears,
    idempotency_key,
    read_fields,
)
from automate_kernel.kernel import Kernel
from automate_kernel.relays.cloud_events import BATCH_TYPE, CONTENT_TYPE, CloudEvent
from automate_kernel.triggers.webhooks import StandardWebhooksSignature, WebhookHeaders
from automate_kernel.triggers.webhooks.request import BodyError, parse_json

_MOST_EVENTS = 1_000
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "payload": (object,),
    "source": (str,),
    "tenant_id": (str,),
    "delay": (int, float),
    "priority": (int,),
    "idempotency_key": (str,),
    "ordering_key": (str,),
    "labels": (dict,),
}


class EventsEndpoint:
    """
    Accepts events for *kernel* from holders of *token*, or signed with one of *secrets*.

    These are keys of secrets; a signature follows Standard Webhooks.
    """

    def __init__(self, kernel: Kernel, token: str | None, secrets: Sequence[str] = ()) -> None:
        self._kernel = kernel
        self._token = token.encode() if token else None
        self._scheme = StandardWebhooksSignature(tuple(secrets)) if secrets else None

    @property
    def open(self) -> bool:
        """True if somebody may send events."""
        return self._token is not None or self._scheme is not None

    def admits(self, headers: WebhookHeaders) -> bool:
        """Return True if a request has the token."""
        return self._token is not None and bears(headers, self._token)

    def may_be_signed(self, headers: WebhookHeaders) -> bool:
        """Return True if it is worth while to read the body of a request without the token."""
        return self._scheme is not None and "webhook-signature" in headers

    def is_signed(self, headers: WebhookHeaders, body: bytes) -> bool:
        """Return True if a request is signed; raises `SecretError` if a secret can't be read."""
        return self._scheme is not None and self._scheme.verify(headers, body, self._kernel.secrets)

    def answer(self, headers: WebhookHeaders, body: bytes) -> HttpAnswer:
        """Accept the events of a request that may send them."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == BATCH_TYPE:
            found = _json(body)
            if not isinstance(found, list) or len(found) > _MOST_EVENTS:
                raise HttpError(400, f"a batch is a list of at most {_MOST_EVENTS:,} events")
            receipts = self._kernel.receive_events(*(CloudEvent.from_json(one) for one in found))
            return HttpAnswer(202, {"ids": [receipt.item_id for receipt in receipts]})
        if kind == CONTENT_TYPE:
            return self._received(CloudEvent.from_json(_json(body)))
        if "ce-specversion" in headers:
            return self._received(_binary(headers, body, kind))
        event = read_fields(body, _FIELDS)
        if not event.get("name"):
            raise HttpError(400, 'the body must be an object with a "name"')
        if (key := idempotency_key(headers)) is not None:
            event.setdefault("idempotency_key", key)
        name, payload = event.pop("name"), event.pop("payload", None)
        return HttpAnswer(202, {"id": self._kernel.emit(name, payload, **event)})

    def _received(self, event: CloudEvent) -> HttpAnswer:
        (receipt,) = self._kernel.receive_events(event)
        status = 200 if receipt.duplicate else 202
        return HttpAnswer(status, {"id": receipt.item_id, "duplicate": receipt.duplicate})


def _json(body: bytes) -> Any:
    try:
        return parse_json(body)
    except BodyError as error:
        raise HttpError(400, f"the body can't be read: {error}") from None


def _binary(headers: WebhookHeaders, body: bytes, kind: str) -> CloudEvent:
    """Return the event of a request in the binary mode, whose attributes are headers."""
    if kind not in ("", "application/json") and not kind.endswith("+json") and body:
        raise PayloadError("a CloudEvent with other data than JSON can't be taken")
    attributes: dict[str, Any] = {
        name[len("ce-") :]: unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    return CloudEvent.from_json({**attributes, "data": _json(body) if body else None})
