"""What is known of failures, and how executions are found by a host's own keys."""

from __future__ import annotations

from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.executions.hooks import UNKNOWN_ID, ExecutionHooks
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.executions import ExecutionStore
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

__all__ = ["FailingContract"]

_GROUP = "KeyError in shop.charge"


class FailingContract(ExecutionHooks):
    """Errors of every attempt, errors in groups, labels."""

    def fail(
        self, store: ExecutionStore, execution_id: str, status: StepStatus, **values: object
    ) -> None:
        """Save a run of the step ``count`` that has failed."""
        item = store.outbox.get(self.see(store, execution_id).item_id or "")
        assert item is not None
        if item.status == "PENDING":
            item = self.claim(store)
        known = {"error_code": "INTERNAL", "error": "broke", "error_group": _GROUP, **values}
        self.save(store, item, [self.run(execution_id, "count", status=status, **known)])

    def test_every_attempt_of_a_step_keeps_its_error(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """A step that did well in the end says nothing of them; the execution does."""
        execution_id = self.begin(store, workflow)
        self.fail(store, execution_id, StepStatus.RETRY, error="first", trace="File a")
        clock.advance(1)
        self.fail(store, execution_id, StepStatus.RETRY, error="second", attempts=2)
        clock.advance(1)
        item = store.outbox.get(self.see(store, execution_id).item_id or "")
        assert item is not None
        self.save(store, item, [self.run(execution_id, "count", attempts=3)])
        first, second = store.failed_attempts(execution_id)
        assert (first.step_id, first.position, first.attempt, first.error, first.trace) == (
            "count", -1, 1, "first", "File a",
        )  # fmt: skip
        assert (second.attempt, second.error, second.error_group) == (2, "second", _GROUP)
        assert self.see(store, execution_id).steps[0].error_group is None

    def test_a_save_told_twice_is_one_attempt(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """A worker that never heard of its commit saves again."""
        execution_id = self.begin(store, workflow)
        for _ in range(2):
            self.fail(store, execution_id, StepStatus.RETRY)
        assert len(store.failed_attempts(execution_id)) == 1
        assert self.see(store, execution_id).steps[0].error_group == _GROUP

    def test_executions_in_groups(self, store: ExecutionStore, workflow: Workflow) -> None:
        """Failed ones by workflow and place, the largest first; resumed ones are in none."""
        other = Workflow.from_dict({**workflow.to_dict(), "name": "other"})
        ids = [
            self.begin(store, flow, id=f"01890000-0000-7000-8000-00000000000{number}")
            for number, flow in enumerate((workflow, workflow, other))
        ]
        items = {item.payload["execution_id"]: item for item in store.outbox.claim_batch("worker")}
        for execution_id in ids:
            self.end(store, items[execution_id], ExecutionStatus.FAILED)
        groups = store.error_groups()
        assert [(each.kind, each.group, each.count) for each in groups] == [
            ("order-notify", "SlackApiError in chat.post", 2),
            ("other", "SlackApiError in chat.post", 1),
        ]
        assert groups[1].latest_id == ids[2]
        assert (groups[0].error_code, groups[0].error) == ("NOT_FOUND", "no such channel")
        assert [each.count for each in store.error_groups(workflow="other")] == [1]
        assert store.error_groups(tenant_id="nobody") == []
        found = store.find(error_group="SlackApiError in chat.post", workflow="other")
        assert [each.id for each in found] == ids[2:]
        assert store.resume(ids[2])
        assert [each.kind for each in store.error_groups()] == ["order-notify"]

    def test_an_execution_is_found_by_its_events_labels(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """All that one event started, by name and value or by the value."""
        other = Workflow.from_dict({**workflow.to_dict(), "name": "other"})
        labels = {"order": "4711"}
        ids = {self.begin(store, flow, labels=labels) for flow in (workflow, other)}
        self.begin(store, workflow, id=UNKNOWN_ID, labels={"order": "4712"})
        assert {each.id for each in store.labelled("order=4711")} == ids
        assert {each.id for each in store.labelled("4711")} == ids
        (one,) = store.labelled("4711", workflow="other")
        assert one.labels == labels
        assert store.labelled("4711", status="FAILED") == []
        assert store.labelled("customer=4711") == []

    def test_failures_and_labels_go_with_their_execution(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Purged, nothing of it is left."""
        execution_id = self.begin(store, workflow, labels={"order": "1"})
        self.fail(store, execution_id, StepStatus.FAILED)
        assert store.cancel(execution_id)
        clock.advance(100)
        assert store.purge(older_than_seconds=10) == 1
        assert store.failed_attempts(execution_id) == []
        with store.storage.begin() as rows:
            assert rows.count("automate_label")[0]["n"] == 0
