"""The receiver of ``automate serve``: uvicorn in this process, workers in others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from automate_kernel.cli.working import work
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.http.app import HttpApp, webhook_app
from automate_kernel.http.worker_ports import WorkerProcesses
from automate_kernel.worker.process import handling_signals

if TYPE_CHECKING:
    import uvicorn

    from automate_kernel.cli.session import Session
    from automate_kernel.monitoring.health import Probe

__all__ = ["Receiver", "server_of"]


class Receiver:
    """Answers requests until it is stopped, as long as its workers' processes."""

    def __init__(self, session: Session, level: str) -> None:
        settings = session.settings
        self._session, self._level = session, level
        self._grace_seconds: float = settings["worker.grace_seconds"]
        self._processes: int = settings["serve.processes"]
        self._workers: WorkerProcesses | None = None
        if self._processes:
            options = {"session": session.arguments(), "level": level}
            self._workers = WorkerProcesses(
                self._processes, work, options, outbox=session.kernel.outbox
            )
        self._app = webhook_app(
            session.kernel,
            events_token=_token(session),
            max_body_bytes=settings["serve.max_body_bytes"],
            workers=self._workers.probe if self._workers is not None else None,
        )
        self._server: uvicorn.Server | None = None

    @property
    def probe(self) -> Probe:
        """How it is, and how its workers are."""
        return self._app

    def run(self, listening: socket.socket) -> int:
        """Serve on *listening*; returns how many worker processes ended with an error."""
        self._server = server_of(self._app, self._grace_seconds)
        with handling_signals(self.stop), self._working() as failed:
            self._server.run(sockets=[listening])
        return sum(failed)

    @contextmanager
    def _working(self) -> Iterator[list[int]]:
        """Run the workers during the block; how many ended with an error is known after it."""
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
            if not self._app.stopping:
                workers.stop()  # it could not even start
            thread.join()

    def stop(self) -> None:
        """Finish what runs; the second time, at once."""
        if self._server is None:
            return
        if self._app.stopping:
            self._server.force_exit = True
        self._app.stopping = True
        self._server.should_exit = True
        if self._workers is not None:
            self._workers.stop()


def server_of(app: HttpApp, grace_seconds: float) -> uvicorn.Server:
    """A server for *app*, which leaves signals to others and gives up on slow clients."""
    try:
        import uvicorn

        from automate_kernel.cli.slow_clients import PatientProtocol
    except ImportError:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            "uvicorn is not installed",
            hint="pip install automate-kernel[cli]",
        ) from None

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


def _token(session: Session) -> str | None:
    """The token for events, read from the secrets if the setting names one there."""
    given = session.settings["serve.events_token"]
    if not given:
        return None
    if not given.startswith("$secret:"):
        session.kernel.redactor.add(given)
        return str(given)
    return session.kernel.secrets.get(given.removeprefix("$secret:").strip("{}"))
