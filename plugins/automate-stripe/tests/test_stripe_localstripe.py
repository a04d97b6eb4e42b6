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
        ("get_product", {"product": "prod_none"}),
        ("get_price", {"price": "price_none"}),
        ("pay_invoice", {"invoice": "in_none"}),
        ("update_subscription", {"subscription": "sub_none", "cancel_at_period_end": False}),
    ):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(f"stripe.{name}", given)
        assert caught.value.code is ErrorCodes.NOT_FOUND, name


def test_products_are_made_found_and_listed(kernel: Kernel) -> None:
    tea, coffee = (
        kernel.invoke("stripe.create_product", {"name": name, "active": name == "Tea"})
        for name in ("Tea", "Coffee")
    )
    assert kernel.invoke("stripe.get_product", {"product": coffee["id"]})["name"] == "Coffee"
    for active, made in ((True, tea), (False, coffee)):
        found = kernel.invoke("stripe.list_products", {"active": active})
        assert [each["id"] for each in found] == [made["id"]]


def payer(kernel: Kernel) -> str:
    """A customer with a card."""
    customer: str = kernel.invoke("stripe.create_customer", {"email": "c@example.com"})["id"]
    card = {"object": "card", "number": "4242424242424242", "exp_month": 12, "exp_year": 2030}
    source = {f"source[{name}]": value for name, value in {**card, "cvc": "123"}.items()}
    kernel.connector("stripe").client.post("/v1/customers/{id}/sources", id=customer, form=source)
    return customer


def subscribed(kernel: Kernel, customer: str) -> str:
    """A subscription of 10.50 euros a month. localstripe has plans, and no prices."""
    client = kernel.connector("stripe").client
    plan = {"amount": 1050, "currency": "eur", "interval": "month", "product[name]": "Tea"}
    made = {"customer": customer, "items[0][plan]": client.post("/v1/plans", form=plan)["id"]}
    return str(client.post("/v1/subscriptions", form=made)["id"])


def test_an_invoice_that_is_paid_is_not_paid_again(kernel: Kernel) -> None:
    """Asked to twice, Stripe takes the amount once, and both calls succeed."""
    customer, client = payer(kernel), kernel.connector("stripe").client
    of = {"customer": customer, "subscription": subscribed(kernel, customer)}
    invoice = client.post("/v1/invoices", form=of)["id"]
    before = len(client.get("/v1/charges", query={"customer": customer})["data"])
    for _ in range(2):
        paid = kernel.invoke("stripe.pay_invoice", {"invoice": invoice})
        assert (paid["status"], paid["amount_paid"]) == ("paid", 1050)
    assert len(client.get("/v1/charges", query={"customer": customer})["data"]) == before + 1
    listed = kernel.invoke("stripe.list_invoices", {"customer": customer})
    assert invoice in [each["id"] for each in listed]
    with pytest.raises(AutomateError):
        kernel.invoke("stripe.void_invoice", {"invoice": invoice})
    given = {"invoice": invoice, "customer": customer, "amount": -50, "currency": "eur"}
    added = kernel.invoke("stripe.add_invoice_item", given)
    assert (added["amount"], added["invoice"]) == (-50, invoice)


def test_a_subscription_is_listed_changed_and_cancelled(kernel: Kernel) -> None:
    """A change of the quantity by the item's id leaves a single item."""
    customer = payer(kernel)
    made = subscribed(kernel, customer)
    (found,) = kernel.invoke("stripe.list_subscriptions", {"customer": customer})
    assert (found["id"], found["status"]) == (made, "active")
    (item,) = found["items"]["data"]
    changed = kernel.invoke(
        "stripe.update_subscription",
        {"subscription": made, "items": [{"id": item["id"], "quantity": 3}]},
    )
    assert [each["quantity"] for each in changed["items"]["data"]] == [3]
    ending = kernel.invoke(
        "stripe.update_subscription", {"subscription": made, "cancel_at_period_end": True}
    )
    assert ending["cancel_at_period_end"] is True
    kernel.invoke("stripe.cancel_subscription", {"subscription": made, "at_period_end": False})
    assert kernel.invoke("stripe.list_subscriptions", {"customer": customer}) == []
    (ended,) = kernel.invoke("stripe.list_subscriptions", {"customer": customer, "status": "all"})
    assert ended["status"] == "canceled"
