"""``automate executor``, which makes the calls of other hosts until it is stopped."""

from __future__ import annotations

import sys

from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.inputs import option
from automate_cli.output import log_to_stderr
from automate_kernel.base.errors import AutomateError, ConfigError, did_you_mean

app: Commands = Commands()


@app.called(
    "automate executor --queue gpu",
    "automate executor --queue gpu --slots 2 --health-port 8081 --metrics-port 8081",
)
def executor(
    context: Context,
    queue: str = option(..., "The executor of the settings whose tasks it takes."),
    slots: int = option(10, "Calls at once.", min=1),
    grace_seconds: float = option(30.0, "Seconds that a stop waits for running calls.", min=0),
    health_port: int | None = option(None, "The port for /healthz and /readyz.", min=0, max=65535),
    metrics_port: int | None = option(None, "The port for /metrics.", min=0, max=65535),
    probe_host: str = option("127.0.0.1", "The address of these ports."),
) -> None:
    """
    Make the calls that other hosts hand over, until it is stopped. It needs no database.

    The settings name the queue, as [executors.gpu] with its type and servers, and the plugins and
    secrets that the calls need. A task that this process can't perform is left to others. SIGTERM
    or Ctrl-C lets running calls finish; a second one leaves them to others and stops at once.
    """
    from automate_cli.executor_process import ExecutorProcess
    from automate_kernel.http.worker_ports import Ports
    from automate_kernel.monitoring.process import guarded_process
    from automate_kernel.secrets import RedactingFilter

    settings = context.session.settings
    level = "debug" if context.debug else str(settings["log_level"])
    kernel = context.session.in_memory(workflows=False)
    known = kernel.executors.placements
    if queue not in known:
        near = did_you_mean(queue, known, also=f"there are: {', '.join(known) or 'none'}")
        raise ConfigError(
            f"the settings have no executor {queue!r}",
            hint=f'{near}; write [executors.{queue}] with type = "nats" and servers',
        )
    log_to_stderr(level, [RedactingFilter(kernel.redactor)], format=settings["log_format"])
    process = ExecutorProcess(kernel, known[queue], slots=slots, grace_seconds=grace_seconds)
    context.out.line(f"executor {process.name}: queue {queue}, {slots} calls at once")
    sys.stdout.flush()
    with guarded_process():
        try:
            process.run(Ports(health_port, metrics_port, probe_host))
        except AutomateError as error:
            raise WorkFailedError(message=str(error)) from error
