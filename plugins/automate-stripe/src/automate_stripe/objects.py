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


class Product(StripeObject):
    """Something that is sold."""

    name: str
    """The name for customers."""
    active: bool
    """True if it is on sale."""
    description: str | None = None
    """Words for people."""
    default_price: str | dict[str, Any] | None = None
    """The id of the price that it usually has."""


class PriceRecurring(BaseModel):
    """The time after which a price is paid again."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    interval: str
    """``day``, ``week``, ``month`` or ``year``."""
    interval_count: int = 1
    """The number of these units."""


class Price(StripeObject):
    """An amount that a product costs."""

    product: str | dict[str, Any]
    """The product's id."""
    active: bool
    """True if it can be bought for this price."""
    currency: str
    """The currency."""
    unit_amount: int | None = None
    """The amount for each, in the currency's smallest unit; None if it has steps or fractions."""
    recurring: PriceRecurring | None = None
    """The time after which it is paid again; None if it is paid once."""
    nickname: str | None = None
    """Words that customers don't see."""
    lookup_key: str | None = None
    """The name of your own to find it by."""


class InvoiceItem(StripeObject):
    """An item of an invoice."""

    amount: int
    """The amount of all, in the currency's smallest unit."""
    currency: str
    """The currency."""
    customer: str | dict[str, Any] | None = None
    """The customer's id."""
    invoice: str | dict[str, Any] | None = None
    """The invoice's id."""
    quantity: int | None = None
    """The quantity."""
    description: str | None = None
    """Words for people."""


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
    due_date: int | None = None
    """The time until which it is to be paid, in seconds since 1970."""
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


class SubscriptionItem(BaseModel):
    """A price in a subscription."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", use_attribute_docstrings=True)

    id: str
    """The id, to change it by: ``si_…``."""
    price: Price | None = None
    """The price."""
    quantity: int | None = None
    """The quantity."""


class SubscriptionItems(BaseModel):
    """The first items of a subscription."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", use_attribute_docstrings=True)

    data: list[SubscriptionItem]
    """The items."""
    has_more: bool = False
    """True if it has more than these."""


class Subscription(StripeObject):
    """A subscription."""

    customer: str | dict[str, Any]
    """The customer's id."""
    status: str
    """``active``, ``trialing``, ``past_due``, ``canceled`` and others."""
    cancel_at_period_end: bool
    """True if it ends with the period that is paid."""
    items: SubscriptionItems | None = None
    """The prices that are paid, and how many of each."""
    latest_invoice: str | dict[str, Any] | None = None
    """The newest invoice's id."""
    canceled_at: int | None = None
    """The time at which it was cancelled, in seconds since 1970."""
    trial_end: int | None = None
    """The end of the trial, in seconds since 1970."""
