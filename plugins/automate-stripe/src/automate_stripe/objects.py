"""
Stripe's objects: the fields that workflows use, by Stripe's own names.

Amounts are integers in the currency's smallest unit: 1050 is 10.50 euros, and 1050 yen. Times are
seconds since 1970.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class StripeObject(BaseModel):
    """Anything at Stripe's. In a webhook all fields are kept, in an answer those of the model."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    id: str = Field(examples=["pi_1A2b3C"])
    """The id, which begins with the kind: ``pi_…``."""
    livemode: bool | None = None
    """True if real money is meant."""
    metadata: dict[str, str] | None = None
    """Your own texts, by name."""


class PaymentIntent(StripeObject):
    """An amount that a customer is to pay."""

    amount: int
    """The amount, in the currency's smallest unit."""
    amount_received: int | None = None
    """The part that was paid."""
    currency: str
    """The currency: ``eur``."""
    status: str
    """``requires_payment_method``, ``requires_action``, ``succeeded``, ``canceled`` and others."""
    customer: str | dict[str, Any] | None = None
    """The customer's id."""
    description: str | None = None
    """Words for people."""
    latest_charge: str | dict[str, Any] | None = None
    """The newest charge's id."""


class Refund(StripeObject):
    """An amount that is given back."""

    amount: int
    """The amount, in the currency's smallest unit."""
    currency: str
    """The currency."""
    status: str | None = None
    """``pending``, ``succeeded``, ``failed`` and others."""
    payment_intent: str | dict[str, Any] | None = None
    """The payment intent's id."""
    charge: str | dict[str, Any] | None = None
    """The charge's id."""
    reason: str | None = None
    """The reason that was given."""


class Charge(StripeObject):
    """An attempt to take an amount."""

    amount: int
    """The amount, in the currency's smallest unit."""
    amount_refunded: int
    """The part that was given back."""
    currency: str
    """The currency."""
    refunded: bool
    """True if all of it was given back."""
    customer: str | dict[str, Any] | None = None
    """The customer's id."""
    payment_intent: str | dict[str, Any] | None = None
    """The payment intent's id."""


class Dispute(StripeObject):
    """A payment that the customer's bank asks back."""

    amount: int
    """The amount, in the currency's smallest unit."""
    currency: str
    """The currency."""
    reason: str
    """The reason that the bank gives."""
    status: str
    """``needs_response`` and others."""
    charge: str | dict[str, Any]
    """The charge's id."""


class Customer(StripeObject):
    """A customer."""

    name: str | None = None
    """The name."""
    email: str | None = None
    """The address."""
    description: str | None = None
    """Words for people."""
    created: int | None = None
    """The time, in seconds since 1970."""
    deleted: bool = False
    """True for one that is gone."""


class Invoice(StripeObject):
    """An invoice."""

    number: str | None = None
    """The number that the customer sees; None while it is a draft."""
    customer: str | dict[str, Any] | None = None
    """The customer's id."""
    status: str | None = None
    """``draft``, ``open``, ``paid``, ``uncollectible``, ``void``."""
    currency: str
    """The currency."""
    total: int
    """The amount in all, in the currency's smallest unit."""
    amount_due: int
    """The amount to pay."""
    amount_paid: int
    """The amount that was paid."""
    hosted_invoice_url: str | None = None
    """The page for the customer."""
    created: int | None = None
    """The time, in seconds since 1970."""


class CheckoutSession(StripeObject):
    """A page on which a customer pays."""

    mode: str
    """``payment``, ``setup`` or ``subscription``."""
    status: str | None = None
    """``open``, ``complete``, ``expired``."""
    payment_status: str
    """``paid``, ``unpaid``, ``no_payment_required``."""
    url: str | None = None
    """The page for the customer, while it is open."""
    amount_total: int | None = None
    """The amount in all, in the currency's smallest unit."""
    currency: str | None = None
    """The currency."""
    customer: str | dict[str, Any] | None = None
    """The customer's id."""
    client_reference_id: str | None = None
    """Your own id of what is paid."""
    payment_intent: str | dict[str, Any] | None = None
    """The payment intent's id."""
    subscription: str | dict[str, Any] | None = None
    """The subscription's id."""


class Subscription(StripeObject):
    """A subscription."""

    customer: str | dict[str, Any]
    """The customer's id."""
    status: str
    """``active``, ``trialing``, ``past_due``, ``canceled`` and others."""
    cancel_at_period_end: bool
    """True if it ends with the period that is paid."""
    canceled_at: int | None = None
    """The time at which it was cancelled, in seconds since 1970."""
    trial_end: int | None = None
    """The end of the trial, in seconds since 1970."""
