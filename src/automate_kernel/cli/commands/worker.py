"""``automate worker`` and ``automate serve``: what runs until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from automate_kernel.cli.command import Context, command
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.cli.logs import log_to_stderr
from automate_kernel.errors import ConfigError

__all__ = ["add_to"]

_BACKLOG = 2048

_Host = Annotated[str | None, typer.Option(help="The address to listen on.")]
_Port = Annotated[int | None, typer.Option(help="The port; 0 takes a free one.", max=65535)]
_Processes = Annotated[int | None, typer.Option(help="Worker processes.", min=0)]
_Slots = Annotated[int | None, typer.Option(help="Calls at once in a process.", min=1)]
_Grace = Annotated[float | None, typer.Option(help="How long a stop waits for what runs.", min=0)]
_Lease = Annotated[
    float | None,
    typer.Option(help="After how long another worker takes over from a dead one.", min=0.5),
]
_UntilIdle = Annotated[
    bool, typer.Option("--until-idle", help="Run what is due, and what follows; then stop.")
]
_HealthPort = Annotated[
    int | None, typer.Option(help="Where to answer /healthz and /readyz.", min=0, max=65535)
]
_MetricsPort = Annotated[
    int | None, typer.Option(help="Where to answer /metrics.", min=0, max=65535)
]
_Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="Work on this kind only: mail.send, or mail.*."),
]
_ExcludeKinds = Annotated[
    list[str] | None,
    typer.Option("--exclude-kind", metavar="KIND", help="Leave this kind to other workers."),
]
_ProbeHost = Annotated[str | None, typer.Option(help="The address of these ports: 127.0.0.1.")]
_LogFormat = Annotated[str | None, typer.Option(help="text, or json: a document a line.")]


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    command(
        app,
        "worker",
        examples=(
            "automate worker",
            "automate worker --processes 4 --slots 20",
            "automate worker --kind 'mail.*' --kind sms.send",
            "automate worker --until-idle   # in a cron job, or a test",
            "automate worker --log-format json --health-port 8081 --metrics-port 9100",
        ),
    )(worker)
    command(
        app,
        "serve",
        examples=(
            "automate serve",
            "automate serve --host 0.0.0.0 --port 9000 --processes 2",
            "automate serve --processes 0   # only receive; workers run elsewhere",
            "AUTOMATE_SERVE_EVENTS_TOKEN=… automate serve",
        ),
    )(serve)


def worker(
    context: Context,
    processes: _Processes = None,
    slots: _Slots = None,
    grace_seconds: _Grace = None,
    lease_seconds: _Lease = None,
    kind: _Kinds = None,
    exclude_kind: _ExcludeKinds = None,
    until_idle: _UntilIdle = False,
    health_port: _HealthPort = None,
    metrics_port: _MetricsPort = None,
    probe_host: _ProbeHost = None,
    log_format: _LogFormat = None,
) -> None:
    """
    Run workflows and other outbox items until it is stopped.

    SIGTERM or Ctrl-C lets it finish what runs; a second one hands back what runs and stops at
    once. With several processes, one that dies is started again. --kind and --exclude-kind may be
    repeated, and dedicate it to a part of the work; the rest needs other workers.

    GET /healthz and /readyz on the health port tell an orchestrator how it is, /metrics on the
    metrics port tells Prometheus of the outbox; both may be one port.
    """
    _set_all(
        context,
        {
            "worker.processes": processes,
            "worker.slots": slots,
            "worker.grace_seconds": grace_seconds,
            "worker.lease_seconds": lease_seconds,
            "worker.kinds": kind,
            "worker.exclude_kinds": exclude_kind,
            "worker.health_port": health_port,
            "worker.metrics_port": metrics_port,
            "worker.probe_host": probe_host,
            "log_format": log_format,
        },
    )
    settings = context.session.settings
    number, level = settings["worker.processes"], _level(context)
    if number < 1:
        raise ConfigError("--processes must be at least 1")
    from automate_kernel.cli.working import ports_of, work_here
    from automate_kernel.monitoring.process import guarded_process

    kernel = _ready_kernel(context)
    _say(context, kernel)
    if until_idle:
        log_to_stderr(level, format=settings["log_format"])
        with guarded_process():
            stats = kernel.run_until_idle(**_kinds(context))
        context.out.line(
            f"{stats.completed} completed, {stats.retried} to retry, {stats.failed} failed"
        )
    elif number == 1:
        work_here(context.session, level, ports_of(context.session))
    else:
        _supervise(context, number, level)


def _set_all(context: Context, flags: Mapping[str, Any]) -> None:
    """Let flags win over the settings, here and in the processes that are made of them."""
    for name, value in flags.items():
        if value is not None and value != []:
            context.session.set_flag(name, value)


def _kinds(context: Context) -> dict[str, Any]:
    section = context.session.settings.section("worker")
    return {name: section[name] for name in ("kinds", "exclude_kinds")}


def _ready_kernel(context: Context) -> Any:
    """The kernel, once it is sure that workers can share its tables and know these kinds."""
    from automate_kernel.cli.host import require_shared
    from automate_kernel.cli.working import require_tables

    kernel = context.session.kernel
    require_shared(kernel)
    require_tables(kernel)
    kernel.worker(**_kinds(context))  # told here, and not by each process
    return kernel


def _level(context: Context) -> str:
    return "debug" if context.debug else str(context.session.settings["log_level"])


def _say(context: Context, kernel: Any) -> None:
    names = ", ".join(sorted(workflow.name for workflow in kernel.workflows)) or "none"
    context.out.line(f"{kernel.storage.describe()}; workflows: {names}")


def _supervise(context: Context, number: int, level: str) -> None:
    from automate_kernel.cli.working import ports_of, work
    from automate_kernel.http.worker_ports import supervise_observed
    from automate_kernel.monitoring.process import guarded_process

    session = context.session
    log_to_stderr(level, format=session.settings["log_format"])
    options = {"session": session.arguments(), "level": level}
    with guarded_process():
        failed = supervise_observed(session.kernel, number, work, options, ports_of(session))
    if failed:
        raise WorkFailedError(message=f"{failed} of the worker processes ended with an error")


def serve(
    context: Context,
    host: _Host = None,
    port: _Port = None,
    processes: _Processes = None,
    slots: _Slots = None,
    grace_seconds: _Grace = None,
    lease_seconds: _Lease = None,
    kind: _Kinds = None,
    exclude_kind: _ExcludeKinds = None,
    health_port: _HealthPort = None,
    metrics_port: _MetricsPort = None,
    probe_host: _ProbeHost = None,
    log_format: _LogFormat = None,
) -> None:
    """
    Receive webhooks over HTTP, and run workers beside it.

    POST /webhooks/CONNECTOR/TRIGGER takes a signed webhook, POST /events an event from whoever
    sends serve.events_token as a bearer token (without one nobody can), GET /healthz and /readyz
    tell how it and its workers are. Put a proxy that speaks TLS in front. It stops as worker does.

    The health port answers /healthz and /readyz too, for probes that don't reach the other port,
    and the metrics port /metrics.
    """
    _set_all(
        context,
        {
            "serve.host": host,
            "serve.port": port,
            "serve.processes": processes,
            "worker.slots": slots,
            "worker.grace_seconds": grace_seconds,
            "worker.lease_seconds": lease_seconds,
            "worker.kinds": kind,
            "worker.exclude_kinds": exclude_kind,
            "worker.health_port": health_port,
            "worker.metrics_port": metrics_port,
            "worker.probe_host": probe_host,
            "log_format": log_format,
        },
    )
    from automate_kernel.cli.serving import Receiver
    from automate_kernel.cli.working import ports_of
    from automate_kernel.http.worker_ports import answering
    from automate_kernel.monitoring.process import guarded_process
    from automate_kernel.secrets import RedactingFilter

    kernel, settings, level = _ready_kernel(context), context.session.settings, _level(context)
    listening = _bind(settings["serve.host"], settings["serve.port"])
    log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=settings["log_format"])
    receiver = Receiver(context.session, level)
    _say(context, kernel)
    address, bound = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    context.out.line(f"listening on http://{shown}:{bound}")
    with guarded_process(), answering(kernel, receiver.probe, ports_of(context.session)):
        failed = receiver.run(listening)
    if failed:
        raise WorkFailedError(message=f"{failed} of the worker processes ended with an error")


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With its protocol named: else asyncio leaves TCP_NODELAY off what it accepts, and each
        # answer on a connection that is kept waits 40 ms for an acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # From here on whoever connects is kept waiting rather than refused.
        listening.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host}:{port}: {error.strerror or error}",
            hint="choose another --port, or 0 for a free one",
        ) from None
    listening.set_inheritable(False)
    return listening
