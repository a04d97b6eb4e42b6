"""``automate run`` and ``automate emit``: events, for one workflow now or for all of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from automate_cli import inputs, records
from automate_cli.command import Commands, Context, DataCommand, WorkFailedError
from automate_cli.command_input import duration_input, json_input, label_input, payload_input
from automate_cli.inputs import argument, flag, option
from automate_cli.output import Output, as_json, counted, seconds
from automate_cli.records import step_name
from automate_cli.session import require_shared
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.secrets.redaction import redact_shown
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.statuses import ExecutionStatus

if TYPE_CHECKING:
    from typing_extensions import Self

    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow
    from automate_kernel.workflows.execution import Execution, StepRun

app: Commands = Commands()
_LOOK_SECONDS = 0.2
_LABELS = option(None, "A key to find it by; may be repeated.", metavar="NAME=VALUE")


def _how(
    dry_run: bool = flag(
        "--dry-run",
        "Render every call that the workflow would make, and make none. Secrets are not read, and"
        " nothing is stored.",
    ),
    output: list[str] | None = option(
        None, "With --dry-run: the output of a step; may be repeated.", metavar="STEP=JSON"
    ),
    detach: bool = flag(
        "--detach", "Only begin an execution, whatever the triggers; a worker runs it."
    ),
    idempotency_key: str | None = option(
        None, "With --detach: a second start with the same key changes nothing."
    ),
    priority: int = option(0, "With --detach: a point is worth an hour of waiting."),
    delay: str = option(
        "0", "With --detach: the time before it begins: 90, 5m, 2h.", metavar="DURATION"
    ),
    tenant: str | None = option(None, "With --detach: the tenant that it belongs to."),
) -> None: ...


class _RunCommand(DataCommand):
    shared = staticmethod(_how)


@app.called(
    "automate run workflows/order-notify.yaml --event order.json",
    "automate run order-notify --event order.json --store",
    "automate run order.yaml --dry-run --payload '{\"total\": 120}'",
    "automate run order.yaml --dry-run --output 'price={\"total\": 9}' --json",
    "automate run report --detach --event month.json --idempotency-key report-2026-03 --delay 2h",
    "echo '{\"total\": 120}' | automate run order-notify --event - --json",
    cls=_RunCommand,
)
def run(
    context: Context,
    workflow: str = argument("A workflow's file, or its name."),
    event: str | None = option(
        None, "A file with the event's payload as JSON; - for stdin.", metavar="FILE"
    ),
    payload: str | None = option(None, "The event's payload as JSON."),
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
    Exits with 1 if the workflow fails. With --detach it prints the execution's id.
    """
    from automate_kernel.workflows.store.events import triggering_event

    content = _content(payload, event)
    if _done_otherwise(
        context, workflow, content, label,
        header=header, store=store, force=force, timeout=timeout, name=name,
    ):  # fmt: skip
        return
    kernel, found = _prepared(context, workflow, store=store)
    labels = label_input(label or ())
    wanted = triggering_event(
        found, content, name=name, source="cli", headers=_headers(header or [])
    )
    if not force and not kernel.workflows.program(found.hash()).starts_on(wanted):
        raise WorkFailedError(
            message=f"this event doesn't start {found.name!r}: no trigger's condition holds",
            hint="change the event, or add --force",
        )
    execution = _run_here(context, kernel, found.name, wanted, timeout, labels)
    _show(context, execution)
    if execution.status is not ExecutionStatus.COMPLETED:
        raise typer.Exit(1)


def _content(payload: str | None, file: str | None) -> Any:
    if payload is not None and file is not None:
        raise ConfigError("give the payload once: with --payload or with --event")
    if payload is not None:
        return json_input(payload, "--payload")
    return None if file is None else json_input(file)


def _done_otherwise(
    context: Context, workflow: str, content: Any, label: list[str] | None, **here: Any
) -> bool:
    """Return True if the options ask for a dry run or for a start alone, once that is done."""
    given = context.given
    started = {name: given[name] for name in ("idempotency_key", "priority", "tenant")}
    delay = duration_input(given["delay"], "--delay")
    if given["detach"]:
        inputs.alone("--detach", **here, dry_run=given["dry_run"], output=given["output"])
        _start(context, workflow, content, label, {**started, "delay": delay})
    elif any(started.values()) or delay:
        raise ConfigError("--idempotency-key, --priority, --delay and --tenant are for --detach")
    elif given["dry_run"]:
        inputs.alone("--dry-run", **here, label=label)
        _run_dry(context, workflow, content, given["output"] or ())
    elif given["output"]:
        raise ConfigError("--output is for --dry-run")
    return bool(given["detach"] or given["dry_run"])


def _start(
    context: Context,
    workflow: str,
    payload: Any,
    label: list[str] | None,
    options: dict[str, Any],
) -> None:
    tenant, labels = options.pop("tenant"), label_input(label or ())
    kernel = context.session.whole
    execution_id = kernel.start(workflow, payload, tenant_id=tenant, labels=labels, **options)
    context.out.data({"execution_id": execution_id, "workflow": workflow})
    context.out.line(execution_id)


def _run_dry(context: Context, workflow: str, payload: Any, outputs: Iterable[str]) -> None:
    """Show the calls. An output that isn't given is an example by the schema, or marked."""
    kernel = context.session.in_memory(workflows=not is_path(workflow))
    found = find_workflow(kernel, workflow)
    dry = kernel.dry_run(found.name, payload, outputs=_outputs(outputs))
    context.out.data(redact_shown(dry.to_json()))
    records.show_dry_run(context.out, dry)
    if dry.problems:
        raise typer.Exit(1)


def _outputs(given: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--output {text[:40]!r} has no value", hint="write step=JSON")
        found[name] = json_input(value, f"--output {name}")
    return found


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
    """Return the workflow in a file, or with that name; raises `AutomateError` without a match."""
    if not is_path(workflow):
        return kernel.workflows[workflow]
    found = kernel.add_workflow(workflow)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ConfigError(
            f"{workflow} holds {len(found)} workflows", hint=f"name one of them: {names}"
        )
    return found[0]


def _run_here(
    context: Context,
    kernel: Kernel,
    workflow: str,
    event: Any,
    timeout: float | None,
    labels: dict[str, str] | None,
) -> Execution:
    with Progress(kernel, context.out) as progress:
        progress.execution_id = kernel.start(workflow, event=event, labels=labels)
        with kernel.executing_here(progress.execution_id):
            return _executed(kernel, progress, timeout)


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
    style = "green" if execution.status is ExecutionStatus.COMPLETED else "red"
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
    payload: str | None = argument(
        "The payload as JSON; @FILE for a file with it, - for stdin.", None, metavar="[PAYLOAD]"
    ),
    delay: str = option("0", "The time before it counts: 90, 5m, 2h.", metavar="DURATION"),
    priority: int = option(0, "A point is worth an hour of waiting."),
    idempotency_key: str | None = option(None, "A second event with the same key changes nothing."),
    tenant: str | None = option(None, "The tenant that it belongs to."),
    source: str | None = option(None, "The sender of the event."),
    label: list[str] | None = _LABELS,
) -> None:
    """
    Accept an event: workers start the workflows that wait for it.

    Prints the event's id.
    """
    content = payload_input(payload)
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
