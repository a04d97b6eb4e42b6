"""HTTP/1.1 for ``automate serve``: connections whose requests don't come are given up."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PatientProtocol"]


class PatientProtocol(H11Protocol):
    """
    The protocol for uvicorn's option ``http``: its own on h11, and a deadline for each head.

    uvicorn itself waits for ever for a head that doesn't end: clients that send half of one would
    use up the process's sockets. It is h11 even where httptools is installed, so that what is let
    in is the same everywhere.
    """

    head_seconds: ClassVar[float] = 10.0
    """How long a client may take over the first line and the headers of a request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Run the clock: a connection on which nothing comes is as bad as half a request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs from a head's first byte to its last."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Run the clock again if half of the next request is there already."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        # While a connection is kept and nothing comes, uvicorn's own clock runs.
        if self.conn.their_state is not h11.IDLE or self.timeout_keep_alive_task is not None:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
