"""The executions: as a list, as a grid of runs and steps, two side by side, and many at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from automate_kernel.base.runtime import monotonic
from automate_kernel.kernel import Kernel
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.secrets.masking import hide_named
from automate_kernel.storage.query import Where
from automate_kernel.storage.statuses import ExecutionStatus, StepStatus, words
from automate_kernel.storage.tables import EXECUTION
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.store.execution_pages import ChildExecutions, ExecutionPage
from automate_pages.bulk import (
    MOST_TICKED,
    BulkActionKind,
    BulkScope,
    carry_out,
    offered,
    under_way,
)
from automate_pages.comparison import compared_steps, compared_values
from automate_pages.exchange import OrderAnswer, PageAnswer, PageError, PageLink, PageRequest
from automate_pages.formats import first_waits_shown, tone
from automate_pages.lists import MOST_CAUSES, PATIENCE, TIMES, ExecutionConditions, FailureCause
from automate_pages.screens.execution import pinned_workflow, read_row, show
from automate_pages.screens.workflows import workflow_names

_SHOWN_CHILDREN = 3
# A copy may begin from so many steps, of the longest workflows.
_MOST_STEPS = 100
# So many inputs are looked through at once, and for so long: payloads may be large.
_MOST_INPUTS, _INPUT_SECONDS = 2_000, 0.05
_FIRST_INPUTS, _INPUTS = 25, 100
_MOST_FOUND = 50
_GRID_RUNS, _GRID_STEPS = 30, 60
_TICKED = ("resume", "pause", "unpause", "fork", "cancel")
# The worst status of a list's elements is that of its cell.
_WORST = words(
    StepStatus.FAILED, StepStatus.RUNNING, StepStatus.RETRY, StepStatus.WAITING,
    StepStatus.CANCELLED, StepStatus.PENDING, StepStatus.SKIPPED, StepStatus.COMPLETED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListedExecution:
    """
    A row of the list: an execution, and its latest sub-workflows below it.

    *waits* says what each of them waits for, by their ids.
    """

    execution: Execution
    children: Sequence[Execution] = ()
    more: int = 0
    waits: Mapping[str, str] = field(default_factory=dict)


def show_list(request: PageRequest) -> PageAnswer:
    """Show a page of executions, the newest first, and the causes of those that failed."""
    query = ExecutionConditions.read(request)
    wanted = request.text("id")
    if wanted:
        return show(request, wanted)
    if search := request.text("q"):
        return _search(request, query, search)
    return _list(request, query)


def _list(
    request: PageRequest,
    query: ExecutionConditions,
    search: str = "",
    found: ExecutionPage | None = None,
    groups: Sequence[FailureCause] | None = None,
    more: str = "",
) -> PageAnswer:
    kernel, after = request.kernel, request.query.get("after", "")
    asked = query.matching(request, kernel.outbox.now())
    if found is None:
        found = kernel.executions.page(**asked, after=after, seconds=PATIENCE)
    if groups is None:
        failures = query.get("status") in ("", ExecutionStatus.FAILED)
        groups = causes(request, query, asked.get("tenant_id")) if failures else []
    onward = query.url(request, after=found.after)
    return PageAnswer(
        "executions.html",
        "Executions",
        {
            "query": query,
            "search": search,
            "found": found,
            "rows": listed(request, found.executions),
            "statuses": query.tabs(request),
            "times": [(value, label) for value, (label, _) in TIMES.items()],
            "names": workflow_names(request),
            "groups": groups,
            "under_way": under_way(request, "executions"),
            "ticked": _offered(request, _TICKED),
            "actions": _offered(request, query.actions),
            "views": _views(request, query, "executions"),
            "next": more or (onward if found.after and not search else ""),
            "first": query.url(request) if after else "",
        },
        live=not after and not search,
    )


def _offered(request: PageRequest, actions: Sequence[str]) -> list[BulkActionKind]:
    if not request.may("steer"):
        return []
    starts = request.may("start")
    return offered("executions", [each for each in actions if each != "fork" or starts])


def _views(request: PageRequest, query: ExecutionConditions, current: str) -> list[PageLink]:
    return [
        PageLink("List", query.url(request), current == "executions"),
        PageLink("Grid of steps", query.url(request, "grid"), current == "grid"),
    ]


def listed(request: PageRequest, executions: Sequence[Execution]) -> list[ListedExecution]:
    """Return the rows of a list; a sub-workflow whose parent is there too stands below it alone."""
    ids = {each.id for each in executions}
    children = request.kernel.executions.children
    found = children(sorted(ids), limit=_SHOWN_CHILDREN) if ids else {}
    every = {each.id: each for of in (executions, *(its.executions for its in found.values()))
             for each in of}  # fmt: skip
    waits = first_waits_shown(request.kernel, list(every.values()))
    rows = []
    for each in executions:
        if each.parent_id in ids:
            continue
        its = found.get(each.id, ChildExecutions())
        more = sum(its.counts.values()) - len(its.executions)
        rows.append(ListedExecution(each, its.executions, more, waits))
    return rows


def _search(request: PageRequest, query: ExecutionConditions, text: str) -> PageAnswer:
    """Find executions by an id, a label or its value, or else by words of an error or the input."""
    kernel, beyond = request.kernel, request.query.get("beyond", "")
    try:
        return show(request, str(UUID(text)))
    except ValueError:
        pass
    given = query.matching(request, kernel.outbox.now())
    asked = {**given, "labels": None, "label": text}
    found = kernel.executions.page(**asked, seconds=PATIENCE) if not beyond else ExecutionPage()
    if found.executions:
        return _list(request, query, text, found, [])
    found = _with_input(request, given, text, beyond)
    more = query.url(request, q=text, beyond=found.after) if found.after else ""
    if beyond or "=" in text:
        return _list(request, query, text, found, [], more)
    words = text.lower()
    every = causes(request, query, asked.get("tenant_id"), most=100)
    groups = [
        cause
        for cause in every
        for group in (cause.group,)
        if words in f"{group.group} {group.error_code} {group.error}".lower()
    ]
    return _list(request, query, text, found, groups[:MOST_CAUSES], more)


def _with_input(
    request: PageRequest, given: Mapping[str, Any], text: str, after: str
) -> ExecutionPage:
    """
    Find executions whose input holds *text*, the newest first, among those that are *given*.

    No index leads to it: what bounds it is the number of inputs that are read, and the time.
    """
    kernel, until = request.kernel, monotonic() + _INPUT_SECONDS
    words = json.dumps(text, ensure_ascii=False)[1:-1].casefold()
    matching: list[Execution] = []
    looked, step = 0, _FIRST_INPUTS
    while True:
        found = kernel.executions.page(
            **given, after=after, limit=step, look=_MOST_INPUTS, events=True
        )
        matching += [each for each in found.executions if _has(kernel, each.event.payload, words)]
        looked, after = looked + max(len(found.executions), found.looked), found.after
        over = len(matching) >= _MOST_FOUND or looked >= _MOST_INPUTS or monotonic() >= until
        if not after or over:
            return ExecutionPage(matching, after, looked if after else 0)
        step = min(2 * step, _INPUTS)


def _has(kernel: Kernel, payload: Any, words: str) -> bool:
    """Return True if a payload holds *words* where it is shown: what is hidden is not found."""
    if words not in json.dumps(payload, ensure_ascii=False).casefold():
        return False
    shown = hide_named(kernel.redactor.redact_value(payload))
    return words in json.dumps(shown, ensure_ascii=False).casefold()


def causes(
    request: PageRequest,
    query: ExecutionConditions,
    tenant: str | None,
    most: int = MOST_CAUSES,
) -> list[FailureCause]:
    """Return the causes of the executions that failed."""
    groups = request.kernel.executions.error_groups(
        workflow=query.get("workflow") or None, tenant_id=tenant, limit=most
    )
    failed = {**query.fields, "status": ExecutionStatus.FAILED.value}
    return [
        FailureCause(each, {**failed, "workflow": each.kind, "group": each.group or ""})
        for each in groups
    ]


# -- many at once ------------------------------------------------------------------------------


def order(request: PageRequest) -> PageAnswer | OrderAnswer:
    """Compare two ticked executions, or carry a bulk action out on those ticked, or on all."""
    query = ExecutionConditions.read(request)
    ids = tuple(request.form.every("id")[:MOST_TICKED])
    if request.form.get("order") == "compare":
        if len(ids) != 2:
            return OrderAnswer(query.url(request), "Tick the two executions to compare.", "warn")
        return OrderAnswer(request.url("executions", "compare", a=ids[0], b=ids[1]))
    now = request.kernel.outbox.now()
    matching = query.matching(request, now)
    fields = dict(query.fields)
    if request.form.get("scope") == "all":
        if request.form.get("order") not in query.actions:
            raise PageError(400, "this can't be done with all of these executions")
        ids = ()
        if "since" in fields:  # the same executions, however long it takes
            fields.pop("since")
            fields["from"] = matching["created_after"].isoformat()
            query = ExecutionConditions(fields)
    else:
        tenant = request.user.tenant
        matching = {"ids": list(ids), **({} if tenant is None else {"tenant_id": tenant})}
    back = PageLink("Executions", query.url(request))
    words = "ticked executions" if ids else query.words
    scope = BulkScope("executions", matching, fields, words, back, ids)
    if request.form.get("order") == "fork":
        names = _workflows_of(request, ids) if ids else {query.get("workflow")}
        if len(names) > 1:
            text = "Tick executions of one workflow: their copies begin from the same step."
            return OrderAnswer(back.url, text, "warn")
        scope = replace(scope, steps=_steps_to_copy_from(request, "".join(names)))
    return carry_out(request, scope)


def _workflows_of(request: PageRequest, ids: Sequence[str]) -> set[str]:
    where = [Where("id", "in", item_ids_of(ids))]
    if request.user.tenant is not None:
        where.append(Where("tenant_id", "eq", request.user.tenant))
    with request.kernel.storage.begin(atomic=False) as rows:
        return {row["workflow"] for row in rows.select(EXECUTION, where, columns=("workflow",))}


def _steps_to_copy_from(request: PageRequest, name: str) -> list[str]:
    latest = request.kernel.executions.page(workflow=name, limit=1, tenant_id=request.user.tenant)
    workflow = None
    for each in latest.executions:
        workflow = pinned_workflow(request.kernel, each.definition_id)
    return [step.id for step in workflow.steps][:_MOST_STEPS] if workflow else []


# -- the grid ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GridCell:
    """A step in one run: its status, and where it is shown; empty where it has not begun."""

    status: str = ""
    url: str = ""
    text: str = ""


def show_grid(request: PageRequest) -> PageAnswer:
    """Show the last runs of a workflow as columns, with a cell for each step."""
    kernel, query = request.kernel, ExecutionConditions.read(request)
    names = workflow_names(request)
    runs: list[Execution] = []
    if query.get("workflow"):
        asked = query.matching(request, kernel.outbox.now())
        runs = kernel.executions.page(**asked, limit=_GRID_RUNS, seconds=PATIENCE).executions[::-1]
    statuses = kernel.executions.step_statuses([each.id for each in runs]) if runs else {}
    longest = max((each.duration_seconds or 0 for each in runs), default=0) or 1
    return PageAnswer(
        "grid.html",
        "Grid of steps",
        {
            "query": query,
            "names": names,
            "views": _views(request, query, "grid"),
            "statuses": query.tabs(request, "grid"),
            "times": [(value, label) for value, (label, _) in TIMES.items()],
            "runs": [(each, round(40 * (each.duration_seconds or 0) / longest)) for each in runs],
            "rows": [
                (step_id, [_cell(request, run, statuses, step_id) for run in runs])
                for step_id in _steps_of(request, runs, statuses)
            ],
        },
        crumbs=[PageLink("Executions", query.url(request))],
        live=True,
    )


def _steps_of(
    request: PageRequest, runs: Sequence[Execution], statuses: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the steps of the rows: those of the newest definition, then others that have run."""
    workflow = pinned_workflow(request.kernel, runs[-1].definition_id) if runs else None
    defined = [step.id for step in workflow.steps] if workflow else []
    begun = sorted({step for its in statuses.values() for step in its if "[" not in step})
    return list(dict.fromkeys([*defined, *begun]))[:_GRID_STEPS]


def _cell(
    request: PageRequest,
    run: Execution,
    statuses: Mapping[str, Mapping[str, Mapping[str, int]]],
    step_id: str,
) -> GridCell:
    counts = statuses.get(run.id, {}).get(step_id, {})
    if not counts:
        return GridCell()
    worst = next((each for each in _WORST if each in counts), "")
    text = ", ".join(f"{n:,} {status}" for status, n in counts.items())
    many = sum(counts.values()) > 1
    place = () if many else ("steps", step_id, "whole")
    return GridCell(worst, request.url("executions", run.id, *place), text if many else worst)


# -- two side by side --------------------------------------------------------------------------


def compare(request: PageRequest) -> PageAnswer:
    """Show two executions side by side: their events, and each step that went otherwise."""
    kernel = request.kernel
    with kernel.storage.begin(atomic=False) as rows:
        first, second = (
            Execution.from_row(read_row(rows, request, request.text(name))) for name in ("a", "b")
        )
        steps = compared_steps(kernel, rows, first, second)
    return PageAnswer(
        "compare.html",
        "Two executions",
        {
            "pair": (first, second),
            "steps": steps,
            "payload": compared_values(kernel, first.event.payload, second.event.payload),
            "output": compared_values(kernel, first.output, second.output),
            "tone": tone,
        },
        crumbs=[PageLink("Executions", request.url("executions"))],
    )
