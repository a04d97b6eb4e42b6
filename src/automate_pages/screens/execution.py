"""One execution: its picture and timeline beside the chosen step, and the orders that steer it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from automate_kernel.access.audit import AuditRecord
from automate_kernel.base.errors import AutomateError, TemplateError
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.waiting import why_execution_waits
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.outbox.handover import CHANGED_CODE
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import EXECUTION, STEP
from automate_kernel.storage.values import read_json
from automate_kernel.workflows.decide.program import step_input
from automate_kernel.workflows.definition.graph import to_svg
from automate_kernel.workflows.definition.model import CodeWorkflow, Step, Workflow
from automate_kernel.workflows.execution import Event, Execution, StepKey, StepRun, StepStatus
from automate_kernel.workflows.steer.attempts import StepAttempt
from automate_pages.exchange import (
    OrderAnswer,
    PageAnswer,
    PageError,
    PageLink,
    PageRequest,
    read_position,
)
from automate_pages.formats import (
    MOST,
    ShownValue,
    first_waits_shown,
    json_text,
    shown_labels,
    shown_reasons,
    shown_text,
    shown_tree,
)
from automate_pages.timeline import MOST_STEPS, ExecutionTimeline, StepRuns, read_steps

_MOST_ATTEMPTS = 100
_MOST_READ = 2_000
_MOST_CHILDREN = 50
_MOST_STEERED = 20
_TROUBLE = ("bad", "run", "warn")


@dataclass(slots=True)
class _Found:
    """An execution as a page reads it: with a bounded part of its steps, without outputs."""

    execution: Execution
    steps: StepRuns
    workflow: Workflow | None
    failed: Sequence[FailedAttempt] = ()


@dataclass(frozen=True, slots=True)
class ShownStep:
    """The chosen step as its panel shows it; without *problem* its input is known."""

    run: StepRun
    title: str
    step: Step | None
    given: Markup | str
    problem: str
    output: Markup | ShownValue
    error: ShownValue
    trace: ShownValue
    progress: Markup | str
    attempts: Sequence[dict[str, Any]]
    retries: bool
    forks: bool
    resumes: bool
    approval: str
    """The address of its question, while it waits for a decision."""
    payload: str
    """The event's payload, for a copy that has another; empty if a part of it is hidden."""


def read_row(rows: Rows, request: PageRequest, execution_id: str) -> Row:
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
        row = read_row(rows, request, execution_id)
        steps = read_steps(rows, row["id"])
    execution = Execution.from_row(row, steps.runs)
    workflow = pinned_workflow(request.kernel, execution.definition_id)
    failed = request.kernel.executions.failed_attempts(execution.id)
    return _Found(execution, steps, workflow, failed)


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
    """Show an execution, with the step that needs a look most."""
    found = _find(request, execution_id)
    timeline = _timeline(request, found)
    trouble = [
        track
        for each in _TROUBLE
        for track in timeline.tracks
        if track.tone == each and track.begun
    ]
    # An element says more than its list.
    first = next((each for each in trouble if each.tone == trouble[0].tone and each.depth), None)
    chosen = first or (trouble[0] if trouble else None)
    return _page(request, found, timeline, (chosen.step_id, chosen.position) if chosen else None)


def show_step(request: PageRequest, execution_id: str, step_id: str, position: str) -> PageAnswer:
    """Show an execution with a step, or an element of its list: input, output and errors."""
    key = (step_id, read_position(position))
    found = _find(request, execution_id)
    return _page(request, found, _timeline(request, found), key)


def _timeline(request: PageRequest, found: _Found) -> ExecutionTimeline:
    return ExecutionTimeline(
        request.kernel, found.execution, found.workflow, found.steps,
        request.kernel.outbox.now(), failed=found.failed,
        whole=request.query.get("time") == "whole",
    )  # fmt: skip


def _page(
    request: PageRequest, found: _Found, timeline: ExecutionTimeline, key: StepKey | None
) -> PageAnswer:
    kernel, execution = request.kernel, found.execution
    reasons = why_execution_waits(kernel, execution)
    workflow = found.workflow
    children = kernel.executions.children([execution.id], limit=_MOST_CHILDREN).get(execution.id)
    chosen = None if key is None else _shown_step(request, found, timeline, key)
    here = request.url("executions", execution.id)
    return PageAnswer(
        "execution.html",
        f"{execution.name} {execution.id[:8]}",
        {
            "execution": execution,
            "here": here,
            "address": request.url(*_parts(request, execution, key)),
            "whole": request.query.get("time") == "whole",
            "timeline": timeline,
            "graph": workflow and _graph(request, workflow, execution, timeline),
            "chosen": chosen,
            "chosen_key": key,
            "event": shown_tree(kernel, execution.event.payload),
            "output": _output(request, execution),
            "error": shown_text(kernel, execution.error),
            "reasons": shown_reasons(kernel, reasons),
            "changed": any(each.details.get("code") == CHANGED_CODE for each in reasons),
            "signals": _signals(request, execution),
            "asked": sorted({each.details["signal"] for each in reasons if each.code == "signal"}),
            "children": children,
            "child_waits": first_waits_shown(kernel, children.executions if children else ()),
            "steered": _steered(request, execution),
            "attempts": _attempts(request, timeline.attempts),
            "labels": _labels(request, execution),
            "steers": request.may("steer"),
            "starts": request.may("start"),
        },
        crumbs=_crumbs(request, execution),
        live=not execution.status.finished,
    )  # fmt: skip


def _graph(
    request: PageRequest, workflow: Workflow, execution: Execution, timeline: ExecutionTimeline
) -> str:
    """Draw the workflow; a step that has begun leads to its panel."""
    links = {
        track.step_id: request.url("executions", execution.id, "steps", track.step_id, "whole")
        for track in timeline.tracks
        if track.position < 0 and track.begun
    }
    return to_svg(workflow, timeline.statuses, styled=False, links=links)


def _crumbs(request: PageRequest, execution: Execution) -> list[PageLink]:
    above = filter(None, (execution.parent_id, execution.predecessor_id))
    return [
        PageLink("Executions", request.url("executions")),
        *(PageLink(each[:8], request.url("executions", each)) for each in above),
    ]


def _parts(request: PageRequest, execution: Execution, key: StepKey | None) -> Sequence[object]:
    if key is None or "/steps/" not in request.path:
        return ("executions", execution.id)
    return ("executions", execution.id, "steps", key[0], "whole" if key[1] < 0 else key[1])


def _attempts(request: PageRequest, attempts: Iterable[StepAttempt]) -> list[dict[str, Any]]:
    return [
        {
            "of": each,
            "step": each.step_id if each.position < 0 else f"{each.step_id}[{each.position}]",
            "error": shown_text(request.kernel, each.error, 2_000),
            "trace": shown_text(request.kernel, each.trace, 10_000),
        }
        for each in reversed(list(attempts)[-_MOST_ATTEMPTS:])
    ]


def _signals(request: PageRequest, execution: Execution) -> list[tuple[Event, Markup]]:
    found = request.kernel.executions.received_signals(execution.chain_id or execution.id)
    return [(each, shown_tree(request.kernel, each.payload)) for each in found]


def _steered(request: PageRequest, execution: Execution) -> list[AuditRecord]:
    """Return who has steered an execution, the latest first."""
    found = request.kernel.audit.page(object_id=execution.id, outcome="done", limit=_MOST_STEERED)
    return found.records


def _labels(request: PageRequest, execution: Execution) -> list[PageLink]:
    texts = shown_labels(request.kernel, execution.labels)
    return [PageLink(text, request.url("executions", label=text)) for text in texts]


def _output(request: PageRequest, execution: Execution) -> Markup | ShownValue:
    if execution.output_ref is not None:
        return shown_text(request.kernel, f"in the output store: {execution.output_ref}")
    if execution.output is None:
        return ShownValue("", 0)
    return shown_tree(request.kernel, execution.output)


def _shown_step(
    request: PageRequest, found: _Found, timeline: ExecutionTimeline, key: StepKey
) -> ShownStep:
    kernel, execution = request.kernel, found.execution
    step_id, place = key
    run = _run(request, execution.id, step_id, place)
    given, problem = _input(request, found, step_id, place)
    inside = found.workflow is not None and found.workflow.inside_block(step_id)
    finished, whole = execution.status.finished, place < 0 and not inside
    output: Markup | ShownValue = shown_text(kernel, run.output_ref)
    if run.status is StepStatus.COMPLETED and run.output_ref is None:
        output = shown_tree(kernel, run.output)
    payload = execution.event.payload
    shown = json_text(kernel, payload)
    return ShownStep(
        run,
        step_id if place < 0 else f"{step_id}[{place}]",
        found.workflow.find_step(step_id) if found.workflow else None,
        given,
        problem,
        output,
        error=shown_text(kernel, run.error),
        trace=shown_text(kernel, run.trace),
        progress=shown_tree(kernel, run.progress) if run.progress is not None else "",
        attempts=_attempts(
            request, [a for a in timeline.attempts if (a.step_id, a.position) == run.key]
        ),
        retries=request.may("steer")
        and run.status is (StepStatus.FAILED if finished else StepStatus.RETRY)
        and (not inside or not finished),
        forks=request.may("start") and whole,
        resumes=request.may("steer") and finished and whole,
        approval=_question(request, found, run),
        payload=shown if len(shown) <= MOST and read_json(shown) == payload else "",
    )


def _question(request: PageRequest, found: _Found, run: StepRun) -> str:
    step = found.workflow.find_step(run.step_id) if found.workflow else None
    if step is None or step.approval is None or run.status is not StepStatus.WAITING:
        return ""
    place = run.position if run.position >= 0 else "whole"
    return request.url("approvals", run.execution_id, run.step_id, place)


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
) -> tuple[Markup | str, str]:
    """Return the input of a step, put together from stored values, or the reason why that fails."""
    kernel, steps = request.kernel, found.steps
    elements = sum(n for counts in steps.elements.values() for n in counts.values())
    if len(steps.runs) >= MOST_STEPS or elements > _MOST_READ:
        return "", "the execution has too many steps to put it together from"
    stored = kernel.executions.get(found.execution.id, large_outputs=False)
    if stored is None:
        return "", "the execution is gone"
    try:
        program = kernel.workflows.program(stored.definition_id)
        kernel.executions.outputs.fill(stored, program.reads)
        return shown_tree(kernel, step_input(program, stored, step_id, position)), ""
    except (AutomateError, ValueError) as error:
        return "", shown_text(kernel, str(error)).text


# -- orders ------------------------------------------------------------------------------------


def order(request: PageRequest, execution_id: str) -> OrderAnswer:
    """Carry out an order for an execution."""
    wanted = request.form.get("order", "")
    request.require("start" if wanted in ("again", "fork", "renew") else "steer")
    known = {
        "resume": _resume, "cancel": _cancel, "pause": _pause, "unpause": _unpause,
        "retry": _retry, "again": _again, "fork": _fork, "signal": _signal,
        "renew": _renew,
    }  # fmt: skip
    if wanted not in known:
        raise PageError(400, "there is no such order")
    with request.kernel.storage.begin(atomic=False) as rows:
        execution = Execution.from_row(read_row(rows, request, execution_id))
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


def _renew(request: PageRequest, execution: Execution) -> _Done:
    request.require("steer")
    store = request.kernel.executions
    begun = request.kernel.start_again(execution.id)
    store.cancel(execution.id)
    if store.is_cancelling(execution.id):  # only its old code could undo what it has done
        store.cancel(execution.id)
    return "This is another execution, for the same event, with the new code.", begun, True


def _fork(request: PageRequest, execution: Execution) -> _Done:
    step_id, text = request.form.get("step", ""), request.form.get("payload", "").strip()
    try:
        given = {"payload": read_json(text)} if text else {}
    except ValueError:
        return "It has no copy: the payload is not JSON.", execution.id, False
    begun = request.kernel.executions.fork(execution.id, step_id, **given)
    return f"This is a copy, which begins from step {step_id}.", begun, True


def _signal(request: PageRequest, execution: Execution) -> _Done:
    name, text = request.form.get("name", "").strip(), request.form.get("payload", "").strip()
    try:
        payload = read_json(text) if text else None
    except ValueError:
        return "It was not sent: the payload is not JSON.", execution.id, False
    request.kernel.signal(execution.id, name, payload)
    return f"The signal {name} is sent.", execution.id, True
