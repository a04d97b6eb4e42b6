"""Pages of executions: read along the index that serves a filter best, however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from automate_kernel.base.arguments import check_choice, check_names, several
from automate_kernel.outbox.labels import read_label
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.storage.paging import IndexRange, read_chosen_page, read_page
from automate_kernel.storage.query import Portion, Where
from automate_kernel.storage.rows import Row, Rows
from automate_kernel.storage.tables import EXECUTION, LABEL, TABLES
from automate_kernel.workflows.execution import Execution, ExecutionStatus

_COLUMNS = ("tenant_id", "status", "workflow", "error_group", "parent_id")
_BRIEF = tuple(
    column.name for column in TABLES[EXECUTION].columns if column.name not in ("event", "output")
)
# An execution's row without its event and output, which may be large.
_WITHOUT: dict[str, Any] = {"event": {"id": "", "name": ""}, "output": None}
_NEWEST = ("-created_at", "-id")


class ExecutionFilter(TypedDict, total=False):
    """
    Conditions on executions; all conditions must hold, and None is no condition.

    *label* is ``order=4711``, or ``4711`` under any name. Of several *labels* an execution must
    have all; the first one's index is read, so the rarest should come first. *parent_id* is the
    execution whose step waits for these. *ids* are those of executions.
    """

    status: ExecutionStatus | str | None
    workflow: str | None
    tenant_id: str | None
    error_group: str | None
    created_after: datetime | None
    created_before: datetime | None
    label: str | None
    labels: Sequence[str] | None
    parent_id: str | None
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
    check_names(matching, ExecutionFilter.__annotations__, "executions")
    given = {name: value for name, value in matching.items() if value is not None}
    if "status" in given:
        given["status"] = check_choice(given["status"], ExecutionStatus, "status").value
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
    if "ids" in given:
        along, rest = [*along, *rest, Where("id", "in", item_ids_of(given["ids"]))], []
    columns = (*_BRIEF, "event") if events else _BRIEF
    labels = [*several(given.get("labels", ())), *([given["label"]] if "label" in given else ())]
    if labels:
        of = _Labelled(rows, labels, [*along, *rest], columns, given.get("tenant_id"))
        return of.page(name=f"{name} {sorted(labels[1:])}", **options)
    ranges = [IndexRange(along, _NEWEST, rest)]
    found = read_page(rows, EXECUTION, ranges, name=name, columns=columns, **options)
    executions = [_without_event(row) for row in found.rows]
    return ExecutionPage(executions, found.after, found.looked)


class _Labelled:
    """The executions that have all of *labels* and match *where*, found along the first label."""

    def __init__(
        self,
        rows: Rows,
        labels: Sequence[str],
        where: Sequence[Where],
        columns: Sequence[str],
        tenant_id: str | None,
    ) -> None:
        self._rows, self._where, self._columns = rows, where, columns
        self._first, *self._others = (read_label(label) for label in labels)
        self._tenant_id = tenant_id
        self._found: dict[str, Row] = {}

    def page(self, *, name: str, **options: Any) -> ExecutionPage:
        label, value = self._first
        its = [Where("value", "eq", value)]
        rest = {"name": label, "about": "execution", "tenant_id": self._tenant_id}
        also = [Where(column, "eq", each) for column, each in rest.items() if each is not None]
        along = IndexRange([*its, *also], _NEWEST)
        chosen = read_chosen_page(
            self._rows, LABEL, along, self._choose, name=f"{name} {label}={value}",
            columns=("id", "subject_id", "created_at"), **options,
        )  # fmt: skip
        executions = [_without_event(self._found[row["subject_id"]]) for row in chosen.rows]
        return ExecutionPage(executions, chosen.after, chosen.looked)

    def _choose(self, some: list[Row]) -> list[Row]:
        """Return the rows of labels whose executions match."""
        ids = sorted({row["subject_id"] for row in some})
        if not ids:
            return []
        found = self._rows.select(
            EXECUTION, [Where("id", "in", ids), *self._where], columns=self._columns
        )
        matching = {row["id"]: row for row in found}
        its = [Where("subject_id", "in", sorted(matching))]
        every = self._rows.select(LABEL, its, columns=("id", "subject_id", "name", "value"))
        labels: dict[str, list[Row]] = {}
        for row in every:
            labels.setdefault(row["subject_id"], []).append(row)
        chosen = []
        for row in some:
            has = labels.get(row["subject_id"], [])
            # One execution may have the value under several names: the last of them counts.
            last = max((each["id"] for each in has if _is(each, self._first)), default=None)
            if row["id"] == last and all(
                any(_is(each, wanted) for each in has) for wanted in self._others
            ):
                self._found[row["subject_id"]] = matching[row["subject_id"]]
                chosen.append(row)
        return chosen


@dataclass(slots=True)
class ChildExecutions:
    """The sub-workflows of an execution: all of them by status, and the newest ones."""

    counts: dict[str, int] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)


def read_children(
    rows: Rows, parent_ids: Sequence[str], *, limit: int = 200
) -> dict[str, ChildExecutions]:
    """Return the sub-workflows of some executions; see `ExecutionStore.children`."""
    where = [Where("parent_id", "in", sorted(parent_ids))]
    found: dict[str, ChildExecutions] = {}
    for row in rows.count(EXECUTION, ("parent_id", "status"), where):
        found.setdefault(row["parent_id"], ChildExecutions()).counts[row["status"]] = row["n"]
    if limit:
        parts = [Portion([Where("parent_id", "eq", each)], limit) for each in found]
        for its, newest in zip(found.values(), _newest(rows, parts), strict=True):
            its.executions = newest
    return found


def read_latest(
    rows: Rows, workflows: Sequence[tuple[str, str | None]], *, limit: int
) -> dict[tuple[str, str | None], list[Execution]]:
    """Return the newest executions of some workflows; see `ExecutionStore.latest`."""
    parts = [
        Portion(
            [Where("workflow", "eq", name)]
            + ([] if tenant is None else [Where("tenant_id", "eq", tenant)]),
            limit,
        )
        for name, tenant in workflows
    ]
    return dict(zip(workflows, _newest(rows, parts), strict=True))


def _newest(rows: Rows, parts: Sequence[Portion]) -> list[list[Execution]]:
    found = rows.select_parts(EXECUTION, parts, order_by=_NEWEST, columns=_BRIEF)
    return [[_without_event(row) for row in some] for some in found]


def _without_event(row: Row) -> Execution:
    return Execution.from_row({**_WITHOUT, **row})


def _is(row: Row, wanted: tuple[str | None, str]) -> bool:
    name, value = wanted
    return row["value"] == value and name in (None, row["name"])


def _leading(where: dict[str, Where]) -> str | None:
    """Return the column whose index is read: the one that is likely to leave the fewest rows."""
    names = ["parent_id", "tenant_id", "status", "workflow"]
    # Nearly all executions are COMPLETED: that leaves many.
    if "status" in where and where["status"].value == ExecutionStatus.COMPLETED.value:
        names = ["parent_id", "tenant_id", "workflow", "status"]
    return next((name for name in names if name in where), None)
