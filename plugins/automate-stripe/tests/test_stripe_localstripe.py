"""The actions against localstripe, which keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_stripe import StripeConnector
from stripe_support import SECRETS


@pytest.fixture(scope="module")
def kernel(localstripe: str) -> Iterator[Kernel]:
    config = {"base_url": localstripe, "allow_private_networks": ["127.0.0.1"]}
    secrets = {**SECRETS, "STRIPE_API_KEY": "sk_test_12345"}
    with Kernel(
        plugins=[StripeConnector], discover=False, config={"stripe": config}, secrets=secrets
    ) as kernel:
        yield kernel


def test_customers_are_made_found_and_listed(kernel: Kernel) -> None:
    """With nested values, and over several pages."""
    made = [
        kernel.invoke(
            "stripe.create_customer",
            {"email": f"c{n}@example.com", "name": "é", "metadata": {"order": f"A & {n}"}},
        )
        for n in range(3)
    ]
    found = kernel.invoke("stripe.get_customer", {"customer": made[1]["id"]})
    assert found["metadata"] == {"order": "A & 1"}
    listed = kernel.invoke("stripe.list_customers", {"email": "c2@example.com"})
    assert [each["id"] for each in listed] == [made[2]["id"]]


def test_a_payment_is_taken_and_given_back(kernel: Kernel) -> None:
    customer = kernel.invoke("stripe.create_customer", {"email": "payer@example.com"})
    client = kernel.connector("stripe").client
    card = client.post(
        "/v1/payment_methods",
        form={
            "type": "card", "card[number]": "4242424242424242", "card[exp_month]": 12,
            "card[exp_year]": 2030, "card[cvc]": "123",
        },
    )  # fmt: skip
    client.post("/v1/payment_methods/{id}/attach", id=card["id"], form={"customer": customer["id"]})
    paid = kernel.invoke(
        "stripe.create_payment_intent",
        {
            "amount": 1050, "currency": "eur", "customer": customer["id"],
            "payment_method": card["id"], "confirm": True,
        },
    )  # fmt: skip
    assert (paid["amount"], paid["status"]) == (1050, "succeeded")
    back = kernel.invoke("stripe.create_refund", {"payment_intent": paid["id"], "amount": 50})
    assert (back["amount"], back["status"]) == (50, "succeeded")
    assert kernel.invoke("stripe.list_invoices", {"customer": customer["id"]}) == []


def test_what_is_not_there_is_not_found(kernel: Kernel) -> None:
    for name, given in (
        ("get_customer", {"customer": "cus_none"}),
        ("get_payment_intent", {"payment_intent": "pi_none"}),
        ("get_invoice", {"invoice": "in_none"}),
        ("get_subscription", {"subscription": "sub_none"}),
    ):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(f"stripe.{name}", given)
        assert caught.value.code is ErrorCodes.NOT_FOUND, name
