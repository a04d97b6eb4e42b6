"""Webhooks: proof, handshake, routes, filters, repetitions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from automate_github import GitHubConnector
from automate_kernel import AutomateError, Connector, Kernel, action
from automate_kernel.base.errors import WebhookRejectedError
from automate_kernel.triggers.webhooks import Ignored
from github_support import OLD_HOOK, REPOSITORY, SECRETS, SENDER, pull_request, push, signed

Made = Callable[..., Kernel]
TRIGGERS = ("push", "pull_request", "events")
NOTED: list[dict[str, Any]] = []


class Notebook(Connector):
    key = "notebook"
    display_name = "Notebook"

    @action
    def note(self, trigger: str, payload: dict[str, Any], event: str) -> None:
        NOTED.append({"trigger": trigger, "payload": payload, "event": event})


def workflow(trigger: str) -> dict[str, Any]:
    return {
        "name": f"on-{trigger}",
        "trigger": {"type": "webhook", "connector": "github", "trigger": trigger},
        "steps": [
            {
                "id": "note",
                "action": "notebook.note",
                "input": {
                    "trigger": trigger,
                    "payload": "{{ event.payload }}",
                    "event": "{{ event.headers['x-github-event'] }}",
                },
            }
        ],
    }


@pytest.fixture
def kernel_with(request: pytest.FixtureRequest) -> Made:
    NOTED.clear()

    def make(**config: Any) -> Kernel:
        kernel = Kernel(
            plugins=[GitHubConnector, Notebook],
            discover=False,
            config={"github": config},
            secrets=SECRETS,
            workflows=[workflow(each) for each in TRIGGERS],
        )
        request.addfinalizer(kernel.close)
        return kernel

    return make


def received(kernel: Kernel, trigger: str, request: tuple[dict[str, str], bytes]) -> Any:
    receipt = kernel.receive_webhook("github", trigger, *request)
    kernel.run_until_idle()
    return receipt


def test_a_push_starts_a_workflow_and_keeps_fields_that_nobody_knows_here(
    kernel_with: Made,
) -> None:
    """GitHub adds fields without a new version."""
    payload = push(a_new_field={"kept": True})
    assert received(kernel_with(), "push", signed("push", payload)).item_id
    assert NOTED == [{"trigger": "push", "payload": payload, "event": "push"}]


def test_a_ping_is_answered_and_starts_nothing(kernel_with: Made) -> None:
    """GitHub shows a webhook as broken otherwise."""
    ping = signed("ping", {"zen": "Keep it logically awesome.", "hook_id": 1})
    for trigger in ("push", "events"):
        assert received(kernel_with(), trigger, ping).ignored == Ignored("a ping")
    assert NOTED == []


def test_an_unproven_webhook_is_refused(kernel_with: Made) -> None:
    kernel = kernel_with()
    headers, body = signed("push", push())
    for wrong in (
        signed("push", push(), secret="another-secret")[0],
        {**headers, "X-Hub-Signature-256": headers["X-Hub-Signature-256"][:-1] + "g"},
        {**headers, "X-Hub-Signature-256": headers["X-Hub-Signature-256"].removeprefix("sha256=")},
        {name: value for name, value in headers.items() if name != "X-Hub-Signature-256"},
    ):
        with pytest.raises(WebhookRejectedError):
            received(kernel, "push", (wrong, body))
    assert NOTED == []


def test_two_secrets_are_valid_while_one_is_replaced(kernel_with: Made) -> None:
    old = signed("push", push(), secret=OLD_HOOK)
    with pytest.raises(WebhookRejectedError):
        received(kernel_with(), "push", old)
    kernel = kernel_with(webhook_secrets=["GITHUB_WEBHOOK_SECRET", "OLD"])
    assert received(kernel, "push", old).item_id
    assert received(kernel, "push", signed("push", push())).item_id


def test_a_redelivery_starts_nothing(kernel_with: Made) -> None:
    """Redelivered by hand or by script, it has the same id; at another address too."""
    kernel = kernel_with()
    request = signed("push", push())
    first = received(kernel, "push", request)
    for trigger in ("push", "events"):
        again = received(kernel, trigger, request)
        assert (again.duplicate, again.item_id) == (True, first.item_id)
    assert len(NOTED) == 1


def test_a_webhook_without_its_delivery_id_is_refused(kernel_with: Made) -> None:
    headers, body = signed("push", push())
    with pytest.raises(AutomateError, match="no delivery id"):
        received(kernel_with(), "push", ({**headers, "X-GitHub-Delivery": " "}, body))


def test_one_address_gets_all_events_of_an_app(kernel_with: Made) -> None:
    """Each starts the workflows of its own trigger, or of `events` where it has none."""
    kernel = kernel_with()
    received(kernel, "events", signed("push", push()))
    received(kernel, "events", signed("pull_request", pull_request()))
    star = {"action": "created", "repository": REPOSITORY, "sender": SENDER, "starred_at": "now"}
    received(kernel, "events", signed("star", star))
    found = sorted((each["trigger"], each["event"]) for each in NOTED)
    assert found == [("events", "star"), ("pull_request", "pull_request"), ("push", "push")]


def test_another_event_than_the_triggers_is_accepted_and_ignored(kernel_with: Made) -> None:
    receipt = received(kernel_with(), "push", signed("pull_request", pull_request()))
    assert receipt.ignored == Ignored("no event of this trigger")


def test_a_payload_of_another_shape_is_refused(kernel_with: Made) -> None:
    kernel = kernel_with()
    with pytest.raises(AutomateError, match="number"):
        received(kernel, "pull_request", signed("pull_request", {"action": "opened"}))


def test_a_form_is_read(kernel_with: Made) -> None:
    """GitHub's other content type, which its page for new webhooks offers first."""
    headers, body = signed("push", urlencode({"payload": json.dumps(push())}).encode())
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    assert received(kernel_with(), "push", (form, body)).item_id
    assert NOTED[0]["payload"] == push()
    headers, body = signed("push", b"other=1")
    with pytest.raises(AutomateError, match="payload"):
        received(kernel_with(), "push", ({**headers, "Content-Type": form["Content-Type"]}, body))


@pytest.mark.parametrize(
    ("filters", "event", "payload", "reason"),
    [
        ({"push": {"branches": ["main"]}}, "push", push(), None),
        ({"push": {"branches": ["main"]}}, "push", push("refs/heads/other"), "branch"),
        ({"push": {"branches": ["*"]}}, "push", push("refs/tags/v1"), "branch"),
        ({"push": {"branches": ["release/*"]}}, "push", push("refs/heads/release/1"), None),
        ({"*": {"repositories": ["octo/*"]}}, "push", push(), None),
        ({"*": {"repositories": ["octo/other"]}}, "push", push(), "repository"),
        ({"pull*": {"actions": ["opened"]}}, "pull_request", pull_request(), None),
        ({"pull*": {"actions": ["opened"]}}, "pull_request", pull_request("closed"), "action"),
        ({"pull*": {"actions": ["opened"]}}, "push", push(), None),
        ({"pull_request": {"branches": ["main"]}}, "pull_request", pull_request(), None),
        (
            {"pull_request": {"branches": ["main"]}},
            "pull_request",
            pull_request(base="dev"),
            "branch",
        ),
        ({"push": {"senders": ["dependabot[[]bot]"]}}, "push", push(), "sender"),
        ({"push": {"senders": ["ADA"]}, "*": {"branches": ["dev"]}}, "push", push(), "branch"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_filters_choose(
    kernel_with: Made, filters: Any, event: str, payload: Any, reason: str | None
) -> None:
    receipt = received(kernel_with(webhooks=filters), event, signed(event, payload))
    assert receipt.ignored == (Ignored(f"no {reason} that counts here") if reason else None)
    assert len(NOTED) == (0 if reason else 1)
