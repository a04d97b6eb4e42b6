"""The progress of a call, told to the client while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from automate_kernel.operations.reports import CallReport
from automate_kernel.storage.values import Redaction

Send = Callable[[float, float | None, str | None], Awaitable[None]]
# However often a call reports, the client is told so often.
_PAUSE_SECONDS = 0.05


class LiveReport(CallReport):
    """A report whose newest progress is sent by `sending`; secrets are taken out first."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__(redact=redact)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._sent = 0.0

    def report(self, value: Any, message: str | None) -> None:
        """Take the newest progress in, from any thread."""
        super().report(value, message)
        self._loop.call_soon_threadsafe(self._news.set)

    @asynccontextmanager
    async def sending(self, send: Send) -> AsyncIterator[None]:
        """Send what is reported during the block, and what came last before it ended."""
        # A plain task: a group would wrap the error of the call.
        sender = self._loop.create_task(self._keep_sending(send))
        try:
            yield
        finally:
            # A thread may still run, and asks whether it should.
            self.over = True
            sender.cancel()
            await asyncio.wait([sender])
        await self._send_newest(send)

    async def _keep_sending(self, send: Send) -> None:
        while True:
            await self._news.wait()
            await self._send_newest(send)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send_newest(self, send: Send) -> None:
        if not self._news.is_set() or self.latest is None:
            return
        self._news.clear()
        told = json.loads(self.latest)
        value, message, total = told["value"], told["message"], None
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and value > self._sent:
            total = 1.0 if value <= 1 else None
            self._sent = float(value)
        else:
            # In MCP it has to grow. What can't is told in words.
            self._sent += 1.0
            message = message or json.dumps(value, ensure_ascii=False)
        await send(self._sent, total, message)
