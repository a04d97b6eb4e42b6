"""
Questions: what an approval asks once its templates are rendered, and who is told of it.

The row of the wait keeps the question, and the decision once there is one. It is read from there,
so that a decision counts for the asking that it was made for and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, type_name
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.item import new_id
from automate_kernel.workflows.decide.waits import Wait, approval_key
from automate_kernel.workflows.definition.approval import (
    MOST_DESCRIPTION,
    MOST_PEOPLE,
    MOST_TITLE,
    Approval,
    is_person,
)
from automate_kernel.workflows.execution import Event, StepRun

NOTICE = "automate.approval"
"""The kind of the outbox item that tells somebody of an approval."""

_CUT = "…"


def approval_wait(
    run: StepRun, approval: Approval, rendered: Mapping[str, Any], tenant_id: str | None = None
) -> Wait:
    """
    Return the wait of *run* for a decision.

    *rendered* are the values of the approval's title, description and ``by``. Raises
    ``INVALID_ARGUMENT`` if nobody could decide.
    """
    description = rendered.get("description")
    details: dict[str, Any] = {
        "title": _cut(" ".join(str(rendered["title"]).split()), MOST_TITLE),
        "description": None if description is None else _cut(str(description), MOST_DESCRIPTION),
        "by": _people(approval, rendered.get("by", ())),
        "form": [each.model_dump(mode="json", exclude_defaults=True) for each in approval.form],
        # Tells this asking from an earlier one of the same step.
        "asked": new_id(),
    }
    items: list[NewItem] = []
    if approval.notify is not None:
        told = [] if approval.notify.once else details["by"]
        items = [_notice(run, details["asked"], to, tenant_id) for to in told or [None]]
    key = approval_key(run.execution_id, run.step_id, run.position)
    return Wait(run, "approval", key, details, approval.timeout, items=items)


def _people(approval: Approval, given: Any) -> list[str]:
    people = [given] if isinstance(given, str) else given
    if not isinstance(people, (list, tuple)):
        raise _nobody(f"by gave {type_name(given)}, not a list of names")
    if len(people) > MOST_PEOPLE:
        raise _nobody(f"by gave more than {MOST_PEOPLE} names")
    if not all(map(is_person, people)):
        raise _nobody("by gave something else than names, or a name with spaces around it")
    if not people and approval.by:
        # To let anybody decide because a list came out empty would be a trap.
        raise _nobody("by gave no name, so nobody could decide")
    return list(dict.fromkeys(people))


def _nobody(message: str) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"the approval's {message}")


def _notice(run: StepRun, asked: str, to: str | None, tenant_id: str | None) -> NewItem:
    payload = {
        "execution_id": run.execution_id, "step_id": run.step_id, "position": run.position,
        "asked": asked, "to": to,
    }  # fmt: skip
    # With an id of its own: saved twice, it is enqueued once.
    return NewItem(NOTICE, payload, id=new_id(), tenant_id=tenant_id)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + _CUT


def decision_event(row: Mapping[str, Any]) -> Sequence[Event]:
    """Return the event of the decision in the *row* of a wait: one or, before it is made, none."""
    decision = (row["details"] or {}).get("decision")
    if decision is None:
        return ()
    return (
        Event(
            id=row["id"],
            name=NOTICE,
            payload=decision,
            source="approval",
            tenant_id=row["tenant_id"],
            occurred_at=decision["at"],
        ),
    )
