"""What tests call, and how they wait and listen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import uvicorn
from ports import free_ports
from pydantic import BaseModel

from automate_kernel import AutomateError, Kernel
from automate_kernel.operations.context import Call
import waiting

SECRET = "s3cr3t-that-nobody-may-see-4711"


def run(work: Any, seconds: float = 90.0) -> Any:
    """Run a coroutine to its end, within some seconds."""

    async def bounded() -> Any:
        with anyio.fail_after(seconds):
            return await work

    return asyncio.run(bounded())


class Order(BaseModel):
    number: int
    total: int


class Shop:
    """The operations of a host, and what they did."""

    def __init__(self, kernel: Kernel) -> None:
        self.refunds: list[int] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.kernel = kernel
        kernel.action("shop.find", read_only=True)(self.find)
        kernel.action("shop.refund", destructive=True)(self.refund)
        kernel.action("shop.slow")(self.slow)
        kernel.action("shop.fail")(self.fail)
        kernel.action("shop.keyed")(self.keyed)
        kernel.action("shop.big", output_schema={"type": "string"})(self.big)
        kernel.action("shop.token")(self.token)
        kernel.action("internal.wipe")(self.wipe)

    def find(self, number: int) -> Order:
        """Find an order."""
        return Order(number=number, total=40)

    def refund(self, amount: int) -> dict[str, int]:
        """Pay money back."""
        self.refunds.append(amount)
        return {"refunded": amount}

    async def slow(self, seconds: float, call: Call) -> str:
        """Take a while, and say how far it is."""
        self.begun.append("slow")
        try:
            for step in range(10):
                call.progress((step + 1) / 10, f"step {step + 1}")
                await asyncio.sleep(seconds / 10)
        except asyncio.CancelledError:
            self.cancelled.append("slow")
            raise
        return "done"

    def fail(self, code: str) -> None:
        """Fail with a code."""
        if code == "BUG":
            raise KeyError(SECRET)
        if code == "SETUP":
            self.kernel.secrets.get("NOT_THERE")
        raise AutomateError(code, f"it went wrong with {SECRET}", hint="wait", retry_after=3)

    def keyed(self, call: Call) -> dict[str, Any]:
        """Return what the call knows."""
        return {"key": call.idempotency_key, "tenant": call.tenant_id}

    def big(self, size: int) -> str:
        """Return much."""
        return "x" * size

    def token(self, text: str) -> dict[str, str]:
        """Use a secret, and tell of it what it shouldn't."""
        return {"said": text, "used": self.kernel.secrets.get("API_KEY")}

    def wipe(self) -> None:
        """Delete everything."""


@asynccontextmanager
async def recorded(transport: Any, transcript: list[str]) -> AsyncIterator[Any]:
    """A transport that writes down each message of both directions as JSON."""
    async with transport as (read, write):
        to_client, incoming = anyio.create_memory_object_stream[Any](0)
        outgoing, from_client = anyio.create_memory_object_stream[Any](0)

        async def pump(source: Any, sink: Any) -> None:
            async with sink:
                try:
                    async for message in source:
                        shown = getattr(message, "message", message)
                        text = shown.model_dump_json() if hasattr(shown, "model_dump_json") else ""
                        transcript.append(text or str(shown))
                        await sink.send(message)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump, read, to_client)
            tasks.start_soon(pump, from_client, write)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()


# Another program is started, and its tools are listed.
until = partial(waiting.until, seconds=40.0)


class Serving:
    """An ASGI application on a port of this machine, that can be stopped and started again."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        config = uvicorn.Config(
            self._make(), port=self.port, log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
