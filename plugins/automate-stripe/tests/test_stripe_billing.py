"""Products, prices, subscriptions and invoices: requests, refusals, and each effect once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_stripe import StripeConnector
from crashing_biller import CALLS
from recording_service import Service
from remembering_stripe import remembering_stripe
from stripe_support import SECRETS, SUBSCRIPTION, signed, event

INVOICE = {
    "id": "in_1", "status": "draft", "currency": "eur", "total": 1_050, "amount_due": 1_050,
    "amount_paid": 0, "customer": "cus_1",
}  # fmt: skip
PRODUCT = {"id": "prod_1", "name": "Tea", "active": True}
PRICE = {
    "id": "price_1", "product": "prod_1", "active": True, "currency": "eur", "unit_amount": 1_050,
    "recurring": {"interval": "month", "interval_count": 1},
}  # fmt: skip
ITEM = {"id": "ii_1", "amount": 1_050, "currency": "eur"}
ITEMS = {"object": "list", "data": [{"id": "si_1", "price": PRICE, "quantity": 2}]}
ANSWERS = {"product": PRODUCT, "price": PRICE, "subscription": SUBSCRIPTION, "invoice": INVOICE}


@pytest.fixture
def kernel(service: Service) -> Iterator[Kernel]:
    with Kernel(
        plugins=[StripeConnector],
        discover=False,
        config={"stripe": service.config},
        secrets=SECRETS,
    ) as kernel:
        yield kernel


def sent(service: Service) -> dict[str, str]:
    return dict(parse_qsl(service.last.body.decode(), keep_blank_values=True))


Given = dict[str, Any]
# Every field of each action, and the class of Stripe's own library that has their names.
EVERYTHING: list[tuple[str, str, Given, str, str, Given]] = [
    (
        "create_product", "products",
        {"name": "Tea", "description": "Green", "metadata": {"k": "v"}},
        "ProductCreateParams", "product",
        {"name": "Tea", "description": "Green", "active": "true", "metadata[k]": "v"},
    ),
    (
        "create_price", "prices",
        {
            "product": "prod-own", "unit_amount": 0, "currency": "eur", "nickname": "n",
            "recurring": {"interval": "month"}, "lookup_key": "tea", "metadata": {"k": "v"},
        },
        "PriceCreateParams", "price",
        {
            "product": "prod-own", "unit_amount": "0", "currency": "eur", "nickname": "n",
            "recurring[interval]": "month", "recurring[interval_count]": "1",
            "lookup_key": "tea", "metadata[k]": "v",
        },
    ),
    (
        "create_subscription", "subscriptions",
        {
            "customer": "cus_1", "items": [{"price": "price_1", "quantity": 2}],
            "collection_method": "send_invoice", "days_until_due": 0,
            "default_payment_method": "pm_1", "payment_behavior": "error_if_incomplete",
            "trial_period_days": 7, "description": "d", "metadata": {"k": "v"},
        },
        "SubscriptionCreateParams", "subscription",
        {
            "customer": "cus_1", "items[0][price]": "price_1", "items[0][quantity]": "2",
            "collection_method": "send_invoice", "days_until_due": "0",
            "default_payment_method": "pm_1", "payment_behavior": "error_if_incomplete",
            "trial_period_days": "7", "description": "d", "metadata[k]": "v",
        },
    ),
    (
        "update_subscription", "subscriptions/sub_1",
        {
            "subscription": "sub_1", "cancel_at_period_end": False,
            "items": [
                {"id": "si_1", "quantity": 0}, {"id": "si_2", "deleted": True},
                {"price": "price_2"},
            ],
            "proration_behavior": "none", "default_payment_method": "pm_1", "description": "d",
            "metadata": {"k": "v"},
        },
        "SubscriptionUpdateParams", "subscription",
        {
            "items[0][id]": "si_1", "items[0][quantity]": "0", "items[1][id]": "si_2",
            "items[1][deleted]": "true", "items[2][price]": "price_2",
            "cancel_at_period_end": "false", "proration_behavior": "none",
            "default_payment_method": "pm_1", "description": "d", "metadata[k]": "v",
        },
    ),
    (
        "create_invoice", "invoices",
        {
            "customer": "cus_1", "collection_method": "send_invoice", "days_until_due": 14,
            "include_pending_items": True, "currency": "eur", "description": "d",
            "metadata": {"k": "v"},
        },
        "InvoiceCreateParams", "invoice",
        {
            "customer": "cus_1", "auto_advance": "false", "collection_method": "send_invoice",
            "days_until_due": "14", "pending_invoice_items_behavior": "include",
            "currency": "eur", "description": "d", "metadata[k]": "v",
        },
    ),
    (
        "add_invoice_item", "invoiceitems",
        {
            "invoice": "in_1", "customer": "cus_1", "price": "price_1", "quantity": 3,
            "description": "d", "metadata": {"k": "v"},
        },
        "InvoiceItemCreateParams", "item",
        {
            "invoice": "in_1", "customer": "cus_1", "pricing[price]": "price_1", "quantity": "3",
            "description": "d", "metadata[k]": "v",
        },
    ),
    (
        "add_invoice_item", "invoiceitems",
        {"invoice": "in_1", "customer": "cus_1", "amount": -50, "currency": "eur"},
        "InvoiceItemCreateParams", "item",
        {"invoice": "in_1", "customer": "cus_1", "amount": "-50", "currency": "eur"},
    ),
    (
        "finalize_invoice", "invoices/in_1/finalize", {"invoice": "in_1", "auto_advance": True},
        "InvoiceFinalizeInvoiceParams", "invoice", {"auto_advance": "true"},
    ),
    (
        "pay_invoice", "invoices/in_1/pay",
        {"invoice": "in_1", "payment_method": "pm_1", "paid_out_of_band": True},
        "InvoicePayParams", "invoice", {"payment_method": "pm_1", "paid_out_of_band": "true"},
    ),
    ("pay_invoice", "invoices/in_1/pay", {"invoice": "in_1"}, "InvoicePayParams", "invoice", {}),
    ("send_invoice", "invoices/in_1/send", {"invoice": "in_1"}, "InvoicePayParams", "invoice", {}),
    ("void_invoice", "invoices/in_1/void", {"invoice": "in_1"}, "InvoicePayParams", "invoice", {}),
]  # fmt: skip


@pytest.mark.parametrize(("action", "path", "given", "theirs", "answer", "form"), EVERYTHING)
def test_requests_have_the_fields_of_stripes_own_library(
    kernel: Kernel, service: Service, action: str, path: str, given: Given, theirs: str,
    answer: str, form: Given,
) -> None:  # fmt: skip
    import stripe.params

    service.answer({**ANSWERS, "item": ITEM}[answer])
    kernel.invoke(f"stripe.{action}", given, idempotency_key="k")
    assert (service.last.method, service.last.target) == ("POST", f"/v1/{path}")
    assert sent(service) == form
    assert service.last.headers["idempotency-key"]
    known = getattr(stripe.params, theirs).__annotations__
    assert {name.split("[")[0] for name in form} <= set(known)


def test_a_draft_takes_up_nothing_that_nobody_named(kernel: Kernel, service: Service) -> None:
    """Whatever an old version of the API does without the fields."""
    service.answer(INVOICE)
    kernel.invoke("stripe.create_invoice", {"customer": "cus_1"})
    assert sent(service) == {
        "customer": "cus_1", "auto_advance": "false", "pending_invoice_items_behavior": "exclude",
        "collection_method": "charge_automatically",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "given", "words"),
    [
        ("create_invoice", {"customer": "cus_1", "days_until_due": 3}, "belong together"),
        (
            "create_invoice",
            {"customer": "cus_1", "collection_method": "send_invoice"},
            "belong together",
        ),
        (
            "create_subscription",
            {"customer": "cus_1", "items": [{"price": "p"}], "days_until_due": 3},
            "belong together",
        ),
        ("create_subscription", {"customer": "cus_1", "items": []}, "items"),
        ("update_subscription", {"subscription": "sub_1"}, "nothing is to change"),
        (
            "update_subscription",
            {"subscription": "sub_1", "proration_behavior": "none"},
            "nothing is to change",
        ),
        ("update_subscription", {"subscription": "sub_1", "items": [{"quantity": 2}]}, "price"),
        ("update_subscription", {"subscription": "sub_1", "items": [{"id": "si_1"}]}, "quantity"),
        (
            "update_subscription",
            {"subscription": "sub_1", "items": [{"deleted": True, "price": "price_1"}]},
            "without id",
        ),
        ("add_invoice_item", {"invoice": "in_1", "customer": "cus_1"}, "amount and currency"),
        (
            "add_invoice_item",
            {"invoice": "in_1", "customer": "cus_1", "amount": 5},
            "amount and currency",
        ),
        (
            "add_invoice_item",
            {"invoice": "in_1", "customer": "cus_1", "price": "p", "currency": "eur"},
            "amount and currency",
        ),
        (
            "add_invoice_item",
            {
                "invoice": "in_1", "customer": "cus_1", "amount": 5, "currency": "eur",
                "quantity": 2,
            },
            "quantity is that of a price",
        ),
        ("create_price", {"product": "p", "unit_amount": 9.5, "currency": "eur"}, "unit_amount"),
        ("create_price", {"product": "p", "unit_amount": "9", "currency": "eur"}, "unit_amount"),
        ("create_price", {"product": "p", "unit_amount": -1, "currency": "eur"}, "unit_amount"),
        ("get_product", {"product": "../customers"}, "product"),
        ("get_price", {"price": "price_1?expand[]=x"}, "price"),
        ("pay_invoice", {"invoice": "in_1/void"}, "invoice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_not_sent(
    kernel: Kernel, service: Service, action: str, given: Given, words: str
) -> None:
    with pytest.raises(AutomateError, match=words) as caught:
        kernel.invoke(f"stripe.{action}", given)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert service.sent == []


@pytest.mark.parametrize(
    ("action", "reached"),
    [("finalize_invoice", "open"), ("finalize_invoice", "paid"), ("pay_invoice", "paid"),
     ("void_invoice", "void")],
)  # fmt: skip
def test_an_invoice_that_is_there_already_is_a_success(
    kernel: Kernel, service: Service, action: str, reached: str
) -> None:
    """Also a day later, when Stripe has forgotten the key; any other status is the refusal."""
    service.answer({"error": {"message": "not in this status"}}, 400)
    service.answer({**INVOICE, "status": reached})
    found = kernel.invoke(f"stripe.{action}", {"invoice": "in_1"}, idempotency_key="k")
    assert found["status"] == reached
    assert [each.method for each in service.sent] == ["POST", "GET"]
    for other in {"draft", "void", "uncollectible"} - {reached}:
        service.answers.clear()
        service.answer({"error": {"message": "not in this status"}}, 400)
        service.answer({**INVOICE, "status": other})
        with pytest.raises(AutomateError, match="not in this status"):
            kernel.invoke(f"stripe.{action}", {"invoice": "in_1"}, idempotency_key=other)


def test_what_was_paid_elsewhere_too_is_no_success(kernel: Kernel, service: Service) -> None:
    """The customer has paid twice then, and somebody has to see it."""
    service.answer({"error": {"message": "Invoice is already paid"}}, 400)
    with pytest.raises(AutomateError, match="already paid"):
        kernel.invoke("stripe.pay_invoice", {"invoice": "in_1", "paid_out_of_band": True})
    assert len(service.sent) == 1


def test_a_declined_card_stays_declined(kernel: Kernel, service: Service) -> None:
    service.answer({"error": {"type": "card_error", "message": "Your card was declined."}}, 402)
    with pytest.raises(AutomateError, match="Your card was declined") as caught:
        kernel.invoke("stripe.pay_invoice", {"invoice": "in_1"}, idempotency_key="k")
    assert (caught.value.code, caught.value.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)


@pytest.mark.parametrize(("action", "given"), CALLS)
def test_without_a_key_nothing_is_repeated(
    kernel: Kernel, service: Service, action: str, given: Given
) -> None:
    """Nobody can know whether money has moved. With one its attempts are under the same key."""
    service.answer({}, 500)
    with pytest.raises(AutomateError, match="unknown whether Stripe has done it") as caught:
        kernel.invoke(f"stripe.{action}", given)
    assert not caught.value.retryable
    for _ in range(2):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(f"stripe.{action}", given, idempotency_key="k")
        assert caught.value.retryable
    without, first, second = service.sent
    assert "idempotency-key" not in without.headers
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("action", "given", "answer", "query"),
    [
        ("list_products", {"active": False}, PRODUCT, "products?active=false&"),
        (
            "list_prices", {"product": "prod_1", "lookup_key": "tea", "active": True}, PRICE,
            "prices?product=prod_1&active=true&lookup_keys%5B0%5D=tea&",
        ),
        (
            "list_subscriptions", {"customer": "cus_1", "price": "price_1", "status": "all"},
            SUBSCRIPTION, "subscriptions?customer=cus_1&price=price_1&status=all&",
        ),
    ],
)  # fmt: skip
def test_lists_come_in_pages(
    kernel: Kernel, service: Service, action: str, given: Given, answer: Given, query: str
) -> None:
    service.answer({"data": [answer, {**answer, "id": "second"}], "has_more": True})
    service.answer({"data": [{**answer, "id": "third"}], "has_more": False})
    found = kernel.invoke(f"stripe.{action}", given)
    assert [each["id"] for each in found] == [answer["id"], "second", "third"]
    assert service.sent[0].target == f"/v1/{query}limit=100"
    assert service.last.target == f"/v1/{query}limit=100&starting_after=second"
    service.answers.clear()
    service.answer({"data": [answer, answer], "has_more": True})
    assert len(kernel.invoke(f"stripe.{action}", {"limit": 2})) == 2


def test_an_upgrade_by_a_workflow_changes_the_item_that_is_there(
    kernel: Kernel, service: Service
) -> None:
    """By its id: without, the customer would pay for both."""
    get = {"id": "now", "action": "stripe.get_subscription", "input": {"subscription": "sub_1"}}
    change = {
        "id": "change", "action": "stripe.update_subscription",
        "input": {
            "subscription": "sub_1", "proration_behavior": "always_invoice",
            "items": [
                {"id": "{{ steps.now.output.items.data[0].id }}", "price": "price_2"}
            ],
        },
    }  # fmt: skip
    kernel.add_workflow({"name": "up", "trigger": {"type": "manual"}, "steps": [get, change]})
    service.answer({**SUBSCRIPTION, "items": ITEMS})
    kernel.run("up", {})
    assert sent(service) == {
        "items[0][id]": "si_1", "items[0][price]": "price_2",
        "proration_behavior": "always_invoice",
    }  # fmt: skip


def test_a_webhook_has_the_items_of_its_subscription(kernel: Kernel) -> None:
    """With all their fields, and also those of old versions, which have a plan and no price."""
    old = {"data": [{"id": "si_1", "plan": {"id": "gold"}}]}
    for items in (ITEMS, old):
        thing = {**SUBSCRIPTION, "items": items}
        payload = kernel.connector("stripe").parse_webhook(
            "events", *signed(event("customer.subscription.updated", thing))
        )
        assert payload["data"]["object"]["items"]["data"][0].items() >= items["data"][0].items()


@pytest.mark.slow
def test_a_kill_around_each_request_bills_once(tmp_path: Path) -> None:
    """Whichever request the worker has died before or after: its workflow goes on, and repeats."""
    script = Path(__file__).parent / "support" / "crashing_biller.py"
    with remembering_stripe() as (url, stripe):
        subprocess.run([sys.executable, str(script), url, str(tmp_path)], check=True, timeout=240)
    runs = json.loads((tmp_path / "result.json").read_text())
    assert runs == 2 * len(CALLS) + 1
    assert len(stripe.asked) == runs * len(CALLS) + len(CALLS)  # a kill after each: asked again
    done = Counter(stripe.done)
    assert len(done) == len(CALLS)
    assert set(done.values()) == {runs}
