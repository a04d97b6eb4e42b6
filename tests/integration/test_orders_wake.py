"""What people make due runs at once: a worker that sleeps is woken as by new work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from waiting import until
from workers import running

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import BulkAction, ItemStatus, NewItem
from automate_kernel.storage import MemoryStorage, Storage
from automate_sqlalchemy import SqlAlchemyStorage

A_DAY = 86_400.0


class Sleeper:
    """A kernel whose worker looks for work once a day, unless it is woken; `done` is what it ran."""

    def __init__(self, storage: Storage) -> None:
        self.kernel = Kernel(storage, discover=False, secrets={})
        self.outbox: Any = self.kernel.outbox
        self.done: list[Any] = []
        self.broken = False
        self.asleep = threading.Event()
        wakeup = storage.wakeup()
        assert wakeup is not None
        wait = wakeup.wait

        def noted(timeout: float) -> bool:
            if timeout > 60:
                self.asleep.set()
            try:
                return wait(timeout)
            finally:
                self.asleep.clear()

        wakeup.wait = noted  # type: ignore[method-assign]
        self.outbox.wakeup = lambda: wakeup
        self.kernel.handler("job")(lambda item: self.done.append(item.payload))
        self.kernel.action("shop.pack")(self.pack)
        self.kernel.add_workflow({
            "name": "pack",
            "trigger": {"type": "manual"},
            "steps": [{"id": "pack", "action": "shop.pack", "retry": {"attempts": 1}}],
        })  # fmt: skip

    def pack(self) -> str:
        """Pack, or fail."""
        if self.broken:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "no boxes")
        self.done.append("packed")
        return "packed"

    def start(self) -> str:
        """Start the workflow."""
        return self.kernel.start("pack")

    def failed(self) -> str:
        """Return an execution that failed, of a workflow that would work now."""
        self.broken = True
        execution = self.start()
        until(lambda: self.kernel.executions.get(execution).status.finished)
        self.broken = False
        return execution


@pytest.fixture(params=["memory", "postgresql"])
def sleeper(request: pytest.FixtureRequest) -> Iterator[Sleeper]:
    if request.param == "memory":
        storage: Any = MemoryStorage()
    else:
        engine: sa.Engine = request.getfixturevalue("postgresql_engine")
        storage = SqlAlchemyStorage(engine)
    made = Sleeper(storage)
    with running(made.kernel.worker(poll_seconds=A_DAY)):
        yield made
    made.kernel.close()
    storage.close()


def paused_kind(our: Sleeper) -> Callable[[], object]:
    our.outbox.pause("job")
    our.outbox.enqueue("job")
    until(lambda: our.outbox.count(waiting_for="resume") == 1)
    return lambda: our.outbox.resume("job")


def cancelled_item(our: Sleeper) -> str:
    item: str = our.outbox.enqueue("job", delay=A_DAY)
    assert our.outbox.cancel([item])
    return item


def requeued(our: Sleeper) -> Callable[[], object]:
    item = cancelled_item(our)
    return lambda: our.outbox.requeue([item])


def requeued_in_bulk(our: Sleeper) -> Callable[[], object]:
    cancelled_item(our)
    matching = {"status": ItemStatus.CANCELLED.value}
    return lambda: our.outbox.run_bulk(BulkAction("requeue", matching, per_second=5.0))


def rescheduled(our: Sleeper) -> Callable[[], object]:
    item = our.outbox.enqueue("job", delay=A_DAY)
    return lambda: our.outbox.reschedule([item])


def behind_a_cancelled(our: Sleeper) -> Callable[[], object]:
    first = our.outbox.enqueue("job", ordering_key="line", delay=A_DAY / 2)
    our.outbox.reschedule([first], delay=A_DAY)
    our.outbox.enqueue_many([NewItem("job", ordering_key="line")])
    return lambda: our.outbox.cancel([first])


def limited(our: Sleeper) -> None:
    our.outbox.limit("job", rate=1, per_seconds=A_DAY)
    our.outbox.enqueue_many([NewItem("job"), NewItem("job")])
    until(lambda: len(our.done) == 1)
    our.done.clear()


def wider_limit(our: Sleeper) -> Callable[[], object]:
    limited(our)
    return lambda: our.outbox.limit("job", rate=1000)


def lifted_limit(our: Sleeper) -> Callable[[], object]:
    limited(our)
    return lambda: our.outbox.unlimit("job")


def paused_workflow(our: Sleeper) -> Callable[[], object]:
    our.kernel.workflows.pause("pack")
    our.start()
    until(lambda: our.outbox.count(waiting_for="resume") == 1)
    return lambda: our.kernel.workflows.resume("pack")


def paused_execution(our: Sleeper) -> Callable[[], object]:
    our.outbox.pause("automate.advance")
    execution = our.start()
    assert our.kernel.executions.pause(execution)
    our.outbox.resume("automate.advance")
    return lambda: our.kernel.executions.unpause(execution)


def resumed(our: Sleeper) -> Callable[[], object]:
    execution = our.failed()
    return lambda: our.kernel.executions.resume(execution)


def requeued_wake_up(our: Sleeper) -> Callable[[], object]:
    our.outbox.pause("automate.advance")
    our.start()
    [item] = our.outbox.find(kind="automate.advance")
    assert our.outbox.cancel([item.id])
    our.outbox.resume("automate.advance")
    return lambda: our.outbox.requeue([item.id])


def retried_step(our: Sleeper) -> Callable[[], object]:
    execution = our.failed()
    return lambda: our.kernel.executions.retry_step(execution, "pack")


def forked(our: Sleeper) -> Callable[[], object]:
    execution = our.failed()
    return lambda: our.kernel.executions.fork(execution, "pack")


def resumed_in_bulk(our: Sleeper) -> Callable[[], object]:
    our.failed()
    return lambda: our.kernel.executions.resume_matching(workflow="pack", status="FAILED")


ORDERS = [
    paused_kind, requeued, requeued_in_bulk, rescheduled, behind_a_cancelled, wider_limit,
    lifted_limit, paused_workflow, paused_execution, resumed, requeued_wake_up, retried_step,
    forked, resumed_in_bulk,
]  # fmt: skip


@pytest.mark.parametrize("make", ORDERS)
def test_an_order_wakes_a_worker_that_sleeps(
    make: Callable[[Sleeper], Callable[[], object]], sleeper: Sleeper
) -> None:
    """It does not wait for the next poll, which is a day away here."""
    order = make(sleeper)
    until(sleeper.asleep.is_set)
    assert not sleeper.done
    order()
    until(lambda: len(sleeper.done) == 1)
