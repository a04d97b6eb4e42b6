"""``automate pause`` and ``resume``: hold up what runs by itself, and let it go on."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from automate_cli import inputs
from automate_cli.command import Commands, Context, WorkFailedError
from automate_cli.commands.executions import found_execution
from automate_cli.inputs import argument, flag, option

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

app: Commands = Commands()


class Pausable(str, Enum):
    """A thing that can be paused, and resumed."""

    KIND = "kind"
    WORKFLOW = "workflow"
    EXECUTION = "execution"
    SCHEDULE = "schedule"
    POLL = "poll"


_WHAT = argument("What the names are of.", metavar="WHAT")
_NAMES = argument(
    "Its names: a kind of item (mail.send), a workflow, an execution's id, a workflow with"
    " schedules, or the events of a poll (connector.poll).",
    metavar="NAME",
)
_TENANT = option(None, "Only what belongs to this tenant; not for a kind.")
_NUMBER = option(None, "Of a workflow's schedules only this trigger, from 0.", min=0)


@app.called(
    'automate pause kind mail.send --reason "the mail server is down"',
    'automate pause workflow order-notify --reason "stock-taking"',
    "automate pause execution 0193f0c2-… 0193f0c3-…",
    "automate pause schedule report --number 1",
    "automate pause poll sheet.new_row",
)
def pause(
    context: Context,
    what: Pausable = _WHAT,
    names: list[str] = _NAMES,
    reason: str | None = option(
        None, "Of a kind or workflow: the reason, which is shown to others."
    ),
    tenant: str | None = _TENANT,
    number: int | None = _NUMBER,
) -> None:
    """
    Hold up items, executions, schedules or polls, until resume.

    Running calls end, and their results are saved.

    Kind: workers claim no more items of it. Workflow: none of its steps begins; events still start
    executions, which wait. Execution: none of its steps begins. Schedule: it fires no more. Poll:
    its service is no longer asked; it keeps its place.
    """
    _refuse(what, reason=reason, tenant=tenant, number=number)
    kernel = _kernel(context, what, makes=what in (Pausable.KIND, Pausable.WORKFLOW))
    some: dict[Pausable, Callable[[str], Any]] = {
        Pausable.KIND: lambda name: kernel.outbox.pause(name, reason or ""),
        Pausable.WORKFLOW: lambda name: kernel.workflows.pause(
            name, reason or "", tenant_id=tenant
        ),
        Pausable.EXECUTION: lambda name: kernel.executions.pause(name, tenant_id=tenant),
        Pausable.SCHEDULE: lambda name: kernel.schedules.pause(
            name, tenant_id=tenant, number=number
        ),
        Pausable.POLL: lambda name: kernel.polls.pause(name, tenant_id=tenant),
    }
    _each(context, what, names, some[what], "paused")
    for name in names:
        _doubt(context, kernel, what, name)


@app.called(
    "automate resume kind mail.send",
    "automate resume workflow order-notify",
    "automate resume execution 0193f0c2-…",
    "automate resume schedule report",
    "automate resume poll sheet.new_row --start-over",
)
def resume(
    context: Context,
    what: Pausable = _WHAT,
    names: list[str] = _NAMES,
    tenant: str | None = _TENANT,
    number: int | None = _NUMBER,
    start_over: bool = flag(
        "--start-over",
        "Of a poll, paused or not: forget its place and its failures, its next call is its first.",
    ),
    yes: bool = inputs.YES,
) -> None:
    """
    Let paused items, executions, schedules or polls go on.

    A schedule makes up for missed times only with catch_up. A poll that starts over remembers the
    events of the last 30 days, and doesn't emit them again. To run FAILED executions again there
    is automate executions retry.
    """
    _refuse(what, tenant=tenant, number=number, start_over=start_over)
    kernel = _kernel(context, what, makes=False)
    if start_over:
        inputs.confirm(f"Let {', '.join(names)} begin again?", yes=yes)

    def poll(name: str) -> int:
        changed = kernel.polls.start_over(name, tenant_id=tenant) if start_over else 0
        return kernel.polls.resume(name, tenant_id=tenant) or changed

    some: dict[Pausable, Callable[[str], Any]] = {
        Pausable.KIND: kernel.outbox.resume,
        Pausable.WORKFLOW: lambda name: kernel.workflows.resume(name, tenant_id=tenant),
        Pausable.EXECUTION: lambda name: kernel.executions.unpause(name, tenant_id=tenant),
        Pausable.SCHEDULE: lambda name: kernel.schedules.resume(
            name, tenant_id=tenant, number=number
        ),
        Pausable.POLL: poll,
    }
    done = "started over" if start_over else "resumed"
    _each(context, what, names, some[what], done)


_CONFIGURED = (Pausable.SCHEDULE, Pausable.POLL)  # they are read in the workflows
_OPTIONS = {
    "reason": (Pausable.KIND, Pausable.WORKFLOW),
    "tenant": (Pausable.WORKFLOW, Pausable.EXECUTION, *_CONFIGURED),
    "number": (Pausable.SCHEDULE,),
    "start_over": (Pausable.POLL,),
}


def _kernel(context: Context, what: Pausable, *, makes: bool) -> Kernel:
    """Return the kernel that has *what*; it *makes* the database for a pause of what comes."""
    session = context.session
    if what in _CONFIGURED:
        return session.whole
    return session.storing if makes else session.plain


def _refuse(what: Pausable, **given: Any) -> None:
    """Raise `ConfigError` for an option that *what* doesn't have."""
    others = {name: value for name, value in given.items() if what not in _OPTIONS[name]}
    number = others.pop("number", None)  # 0 is given too
    named = "an execution" if what is Pausable.EXECUTION else f"a {what.value}"
    inputs.alone(named, **others, number=None if number is None else str(number))


def _each(
    context: Context,
    what: Pausable,
    names: list[str],
    change: Callable[[str], Any],
    done: str,
) -> None:
    """Do *change* to each, and report; raises `WorkFailedError` for an execution that can't be."""
    results: dict[str, str] = {}
    pausing, go_on = done == "paused", f"{context.named('resume')} {what.value}"
    for name in names:
        execution = found_execution(context, name) if what is Pausable.EXECUTION else None
        key = name if execution is None else execution.id
        # A pause of a kind or a workflow returns nothing: it always holds.
        results[key] = "unchanged" if change(key) in (False, 0) else done
        if results[key] == done:
            more = f"; {go_on} {key} lets it go on" if pausing else ""
            context.out.line(f"{what.value} {key} is {done}{more}")
        elif execution is not None:
            context.out.note(f"{key} is {execution.status.value}: not {done}")
        else:
            was = "was paused already" if pausing else "was not paused"
            context.out.line(f"{what.value} {key} {was}")
    context.out.data(results)
    if what is Pausable.EXECUTION and "unchanged" in results.values():
        hint = f"only PAUSED executions can be; {context.named('executions retry')} is for FAILED"
        if pausing:
            hint = "only executions that go on and are not paused can be"
        raise WorkFailedError(message=f"not all were {done}", hint=hint)


def _doubt(context: Context, kernel: Kernel, what: Pausable, name: str) -> None:
    """Ask about a name that nothing has yet: misspelt, it would hold up nothing."""
    if what is Pausable.KIND and not kernel.outbox.find(kind=name, limit=1):
        context.doubt("item", name, kernel.outbox.stats().counts)
    if what is Pausable.WORKFLOW and not kernel.executions.find(workflow=name, limit=1):
        context.doubt("execution", name, kernel.executions.stats().counts)
