"""
The test of a COMMIT that fails: before it took effect, or after it did and only the reply is lost.

Then there is no stray row, no lock, a clean pool, and the caller may try again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.operations.context import current_call
from automate_kernel.outbox import ItemStatus, NewItem, Outcome
from automate_kernel.outbox.controls import controls_of
from automate_kernel.storage import Storage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import ExecutionStatus

_LEASE_SECONDS = 30.0
_STEPS: list[dict[str, Any]] = [
    {"id": "first", "action": "do.it"},
    {"id": "book", "action": "book.it"},
    {"id": "last", "action": "do.it"},
]
_ASKS: list[dict[str, Any]] = [
    {"id": "ask", "approval": {"title": "Go on?", "by": ["them"]}},
    {"id": "last", "action": "do.it"},
]


def _waiting_item(kernel: Kernel) -> str:
    return kernel.outbox.enqueue("mail", delay=3600)


def _cancelled_item(kernel: Kernel) -> str:
    item_id = _waiting_item(kernel)
    kernel.outbox.cancel([item_id])
    return item_id


def _item_is(status: ItemStatus, *, due: bool = False) -> Callable[[Kernel, str], bool]:
    def check(kernel: Kernel, item_id: str) -> bool:
        item = kernel.outbox.get(item_id)
        assert item is not None
        return item.status is status and (not due or item.next_attempt_at <= kernel.outbox.now())

    return check


def _started(kernel: Kernel) -> str:
    return kernel.start("asks")


def _asking(kernel: Kernel) -> str:
    execution_id = kernel.start("asks")
    kernel.run_until_idle()
    assert kernel.approvals.get(execution_id, "ask") is not None
    return execution_id


def _paused(kernel: Kernel) -> str:
    execution_id = _asking(kernel)
    kernel.executions.pause(execution_id)
    return execution_id


def _failed(kernel: Kernel) -> str:
    execution_id = _asking(kernel)
    kernel.approvals.reject(execution_id, "ask", by="them")
    kernel.run_until_idle()
    assert _execution_is(ExecutionStatus.FAILED)(kernel, execution_id)
    return execution_id


def _execution_is(*statuses: ExecutionStatus) -> Callable[[Kernel, str], bool]:
    def check(kernel: Kernel, execution_id: str) -> bool:
        execution = kernel.executions.get(execution_id)
        assert execution is not None
        return execution.status in statuses

    return check


def _asks_again(kernel: Kernel, execution_id: str) -> bool:
    kernel.run_until_idle()
    asked = kernel.approvals.get(execution_id, "ask")
    return asked is not None and asked.decided_by is None


def _fork(kernel: Kernel, execution_id: str) -> None:
    kernel.executions.fork(execution_id, "ask")


def _forks_ask(kernel: Kernel, execution_id: str) -> bool:
    """Return True if there is a fork, and each of them is whole."""
    forks = [each.id for each in kernel.executions.labelled(f"forked_from={execution_id}")]
    return bool(forks) and all(_asks_again(kernel, one) for one in forks)


def _signalled(kernel: Kernel, execution_id: str) -> bool:
    return len(kernel.executions.received_signals(execution_id)) == 1


def _signal(kernel: Kernel, execution_id: str) -> None:
    kernel.signal(execution_id, "news", {"n": 1}, idempotency_key="one")


def _decided(kernel: Kernel, execution_id: str) -> bool:
    kernel.run_until_idle()
    return _execution_is(ExecutionStatus.COMPLETED)(kernel, execution_id)


def _pause_workflow(kernel: Kernel, _: str) -> None:
    kernel.workflows.pause("asks")


def _workflow_waits(kernel: Kernel, execution_id: str) -> bool:
    kernel.run_until_idle()
    paused = kernel.approvals.get(execution_id, "ask") is None
    kernel.workflows.resume("asks")
    return paused and _asks_again(kernel, execution_id)


def _held_back(kernel: Kernel) -> str:
    kernel.workflows.pause("asks")
    execution_id = _started(kernel)
    kernel.run_until_idle()
    return execution_id


def _paused_kind(kernel: Kernel) -> str:
    kernel.outbox.pause("mail")
    return kernel.outbox.enqueue("mail")


def _kind_goes_on(kernel: Kernel, item_id: str) -> bool:
    claimed = kernel.outbox.claim_batch("w-1", 100, kinds=["mail"])
    kernel.outbox.acknowledge("w-1", [Outcome(item.id) for item in claimed])
    return item_id in [item.id for item in claimed]


Order = tuple[
    Callable[[Kernel], str], Callable[[Kernel, str], object], Callable[[Kernel, str], bool]
]
"""What there is before it, the order, and True if it was carried out."""

ORDERS: dict[str, Order] = {
    "cancel an item": (
        _waiting_item, lambda k, one: k.outbox.cancel([one]), _item_is(ItemStatus.CANCELLED),
    ),
    "requeue an item": (
        _cancelled_item, lambda k, one: k.outbox.requeue([one]),
        _item_is(ItemStatus.PENDING, due=True),
    ),
    "reschedule an item": (
        _waiting_item, lambda k, one: controls_of(k.outbox).reschedule([one]),
        _item_is(ItemStatus.PENDING, due=True),
    ),
    "resume a kind": (_paused_kind, lambda k, _: k.outbox.resume("mail"), _kind_goes_on),
    "cancel": (
        _asking, lambda k, one: k.executions.cancel(one), _execution_is(ExecutionStatus.CANCELLED),
    ),
    "pause": (
        _asking, lambda k, one: k.executions.pause(one), _execution_is(ExecutionStatus.PAUSED),
    ),
    "unpause": (_paused, lambda k, one: k.executions.unpause(one), _asks_again),
    "resume": (_failed, lambda k, one: k.executions.resume(one), _asks_again),
    "retry a step": (_failed, lambda k, one: k.executions.retry_step(one, "ask"), _asks_again),
    "fork": (_failed, _fork, _forks_ask),
    "signal": (_asking, _signal, _signalled),
    "approve": (_asking, lambda k, one: k.approvals.approve(one, "ask", by="them"), _decided),
    "pause a workflow": (_started, _pause_workflow, _workflow_waits),
    "resume a workflow": (_held_back, lambda k, _: k.workflows.resume("asks"), _asks_again),
}  # fmt: skip


class CommitFaults:
    """Makes chosen commits raise. An adapter's test calls `around` for each COMMIT of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._when, self._left, self._every, self.most = "", 0, 0, 0
        self.fired = 0

    def arm(self, when: str, *, number: int = 1, every: int = 0, most: int = 1) -> None:
        """Let commit *number* from here fail, and then each after *every*, *most* in all."""
        self._when, self._left, self._every, self.most = when, number, every or number, most
        self.fired = 0

    def disarm(self) -> int:
        """Let no more fail; return the number of those that did."""
        self.most = 0
        return self.fired

    def around(self, commit: Callable[[], Any], error: Callable[[str], BaseException]) -> Any:
        """Commit, unless it is to fail."""
        with self._lock:
            self._left -= 1
            failing = self._left <= 0 and self.fired < self.most
            if failing:
                self.fired, self._left = self.fired + 1, self._every
        if failing and self._when == "before":
            raise error("the commit failed")
        result = commit()
        if failing:
            raise error("the reply was lost")
        return result


class CommitFaultContract:
    """
    Tests of a failing COMMIT, for an adapter with a storage whose commits `CommitFaults` sees.

    A subclass gives the fixture ``storage`` and the other methods that raise here.
    """

    patience_statement = ""
    """The statement after which a connection waits for a lock for a moment only."""

    @pytest.fixture
    def faults(self) -> CommitFaults:
        return CommitFaults()

    @pytest.fixture
    def storage(self, clock: FakeClock, faults: CommitFaults) -> Storage:
        """A storage by *clock* with empty tables, and an empty table ``booked (word)``."""
        raise NotImplementedError

    def outside(self, storage: Storage, *statements: str) -> list[Any]:
        """Run statements on a connection of another client; return the rows of the last."""
        raise NotImplementedError

    def host_transaction(self, storage: Storage) -> AbstractContextManager[Any]:
        """Open a transaction of the application; yield what is passed as ``transaction=``."""
        raise NotImplementedError

    def write(self, transaction: Any, word: str) -> None:
        """Add a row to the table ``booked`` in a transaction of the application."""
        raise NotImplementedError

    # -- the scene --------------------------------------------------------------------------------

    @pytest.fixture
    def kernel(self, storage: Storage) -> Iterator[Kernel]:
        with self.opened(storage, _LEASE_SECONDS) as kernel:
            yield kernel

    @contextmanager
    def opened(self, storage: Storage, lease_seconds: float) -> Iterator[Kernel]:
        with Kernel(storage, discover=False, secrets={}, lease_seconds=lease_seconds) as kernel:

            @kernel.action("do.it")
            def do_it() -> int:
                return 7

            @kernel.action("book.it", transactional=True)
            def book_it() -> str:
                call = current_call()
                assert call is not None
                self.write(call.transaction, str(call.execution_id))
                return "booked"

            kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": _STEPS})
            kernel.add_workflow({"name": "asks", "trigger": {"type": "manual"}, "steps": _ASKS})
            yield kernel

    def kinds(self, storage: Storage) -> list[str]:
        """The kinds of all items, as another client sees them, which may write at once."""
        rows = self.outside(
            storage,
            self.patience_statement,
            "UPDATE automate_outbox SET kind = kind",
            "SELECT kind FROM automate_outbox ORDER BY kind",
        )
        return [row[0] for row in rows]

    def use_pool(self, storage: Storage) -> None:
        """Commit something else on the connections of the pool."""
        for atomic in (True, False, True):
            with storage.begin(atomic=atomic) as rows:
                rows.count("automate_outbox")

    # -- emit --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_enqueue_in_a_transaction_of_ours(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, when: str
    ) -> None:
        """It raises, holds nothing, keeps no stray row, and may be tried again."""
        enqueue = kernel.outbox.enqueue_many
        items = [NewItem("refused", idempotency_key=f"key-{n}") for n in range(2)]
        faults.arm(when)
        with pytest.raises(StorageError) as caught:
            enqueue(items)
        assert faults.disarm() == 1
        assert caught.value.code is ErrorCodes.UNAVAILABLE and caught.value.retryable
        kept = [] if when == "before" else ["refused"] * 2
        assert self.kinds(storage) == kept
        self.use_pool(storage)
        kernel.outbox.enqueue("another")
        assert self.kinds(storage) == sorted(["another", *kept])
        enqueue(items)
        assert self.kinds(storage) == ["another", "refused", "refused"]

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_emit_of_its_own(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, when: str
    ) -> None:
        """The same event with its key is kept once, whichever way the first try failed."""
        faults.arm(when)
        with pytest.raises(StorageError):
            kernel.emit("order.created", {"n": 1}, idempotency_key="one")
        faults.disarm()
        assert len(self.kinds(storage)) == (when == "after")
        self.use_pool(storage)
        assert len(self.kinds(storage)) == (when == "after")
        kernel.emit("order.created", {"n": 1}, idempotency_key="one")
        assert len(self.kinds(storage)) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_emit_in_the_applications_transaction(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, when: str
    ) -> None:
        """The application's row and the event are both there, or neither is and nothing is held."""

        def book() -> None:
            with self.host_transaction(storage) as transaction:
                self.write(self.handle(transaction), "row")
                kernel.emit("booked", {}, idempotency_key="one", transaction=transaction)

        faults.arm(when)
        with pytest.raises(Exception, match="the commit failed|the reply was lost"):
            book()
        faults.disarm()
        both = int(when == "after")
        assert len(self.kinds(storage)) == both
        self.use_pool(storage)
        assert len(self.kinds(storage)) == both
        assert len(self.outside(storage, "SELECT word FROM booked")) == both
        if not both:
            book()
            assert len(self.kinds(storage)) == 1
            assert len(self.outside(storage, "SELECT word FROM booked")) == 1

    def handle(self, transaction: Any) -> Any:
        """Return what `write` takes for an open transaction of the application."""
        return transaction

    # -- work --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_claim(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, clock: FakeClock, when: str
    ) -> None:
        """An item is free at once, or with the end of the lease that nobody knows of."""
        item_id = kernel.outbox.enqueue("mail")
        faults.arm(when)
        with pytest.raises(StorageError):
            kernel.outbox.claim_batch("w-1", 10, kinds=["mail"])
        assert faults.disarm() == 1
        assert self.kinds(storage) == ["mail"]
        if when == "after":
            clock.advance(_LEASE_SECONDS + 1)
            kernel.outbox.reap()
            clock.advance(_LEASE_SECONDS)
        (claimed,) = kernel.outbox.claim_batch("w-2", 10, kinds=["mail"])
        assert (claimed.id, claimed.status) == (item_id, ItemStatus.RUNNING)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_each_commit_of_an_execution(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, clock: FakeClock, when: str
    ) -> None:
        """Whichever of them fails, the execution completes, and what it booked is there once."""
        number, fired = 0, 1
        while fired:
            number += 1
            execution_id = kernel.start("w")
            faults.arm(when, number=number)
            for _ in range(4):
                with suppress(StorageError):
                    kernel.run_until_idle()
                clock.advance(20 * _LEASE_SECONDS)
            fired = faults.disarm()
            self.kinds(storage)
            self.check(kernel, storage, execution_id)
        assert number > 3

    def wait_for(self, condition: Callable[[], bool]) -> None:
        tick, looked = threading.Event(), 0
        while not condition():
            looked += 1
            assert looked < 6000, "it did not happen"
            tick.wait(0.01)

    def check(self, kernel: Kernel, storage: Storage, execution_id: str) -> None:
        execution = kernel.executions.get(execution_id)
        assert execution is not None
        assert execution.status is ExecutionStatus.COMPLETED, execution.error
        assert [run.output for run in execution.steps] == [7, "booked", 7]
        found = [row[0] for row in self.outside(storage, "SELECT word FROM booked")]
        assert found.count(execution_id) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_worker_goes_on(self, storage: Storage, faults: CommitFaults, when: str) -> None:
        """With its own threads, each third commit of which fails for a while, it does all once."""
        vars(storage)["_clock"] = None
        with self.opened(storage, 2.0) as kernel:
            every = [kernel.start("w") for _ in range(6)]
            worker = kernel.worker(slots=3, poll_seconds=0.1)
            faults.arm(when, number=2, every=3, most=15)
            thread = threading.Thread(target=worker.run)
            thread.start()
            try:
                get = kernel.executions.get
                self.wait_for(lambda: all(_has_ended(get, one) for one in every))
            finally:
                faults.disarm()
                worker.stop()
                thread.join()
            self.kinds(storage)
            for execution_id in every:
                self.check(kernel, storage, execution_id)

    # -- operators ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("order", ORDERS)
    def test_each_commit_of_an_order(
        self, kernel: Kernel, storage: Storage, faults: CommitFaults, order: str
    ) -> None:
        """Whichever of them fails, all of it is there or nothing, and it may be given again."""
        prepare, give, check = ORDERS[order]
        for when in ("before", "after"):
            number, fired = 0, 1
            while fired:
                number += 1
                subject = prepare(kernel)
                faults.arm(when, number=number)
                failed: AutomateError | None = None
                try:
                    give(kernel, subject)
                except AutomateError as error:
                    failed = error
                fired = faults.disarm()
                assert bool(fired) == (failed is not None)
                assert failed is None or failed.code is ErrorCodes.UNAVAILABLE
                self.kinds(storage)
                self.use_pool(storage)
                if failed is not None:
                    if when == "after" and check(kernel, subject):
                        continue
                    give(kernel, subject)
                assert check(kernel, subject)
            assert number > 1

    # -- tables ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_migration(self, storage: Any, faults: CommitFaults, when: str) -> None:
        """It raises and may be run again."""
        self.outside(storage, self.drops_index)
        faults.arm(when)
        with pytest.raises(AutomateError):
            storage.migrate()
        assert faults.disarm() == 1
        storage.migrate()
        assert storage.check_schema().ok
        self.kinds(storage)

    drops_index = "DROP INDEX automate_outbox_later"


def _has_ended(get: Callable[[str], Any], execution_id: str) -> bool:
    with suppress(StorageError):
        execution = get(execution_id)
        return execution is not None and execution.status.finished
    return False
