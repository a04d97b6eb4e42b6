"""``automate init`` and ``automate dev``: a project on this machine, while it is written."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from types import ModuleType

from automate_cli.command import Commands, Context
from automate_cli.commands.worker import bind
from automate_cli.inputs import argument, flag, option
from automate_cli.session import Session
from automate_cli.starter import has_project, make_project
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes

app: Commands = Commands()
_HOST = "127.0.0.1"
_GRACE_SECONDS = 3.0
_MORE_PORTS = 50


@app.called("automate init", "automate init shop")
def init(context: Context, folder: str = argument("The folder; by default this one.", ".")) -> None:
    """
    Make a small project: a workflow in YAML, a workflow in Python, a test case, the settings.

    It overwrites nothing. Go on with automate dev.
    """
    place = Path(folder)
    made = [str(place / name) for name in make_project(place)]
    for each in made:
        context.out.line(f"made {each}")
    context.out.data({"made": made})
    into = "" if place.resolve() == Path.cwd() else f"cd {folder} && "
    context.out.line(f"Look at it: {into}automate dev. Test it: {into}automate workflow test")


@app.called(
    "automate dev",
    "automate dev --app shop:kernel",
    "automate dev --database postgresql://user@host/name --port 9000 --no-open",
)
def dev(
    context: Context,
    app: str | None = option(None, "Your own code: module:kernel, module:function or a module."),
    port: int | None = option(None, "The port; 0 takes a free one.", min=0, max=65535),
    no_open: bool = flag("--no-open", "Open no browser."),
) -> None:
    """
    Run the project of this folder, and load it again whenever a file changes.

    A worker, the receiver of webhooks and events, and the operators' pages run on 127.0.0.1, on
    SQLite unless the settings say otherwise. Without a project it makes one, as automate init does,
    and starts a first run. Only this machine can reach it, and it asks nobody who they are: use
    automate serve --ui elsewhere.

    A change is loaded by a new process, once running steps have ended. They have 3 seconds, or
    worker.grace_seconds; then they are handed back, and run again. If the new files can't be
    loaded, the process before goes on, and the terminal and the pages show the error.
    """
    dev_server = _dev_server()
    session, given = context.session, Path.cwd()
    if app is not None:
        session.set_flag("app", app)
    new = not has_project(session.settings)
    if new:
        made = make_project(given)
        context.out.line(f"There was no project in {given}. Made {', '.join(made)}", "green")
        session = Session(session.file, session.flags)
    settings = session.settings
    listening = _bind(settings["serve.port"] if port is None else port)
    address = f"http://{_HOST}:{listening.getsockname()[1]}"
    url = f"{address}{dev_server.UI}/"
    context.out.line(f"pages     {url}", "bold")
    context.out.line(f"webhooks  {address}/webhooks/CONNECTOR/TRIGGER")
    context.out.line(f"project   {settings.file or settings.folder}")
    context.out.line("Change a file, and it is loaded again. Ctrl-C stops.\n")
    from automate_cli.file_poll import FilePoll
    from automate_cli.reloading import Reloader

    grace = _GRACE_SECONDS
    if settings.given("worker.grace_seconds"):
        grace = settings["worker.grace_seconds"]
    level = settings["log_level"] if settings.given("log_level") else "warning"
    options = {"session": session.arguments(), "level": "debug" if context.debug else level,
               "grace_seconds": grace, "listening": listening}  # fmt: skip
    if not no_open and _has_display():
        threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
    watch = FilePoll(settings.folder, session.workflow_paths())
    Reloader(
        dev_server.load_and_serve, options, watch, context.out.line, grace_seconds=grace, first=new
    ).run()
    context.out.line("stopped")


def _dev_server() -> ModuleType:
    try:
        from automate_cli import dev_server
    except ModuleNotFoundError as error:
        problem, hint = f"{error.name} is not installed", "pip install 'automate-kernel[dev]'"
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, problem, hint=hint) from None
    return dev_server


def _bind(port: int) -> socket.socket:
    try:
        return bind(_HOST, port)
    except ConfigError as error:
        if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
            raise
        for other in range(port + 1, min(port + _MORE_PORTS, 65536)):
            try:
                bind(_HOST, other).close()
            except ConfigError:
                continue
            raise ConfigError(
                f"port {port} is in use, perhaps by another automate dev",
                hint=f"take the next free port: automate dev --port {other}",
            ) from None
        raise


def _has_display() -> bool:
    """Return True if a person sits at this terminal, and a browser could be opened."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
