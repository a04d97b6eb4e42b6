"""When a worker asks to be woken, and what it does before it sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable

from defined import define
from waiting import until
from workers import running
from automate_kernel import Kernel
from automate_kernel.outbox import NewItem, OutboxItem, SkipLockedClaimOutboxStore
from automate_kernel.storage import MemoryStorage, Wakeup
from automate_kernel.worker import Handler, Worker
from automate_kernel.workflows.execution import ExecutionStatus
from automate_testing.clock import FakeClock

PATIENCE_SECONDS = 60.0


class Bell(Wakeup):
    """A wakeup that nobody rings, and that notes what the worker asks of it."""

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self.asked: list[str] = []
        self._first, self._expecting = first, False
        self._woken = threading.Event()

    def expect(self) -> bool:
        if self._expecting:
            return True
        if not self.asked:
            self._first()
        self.asked.append("expect")
        self._expecting = True
        return False

    def ignore(self) -> None:
        if self._expecting:
            self.asked.append("ignore")
        self._expecting = False

    def wait(self, timeout: float) -> bool:
        self.asked.append("wait")
        return self._woken.wait(PATIENCE_SECONDS)

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        pass


class Store(SkipLockedClaimOutboxStore):
    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.bell = Bell()

    def wakeup(self) -> Wakeup:
        return self.bell


def run(store: Store, until: int, **options: int) -> int:
    """Run a worker until it has run *until* items, and return their number."""
    done, enough = 0, threading.Event()

    def handle(item: OutboxItem) -> None:
        nonlocal done
        done += 1
        if done == until:
            enough.set()

    with running(Worker(store, [Handler("k", handle)], poll_seconds=PATIENCE_SECONDS, **options)):
        enough.wait(PATIENCE_SECONDS / 2)
    return done


def test_what_comes_as_it_falls_asleep_is_not_left_to_the_poll() -> None:
    """Its sender saw nobody asleep, and sent no notice."""
    store = Store()
    store.bell = Bell(lambda: store.enqueue("k"))
    assert run(store, 1) == 1


def test_a_busy_worker_asks_for_no_notices() -> None:
    """It asks before it sleeps, and takes that back only once it has been busy for a while."""
    store = Store()
    store.enqueue_many([NewItem("k")])
    assert run(store, 1, batch=1) == 1
    assert "ignore" not in store.bell.asked

    store.bell = Bell(lambda: store.enqueue_many([NewItem("k") for _ in range(30)]))
    assert run(store, 30, batch=1) == 30
    assert store.bell.asked.index("ignore") > store.bell.asked.index("expect")


def test_notices_of_what_is_for_others_are_not_heard_all_the_time() -> None:
    """Each costs the server some statements; after a few in vain the worker is deaf for a moment."""
    store = Store()
    rung = threading.Semaphore(9)

    class Busy(Bell):
        def wait(self, timeout: float) -> bool:
            self.asked.append("wait")
            return rung.acquire(blocking=False) or self._woken.wait(PATIENCE_SECONDS)

    store.bell = bell = Busy()
    worker = Worker(store, [Handler("note", lambda item: None)])
    with running(worker):
        until(lambda: bell.asked.count("wait") == 10)
    waits = "".join(each[0] for each in bell.asked)
    assert waits.startswith("ewwwwww" + "iew")
    assert waits.count("iew") == 4


def test_the_answer_to_the_first_execution_of_a_workflow_is_kept() -> None:
    """The event that begins it stands in a frozen worker, while another takes the payment."""
    clock = FakeClock()
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={}, lease_seconds=10)
    paid = {"event": "order.paid", "match": {"order": "{{ event.payload.order }}"}}
    trigger = {"type": "event", "event": "order.placed"}
    define(kernel, {"id": "paid", "wait_for": paid}, trigger=trigger)
    kernel.emit("order.placed", {"order": 7})
    assert kernel.outbox.claim_batch("frozen", 1)
    worker = kernel.worker()
    assert worker.preflight is not None
    worker.preflight()
    clock.advance(1)
    kernel.emit("order.paid", {"order": 7})
    kernel.run_until_idle()
    clock.advance(60)
    kernel.outbox.reap()
    clock.advance(60)
    kernel.run_until_idle()
    (execution,) = kernel.executions.find()
    assert execution.status is ExecutionStatus.COMPLETED
