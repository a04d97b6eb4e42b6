"""
A connector to a payment provider that does not exist.

`Payments.charge` calls nobody: it plays the provider, with cards for each of its moods, as the test
cards of real providers do. Everything around it is what a connector to a real one has.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel

from automate_kernel import AutomateError, Call, Connector, ErrorCodes, TriggerSpec, action
from automate_kernel.triggers.webhooks import HmacSignature

GOOD, FLAKY, DECLINED = "card_good", "card_flaky", "card_declined"
CARDS = (GOOD, FLAKY, DECLINED)

SIGNATURE = HmacSignature(
    "$secret:PAYMENTS_WEBHOOK_SECRET", header="X-Payments-Signature", prefix="sha256="
)
DELIVERY_HEADER = "X-Payments-Delivery"


class PaymentsConfig(BaseModel):
    """What ``AUTOMATE_CONFIG["payments"]`` holds; it is checked when the connector is made."""

    api_key: str


class PaymentReceived(BaseModel):
    """What the provider sends when money has come: the body of its webhook."""

    merchant: str
    order: int


class Payments(Connector):
    """Charges cards, and takes the provider's webhooks."""

    key = "payments"
    display_name = "Payments"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        """What it must be told."""
        return PaymentsConfig

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """One webhook. A request that isn't signed, or not of this shape, starts nothing."""
        return [
            TriggerSpec(
                "received",
                signature=SIGNATURE,
                delivery_id_header=DELIVERY_HEADER,
                payload_schema=PaymentReceived,
            )
        ]

    # Idempotent, for a provider does the work once for all calls with one idempotency key.
    @action(idempotent=True)
    def charge(self, card: str, amount: Decimal, call: Call) -> dict[str, str]:
        """Charge a card."""
        # The code of an error decides what comes next: UNAVAILABLE is tried again, as often as
        # the step's `retry` says; FAILED_PRECONDITION fails the step at once.
        if card == FLAKY and call.attempt < 3:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the bank does not answer")
        if card == DECLINED:
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "the card was declined")
        return {"payment": f"pay-{call.idempotency_key}", "amount": str(amount)}
