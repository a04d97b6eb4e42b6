"""Secrets, and events as Stripe sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

KEY = "rk_test_never-to-be-seen-2718281828"
HOOK, OLD_HOOK = "whsec_of-the-endpoint-now", "whsec_of-the-endpoint-before"
SECRETS = {"STRIPE_API_KEY": KEY, "STRIPE_WEBHOOK_SECRET": HOOK, "OLD": OLD_HOOK}

PAYMENT = {
    "id": "pi_1", "object": "payment_intent", "amount": 1_050, "amount_received": 1_050,
    "currency": "eur", "status": "succeeded", "livemode": False, "customer": "cus_1",
    "metadata": {}, "a_new_field": {"kept": True},
}  # fmt: skip
SUBSCRIPTION = {
    "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "canceled",
    "cancel_at_period_end": False,
}  # fmt: skip


def event(kind: str = "payment_intent.succeeded", thing: Any = None, **more: Any) -> dict[str, Any]:
    """Return an event about *thing*."""
    return {
        "id": "evt_1", "object": "event", "type": kind, "created": 1_770_000_000,
        "livemode": False, "api_version": "2026-01-28.clover", "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": None},
        "data": {"object": thing or PAYMENT}, **more,
    }  # fmt: skip


def signed(
    payload: Any, *secrets: str, at: float | None = None, scheme: str = "v1"
) -> tuple[dict[str, str], bytes]:
    """Return the header and the body of a webhook, signed as Stripe's documentation says."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    moment = int(time.time() if at is None else at)
    found = [
        f"{scheme}={hmac.new(secret.encode(), f'{moment}.'.encode() + body, hashlib.sha256).hexdigest()}"
        for secret in secrets or (HOOK,)
    ]
    return {"Stripe-Signature": ",".join([f"t={moment}", *found])}, body
