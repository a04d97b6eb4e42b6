"""The process of ``automate dev``: one load of the project, with its worker, receiver and pages."""

from __future__ import annotations

import getpass
import linecache
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIG_IGN, SIGTERM
from signal import signal as signal_
from typing import TYPE_CHECKING, Any

from automate_cli.definition_places import problems_of_workflows
from automate_cli.output import Output, log_to_stderr, seconds
from automate_cli.reloading import LoadReport, Order
from automate_cli.serving import http_app_of, server_of
from automate_cli.session import Session
from automate_cli.starter import FIRST_EVENT
from automate_cli.ui import UI
from automate_cli.worker_process import WORKER_OPTIONS
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.app import HttpApp
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import WorkerProbe
from automate_kernel.monitoring.process import guarded_process
from automate_kernel.secrets import RedactingFilter
from automate_kernel.secrets.redaction import redact_text
from automate_kernel.storage.statuses import ExecutionStatus
from automate_kernel.worker.process import FROM_TERMINAL, LOOK_SECONDS
from automate_pages.asgi import pages_of
from automate_pages.auth import loopback
from automate_pages.site import Site
from automate_pages.users import User

_CHANGES = (
    signals.workflow_started, signals.workflow_completed, signals.workflow_failed,
    signals.workflow_cancelled, signals.step_started, signals.step_completed, signals.step_failed,
)  # fmt: skip

if TYPE_CHECKING:
    from automate_kernel.worker import Worker
    from automate_kernel.workflows.execution import Execution


def load_and_serve(
    session: Mapping[str, Any],
    level: str,
    grace_seconds: float,
    listening: socket.socket,
    parent: Connection,
) -> None:
    """Load the project, report that to *parent*, and do as it says; see `Reloader`."""
    for number in FROM_TERMINAL:
        signal_(number, SIG_IGN)  # the parent gets them, too
    own = Session(**session)
    log_to_stderr(level)
    kernel: Kernel | None = None
    worker: Worker | None = None
    try:
        kernel = own.kernel
        check = getattr(kernel.storage, "check_schema", None)
        if check is not None:
            check().require()
        names = {name: own.settings[f"worker.{name}"] for name in WORKER_OPTIONS}
        worker = kernel.worker(**{**names, "grace_seconds": grace_seconds})
        found = problems_of_workflows(kernel, kernel.workflows, own.workflow_paths())
        problem = "\n".join(found)
    except BaseException as error:  # SystemExit, too: the project's code may raise anything
        problem = redact_text(failure_text(error, Path.cwd()))
    problem = problem.replace(f"{Path.cwd()}{os.sep}", "")
    try:
        summary = _summary(kernel) if kernel is not None else ""
        usable = worker is not None
        parent.send(LoadReport(summary, problem, usable, tuple(_files_elsewhere())))
        order: Order = parent.recv()
    except (EOFError, OSError):
        return
    if order.word != "serve":
        return
    if worker is None or kernel is None:
        _DevServer(_kernel_for_looking(own), None, own, listening, 0).run(parent, order)
    else:
        log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=own.settings["log_format"])
        with guarded_process():
            _DevServer(kernel, worker, own, listening, grace_seconds).run(parent, order)
    own.close()


class _DevServer:
    """The server of one process; without a *worker* it only shows the pages."""

    def __init__(
        self,
        kernel: Kernel,
        worker: Worker | None,
        session: Session,
        listening: socket.socket,
        grace_seconds: float,
    ) -> None:
        self._kernel, self._worker, self._listening = kernel, worker, listening
        # Whoever is here can write code that calls them all.
        operations = session.settings["serve.operations"] or ["*"]
        self._site = Site(kernel, "automate dev", reloads=True, operations=operations, webhooks="/")
        developer = User(_name(), ["admin"], tenant=None, stands_in=True)
        pages = pages_of(self._site, auth=loopback(developer))
        self._live = pages.state.live
        if worker is None:
            self._app = HttpApp(kernel)
        else:
            self._app = http_app_of(session, WorkerProbe(kernel, worker), api=True)
        self._app.mount(UI, pages)
        self._server = server_of(self._app, grace_seconds)

    def run(self, parent: Connection, order: Order) -> None:
        """Serve until *parent* says stop, or is gone."""
        usable = self._worker is not None
        self._site.broken = order.problem and _shown(order.problem, usable=usable)
        threading.Thread(target=self._obey, args=[parent], daemon=True).start()
        signal_(SIGTERM, lambda *_: threading.Thread(target=self._stop).start())
        working = threading.Thread(target=self._work, name="automate-worker", daemon=True)
        working.start()
        for ended in (signals.workflow_completed, signals.workflow_failed):
            ended.connect(_show_end, sender=self._kernel)
        for change in _CHANGES:
            change.connect(self._changed, sender=self._kernel)
        if order.first:
            name, payload = FIRST_EVENT
            self._kernel.emit(name, payload, source="automate dev")
        self._server.run(sockets=[self._listening])
        if not self._app.stopping:
            self._stop()  # it could not even start
        while working.is_alive():
            working.join(LOOK_SECONDS)
        if self._worker is not None and self._worker.in_flight:
            # Running steps were handed back. Their threads would keep this process from ending.
            logging.shutdown()
            os._exit(0)

    def _changed(self, sender: Any, **more: Any) -> None:
        self._live.forget()  # the worker is here, so nobody has to wait for the next look

    def _work(self) -> None:
        if self._worker is not None:
            self._worker.run()

    def _obey(self, parent: Connection) -> None:
        while True:
            try:
                order: Order = parent.recv()
            except (EOFError, OSError):  # the parent is gone
                self._stop()
                return
            if order.word == "stop":
                self._stop()
            else:
                self._site.broken = _shown(order.problem, usable=self._worker is not None)
                self._live.forget()

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop(abandon=self._app.stopping)
        self._app.stopping = self._live.stopped = True
        self._server.should_exit = True


def _shown(problem: str, *, usable: bool) -> str:
    goes_on = (
        "The last state that could be loaded goes on." if usable else "Nothing runs meanwhile."
    )
    return f"{problem}\n\n{goes_on}"


def _show_end(sender: Any, execution: Execution, **more: Any) -> None:
    took, failed = seconds(execution.duration_seconds), execution.status is ExecutionStatus.FAILED
    why = redact_text(f": {execution.error_code}: {execution.error}") if failed else ""
    text = f"{execution.status.value} {execution.name} {execution.id[:8]} in {took}{why}"
    Output().line(text, "red" if failed else "dim")


def _name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "developer"


def _summary(kernel: Kernel) -> str:
    names = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
    return f"workflows {names}; {kernel.storage.describe()}"


def _kernel_for_looking(session: Session) -> Kernel:
    """Return a kernel that shows what is stored, though the project can't be loaded."""
    try:
        return session.plain
    except (Exception, SystemExit):
        return Kernel(discover=False)  # then there is only the problem to be shown


def _files_elsewhere() -> Iterator[str]:
    """Yield the files of loaded modules that are neither Python's nor installed."""
    installed = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not file.startswith(installed):
            yield file


def failure_text(error: BaseException, folder: Path) -> str:
    """Return *error* in words, with its place in the project's own code, if it comes from there."""
    root = error
    while (cause := root.__cause__) is not None:
        root = cause
    message, hint = getattr(error, "message", "") or str(error), getattr(error, "hint", None)
    place = _place(root, folder)
    if place is None:
        lines = [message or repr(error)]
    else:
        file, line, code = place
        said = root.msg if isinstance(root, SyntaxError) else getattr(root, "message", str(root))
        lines = [f"{file}:{line}: {type(root).__name__}{f': {said}' if said else ''}"]
        lines += [f"    {code}"] if code else []
        hint = getattr(root, "hint", None)
    if hint and isinstance(error, AutomateError):
        lines.append(f"hint: {hint}")
    return "\n".join(lines)


def _place(error: BaseException, folder: Path) -> tuple[str, int, str] | None:
    """Return file, line and code of the last place in *folder* that *error* has come through."""
    found = [
        (each.filename, each.lineno or 0) for each in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        found.append((error.filename, error.lineno or 0))
    for name, line in reversed(found):
        path = Path(name)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return str(path.relative_to(folder)), line, linecache.getline(name, line).strip()
    return None
