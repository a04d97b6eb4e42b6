"""Pages of executions: read along the index that serves a filter best, however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from automate_kernel.outbox.labels import MOST_LABELLED, labelled_ids
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.rows import Rows, Where
from automate_kernel.storage.tables import EXECUTION, TABLES
from automate_kernel.workflows.execution import Execution, ExecutionStatus

_COLUMNS = ("tenant_id", "status", "workflow", "error_group")
_BRIEF = tuple(
    column.name for column in TABLES[EXECUTION].columns if column.name not in ("event", "output")
)
# An execution's row without its event and output, which may be large.
_WITHOUT: dict[str, Any] = {"event": {"id": "", "name": ""}, "output": None}


class ExecutionFilter(TypedDict, total=False):
    """
    Conditions on executions; all conditions must hold, and None is no condition.

    *label* is ``order=4711``, or ``4711`` under any name. *ids* are those of executions.
    """

    status: ExecutionStatus | str | None
    workflow: str | None
    tenant_id: str | None
    error_group: str | None
    created_after: datetime | None
    created_before: datetime | None
    label: str | None
    ids: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class ExecutionPage:
    """
    A page of executions; *after* leads to the next one, and is empty at the end.

    *looked* is above 0 if there may be more, but only so many executions were looked through.
    """

    executions: list[Execution] = field(default_factory=list)
    after: str = ""
    looked: int = 0


def read_execution_page(
    rows: Rows, matching: Mapping[str, Any], *, events: bool = False, **options: Any
) -> ExecutionPage:
    """Return a page of executions; see `ExecutionStore.page`."""
    given = {name: value for name, value in matching.items() if value is not None}
    if "status" in given:
        given["status"] = ExecutionStatus(given["status"]).value
    where = {name: Where(name, "eq", given[name]) for name in _COLUMNS if name in given}
    # A place in another list leads nowhere.
    name = f"executions {sorted((one.column, one.value) for one in where.values())}"
    leading = _leading(where)
    along = [] if leading is None else [where.pop(leading)]
    if "created_after" in given:
        along.append(Where("created_at", "ge", given["created_after"]))
    if "created_before" in given:
        along.append(Where("created_at", "lt", given["created_before"]))
    rest = list(where.values())
    if "label" in given:
        tenant = given.get("tenant_id")
        known = labelled_ids(
            rows, given["label"], about="execution", tenant_id=tenant, limit=MOST_LABELLED
        )
        # The key's index finds them: nothing has to be looked for.
        along, rest = [*along, *rest, Where("id", "in", [each.id for each in known])], []
    if "ids" in given:
        along, rest = [*along, *rest, Where("id", "in", list(given["ids"]))], []
    ranges = [IndexRange(along, ("-created_at", "-id"), rest)]
    columns = (*_BRIEF, "event") if events else _BRIEF
    found = read_page(rows, EXECUTION, ranges, name=name, columns=columns, **options)
    executions = [Execution.from_row({**_WITHOUT, **row}) for row in found.rows]
    return ExecutionPage(executions, found.after, found.looked)


def _leading(where: dict[str, Where]) -> str | None:
    """Return the column whose index is read: the one that is likely to leave the fewest rows."""
    names = ["tenant_id", "status", "workflow"]
    # Nearly all executions are COMPLETED: that leaves many.
    if "status" in where and where["status"].value == ExecutionStatus.COMPLETED.value:
        names = ["tenant_id", "workflow", "status"]
    return next((name for name in names if name in where), None)
