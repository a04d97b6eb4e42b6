"""The test of an `ExecutionStore` on a storage."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel.base.errors import (
    AutomateError,
    PayloadError,
    WorkflowError,
)
from automate_kernel.outbox import BulkAction, ItemStatus, OutboxItem, OutboxStore, RowsOutboxStore
from automate_kernel.outbox.causes import note_causes
from automate_kernel.outbox.item import new_id
from automate_kernel.outbox.statistics import total_by_kind
from automate_kernel.storage import Storage
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import Rows, queries
from automate_kernel.storage.tables import CAUSE, DEFINITION, EXECUTION
from automate_kernel.templates import TemplateContext, TemplateEngine
from automate_kernel.workflows.steer.listener import ExecutionListener
from automate_testing.clock import FakeClock
from automate_testing.contracts.values import KEPT, REFUSED, each_case, each_value, is_json, same
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.decide.turn import Turn
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.store.catalogue import Catalogue
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.store.pauses import WorkflowPauses
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.store.stored import change_status
from automate_kernel.workflows.store.statistics import ExecutionActivity

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


OTHER: dict[str, Any] = {**WORKFLOW, "name": "other"}


_UNDONE: dict[str, Any] = {
    "name": "undone",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "kept", "action": "shop.keep"},
        {
            "id": "book", "action": "shop.book", "needs": [],
            "compensate": {"action": "shop.cancel"},
        },
        {"id": "pay", "action": "shop.pay", "needs": ["book"]},
    ],
}  # fmt: skip
_GROUP = "KeyError in shop.charge"


class _Lenient(ExecutionListener):
    """Lets every item wait again, so that a test can have one that drives no execution."""

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        """Refuse nothing."""
        return True


def executions_in(storage: Storage, outbox: OutboxStore) -> ExecutionStore:
    """Return the executions in *storage*, of a kernel that knows no workflow."""
    pauses = WorkflowPauses(storage, outbox)
    workflows = Catalogue(TemplateEngine(), TemplateContext, storage, pauses)
    return ExecutionStore(storage, outbox, workflows)


class ExecutionStoreContract:
    """
    Tests of what `ExecutionStore` must do on every storage.

    ::

        class TestMine(ExecutionStoreContract):
            @pytest.fixture
            def storage(self, clock):
                return MyStorage(clock=clock)
    """

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
        store = executions_in(storage, outbox)
        outbox.listen(_Lenient())
        return store

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
            return store.starts.start(rows, workflow, self.event(**options))

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

    def checkpoint(
        self,
        store: ExecutionStore,
        item: OutboxItem,
        turn: Turn,
        execution: Execution | None = None,
    ) -> bool:
        """Save *turn* under the lease of *item*; False if it is not held, or the execution ended."""
        if execution is None:
            execution = self.see(store, item.payload["execution_id"])
        turn.failures = [run.failed_attempt() for run in turn.saves if run.error_code is not None]
        # A run has the id of its row from when it begins, and another one in another claim.
        known = self.__dict__.setdefault("row_ids", {})
        begun = {
            run.key: (known.setdefault((item.lease_token, *run.key), new_id()), 0.0)
            for run in turn.saves
        }
        stored = execution.status is not ExecutionStatus.PENDING
        return bool(store.checkpoints.save([Save(item, execution, turn, begun, stored)]).items)

    def save(
        self,
        store: ExecutionStore,
        item: OutboxItem,
        runs: Sequence[StepRun],
        delays: dict[tuple[str, int], float] | None = None,
    ) -> None:
        """Save *runs* under the lease of *item*, which is held."""
        assert self.checkpoint(store, item, Turn(saves=list(runs), delays=delays or {}))

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
        return self.checkpoint(store, item, Turn(end=status, output=output), execution)

    def lose(self, store: ExecutionStore, clock: FakeClock) -> OutboxItem:
        """Let the lease end and another worker claim the item."""
        clock.advance(LEASE_SECONDS + 1)
        store.outbox.reap()
        clock.advance(86_400)
        return self.claim(store, "another")

    # How an execution begins.

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
                store.starts.start(rows, workflow, self.event())
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

    # How an execution is saved, and by whom.

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
        loaded = store.checkpoints.load(execution_id)
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
            loaded = store.checkpoints.load(execution_id)
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
        assert not self.checkpoint(
            store, late, Turn(saves=[self.run(execution_id, "count", output="late")])
        )
        assert not self.end(store, late, ExecutionStatus.COMPLETED, "late")
        assert not store.checkpoints.holds(late)
        assert store.checkpoints.holds(now)
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

    def test_payloads_and_outputs_are_kept(self, store: ExecutionStore, workflow: Workflow) -> None:
        """Payloads and outputs are what they were, to whoever reads and to whoever goes on."""

        def check(value: object) -> None:
            execution_id = self.begin(store, workflow, id=new_id(), payload=value)
            item = self.claim(store)
            self.save(store, item, [self.run(execution_id, "count", output=value)])
            loaded = store.checkpoints.load(execution_id)
            assert loaded is not None
            assert same(loaded.execution.event.payload, value)
            assert same(loaded.execution.steps[0].output, value)
            assert self.end(store, item, ExecutionStatus.COMPLETED, value)
            assert same(self.see(store, execution_id).output, value)

        each_case(KEPT, check)

    def test_nothing_begins_with_a_payload_that_can_not_be_stored(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """The payload is refused before anything is written."""

        def check(value: object) -> None:
            with pytest.raises(PayloadError) as caught:
                self.begin(store, workflow, payload=value)
            assert caught.value.hint

        each_case(REFUSED, check)
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

    # How an execution ends.

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

    def test_past_rounds_go(self, store: ExecutionStore, workflow: Workflow) -> None:
        """Those that are named, of this execution: no other step, position or execution's."""
        one = self.begin(store, workflow)
        item = self.claim(store)
        other = self.begin(store, workflow, id=new_id())
        keys = [("a", -1), ("a", 0), ("b", -1), ("c", -1), ("c", 0), ("c", 1)]
        # More than one statement names.
        many = [("many", position) for position in range(-1, 1002)]
        for execution_id, its in ((one, item), (other, self.claim(store))):
            runs = [self.run(execution_id, name, position=place) for name, place in (*keys, *many)]
            self.save(store, its, runs)
        past = [("a", -1), ("c", 0), *many[:-1]]
        assert self.checkpoint(store, item, Turn(past=past))
        left = [("a", 0), ("b", -1), ("c", -1), ("c", 1), many[-1]]
        assert sorted(run.key for run in self.see(store, one).steps) == left
        assert len(self.see(store, other).steps) == len(keys) + len(many)

    def test_it_ends_once(self, store: ExecutionStore, workflow: Workflow) -> None:
        """What has ended stays as it ended."""
        execution_id = self.begin(store, workflow)
        self.end(store, self.claim(store), ExecutionStatus.COMPLETED, "first")
        execution = self.see(store, execution_id)
        with store.storage.begin() as rows:
            assert not change_status(rows, execution, ExecutionStatus.FAILED)
            assert not change_status(rows, execution, ExecutionStatus.RUNNING)
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
        turn = Turn(saves=[self.run(execution_id, "count")])
        assert not self.checkpoint(store, item, turn)
        store.outbox.mark_success(item.id, "worker")
        execution = self.see(store, execution_id)
        assert execution.status is ExecutionStatus.CANCELLED
        assert execution.steps[0].status is StepStatus.CANCELLED

    def test_another_tenants_is_not_there(self, store: ExecutionStore, workflow: Workflow) -> None:
        """Who asks for a tenant can't see, end or resume what is another's."""
        execution_id = self.begin(store, workflow, tenant_id="t1")
        assert store.get(execution_id, tenant_id="t2") is None
        assert not store.cancel(execution_id, tenant_id="t2")
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        assert not store.resume(execution_id, tenant_id="t2")
        assert self.see(store, execution_id).status is ExecutionStatus.FAILED
        assert store.resume(execution_id, tenant_id="t1")
        assert store.cancel(execution_id, tenant_id="t1")
        found = store.get(execution_id, tenant_id="t1")
        assert found is not None
        assert found.status is ExecutionStatus.CANCELLED

    def test_what_is_not_there(self, store: ExecutionStore) -> None:
        """An unknown id is nothing, and can't be steered."""
        assert store.checkpoints.load(UNKNOWN_ID) is None
        assert store.get(UNKNOWN_ID) is None
        assert not store.cancel(UNKNOWN_ID)
        assert not store.resume(UNKNOWN_ID)

    @pytest.mark.parametrize("nothing", [None, "", "nope", "x" * 300, "\0", "\ud800", 7])
    def test_what_is_no_id_is_no_execution(
        self, store: ExecutionStore, workflow: Workflow, nothing: Any
    ) -> None:
        """A caller whose own record has no id means none, and not any that is there."""
        execution_id = self.begin(store, workflow, tenant_id="acme")
        assert not store.pause(nothing)
        assert store.cancel(execution_id, force=True)
        for tenant_id in (None, "acme"):
            assert store.get(nothing, tenant_id=tenant_id) is None
            assert not store.resume(nothing, step_id="tell", tenant_id=tenant_id)
            assert not store.retry_step(nothing, "tell", tenant_id=tenant_id)
            assert not store.cancel(nothing, tenant_id=tenant_id)
            with pytest.raises(AutomateError, match="there is no execution"):
                store.fork(nothing, "tell", tenant_id=tenant_id)
        assert store.waits(nothing) == []
        assert store.attempts(nothing) == []
        assert store.failed_attempts(nothing) == []
        assert not store.is_cancelling(nothing)
        assert [one.status for one in store.find()] == [ExecutionStatus.CANCELLED]

    def test_an_id_in_another_spelling(self, store: ExecutionStore, workflow: Workflow) -> None:
        """It is the same one, whatever database has it."""
        execution_id = self.begin(store, workflow)
        for given in (execution_id.upper(), execution_id.replace("-", "")):
            assert store.pause(given)
            assert self.see(store, execution_id).status is ExecutionStatus.PAUSED
            assert store.unpause(given)
            found = store.get(given)
            assert found is not None
            assert (found.id, found.status) == (execution_id, ExecutionStatus.PENDING)
        assert store.cancel(execution_id.upper(), force=True)

    @pytest.mark.parametrize("given", ["4711", "", "a\0", "\ud800"])
    def test_text_that_is_no_id_is_no_execution(self, store: ExecutionStore, given: str) -> None:
        """It has the same answers on all databases, of which some know UUIDs."""
        assert store.get(given) is None
        assert not store.cancel(given)
        assert not store.resume(given)
        assert store.waits(given) == []
        assert store.attempts(given) == []
        assert store.failed_attempts(given) == []
        assert store.page(ids=[given, UNKNOWN_ID]).executions == []
        with pytest.raises(AutomateError, match="there is no execution"):
            store.output(given)

    @pytest.mark.parametrize("given", ["a\0", "\ud800"])
    def test_what_can_not_be_stored_is_not_found(self, store: ExecutionStore, given: str) -> None:
        """The drivers refuse such text, each in its own way."""
        assert store.find(workflow=given) == []
        assert store.page(tenant_id=given).executions == []
        assert store.page(labels=[f"order={given}"]).executions == []

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

    def test_progress_forgets_the_crashes(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """An execution that comes a step further each time is not given up, however many die."""
        execution_id = self.begin(store, workflow)
        item = self.claim(store)
        for position in range(item.max_attempts + 5):
            self.save(store, item, [self.run(execution_id, "count", position=position)])
            item = self.lose(store, clock)
            assert item.attempt_count == 2
        assert self.end(store, item, ExecutionStatus.COMPLETED)

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

    # How a failed execution runs again, and how executions are found.

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
            assert change_status(rows, running, ExecutionStatus.CANCELLED)
        assert store.resume(execution_id, step_id="count")
        before = store.checkpoints.load(execution_id)
        assert before is not None
        before.execution.item_id = item.id
        turn = Turn(saves=[self.run(execution_id, "count")])
        assert not self.checkpoint(store, item, turn, before.execution)
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

    def test_received_signals_are_listed(self, store: ExecutionStore, workflow: Workflow) -> None:
        """The newest stand first, with their payloads."""
        execution = self.see(store, self.begin(store, workflow))
        with store.storage.begin() as rows:
            for number in range(3):
                event = Event(id=new_id(), name="go", payload={"n": number})
                store.signals.send(rows, execution, event)
        found = store.received_signals(execution.id)
        assert sorted(one.payload["n"] for one in found) == [0, 1, 2]
        assert len(store.received_signals(execution.id, limit=2)) == 2
        assert store.received_signals(UNKNOWN_ID) == []

    def test_failures_are_counted_by_cause(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Those that began in the time that is asked for."""
        self.begin(store, workflow, tenant_id="t1")
        assert self.end(store, self.claim(store), ExecutionStatus.FAILED)
        now, second = clock(), timedelta(seconds=1)
        cause = ("order-notify", "SlackApiError in chat.post")
        assert store.count_failures(since=now - second, until=now + second) == {cause: 1}
        assert store.count_failures(since=now + second, until=now + 2 * second) == {}
        assert store.count_failures(since=now - second, until=now + second, tenant_id="t2") == {}

    # What operators see of executions without looking at them.

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
            ExecutionListener().ended(rows, [replace(item, status=ItemStatus.FAILED)])
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

    def test_its_history(self, store: ExecutionStore, workflow: Workflow, clock: FakeClock) -> None:
        """It says the same of hours and days as minute by minute, and few rows are read for it."""
        for number in range(40):
            name = ("order-notify", "other")[number % 2]
            other = Workflow.from_dict({**WORKFLOW, "name": name})
            assert store.cancel(self.begin(store, other, id=f"{UNKNOWN_ID[:-2]}{number:02}"))
            clock.advance(3_000 + number)
            assert store.roll_up_activity() is False
            if number % 10 == 9:
                for seconds in (3_600, 40_000, 86_400, 7 * 86_400):
                    found = store.history(seconds=seconds)
                    assert [one.at for one in found] == sorted(one.at for one in found)
                    every = store.activity(seconds=(clock() - found[0].at).total_seconds())
                    assert total_by_kind(found) == {
                        name: replace(one, at=total_by_kind(found)[name].at)
                        for name, one in total_by_kind(every).items()
                    }
        assert {one.at.minute for one in found} == {0}
        assert {one.at.hour % 6 for one in found} == {0}
        assert len(found) <= 16
        # Twice does no harm, and what is old goes.
        assert store.roll_up_activity() is False
        assert total_by_kind(store.history(seconds=7 * 86_400)) == total_by_kind(found)
        clock.advance(30 * 86_400)
        assert store.purge_activity() > 40
        assert store.history(seconds=60 * 86_400) == []

    def test_a_cause_is_known_for_longer_than_its_failures(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """To those who see all tenants; a tenant sees what its own failures say."""
        begun = clock()
        for number in range(3):
            self.fail_one(store, workflow, number, tenant_id="t")
            with store.storage.begin() as rows:
                assert note_causes(rows) == (number == 0)
            assert store.error_groups()[0].first_at == begun
            clock.advance(2 * 86_400)
            assert store.purge(older_than_seconds=86_400) == 1
        assert store.error_groups() == []
        latest = clock()
        self.fail_one(store, workflow, 4, tenant_id="t")
        assert [each.first_at for each in store.error_groups()] == [begun]
        assert [each.first_at for each in store.error_groups(tenant_id="t")] == [latest]
        self.fail_one(store, Workflow.from_dict(OTHER), 5)
        first = {each.kind: each.first_at for each in store.error_groups()}
        assert first == {workflow.name: begun, "other": latest}
        clock.advance(400 * 86_400)
        assert store.purge(older_than_seconds=86_400) == 2
        with store.storage.begin() as rows:
            assert note_causes(rows) == 0
            assert rows.count(CAUSE)[0]["n"] == 0

    # What a page of many executions shows.

    def test_the_latest_of_each_workflow(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """The newest first, so many of each, in one statement however many workflows."""
        begun = []
        for number, tenant in enumerate(("a", "b", "a", None)):
            begun.append(
                self.begin(
                    store, workflow, id=f"01890000-0000-7000-8000-00000000000{number}",
                    tenant_id=tenant,
                )
            )  # fmt: skip
            clock.advance(1)
        other = self.begin(store, Workflow.from_dict(OTHER))
        name, seen = workflow.name, queries.count
        found = store.latest([(name, None), (name, "a"), ("other", None), ("?", None)], limit=2)
        assert queries.count == seen + 1
        assert {of: [each.id for each in its] for of, its in found.items()} == {
            (name, None): begun[:1:-1],
            (name, "a"): begun[2::-2],
            ("other", None): [other],
            ("?", None): [],
        }
        assert len(store.latest([(name, f"t{number}") for number in range(150)])) == 150

    def test_the_children_of_many(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """All are counted at once; the newest come as values, of each parent as many."""
        first, second = (self.begin(store, workflow, id=f"{UNKNOWN_ID[:-1]}{n}") for n in (1, 2))
        children = []
        for number, parent in enumerate((first, first, first, second)):
            clock.advance(1)
            child = self.begin(store, Workflow.from_dict(OTHER), id=f"{UNKNOWN_ID[:-2]}1{number}")
            with store.storage.begin() as rows:
                rows.update(EXECUTION, [Where("id", "eq", child)], {"parent_id": parent})
            children.append(child)
        store.cancel(children[0])
        seen = queries.count
        found = store.children([first, second, children[0]], limit=0)
        assert queries.count == seen + 1
        assert {parent: its.counts for parent, its in found.items()} == {
            first: {"PENDING": 2, "CANCELLED": 1},
            second: {"PENDING": 1},
        }
        found = store.children([first, second], limit=2)
        assert queries.count == seen + 3
        newest = {parent: [each.id for each in its.executions] for parent, its in found.items()}
        assert newest == {first: children[2:0:-1], second: [children[3]]}
        page = store.page(parent_id=first, status="PENDING")
        assert [each.id for each in page.executions] == children[2:0:-1]
        assert not store.page(parent_id="zz").executions

    # Failed executions that are resumed together.

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
        assert store.resume_matching(error_group="KeyError in chat.post") == 0
        assert store.resume_matching(workflow="other", created_after=begun) == 0
        assert store.resume_matching(tenant_id="a") == 1
        assert self.statuses(store, ids) == ["FAILED", "FAILED", "PENDING", "FAILED"]
        assert store.resume_matching(workflow=workflow.name, created_before=begun) == 1
        assert self.statuses(store, ids) == ["PENDING", "FAILED", "PENDING", "FAILED"]
        assert store.resume_matching(error_group="SlackApiError in chat.post", limit=1) == 1
        assert store.resume_matching(error_code="NOT_FOUND") == 1
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

    def test_a_clock_that_is_put_back_holds_no_rate(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """The next are due as if the action had just begun."""
        for number in range(4):
            self.fail_one(store, workflow, number)
        action = BulkAction("resume", {"status": "FAILED"}, per_second=1, target="executions")
        action = replace(store.run_bulk(action, limit=2), finished=False)
        clock.advance(-3600)
        action = store.run_bulk(action)
        due = [store.outbox.get(self.see(store, each.id).item_id or "") for each in store.find()]
        left = sorted((item.next_attempt_at - clock()).total_seconds() for item in due if item)
        assert (action.done, left) == (4, [2, 3, 3600, 3601])

    def test_a_bulk_action_is_gone_on_with(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """It comes to each once, at its rate, however many goes it takes and what lies between."""
        ids = []
        for number in range(110):
            ids.append(self.fail_one(store, workflow, number))
            clock.advance(number % 3 == 0)
        action = BulkAction("resume", {"status": "FAILED"}, per_second=10, target="executions")
        while not action.finished:
            action = BulkAction(**json.loads(json.dumps(asdict(action))))
            action = store.run_bulk(action, seconds=0)
            # Long after what it has done is due nobody carries it on.
            clock.advance(3600)
        assert (action.seen, action.done) == (110, 110)
        items = [store.outbox.get(self.see(store, each).item_id or "") for each in ids]
        due = sorted(item.next_attempt_at for item in items if item is not None)
        gaps = [(b - a).total_seconds() for a, b in zip(due, due[1:], strict=False)]
        assert min(gaps) > 0.09
        assert sum(gap > 3000 for gap in gaps) == 2

    def test_many_are_forked(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """One copy of each at its rate, also if a part is repeated; what has no such step has none."""
        ids = [self.fail_one(store, workflow, number) for number in range(5)]
        other = Workflow.from_dict({**OTHER, "steps": [{"id": "only", "action": "a"}]})
        self.fail_one(store, other, 9)
        clock.advance(1)
        meant = {"status": "FAILED"}
        action = BulkAction("fork", meant, per_second=1, target="executions", step="tell")
        assert store.count_bulk(action) == 6
        for wrong in (replace(action, step=""), replace(action, command="resume", per_second=None),
                      replace(action, matching={"status": "RUNNING"})):  # fmt: skip
            with pytest.raises(AutomateError) as raised:
                store.run_bulk(wrong)
            assert raised.value.code == "INVALID_ARGUMENT"
        begun = store.run_bulk(action, limit=3)
        # Its progress was lost: a worker has died.
        again = store.run_bulk(replace(begun, after="", seen=0, done=0, finished=False))
        assert (again.seen, again.done) == (6, 5)
        copies = [
            each for one in ids
            for each in store.page(labels=[f"forked_from={one}"]).executions
        ]  # fmt: skip
        assert len(copies) == 5
        assert {each.status for each in copies} == {ExecutionStatus.PENDING}
        assert self.statuses(store, ids) == ["FAILED"] * 5
        items = [store.outbox.get(each.item_id or "") for each in copies]
        due = sorted(item.next_attempt_at for item in items if item is not None)
        assert [(each - due[0]).total_seconds() for each in due] == [0, 1, 2, 3, 4]
        # A copy that fails is no original of this action.
        assert store.run_bulk(replace(again, after="", finished=False)).seen == 12

    def test_what_fails_after_a_bulk_action_began_is_not_meant(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Though it began before."""
        early = self.begin(store, workflow)
        item = self.claim(store)
        self.fail_one(store, workflow, 1)
        meant = {"workflow": workflow.name}
        action = store.run_bulk(BulkAction("resume", meant, target="executions"), limit=0)
        clock.advance(1)
        self.end(store, item, ExecutionStatus.FAILED)
        late = self.fail_one(store, workflow, 2)
        action = store.run_bulk(replace(action, finished=False))
        assert (action.seen, action.done) == (1, 1)
        assert self.statuses(store, [early, late]) == ["FAILED", "FAILED"]

    def test_what_comes_after_a_bulk_action_began_is_not_meant(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Else it would never end while more and more come."""
        early = self.begin(store, workflow, id=f"01890000-0000-7000-8000-{1:012x}")
        meant = {"workflow": workflow.name}
        action = store.run_bulk(BulkAction("cancel", meant, target="executions"), limit=0)
        clock.advance(1)
        late = self.begin(store, workflow, id=f"01890000-0000-7000-8000-{2:012x}")
        action = store.run_bulk(replace(action, finished=False))
        assert action.done == 1
        assert self.statuses(store, [early, late]) == ["CANCELLED", "PENDING"]

    def test_one_that_is_refused_leaves_the_others(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Its definition is gone, say: whatever is beside it in a transaction goes on."""
        other = Workflow.from_dict(OTHER)
        ids = [
            self.fail_one(store, other if number == 3 else workflow, number) for number in range(8)
        ]
        with store.storage.begin() as rows:
            rows.delete(DEFINITION, [Where("id", "eq", other.hash())])
        action = store.run_bulk(BulkAction("resume", {"status": "FAILED"}, target="executions"))
        assert (action.seen, action.done, action.finished) == (8, 7, True)
        assert self.statuses(store, ids).count("PENDING") == 7
        assert self.statuses(store, ids)[3] == "FAILED"

    def test_what_is_refused_is_come_to_once(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Though more of the same moment than go together stay as they are: else it never ends."""
        for number in range(52):
            self.fail_one(store, workflow, number)
        with store.storage.begin() as rows:
            rows.delete(DEFINITION, [Where("id", "eq", workflow.hash())])
        action = BulkAction("resume", {"status": "FAILED"}, target="executions")
        for seen in (50, 52):
            action = store.run_bulk(action, seconds=0)
            assert (action.seen, action.done) == (seen, 0)
        assert action.finished

    def test_a_lock_that_somebody_holds_refuses_no_execution(
        self, store: ExecutionStore, workflow: Workflow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The action stands still, and comes to all of them once it is carried on."""
        ids = [self.fail_one(store, workflow, number) for number in range(3)]

        def locked(*_: Any, **__: Any) -> int:
            raise LockedError("somebody holds their rows")

        with monkeypatch.context() as patch:
            patch.setattr(store, "_resume_failed", locked)
            with pytest.raises(LockedError):
                store.resume_matching(status="FAILED")
        assert self.statuses(store, ids) == ["FAILED"] * 3
        assert store.resume_matching(status="FAILED") == 3

    def test_together_they_forget_what_each_would_alone(self, store: ExecutionStore) -> None:
        """What was undone runs again with all that follows from it, and what was kept is kept."""
        workflow = Workflow.from_dict(_UNDONE)
        ids = []
        for number in range(4):
            ids.append(self.begin(store, workflow, id=f"01890000-0000-7000-8000-{number:012x}"))
            item = self.claim(store)
            runs = [("kept", "COMPLETED"), ("book", "COMPLETED"), ("pay", "FAILED")]
            runs += [("book.compensate", "COMPLETED")] if number % 2 else []
            self.save(
                store, item,
                [self.run(ids[-1], name, status=StepStatus(status)) for name, status in runs],
            )  # fmt: skip
            self.end(store, item, ExecutionStatus.FAILED)
        assert [store.resume(each) for each in ids[:2]] == [True, True]
        assert store.resume_matching(status="FAILED") == 2
        left = [[run.step_id for run in self.see(store, each).steps] for each in ids]
        assert left == [["kept", "book"], ["kept"]] * 2

    def test_executions_are_cancelled_and_paused_together(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Those of a status, or all that the command is for; a second time changes nothing."""
        tidy = [{"id": "tidy", "action": "orders.undo"}]
        flow = Workflow.from_dict({**WORKFLOW, "name": "plain", "on_cancel": tidy})
        ids = [self.begin(store, flow, id=f"01890000-0000-7000-8000-{n:012x}") for n in range(3)]
        other = self.begin(store, workflow)
        meant = {"workflow": "plain"}

        def does(command: str, **matching: object) -> int:
            action = BulkAction(command, {**meant, **matching}, target="executions")
            assert store.count_bulk(action) == (done := store.run_bulk(action).done)
            return done

        assert [does("pause", ids=ids[:1]), does("pause"), does("pause")] == [1, 2, 0]
        assert [does("unpause", status="PAUSED"), does("unpause")] == [3, 0]
        assert does("cancel") == 3
        # They clean up, and a repeated batch must not end that.
        assert does("cancel") == 0
        assert self.statuses(store, [*ids, other]) == [*["CANCELLING"] * 3, "PENDING"]
        for command, matching in (("explode", meant), ("cancel", {}), ("pause", {"kind": "x"})):
            with pytest.raises((AutomateError, TypeError)):
                store.run_bulk(BulkAction(command, matching, target="executions"))
        with pytest.raises(AutomateError, match="no command for executions"):
            store.run_bulk(BulkAction("cancel", meant))

    def test_together_they_are_cancelled_as_each_would_be_alone(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Those that run, clean up, are paused or have children; and all who hear of it do."""
        tidy = [{"id": "tidy", "action": "orders.undo"}]
        cleans = Workflow.from_dict({**WORKFLOW, "name": "cleans", "on_cancel": tidy})
        ids = [
            self.begin(store, one, id=f"01890000-0000-7000-8000-{n:012x}")
            for n, one in enumerate([workflow, cleans, workflow, cleans, workflow, workflow] * 2)
        ]
        told: list[str] = []
        store._on_cancelled = lambda one, _waits: told.append(one.id)  # noqa: SLF001
        items = {one.id: one for one in store.outbox.claim_batch("worker", len(ids))}
        for place, each in enumerate(ids):
            item = items[self.see(store, each).item_id or ""]
            if place % 6 in (2, 3, 4):
                runs = [self.run(each, f"s{place}", status=StepStatus.RUNNING)]
                self.save(store, item, runs)
            else:
                store.outbox.release([item.id], "worker")
        with store.storage.begin() as rows:
            for parent, child in ((4, 0), (10, 6)):
                rows.update(EXECUTION, [Where("id", "eq", ids[child])], {"parent_id": ids[parent]})
        assert store.pause(ids[5]) and store.pause(ids[11])

        def seen(some: Sequence[str]) -> list[object]:
            found: list[object] = []
            for one in map(store.get, some):
                assert one is not None
                item = store.outbox.get(one.item_id or "")
                assert item is not None
                steps = [run.status for run in one.steps]
                found.append((one.status, one.completed_at is None, steps, item.status))
            return found

        def changes(cancel: Callable[[], object]) -> list[str]:
            before = {item.id for item in store.outbox.find(limit=500)}
            cancel()
            return sorted(
                item.kind for item in store.outbox.find(limit=500) if item.id not in before
            )

        alone = changes(lambda: [store.cancel(each) for each in ids[:6]])
        ended, counted = [told.index(each) for each in told], store.activity()
        action = BulkAction("cancel", {"ids": ids[6:]}, target="executions")
        together = changes(lambda: store.run_bulk(action))
        assert seen(ids[6:]) == seen(ids[:6])
        assert together == alone and len(alone) == 2
        assert [ids.index(each) + 6 for each in told[: len(ended)]] == sorted(
            ids.index(each) for each in told[len(ended) :]
        )
        assert [one.cancelled for one in store.activity()] == [2 * n.cancelled for n in counted]

    def test_without_a_filter_it_is_refused(self, store: ExecutionStore) -> None:
        """Who means all says so."""
        with pytest.raises(AutomateError, match="no filter"):
            store.resume_matching()
        assert store.resume_matching(status="FAILED") == 0
        with pytest.raises(AutomateError, match="RUNNING"):
            store.resume_matching(status="RUNNING")

    # Errors of every attempt, errors in groups, labels.

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

    def test_pages_of_executions_with_all_of_several_labels(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Each once, the newest first, however many there are of each label."""
        both = {"region": "eu", "tier": "gold"}
        wanted = self.some(store, workflow, 7, labels=both)
        self.some(store, workflow, 5, first=100, labels={"region": "eu", "tier": "free"})
        self.some(store, workflow, 5, first=200, labels={"region": "us", "tier": "gold"})
        for labels in (["region=eu", "tier=gold"], ["tier=gold", "region=eu"], ["gold", "eu"]):
            found, after = list[str](), ""
            while True:
                page = store.page(labels=labels, limit=3, after=after)
                found += [each.id for each in page.executions]
                after = page.after
                if not after:
                    break
            assert sorted(found) == sorted(wanted)
            assert len(found) == 7
        assert store.page(labels=["region=eu", "tier=none"]).executions == []
        assert store.page(labels=["region=gold"]).executions == []
        assert len(store.page(label="region=eu", labels=["tier=gold"]).executions) == 7
        assert store.cancel(wanted[0])
        for status, count in (("CANCELLED", 1), ("PENDING", 6), ("FAILED", 0)):
            assert len(store.page(labels=["region=eu", "tier=gold"], status=status).executions) == (
                count
            )
        assert store.page(labels=["region=eu"], tenant_id="other").executions == []
        place = store.page(labels=["region=eu", "tier=gold"], limit=1).after
        with pytest.raises(AutomateError, match="no such page"):
            store.page(labels=["region=eu", "tier=free"], after=place)

    def test_a_value_under_two_names_is_one_execution(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        ids = self.some(store, workflow, 5, labels={"order": "7", "customer": "7"})
        found, after = list[str](), ""
        while True:
            page = store.page(labels=["7"], limit=2, after=after)
            found, after = found + [each.id for each in page.executions], page.after
            if not after:
                break
        assert sorted(found) == sorted(ids)

    def test_a_search_for_labels_is_bounded(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Where few of many have the second label, a page says how far it looked."""
        self.some(store, workflow, 1, labels={"region": "eu", "tier": "gold"})
        self.some(store, workflow, 300, first=1, labels={"tier": "gold"})
        self.some(store, workflow, 450, first=301, labels={"region": "eu"})
        found, after, pages = 0, "", 0
        while True:
            page = store.page(labels=["region=eu", "tier=gold"], after=after, look=200)
            found, after, pages = found + len(page.executions), page.after, pages + 1
            if not after:
                break
            assert page.looked >= 200 or page.executions
        assert (found, pages) == (1, 2)
        seen = queries.count
        assert not store.page(labels=["region=eu", "tier=none"]).after
        assert not store.page(labels=["tier=none", "region=eu"], status="FAILED").after
        assert queries.count <= seen + 6

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

    def some(self, store: ExecutionStore, workflow: Workflow, n: int, **options: Any) -> list[str]:
        """Begin *n* executions, the newest first."""
        first = options.pop("first", 0)
        event_ids = [f"01890000-0000-7000-8000-{first + i:012x}" for i in range(n)]
        return [self.begin(store, workflow, id=each, **options) for each in event_ids][::-1]

    def listed(self, store: ExecutionStore, **options: Any) -> list[str]:
        """Return the ids on one page."""
        return [each.id for each in store.page(**options).executions]

    def test_pages_follow_each_other(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """No execution is left out or repeated, though several begin at the same moment."""
        ids = self.some(store, workflow, 4)
        clock.advance(1)
        ids = [*self.some(store, workflow, 3, first=4), *ids]
        seen, after = list[str](), ""
        for _ in range(4):
            page = store.page(limit=2, after=after)
            seen += [each.id for each in page.executions]
            after = page.after
        assert after == ""
        assert sorted(seen) == sorted(ids)
        assert set(seen[:3]) == set(ids[:3])

    def test_filters_narrow_the_list(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """Status, workflow, tenant, error, age and label; all of them must hold."""
        other = Workflow.from_dict({**WORKFLOW, "name": "other"})
        (failed,) = self.some(store, workflow, 1)
        self.end(store, self.claim(store), ExecutionStatus.FAILED)
        clock.advance(100)
        (tenants,) = self.some(store, other, 1, first=1, tenant_id="a", labels={"order": "7"})
        since = clock() - timedelta(seconds=50)
        assert self.listed(store) == [tenants, failed]
        assert self.listed(store, status="FAILED") == [failed]
        assert self.listed(store, status="FAILED", workflow="other") == []
        assert self.listed(store, error_group="SlackApiError in chat.post") == [failed]
        assert self.listed(store, workflow="other", tenant_id="a") == [tenants]
        assert self.listed(store, tenant_id="b") == []
        assert self.listed(store, created_after=since) == [tenants]
        assert self.listed(store, created_before=since) == [failed]
        assert self.listed(store, ids=[failed, tenants]) == [tenants, failed]
        assert self.listed(store, ids=[failed, tenants], tenant_id="a") == [tenants]
        assert self.listed(store, label="order=7") == self.listed(store, label="7") == [tenants]
        assert self.listed(store, label="7", status="FAILED") == []
        assert self.listed(store, label="7", tenant_id="b") == []

    def test_events_are_read_if_they_are_asked_for(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """Without them a page costs the same, however large payloads are."""
        self.some(store, workflow, 1, labels={"order": "7"})
        (bare,) = store.page().executions
        (whole,) = store.page(events=True).executions
        assert (bare.event.name, bare.labels) == ("", {})
        assert (whole.event.name, whole.labels) == ("order.created", {"order": "7"})

    def test_a_rare_one_is_looked_for_along_an_index(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """A page looks through so many, and the next one looks on."""
        (done,) = self.some(store, workflow, 1)
        self.end(store, self.claim(store), ExecutionStatus.COMPLETED)
        self.some(store, workflow, 6, first=1)
        options: dict[str, Any] = {"workflow": workflow.name, "status": "COMPLETED", "look": 4}
        page = store.page(**options)
        assert (page.executions, page.looked, bool(page.after)) == ([], 4, True)
        page = store.page(after=page.after, **options)
        assert [each.id for each in page.executions] == [done]
        assert self.listed(store, seconds=60, **options) == [done]

    def test_failures_of_a_cause_follow_each_other_in_any_status(
        self, store: ExecutionStore, workflow: Workflow, clock: FakeClock
    ) -> None:
        """The newest first, page after page, each once; with a workflow, only its own."""
        ids = []
        for number in range(5):
            clock.advance(number % 2)
            ids.append(self.fail_one(store, workflow, number))
        other = self.fail_one(store, Workflow.from_dict(OTHER), 9)
        with store.storage.begin() as rows:
            rows.update(EXECUTION, [Where("id", "eq", ids[1])], {"status": "CANCELLED"})
        asked: dict[str, Any] = {"error_group": "SlackApiError in chat.post", "limit": 2}
        seen, after = list[str](), ""
        while True:
            page = store.page(after=after, **asked)
            seen, after = seen + [each.id for each in page.executions], page.after
            if not after:
                break
        assert sorted(seen) == sorted([*ids, other])
        times = [self.see(store, each).created_at for each in seen]
        assert times == sorted(times, key=lambda at: at or clock(), reverse=True)
        assert self.listed(store, workflow="other", **asked) == [other]
        asked |= {"status": "CANCELLED"}
        assert self.listed(store, **asked) == [ids[1]]

    def test_a_place_in_another_list_is_refused(
        self, store: ExecutionStore, workflow: Workflow
    ) -> None:
        """And so is what is no place."""
        self.some(store, workflow, 3)
        after = store.page(limit=1).after
        wrong: list[dict[str, Any]] = [
            {"status": "PENDING", "after": after},
            {"after": "x"},
            {"after": f"{after}x"},
        ]
        for options in wrong:
            with pytest.raises(AutomateError, match="no such page"):
                store.page(**options)
