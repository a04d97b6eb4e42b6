"""The stored definitions that executions are pinned to: found, counted, and purged when unused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from automate_kernel.base.arguments import check_age
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Rows, Storage, write
from automate_kernel.storage.tables import DEFINITION, EXECUTION
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.execution import ExecutionStatus

logger: logging.Logger = get_logger(__name__)

_LIVE = [status.value for status in ExecutionStatus if not status.finished]
# A transaction that begins an execution may commit so long after the execution's own time.
_LONGEST_TRANSACTION = 86_400.0
_SHORTEST_PREFIX = 6


def find_definition(storage: Storage, digest: str) -> Workflow:
    """
    Return the stored definition whose hash begins with *digest*.

    Raises ``NOT_FOUND``, and ``INVALID_ARGUMENT`` if several begin so.
    """
    if len(digest) < _SHORTEST_PREFIX:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"{digest!r} is too short for a definition's hash",
            hint=f"give its first {_SHORTEST_PREFIX} characters or more",
        )
    # The characters of a hash end with f, and g comes after it.
    like = [Where("id", "ge", digest.lower()), Where("id", "lt", f"{digest.lower()}g")]
    with storage.begin(atomic=False) as rows:
        found = rows.select(DEFINITION, like, order_by=("id",), limit=2)
    if len(found) != 1:
        code = ErrorCodes.INVALID_ARGUMENT if found else ErrorCodes.NOT_FOUND
        many = "more than one" if found else "no"
        raise AutomateError(code, f"{many} stored definition has a hash that begins {digest!r}")
    return Workflow.from_dict(found[0]["body"])


def newest_definition(storage: Storage, name: str) -> Workflow | None:
    """Return the definition of the newest execution of the workflow *name*; None without one."""
    its = [Where("workflow", "eq", name)]
    with storage.begin(atomic=False) as rows:
        newest = rows.select(
            EXECUTION, its, order_by=("-created_at", "-id"), limit=1, columns=("definition_id",)
        )
        where = [Where("id", "in", [row["definition_id"] for row in newest])]
        found = rows.select(DEFINITION, where)
    return Workflow.from_dict(found[0]["body"]) if found else None


def pinned_executions(storage: Storage, workflow: Workflow) -> int:
    """Count the executions that have not ended and are pinned to exactly this *workflow*."""
    where = [Where("status", "in", _LIVE), Where("definition_id", "eq", workflow.hash())]
    with storage.begin(atomic=False) as rows:
        return sum(row["n"] for row in rows.count(EXECUTION, (), where))


def purge_definitions(
    storage: Storage, *, older_than_seconds: float, keep: Collection[str] = (), limit: int = 100
) -> int:
    """
    Delete up to *limit* definitions that no execution is pinned to; return their number.

    Only those that were stored that long ago, and whose hashes are not among *keep*. Those of one
    workflow go in one transaction. A definition with which an execution begins at that moment
    stays.
    """
    check_age(older_than_seconds, "older_than_seconds")
    purged = 0
    for workflow, ids in _candidates(storage, older_than_seconds, keep, limit):
        try:
            purged += write(storage, None, partial(_purge, workflow=workflow, ids=ids))
        except LockedError:
            # Executions begin with it, or with others, for longer than they may be held up.
            logger.debug("definitions are in use; the next purge goes on")
            break
    return purged


def _candidates(
    storage: Storage, age: float, keep: Collection[str], limit: int
) -> Iterator[tuple[str, list[str]]]:
    """Yield workflows with definitions of theirs that no execution was pinned to a moment ago."""
    with storage.begin(atomic=False) as rows:
        old = rows.select(
            DEFINITION, [Where("created_at", "le", Now(-age))], order_by=("created_at",),
            columns=("id", "name"),
        )  # fmt: skip
    of_workflow: dict[str, list[str]] = {}
    for row in old:
        if row["id"] not in keep:
            of_workflow.setdefault(row["name"], []).append(row["id"])
    for workflow, ids in of_workflow.items():
        if limit <= 0:
            return
        with storage.begin(atomic=False) as rows:
            used = _used(rows, ids, Where("workflow", "eq", workflow))
        unused = [each for each in ids if each not in used][:limit]
        limit -= len(unused)
        if unused:
            yield workflow, unused


def _used(rows: Rows, ids: Sequence[str], *among: Where) -> set[str]:
    """Return those of the definitions *ids* that an execution, one *among* these, is pinned to."""
    # All in one walk along the executions, which may be many.
    its = Where("definition_id", "in", ids)
    counted = rows.count(EXECUTION, ("definition_id",), [*among, its])
    return {row["definition_id"] for row in counted}


def _purge(rows: Rows, workflow: str, ids: Sequence[str]) -> int:
    # Who begins an execution inserts its definition first, and is let go on where there is one
    # already. Until that transaction ends, its execution can't be seen: so it is waited for,
    # and those that come later wait, and find that the definition is gone.
    rows.keep_writers_out(DEFINITION)
    found = rows.select(
        DEFINITION, [Where("id", "in", sorted(ids))], order_by=("id",), lock=True,
        skip_locked=True, columns=("id",),
    )  # fmt: skip
    held = [row["id"] for row in found]
    # By now: one that was not there a moment ago, or an older one, which goes on with it.
    recent = Where("created_at", "ge", Now(-_LONGEST_TRANSACTION))
    used = _used(rows, held, Where("workflow", "eq", workflow), recent)
    used |= _used(rows, held, Where("status", "in", _LIVE))
    return rows.delete(DEFINITION, [Where("id", "in", sorted({*held} - used))])
