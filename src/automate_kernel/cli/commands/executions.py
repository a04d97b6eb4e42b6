"""``automate executions``: look at executions, cancel and resume them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from automate_kernel.cli.definitions import Argument, Context, Group, Option
from automate_kernel.cli.failures import WorkFailedError
from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes

if TYPE_CHECKING:
    from automate_kernel.workflows.execution import Execution

__all__ = ["EXECUTIONS"]

_Id = Annotated[str, Argument(help="The execution's id.", metavar="ID")]
_Ids = Annotated[list[str], Argument(help="The executions' ids.", metavar="ID…")]
_Tenant = Annotated[str | None, Option(help="The tenant.")]
_STATS = (
    "WORKFLOW", "PENDING", "RUNNING", "FAILED", "COMPLETED", "LATELY FAILED", "CANCELLED",
    "STEPS DONE", "RETRIED", "STEPS FAILED", "P50", "P95", "STEP P95",
)  # fmt: skip
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
    from automate_kernel.workflows.definition.graph import to_text

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


def stats(
    context: Context,
    within: Annotated[
        str, Option(help="What ended since then: 15m; a week at most.", metavar="DURATION")
    ] = "1h",
) -> None:
    """
    Count executions by workflow: those that have not ended, those that FAILED, and lately ended.

    What ended lately is counted as workers tell of it, with how long executions and steps took.
    """
    from automate_kernel.cli.inputs import duration
    from automate_kernel.cli.output import seconds
    from automate_kernel.outbox.statistics import total_by_kind
    from automate_kernel.workflows.engine.statistics import WorkflowActivity

    store, age = context.session.plain.executions, duration(within, "--within")
    counts, recent = store.stats().counts, total_by_kind(store.activity(seconds=age))
    data, rows = {}, []
    for name in sorted({*counts, *recent}):
        of = counts.get(name, {})
        did = recent.get(name) or WorkflowActivity(context.session.plain.outbox.now(), name)
        standing = {status: of.get(status, 0) for status in ("PENDING", "RUNNING", "FAILED")}
        ended = {each: getattr(did, each) for each in ("completed", "failed", "cancelled")}
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


def cancel(context: Context, execution_ids: _Ids) -> None:
    """
    End executions as CANCELLED.

    A step that runs is not interrupted, but nothing follows it.
    """
    _each(context, execution_ids, "cancel", "cancelled")


def resume(
    context: Context,
    execution_ids: Annotated[
        list[str] | None, Argument(help="The executions' ids.", metavar="[ID]…")
    ] = None,
    failed: Annotated[bool, Option("--failed", help="All FAILED ones that match.")] = False,
    workflow: Annotated[str | None, Option(help="Only of this workflow.")] = None,
    tenant: Annotated[str | None, Option(help="Only of this tenant.")] = None,
    error_code: Annotated[
        str | None, Option("--error-code", help="Only those that failed with this error.")
    ] = None,
    older_than: Annotated[
        str | None, Option(help="Only begun longer ago: 2h.", metavar="DURATION")
    ] = None,
    newer_than: Annotated[
        str | None, Option(help="Only begun since then: 30m.", metavar="DURATION")
    ] = None,
    limit: Annotated[int | None, Option("--limit", "-n", help="At most so many.", min=1)] = None,
    rate: Annotated[float | None, Option(help="So many go on in a second.", min=0.001)] = None,
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """
    Run failed executions again, from the steps that failed. A worker does it.

    Without ids --failed means every FAILED one that the other options match, the oldest first.
    """
    options = {
        "workflow": workflow, "tenant_id": tenant, "error_code": error_code, "limit": limit,
        "per_second": rate,
    }  # fmt: skip
    filtered = any(each is not None for each in (*options.values(), older_than, newer_than))
    if bool(execution_ids) == failed or (execution_ids and filtered):
        raise ConfigError(
            "name the executions, or say --failed",
            hint="--failed takes every FAILED one that --workflow and the others match",
        )
    if execution_ids:
        _each(context, execution_ids, "resume", "resumed")
        return
    _resume_many(context, options, older_than, newer_than, yes=yes)


def _resume_many(
    context: Context,
    options: dict[str, Any],
    older_than: str | None,
    newer_than: str | None,
    *,
    yes: bool,
) -> None:
    from datetime import timedelta

    from automate_kernel.cli.inputs import confirm, duration
    from automate_kernel.cli.output import counted

    out, store, now = (
        context.out,
        context.session.plain.executions,
        context.session.plain.outbox.now,
    )
    for name, flag, age in (
        ("created_before", "--older-than", older_than),
        ("created_after", "--newer-than", newer_than),
    ):
        if age is not None:
            options[name] = now() - timedelta(seconds=duration(age, flag))
    confirm("Resume all failed executions that match?", yes=yes)
    with out.working("resume: all that match") as shown:

        def tell(count: int) -> None:
            if shown is not None:
                shown.update(f"resume: {count} so far")

        count = store.resume_matching(status="FAILED", progress=tell, **options)
    out.data({"resumed": count})
    out.line(f"{counted(count, 'execution')} resumed")


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
EXECUTIONS.command(
    "stats", examples=("automate executions stats", "automate executions stats --within 15m")
)(stats)
EXECUTIONS.command("cancel", examples=("automate executions cancel ID",))(cancel)
EXECUTIONS.command(
    "resume",
    examples=(
        "automate executions resume ID",
        "automate executions resume --failed --workflow order-notify --newer-than 2h",
        "automate executions resume --failed --error-code UNAVAILABLE --rate 5 --yes",
    ),
)(resume)
