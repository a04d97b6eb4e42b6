"""
Stripe as a connector: idempotent actions for payments, and verified webhooks.

`StripeConnector` refuses live keys and live events until its config says ``livemode``.
"""

from __future__ import annotations

from automate_stripe.config import StripeConfig
from automate_stripe.connector import StripeConnector
from automate_stripe.key import KeyAuth

__all__ = ["KeyAuth", "StripeConfig", "StripeConnector"]
