"""What the shop automates."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from automate_kernel.plugins.connectors import Connector, action
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.plugins import hookimpl

from .models import Message, Order


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

    @kernel.handler("shop.die")
    def die(item: Any) -> None:
        """Take the worker's process along, at the first attempt; say which in the file *path*."""
        if item.attempt_count == 1:
            Path(item.payload["path"]).write_text(str(os.getpid()))
            os._exit(9)

    @kernel.handler("shop.count")
    def count(item: Any) -> None:
        """Look into the database, and take a while: so that it needs a thread."""
        Order.objects.count()
        time.sleep(0.01)

    @kernel.handler("shop.order", transactional=True)
    def order(item: Any, connection: Any) -> None:
        """Write in the transaction that finishes the item; fail after that if told to."""
        Order.objects.using(connection.alias).create(number=item.payload["number"], total=1)
        if item.payload.get("fail"):
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "told to")
