"""Webhooks: proof by Stripe's own library, rolled secrets, routes, the mode, repetitions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import stripe
from automate_kernel import AutomateError, Connector, Kernel, action
from automate_kernel.base.errors import WebhookRejectedError
from automate_kernel.triggers.webhooks import Ignored, StripeSignature
from automate_stripe import StripeConnector
from automate_stripe.events import OBJECTS
from stripe_support import HOOK, OLD_HOOK, SECRETS, event, signed

Made = Callable[..., Kernel]


class Reader(Connector):
    key = "reader"
    display_name = "Reader"

    @action(read_only=True)
    def read(self) -> None:
        pass


@pytest.fixture
def kernel_with(request: pytest.FixtureRequest) -> Made:
    def make(**config: Any) -> Kernel:
        kernel = Kernel(
            plugins=[StripeConnector, Reader],
            discover=False,
            config={"stripe": config},
            secrets=SECRETS,
            workflows=[
                {
                    "name": f"on-{place}",
                    "trigger": {"type": "webhook", "connector": "stripe", "trigger": trigger},
                    "steps": [{"id": "read", "action": "reader.read", "input": {}}],
                    "output": "{{ event.payload }}",
                }
                for place, trigger in enumerate(("payment_intent.*", "events", "thin_events"))
            ],
        )
        request.addfinalizer(kernel.close)
        return kernel

    return make


def received(kernel: Kernel, request: tuple[dict[str, str], bytes], to: str = "events") -> Any:
    return kernel.receive_webhook("stripe", to, *request)


def test_stripes_own_library_proves_what_we_sign_and_signs_what_we_prove(
    kernel_with: Made,
) -> None:
    """An independent check of the scheme, both ways."""
    body = json.dumps(event()).encode()
    ours = StripeSignature().sign(body, HOOK)["Stripe-Signature"]
    assert stripe.WebhookSignature.verify_header(body.decode(), ours, HOOK, 300)
    moment = int(time.time())
    theirs = stripe.WebhookSignature._compute_signature(f"{moment}.{body.decode()}", HOOK)
    header = {"Stripe-Signature": f"t={moment},v1={theirs},v0=none"}
    assert received(kernel_with(), (header, body)).item_id


# Signed in the test: one that is early where tests are collected may be right where it runs.
UNPROVEN: dict[str, Callable[[], Any]] = {
    "other-secret": lambda: signed(event(), "whsec_another"),
    "old": lambda: signed(event(), at=time.time() - 3_000),
    "early": lambda: signed(event(), at=time.time() + 3_000),
    "v0": lambda: signed(event(), scheme="v0"),
    "other-body": lambda: (signed(event())[0], b"{}"),
    "unsigned": lambda: ({}, b"{}"),
}


@pytest.mark.parametrize("request_", UNPROVEN)
def test_an_unproven_webhook_is_refused(kernel_with: Made, request_: str) -> None:
    with pytest.raises(WebhookRejectedError):
        received(kernel_with(), UNPROVEN[request_]())


def test_a_rolled_secret(kernel_with: Made) -> None:
    """Stripe signs with both for a day; and we may know both."""
    assert received(kernel_with(), signed(event(), OLD_HOOK, HOOK)).item_id
    old = signed(event(), OLD_HOOK)
    with pytest.raises(WebhookRejectedError):
        received(kernel_with(), old)
    assert received(kernel_with(webhook_secrets=["STRIPE_WEBHOOK_SECRET", "OLD"]), old).item_id


def test_the_tolerance_is_the_configs(kernel_with: Made) -> None:
    late = signed(event(), at=time.time() - 400)
    assert received(kernel_with(tolerance_seconds=600), late).item_id


def test_an_event_that_comes_again_starts_nothing(kernel_with: Made) -> None:
    """With another signature, since its time is another."""
    kernel = kernel_with()
    first = received(kernel, signed(event(), at=time.time() - 60))
    again = received(kernel, signed(event()))
    assert (again.duplicate, again.item_id) == (True, first.item_id)
    with pytest.raises(AutomateError, match="id"):
        received(kernel, signed({**event(), "id": ""}))


def test_one_address_gets_all_events(kernel_with: Made) -> None:
    """Each starts the workflows of its own trigger; fields that nobody knows here are kept."""
    kernel = kernel_with()
    thin = {
        "id": "evt_3", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-01-01T00:00:00Z", "livemode": False,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/1"},
    }  # fmt: skip
    sent = [event(), event("product.created", {"id": "prod_1"}, id="evt_2"), thin]
    for payload in sent:
        received(kernel, signed(payload))
    kernel.run_until_idle()
    page = kernel.executions.page().executions
    found = {each.workflow: kernel.executions.get(each.id).output for each in page}
    assert found == {f"on-{place}": payload for place, payload in enumerate(sent)}


def test_a_typed_trigger_takes_its_own_type_alone(kernel_with: Made) -> None:
    kernel = kernel_with()
    assert received(kernel, signed(event()), "invoice.paid").ignored == Ignored(
        "no event of this trigger"
    )
    with pytest.raises(AutomateError, match="amount"):
        received(kernel, signed(event(thing={"id": "pi_1"})))


def test_every_typed_event_has_a_model_of_its_object() -> None:
    for name in OBJECTS:
        schema = StripeConnector.find_trigger(name).payload_schema
        assert schema is not None
        assert schema.model_json_schema()["properties"]["data"]  # type: ignore[union-attr]


def test_live_and_test_events_are_kept_apart(kernel_with: Made) -> None:
    """A live event is not lost: it fails, and Stripe sends it again."""
    with pytest.raises(AutomateError, match="a live event"):
        received(kernel_with(), signed(event(livemode=True)))
    live = kernel_with(livemode=True)
    assert received(live, signed(event())).ignored == Ignored("a test event, and livemode is on")
    assert received(live, signed(event(livemode=True))).item_id
