"""Executions, steps and items as data for JSON, and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from automate_cli.output import Columns, Output, ago, attributes, rows_of, seconds, time_of
from automate_kernel.base.documents import shown_document
from automate_kernel.secrets.redaction import redact_shown
from automate_kernel.storage.statuses import StepStatus

if TYPE_CHECKING:
    from automate_cli.command import Context
    from automate_kernel.monitoring.waiting import WaitReason
    from automate_kernel.outbox import ErrorGroup, FailedAttempt, OutboxItem
    from automate_kernel.workflows.decide.dry_run import DryRun, DryStep
    from automate_kernel.workflows.decide.waits import WaitingFor
    from automate_kernel.workflows.execution import Execution, StepRun
    from automate_kernel.workflows.steer.approvals import PendingApproval
    from automate_kernel.workflows.steer.attempts import StepAttempt


def execution_data(execution: Execution) -> dict[str, Any]:
    """Return an execution with its steps, ready for JSON."""
    return {
        "id": execution.id,
        "workflow": execution.name,
        "status": execution.status.value,
        "definition_id": execution.definition_id,
        "event": redact_shown(execution.event.to_json()),
        "output": redact_shown(execution.output),
        "output_ref": execution.output_ref,
        **attributes(execution, "error_code", "error", "error_group", "labels", "tenant_id"),
        **attributes(execution, "parent_id", "predecessor_id", "successor_id"),
        **attributes(execution, "item_id", "created_at", "updated_at", "completed_at"),
        "duration_seconds": execution.duration_seconds,
        "steps": [step_data(run) for run in execution.steps],
    }


def step_data(run: StepRun) -> dict[str, Any]:
    """Return a step's run, ready for JSON."""
    data = asdict(run)
    data.pop("execution_id")
    data["output"] = redact_shown(run.output)
    return {**data, "status": run.status.value, "duration_seconds": run.duration_seconds}


def item_data(item: OutboxItem, *, whole: bool = False) -> dict[str, Any]:
    """Return an item, ready for JSON; its payload and headers only if *whole*."""
    data = asdict(item)
    data.pop("lease_token")  # with it anybody can finish the item
    data.pop("sort_at")
    for name in ("payload", "headers"):
        data[name] = redact_shown(data[name])
        if not whole:
            data.pop(name)
    return {**data, "status": item.status.value, "labels": item.labels}


def attempt_data(attempt: FailedAttempt) -> dict[str, Any]:
    """Return a failed attempt, ready for JSON."""
    data = asdict(attempt)
    if attempt.step_id is None:  # of an item
        for name in ("step_id", "position", "started_at"):
            data.pop(name)
        return data
    return {**data, "duration_seconds": attempt.duration_seconds}


def step_attempt_data(attempt: StepAttempt) -> dict[str, Any]:
    """Return an attempt of a step, ready for JSON; its trace is with the failed attempts."""
    data = {**asdict(attempt), "duration_seconds": attempt.duration_seconds}
    data.pop("trace")
    return data


def labels_text(labels: Mapping[str, str]) -> str | None:
    """Return labels in one line, or None if there are none."""
    return " ".join(f"{name}={value}" for name, value in labels.items()) or None


def brief(value: Any, length: int = 60) -> str:
    """Return a value in one line, cut to *length*."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else shown_document(value)
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def step_name(
    run: StepRun | StepAttempt | FailedAttempt | WaitingFor | PendingApproval,
) -> str:
    """Return a step's id, with the position in what a ``for_each`` goes through, or the round."""
    return f"{run.step_id}[{run.position}]" if run.position >= 0 else str(run.step_id)


def progress_text(progress: Mapping[str, Any]) -> str:
    """Return what a call reported of itself in one line: ``40 % page 40 of 100``."""
    value, message = progress["value"], progress["message"]
    if isinstance(value, float) and 0 <= value <= 1:
        value = f"{value:.0%}"
    return " ".join(brief(each) for each in (value, message) if each is not None)


def show_steps(out: Output, runs: Iterable[StepRun], *, length: int = 60) -> None:
    """Print a table of steps."""

    def result(run: StepRun) -> str:
        if run.output_ref is not None and run.output is None:
            return "in the output store"
        if run.status is StepStatus.RUNNING and run.progress is not None:
            return brief(progress_text(redact_shown(run.progress)), length)
        if run.status is StepStatus.COMPLETED:
            return brief(redact_shown(run.output), length)
        return brief(f"{run.error_code}: {run.error}" if run.error else None, length)

    columns: Columns = {
        "STEP": step_name,
        "STATUS": "status.value",
        "ATTEMPTS": "attempts",
        "TOOK": lambda run: seconds(run.duration_seconds),
        "OUTPUT": result,
    }
    listed = list(runs)
    if any(run.place for run in listed):  # the workflow is code
        columns = {**columns, "CALLED AT": lambda run: run.place or ""}
    out.table(columns, rows_of(listed, columns), empty="no step has begun")


def show_step_attempts(out: Output, attempts: Sequence[StepAttempt]) -> None:
    """Print a table of attempts: who made each, when, and what became of it."""
    columns: Columns = {
        "ATTEMPT": lambda each: f"{step_name(each)} {each.attempt}",
        "STATUS": "status",
        "BEGAN": lambda each: time_of(each.started_at),
        "TOOK": lambda each: seconds(each.duration_seconds),
        "WORKER": lambda each: each.worker_id or "-",
        "ERROR": lambda each: each.error_code or "",
    }
    if attempts:
        out.line()
        out.table(columns, rows_of(attempts, columns))


def wait_data(wait: WaitingFor) -> dict[str, Any]:
    """Return what a step waits for, ready for JSON."""
    return {**asdict(wait), "details": redact_shown(wait.details)}


def show_reasons(context: Context, reasons: Sequence[WaitReason]) -> None:
    """Print why something waits; nothing if it doesn't."""
    out = context.out
    if reasons:
        out.line()
        out.line("Why it waits:")
    for each in reasons:
        until = f" Until {time_of(each.until)}." if each.until else ""
        out.line(f"- {each.text}{until}")
        command = each.command and context.named(each.command)
        for line in filter(None, (each.hint, command)):
            out.line(f"    {line}")


EXECUTIONS: Columns = {
    "ID": "id",
    "WORKFLOW": "name",
    "STATUS": "status.value",
    "STARTED": lambda each: ago(each.created_at),
    "TOOK": lambda each: seconds(each.duration_seconds),
    "ERROR": lambda each: brief(each.error, 50),
}
ITEMS: Columns = {
    "ID": "id",
    "KIND": "kind",
    "STATUS": "status.value",
    "ATTEMPTS": lambda each: f"{each.attempt_count}/{each.max_attempts}",
    "DUE": lambda each: _due(each.next_attempt_at) if each.waiting_for else "-",
    "WORKER": "lease_owner",
    "ERROR": lambda each: brief(each.last_error, 50),
}


def list_groups(out: Output, groups: Iterable[ErrorGroup], of: str) -> None:
    """Print groups of errors, by the kinds or workflows that *of* names."""
    columns: Columns = {
        "COUNT": "count",
        of: "kind",
        "GROUP": lambda each: each.group or "-",
        "CODE": "error_code",
        "SINCE": lambda each: ago(each.first_at),
        "LATEST": lambda each: ago(each.latest_at),
        "ERROR": lambda each: brief(each.error, 50),
    }
    out.listing(groups, columns, empty="nothing has failed")


def show_attempts(out: Output, attempts: Iterable[FailedAttempt]) -> None:
    """Print each failed attempt with its trace."""
    for each in attempts:
        step = "" if each.step_id is None else f"{step_name(each)}, "
        which = f"attempt {each.attempt}" if each.attempt else "before its call"
        out.line()
        out.line(f"{step}{which} failed at {time_of(each.failed_at)}: {each.error_group}", "red")
        out.line(f"  {each.error_code}: {each.error}")
        for line in (each.trace or "").splitlines():
            out.line(f"  {line}")


def _due(moment: datetime) -> str:
    return moment.astimezone().strftime("%m-%d %H:%M:%S")


def statuses_of(execution: Execution) -> Mapping[str, str]:
    """Return the status of each step, for a picture; of a step with ``for_each`` the whole's."""
    found: dict[str, str] = {}
    for run in execution.steps:
        if run.position < 0 or run.step_id not in found:
            found[run.step_id] = run.status.value if run.position < 0 else StepStatus.RUNNING.value
    return found


_DRY = {
    "called": ("▶", "cyan"),
    "waits": ("…", "cyan"),
    "skipped": ("»", "dim"),
    "unclear": ("?", "yellow"),
}
_FAILS = ("✗", "red")


def show_dry_run(out: Output, dry: DryRun) -> None:
    """Print the steps of a dry run, with the calls that they would make."""
    starts = "its trigger can't be decided"
    if dry.starts is not None:
        starts = "the event starts it" if dry.starts else "the event doesn't start it"
    out.line(f"{dry.workflow}: {starts}")
    for title, steps in (
        ("", dry.steps),
        ("at the end:", dry.ending),
        ("to undo what was done:", dry.undoing),
        ("if it fails:", dry.recovery),
        ("if it is cancelled:", dry.cancelling),
    ):
        if title and steps:
            out.line(title)
        for step in steps:
            _show_dry_step(out, step)
    if dry.problem:
        out.line(f"✗ {dry.problem}", "red")
    elif dry.output is not None:
        out.line(f"output: {_json(dry.output)}")


def _show_dry_step(out: Output, step: DryStep) -> None:
    mark, style = _DRY.get(str(step.outcome), _FAILS)
    about = f" (if {step.condition})" if step.condition is not None else ""
    depends = f"; depends on {', '.join(step.depends_on)}" if step.depends_on else ""
    many = f", {step.elements} elements" if step.elements is not None else ""
    called = f"  {step.action}" if step.action else ""
    out.line(f"{mark} {step.id}{called}: {step.outcome}{about}{many}{depends}", style)
    if step.waits_for is not None:
        out.line(f"    {_json(step.waits_for)}")
    for call in step.calls:
        place = f"[{call.position}] " if call.position >= 0 else ""
        out.line(f"    {place}{_json(call.input)}")
    if step.problem:
        out.line(f"    {step.problem}", "red")
    if step.output_is in ("given", "example"):
        out.line(f"    → {_json(step.output)} ({step.output_is})")


def _json(value: Any) -> str:
    return shown_document(redact_shown(value))
