"""
The receiver of ``automate serve``: uvicorn in this process, workers in others.

Only ``serve`` imports this module, since uvicorn takes its time to be imported.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from automate_cli.patient_protocol import PatientProtocol
from automate_cli.session import Session
from automate_cli.worker_process import work
from automate_kernel.http.app import Application, HttpApp, webhook_app
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.http.proxies import ForwardedApp, TrustedProxies
from automate_kernel.http.worker_ports import WorkerProcesses
from automate_kernel.monitoring.health import Probe
from automate_kernel.worker.process import LOOK_SECONDS, handling_signals


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
        self.probe: HttpApp = http_app_of(
            session, self._workers.probe if self._workers is not None else None
        )
        """The probe of the receiver and its workers."""
        self._ui: Any = None
        if settings["serve.ui"]:
            from automate_cli.ui import UI, pages_for

            self._ui = pages_for(session)
            self.probe.mount(UI, self._ui)
        proxies = TrustedProxies(settings["serve.proxies"], "serve.proxies")
        app = ForwardedApp(self.probe, proxies)
        self._server = server_of(app, settings["worker.grace_seconds"])

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
            while thread.is_alive():
                thread.join(LOOK_SECONDS)

    def stop(self) -> None:
        """Finish running requests and items; the second time, stop at once."""
        if self.probe.stopping:
            self._server.force_exit = True
        self.probe.stopping = True
        self._server.should_exit = True
        if self._ui is not None:
            self._ui.state.live.stopped = True
        if self._workers is not None:
            self._workers.stop()


def http_app_of(session: Session, workers: Probe | None, *, api: bool = False) -> HttpApp:
    """Return the application with all that the settings offer over HTTP, or with *api* too."""
    settings = session.settings
    return webhook_app(
        session.kernel,
        events_token=_token(session, "serve.events_token"),
        events_secrets=settings["serve.events_secrets"],
        operations=ExposedOperations(
            session.kernel,
            settings["serve.operations"],
            seconds=settings["serve.operation_seconds"],
        ),
        operations_token=_token(session, "serve.operations_token"),
        max_body_bytes=settings["serve.max_body_bytes"],
        workers=workers,
        api=api or settings["serve.api"],
    )


def server_of(app: Application, grace_seconds: float) -> uvicorn.Server:
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
