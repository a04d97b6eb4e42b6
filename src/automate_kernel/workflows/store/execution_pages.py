"""Pages of executions: read along the index that serves a filter best, however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from automate_kernel.base.arguments import check_choice, check_names, several
from automate_kernel.outbox.labels import read_label
from automate_kernel.outbox.queries import item_ids_of
from automate_kernel.storage.paging import (
    IndexRange,
    RowPage,
    range_key,
    read_chosen_page,
    read_merged_page,
    read_page,
)
from automate_kernel.storage.query import Operator, Portion, Where
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
_TIMES: Mapping[str, Operator] = {"created_after": "ge", "created_before": "lt"}
_COMPLETED = ExecutionStatus.COMPLETED.value
_UNLIKE_COMPLETED = [each.value for each in ExecutionStatus if each.value != _COMPLETED]
# The key of the list of executions themselves, beside those of labels.
_EXECUTIONS = "executions"
# More than so many of one kind aren't counted: they are many.
_FEW = 10_000


class ExecutionFilter(TypedDict, total=False):
    """
    Conditions on executions; all conditions must hold, and None is no condition.

    *label* is ``order=4711``, or ``4711`` under any name. Of several *labels* an execution must
    have all, whichever is the rarest. *parent_id* is the execution whose step waits for these.
    *ids* are those of executions.
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
    where = [Where(name, "eq", given[name]) for name in _COLUMNS if name in given]
    # A place in another list leads nowhere.
    name = f"executions {sorted((one.column, one.value) for one in where)}"
    where += [
        Where("created_at", operator, given[name])
        for name, operator in _TIMES.items()
        if name in given
    ]
    if "ids" in given:
        where.append(Where("id", "in", item_ids_of(given["ids"])))
    columns = (*_BRIEF, "event") if events else _BRIEF
    labels = [*several(given.get("labels", ())), *([given["label"]] if "label" in given else ())]
    if labels:
        of = _Labelled(rows, labels, where, columns, given.get("tenant_id"))
        return of.page(name=f"{name} {sorted(labels)}", **options)
    found = _read_range(rows, where, given, name=name, columns=columns, **options)
    executions = [_without_event(row) for row in found.rows]
    return ExecutionPage(executions, found.after, found.looked)


def _read_range(
    rows: Rows, where: Sequence[Where], given: Mapping[str, Any], **options: Any
) -> RowPage:
    """
    Read along an index that has all that is asked for, or nearly all.

    Those of a status and of a tenant have the other columns behind the time.
    """
    alone = given.keys() & {"tenant_id", "parent_id", "ids"}
    if "error_group" in given and "status" not in given and not alone:
        # A COMPLETED execution has no error, and nearly all are.
        among = [[Where("status", "eq", each), *where] for each in _UNLIKE_COMPLETED]
        options = {name: options[name] for name in ("name", "columns", "after", "limit")}
        return read_merged_page(rows, EXECUTION, among, order=_NEWEST, **options)
    rest: list[Where] = []
    if "workflow" in given and given.get("status") == _COMPLETED and not alone:
        # The workflow's index, which lacks the status: most of them are COMPLETED.
        rest = [one for one in where if one.column == "status"]
    along = IndexRange([one for one in where if one not in rest], _NEWEST, rest)
    return read_page(rows, EXECUTION, [along], **options)


class _Labelled:
    """The executions that have all of *labels* and match *where*, found along the rarest."""

    def __init__(
        self,
        rows: Rows,
        labels: Sequence[str],
        where: Sequence[Where],
        columns: Sequence[str],
        tenant_id: str | None,
    ) -> None:
        self._rows, self._where, self._columns = rows, list(where), columns
        self._labels = list(dict.fromkeys(read_label(label) for label in labels))
        self._tenant_id = tenant_id

    def page(self, *, name: str, after: str, **options: Any) -> ExecutionPage:
        # A list goes on along the index that it began with.
        keys = [*map(str, range(len(self._labels))), _EXECUTIONS]
        key = range_key(after)
        key = key if key in keys else self._rarest()
        if key == _EXECUTIONS:
            table, of, where, choose = EXECUTION, "id", self._where, self._having
        else:
            self._first = self._labels[int(key)]
            table, of, choose = LABEL, "subject_id", self._matching
            where = self._its(self._first)
        found = read_chosen_page(
            self._rows, table, IndexRange(where, _NEWEST, key=key), choose, name=name, after=after,
            columns=tuple(dict.fromkeys(("id", of, "created_at"))), **options,
        )  # fmt: skip
        ids = [row[of] for row in found.rows]
        its = [Where("id", "in", sorted(ids))]
        known = {
            row["id"]: _without_event(row)
            for row in (self._rows.select(EXECUTION, its, columns=self._columns) if ids else ())
        }
        executions = [known[each] for each in ids if each in known]
        return ExecutionPage(executions, found.after, found.looked)

    def _its(self, label: tuple[str | None, str]) -> list[Where]:
        """Return the conditions on the rows of *label*."""
        name, value = label
        rest = {"name": name, "about": "execution", "tenant_id": self._tenant_id}
        also = [Where(column, "eq", each) for column, each in rest.items() if each is not None]
        return [Where("value", "eq", value), *also]

    def _rarest(self) -> str:
        """Return the key of what the fewest executions have, as far as that is easily counted."""
        # Without the last condition, which their index lacks.
        among = [
            (LABEL, [one for one in self._its(label) if one.column != "about"])
            for label in self._labels
        ]
        if self._where:
            among.append((EXECUTION, self._where))
        if len(among) == 1:
            return "0"
        counts = self._rows.counts(*among, most=_FEW)
        least = counts.index(min(counts))
        return _EXECUTIONS if least == len(self._labels) else str(least)

    def _having(self, some: list[Row]) -> list[Row]:
        """Return the rows of executions that have all labels."""
        for label in self._labels:
            some = self._with(some, "id", label)
        return some

    def _matching(self, some: list[Row]) -> list[Row]:
        """Return the rows of labels whose executions have the others, and match."""
        for label in self._labels:
            if label != self._first:
                some = self._with(some, "subject_id", label)
        if self._where and some:
            ids = Where("id", "in", sorted(row["subject_id"] for row in some))
            found = self._rows.select(EXECUTION, [ids, *self._where], columns=("id",))
            matching = {row["id"] for row in found}
            some = [row for row in some if row["subject_id"] in matching]
        if self._first[0] is not None or not some:
            return some
        # One execution may have the value under several names: the last of them counts.
        ids = Where("subject_id", "in", sorted({row["subject_id"] for row in some}))
        last: dict[str, str] = {}
        read = ("id", "subject_id")
        for row in self._rows.select(LABEL, [ids, *self._its(self._first)], columns=read):
            last[row["subject_id"]] = max(row["id"], last.get(row["subject_id"], ""))
        return [row for row in some if row["id"] == last.get(row["subject_id"])]

    def _with(self, some: list[Row], key: str, label: tuple[str | None, str]) -> list[Row]:
        """Return the rows among *some* of executions that have *label*."""
        if not some:
            return []
        ids = Where("subject_id", "in", sorted({row[key] for row in some}))
        found = self._rows.select(LABEL, [ids, *self._its(label)], columns=("subject_id",))
        having = {row["subject_id"] for row in found}
        return [row for row in some if row[key] in having]


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
