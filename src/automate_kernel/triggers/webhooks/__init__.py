"""
Webhooks: signatures that prove a request's origin, and the ledger of accepted deliveries.

A scheme goes into a trigger (``TriggerSpec("push", signature=GitHubSignature())``) and names the
secrets to verify with. The same scheme signs, for tests and for webhooks of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_kernel.triggers.webhooks.ledger import ReplayLedger, WebhookReceipt
    from automate_kernel.triggers.webhooks.request import HeadersLike, Ignored, WebhookHeaders
    from automate_kernel.triggers.webhooks.signatures import (
        GitHubSignature,
        HmacSignature,
        SecretNames,
        SignatureScheme,
        SlackSignature,
        StandardWebhooksSignature,
        StripeSignature,
    )

__all__ = [
    "GitHubSignature",
    "HeadersLike",
    "HmacSignature",
    "Ignored",
    "ReplayLedger",
    "SecretNames",
    "SignatureScheme",
    "SlackSignature",
    "StandardWebhooksSignature",
    "StripeSignature",
    "WebhookHeaders",
    "WebhookReceipt",
]

if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ledger": ("ReplayLedger", "WebhookReceipt"),
            "request": ("HeadersLike", "Ignored", "WebhookHeaders"),
            "signatures": (
                "GitHubSignature", "HmacSignature", "SecretNames", "SignatureScheme",
                "SlackSignature", "StandardWebhooksSignature", "StripeSignature",
            ),
        },
    )  # fmt: skip
