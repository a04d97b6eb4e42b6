"""``automate run``: one event through one workflow, now."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automate_kernel.cli.command import Context, command
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.cli.inputs import read_json
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow
    from automate_kernel.workflows.execution import Event, Execution

__all__ = ["add_to", "find_workflow", "is_path"]

_LOOK_SECONDS = 0.2


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "run",
        data=True,
        examples=(
            "automate run workflows/order-notify.yaml --event order.json",
            "automate run order-notify --event order.json --store",
            "echo '{\"total\": 120}' | automate run order-notify --event - --json",
        ),
    )(run)


def run(
    context: Context,
    workflow: Annotated[str, typer.Argument(help="A workflow's file, or its name.")],
    event: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The event's payload as JSON; - for stdin."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The event's name; by default what the trigger waits for.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header of a webhook; may be repeated."),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Keep it in the database, and run what else is due there."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run it even if the trigger's condition doesn't hold.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which to give up waiting.", min=0)
    ] = None,
) -> None:
    """
    Put one event through a workflow, and show what its steps do.

    Actions are really called. Unless it is to --store, nothing is kept, and no database is
    needed. Exits with 1 if the workflow fails.
    """
    payload = read_json(event) if event is not None else None
    kernel, found = _prepared(context, workflow, store=store)
    wanted = event_for(found, payload, name, _headers(header or []))
    if not force and not kernel.workflows.program(found.hash()).starts_on(wanted):
        raise WorkFailedError(
            ErrorCodes.FAILED_PRECONDITION,
            f"this event doesn't start {found.name!r}: no trigger's condition holds",
            hint="change the event, or add --force",
        )
    execution = _execute(context, kernel, found, wanted, timeout)
    _show(context, execution)
    if execution.status.value != "COMPLETED":
        raise typer.Exit(1)


def _headers(given: list[str]) -> dict[str, str]:
    """The headers as an event has them."""
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise ConfigError(f"--header {text!r} has no name", hint="write x-github-event=push")
        found[name.strip().lower()] = value.strip()
    return found


def _prepared(context: Context, workflow: str, *, store: bool) -> tuple[Kernel, Workflow]:
    from automate_kernel.storage import MemoryStorage

    session = context.session
    from_file = is_path(workflow)
    kernel = session.build(None if store else MemoryStorage(), workflows=store or not from_file)
    if not store and not isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            f"app is a kernel that keeps what it does in {kernel.storage.describe()}",
            hint="add --store if that is meant, or let app be a function of the kernel",
        )
    return kernel, find_workflow(kernel, workflow)


def is_path(workflow: str) -> bool:
    """Whether it is meant as a file rather than as a name."""
    path = Path(workflow)
    return path.suffix.lower() in (".yaml", ".yml", ".json", ".py") or path.exists()


def find_workflow(kernel: Kernel, workflow: str) -> Workflow:
    """The workflow in a file, or with that name. Raises an `AutomateError` if there is none."""
    if not is_path(workflow):
        return kernel.workflows[workflow]
    found = kernel.add_workflow(workflow)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ConfigError(
            f"{workflow} holds {len(found)} workflows", hint=f"name one of them: {names}"
        )
    return found[0]


def event_for(
    workflow: Workflow, payload: Any, name: str | None, headers: Mapping[str, str] | None = None
) -> Event:
    """An event with *payload* as the workflow's first trigger expects it."""
    from automate_kernel.outbox.ids import new_id
    from automate_kernel.workflows.definition.model import EventTrigger, WebhookTrigger
    from automate_kernel.workflows.execution import Event, EventType

    kind: EventType = "manual"
    source, usual = "cli", workflow.name
    for trigger in workflow.triggers:
        if isinstance(trigger, EventTrigger):
            kind, usual = "event", trigger.event
        elif isinstance(trigger, WebhookTrigger):
            kind, source = "webhook", trigger.connector
            usual = f"{trigger.connector}.{trigger.trigger}"
        else:
            kind = trigger.type
            if payload is None and kind == "schedule":
                payload = getattr(trigger, "payload", None)
        break
    return Event(
        id=new_id(),
        name=name or usual,
        payload=payload,
        type=kind,
        source=source,
        occurred_at=datetime.now(timezone.utc).isoformat(),
        headers=dict(headers or {}),
    )


def _execute(
    context: Context, kernel: Kernel, workflow: Workflow, event: Event, timeout: float | None
) -> Execution:
    from automate_kernel.cli.progress import Progress

    with Progress(kernel, context.out) as progress:
        progress.execution_id = kernel.start(workflow.name, event=event)
        worker = kernel.worker(poll_seconds=_LOOK_SECONDS)
        thread = threading.Thread(target=worker.run, name="automate-worker", daemon=True)
        thread.start()
        ended = False
        try:
            execution = _awaited(kernel, progress, timeout)
            ended = execution.status.finished
        finally:
            # Of an execution that goes on, the lease is handed back: another worker takes it on.
            worker.stop(abandon=not ended)
            thread.join(10)
    if not ended:
        raise WorkFailedError(
            ErrorCodes.DEADLINE_EXCEEDED, f"it has not ended within {timeout:g} seconds"
        )
    return execution


def _awaited(kernel: Kernel, progress: Any, timeout: float | None) -> Execution:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        # Another worker may run it where it is stored, whose signals don't get here.
        progress.ended.wait(_LOOK_SECONDS)
        execution = kernel.executions.get(progress.execution_id)
        if execution is None:
            raise AutomateError(ErrorCodes.DATA_LOSS, f"{progress.execution_id} is gone")
        over = deadline is not None and time.monotonic() >= deadline
        if execution.status.finished or over:
            return execution


def _show(context: Context, execution: Execution) -> None:
    from automate_kernel.cli.output import as_json, seconds
    from automate_kernel.cli.views import execution_data, show_steps

    out = context.out
    data = execution_data(execution)
    out.data(data)
    out.line()
    show_steps(out, execution.steps)
    took = seconds(execution.duration_seconds)
    style = "green" if execution.status.value == "COMPLETED" else "red"
    out.line(f"{execution.name} {execution.status.value} in {took}", style)
    if execution.error:
        out.line(f"{execution.error_code}: {execution.error}", "red")
    if execution.output is not None:
        out.line(as_json(data["output"]))
