"""How an execution begins, and how it is saved."""

from __future__ import annotations

import pytest

from automate_kernel.errors import LeaseLostError, PayloadError
from automate_kernel.testing.clock import FakeClock
from automate_kernel.testing.executions.hooks import (
    LEASE_SECONDS,
    UNKNOWN_ID,
    WORKFLOW,
    ExecutionHooks,
)
from automate_kernel.testing.values import KEPT, REFUSED, each_value, is_json, same
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.executions import ADVANCE, ExecutionStore
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus

__all__ = ["BeginningContract", "SavingContract"]


class BeginningContract(ExecutionHooks):
    """How an execution begins."""

    def test_it_begins(self, store: ExecutionStore, workflow: Workflow) -> None:
        """A new execution is PENDING, holds its event, and has a wake-up that is due."""
        execution_id = self.begin(store, workflow, tenant_id="t1")
        execution = self.see(store, execution_id)
        assert (execution.status, execution.steps) == (ExecutionStatus.PENDING, [])
        assert (execution.name, execution.tenant_id) == ("order-notify", "t1")
        assert execution.event == self.event(tenant_id="t1")
        item = self.claim(store)
        assert (item.id, item.kind, item.tenant_id) == (execution.item_id, ADVANCE, "t1")
        assert item.payload == {"execution_id": execution_id}

    def test_once_per_event_and_workflow(self, store: ExecutionStore, workflow: Workflow) -> None:
        """The same event starts a workflow once, and another workflow as well."""
        other = Workflow.from_dict({**WORKFLOW, "name": "other"})
        first = self.begin(store, workflow)
        assert self.begin(store, workflow) == first
        assert self.begin(store, other) != first
        assert self.begin(store, workflow, id=UNKNOWN_ID) != first
        assert len(store.find()) == len(store.outbox.find(kind=ADVANCE)) == 3

    def test_it_is_pinned_to_its_definition(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """The definition is stored as it was, however the workflow changes later."""
        execution_id = self.begin(store, workflow)
        changed = Workflow.from_dict({**WORKFLOW, "title": "New"})
        self.begin(store, changed, id=UNKNOWN_ID)
        stored = store.definition(self.see(store, execution_id).definition_id)
        assert stored.hash() == workflow.hash() != changed.hash()

    def test_nothing_begins_if_the_transaction_rolls_back(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Execution, definition and wake-up exist together or not at all."""

        def begin_and_fail() -> None:
            with store.storage.begin() as rows:
                store.start(rows, workflow, self.event())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            begin_and_fail()
        assert store.find() == []
        assert store.outbox.find() == []
        self.begin(store, workflow)
        assert len(store.outbox.find()) == 1

    def test_an_event_at_the_limit(self, store: ExecutionStore, workflow: Workflow) -> None:
        """A payload that the outbox has accepted starts an execution, beside the event's id."""
        execution_id = self.begin(store, workflow, payload="x" * 999_990)
        assert len(self.see(store, execution_id).event.payload) == 999_990


class SavingContract(ExecutionHooks):
    """How an execution is saved, and by whom."""

    def test_load_gives_what_was_saved(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Runs come back as they were saved, in the order in which they began, with their times."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        clock.advance(5)
        began = clock()
        running = {"status": StepStatus.RUNNING}
        self.save(store, item, [self.run(execution_id, "tell", **running)])
        self.save(store, item, [self.run(execution_id, "count", position=1, **running)])
        clock.advance(2)
        self.save(store, item, [self.run(execution_id, "tell", output={"ts": [1, None]})])
        loaded = store.load(execution_id)
        assert loaded is not None
        tell, count = loaded.execution.steps
        assert (tell.step_id, tell.status, tell.output) == (
            "tell",
            StepStatus.COMPLETED,
            {"ts": [1, None]},
        )
        assert (tell.started_at, tell.completed_at) == (began, clock())
        assert (count.position, count.status, count.completed_at) == (1, StepStatus.RUNNING, None)
        assert loaded.execution.status is ExecutionStatus.RUNNING
        assert (loaded.now, loaded.waits) == (clock(), {})

    def test_a_retry_waits_on_the_databases_clock(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """A run that waits is loaded with the seconds that are left, below nothing once due."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        error = {"error_code": "UNAVAILABLE", "error": "try later"}
        run = self.run(execution_id, "count", status=StepStatus.RETRY, **error)
        self.save(store, item, [run], {("count", -1): 60.0})
        for passed, left in ((0, 60.0), (45, 15.0), (20, -5.0)):
            clock.advance(passed)
            loaded = store.load(execution_id)
            assert loaded is not None
            assert loaded.waits["count", -1] == pytest.approx(left)
        seen = self.see(store, execution_id).steps[0]
        assert (seen.error_code, seen.error) == ("UNAVAILABLE", "try later")

    @pytest.mark.parametrize("delay", [float("inf"), float("nan"), -1.0, 1e300])
    def test_an_absurd_delay(self, store: ExecutionStore, workflow: Workflow, delay: float) -> None:
        """A delay that no database can add to its time doesn't keep the run from being saved."""
        execution_id = self.begin(store, workflow)
        run = self.run(execution_id, "count", status=StepStatus.RETRY)
        self.save(store, self.claim(store), [run], {("count", -1): delay})
        assert self.see(store, execution_id).steps[0].status is StepStatus.RETRY

    def test_saving_renews_the_lease(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Who saves keeps the item for another lease."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        clock.advance(LEASE_SECONDS - 1)
        self.save(store, item, [self.run(execution_id, "count")])
        clock.advance(LEASE_SECONDS - 1)
        assert len(store.outbox.reap()) == 0

    def test_who_lost_the_lease_saves_nothing(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """The worker that was too slow gets LeaseLostError, and its result is not there."""
        execution_id = self.begin(store, workflow)
        late = self.claim(store)
        now = self.lose(store, clock)
        with pytest.raises(LeaseLostError):
            self.save(store, late, [self.run(execution_id, "count", output="late")])
        with pytest.raises(LeaseLostError):
            self.end(store, late, ExecutionStatus.COMPLETED, "late")
        assert self.see(store, execution_id).steps == []
        self.save(store, now, [self.run(execution_id, "count", output="now")])
        assert self.end(store, now, ExecutionStatus.COMPLETED, "now")
        execution = self.see(store, execution_id)
        assert (execution.output, execution.steps[0].output) == ("now", "now")

    def test_the_first_final_result_wins(self, store: ExecutionStore, workflow: Workflow) -> None:
        """A step's saved result is not written over, by whatever comes second."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        self.save(store, item, [self.run(execution_id, "count", output="first")])
        for status in (StepStatus.FAILED, StepStatus.COMPLETED, StepStatus.RUNNING):
            again = self.run(execution_id, "count", status=status, output="second")
            self.save(store, item, [again])
        execution = self.see(store, execution_id)
        with store.holding(item) as rows:  # by one who doesn't know that there is a row
            store.save(rows, execution, [self.run(execution_id, "count")], {}, set())
        (run,) = self.see(store, execution_id).steps
        assert (run.status, run.output) == (StepStatus.COMPLETED, "first")

    @pytest.mark.parametrize("output", [float("nan"), "\x00", "\ud800", {1, 2}, "x" * 1_100_000])
    def test_an_output_that_can_not_be_stored(
        self, store: ExecutionStore, workflow: Workflow, output: object
    ) -> None:
        """It is refused with PayloadError that names the step, and the lease is still held."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        with pytest.raises(PayloadError, match="count"):
            self.save(store, item, [self.run(execution_id, "count", output=output)])
        with pytest.raises(PayloadError, match="workflow"):
            self.end(store, item, ExecutionStatus.COMPLETED, output)
        self.save(store, item, [self.run(execution_id, "count", output="good")])

    @pytest.mark.parametrize("name", KEPT)
    def test_payloads_and_outputs_are_kept(
        self, store: ExecutionStore, workflow: Workflow, name: str
    ) -> None:
        """Payloads and outputs are what they were, to whoever reads and to whoever goes on."""
        value = KEPT[name]
        execution_id = self.begin(store, workflow, payload=value)
        item = self.claim(store)
        self.save(store, item, [self.run(execution_id, "count", output=value)])
        loaded = store.load(execution_id)
        assert loaded is not None
        assert same(loaded.execution.event.payload, value)
        assert same(loaded.execution.steps[0].output, value)
        assert self.end(store, item, ExecutionStatus.COMPLETED, value)
        assert same(self.see(store, execution_id).output, value)

    @pytest.mark.parametrize("name", REFUSED)
    def test_nothing_begins_with_a_payload_that_can_not_be_stored(
        self, store: ExecutionStore, workflow: Workflow, name: str
    ) -> None:
        """The payload is refused before anything is written."""
        with pytest.raises(PayloadError) as caught:
            self.begin(store, workflow, payload=REFUSED[name])
        assert caught.value.hint
        assert store.find() == []
        assert store.outbox.find() == []

    def test_every_output_comes_back_or_is_refused(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """JSON comes back equal and of the same types; all else is refused, and nothing written."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        position = 0

        def check(value: object) -> None:
            nonlocal position
            run = self.run(execution_id, "count", position=position, output=value)
            if is_json(value):
                position += 1
                self.save(store, item, [run])
                assert same(self.see(store, execution_id).steps[-1].output, value)
                return
            with pytest.raises(PayloadError, match="count"):
                self.save(store, item, [run])

        each_value(check)
        assert len(self.see(store, execution_id).steps) == position

    def test_an_error_text_is_never_refused(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """What can't be stored of an error's text is replaced."""
        execution_id = self.begin(store, workflow)
        error = {"status": StepStatus.FAILED, "error_code": "INTERNAL"}
        run = self.run(execution_id, "count", error="a \x00 b \udfff c" + "x" * 1_000_000, **error)
        self.save(store, self.claim(store), [run])
        seen = self.see(store, execution_id).steps[0]
        assert (seen.error or "").startswith("a \ufffd b \ufffd c")
