"""GitHub's payloads, as its community has collected them, against the models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from automate_github.connector import GitHubConnector
from automate_github.events import EVENTS
from automate_kernel import AutomateError
from npm_parts import npm_folder

_FILE = "node_modules/@octokit/webhooks-examples/api.github.com/index.json"


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Any]]:
    """Payloads by their events, from npm."""
    found = npm_folder("@octokit/webhooks-examples@7", _FILE) / _FILE
    return {each["name"]: each["examples"] for each in json.loads(found.read_text("utf-8"))}


@pytest.mark.parametrize("event", EVENTS)
def test_every_example_is_taken(event: str, examples: dict[str, list[Any]]) -> None:
    """By its own trigger, and by the one for all events."""
    assert examples[event]
    for trigger in (event, "events"):
        spec = GitHubConnector.find_trigger(trigger)
        for payload in examples[event]:
            spec.check_payload(payload)


def test_payloads_of_other_events_are_taken(examples: dict[str, list[Any]]) -> None:
    """By the trigger for all events, of which none has another shape."""
    spec = GitHubConnector.find_trigger("events")
    count = 0
    for name, payloads in examples.items():
        for payload in payloads:
            count += 1
            try:
                spec.check_payload(payload)
            except AutomateError as error:
                pytest.fail(f"{name}: {error}")
    assert count > 100
