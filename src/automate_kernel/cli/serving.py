"""
The receiver of ``automate serve``: uvicorn in this process, workers in others.

Only ``serve`` imports this module, since uvicorn takes its time to be imported.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from automate_kernel.cli.session import Session
from automate_kernel.cli.worker_process import work
from automate_kernel.http.app import HttpApp, webhook_app
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.http.worker_ports import WorkerProcesses
from automate_kernel.worker.process import handling_signals


class Receiver:
    """Answers requests beside its workers' processes, until it is stopped."""

    def __init__(self, session: Session, level: str) -> None:
        settings = session.settings
        self._workers: WorkerProcesses | None = None
        if settings["serve.processes"]:
            options = {"session": session.arguments(), "level": level}
            self._workers = WorkerProcesses(
                settings["serve.processes"], work, options, outbox=session.kernel.outbox
            )
        self.probe: HttpApp = webhook_app(
            session.kernel,
            events_token=_token(session, "serve.events_token"),
            operations=ExposedOperations(
                session.kernel,
                settings["serve.operations"],
                seconds=settings["serve.operation_seconds"],
            ),
            operations_token=_token(session, "serve.operations_token"),
            max_body_bytes=settings["serve.max_body_bytes"],
            workers=self._workers.probe if self._workers is not None else None,
        )
        """The probe of the receiver and its workers."""
        self._server = server_of(self.probe, settings["worker.grace_seconds"])

    def run(self, listening: socket.socket) -> int:
        """Serve on *listening*; return the number of worker processes that ended with an error."""
        with handling_signals(self.stop), self._working() as failed:
            self._server.run(sockets=[listening])
        return sum(failed)

    @contextmanager
    def _working(self) -> Iterator[list[int]]:
        """Run the workers during the block; after it the list holds how many failed."""
        failed: list[int] = []
        workers = self._workers
        if workers is None:
            yield failed
            return
        thread = threading.Thread(target=lambda: failed.append(workers.run()))
        thread.start()
        try:
            yield failed
        finally:
            if not self.probe.stopping:
                workers.stop()  # it could not even start
            thread.join()

    def stop(self) -> None:
        """Finish running requests and items; the second time, stop at once."""
        if self.probe.stopping:
            self._server.force_exit = True
        self.probe.stopping = True
        self._server.should_exit = True
        if self._workers is not None:
            self._workers.stop()


def server_of(app: HttpApp, grace_seconds: float) -> uvicorn.Server:
    """Return a server for *app* that leaves signals to others and gives up on slow clients."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Ours are handled already, and stop the workers as well.
            yield

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=PatientProtocol,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=max(1, int(grace_seconds)),
    )
    return Server(config)


def _token(session: Session, name: str) -> str | None:
    """Return the token in the setting *name*, from the secrets if it refers to one there."""
    given = session.settings[name]
    if not given:
        return None
    if not given.startswith("$secret:"):
        session.kernel.redactor.add(given)
        return str(given)
    return session.kernel.secrets.get(given.removeprefix("$secret:").strip("{}"))


class PatientProtocol(H11Protocol):
    """
    uvicorn's protocol on h11, with a deadline for whatever a client has to do.

    uvicorn itself waits for ever for a head that doesn't end, for the rest of a body that nobody
    reads any more, and for a client that doesn't read its answers: a few such clients would use up
    the process's sockets. h11 is used even where httptools is installed, so the same requests are
    let in everywhere.
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
        """Run the clock again if half of the next request, or of this one, is still to come."""
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
        """Run the clock for what is to come: the head of a request, or the rest of one."""
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
