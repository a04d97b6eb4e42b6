"""``automate schedules``: look at schedules, fire and backfill them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, DataCommand
from automate_cli.inputs import argument, option
from automate_cli.output import Columns, ago, attributes, counted, time_of
from automate_kernel.base.errors import ConfigError

if TYPE_CHECKING:
    from automate_kernel.workflows.steer.schedule import Schedule

app: Commands = Commands("schedules", "Look at schedules, and fire them.")

_WORKFLOW = argument("The workflow's name.")
_NUMBER = option(None, "Only this one of its triggers, from 0.", min=0)
_TENANT = option(None, "The tenant whose own workflow it is.")


def schedule_data(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule with its state, ready for JSON."""
    trigger = schedule.trigger
    return {
        "workflow": schedule.workflow.name,
        **attributes(schedule, "tenant_id", "number", "about"),
        **attributes(trigger, "cron", "every", "timezone", "catch_up", "overlap", "jitter"),
        **attributes(schedule, "last_fired_at", "next_at", "paused_at", "execution_id"),
    }


_COLUMNS: Columns = {
    "WORKFLOW": "workflow.name",
    "TENANT": "tenant_id",
    "NO": "number",
    "TIMES": "about",
    "OVERLAP": "trigger.overlap",
    "NEXT": lambda each: "paused" if each.paused_at else time_of(each.next_at),
    "LAST": lambda each: ago(each.last_fired_at) if each.execution_id else "",
    "LAST EXECUTION": "execution_id",
}


@app.command("list", cls=DataCommand, hidden=True)
@app.called("automate schedules ls", "automate schedules ls report --json")
def ls(
    context: Context,
    workflow: str | None = argument("A workflow's name.", None, metavar="[WORKFLOW]"),
) -> None:
    """List the schedules of the configured workflows, with their next and last times."""
    found = context.session.look().whole.schedules.find(workflow)
    context.out.listing(found, _COLUMNS, "no workflow has a schedule", schedule_data)


@app.called(
    "automate schedules trigger report",
    "automate schedules trigger report --from 2026-03-01 --to 2026-03-31T23:59+02:00",
    "automate schedules trigger report --from 2026-03-01 --to 2026-03-08 --number 1 --limit 5000",
)
def trigger(
    context: Context,
    workflow: str = _WORKFLOW,
    number: int | None = _NUMBER,
    tenant: str | None = _TENANT,
    start: str | None = option(
        None, "Backfill: the first time, in ISO 8601; UTC unless it says more.", "--from"
    ),
    end: str | None = option(None, "Backfill: the last time, in ISO 8601.", "--to"),
    limit: int = option(1000, "Refuse a backfill of more times.", "--limit", "-n", min=1),
    yes: bool = inputs.YES,
) -> None:
    """
    Fire a schedule now, beside its own times. A worker runs the execution.

    Prints the execution's id. With --from and --to it is a backfill: each time in that range of the
    past is fired. A time that has an execution makes none again, so a backfill that was cut short
    can be repeated.
    """
    if start is not None or end is not None:
        if start is None or end is None:
            raise ConfigError("a backfill needs both --from and --to")
        _backfill(context, workflow, (start, end), number, tenant, limit, yes=yes)
        return
    schedules = context.session.whole.schedules
    execution_id = schedules.trigger(workflow, tenant_id=tenant, number=number)
    context.out.data({"execution_id": execution_id})
    context.out.line(execution_id)


def _backfill(
    context: Context,
    workflow: str,
    span: tuple[str, str],
    number: int | None,
    tenant: str | None,
    limit: int,
    *,
    yes: bool,
) -> None:
    first, last = _time(span[0], "--from"), _time(span[1], "--to")
    schedules, out = context.session.whole.schedules, context.out
    inputs.confirm(
        f"Begin an execution of {workflow!r} for each time from {first} to {last}?", yes=yes
    )
    with out.working(f"backfill of {workflow}") as show:
        begun = schedules.backfill(
            workflow, first, last, tenant_id=tenant, number=number, limit=limit,
            progress=lambda count: show(f"backfill of {workflow}: {counted(count, 'time')} so far"),
        )  # fmt: skip
    out.data({"begun": begun})
    out.line(f"{counted(begun, 'execution')} begun")


def _time(text: str, name: str) -> datetime:
    from datetime import timezone

    try:
        # Before Python 3.11 no Z is read.
        found = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise ConfigError(
            f"{name}: {text[:40]!r} is no time", hint="write 2026-03-01, or 2026-03-01T06:00+01:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
