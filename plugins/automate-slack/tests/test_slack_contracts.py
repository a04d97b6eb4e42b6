"""The kernel's contracts, and a Slack that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from automate_kernel import Connector
from automate_kernel.plugins.connectors import ConnectorContext
from automate_testing import ConnectorContract, HostileAnswersContract
from automate_slack import SlackConnector
from automate_slack.testing import FakeSlack


class Secrets:
    """The secrets of the double."""

    def __init__(self, slack: FakeSlack) -> None:
        self._values = slack.secrets

    def get(self, key: str) -> str:
        return self._values[key]

    async def aget(self, key: str) -> str:
        return self._values[key]


class TestSlack(ConnectorContract):
    """Each action that changes nothing else than the double is called."""

    plugin_class = SlackConnector
    example_inputs: ClassVar[Any] = {
        "post_message": {"channel": "C0GENERAL", "text": "hello"},
        "upload_file": {"filename": "a.txt", "text": "hello", "channel": "C0GENERAL"},
        "find_user": {"email": "ann@example.com"},
        "open_conversation": {"users": ["U0ANN"]},
        "list_channels": {},
    }

    @pytest.fixture
    def connector(self, slack: FakeSlack) -> Iterator[Connector]:
        yield SlackConnector(
            slack.config, ctx=ConnectorContext(key="slack", secrets=Secrets(slack))
        )


class TestSlackWithMadeUpSecrets(ConnectorContract):
    """Webhooks are signed by the suite itself."""

    plugin_class = SlackConnector


class HostileSlack(HostileAnswersContract):
    plugin = SlackConnector

    def config(self, url: str) -> dict[str, Any]:
        return {
            "base_url": f"{url}/api",
            "allow_private_networks": ["127.0.0.1"],
            "timeout_seconds": self.timeout_seconds,
        }


class TestPostAgainstHostileAnswers(HostileSlack):
    operation, example_input = "post_message", {"channel": "C1", "text": "hello"}
    answer: ClassVar[Any] = {"ok": True, "channel": "C1", "ts": "1.000001"}


class TestListAgainstHostileAnswers(HostileSlack):
    operation = "list_channels"
    answer: ClassVar[Any] = {"ok": True, "channels": [{"id": "C1", "name": "general"}]}
