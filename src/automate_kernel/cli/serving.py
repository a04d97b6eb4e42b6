"""The receiver of ``automate serve``: uvicorn in this process, workers in others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from automate_kernel.asgi import WebhookApp, webhook_app
from automate_kernel.cli.working import work
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.outbox.running import handling_signals
from automate_kernel.outbox.supervisor import Supervisor

if TYPE_CHECKING:
    import uvicorn

    from automate_kernel.cli.session import Session

__all__ = ["Receiver"]


class Receiver:
    """Answers requests until it is stopped, as long as its workers' processes."""

    def __init__(self, session: Session, level: str) -> None:
        settings = session.settings
        self._session, self._level = session, level
        self._grace_seconds: float = settings["worker.grace_seconds"]
        self._processes: int = settings["serve.processes"]
        self._app = webhook_app(
            session.kernel,
            events_token=_token(session),
            max_body_bytes=settings["serve.max_body_bytes"],
        )
        self._server: uvicorn.Server | None = None
        self._supervisor: Supervisor | None = None

    def run(self, listening: socket.socket) -> int:
        """Serve on *listening*; returns how many worker processes ended with an error."""
        failed: list[int] = []
        self._server = _server(self._app, self._grace_seconds)
        options = {"session": self._session.arguments(), "level": self._level}
        self._supervisor = Supervisor(self._processes, work, options)
        workers = threading.Thread(
            target=lambda supervisor: failed.append(supervisor.run()), args=(self._supervisor,)
        )
        with handling_signals(self.stop):
            workers.start()
            try:
                self._server.run(sockets=[listening])
            finally:
                if not self._app.stopping:
                    self._supervisor.stop()  # it could not even start
                workers.join()
        return sum(failed)

    def stop(self) -> None:
        """Finish what runs; the second time, at once."""
        if self._server is None or self._supervisor is None:
            return
        if self._app.stopping:
            self._server.force_exit = True
        self._app.stopping = True
        self._server.should_exit = True
        self._supervisor.stop()


def _server(app: WebhookApp, grace_seconds: float) -> uvicorn.Server:
    try:
        import uvicorn
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
