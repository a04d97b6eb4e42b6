"""
Repairs by hand: the steps that are kept, and those that run again, where an execution goes on.

A step's row says that it has ended, and no step with such a row is called again. So a repair is a
choice of rows: those that it deletes run once more.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.checkpoint import LIVE
from automate_kernel.storage.query import Now, PerKey, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.statuses import words
from automate_kernel.storage.tables import DEFINITION, EXECUTION, STEP, TABLES
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.decide.children import (
    BegunChild,
    begun_for,
    end_items,
    left_headers,
)
from automate_kernel.workflows.decide.phases import NOT_UNDONE
from automate_kernel.workflows.decide.record import (
    forgotten_on_retry,
    reset_on_resume,
    undoes,
)
from automate_kernel.workflows.definition.blocks import (
    block_of,
    inside,
    list_path,
    lists_around,
    top_id,
)
from automate_kernel.workflows.definition.model import CodeWorkflow, Step, Workflow
from automate_kernel.workflows.execution import (
    Execution,
    ExecutionStatus,
    StepKey,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.store.relatives import ends_of_chains
from automate_kernel.workflows.store.stored import (
    concurrency_of,
    definition_row,
    step_runs,
    stored_workflow,
    wake_up,
)

_COMPLETED = StepStatus.COMPLETED.value
_STOPPED = (
    StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.RUNNING, StepStatus.WAITING
)  # fmt: skip
_FAILED_OR_LEFT = [StepStatus.FAILED.value, StepStatus.CANCELLED.value]
# A statement that changes rows names so many: MariaDB leaves the index for a long list.
_AT_ONCE = 500


@dataclass(slots=True)
class StepReset:
    """
    The steps whose rows a repair deletes.

    *steps* are forgotten whatever their status, *elements* at these positions only, and the others
    if they did not come to their end. Of the steps in *spared* that have FAILED stay so. With
    *alone* nothing else is forgotten: the failures that a function has dealt with stay. With *anew*
    all of them begin anew; else sub-workflows of those that did not come to their end go on.
    """

    steps: set[str] = field(default_factory=set)
    elements: dict[str, list[int]] = field(default_factory=dict)
    spared: set[str] = field(default_factory=set)
    alone: bool = False
    anew: bool = False

    @classmethod
    def of_code(cls, runs: Iterable[StepRun], *, anew: bool) -> StepReset:
        """Return those that a workflow in code forgets: these *runs* alone."""
        return cls({run.step_id for run in runs}, alone=True, anew=anew)

    def delete(self, rows: Rows, execution_ids: Sequence[str], workflow: Workflow) -> None:
        """Delete the rows of executions of *workflow*, all of which forget the same."""
        its = Where("execution_id", "in", execution_ids)
        known = [step.id for step in workflow.steps]
        if workflow.has_blocks:
            for each in execution_ids:
                own = Where("execution_id", "eq", each)
                self.delete_inside(rows, own, set(known) - self.spared)
        stopped = [Where("status", "in", [each.value for each in _STOPPED])]
        if self.spared:
            failing = sorted(set(known) - self.spared)
            rows.delete(
                STEP,
                [
                    its,
                    Where("status", "eq", StepStatus.FAILED.value),
                    Where("step_id", "in", failing),
                ],
            )
            stopped = [Where("status", "in", [each.value for each in _STOPPED[1:]])]
        if not self.alone:
            rows.delete(STEP, [its, *stopped])
        if self.steps:
            rows.delete(STEP, [its, Where("step_id", "in", sorted(self.steps))])
        for step_id, positions in self.elements.items():
            where = [Where("step_id", "eq", step_id), Where("position", "in", [-1, *positions])]
            rows.delete(STEP, [its, *where])

    def delete_inside(self, rows: Rows, its: Where, again: Collection[str]) -> None:
        """
        Delete the rows of steps inside blocks that are forgotten.

        Inside the blocks that run *again* these are the steps that did not come to their end.
        """
        found = rows.select(STEP, [its], columns=("id", "step_id", "position", "status"))
        gone = [
            row["id"]
            for row in found
            if "." in row["step_id"]
            and (
                not self.keeps(row)
                or (row["status"] in _STOPPED and top_id(row["step_id"]) in again)
            )
        ]
        for first in range(0, len(gone), _AT_ONCE):
            rows.delete(STEP, [its, Where("id", "in", gone[first : first + _AT_ONCE])])

    def keeps(self, row: Row) -> bool:
        """Return True if a copy of the execution has the step of *row*, which has ended."""
        path, position = row["step_id"], row["position"]
        if self.alone:
            return path not in self.steps
        if path in self.steps or path in self.elements:
            return path not in self.steps and position not in (-1, *self.elements[path])
        outermost, element = block_of(path.partition(".")[0])
        if outermost == path:
            return True
        return outermost not in self.steps and element not in self.elements.get(outermost, ())


def reset_steps(
    rows: Rows,
    ended: Sequence[Row],
    gone: Mapping[str, StepReset],
    workflow: Workflow,
    corrected: Workflow | None = None,
) -> None:
    """
    Forget what is *gone*, by the id, of executions of *workflow*, whose rows are as they *ended*.

    A step whose sub-workflow may go on is kept as one that is due, with what it has begun; if it
    still has one, where it goes on with a *corrected* definition.
    """
    mine = Where("parent_id", "in", [row["id"] for row in ended])
    parents = {each["parent_id"] for each in rows.count(EXECUTION, ["parent_id"], [mine])}
    begun = [
        each
        for row in ended
        if row["id"] in parents and not gone[row["id"]].anew
        for key, each in _begun_children(rows, row, gone[row["id"]]).items()
        if corrected is None or _has_child(corrected, key[0])
    ]
    alike: list[tuple[StepReset, list[str]]] = []
    for row in ended:
        its = gone[row["id"]]
        same = next((ids for each, ids in alike if each == its), None)
        if same is None:
            alike.append((its, same := []))
        same.append(row["id"])
    for each, ids in alike:
        each.delete(rows, ids, workflow)
    if not begun:
        return
    ids_begun = Where("id", "in", [step["id"] for step, _ in begun])
    kept = {step["id"] for step in rows.select(STEP, [ids_begun], columns=("id",))}
    rows.insert(STEP, [_going_on(step, child) for step, child in begun if step["id"] not in kept])


def forgotten(
    rows: Rows, execution_id: str, workflow: Workflow, step_id: str | None = None
) -> StepReset:
    """
    Return what is forgotten of an execution that goes on, from *step_id* if that is given.

    Whatever cleaned up is, and what was undone, with all that follows from it. Of a workflow in
    code it is what `reset_on_resume` returns.
    """
    return forgotten_of_each(rows, [execution_id], workflow, step_id)[execution_id]


def forgotten_of_each(
    rows: Rows, execution_ids: Sequence[str], workflow: Workflow, step_id: str | None = None
) -> dict[str, StepReset]:
    """Return, by their ids, what `forgotten` returns for executions of one *workflow*."""
    if isinstance(workflow, CodeWorkflow):
        runs = step_runs(rows, execution_ids)
        these = [Where("id", "in", execution_ids)]
        again = {
            row["id"]: reset_on_resume(
                runs.get(row["id"], ()), step_id, workflow.name, row["error"]
            )
            for row in rows.select(EXECUTION, these, columns=("id", "error"))
        }
        return {
            each: StepReset.of_code(its, anew=step_id is not None) for each, its in again.items()
        }
    own = {step.id for step in workflow.steps}
    cleaning = {step.id for step in workflow.every_step()} - own
    undoing = {step.id: own_id for own_id, step in workflow.compensations.items()}
    always = cleaning | set(undoing)
    if step_id is not None:
        always |= set(workflow.followers(step_id))
    found = {each: StepReset(set(always)) for each in execution_ids}
    if not undoing:
        return found
    undone = rows.select(
        STEP,
        [
            Where("execution_id", "in", execution_ids),
            Where("step_id", "in", sorted(undoing)),
            Where("status", "eq", _COMPLETED),
        ],
        columns=("execution_id", "step_id", "position"),
    )
    for row in undone:
        its, gone = undoing[row["step_id"]], found[row["execution_id"]]
        gone.steps |= set(workflow.followers(its)[1:])
        if workflow.step(its).for_each is None:
            gone.steps.add(its)
        elif row["position"] >= 0:
            gone.elements.setdefault(its, []).append(row["position"])
    return found


def retried_in_code(
    rows: Rows, row: Row, workflow: Workflow, step_id: str
) -> tuple[StepReset, dict[str, Any]]:
    """
    Return what is forgotten, and what changes, so that a failed call of code runs once more.

    After a call that undoes something nothing else begins that had not before: the execution ends
    as it did, by the error that it had.
    """
    runs = _calls_of(rows, row["id"])
    again = forgotten_on_retry(runs, step_id, workflow.name)
    undone_again = any(undoes(run) for run in again if run.step_id == step_id)
    went_well = row["status"] == ExecutionStatus.COMPLETED.value
    changes = {} if went_well or not undone_again else _still_ending(row)
    return StepReset.of_code(again, anew=False), changes


def _calls_of(rows: Rows, execution_id: str) -> Sequence[StepRun]:
    """Return the runs of an execution of code, in the order of its calls."""
    return step_runs(rows, [execution_id]).get(execution_id, ())


def followers_of_both(known: Workflow, workflow: Workflow, step_id: str) -> set[str]:
    """
    Return *step_id* and all steps that follow from it in *workflow*, the definition to go on with.

    Those that did in the *known* one, and are no more, are forgotten too.
    """
    found = set(workflow.followers(step_id))
    if step_id in known.order():
        found |= {each for each in known.followers(step_id) if not workflow.has(each)}
    return found


def check_fits(
    rows: Rows, execution_id: str, known: Workflow, workflow: Workflow, gone: StepReset
) -> None:
    """
    Raise ``FAILED_PRECONDITION`` unless *workflow* has the steps that have completed and are kept.

    Their outputs and what they did would be lost to it. *known* is the workflow so far. That a
    function repeats its calls is seen when it runs.
    """
    if isinstance(known, CodeWorkflow) or isinstance(workflow, CodeWorkflow):
        if type(known) is not type(workflow):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"workflow {workflow.name!r} was code, or is now: its steps can't be told apart",
                hint="resume it without another definition, or start it anew",
            )
        return
    done = [Where("execution_id", "eq", execution_id), Where("status", "eq", _COMPLETED)]
    kept = [
        row
        for row in rows.select(STEP, done, order_by=("id",), columns=("step_id", "position"))
        if gone.keeps(row)
    ]
    for row in kept:
        path = row["step_id"]
        if not workflow.has(path):
            part = f"element {row['position']} of step" if row["position"] >= 0 else "step"
            # Whatever follows from a step is forgotten with it, whether it is still there or not.
            before = [each for each in known.needs_of(top_id(path)) if workflow.has(each)]
            other = f", or go on from a step before it, {before[0]!r} say" if before else ""
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"{part} {path!r} has completed, and the corrected workflow {workflow.name!r} has"
                " no such step",
                hint=f"keep it in the definition: it does not run again{other}; or start anew",
            )
        places = (block_of(each)[0] for each in lists_around(path))
        for step_id in (path, *places):
            _check_repeats(known.step(step_id), workflow.step(step_id), workflow.name)


def _check_repeats(was: Step, step: Step, workflow: str) -> None:
    """Raise ``FAILED_PRECONDITION`` unless *step* repeats as it *was*, in rounds or over a list."""
    if step.repeats is was.repeats and step.loops is was.loops:
        return
    done = "in rounds" if was.loops else "for the elements of a list" if was.repeats else "once"
    has = "while or until" if step.loops else "for_each" if step.repeats else ""
    missing = "while and no until" if was.loops else "for_each"
    raise AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"step {step.id!r} has completed {done}, and has {has or f'no {missing}'} in the corrected"
        f" workflow {workflow!r}",
        hint="go on from it, with step_id: all of it runs again then",
    )


def reopening(item_id: str) -> dict[str, Any]:
    """Return what changes of an ended execution that waits for the item *item_id* again."""
    return {
        "status": ExecutionStatus.PENDING.value,
        "output": None,
        "output_ref": None,
        "error_code": None,
        "error": None,
        "error_group": None,
        "completed_at": None,
        "item_id": item_id,
        "updated_at": Now(),
    }


def reopen_rows(
    rows: Rows, row: Row, statuses: Sequence[ExecutionStatus], changes: Mapping[str, Any]
) -> bool:
    """Change the execution of *row* if it is in one of *statuses*; return False if it isn't."""
    able = [Where("id", "eq", row["id"]), Where("status", "in", [each.value for each in statuses])]
    return bool(rows.update(EXECUTION, able, {**changes, **_left_alone(rows, row)}))


def _left_alone(rows: Rows, row: Row) -> dict[str, Any]:
    """Return what changes of a sub-workflow whose parent has ended: nobody waits for it now."""
    # Its headers say who does: what they hold must not refuse its own sub-workflows for ever.
    if row["parent_id"] is None:
        return {}
    parent = [Where("id", "eq", row["parent_id"]), Where("status", "in", LIVE)]
    if rows.select(EXECUTION, parent, columns=("id",)):
        return {}
    (its,) = rows.select(EXECUTION, [Where("id", "eq", row["id"])], columns=("event",))
    if not its["event"].get("headers"):
        return {}
    event = {**its["event"], "headers": left_headers(its["event"])}
    return {"event": encode_json(event, "event", sys.maxsize, inside=1)}


def reopen_failed(
    rows: Rows,
    failed: Sequence[Row],
    gone: Mapping[str, StepReset],
    known: Workflow,
    items: Mapping[str, str],
) -> None:
    """
    Let FAILED executions of the workflow *known*, whose rows are locked, wait for their *items*.

    *gone* has what `forgotten_of_each` returns for them.
    """
    alone = [row["id"] for row in failed if row["parent_id"] is None]
    if alone:
        its = PerKey({each: items[each] for each in alone})
        rows.update(EXECUTION, [Where("id", "in", alone)], {**reopening(""), "item_id": its})
    for row in failed:
        if row["parent_id"] is not None:
            reopen_rows(rows, row, [ExecutionStatus.FAILED], reopening(items[row["id"]]))
    reset_steps(rows, failed, gone, known)


def cleaning_again(rows: Rows, row: Row, workflow: Workflow, step_id: str) -> dict[str, Any]:
    """
    Forget a step that cleans up, and return what changes of its execution so that it runs again.

    What has been cleaned up stays so; the steps under ``finally`` run at the end once more.
    """
    its = Where("execution_id", "eq", row["id"])
    found = rows.select(STEP, [its], columns=("step_id", "position", "status"))
    cancelled = row["status"] == ExecutionStatus.CANCELLED.value
    succeeded = not cancelled and _succeeded(workflow, found)
    last = sorted(step.id for step in workflow.finally_)
    if workflow.has_blocks:
        StepReset(set(last)).delete_inside(rows, its, [step_id])
    rows.delete(STEP, [its, Where("step_id", "in", last)])
    # Elements that have been undone stay so.
    that = [its, Where("step_id", "eq", step_id)]
    rows.delete(STEP, [*that, Where("status", "ne", _COMPLETED)])
    rows.delete(STEP, [*that, Where("position", "eq", -1)])
    if succeeded:
        return {}
    return _still_ending(row)


def _still_ending(row: Row) -> dict[str, Any]:
    """Return what changes of an execution that cleans up once more, and ends as it did."""
    cancelled = row["status"] == ExecutionStatus.CANCELLED.value
    error = str(row["error"] or "")
    left = error.partition(NOT_UNDONE)[0].removesuffix("; ") or None
    status = ExecutionStatus.CANCELLING if cancelled else ExecutionStatus.RUNNING
    return {
        "status": status.value,
        "error": left,
        "error_code": row["error_code"] if left else None,
        "error_group": row["error_group"] if left else None,
    }


def _succeeded(workflow: Workflow, found: Sequence[Row]) -> bool:
    """Return True if its own steps have succeeded, and nothing was undone."""
    ended = {row["step_id"]: row["status"] for row in found if row["position"] < 0}
    undoing = {step.id for step in (*workflow.compensations.values(), *workflow.on_failure)}
    return not undoing.intersection(row["step_id"] for row in found) and all(
        ended.get(step.id) in (StepStatus.COMPLETED, StepStatus.SKIPPED)
        or (ended.get(step.id) == StepStatus.FAILED and step.on_failure == "continue")
        for step in workflow.steps
    )


def retry_now(
    rows: Rows, execution_id: str, workflow: Workflow, step_id: str, position: int
) -> bool:
    """
    Let a step be due now that waits for its retry; return False if it doesn't.

    Of one with ``for_each`` it is the element at *position*, or each; of a block what is inside.
    """
    waiting = [
        Where("execution_id", "eq", execution_id),
        Where("status", "eq", StepStatus.RETRY.value),
    ]
    found = rows.select(STEP, waiting, columns=("id", "step_id", "position"))
    alone = isinstance(workflow, CodeWorkflow)
    undoes = {step.id for step in workflow.compensations.values()}
    path = list_path(step_id, position)
    meant = [
        row["id"] for row in found
        if (row["step_id"] == step_id and position in (-1, row["position"]))
        or (not alone and row["step_id"] not in undoes and inside(row["step_id"], [path]))
    ]  # fmt: skip
    changed = 0
    for first in range(0, len(meant), _AT_ONCE):
        some = Where("id", "in", meant[first : first + _AT_ONCE])
        changed += rows.update(STEP, [*waiting, some], {"next_attempt_at": Now()})
    return changed > 0


def delete_runs(rows: Rows, execution_id: str, keys: Iterable[StepKey]) -> None:
    """Delete the rows of these runs of an execution."""
    its = Where("execution_id", "eq", execution_id)
    positions: dict[str, list[int]] = {}
    for step_id, position in keys:
        positions.setdefault(step_id, []).append(position)
    plain = sorted(step_id for step_id in positions if positions[step_id] == [-1])
    for first in range(0, len(plain), _AT_ONCE):
        some = Where("step_id", "in", plain[first : first + _AT_ONCE])
        rows.delete(STEP, [its, some, Where("position", "eq", -1)])
    for step_id in positions.keys() - set(plain):
        many = positions[step_id]
        for first in range(0, len(many), _AT_ONCE):
            some = Where("position", "in", many[first : first + _AT_ONCE])
            rows.delete(STEP, [its, Where("step_id", "eq", step_id), some])


def copied_steps(rows: Rows, source_id: str, execution_id: str, gone: StepReset) -> list[Row]:
    """Return rows for another execution: of the steps of *source_id* that ended and are kept."""
    its = Where("execution_id", "eq", source_id)
    kept = [StepStatus.COMPLETED, StepStatus.SKIPPED]
    if gone.alone:
        kept.append(StepStatus.FAILED)
    ended = [its, Where("status", "in", words(*kept))]
    columns = [column.name for column in TABLES[STEP].columns]
    copies = []
    # Ids are made in the order in which runs began.
    for row in rows.select(STEP, ended, order_by=("id",)):
        if gone.keeps(row):
            copy = {name: row[name] for name in columns}
            for name in ("output", "progress"):
                copy[name] = encode_json(copy[name], name)
            copies.append({**copy, "id": new_id(), "execution_id": execution_id})
    return copies


def reopen(
    rows: Rows,
    row: Row,
    item_id: str,
    statuses: Sequence[ExecutionStatus],
    step_id: str | None = None,
    workflow: Workflow | None = None,
) -> bool:
    """
    Let the ended execution of *row* wait for the item *item_id*; return False if it can't.

    It must be in one of *statuses*. The steps that did not come to their end are forgotten, with
    those that cleaned up, and those that were undone with all that follow from them. With *step_id*
    that step and all that follow from it are forgotten too. With *workflow* it goes on with this
    definition of it, and raises ``FAILED_PRECONDITION`` if that lacks a step that has completed.
    """
    known = stored_workflow(rows, row["definition_id"])
    in_code = isinstance(known, CodeWorkflow)
    gone = forgotten(rows, row["id"], known, step_id if workflow is None or in_code else None)
    changes = reopening(item_id)
    if workflow is not None:
        if step_id is not None and not in_code:
            gone.steps |= followers_of_both(known, workflow, step_id)
        gone.steps |= {step.id for step in workflow.every_step() if step not in workflow.steps}
        check_fits(rows, row["id"], known, workflow, gone)
        rows.insert(DEFINITION, [definition_row(workflow)])
        changes["definition_id"] = workflow.hash()
    if not reopen_rows(rows, row, statuses, changes):
        return False
    reset_steps(rows, [row], {row["id"]: gone}, known, workflow)
    return True


# -- sub-workflows that go on ----------------------------------------------------------------------


def _begun_children(rows: Rows, row: Row, gone: StepReset) -> dict[StepKey, tuple[Row, BegunChild]]:
    """
    Return the steps that *row*'s execution has not come to the end of, with their sub-workflows.

    Those alone that may go on, of steps that are *gone* only since they ended so.
    """
    columns = [column.name for column in TABLES[STEP].columns]
    its = [Where("execution_id", "eq", row["id"]), Where("status", "in", _FAILED_OR_LEFT)]
    stopped = {
        (step["step_id"], step["position"]): step
        for step in rows.select(STEP, its, columns=columns)
        if gone.alone or gone.keeps(step)
    }
    if not stopped:
        return {}
    latest: dict[StepKey, Row] = {}
    for child in _last_children(rows, row):
        key = begun_for(child)
        # One may have been retried with another.
        if key in stopped:
            latest[key] = child
    found: dict[StepKey, tuple[Row, BegunChild]] = {}
    workflows: dict[str, Workflow] = {}
    for key, child in latest.items():
        # The step has started the first of its chain.
        first = [child]
        if child["chain_id"] is not None:
            its = [Where("id", "eq", child["chain_id"])]
            first = rows.select(EXECUTION, its, columns=("id", "event"))
        if first and _may_go_on(rows, child, stopped[key], workflows):
            found[key] = stopped[key], BegunChild.of_rows(first[0], child)
    return found


def _has_child(workflow: Workflow, step_id: str) -> bool:
    if isinstance(workflow, CodeWorkflow):
        return True
    step = workflow.find_step(step_id)
    return step is not None and step.workflow is not None and step.wait


def _last_children(rows: Rows, row: Row) -> list[Row]:
    """Return the sub-workflows that did not complete before their parent ended, oldest first."""
    its = [Where("parent_id", "eq", row["id"]), Where("successor_id", "eq", None)]
    names = ("id", "chain_id", "definition_id", "status", "event", "created_at")
    other = [each.value for each in ExecutionStatus if each is not ExecutionStatus.COMPLETED]
    found = rows.select(EXECUTION, [*its, Where("status", "in", other)], columns=names)
    # Somebody may have resumed one by itself.
    late = [Where("status", "eq", _COMPLETED), Where("completed_at", "ge", row["completed_at"])]
    found += rows.select(EXECUTION, [*its, *late], columns=names)
    return sorted(found, key=lambda each: (each["created_at"], each["id"]))


def _may_go_on(rows: Rows, child: Row, step: Row, workflows: dict[str, Workflow]) -> bool:
    """
    Return True if *child*, which *step* has begun, may go on with its parent.

    *workflows* are those that were read already: many may be of one.
    """
    status = ExecutionStatus(child["status"])
    if not status.finished:
        # Somebody has resumed it, unless it is being cancelled since nobody waits for it.
        failed = step["status"] == StepStatus.FAILED.value
        late = step["error_code"] == ErrorCodes.DEADLINE_EXCEEDED
        return failed and not late and status is not ExecutionStatus.CANCELLING
    if status is ExecutionStatus.COMPLETED:
        return True
    definition_id = child["definition_id"]
    try:
        if definition_id not in workflows:
            workflows[definition_id] = stored_workflow(rows, definition_id)
        forgotten(rows, child["id"], workflows[definition_id])
    except AutomateError as error:
        if error.retryable:
            raise
        # It has undone what it had done, say.
        return False
    return True


def _going_on(step: Row, child: BegunChild) -> Row:
    """Return the row of a step that is due, and goes on with *child*."""
    same = ("id", "execution_id", "step_id", "position", "place")
    columns = [column.name for column in TABLES[STEP].columns]
    return {
        **dict.fromkeys(columns),
        **{name: step[name] for name in same},
        "status": StepStatus.RETRY.value,
        "attempts": 0,
        "failures": 0,
        "output": encode_json(child.to_json(), "output"),
        "next_attempt_at": Now(),
    }


def resumed_child(
    rows: Rows, execution_id: str, headers: Mapping[str, str], priority: int
) -> list[NewItem] | None:
    """
    Let a sub-workflow go on whose parent was resumed; return the items that tell of it.

    *execution_id* is the first of its chain, and *headers* say who waits for it now. Returns None
    if it is not there any more.
    """
    last = ends_of_chains(rows, [execution_id]).get(execution_id, execution_id)
    found = rows.select(EXECUTION, [Where("id", "eq", last)])
    if not found:
        return None
    row, item_id = found[0], new_id()
    if row["status"] in LIVE:
        return []
    able = [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]
    if ExecutionStatus(row["status"]) not in able or not _reopened(rows, row, item_id, able):
        # It has ended before anybody waits for it.
        return end_items(Execution.from_row(row))
    if row["event"].get("headers") != headers:
        event = encode_json({**row["event"], "headers": headers}, "event", sys.maxsize, inside=1)
        rows.update(EXECUTION, [Where("id", "eq", last)], {"event": event})
    concurrency = concurrency_of(rows, row)
    return [
        wake_up(
            last, row["workflow"], item_id, row["tenant_id"], priority,
            concurrency=concurrency, resumed=True,
        )
    ]  # fmt: skip


def _reopened(rows: Rows, row: Row, item_id: str, able: Sequence[ExecutionStatus]) -> bool:
    try:
        return reopen(rows, row, item_id, able)
    except AutomateError as error:
        if error.retryable:
            raise
        return False
