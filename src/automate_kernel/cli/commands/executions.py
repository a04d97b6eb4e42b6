"""``automate executions``: look at executions, cancel and resume them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.errors import AutomateError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.workflows.execution import Execution

__all__ = ["EXECUTIONS"]

_Id = Annotated[str, Argument(help="The execution's id.", metavar="ID")]
_Ids = Annotated[list[str], Argument(help="The executions' ids.", metavar="ID…")]
_Tenant = Annotated[str | None, Option(help="The tenant.")]
_Limit = Annotated[int, Option("--limit", "-n", help="How many.", min=1, max=10_000)]


def ls(
    context: Context,
    status: Annotated[
        str | None, Option(help="PENDING, RUNNING, COMPLETED, FAILED or CANCELLED.")
    ] = None,
    workflow: Annotated[str | None, Option(help="The workflow's name.")] = None,
    tenant: _Tenant = None,
    error: Annotated[
        str | None, Option("--error", help="The group of its error: KeyError in shop.charge.")
    ] = None,
    label: Annotated[str | None, Option(help="A label: order=4711, or 4711.")] = None,
    limit: _Limit = 20,
) -> None:
    """List executions, the newest first."""
    from automate_kernel.cli.inputs import one_of
    from automate_kernel.cli.views import execution_data, show_executions
    from automate_kernel.workflows.execution import ExecutionStatus

    wanted = one_of(status, ExecutionStatus, "--status")
    store = context.session.plain.executions
    given: dict[str, Any] = {"status": wanted, "workflow": workflow, "tenant_id": tenant}
    if label is None:
        found = store.find(**given, error_group=error, limit=limit)
    else:
        found = store.labelled(label, **given, limit=limit if error is None else 1000)
        found = [each for each in found if error in (None, each.error_group)][:limit]
    context.out.data([execution_data(each) for each in found])
    show_executions(context.out, found)


def show(context: Context, execution_id: _Id) -> None:
    """
    Show an execution: its event, its steps, its picture, and where each attempt failed.

    What failed is told with the files and lines that it came from, and no values.
    """
    from automate_kernel.cli.output import as_json, seconds, time_of
    from automate_kernel.cli.views import (
        attempt_data,
        execution_data,
        labels_text,
        show_attempts,
        show_steps,
        statuses_of,
    )
    from automate_kernel.workflows.graph import to_text

    out, kernel = context.out, context.session.plain
    execution = _get(context, execution_id)
    attempts = kernel.executions.failed_attempts(execution.id)
    told = [attempt_data(each) for each in attempts]
    data = {**execution_data(execution), "failed_attempts": told}
    out.data(data)
    if out.json:
        return
    error = f"{execution.error_code}: {execution.error}" if execution.error else None
    out.fields(
        (
            ("id", execution.id),
            ("workflow", execution.name),
            ("status", execution.status.value),
            ("started", time_of(execution.created_at)),
            ("took", seconds(execution.duration_seconds)),
            ("error", error),
            ("group", execution.error_group),
            ("labels", labels_text(execution.labels)),
            ("event", f"{execution.event.name} ({execution.event.type}, {execution.event.id})"),
            ("payload", as_json(data["event"]["payload"])),
            ("output", None if execution.output is None else as_json(data["output"])),
        )
    )
    out.line()
    definition = kernel.executions.definition(execution.definition_id)
    out.line(to_text(definition, statuses_of(execution)))
    show_steps(out, execution.steps)
    show_attempts(out, attempts)


def errors(
    context: Context,
    workflow: Annotated[str | None, Option(help="The workflow's name.")] = None,
    tenant: _Tenant = None,
    limit: _Limit = 20,
) -> None:
    """Group the failed executions by workflow and by where their error came from."""
    from automate_kernel.cli.views import group_data, show_groups

    found = context.session.plain.executions.error_groups(
        workflow=workflow, tenant_id=tenant, limit=limit
    )
    context.out.data([group_data(each) for each in found])
    show_groups(context.out, found, "WORKFLOW")


def _get(context: Context, execution_id: str) -> Execution:
    from uuid import UUID

    try:
        found = context.session.plain.executions.get(str(UUID(execution_id)))
    except ValueError:
        found = None
    if found is None:
        raise AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no execution {execution_id!r}",
            hint=f"{context.named('executions ls')} lists them",
        )
    return found


def cancel(context: Context, execution_ids: _Ids) -> None:
    """
    End executions as CANCELLED.

    A step that runs is not interrupted, but nothing follows it.
    """
    _each(context, execution_ids, "cancel", "cancelled")


def resume(context: Context, execution_ids: _Ids) -> None:
    """Run failed executions again, from the steps that failed. A worker does it."""
    _each(context, execution_ids, "resume", "resumed")


def _each(context: Context, execution_ids: list[str], what: str, done: str) -> None:
    out, store = context.out, context.session.plain.executions
    results: dict[str, bool] = {}
    for each in execution_ids:
        execution = _get(context, each)
        results[execution.id] = getattr(store, what)(execution.id)
        if results[execution.id]:
            out.line(f"{execution.id} {done}")
        else:
            out.note(f"{execution.id} is {execution.status.value}: not {done}")
    out.data({key: done if changed else "unchanged" for key, changed in results.items()})
    if not all(results.values()):
        only = "failed ones" if what == "resume" else "ones that have not ended"
        raise WorkFailedError(
            ErrorCodes.FAILED_PRECONDITION, f"not all were {done}", hint=f"only {only} can be"
        )


EXECUTIONS = Group("executions", "Look at executions of workflows, cancel and resume them.")
EXECUTIONS.command(
    "ls",
    also=("list",),
    examples=(
        "automate executions ls",
        "automate executions ls --status FAILED --workflow order-notify",
        "automate executions ls --label order=4711",
        "automate executions ls --json | jq -r '.[].id'",
    ),
)(ls)
EXECUTIONS.command(
    "show",
    examples=("automate executions show 0193f0c2-…", "automate executions show ID --json"),
)(show)
EXECUTIONS.command(
    "errors",
    examples=("automate executions errors", "automate executions errors --workflow order-notify"),
)(errors)
EXECUTIONS.command("cancel", examples=("automate executions cancel ID",))(cancel)
EXECUTIONS.command("resume", examples=("automate executions resume ID",))(resume)
