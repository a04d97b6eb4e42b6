"""A connector: models, typed parameters, async, errors of its own, and a signed webhook."""

from __future__ import annotations

from typing import Any

from automate_kernel import AutomateError, Call, Connector, ErrorCodes, TriggerSpec, action
from automate_kernel.triggers.webhooks import HmacSignature
from pydantic import BaseModel, Field


class FrozenConfig(BaseModel):
    base: str = "https://frozen.example"
    token: str = Field("none", json_schema_extra={"format": "password"})


class Message(BaseModel):
    channel: str
    text: str = "hello"


class Receipt(BaseModel):
    ts: str
    channel: str


class ServiceError(Exception):
    """An error in the service's own words."""


class FrozenConnector(Connector):
    """A chat that stands still."""

    key = "frozen"
    display_name = "Frozen chat"
    automate_requires = ">=0.1,<2"

    def __init__(self, config: dict[str, Any] | None = None, *, ctx: Any = None) -> None:
        super().__init__(config, ctx=ctx)
        self.sent: list[str] = []

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return FrozenConfig

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec(
                "posted",
                signature=HmacSignature("FROZEN_HOOK", header="X-Frozen-Signature"),
                delivery_id_header="X-Frozen-Delivery",
            )
        ]

    @action(idempotent=True)
    async def post_message(self, message: Message, call: Call) -> Receipt:
        """Post a message."""
        self.sent.append(message.text)
        return Receipt(ts=call.idempotency_key or "none", channel=message.channel)

    @action(read_only=True, title="Count")
    def count(self, prefix: str = "") -> dict[str, int]:
        """Count messages."""
        return {"count": len([each for each in self.sent if each.startswith(prefix)])}

    @action(destructive=True)
    def fail(self, why: str) -> None:
        """Fail in the service's own words."""
        raise ServiceError(why)

    def normalize_error(self, exc: Exception) -> Exception:
        if isinstance(exc, ServiceError):
            return AutomateError(ErrorCodes.UNAVAILABLE, str(exc), retry_after=3)
        return super().normalize_error(exc)

    def check(self) -> str:
        if self.config.get("token") == "wrong":
            raise AutomateError(ErrorCodes.UNAUTHENTICATED, "the token is not valid")
        return "it stands still"
