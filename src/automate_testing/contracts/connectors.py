"""
The contract of a connector, as tests that its author inherits.

::

    class TestSlack(ConnectorContract):
        plugin_class = Slack
        config = {"token_secret": "SLACK"}
        example_inputs = {"post_message": {"channel": "C1", "text": "hello"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.schemas.checks import is_model, json_schema_of
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.plugins.connectors import ActionSpec, Connector, TriggerSpec
from automate_kernel.plugins.kinds import CONNECTOR
from automate_kernel.triggers.webhooks.request import Ignored
from automate_kernel.triggers.webhooks.signatures import SignatureScheme
from automate_testing.contracts.plugin_contract import (
    AnySecret,
    PluginContract,
    require_json,
    require_json_schema,
    require_unique,
)

__all__ = ["ConnectorContract"]

_GARBAGE: list[tuple[Any, bytes]] = [
    ({}, b""),
    ({}, b"\xff\xfe\x00"),
    ({"X-Signature": "sha256=" + "0" * 64}, b"{}"),
    ({"x-signature": "é" * 10, "x-timestamp": "not a number"}, b'{"a": 1}'),
    ({"Authorization": "Bearer x", "X-Hub-Signature-256": ""}, b"[" * 1000),
    ({"Stripe-Signature": "t=1,v1=", "X-Slack-Signature": "v0=\x00"}, b"null"),
]


class ConnectorContract(PluginContract):
    """
    Subclass it and say *plugin_class*, and *config* where the connector needs some. Or override
    the fixture ``connector``.

    *example_inputs* has an input for each action that may be called in a test, against a double of
    the service. Only the specs of the others are checked. Set *supports_webhooks* to False for a
    connector without triggers.
    """

    kind = CONNECTOR
    _spec_class = ActionSpec
    supports_webhooks: ClassVar[bool] = True

    @pytest.fixture
    def connector(self) -> Connector:
        """Make the connector under test."""
        connector: Connector = self._make()
        return connector

    def _execute(self, plugin: Connector, name: str) -> Any:
        return plugin.execute_action(name, {})

    def test_triggers_have_unique_names_and_valid_schemas(self, connector: Connector) -> None:
        """Each trigger has its own name, and a payload schema that is JSON Schema."""
        specs = connector.triggers()
        assert all(isinstance(spec, TriggerSpec) for spec in specs)
        require_unique([spec.name for spec in specs])
        for spec in specs:
            schema = spec.payload_schema
            if isinstance(schema, Mapping):
                require_json_schema(dict(schema))
            else:
                assert schema is None or is_model(schema)

    def test_polls_are_well_declared(self, connector: Connector) -> None:
        """Each has its own name, which no trigger has: both would be one event."""
        names = [spec.name for spec in connector.polls()]
        require_unique(names)
        assert not {spec.name for spec in connector.triggers()} & set(names)

    def test_garbage_is_no_webhook(self, connector: Connector) -> None:
        """Unsigned and malformed requests are refused for every trigger, without an exception."""
        for headers, body in _GARBAGE:
            # A stub that returns None rejects, so only True itself would be wrong.
            assert connector.verify_webhook(headers, body) is not True
        for name, headers, body in self._garbage(connector):
            assert connector.accepts_webhook(name, headers, body) is False

    def test_a_signed_webhook_is_accepted_and_a_changed_one_refused(
        self, connector: Connector
    ) -> None:
        """A request with the service's signature is let in; with another body it is not."""
        secrets = connector.ctx.secrets
        if not isinstance(secrets, AnySecret):
            return  # its author made it, with secrets that nobody knows here
        for spec in connector.triggers():
            if isinstance(spec.signature, SignatureScheme):
                payload = example_of(json_schema_of(spec.payload_schema), spec.name)
                body = json.dumps(payload).encode()
                headers = spec.signature.sign(body, secrets.value)
                assert connector.accepts_webhook(spec.name, headers, body) is True
                assert connector.accepts_webhook(spec.name, headers, body + b" ") is False

    def test_what_can_not_be_read_is_an_automate_error(self, connector: Connector) -> None:
        """A body that can't be read raises nothing but an `AutomateError`."""
        for name, headers, body in self._garbage(connector):
            with suppress(AutomateError):
                read = connector.parse_webhook(name, headers, body)
                if not isinstance(read, Ignored):
                    require_json(read)

    def test_a_delivery_id_is_text_or_nothing(self, connector: Connector) -> None:
        """The id of a delivery is text, or None where the request has none."""
        for name, headers, body in self._garbage(connector):
            found = connector.delivery_id(name, headers, body)
            assert found is None or (isinstance(found, str) and found)

    def _garbage(self, connector: Connector) -> list[tuple[str, Any, bytes]]:
        """Return the name of each trigger with each request that no service has sent."""
        specs = connector.triggers()
        if not self.supports_webhooks:
            assert not specs, "it has triggers: leave supports_webhooks at True"
        return [(spec.name, *request) for spec in specs for request in _GARBAGE]
