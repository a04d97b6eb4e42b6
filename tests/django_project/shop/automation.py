"""What the shop automates."""

from __future__ import annotations

from typing import Any

from automate_kernel.connectors import Connector, action
from automate_kernel.plugins import hookimpl

from .models import Message


class ChatConnector(Connector):
    """A chat whose messages end up in the database."""

    key = "chat"
    display_name = "Chat"

    @action(idempotent=True)
    def post_message(self, channel: str, text: str) -> dict[str, Any]:
        """Say *text* in *channel*."""
        assert self.config["token"] == "tok-51d0"
        return {"id": Message.objects.create(channel=channel, text=text).pk}


@hookimpl
def automate_configure(kernel: Any) -> None:
    """Add the shop's own actions."""

    @kernel.action("orders.total")
    def total(lines: list[dict[str, Any]]) -> dict[str, Any]:
        return {"total": sum(line["price"] * line["quantity"] for line in lines)}
