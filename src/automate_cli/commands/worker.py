"""``automate worker`` and ``automate serve``, which run until they are stopped."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, ClassVar

from automate_cli.command import Commands, Context, TextCommand, WorkFailedError, setting_of
from automate_cli.inputs import flag, option
from automate_cli.output import log_to_stderr
from automate_cli.session import require_shared
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.storage.shortage import TooManyConnectionsError

app: Commands = Commands()


def _options(
    host: str | None = option(None, "The address to listen on."),
    port: int | None = option(None, "The port; 0 takes a free one.", max=65535),
    api: bool | None = option(None, "Answer the API for clients below /api too.", "--api"),
    processes: int | None = option(None, "Worker processes.", min=0),
    slots: int | None = option(None, "Calls at once in a process.", min=1),
    grace_seconds: float | None = option(
        None, "Seconds that a stop waits for running calls.", min=0
    ),
    lease_seconds: float | None = option(
        None, "Seconds after which another worker takes over from a dead one.", min=0.5
    ),
    kinds: list[str] | None = option(
        None, "Work on this kind only: mail.send, or mail.*.", "--kind", metavar="KIND"
    ),
    exclude_kinds: list[str] | None = option(
        None, "Leave this kind to other workers.", "--exclude-kind", metavar="KIND"
    ),
    until_idle: bool = flag("--until-idle", "Run due items and what follows them; then stop."),
    health_port: int | None = option(None, "The port for /healthz and /readyz.", min=0, max=65535),
    metrics_port: int | None = option(None, "The port for /metrics.", min=0, max=65535),
    probe_host: str | None = option(None, "The address of these ports: 127.0.0.1."),
    log_format: str | None = option(None, "text, or json: a document a line."),
    ui: bool | None = option(None, "Show the operators' pages, to who logs in.", "--ui"),
) -> None: ...


class _ServeCommand(TextCommand):
    shared = staticmethod(_options)
    without: ClassVar[tuple[str, ...]] = ("until_idle",)


class _WorkerCommand(_ServeCommand):
    without = ("host", "port", "api", "ui")


@app.called(
    "automate worker",
    "automate worker --processes 4 --slots 20",
    "automate worker --kind 'mail.*' --kind sms.send",
    "automate worker --until-idle   # in a cron job, or a test",
    "automate worker --log-format json --health-port 8081 --metrics-port 9100",
    cls=_WorkerCommand,
)
def worker(context: Context) -> None:
    """
    Run workflows and other outbox items until it is stopped.

    SIGTERM or Ctrl-C lets running calls finish; a second one hands them back and stops at once.
    With several processes, one that dies is started again. --kind and --exclude-kind may be
    repeated. They dedicate it to a part of the work; the rest needs other workers.

    The health port answers GET /healthz and /readyz for an orchestrator, the metrics port /metrics
    for Prometheus; both may be one port.
    """
    _set_flags(context)
    settings, until_idle = context.session.settings, context.given["until_idle"]
    number, level = settings["worker.processes"], _level(context)
    from automate_cli.worker_process import ports_of, work, work_here
    from automate_kernel.http.worker_ports import supervise_observed
    from automate_kernel.monitoring.process import guarded_process

    session, kernel = context.session, _ready_kernel(context)
    _show_start(context, kernel)
    if number == 1 and not until_idle:
        work_here(session, level, ports_of(session))
        return
    log_to_stderr(level, format=settings["log_format"])
    with guarded_process():
        if until_idle:
            stats = kernel.run_until_idle(**_kinds(context))
            context.out.line(
                f"{stats.completed} completed, {stats.retried} to retry, {stats.failed} failed"
            )
        else:
            options = {"session": session.arguments(), "level": level}
            _require_none(supervise_observed(kernel, number, work, options, ports_of(session)))


@app.called(
    "automate serve",
    "automate serve --host 0.0.0.0 --port 9000 --processes 2",
    "automate serve --processes 0   # only receive; workers run elsewhere",
    "automate serve --api   # and automate tokens new monitor --role viewer",
    "AUTOMATE_SERVE_EVENTS_TOKEN=… automate serve",
    "automate serve --ui   # operators' pages; make a log-in first: automate tokens new",
    cls=_ServeCommand,
)
def serve(context: Context) -> None:
    """
    Receive webhooks over HTTP, and run workers beside it.

    POST /webhooks/CONNECTOR/TRIGGER takes a signed webhook. POST /events takes an event from a
    client that sends serve.events_token as a bearer token, or signs it with serve.events_secrets,
    as another host's relay http does; else nobody can. /operations calls those that
    serve.operations names, for clients with serve.operations_token. /approvals
    answers the links of approvals, if there are signing_keys. With --api clients list, start and
    steer below /api, by the tokens that automate tokens new makes; GET /api/schema describes it as
    OpenAPI. With --ui the operators' pages are at /ui, for people who log in: with such a token, by
    OpenID Connect (serve.oidc) or by a proxy (serve.header). GET /healthz and /readyz report the
    state of the receiver and its workers. Put a proxy that speaks TLS in front. It stops as worker
    does.

    The health port answers /healthz and /readyz too, for probes that don't reach the other port,
    and the metrics port /metrics.
    """
    _set_flags(context)
    from automate_cli.worker_process import ports_of
    from automate_kernel.http.worker_ports import answering
    from automate_kernel.monitoring.process import guarded_process
    from automate_kernel.secrets import RedactingFilter

    try:
        from automate_cli.serving import Receiver
    except ModuleNotFoundError as error:
        problem, hint = f"{error.name} is not installed", "pip install 'automate-kernel[cli]'"
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, problem, hint=hint) from None
    kernel, settings, level = _ready_kernel(context), context.session.settings, _level(context)
    listening = bind(settings["serve.host"], settings["serve.port"])
    log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=settings["log_format"])
    try:
        receiver = Receiver(context.session, level)
    except ModuleNotFoundError as error:  # of the pages
        problem, hint = f"{error.name} is not installed", "pip install 'automate-kernel[cli,pages]'"
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, problem, hint=hint) from None
    _show_start(context, kernel)
    address, bound = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    context.out.line(f"listening on http://{shown}:{bound}")
    with guarded_process(), answering(kernel, receiver.probe, ports_of(context.session)):
        failed = receiver.run(listening)
    _require_none(failed)


def _set_flags(context: Context) -> None:
    """Let options win over the settings, here and in the worker processes."""
    for name, value in context.given.items():
        setting = setting_of(context.info_name, name)
        if setting is not None and value not in (None, (), []):
            given = list(value) if setting.kind == "list" else value
            context.session.set_flag(setting.name, given)


def _kinds(context: Context) -> dict[str, Any]:
    settings = context.session.settings
    return {name: settings[f"worker.{name}"] for name in ("kinds", "exclude_kinds")}


def _ready_kernel(context: Context) -> Any:
    """Return the kernel, once workers can share its tables and know these kinds."""
    kernel = context.session.kernel
    require_shared(kernel)
    check = getattr(kernel.storage, "check_schema", None)
    if check is not None:
        with suppress(TooManyConnectionsError):  # workers wait for a place, and look again
            check().require()  # a database that is away is an error at the start, too
    kernel.worker(**_kinds(context))  # raises here, not in each process
    return kernel


def _level(context: Context) -> str:
    return "debug" if context.debug else str(context.session.settings["log_level"])


def _show_start(context: Context, kernel: Any) -> None:
    names = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
    context.out.line(f"{kernel.storage.describe()}; workflows: {names}")


def _require_none(failed: int) -> None:
    if failed:
        raise WorkFailedError(message=f"{failed} of the worker processes ended with an error")


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise `ConfigError`, with the cause, if it can't."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With its protocol named: else asyncio leaves TCP_NODELAY off accepted connections, and
        # each answer on a kept connection waits 40 ms for an acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # From here on a client that connects waits rather than being refused.
        listening.listen(2048)
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host}:{port}: {error.strerror or error}",
            hint="choose another --port, or 0 for a free one",
        ) from error
    return listening
