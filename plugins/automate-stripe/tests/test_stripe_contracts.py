"""The kernel's contracts, and Stripe when it misbehaves."""

from __future__ import annotations

from typing import Any, ClassVar

from automate_testing import ConnectorContract, HostileAnswersContract
from automate_stripe import StripeConnector
from stripe_support import PAYMENT, SUBSCRIPTION


class TestStripeConnector(ConnectorContract):
    plugin_class = StripeConnector
    config: ClassVar[Any] = {"timeout_seconds": 2}


class TestAgainstHostileAnswers(HostileAnswersContract):
    plugin, operation = StripeConnector, "get_payment_intent"
    example_input: ClassVar[Any] = {"payment_intent": "pi_1"}
    answer: ClassVar[Any] = PAYMENT

    def config(self, url: str) -> dict[str, Any]:
        here = {"base_url": url, "allow_private_networks": ["127.0.0.1"]}
        return {**here, "timeout_seconds": self.timeout_seconds}


class TestListAgainstHostileAnswers(TestAgainstHostileAnswers):
    operation, example_input = "list_customers", {}
    answer: ClassVar[Any] = {"data": [{"id": "cus_1"}], "has_more": False}


class TestSubscriptionsAgainstHostileAnswers(TestAgainstHostileAnswers):
    operation, example_input = "list_subscriptions", {}
    answer: ClassVar[Any] = {"data": [SUBSCRIPTION], "has_more": False}
