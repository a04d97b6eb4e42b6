"""
The protocol of our own servers: uvicorn's, and no client holds a connection for ever.

Only what serves imports this module, since uvicorn takes its time to be imported.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """
    uvicorn's protocol on h11, with a deadline for whatever a client has to do.

    uvicorn itself waits for ever for a head that doesn't end. It also waits for the rest of a body
    that nobody reads any more, and for a client that doesn't read its answers. A few such
    clients would use up the process's sockets. h11 is used even where httptools is installed, so
    the same requests are let in everywhere.
    """

    head_seconds: ClassVar[float] = 10.0
    """The time that a client has for the first line and the headers of a request."""
    rest_seconds: ClassVar[float] = 30.0
    """The time that it has to finish the body of a request that is answered already."""
    read_seconds: ClassVar[float] = 30.0
    """The time that it has to begin to read answers that have filled all buffers."""

    _deadline: asyncio.TimerHandle | None = None
    _awaited: object = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Run the clock: a connection on which nothing comes is as bad as half a request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._forget()
        self._is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs from a head's first byte to its last."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Run the clock again if part of the next request, or of this request, is still to come."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Run a clock: the client doesn't read."""
        super().pause_writing()
        if self._unread is None:
            # What is left to be sent would hold the connection for as long.
            self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it: the client reads on."""
        self._is_read()
        super().resume_writing()

    def _watch(self) -> None:
        """Run the clock for what is to come: the head of a request, or the rest of its body."""
        seconds = 0.0
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            seconds = self.rest_seconds
        elif self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            # While a connection is kept and nothing comes, uvicorn's own clock runs.
            seconds = self.head_seconds
        awaited = self.conn.their_state if seconds else None
        if awaited is self._awaited:
            return
        self._forget()
        if awaited is not None:
            self._awaited = awaited
            self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _forget(self) -> None:
        self._awaited = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
