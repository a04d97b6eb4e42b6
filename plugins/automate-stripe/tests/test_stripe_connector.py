"""Actions: keys, idempotency, forms, pages, declined cards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import automate_stripe
import pytest
from automate_http.content import encode_form
from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_testing.authoring.example import ExampleFile
from automate_stripe import StripeConnector
from automate_stripe.form import form_of
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_service import Service
from stripe_support import KEY, PAYMENT, SECRETS, SUBSCRIPTION, event, signed

Made = Callable[..., Kernel]
REFUND = {"id": "re_1", "amount": 1_050, "currency": "eur", "status": "succeeded"}


@pytest.fixture
def kernel_with(service: Service, request: pytest.FixtureRequest) -> Made:
    def make(secrets: dict[str, str] | None = None, **config: Any) -> Kernel:
        kernel = Kernel(
            plugins=[StripeConnector],
            discover=False,
            config={"stripe": {**service.config, **config}},
            secrets={**SECRETS, **(secrets or {})},
        )
        request.addfinalizer(kernel.close)
        return kernel

    return make


def refunding(kernel: Kernel) -> None:
    step = {
        "id": "refund", "action": "stripe.create_refund", "input": {"payment_intent": "pi_1"},
        "retry": {"attempts": 3, "delay": "0s"},
    }  # fmt: skip
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": [step]})


def test_another_attempt_has_the_same_key_and_another_execution_another(
    kernel_with: Made, service: Service
) -> None:
    """A refund whose answer was lost is made once."""
    kernel = kernel_with()
    refunding(kernel)
    service.answer({}, 500)
    service.answer(REFUND)
    kernel.run("w", {})
    kernel.run("w", {})
    keys = [each.headers["idempotency-key"] for each in service.sent]
    assert keys[0] == keys[1] != keys[2]
    assert service.sent[0].body == service.sent[1].body


def test_other_values_have_the_steps_key_too(kernel_with: Made, service: Service) -> None:
    """Stripe refuses them: under another key it would pay back a second time."""
    kernel = kernel_with()
    for amount in (5, 7):
        service.answer(REFUND)
        given = {"payment_intent": "pi_1", "amount": amount}
        kernel.invoke("stripe.create_refund", given, idempotency_key="k")
    keys = [each.headers["idempotency-key"] for each in service.sent]
    assert keys[0] == keys[1]


def test_without_a_key_nothing_is_repeated(kernel_with: Made, service: Service) -> None:
    """Nobody can know whether money has moved."""
    service.answer({}, 500)
    kernel = kernel_with()
    with pytest.raises(AutomateError, match="unknown whether Stripe has done it") as caught:
        kernel.invoke("stripe.create_refund", {"payment_intent": "pi_1"})
    assert not caught.value.retryable
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("stripe.create_refund", {"payment_intent": "pi_1"}, idempotency_key="k")
    assert caught.value.retryable


def test_requests_are_as_stripe_wants_them(kernel_with: Made, service: Service) -> None:
    kernel = kernel_with(api_version="2026-01-28.clover", account="acct_1")
    page = {"id": "cs_1", "mode": "payment", "payment_status": "unpaid", "url": "https://c.example"}
    service.answer(page)
    found = kernel.invoke(
        "stripe.create_checkout_session",
        {
            "line_items": [{"price": "price_1", "quantity": 2}, {"price": "price_2"}],
            "success_url": "https://shop.example/thanks?order=1&x=é",
            "metadata": {"order": "A&1"},
        },
    )
    assert found["url"] == "https://c.example"
    sent = service.last
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["stripe-version"] == "2026-01-28.clover"
    assert sent.headers["stripe-account"] == "acct_1"
    assert dict(parse_qsl(sent.body.decode())) == {
        "line_items[0][price]": "price_1",
        "line_items[0][quantity]": "2",
        "line_items[1][price]": "price_2",
        "line_items[1][quantity]": "1",
        "mode": "payment",
        "success_url": "https://shop.example/thanks?order=1&x=é",
        "metadata[order]": "A&1",
    }


@pytest.mark.parametrize("items", [[], ["cus_1"], [{"object": "customer"}]])
def test_a_page_without_its_last_id_is_refused(
    kernel_with: Made, service: Service, items: list[Any]
) -> None:
    """Though more follows: a list that is cut short in silence is worse than an error."""
    service.answer({"data": items, "has_more": True})
    with pytest.raises(AutomateError) as caught:
        kernel_with().invoke("stripe.list_customers", {})
    assert caught.value.code is ErrorCodes.FAILED_PRECONDITION


@pytest.mark.parametrize("amount", [10.5, "1050", 0, -1, True, 100_000_000])
def test_an_amount_is_an_integer_above_zero(
    kernel_with: Made, service: Service, amount: Any
) -> None:
    """Half a cent, or a text that somebody forgot to convert, moves no money."""
    with pytest.raises(AutomateError, match="amount"):
        kernel_with().invoke("stripe.create_payment_intent", {"amount": amount, "currency": "eur"})
    assert service.sent == []


@pytest.mark.parametrize(("livemode", "key"), [(False, "sk_live_1234567"), (True, "rk_test_12345")])
def test_a_key_of_the_other_mode_is_not_sent(
    kernel_with: Made, service: Service, livemode: bool, key: str
) -> None:
    kernel = kernel_with({"STRIPE_API_KEY": key}, livemode=livemode)
    with pytest.raises(AutomateError, match="set livemode") as caught:
        kernel.invoke("stripe.get_payment_intent", {"payment_intent": "pi_1"})
    assert not caught.value.retryable
    assert key not in str(vars(caught.value))
    assert service.sent == []


def test_a_key_in_the_place_of_its_name_is_refused(kernel_with: Made) -> None:
    with pytest.raises(AutomateError, match="where its key belongs") as caught:
        kernel_with(api_key_secret="rk_test_abcdefgh").invoke("stripe.list_customers", {})
    assert "abcdefgh" not in str(caught.value)


def test_a_declined_card_stays_declined(kernel_with: Made, service: Service) -> None:
    error = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
    service.answer({"error": error}, 402)
    given_ = {"amount": 100, "currency": "eur", "payment_method": "pm_1", "confirm": True}
    with pytest.raises(AutomateError, match="Your card was declined") as caught:
        kernel_with().invoke("stripe.create_payment_intent", given_)
    assert (caught.value.code, caught.value.retryable) == (ErrorCodes.FAILED_PRECONDITION, False)


def test_lists_and_searches_come_in_pages(kernel_with: Made, service: Service) -> None:
    kernel = kernel_with()
    service.answer({"data": [{"id": "cus_1"}, {"id": "cus_2"}], "has_more": True})
    service.answer({"data": [{"id": "cus_3"}], "has_more": False})
    assert len(kernel.invoke("stripe.list_customers", {})) == 3
    assert service.last.target == "/v1/customers?limit=100&starting_after=cus_2"
    service.answers.clear()
    service.answer({"data": [{"id": "cus_1"}], "has_more": True, "next_page": "p2"})
    service.answer({"data": [{"id": "cus_2"}], "has_more": False, "next_page": None})
    assert len(kernel.invoke("stripe.search_customers", {"query": "name:'x'"})) == 2
    assert service.last.target.endswith("&page=p2")


@pytest.mark.parametrize(
    ("at_period_end", "method", "body", "refused"),
    [(False, "DELETE", b"", 404), (True, "POST", b"cancel_at_period_end=true", 400)],
)
def test_a_subscription_that_has_ended_is_a_success(
    kernel_with: Made, service: Service, at_period_end: bool, method: str, body: bytes, refused: int
) -> None:
    kernel = kernel_with()
    given_ = {"subscription": "sub_1", "at_period_end": at_period_end}
    service.answer({"error": {"message": "not of this one"}}, refused)
    service.answer({**SUBSCRIPTION, "status": "active"})
    with pytest.raises(AutomateError, match="not of this one"):
        kernel.invoke("stripe.cancel_subscription", given_)
    service.answers.clear()
    service.answer({"error": {"message": "it has ended"}}, refused)
    service.answer(SUBSCRIPTION)
    assert kernel.invoke("stripe.cancel_subscription", given_)["status"] == "canceled"
    assert [each.method for each in service.sent] == [method, "GET"] * 2
    assert service.sent[0].body == body


def test_an_id_leads_nowhere_else(kernel_with: Made, service: Service) -> None:
    for wrong in ("../balance", "pi_1/cancel", "", "pi_1?expand[]=x"):
        with pytest.raises(AutomateError, match="payment_intent"):
            kernel_with().invoke("stripe.get_payment_intent", {"payment_intent": wrong})
    assert service.sent == []


def test_the_connection_test_takes_restricted_keys(kernel_with: Made, service: Service) -> None:
    service.answer({"error": {"message": "no permission"}}, 403)
    service.answer({"error": {"message": "Invalid API Key"}}, 401)
    connector = kernel_with().connector("stripe")
    assert "may not list customers" in asyncio.run(connector.check())
    with pytest.raises(AutomateError):
        asyncio.run(connector.check())


NAMES = st.text("abcxyz_", min_size=1, max_size=8)
# A dozen leaves: a form of a hundred takes long to make, and shows nothing more.
NESTED = st.recursive(
    st.integers() | st.text() | st.booleans(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, NESTED, min_size=1, max_size=4))
def test_forms_are_as_stripes_own_library_writes_them(values: dict[str, Any]) -> None:
    from stripe._encode import _api_encode

    # In a list it leaves Python's True as it is.
    theirs = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in _api_encode(values)
    }
    ours = encode_form(form_of(values)).decode()
    assert dict(parse_qsl(ours, keep_blank_values=True)) == theirs


def test_the_example_runs(kernel_with: Made, service: Service) -> None:
    """From a signed event to a refund."""
    kernel = kernel_with()
    example = ExampleFile.of(automate_stripe.__name__)
    assert example is not None
    kernel.add_workflow(example.path)
    service.answer(PAYMENT)
    service.answer(REFUND)
    paid = {**PAYMENT, "metadata": {"duplicate_of": "pi_0"}}
    kernel.receive_webhook("stripe", "events", *signed(event(thing=paid)))
    kernel.run_until_idle()
    assert service.last.body == b"payment_intent=pi_1&reason=duplicate"
    kernel.receive_webhook("stripe", "events", *signed(event(id="evt_2")))
    kernel.run_until_idle()
    assert len(service.sent) == 2
