"""``automate run`` and ``automate emit``: events, for one workflow now or for all of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from automate_cli import records
from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.command_input import duration_input, json_input, label_input, payload_input
from automate_cli.inputs import argument, flag, option
from automate_cli.output import Output, as_json, counted, seconds
from automate_cli.records import step_name
from automate_cli.session import require_shared
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.storage import MemoryStorage

if TYPE_CHECKING:
    from typing_extensions import Self

    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow
    from automate_kernel.workflows.execution import Execution, StepRun

app: Commands = Commands()
_LOOK_SECONDS = 0.2
_LABELS = option(None, "A key to find it by; may be repeated.", metavar="NAME=VALUE")


@app.called(
    "automate run workflows/order-notify.yaml --event order.json",
    "automate run order-notify --event order.json --store",
    "echo '{\"total\": 120}' | automate run order-notify --event - --json",
)
def run(
    context: Context,
    workflow: str = argument("A workflow's file, or its name."),
    event: str | None = option(None, "The event's payload as JSON; - for stdin.", metavar="FILE"),
    name: str | None = option(None, "The event's name; by default what the trigger waits for."),
    header: list[str] | None = option(
        None, "A header of a webhook; may be repeated.", metavar="NAME=VALUE"
    ),
    store: bool = flag("--store", "Keep it in the database, and run what else is due there."),
    force: bool = flag("--force", "Run it even if the trigger's condition doesn't hold."),
    timeout: float | None = option(None, "Seconds after which to give up waiting.", min=0),
    label: list[str] | None = _LABELS,
) -> None:
    """
    Put one event through a workflow, and show its steps as they run.

    Actions are really called. Without --store nothing is kept, and no database is needed. With it,
    what else has begun by the workflow's end is waited for, as by a worker; Ctrl-C hands that back.
    Exits with 1 if the workflow fails.
    """
    from automate_kernel.workflows.store.events import triggering_event

    payload = json_input(event) if event is not None else None
    kernel, found = _prepared(context, workflow, store=store)
    labels = label_input(label or ())
    wanted = triggering_event(
        found, payload, name=name, source="cli", headers=_headers(header or [])
    )
    if not force and not kernel.workflows.program(found.hash()).starts_on(wanted):
        raise WorkFailedError(
            message=f"this event doesn't start {found.name!r}: no trigger's condition holds",
            hint="change the event, or add --force",
        )
    with Progress(kernel, context.out) as progress:
        progress.execution_id = kernel.start(found.name, event=wanted, labels=labels)
        with kernel.executing_here(progress.execution_id):
            execution = _executed(kernel, progress, timeout)
    _show(context, execution)
    if execution.status.value != "COMPLETED":
        raise typer.Exit(1)


def _headers(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise ConfigError(f"--header {text!r} has no name", hint="write x-github-event=push")
        found[name.strip().lower()] = value.strip()
    return found


def _prepared(context: Context, workflow: str, *, store: bool) -> tuple[Kernel, Workflow]:
    session, from_file = context.session, is_path(workflow)
    build = session.build if store else session.in_memory
    kernel = build(workflows=store or not from_file)
    if not store and not isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            f"app is a kernel that keeps what it does in {kernel.storage.describe()}",
            hint="add --store if that is meant, or let app be a function of the kernel",
        )
    return kernel, find_workflow(kernel, workflow)


def is_path(workflow: str) -> bool:
    """Return True if *workflow* is a file rather than a name."""
    path = Path(workflow)
    return path.suffix.lower() in (".yaml", ".yml", ".json", ".py") or path.exists()


def find_workflow(kernel: Kernel, workflow: str) -> Workflow:
    """Return the workflow in a file, or with that name; raises `AutomateError` without one."""
    if not is_path(workflow):
        return kernel.workflows[workflow]
    found = kernel.add_workflow(workflow)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ConfigError(
            f"{workflow} holds {len(found)} workflows", hint=f"name one of them: {names}"
        )
    return found[0]


def _executed(kernel: Kernel, progress: Progress, timeout: float | None) -> Execution:
    from automate_kernel.worker.worker import Flag

    # Ctrl-C ends the wait for it, also if it comes right before that.
    worker, over = kernel.worker(poll_seconds=_LOOK_SECONDS), Flag()

    def work() -> None:
        try:
            worker.run()
        finally:
            over.set()

    threading.Thread(target=work, name="automate-worker", daemon=True).start()
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    ended = False
    try:
        while True:
            # Another worker may run it where it is stored, whose signals don't get here.
            progress.ended.wait(_LOOK_SECONDS)
            execution = kernel.executions.get(str(progress.execution_id))
            if execution is None:
                raise AutomateError(ErrorCodes.DATA_LOSS, f"{progress.execution_id} is gone")
            ended = execution.status.finished
            if ended or time.monotonic() >= deadline:
                break
    finally:
        # The lease of an execution that goes on is handed back: another worker takes it on. What
        # else is due there and has begun has the time that a worker gives it.
        worker.stop(abandon=not ended)
        try:
            if ended and not over.wait(_LOOK_SECONDS):
                running = kernel.outbox.find(status=ItemStatus.RUNNING, limit=1000)
                # Its own end is stored with the execution's.
                progress.waits_for(sum(one.lease_owner == worker.worker_id for one in running))
            over.wait()
        except KeyboardInterrupt:
            worker.stop(abandon=True)
            over.wait()
            if not ended:
                raise
    if not ended:
        raise WorkFailedError(
            ErrorCodes.DEADLINE_EXCEEDED, f"it has not ended within {timeout:g} seconds"
        )
    return execution


def _show(context: Context, execution: Execution) -> None:
    out, data = context.out, records.execution_data(execution)
    out.data(data)
    out.line()
    records.show_steps(out, execution.steps)
    took = seconds(execution.duration_seconds)
    style = "green" if execution.status.value == "COMPLETED" else "red"
    out.line(f"{execution.name} {execution.status.value} in {took}", style)
    if execution.error:
        out.line(f"{execution.error_code}: {execution.error}", "red")
    if execution.output is not None:
        out.line(as_json(data["output"]))


class Progress:
    """
    Prints a line for each start and end of a step of one execution.

    `ended` is set when the execution ends. The signals come from the worker's threads.
    """

    def __init__(self, kernel: Any, out: Output) -> None:
        self.ended: threading.Event = threading.Event()
        self.execution_id: str | None = None
        self._kernel, self._out = kernel, out
        self._begun: dict[tuple[str, int], float] = {}
        self._receivers = [
            (signals.step_started, self._own(self._started)),
            (signals.step_completed, self._own(self._completed)),
            (signals.step_failed, self._own(self._failed)),
            (signals.workflow_completed, self._own(self._over)),
            (signals.workflow_failed, self._own(self._over)),
        ]

    def __enter__(self) -> Self:
        for signal, receiver in self._receivers:
            signal.connect(receiver, sender=self._kernel)
        return self

    def __exit__(self, *exc: object) -> None:
        for signal, receiver in self._receivers:
            signal.disconnect(receiver, sender=self._kernel)

    def waits_for(self, others: int) -> None:
        """Say how many *others* are waited for, though the execution has ended."""
        if others:
            begun = f"what else has begun, {counted(others)}"
            self._out.note(f"waiting for {begun}; Ctrl-C hands it back")

    def _own(self, show: Callable[..., None]) -> Callable[..., None]:
        def receive(sender: Any, execution: Execution, **more: Any) -> None:
            if self.execution_id in (None, execution.id):
                show(**more)

        return receive

    def _started(self, step: StepRun, **more: Any) -> None:
        self._begun.setdefault((step.step_id, step.position), time.monotonic())
        if step.attempts > 1:
            why = f" after {step.error_code}: {step.error}" if step.error else ""
            self._out.line(f"↻ {step_name(step)}  attempt {step.attempts}{why}", "yellow")
        else:
            self._out.line(f"▶ {step_name(step)}", "cyan")

    def _completed(self, step: StepRun, **more: Any) -> None:
        self._out.line(f"✓ {step_name(step)}  {self._took(step)}", "green")

    def _failed(self, step: StepRun, error: Any, **more: Any) -> None:
        self._out.line(f"✗ {step_name(step)}  {self._took(step)}  {error.code}: {error}", "red")

    def _over(self, **more: Any) -> None:
        self.ended.set()

    def _took(self, step: StepRun) -> str:
        begun = self._begun.get((step.step_id, step.position))
        return seconds(time.monotonic() - begun) if begun is not None else ""


@app.called(
    'automate emit order.created \'{"id": 7, "total": 120}\'',
    "automate emit order.created @order.json --idempotency-key order-7 --label order=7",
    "jq .order dump.json | automate emit order.created -",
)
def emit(
    context: Context,
    name: str = argument("The event's name: order.created."),
    given: str | None = argument(
        "The payload as JSON; @FILE for a file with it, - for stdin.", None, metavar="[PAYLOAD]"
    ),
    payload: str | None = option(None, "The payload as JSON."),
    file: str | None = option(None, "A file with it as JSON; - for stdin."),
    delay: str = option("0", "The time before it counts: 90, 5m, 2h.", metavar="DURATION"),
    priority: int = option(0, "A point is worth an hour of waiting."),
    idempotency_key: str | None = option(
        None, "A second event with the same key is the first one."
    ),
    tenant: str | None = option(None, "The tenant that it belongs to."),
    source: str | None = option(None, "The sender of the event."),
    label: list[str] | None = _LABELS,
) -> None:
    """
    Accept an event: workers start the workflows that wait for it.

    Prints the event's id.
    """
    content = payload_input(given, payload, file)
    kernel = context.session.storing
    require_shared(kernel)
    event_id = kernel.emit(
        name,
        content,
        source="cli" if source is None else source,
        delay=duration_input(delay, "--delay"),
        priority=priority,
        idempotency_key=idempotency_key,
        tenant_id=tenant,
        labels=label_input(label or ()),
    )
    context.out.data({"id": event_id, "name": name})
    context.out.line(event_id)


@app.called(
    "automate start order-notify '{\"id\": 7}'",
    "automate start report @month.json --idempotency-key report-2026-03 --delay 2h",
)
def start(
    context: Context,
    workflow: str = argument("The workflow's name."),
    given: str | None = argument(
        "The payload as JSON; @FILE for a file with it, - for stdin.", None, metavar="[PAYLOAD]"
    ),
    idempotency_key: str | None = option(
        None, "A second start with the same key is the first one."
    ),
    priority: int = option(0, "A point is worth an hour of waiting."),
    delay: str = option("0", "The time before it begins: 90, 5m, 2h.", metavar="DURATION"),
    tenant: str | None = option(None, "The tenant that it belongs to."),
    label: list[str] | None = _LABELS,
) -> None:
    """
    Begin an execution of a workflow, whatever its triggers. A worker runs it.

    Prints the execution's id.
    """
    execution_id = context.session.whole.start(
        workflow,
        payload_input(given),
        idempotency_key=idempotency_key,
        priority=priority,
        delay=duration_input(delay, "--delay"),
        tenant_id=tenant,
        labels=label_input(label or ()),
    )
    context.out.data({"execution_id": execution_id, "workflow": workflow})
    context.out.line(execution_id)
