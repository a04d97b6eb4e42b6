"""A group of checkpoints: one statement on PostgreSQL leaves what several statements leave."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from suites.executions import executions_in
from automate_kernel.outbox import ItemStatus, RowsOutboxStore
from automate_kernel.outbox.item import end_changes, new_id
from automate_kernel.storage import checkpoint
from automate_kernel.storage.checkpoint import (
    Checkpoint,
    Saved,
    checkpoint_in_steps,
    save_checkpoints,
)
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.steer.listener import ExecutionListener
from automate_kernel.workflows.execution import Event
from automate_sqlalchemy import SqlAlchemyStorage
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import _queries

WORKFLOW = Workflow.from_dict(
    {
        "name": "w",
        "trigger": {"type": "manual"},
        "steps": [{"id": "a", "action": "do.it"}, {"id": "b", "action": "do.it"}],
    }
)
LEASE = 30.0
Way = Callable[[Rows, Sequence[Checkpoint], float], Saved]


class Case(NamedTuple):
    """One execution: what there is of it, and what is to be saved."""

    held: bool
    cancelled: bool
    before: str | None
    steps: list[tuple[str, str]]
    status: str | None
    progress: bool
    ends: bool


STATUSES = st.sampled_from(["RUNNING", "RETRY", "COMPLETED", "FAILED"])
CASES = st.builds(
    Case,
    held=st.booleans() | st.just(True),
    cancelled=st.booleans() | st.just(False),
    before=st.none() | STATUSES,
    steps=st.lists(
        st.tuples(st.sampled_from("ab"), STATUSES), max_size=2, unique_by=lambda s: s[0]
    ),
    status=st.sampled_from([None, "RUNNING", "FAILED", "COMPLETED"]),
    progress=st.booleans(),
    ends=st.booleans(),
)


def step_row(execution_id: str, step_id: str, status: str, note: str) -> dict[str, Any]:
    ended = status in ("COMPLETED", "FAILED")
    failed = status in ("RETRY", "FAILED")
    return {
        "id": new_id(), "execution_id": execution_id, "step_id": step_id, "position": -1,
        "status": status, "attempts": 1, "failures": 0, "output": JsonText(f'{{"by": "{note}"}}'),
        "error_code": "INTERNAL" if failed else None, "error": 'a "b" \\ c' if failed else None,
        "trace": None, "error_group": "g" if failed else None, "started_at": Now(-1.5),
        "next_attempt_at": Now(60) if status == "RETRY" else None,
        "completed_at": Now() if ended else None, "place": None, "output_ref": None,
        "attempted_at": Now(-1.5), "worker_id": note,
    }  # fmt: skip


class Scene:
    """Executions of some cases, and the checkpoints of them."""

    def __init__(self, store: ExecutionStore, cases: Sequence[Case]) -> None:
        self.store = store
        self.group: list[Checkpoint] = []
        for case in cases:
            with store.storage.begin() as rows:
                execution_id = store.starts.start(rows, WORKFLOW, Event(id=new_id(), name="w"))
            (item,) = store.outbox.claim_batch("worker")
            with store.storage.begin() as rows:
                if case.before is not None:
                    rows.insert(STEP, [step_row(execution_id, "a", case.before, "before")])
                if case.cancelled:
                    where = [Where("id", "eq", execution_id)]
                    rows.update(EXECUTION, where, {"status": "CANCELLED"})
                rows.update(OUTBOX, [Where("id", "eq", item.id)], {"attempt_count": 4})
            self.group.append(self._checkpoint(case, execution_id, item))

    def _checkpoint(self, case: Case, execution_id: str, item: Any) -> Checkpoint:
        return Checkpoint(
            item.id,
            item.lease_token if case.held else new_id(),
            execution_id,
            [step_row(execution_id, step_id, status, "group") for step_id, status in case.steps],
            status=case.status,
            error_code="INTERNAL" if case.status == "FAILED" else None,
            error="no" if case.status == "FAILED" else None,
            output=JsonText("[1]") if case.status == "COMPLETED" else None,
            progress=case.progress,
            ends=case.ends,
        )

    def save(self, way: Way) -> list[Any]:
        """Save the group, and return what is in the tables then."""
        with self.store.storage.begin() as rows:
            held = way(rows, self.group, LEASE).items
        return [self._found(one, held) for one in self.group]

    def _found(self, one: Checkpoint, held: set[str]) -> Any:
        with self.store.storage.begin() as rows:
            (item,) = rows.select(OUTBOX, [Where("id", "eq", one.item_id)])
            (execution,) = rows.select(EXECUTION, [Where("id", "eq", one.execution_id)])
            where = [Where("execution_id", "eq", one.execution_id)]
            steps = rows.select(STEP, where, order_by=("step_id",))
        kept = ("status", "attempts", "output", "error_code", "error", "error_group", "worker_id")
        return (
            one.item_id in held,
            (item["status"], item["attempt_count"], item["waiting_for"]),
            [item[name] is None for name in ("lease_expires_at", "completed_at")],
            [execution[name] for name in ("status", "output", "error_code", "error")],
            execution["completed_at"] is None,
            [[step[name] for name in ("step_id", *kept)] for step in steps],
            [[step[n] is None for n in ("started_at", "completed_at")] for step in steps],
            [step["next_attempt_at"] is None for step in steps],
        )


@settings(max_examples=examples(40, 12), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CASES, min_size=1, max_size=4))
def test_one_statement_leaves_what_several_leave(
    postgresql_engine: sa.Engine, cases: list[Case]
) -> None:
    """Fence, steps, executions and items, whatever there was of them."""
    storage = SqlAlchemyStorage(postgresql_engine)
    store = executions_in(storage, RowsOutboxStore(storage, listeners=[ExecutionListener()]))
    found = [Scene(store, cases).save(way) for way in (save_checkpoints, checkpoint_in_steps)]
    for case, one, other in zip(cases, *found, strict=True):
        assert one == other, case


def test_an_item_ends_as_the_outbox_ends_it() -> None:
    """Storage, which is below the outbox, writes the same columns."""
    assert checkpoint._ITEM_ENDS == end_changes(ItemStatus.COMPLETED)


@pytest.mark.parametrize("size", [1, 3])
def test_a_lease_is_renewed_once_a_tenth_of_it_has_passed(
    postgresql_engine: sa.Engine, size: int
) -> None:
    """Until then a checkpoint locks the items' rows, and writes none of them."""
    storage = SqlAlchemyStorage(postgresql_engine)
    store = executions_in(storage, RowsOutboxStore(storage, lease_seconds=LEASE))
    case = Case(True, False, None, [("a", "COMPLETED")], None, progress=False, ends=False)
    scene = Scene(store, [case] * size)
    ids = {one.item_id for one in scene.group}

    def saved() -> tuple[Saved, dict[str, Any]]:
        with storage.begin() as rows:
            found = save_checkpoints(rows, scene.group, LEASE)
            its = rows.select(OUTBOX, columns=("id", "lease_expires_at"))
        return found, {row["id"]: row["lease_expires_at"] for row in its}

    with storage.begin() as rows:
        rows.update(OUTBOX, [], {"lease_expires_at": Now(0.95 * LEASE)})
    found, expires = saved()
    assert (found.items, found.renewed) == (ids, set())
    assert all(at < found.at + timedelta(seconds=0.96 * LEASE) for at in expires.values())
    old = scene.group[0].item_id
    with storage.begin() as rows:
        rows.update(OUTBOX, [Where("id", "eq", old)], {"lease_expires_at": Now(0.85 * LEASE)})
    found, expires = saved()
    assert (found.items, found.renewed) == (ids, {old})
    assert expires[old] == found.at + timedelta(seconds=LEASE)


@pytest.mark.parametrize("changes", [False, True])
def test_psycopg_keeps_what_it_knows_of_a_lone_checkpoint(*, changes: bool) -> None:
    """It reads a longer statement anew each time, which takes longer than all the rest."""
    sql = checkpoint._checkpoint_sql(asks_server=True, single=True, changes=changes, locked=False)
    assert len(sql) <= _queries.MAX_CACHED_STATEMENT_LENGTH
    assert sql.count("{}") <= _queries.MAX_CACHED_STATEMENT_PARAMS


def test_a_group_is_not_held_up_by_one_that_is_lost(postgresql_engine: sa.Engine) -> None:
    """Of a hundred, those that are held are saved, with values that need escaping."""
    storage = SqlAlchemyStorage(postgresql_engine)
    store = executions_in(storage, RowsOutboxStore(storage))
    good = Case(True, False, None, [("a", "FAILED"), ("b", "COMPLETED")], "COMPLETED", True, True)
    scene = Scene(store, [good._replace(held=number % 10 != 0) for number in range(100)])
    found = scene.save(save_checkpoints)
    assert [one[0] for one in found] == [number % 10 != 0 for number in range(100)]
    ended = list(itertools.compress(found, [one[0] for one in found]))
    assert {one[1][0] for one in ended} == {"COMPLETED"}
    assert {one[5][0][5] for one in ended} == {'a "b" \\ c'}
