"""What is counted of executions, and how many failed ones are resumed at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.errors import AutomateError
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.executions.hooks import WORKFLOW, ExecutionHooks
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.advance import Turn
from automate_kernel.workflows.engine.executions import ExecutionStore
from automate_kernel.workflows.engine.listener import ExecutionListener
from automate_kernel.workflows.engine.statistics import ExecutionActivity
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

__all__ = ["CountingContract", "ResumingManyContract"]

OTHER: dict[str, Any] = {**WORKFLOW, "name": "other"}


class CountingContract(ExecutionHooks):
    """What operators see of executions without looking at them."""

    def test_what_a_worker_did(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Beginnings, ends with their durations, outcomes of steps; by workflow and minute."""
        log, execution = ExecutionActivity(), self.see(store, self.begin(store, workflow))
        begun = execution.created_at
        assert begun is not None
        runs = [
            self.run(execution.id, "count", started_at=begun, completed_at=begun),
            self.run(execution.id, "tell", status=StepStatus.RETRY, attempts=1),
        ]
        log.add(execution, Turn(saves=runs), began=True)
        store.report(log, "worker")
        failed = self.run(
            execution.id, "tell", status=StepStatus.FAILED, attempts=2, started_at=begun,
            completed_at=begun + timedelta(seconds=10),
        )  # fmt: skip
        execution.completed_at = begun + timedelta(seconds=20)
        log.add(execution, Turn(saves=[failed], end=ExecutionStatus.FAILED), began=False)
        store.report(log, "worker")
        store.report(log, "worker")
        (found,) = store.activity()
        assert (found.workflow, found.started, found.failed) == (workflow.name, 1, 1)
        assert (found.completed, found.cancelled, found.ended) == (0, 0, 1)
        assert (found.steps_completed, found.steps_retried, found.steps_failed) == (1, 1, 1)
        assert found.run_seconds == 20
        assert found.step_seconds == 10
        assert found.run_percentile(0.5) == pytest.approx(20, rel=0.3)
        assert found.at == clock().replace(second=0, microsecond=0)

    def test_a_list_counts_by_its_elements(self, store: ExecutionStore, workflow: Workflow) -> None:
        """The step that they belong to is no further one, however it ends."""
        log, execution = ExecutionActivity(), self.see(store, self.begin(store, workflow))
        element = self.run(execution.id, "count", position=0, status=StepStatus.FAILED)
        execution.steps.append(element)
        whole = self.run(execution.id, "count", status=StepStatus.FAILED, attempts=0)
        untold = self.run(execution.id, "tell", status=StepStatus.FAILED, attempts=0)
        log.add(execution, Turn(saves=[element, whole, untold]), began=True)
        store.report(log, "worker")
        (found,) = store.activity()
        assert found.steps_failed == 2

    def test_who_is_cancelled_or_given_up(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Counted with it, in the same transaction, by whoever does it."""
        cancelled = self.begin(store, workflow)
        assert store.cancel(cancelled)
        assert not store.cancel(cancelled)
        given_up = self.begin(store, Workflow.from_dict(OTHER))
        item = self.claim(store)
        with store.storage.begin() as rows:
            ExecutionListener().give_up(rows, item)
        totals = total_by_kind(store.activity())
        assert {name: (one.cancelled, one.failed) for name, one in totals.items()} == {
            workflow.name: (1, 0),
            "other": (0, 1),
        }
        assert self.see(store, given_up).status is ExecutionStatus.FAILED

    def test_what_stands(self, store: ExecutionStore, workflow: Workflow) -> None:
        """What has not ended and what failed; not what ended well."""
        assert store.stats().counts == {}
        self.begin(store, workflow)
        self.end(store, self.claim(store), ExecutionStatus.COMPLETED)
        self.begin(store, Workflow.from_dict(OTHER))
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        self.begin(store, workflow, id="01890000-0000-7000-8000-0000000000aa")
        found = store.stats()
        assert found.counts == {workflow.name: {"PENDING": 1}, "other": {"FAILED": 1}}
        assert (found.total("FAILED"), found.total(ExecutionStatus.RUNNING)) == (1, 0)

    def test_it_is_forgotten(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """After a week, or as one says; and nobody looks further back than asked."""
        store.cancel(self.begin(store, workflow))
        clock.advance(3600)
        assert store.activity(seconds=600) == []
        assert len(store.activity(seconds=3660)) == 1
        assert store.purge_activity() == 0
        assert store.purge_activity(older_than_seconds=60) == 1
        assert store.activity(seconds=7200) == []


class ResumingManyContract(ExecutionHooks):
    """Failed executions that are resumed together."""

    def fail_one(
        self, store: ExecutionStore, workflow: Workflow, number: int, **options: object
    ) -> str:
        """An execution that failed."""
        event_id = f"01890000-0000-7000-8000-{number:012x}"
        execution_id = self.begin(store, workflow, id=event_id, **options)
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        return execution_id

    def statuses(self, store: ExecutionStore, ids: list[str]) -> list[str]:
        """Where each stands."""
        return [self.see(store, each).status.value for each in ids]

    def test_by_what_they_have_in_common(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Workflow, tenant, error and age; what ended otherwise stays as it is."""
        other = Workflow.from_dict(OTHER)
        ids = [self.fail_one(store, workflow, 1), self.fail_one(store, other, 2)]
        clock.advance(100)
        ids += [self.fail_one(store, workflow, 3, tenant_id="a"), self.fail_one(store, workflow, 4)]
        done = self.begin(store, workflow, id="01890000-0000-7000-8000-0000000000bb")
        self.end(store, self.claim(store), ExecutionStatus.COMPLETED)
        begun = clock() - timedelta(seconds=50)
        assert store.resume_matching(workflow="nothing") == 0
        assert store.resume_matching(error_code="UNAVAILABLE") == 0
        assert store.resume_matching(workflow="other", created_after=begun) == 0
        assert store.resume_matching(tenant_id="a") == 1
        assert self.statuses(store, ids) == ["FAILED", "FAILED", "PENDING", "FAILED"]
        assert store.resume_matching(workflow=workflow.name, created_before=begun) == 1
        assert self.statuses(store, ids) == ["PENDING", "FAILED", "PENDING", "FAILED"]
        assert store.resume_matching(error_code="NOT_FOUND") == 2
        assert self.statuses(store, [*ids, done]) == [*["PENDING"] * 4, "COMPLETED"]
        assert len(store.outbox.claim_batch("worker")) == 4

    def test_the_oldest_first_and_no_more_than_asked(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Over the borders of the transactions that they go in, with word of how far it is."""
        ids = []
        for number in range(120):
            ids.append(self.fail_one(store, workflow, number))
            clock.advance(number % 2)
        told: list[int] = []
        assert store.resume_matching(workflow=workflow.name, limit=70, progress=told.append) == 70
        assert told[-1] == 70
        assert told == sorted(told)
        assert self.statuses(store, ids) == ["PENDING"] * 70 + ["FAILED"] * 50
        assert store.resume_matching(workflow=workflow.name) == 50

    def test_at_a_rate(self, store: ExecutionStore, workflow: Workflow, clock: FakeClock) -> None:
        """What they failed of is not overrun."""
        for number in range(10):
            self.fail_one(store, workflow, number)
        assert store.resume_matching(workflow=workflow.name, per_second=2) == 10
        taken = []
        for _ in range(6):
            taken.append(len(store.outbox.claim_batch("worker")))
            clock.advance(1)
        assert taken == [1, 2, 2, 2, 2, 1]

    def test_without_a_filter_it_is_refused(self, store: ExecutionStore) -> None:
        """Who means all says so."""
        with pytest.raises(AutomateError, match="no filter"):
            store.resume_matching()
        assert store.resume_matching(status="FAILED") == 0
        with pytest.raises(AutomateError, match="RUNNING"):
            store.resume_matching(status="RUNNING")
