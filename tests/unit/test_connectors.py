"""Connectors: the specification's sample, actions from methods, and what a webhook must prove."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import BaseModel

from automate_kernel.plugins.connectors import ActionSpec, Connector, TriggerSpec, action
from automate_kernel.operations.context import ConnectorContext
from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError
from automate_kernel.plugins import ConnectorRegistry


class Payload(BaseModel):
    id: int


class Hooked(Connector):
    key = "hooked"
    display_name = "Hooked"
    verdict: Any = True

    @action(idempotent=True)
    def create(self, name: str) -> dict[str, str]:
        return {"created": name}

    @action("close")
    async def close_it(self, name: str) -> str:
        return name

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec("pushed", delivery_id_header="X-Delivery", payload_schema=Payload),
            TriggerSpec("signed", signature=Scheme()),
            TriggerSpec("plain", payload_schema={"required": ["id"]}),
        ]

    def verify_webhook(self, headers: dict[str, str], raw_body: bytes) -> bool:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict() if callable(self.verdict) else self.verdict  # type: ignore[no-any-return]


class Scheme:
    """A signature scheme that wants the secret itself as the body."""

    def verify(self, headers: Any, raw_body: bytes, secrets: Any) -> bool:
        return raw_body == secrets.get("HOOK").encode()  # type: ignore[no-any-return]


class Secrets:
    def get(self, key: str) -> str:
        return f"value of {key}"

    async def aget(self, key: str) -> str:
        return self.get(key)


def test_marked_methods_are_actions() -> None:
    """Methods may be called like those of the base class's own machinery."""
    hooked = Hooked()
    assert [spec.name for spec in hooked.actions()] == ["create", "close"]
    assert hooked.call_action("create", {"name": "x"}) == {"created": "x"}
    assert asyncio.run(hooked.call_action("close", {"name": "x"})) == "x"
    registry = ConnectorRegistry(discover=False)
    registry.register(Hooked)
    assert isinstance(registry.create("hooked"), Hooked)


def test_an_action_can_not_take_the_place_of_the_lifecycle() -> None:
    """A method `close` is called at shutdown, so an action of that name needs another method."""

    class Door(Connector):
        key = "door"

        @action
        def close(self, door: str) -> str:  # type: ignore[override]
            return door

    with pytest.raises(PluginError, match="mark it with the name 'close'"):
        Door.actions()


def test_an_unknown_action_is_refused_with_what_there_is() -> None:
    """INVALID_ARGUMENT, with a suggestion, and no second try."""
    with pytest.raises(AutomateError, match="did you mean 'create'") as caught:
        Hooked().execute_action("creat", {})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert not caught.value.retryable


def test_a_declared_action_that_nothing_performs_says_so() -> None:
    """A spec without a method and without execute_action is UNIMPLEMENTED."""

    class Declared(Connector):
        key = "declared"

        @classmethod
        def actions(cls) -> list[ActionSpec]:
            return [ActionSpec("later")]

    with pytest.raises(AutomateError) as caught:
        Declared().call_action("later", {})
    assert caught.value.code is ErrorCodes.UNIMPLEMENTED


class Truthy:
    def __bool__(self) -> bool:
        return True


async def _yes() -> bool:
    return True


@pytest.mark.parametrize(
    "verdict",
    [None, False, 1, "yes", Truthy(), ValueError("x"), _yes],
    ids=["None", "False", "1", "yes", "truthy", "raises", "coroutine"],
)
@pytest.mark.filterwarnings("error")
def test_only_true_itself_accepts_a_webhook(verdict: Any) -> None:
    """Anything else rejects: a stub's None, what is merely true, an exception, a coroutine."""
    hooked = Hooked()
    hooked.verdict = verdict
    assert hooked.accepts_webhook("pushed", {}, b"{}") is False
    hooked.verdict = True
    assert hooked.accepts_webhook("pushed", {}, b"{}") is True


def test_by_default_no_webhook_is_accepted() -> None:
    """A connector that verifies nothing receives nothing."""

    class Silent(Connector):
        key = "silent"

        @classmethod
        def triggers(cls) -> list[TriggerSpec]:
            return [TriggerSpec("any")]

    assert Silent().accepts_webhook("any", {}, b"{}") is False


def test_a_triggers_signature_decides_with_the_connectors_secrets() -> None:
    """The scheme is asked in place of verify_webhook; without secrets it can't accept."""
    ctx = ConnectorContext(key="hooked", secrets=Secrets())
    assert Hooked(ctx=ctx).accepts_webhook("signed", {}, b"value of HOOK") is True
    assert Hooked(ctx=ctx).accepts_webhook("signed", {}, b"forged") is False
    assert Hooked().accepts_webhook("signed", {}, b"value of HOOK") is False


def test_a_failing_verification_is_logged_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The host learns of the mistake, the sender doesn't."""
    hooked = Hooked()
    hooked.verdict = KeyError("x-signature")
    with caplog.at_level(logging.ERROR):
        assert not hooked.accepts_webhook("pushed", {}, b"")
    assert "connector 'hooked' failed to verify a webhook" in caplog.text


def test_a_webhooks_body_is_json() -> None:
    """It is parsed, and checked against the trigger's schema, be it a model or plain."""
    hooked = Hooked()
    assert hooked.parse_webhook("pushed", {}, b'{"id": 3, "more": "x"}') == {"id": 3, "more": "x"}
    assert hooked.parse_webhook("plain", {}, '{"id": "é"}'.encode()) == {"id": "é"}
    for trigger, body in (("pushed", b'{"id": "3"}'), ("plain", b"{}")):
        with pytest.raises(AutomateError, match="payload of") as caught:
            hooked.parse_webhook(trigger, {}, body)
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "headers", [{"x-delivery": "d1"}, {"X-DELIVERY": "d1"}, [("A", "b"), ("X-delivery", "d1")]]
)
def test_a_deliverys_id_is_in_the_header_that_the_trigger_names(headers: Any) -> None:
    """However its name is written, and whether headers are a mapping or pairs."""
    hooked = Hooked()
    assert hooked.delivery_id("pushed", headers, b"") == "d1"
    assert hooked.delivery_id("pushed", {}, b"") is None
    assert hooked.delivery_id("plain", headers, b"") is None


def test_an_unknown_trigger_is_not_found() -> None:
    """There is nothing to verify a webhook against, so it is refused at once."""
    with pytest.raises(AutomateError, match="no trigger 'nope'") as caught:
        Hooked().accepts_webhook("nope", {}, b"")
    assert caught.value.code is ErrorCodes.NOT_FOUND
