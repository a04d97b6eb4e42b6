"""What a subclass of the contract supplies, and what its groups share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from automate_kernel.outbox import OutboxItem, RowsOutboxStore
from automate_kernel.storage import Storage
from automate_kernel.testing.clock import FakeClock
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.executions import ExecutionStore
from automate_kernel.workflows.engine.listener import ExecutionListener
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)

__all__ = ["LEASE_SECONDS", "UNKNOWN_ID", "WORKFLOW", "ExecutionHooks"]

LEASE_SECONDS = 30.0
UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"
EVENT_ID = "01890000-0000-7000-8000-00000000000e"
WORKFLOW: dict[str, Any] = {
    "name": "order-notify",
    "trigger": {"type": "event", "event": "order.created"},
    "steps": [
        {"id": "count", "action": "orders.count"},
        {"id": "tell", "action": "chat.post", "input": {"text": "{{ steps.count.output }}"}},
    ],
    "on_failure": [{"id": "undo", "action": "orders.undo"}],
}


class ExecutionHooks:
    """What a subclass supplies, and what the groups share."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock to build the storage with."""
        return FakeClock()

    @pytest.fixture
    def storage(self, clock: FakeClock) -> Storage:
        """An empty storage that reads *clock*."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'storage'")

    @pytest.fixture
    def store(self, storage: Storage) -> ExecutionStore:
        """The executions in *storage*, with an outbox beside them."""
        outbox = RowsOutboxStore(storage, lease_seconds=LEASE_SECONDS)
        outbox.on_failed = ExecutionListener().give_up
        return ExecutionStore(storage, outbox)

    @pytest.fixture
    def workflow(self) -> Workflow:
        """The workflow that the tests run."""
        return Workflow.from_dict(WORKFLOW)

    def event(self, **options: object) -> Event:
        """The event that starts it."""
        known = {"id": EVENT_ID, "name": "order.created", "payload": {"n": 1}, **options}
        return Event.from_json(known)

    def begin(self, store: ExecutionStore, workflow: Workflow, **options: object) -> str:
        """Begin an execution in a transaction of its own."""
        with store.storage.begin() as rows:
            return store.start(rows, workflow, self.event(**options))

    def claim(self, store: ExecutionStore, worker_id: str = "worker") -> OutboxItem:
        """The one wake-up that is due."""
        (item,) = store.outbox.claim_batch(worker_id)
        return item

    def see(self, store: ExecutionStore, execution_id: str) -> Execution:
        """The execution with this id, which must exist."""
        execution = store.get(execution_id)
        assert execution is not None
        return execution

    def run(self, execution_id: str, step_id: str, **values: object) -> StepRun:
        """A step's run with these values."""
        known = {"position": -1, "status": StepStatus.COMPLETED, "attempts": 1, **values}
        return StepRun(execution_id=execution_id, step_id=step_id, **known)  # type: ignore[arg-type]

    def save(
        self,
        store: ExecutionStore,
        item: OutboxItem,
        runs: Sequence[StepRun],
        delays: dict[tuple[str, int], float] | None = None,
    ) -> Execution:
        """Save *runs* under the lease of *item*."""
        execution = self.see(store, item.payload["execution_id"])
        stored = {(run.step_id, run.position) for run in execution.steps}
        with store.holding(item) as rows:
            failed = [run.failed_attempt() for run in runs if run.error_code is not None]
            claim = item.lease_token or ""
            store.save(rows, execution, runs, delays or {}, stored, failures=failed, claim=claim)
        return execution

    def end(
        self,
        store: ExecutionStore,
        item: OutboxItem,
        status: ExecutionStatus,
        output: object = None,
    ) -> bool:
        """End the execution of *item*, and the item, in one transaction."""
        execution = self.see(store, item.payload["execution_id"])
        if status is ExecutionStatus.FAILED:
            execution.error_code, execution.error = "NOT_FOUND", "no such channel"
            execution.error_group = "SlackApiError in chat.post"
        with store.holding(item) as rows:
            changed = store.change(rows, execution, status, output)
            owner = item.lease_owner or ""
            store.outbox.mark_success(
                item.id, owner, token=item.lease_token, transaction=rows.native
            )
        return changed

    def lose(self, store: ExecutionStore, clock: FakeClock) -> OutboxItem:
        """Let the lease end and another worker claim the item."""
        clock.advance(LEASE_SECONDS + 1)
        store.outbox.reap()
        clock.advance(86_400)
        return self.claim(store, "another")
