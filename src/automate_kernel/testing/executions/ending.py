"""How an execution ends, is cancelled, given up and resumed, and how it is found."""

from __future__ import annotations

import pytest

from automate_kernel.errors import WorkflowError
from automate_kernel.outbox import ItemStatus
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.executions.hooks import (
    LEASE_SECONDS,
    UNKNOWN_ID,
    WORKFLOW,
    ExecutionHooks,
)
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.executions import ExecutionEndedError, ExecutionStore
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

__all__ = ["EndingContract", "ResumingContract"]


class EndingContract(ExecutionHooks):
    """How an execution ends."""

    @pytest.mark.parametrize("output", [None, False, 0, "", [], {"a": [1, {"b": "ü"}]}])
    def test_output(self, store: ExecutionStore, workflow: Workflow, output: object) -> None:
        """The output comes back as it was given."""
        execution_id = self.begin(store, workflow)
        assert self.end(store, self.claim(store), ExecutionStatus.COMPLETED, output)
        execution = self.see(store, execution_id)
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution.output == output
        assert type(execution.output) is type(output)
        assert execution.completed_at is not None
        assert execution.duration_seconds is not None

    def test_it_ends_once(self, store: ExecutionStore, workflow: Workflow) -> None:
        """What has ended stays as it ended."""
        execution_id = self.begin(store, workflow)
        self.end(store, self.claim(store), ExecutionStatus.COMPLETED, "first")
        execution = self.see(store, execution_id)
        with store.storage.begin() as rows:
            assert not store.change(rows, execution, ExecutionStatus.FAILED)
            assert not store.change(rows, execution, ExecutionStatus.RUNNING)
            with pytest.raises(ExecutionEndedError):
                store.save(rows, execution, [], {}, set())
        assert not store.cancel(execution_id)
        assert not store.resume(execution_id)
        assert self.see(store, execution_id).output == "first"

    def test_cancel_one_that_waits(self, store: ExecutionStore, workflow: Workflow) -> None:
        """It is CANCELLED, and its wake-up with it."""
        execution_id = self.begin(store, workflow)
        assert store.cancel(execution_id)
        execution = self.see(store, execution_id)
        assert execution.status is ExecutionStatus.CANCELLED
        assert execution.completed_at is not None
        item = store.outbox.get(execution.item_id or "")
        assert item is not None
        assert item.status is ItemStatus.CANCELLED
        assert not store.cancel(execution_id)

    def test_cancel_one_that_runs(self, store: ExecutionStore, workflow: Workflow) -> None:
        """The worker that runs it learns of it when it saves, and its result is not saved."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        running = self.run(execution_id, "count", status=StepStatus.RUNNING)
        self.save(store, item, [running])
        assert store.cancel(execution_id)
        with pytest.raises(ExecutionEndedError):
            self.save(store, item, [self.run(execution_id, "count")])
        store.outbox.mark_success(item.id, "worker")
        execution = self.see(store, execution_id)
        assert execution.status is ExecutionStatus.CANCELLED
        assert execution.steps[0].status is StepStatus.RUNNING

    def test_what_is_not_there(self, store: ExecutionStore) -> None:
        """An unknown id is nothing, and can't be steered."""
        assert store.load(UNKNOWN_ID) is None
        assert store.get(UNKNOWN_ID) is None
        assert not store.cancel(UNKNOWN_ID)
        assert not store.resume(UNKNOWN_ID)

    def test_given_up_with_its_item(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """An execution whose workers all died fails in the transaction that fails its item."""
        execution_id = self.begin(store, workflow)
        for _ in range(self.claim(store).max_attempts - 1):
            assert self.see(store, execution_id).status is ExecutionStatus.PENDING
            self.lose(store, clock)
        clock.advance(LEASE_SECONDS + 1)
        assert len(store.outbox.reap().failed) == 1
        execution = self.see(store, execution_id)
        assert (execution.status, execution.error_code) == (ExecutionStatus.FAILED, "LEASE_EXPIRED")
        assert "given up after" in (execution.error or "")

    def test_given_up_by_its_worker(self, store: ExecutionStore, workflow: Workflow) -> None:
        """A wake-up that fails for good fails its execution, or neither if it is rolled back."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)

        def fail_and_roll_back() -> None:
            with store.storage.begin() as rows:
                store.outbox.mark_failed(item.id, "worker", "BAD", transaction=rows.native)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_and_roll_back()
        assert self.see(store, execution_id).status is ExecutionStatus.PENDING
        store.outbox.mark_failed(item.id, "worker", "BAD", "no way")
        execution = self.see(store, execution_id)
        assert (execution.status, execution.error_code) == (ExecutionStatus.FAILED, "BAD")


class ResumingContract(ExecutionHooks):
    """How a failed execution runs again, and how executions are found."""

    def test_resume_keeps_what_was_done(self, store: ExecutionStore, workflow: Workflow) -> None:
        """Completed and skipped steps stay; failed, cancelled and recovery steps run again."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        statuses = {
            "count": StepStatus.COMPLETED,
            "rest": StepStatus.SKIPPED,
            "tell": StepStatus.FAILED,
            "later": StepStatus.CANCELLED,
            "crashed": StepStatus.RUNNING,
            "undo": StepStatus.COMPLETED,
        }
        runs = [self.run(execution_id, name, status=status) for name, status in statuses.items()]
        self.save(store, item, runs)
        assert not store.resume(execution_id)
        self.end(store, item, ExecutionStatus.FAILED)
        assert store.resume(execution_id)
        execution = self.see(store, execution_id)
        assert (execution.status, execution.error_code, execution.error) == (
            ExecutionStatus.PENDING,
            None,
            None,
        )
        assert execution.completed_at is None
        assert [run.step_id for run in execution.steps] == ["count", "rest"]
        again = self.claim(store)
        assert again.id == execution.item_id != item.id
        assert not store.resume(execution_id)

    def test_resume_from_a_step(self, store: ExecutionStore, workflow: Workflow) -> None:
        """A step that is done, and what follows from it, can be done again after any end."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        runs = [self.run(execution_id, name) for name in ("count", "tell")]
        self.save(store, item, runs)
        self.end(store, item, ExecutionStatus.COMPLETED)
        assert not store.resume(execution_id)
        with pytest.raises(WorkflowError):
            store.resume(execution_id, step_id="undo")
        assert self.see(store, execution_id).status is ExecutionStatus.COMPLETED
        assert store.resume(execution_id, step_id="tell")
        execution = self.see(store, execution_id)
        assert (execution.status, execution.output) == (ExecutionStatus.PENDING, None)
        assert [run.step_id for run in execution.steps] == ["count"]
        assert not store.resume(execution_id, step_id="count")

    def test_a_worker_of_before_saves_nothing(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """What was cancelled and resumed is another item's, though the first one still runs."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        running = self.see(store, execution_id)
        with store.storage.begin() as rows:
            assert store.change(rows, running, ExecutionStatus.CANCELLED)
        assert store.resume(execution_id, step_id="count")
        before = store.load(execution_id)
        assert before is not None
        before.execution.item_id = item.id
        with store.holding(item) as rows, pytest.raises(ExecutionEndedError):
            store.save(rows, before.execution, [self.run(execution_id, "count")], {}, set())
        assert self.see(store, execution_id).steps == []

    def test_an_item_of_before_fails_nothing(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """The wake-up that an execution had before it was resumed decides nothing any more."""
        execution_id = self.begin(store, workflow)
        first = self.claim(store)
        store.outbox.mark_failed(first.id, "worker", "BAD")
        store.resume(execution_id)
        store.outbox.requeue([first.id])
        by_id = {item.id: item for item in store.outbox.claim_batch("worker")}
        store.outbox.mark_failed(first.id, "worker", "BAD")
        assert self.see(store, execution_id).status is ExecutionStatus.PENDING
        second = by_id[self.see(store, execution_id).item_id or ""]
        assert self.end(store, second, ExecutionStatus.COMPLETED)

    def test_find(self, store: ExecutionStore, workflow: Workflow, clock: FakeClock) -> None:
        """Executions are found by status, workflow and tenant, the newest first."""
        other = Workflow.from_dict({**WORKFLOW, "name": "other"})
        first = self.begin(store, workflow, tenant_id="t1")
        clock.advance(1)
        second = self.begin(store, other, tenant_id="t1")
        clock.advance(1)
        third = self.begin(store, workflow, id=UNKNOWN_ID)
        items = {item.payload["execution_id"]: item for item in store.outbox.claim_batch("worker")}
        self.save(store, items[second], [self.run(second, "count")])
        self.end(store, items[first], ExecutionStatus.COMPLETED)

        def ids(**wanted: object) -> list[str]:
            return [one.id for one in store.find(**wanted)]  # type: ignore[arg-type]

        assert ids() == [third, second, first]
        assert ids(limit=2) == [third, second]
        assert ids(status="COMPLETED") == ids(status=ExecutionStatus.COMPLETED) == [first]
        assert ids(workflow="order-notify") == [third, first]
        assert ids(workflow="other", tenant_id="t1") == [second]
        assert ids(tenant_id="nobody") == []
        assert [len(one.steps) for one in store.find()] == [0, 1, 0]
