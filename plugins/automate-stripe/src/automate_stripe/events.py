"""Webhooks' payloads: the envelope, and the object in it by the event's type."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from automate_stripe.objects import (
    Charge,
    CheckoutSession,
    Dispute,
    Invoice,
    PaymentIntent,
    StripeObject,
    Subscription,
)

T = TypeVar("T")


class _EventPart(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", use_attribute_docstrings=True)


class EventData(_EventPart, Generic[T]):
    """The object that an event is about."""

    object: T
    """The object as it was at the event, in the version of the API that the event names."""
    previous_attributes: dict[str, Any] | None = None
    """The values before the change, for events with ``updated`` in their type."""


class StripeEvent(_EventPart, Generic[T]):
    """An event."""

    id: str
    """The id, which stays when Stripe sends it again."""
    object: Literal["event"]
    """The word ``event``."""
    type: str
    """The type: ``invoice.paid``."""
    created: int
    """The time, in seconds since 1970."""
    livemode: bool
    """True if real money is meant."""
    api_version: str | None
    """The version of the API in which the object is written: the endpoint's, or the account's."""
    account: str | None = None
    """The connected account, for a platform."""
    data: EventData[T]
    """The object."""


class RelatedObject(_EventPart):
    """The object that a thin event is about, to be asked for."""

    id: str
    """The id."""
    type: str
    """The kind."""
    url: str | None = None
    """The path in the API."""


class ThinEvent(_EventPart):
    """An event of the API's second version: it has no object, only the place of one."""

    id: str
    """The id, which stays when Stripe sends it again."""
    object: Literal["v2.core.event"]
    """The words ``v2.core.event``."""
    type: str
    """The type: ``v1.billing.meter.error_report_triggered``."""
    created: str
    """The time, in ISO 8601."""
    livemode: bool
    """True if real money is meant."""
    related_object: RelatedObject | None = None
    """The object, if there is one."""


OBJECTS: dict[str, type[StripeObject]] = {
    "checkout.session.completed": CheckoutSession,
    "checkout.session.expired": CheckoutSession,
    "invoice.paid": Invoice,
    "invoice.payment_failed": Invoice,
    "payment_intent.succeeded": PaymentIntent,
    "payment_intent.payment_failed": PaymentIntent,
    "charge.refunded": Charge,
    "charge.dispute.created": Dispute,
    "customer.subscription.created": Subscription,
    "customer.subscription.updated": Subscription,
    "customer.subscription.deleted": Subscription,
    "customer.subscription.trial_will_end": Subscription,
}
"""The objects of the events that have a trigger of their own."""
