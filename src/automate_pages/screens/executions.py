"""The executions: their list, the page of each with its steps, and what steers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from automate_kernel.base.errors import AutomateError, TemplateError
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.waiting import why_execution_waits
from automate_kernel.outbox.failed_attempts import ErrorGroup, FailedAttempt
from automate_kernel.secrets.masking import hide_named
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.storage.values import read_json
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.definition.model import CodeWorkflow, Workflow
from automate_kernel.workflows.execution import Execution, StepRun, StepStatus
from automate_kernel.workflows.steer.attempts import step_attempts
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    read_position,
)
from automate_pages.formats import ShownValue, shown_json, shown_reasons, shown_text
from automate_pages.lists import MOST_CAUSES, PATIENCE, TIMES, ExecutionConditions
from automate_pages.screens.workflows import workflow_names
from automate_pages.timeline import (
    MOST_STEPS,
    SCALE,
    ExecutionTimeline,
    StepRuns,
    read_steps,
)

_MOST_ATTEMPTS = 100
_MOST_READ = 2_000


def show_list(request: PageRequest) -> PageAnswer:
    """Show a page of executions, the newest first, and the causes of those that failed."""
    kernel, query = request.kernel, ExecutionConditions.read(request)
    wanted = request.query.get("id", "").strip()
    if wanted:
        return show(request, wanted)
    asked = query.matching(request, kernel.outbox.now())
    found = kernel.executions.page(**asked, after=request.query.get("after", ""), seconds=PATIENCE)
    failures = query.get("status") in ("", "FAILED")
    return PageAnswer(
        "executions.html",
        "Executions",
        {
            "query": query,
            "found": found,
            "statuses": query.tabs(request),
            "times": [(value, label) for value, (label, _) in TIMES.items()],
            "names": workflow_names(request),
            "groups": causes(request, query, asked.get("tenant_id")) if failures else [],
            "next": query.url(request, after=found.after) if found.after else "",
            "first": query.url(request) if request.query.get("after") else "",
        },
        live=not request.query.get("after"),
    )


def causes(
    request: PageRequest, query: ExecutionConditions, tenant: str | None
) -> list[tuple[ErrorGroup, str]]:
    """Return the causes of the executions that failed, with the addresses of their lists."""
    groups = request.kernel.executions.error_groups(
        workflow=query.get("workflow") or None, tenant_id=tenant, limit=MOST_CAUSES
    )
    return [
        (each, query.url(request, status="FAILED", workflow=each.kind, group=each.group))
        for each in groups
    ]


@dataclass(slots=True)
class _Found:
    """An execution as a page reads it: with a bounded part of its steps, without outputs."""

    execution: Execution
    steps: StepRuns
    workflow: Workflow | None


def _row(rows: Rows, request: PageRequest, execution_id: str) -> Row:
    """Read the row of an execution that the user may see; raise `PageError`."""
    where = [Where("id", "eq", execution_id)]
    if request.user.tenant is not None:
        where.append(Where("tenant_id", "eq", request.user.tenant))
    found = rows.select(EXECUTION, where)
    if not found:
        raise PageError(404, f"there is no execution {execution_id!r}")
    return found[0]


def _find(request: PageRequest, execution_id: str) -> _Found:
    with request.kernel.storage.begin(atomic=False) as rows:
        row = _row(rows, request, execution_id)
        steps = read_steps(rows, row["id"])
    execution = Execution.from_row(row, steps.runs)
    return _Found(execution, steps, pinned_workflow(request.kernel, execution.definition_id))


def pinned_workflow(kernel: Kernel, definition_id: str) -> Workflow | None:
    """Return the definition that an execution began with; None if this process can't read it."""
    try:
        return kernel.workflows.program(definition_id).workflow
    except TemplateError:
        pass  # a filter that is gone: the workflow can be shown all the same
    except (AutomateError, ValueError):  # pydantic's error is a ValueError
        return _pinned_code(kernel, definition_id)
    return kernel.executions.definition(definition_id)


def _pinned_code(kernel: Kernel, definition_id: str) -> Workflow | None:
    """Return the definition of a workflow in code, whose function this process needn't have."""
    try:
        found = kernel.executions.definition(definition_id)
    except (AutomateError, ValueError):
        return None
    return found if isinstance(found, CodeWorkflow) else None


def show(request: PageRequest, execution_id: str) -> PageAnswer:
    """Show an execution: why it waits, its steps in time, its event and its output."""
    kernel, found = request.kernel, _find(request, execution_id)
    execution = found.execution
    timeline = ExecutionTimeline(
        kernel, execution, found.workflow, found.steps, kernel.outbox.now()
    )
    failed = kernel.executions.failed_attempts(execution.id)
    return PageAnswer(
        "execution.html",
        f"{execution.name} {execution.id[:8]}",
        {
            "execution": execution,
            "timeline": timeline,
            "scale": SCALE,
            "graph": found.workflow and to_svg(found.workflow, timeline.statuses, styled=False),
            "event": shown_json(kernel, execution.event.payload),
            "output": _output(request, execution),
            "error": shown_text(kernel, execution.error),
            "reasons": shown_reasons(kernel, why_execution_waits(kernel, execution)),
            "attempts": _attempts(request, found.steps, failed),
            "labels": _labels(request, execution),
            "steers": request.user.may("steer"),
            "starts": request.user.may("start"),
        },
        crumbs=[PageLink("Executions", request.url("executions"))],
        live=not execution.status.finished,
    )


def _attempts(
    request: PageRequest, steps: StepRuns, failed: Sequence[FailedAttempt]
) -> list[dict[str, Any]]:
    runs = [*steps.runs, *(run for chosen in steps.chosen.values() for run in chosen)]
    every = step_attempts([run for run in runs if run.attempts], failed)[-_MOST_ATTEMPTS:]
    return [
        {
            "of": each,
            "step": each.step_id if each.position < 0 else f"{each.step_id}[{each.position}]",
            "error": shown_text(request.kernel, each.error, 2_000),
            "trace": shown_text(request.kernel, each.trace, 10_000),
        }
        for each in reversed(every)
    ]


def _labels(request: PageRequest, execution: Execution) -> list[PageLink]:
    labels = hide_named(execution.labels)
    texts = [shown_text(request.kernel, f"{k}={v}").text for k, v in labels.items()]
    return [PageLink(text, request.url("executions", label=text)) for text in texts]


def _output(request: PageRequest, execution: Execution) -> ShownValue:
    if execution.output_ref is not None:
        return shown_text(request.kernel, f"in the output store: {execution.output_ref}")
    if execution.output is None:
        return ShownValue("", 0)
    return shown_json(request.kernel, execution.output)


def show_step(request: PageRequest, execution_id: str, step_id: str, position: str) -> PageAnswer:
    """Show a step, or an element of its list: input, output and errors."""
    kernel, found = request.kernel, _find(request, execution_id)
    stored, place = found.execution, read_position(position)
    run = _run(request, stored.id, step_id, place)
    failed = [
        each
        for each in kernel.executions.failed_attempts(stored.id)
        if (each.step_id, each.position) == run.key
    ]
    given, problem = _input(request, found, step_id, place)
    inside = found.workflow is not None and found.workflow.inside_block(step_id)
    finished = stored.status.finished
    return PageAnswer(
        "step.html",
        step_id if place < 0 else f"{step_id}[{place}]",
        {
            "execution": stored,
            "run": run,
            "step": found.workflow.find_step(step_id) if found.workflow else None,
            "given": given,
            "problem": problem,
            "output": shown_json(kernel, run.output)
            if run.status is StepStatus.COMPLETED and run.output_ref is None
            else shown_text(kernel, run.output_ref),
            "error": shown_text(kernel, run.error),
            "trace": shown_text(kernel, run.trace),
            "attempts": _attempts(request, StepRuns([run]), failed),
            "retries": request.user.may("steer")
            and run.status is (StepStatus.FAILED if finished else StepStatus.RETRY)
            and (not inside or not finished),
            "forks": request.user.may("start") and place < 0 and not inside,
            "resumes": request.user.may("steer") and finished and place < 0 and not inside,
        },
        crumbs=[
            PageLink("Executions", request.url("executions")),
            PageLink(f"{stored.name} {stored.id[:8]}", request.url("executions", stored.id)),
        ],
        live=not run.status.finished,
    )


def _run(request: PageRequest, execution_id: str, step_id: str, position: int) -> StepRun:
    where = [
        Where("execution_id", "eq", execution_id),
        Where("step_id", "eq", step_id),
        Where("position", "eq", position),
    ]
    with request.kernel.storage.begin(atomic=False) as rows:
        found = rows.select(STEP, where)
    if not found:
        raise PageError(404, "this step has not begun")
    return StepRun.from_row(found[0])


def _input(
    request: PageRequest, found: _Found, step_id: str, position: int
) -> tuple[ShownValue, str]:
    """Return the input of a step, put together from stored values, or the reason why that fails."""
    kernel, steps = request.kernel, found.steps
    elements = sum(n for counts in steps.elements.values() for n in counts.values())
    if len(steps.runs) >= MOST_STEPS or elements > _MOST_READ:
        return ShownValue("", 0), "the execution has too many steps to put it together from"
    stored = kernel.executions.get(found.execution.id, large_outputs=False)
    if stored is None:
        return ShownValue("", 0), "the execution is gone"
    try:
        program = kernel.workflows.program(stored.definition_id)
        kernel.executions.outputs.fill(stored, program.reads)
        return shown_json(kernel, step_input(program, stored, step_id, position)), ""
    except (AutomateError, ValueError) as error:
        return ShownValue("", 0), shown_text(kernel, str(error)).text


def order(request: PageRequest, execution_id: str) -> OrderAnswer:
    """Carry out an order for an execution."""
    wanted = request.form.get("order", "")
    request.require("start" if wanted in ("again", "fork") else "steer")
    known = {
        "resume": _resume, "cancel": _cancel, "pause": _pause, "unpause": _unpause,
        "retry": _retry, "again": _again, "fork": _fork,
    }  # fmt: skip
    if wanted not in known:
        raise PageError(400, "there is no such order")
    with request.kernel.storage.begin(atomic=False) as rows:
        execution = Execution.from_row(_row(rows, request, execution_id))
    text, leads, done = known[wanted](request, execution)
    return OrderAnswer(request.url("executions", leads), text, "ok" if done else "warn")


_Done = tuple[str, str, bool]
"""The words for the user, the execution to show, and whether anything was done."""


def _resume(request: PageRequest, execution: Execution) -> _Done:
    kernel, step_id = request.kernel, request.form.get("step") or None
    current = request.form.get("definition") == "current"
    definition = kernel.workflows.get(execution.name, execution.tenant_id) if current else None
    done = kernel.executions.resume(execution.id, step_id=step_id, definition=definition)
    where = f"step {step_id}" if step_id else "where it failed"
    where += ", with the workflow as it is now" if current else ""
    words = f"It goes on from {where}." if done else "It has not failed, or is resumed already."
    return words, execution.id, done


def _cancel(request: PageRequest, execution: Execution) -> _Done:
    store = request.kernel.executions
    if not store.cancel(execution.id):
        return "It had ended already.", execution.id, False
    if store.is_cancelling(execution.id):
        words = "It is being cancelled: what it has done is undone and cleaned up first."
    else:
        words = "It is cancelled. A plain step that runs is not interrupted."
    return words, execution.id, True


def _pause(request: PageRequest, execution: Execution) -> _Done:
    done = request.kernel.executions.pause(execution.id)
    words = "It is paused. What runs ends, and nothing follows." if done else "It does not go on."
    return words, execution.id, done


def _unpause(request: PageRequest, execution: Execution) -> _Done:
    done = request.kernel.executions.unpause(execution.id)
    return ("It goes on." if done else "It is not paused."), execution.id, done


def _retry(request: PageRequest, execution: Execution) -> _Done:
    step_id = request.form.get("step", "")
    place = read_position(request.form.get("position", ""))
    done = request.kernel.executions.retry_step(execution.id, step_id, place)
    words = f"Step {step_id} runs again." if done else "The step has not failed, or runs already."
    return words, execution.id, done


def _again(request: PageRequest, execution: Execution) -> _Done:
    begun = request.kernel.start_again(execution.id)
    return "This is another execution, for the same event.", begun, True


def _fork(request: PageRequest, execution: Execution) -> _Done:
    step_id, text = request.form.get("step", ""), request.form.get("payload", "").strip()
    try:
        given = {"payload": read_json(text)} if text else {}
    except ValueError:
        return "It has no copy: the payload is not JSON.", execution.id, False
    begun = request.kernel.executions.fork(execution.id, step_id, **given)
    return f"This is a copy, which begins from step {step_id}.", begun, True
