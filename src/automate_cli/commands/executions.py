"""``automate executions``: look at executions and steer them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from automate_cli import inputs, records
from automate_cli.command import Commands, Context, DataCommand, WorkFailedError
from automate_cli.command_input import duration_input, json_input
from automate_cli.inputs import LABEL, LIMIT, TENANT, argument, flag, option
from automate_cli.output import as_json, counted, seconds, time_of
from automate_kernel.base.errors import ConfigError, UnknownHereError
from automate_kernel.storage.statuses import ExecutionStatus, words

if TYPE_CHECKING:
    from datetime import datetime

    from automate_cli.output import Output
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.execution import Execution

app: Commands = Commands("executions", "Look at executions, signal, cancel and repair them.")

_ID = argument("The execution's id.", metavar="ID")
_IDS = argument("The executions' ids.", metavar="ID")
_WORKFLOW = option(None, "The workflow's name.")
_DEFINITION = option(
    None, "Go on with this definition: current, or a workflow's file.", metavar="current|FILE"
)
_ENDS = words(ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_STATS = (
    "WORKFLOW", *words(*(each for each in ExecutionStatus if not each.finished)),
    ExecutionStatus.FAILED.value, *(f"LATELY {word}" for word in _ENDS), "STEPS DONE", "RETRIED",
    "STEPS FAILED", "P50", "P95", "STEP P95",
)  # fmt: skip


@app.command("list", cls=DataCommand, hidden=True)
@app.called(
    "automate executions ls",
    "automate executions ls --status FAILED --workflow order-notify",
    "automate executions ls --label order=4711 --label region=eu",
    "automate executions ls --json | jq -r '.[].id'",
    "automate executions ls --by-error --workflow order-notify",
    "automate executions ls --by-workflow --within 15m",
)
def ls(
    context: Context,
    status: str | None = option(
        None, "PENDING, RUNNING, PAUSED, CANCELLING, COMPLETED, FAILED or CANCELLED."
    ),
    workflow: str | None = _WORKFLOW,
    tenant: str | None = TENANT,
    error: str | None = option(None, "Only with this group of error: KeyError in shop.charge."),
    label: list[str] | None = option(None, f"{LABEL.help} Again for one more: all must hold."),
    limit: int = LIMIT,
    by_error: bool = flag(
        "--by-error", "Group failed executions by workflow and by where their error came from."
    ),
    by_workflow: bool = flag(
        "--by-workflow",
        "Count by workflow: running, waiting and FAILED executions, and those that ended lately.",
    ),
    within: str | None = option(
        None, "Lately for --by-workflow; 1h by default, a week at most.", metavar="DURATION"
    ),
) -> None:
    """
    List executions, the newest first.

    The counts and durations of --by-workflow are the workers'.
    """
    chosen = {"status": status, "error": error, "label": label}
    if by_error:
        inputs.alone("--by-error", **chosen, within=within, by_workflow=by_workflow)
        _by_error(context, workflow, tenant, limit)
        return
    if by_workflow:
        inputs.alone("--by-workflow", **chosen, workflow=workflow, tenant=tenant)
        _by_workflow(context, within or "1h")
        return
    if within is not None:
        raise ConfigError("--within is for --by-workflow")
    wanted = inputs.one_of(status, ExecutionStatus, "--status")
    store = context.session.plain.executions
    given: dict[str, Any] = {"status": wanted, "workflow": workflow, "tenant_id": tenant}
    if not label:
        found = store.find(**given, error_group=error, limit=limit)
    else:
        page = store.page(labels=label, **given, error_group=error, limit=limit)
        each_whole = (store.get(each.id, large_outputs=False) for each in page.executions)
        found = [each for each in each_whole if each is not None]
    context.out.listing(found, records.EXECUTIONS, "no executions", records.execution_data)


def _by_error(context: Context, workflow: str | None, tenant: str | None, limit: int) -> None:
    store = context.session.plain.executions
    found = store.error_groups(workflow=workflow, tenant_id=tenant, limit=limit)
    records.list_groups(context.out, found, "WORKFLOW")


def _by_workflow(context: Context, within: str) -> None:
    from automate_kernel.monitoring.overview import STANDING
    from automate_kernel.outbox.statistics import total_by_kind
    from automate_kernel.workflows.store.statistics import ExecutionCounts

    store, age = context.session.plain.executions, duration_input(within, "--within")
    counts, recent = store.stats().counts, total_by_kind(store.activity(seconds=age))
    data, rows = {}, []
    for name in sorted({*counts, *recent}):
        of = counts.get(name, {})
        did = recent.get(name) or ExecutionCounts(context.session.plain.outbox.now(), name)
        standing = {status: of.get(status, 0) for status in STANDING}
        ended = {word: getattr(did, word) for word in map(str.lower, _ENDS)}
        steps = {each: getattr(did, f"steps_{each}") for each in ("completed", "retried", "failed")}
        took = {f"p{share:.0f}": did.run_percentile(share / 100) for share in (50, 95)}
        step_took = {f"p{share:.0f}": did.step_percentile(share / 100) for share in (50, 95)}
        data[name] = {
            "standing": standing, "started": did.started, "ended": ended, "took": took,
            "steps": steps, "step_took": step_took,
        }  # fmt: skip
        times = (took["p50"], took["p95"], step_took["p95"])
        rows.append(
            (name, *standing.values(), *ended.values(), *steps.values(), *map(seconds, times))
        )
    context.out.data({"within_seconds": age, "workflows": data})
    context.out.table(_STATS, rows, empty="there are no executions")


@app.called(
    "automate executions show 0193f0c2-…",
    "automate executions show ID --json",
    "automate executions show ID --output",
    "automate executions show ID --output --step count --position 3",
)
def show(
    context: Context,
    execution_id: str = _ID,
    output: bool = flag("--output", "Its output alone, as JSON, wherever it is kept."),
    step: str | None = option(None, "With --output: the output of this step."),
    position: int = option(-1, "With --step: the element of its for_each, from 0.", min=-1),
) -> None:
    """
    Show an execution: its event, its steps, its waits, its picture, and all attempts at its steps.

    A failed attempt is shown with the files and lines of its error, without values.
    """
    from automate_kernel.monitoring.waiting import why_execution_waits
    from automate_kernel.workflows.steer.attempts import step_attempts

    out, kernel = context.out, context.session.plain
    execution = found_execution(context, execution_id)
    if output:
        _show_output(context, execution, step, position)
        return
    if step is not None:
        raise ConfigError("--step is for --output")
    attempts = kernel.executions.failed_attempts(execution.id)
    failed = [records.attempt_data(each) for each in attempts]
    all_attempts = step_attempts(execution.steps, attempts)
    data = {
        **records.execution_data(execution),
        "waits": [records.wait_data(each) for each in kernel.executions.waits(execution.id)],
        "attempts": [records.step_attempt_data(each) for each in all_attempts],
        "failed_attempts": failed,
    }
    handover = kernel.executions.handover(execution)
    data["handed_over"] = None if handover is None else handover.to_json()
    reasons = why_execution_waits(kernel, execution)
    data["reasons"] = [each.to_json() for each in reasons]
    held = _held(kernel, execution)
    data["worker"] = held and {"id": held[0], "lease_expires_at": held[1]}
    out.data(data)
    if out.json:
        return
    _show_fields(out, execution, data, held)
    records.show_reasons(context, reasons)
    _show_picture(context, execution)
    records.show_steps(out, execution.steps)
    records.show_step_attempts(out, all_attempts)
    records.show_attempts(out, attempts)


def _show_fields(
    out: Output,
    execution: Execution,
    data: dict[str, Any],
    held: tuple[str, datetime | None] | None,
) -> None:
    error = f"{execution.error_code}: {execution.error}" if execution.error else None
    out.fields(
        (
            ("id", execution.id),
            ("workflow", execution.name),
            ("status", execution.status.value),
            ("worker", held and f"{held[0]}, until {time_of(held[1])} unless it goes on"),
            ("started", time_of(execution.created_at)),
            ("took", seconds(execution.duration_seconds)),
            ("error", error),
            ("group", execution.error_group),
            ("continues", execution.predecessor_id),
            ("continued as", execution.successor_id),
            ("labels", records.labels_text(execution.labels)),
            ("event", f"{execution.event.name} ({execution.event.type}, {execution.event.id})"),
            ("payload", as_json(data["event"]["payload"])),
            ("output", None if execution.output is None else as_json(data["output"])),
            ("output in store", execution.output_ref),
        )
    )


def _show_picture(context: Context, execution: Execution) -> None:
    from automate_kernel.workflows.definition.graph import to_text

    context.out.line()
    try:
        definition = context.session.plain.executions.definition(execution.definition_id)
    except UnknownHereError as error:
        context.out.line(f"no picture: this program {error}", "yellow")
    else:
        context.out.line(to_text(definition, records.statuses_of(execution)))


def _held(kernel: Kernel, execution: Execution) -> tuple[str, datetime | None] | None:
    """Return the worker that has an execution, and the end of its lease: it may be dead."""
    if execution.status.finished or execution.item_id is None:
        return None
    item = kernel.outbox.get(execution.item_id)
    if item is None or item.lease_owner is None:
        return None
    return item.lease_owner, item.lease_expires_at


def _show_output(
    context: Context, execution: Execution, step_id: str | None, position: int
) -> None:
    if step_id is not None and execution.step(step_id, position) is None:
        context.out.data({"output": None})
        raise WorkFailedError(
            message=f"it has no run of step {step_id!r} at {position}",
            hint=f"{context.named('executions show')} {execution.id} lists them",
        )
    value = context.session.plain.executions.output(execution.id, step_id, position)
    if context.out.json:
        context.out.data({"output": value})
    else:
        context.out.line(json.dumps(value, ensure_ascii=False))


def found_execution(context: Context, execution_id: str) -> Execution:
    """Return the execution with this id; raises ``NOT_FOUND``."""
    try:
        store = context.session.plain.executions
        found = store.get(str(UUID(execution_id)), large_outputs=False)
    except ValueError:
        found = None
    if found is None:
        raise context.missing(f"execution {execution_id!r}", "executions ls")
    return found


@app.called(
    "automate executions signal ID go",
    """automate executions signal ID approved --payload '{"by": "ann"}'""",
)
def signal(
    context: Context,
    execution_id: str = _ID,
    name: str = argument("The signal's name."),
    payload: str | None = option(None, "The payload as JSON."),
    tenant: str | None = TENANT,
) -> None:
    """
    Send a signal to an execution that waits for it, or soon will.

    A worker delivers it.
    """
    found = found_execution(context, execution_id)
    content = None if payload is None else json_input(payload, "--payload")
    signal_id = context.session.plain.signal(found.id, name, content, tenant_id=tenant)
    context.out.data({"id": signal_id, "execution_id": found.id, "name": name})
    context.out.line(f"signal {name} is on its way to {found.id}")


@app.called("automate executions cancel ID", "automate executions cancel ID --force")
def cancel(
    context: Context,
    execution_ids: list[str] = _IDS,
    tenant: str | None = TENANT,
    force: bool = flag("--force", "CANCELLED at once: nothing is undone or cleaned up."),
) -> None:
    """
    Cancel executions: nothing new begins, and an async step that runs is cancelled.

    If its workflow cleans up (compensate, on_cancel, finally), the execution is CANCELLING until
    that is done. A second cancel ends it at once.
    """
    _each(context, execution_ids, "cancel", "cancelled", tenant_id=tenant, force=force)


@app.called(
    "automate executions fork ID --step charge",
    """automate executions fork ID --step charge --payload '{"total": 90}'""",
    "automate executions fork ID --step charge --definition current",
)
def fork(
    context: Context,
    execution_id: str = _ID,
    step: str = option(..., "The first step that runs; those before are copied."),
    payload: str | None = option(None, "Another payload of the event, as JSON.", metavar="JSON"),
    definition: str | None = _DEFINITION,
) -> None:
    """Begin a copy of an execution that runs from a step on. The original stays as it is."""
    found = found_execution(context, execution_id)
    options: dict[str, Any] = {"definition": _definition(context, found, definition)}
    if payload is not None:
        options["payload"] = json_input(payload, "--payload")
    store = context.session.plain.executions
    begun = store.fork(found.id, step, **options)
    context.out.data({"id": begun, "forked_from": found.id})
    context.out.line(f"{begun} begins from step {step}, with what {found.id} had done before")


def _definition(context: Context, execution: Execution, given: str | None) -> Any:
    """Return the workflow of that file or name, or the current one for ``current``."""
    if given is None:
        return None
    if given == "current":
        workflows = context.session.whole.workflows
        return workflows.get(execution.name, execution.tenant_id)
    from automate_kernel.workflows.definition.loader import load_workflow

    return load_workflow(given)


@app.called(
    "automate executions retry ID",
    "automate executions retry ID --step charge",
    "automate executions retry ID --definition current",
    "automate executions retry ID --only send --position 3",
    "automate executions retry ID --only reserve.compensate",
    "automate executions retry --failed --workflow order-notify --newer-than 2h",
    "automate executions retry --failed --error-code UNAVAILABLE --rate 5 --yes",
)
def retry(
    context: Context,
    execution_ids: list[str] | None = argument("The executions' ids.", None, metavar="[ID]…"),
    step: str | None = option(None, "Run this step and all that follow, whatever the end was."),
    only: str | None = option(
        None, "Run this step alone again: it failed, or waits for its retry.", metavar="STEP"
    ),
    position: int = option(-1, "With --only: the element of the for_each, from 0.", min=-1),
    definition: str | None = _DEFINITION,
    failed: bool = flag("--failed", "All FAILED executions that match."),
    workflow: str | None = option(None, "Only of this workflow."),
    tenant: str | None = TENANT,
    error_code: str | None = option(None, "Only those that failed with this error."),
    older_than: str | None = inputs.OLDER_THAN,
    newer_than: str | None = inputs.NEWER_THAN,
    limit: int | None = inputs.MOST,
    rate: float | None = option(None, "The number of them that go on in a second.", min=0.001),
    yes: bool = inputs.YES,
) -> None:
    """
    Run FAILED executions again from the steps that failed, or executions from any step.

    A worker does it. Steps that were undone run again too. Without ids, --failed means every FAILED
    execution that the other options match, the oldest first. PAUSED executions go on with automate
    resume.

    With --only an execution may go on: one step that has failed runs again, with all that follows
    from it, and a step that waits for its retry is due now. A compensation is called
    <step>.compensate.
    """
    filters = (workflow, error_code, limit, rate, older_than, newer_than)
    beside = filters if execution_ids else (step, definition, only)
    if bool(execution_ids) == failed or any(each is not None for each in beside):
        raise ConfigError(
            "name the executions, or say --failed",
            hint=(
                "--failed takes every FAILED execution that --workflow and the others match;"
                " --step, --only and --definition are for ids"
            ),
        )
    if only is not None:
        inputs.alone("--only", step=step, definition=definition)
    for each in execution_ids or ():
        if only is not None:
            _retry(context, each, only, position, tenant)
        else:
            _resume(context, each, step, definition, tenant)
    if not execution_ids:
        about = {"workflow": workflow, "tenant_id": tenant, "error_code": error_code}
        ages = inputs.ages(context.session.plain.outbox.now(), older_than, newer_than)
        inputs.confirm("Run all failed executions that match again?", yes=yes)
        _resume_matching(context, {**about, **ages, "limit": limit, "per_second": rate})


def _resume(
    context: Context,
    execution_id: str,
    step: str | None,
    definition: str | None,
    tenant: str | None,
) -> None:
    found = _definition(context, found_execution(context, execution_id), definition)
    about = {"step_id": step, "definition": found, "tenant_id": tenant}
    _each(context, [execution_id], "resume", "resumed", **about)


def _resume_matching(context: Context, options: dict[str, Any]) -> None:
    kernel, out = context.session.plain, context.out
    with out.working("resume: all that match") as show:
        count = kernel.executions.resume_matching(
            status=ExecutionStatus.FAILED.value,
            progress=lambda count: show(f"resume: {count} so far"),
            **options,
        )
    out.data({"resumed": count})
    out.line(f"{counted(count, 'execution')} resumed")


def _retry(
    context: Context, execution_id: str, step: str, position: int, tenant: str | None
) -> None:
    out, found = context.out, found_execution(context, execution_id)
    store = context.session.plain.executions
    retried = store.retry_step(found.id, step, position, tenant_id=tenant)
    out.data({"id": found.id, "step": step, "position": position, "retried": retried})
    if not retried:
        raise WorkFailedError(
            message=f"step {step!r} is not retried",
            hint="only a step that has failed, or that waits for its retry, can be",
        )
    out.line(f"{found.id} runs {step} again")


def _each(context: Context, execution_ids: list[str], what: str, done: str, **options: Any) -> None:
    out, store = context.out, context.session.plain.executions
    results: dict[str, bool] = {}
    for each in execution_ids:
        execution = found_execution(context, each)
        results[execution.id] = getattr(store, what)(execution.id, **options)
        if results[execution.id]:
            out.line(f"{execution.id} {done}")
        else:
            out.note(f"{execution.id} is {execution.status.value}: not {done}")
    out.data({key: done if changed else "unchanged" for key, changed in results.items()})
    if not all(results.values()):
        able = "executions that have not ended" if what == "cancel" else "FAILED executions"
        raise WorkFailedError(message=f"not all were {done}", hint=f"only {able} can be")
