"""How soon another worker takes over from a dead one, and what is no death."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool
from waiting import until
from workers import working

from automate_kernel import Kernel
from automate_kernel.outbox import NewItem, Outcome, RowsOutboxStore
from automate_kernel.outbox.item import LEASE_SECONDS, ItemStatus
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.output_store import FileOutputStore
from automate_testing.clock import FakeClock
from automate_kernel.worker.periodic import PeriodicRunner, PeriodicTask
from automate_kernel.worker.reaper import OutboxReaper
from automate_kernel.workflows.execution import ExecutionStatus
from automate_sqlalchemy import SqlAlchemyStorage

# What a first death may add to the lease: two looks of the reaper, the pause and a claim.
_MOST_SECONDS = 30.0


@pytest.fixture
def kernel(clock: FakeClock) -> Kernel:
    return Kernel(MemoryStorage(clock), discover=False, secrets={})


def looking(kernel: Kernel) -> OutboxReaper:
    """Return a worker's reaper that has looked once: what was over before isn't counted."""
    (task,) = (one for one in kernel.worker().periodic_tasks if one.name == "reaper")
    reaper = task.run.__self__  # type: ignore[attr-defined]
    assert isinstance(reaper, OutboxReaper)
    assert task.seconds == LEASE_SECONDS / 4
    assert reaper.look() == 0
    return reaper


def test_what_a_dead_worker_held_is_claimed_within_half_a_minute(
    kernel: Kernel, clock: FakeClock
) -> None:
    """By default, and before all that was enqueued meanwhile."""
    first = kernel.outbox.enqueue("k")
    assert [one.id for one in kernel.outbox.claim_ahead("dies", 1)] == [first]
    kernel.outbox.enqueue_many(NewItem("k", n) for n in range(500))
    reaper, waited = looking(kernel), 0.0
    while not reaper.look():
        clock.advance(LEASE_SECONDS / 4)
        waited += LEASE_SECONDS / 4
    clock.advance(_MOST_SECONDS - waited)
    other = Kernel(kernel.storage, discover=False, secrets={})
    assert [one.id for one in other.outbox.claim_ahead("lives", 1)] == [first]


def test_a_worker_that_stands_still_for_a_lease_keeps_what_it_holds(
    kernel: Kernel, clock: FakeClock
) -> None:
    """It renews four times in a lease, and another looks twice: so a pause costs nothing."""
    kernel.outbox.enqueue("k")
    (held,) = kernel.outbox.claim_ahead("pauses", 1)
    reaper = looking(kernel)
    clock.advance(LEASE_SECONDS / 4)  # as long as it may go without a renewal anyhow
    for _ in range(4):
        reaper.look()
        clock.advance(LEASE_SECONDS / 4 - 0.01)
    assert reaper.look() == 0
    assert kernel.outbox.extend([held.id], "pauses") == set()
    clock.advance(1)
    assert reaper.look() == 0


def test_an_outage_of_the_database_is_no_death(kernel: Kernel, clock: FakeClock) -> None:
    """Nobody could renew: who looks first after it leaves the holders a moment to do so."""
    kernel.outbox.enqueue("k")
    (held,) = kernel.outbox.claim_ahead("lives", 1)
    reaper = looking(kernel)
    clock.advance(3600)
    assert reaper.look() == 0
    assert kernel.outbox.extend([held.id], "lives") == set()
    clock.advance(LEASE_SECONDS / 4)
    assert reaper.look() == 0
    clock.advance(3600)
    assert reaper.look() == 0
    clock.advance(LEASE_SECONDS / 4)
    assert reaper.look() == 1  # it died in that hour


def test_a_call_without_a_worker_keeps_its_lease() -> None:
    """What takes longer than a lease in `kernel.run` isn't another worker's to begin again."""
    kernel = Kernel(MemoryStorage(), discover=False, secrets={}, lease_seconds=0.4)
    renewed: list[bool] = []

    @kernel.action("take.long")
    def take_long() -> str:
        (item,) = kernel.outbox.running()
        first = item.lease_expires_at
        until(lambda: kernel.outbox.running()[0].lease_expires_at != first)
        renewed.append(True)
        return "done"

    steps = [{"id": "one", "action": "take.long"}]
    kernel.add_workflow({"name": "long", "trigger": {"type": "manual"}, "steps": steps})
    assert kernel.run("long").status is ExecutionStatus.COMPLETED
    execution_id = kernel.start("long")
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None
    assert found.status is ExecutionStatus.COMPLETED
    assert renewed == [True, True]


def test_a_connection_that_all_threads_share_is_left_to_who_runs() -> None:
    """A renewal would end the transaction of a step: it is that of a database in memory."""
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    storage = SqlAlchemyStorage(create_engine("sqlite://", **options))
    storage.create_tables()
    kernel, names = Kernel(storage, discover=False, secrets={}), list[str]()
    others = set(threading.enumerate())

    @kernel.action("look", transactional=True)
    def look() -> None:
        names.append("here")
        names.extend(one.name for one in threading.enumerate() if one not in others)

    steps = [{"id": "one", "action": "look"}]
    kernel.add_workflow({"name": "looks", "trigger": {"type": "manual"}, "steps": steps})
    assert kernel.run("looks").status is ExecutionStatus.COMPLETED
    assert names[0] == "here"
    assert "automate-heartbeat" not in names
    storage.engine.dispose()


def test_a_renewal_that_stands_still_holds_up_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for what the caller itself has: a lock of SQLite, the only connection of a pool."""
    kernel = Kernel(MemoryStorage(), discover=False, secrets={}, lease_seconds=0.4)
    stands, go, waited = threading.Event(), threading.Event(), list[float | None]()
    join = threading.Thread.join

    def extend(item_ids: object, worker_id: str) -> set[str]:
        stands.set()
        assert go.wait(60)
        return set()

    def noted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "automate-heartbeat":
            waited.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(kernel.outbox, "extend", extend)
    monkeypatch.setattr(threading.Thread, "join", noted)
    kernel.action("long")(lambda: stands.wait(60))
    steps = [{"id": "one", "action": "long"}]
    kernel.add_workflow({"name": "long", "trigger": {"type": "manual"}, "steps": steps})
    assert kernel.run("long").status is ExecutionStatus.COMPLETED
    assert stands.is_set()
    assert all(timeout is not None and timeout < 1 for timeout in waited)
    go.set()


def test_a_report_that_stands_still_holds_up_no_renewal() -> None:
    """A slow database makes reports late, and leases are not lost for that."""
    kernel = Kernel(MemoryStorage(), discover=False, secrets={}, lease_seconds=0.4)
    stands, go, goes_on = threading.Event(), threading.Event(), threading.Event()

    def report(worker: WorkerInfo, activity: object) -> None:
        stands.set()
        assert go.wait(60)

    kernel.outbox.report = report  # type: ignore[method-assign]

    @kernel.handler("k")
    def handle(item: object) -> None:
        assert goes_on.wait(60)

    item_id = kernel.outbox.enqueue("k")
    with working(kernel):
        assert stands.wait(60)
        until(lambda: bool(kernel.outbox.running()))
        seen = {kernel.outbox.running()[0].lease_expires_at}
        until(lambda: seen.add(kernel.outbox.running()[0].lease_expires_at) or len(seen) > 3)
        goes_on.set()
        until(lambda: not kernel.outbox.running())
        go.set()
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert (item.status, item.attempt_count) == (ItemStatus.COMPLETED, 1)


def test_upkeep_that_takes_long_holds_up_nothing_that_is_due() -> None:
    """A purge stands still: schedules fire, polls are looked at, and dead workers' items come back."""
    kernel = Kernel(MemoryStorage(), discover=False, secrets={}, lease_seconds=2.0)
    stands, go = threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        assert go.wait(60)

    kernel.handler("k")(lambda item: None)
    item_id = kernel.outbox.enqueue("k")
    assert kernel.outbox.claim_ahead("dies", 1)
    slow = PeriodicTask("slow", 60.0, stand, at_once=True)
    with working(kernel, periodic_tasks=[slow]):
        assert stands.wait(60)
        until(lambda: getattr(kernel.outbox.get(item_id), "status", None) is ItemStatus.COMPLETED)
        go.set()


def test_a_schedule_fires_while_a_purge_of_outputs_stands_still(
    clock: FakeClock, tmp_path: Path
) -> None:
    """The store of outputs answers nothing, and a minute of the database's clock passes."""
    stands, go = threading.Event(), threading.Event()

    class Standing(FileOutputStore):
        def keys(self, *, older_than_seconds: float) -> Iterator[str]:
            stands.set()
            assert go.wait(60)
            return iter(())

    kernel = Kernel(
        MemoryStorage(clock), discover=False, secrets={}, output_store=Standing(tmp_path)
    )
    trigger = {"type": "schedule", "cron": "* * * * *"}
    steps = [{"id": "wait", "sleep": "1h"}]
    kernel.add_workflow({"name": "minutely", "trigger": trigger, "steps": steps})
    kernel.run_until_idle()
    purge = PeriodicTask("outputs", 60.0, kernel.executions.sweep_outputs, at_once=True)
    with working(kernel, periodic_tasks=[purge]):
        assert stands.wait(60)
        clock.advance(61.0)
        until(lambda: kernel.executions.find(workflow="minutely"))
        assert not go.is_set()
        go.set()


def test_what_looks_at_what_is_due_is_the_clock(kernel: Kernel) -> None:
    """All else a worker does from time to time may take longer."""
    steps = [{"id": "wait", "sleep": "1h"}]
    trigger = {"type": "event", "event": "asked"}
    kernel.add_workflow({"name": "asked", "trigger": trigger, "steps": steps})
    tasks = kernel.worker(retention_seconds=60.0).periodic_tasks
    assert {one.name for one in tasks if one.clock} == {
        "reaper", "schedules", "polls", "leader_election",
    }  # fmt: skip
    upkeep = {one.name for one in tasks if not one.clock}
    assert "failures" in upkeep and len(upkeep) >= 5


def test_a_task_with_more_to_do_goes_on_soon() -> None:
    """And not in its own time, which may be hours."""
    stopping, calls = threading.Event(), [True, True, False]

    def run() -> bool:
        more = calls.pop(0)
        if not calls:
            stopping.set()
        return more

    PeriodicRunner([PeriodicTask("sweep", 3600.0, run, at_once=True)], stopping).run()
    assert calls == []


def test_a_worker_renews_no_lease_that_another_process_has_by_now(clock: FakeClock) -> None:
    """It learns that its own is lost, and the other one ends when it would have."""
    storage = MemoryStorage(clock)
    one, other = (RowsOutboxStore(storage, lease_seconds=30.0) for _ in range(2))
    item_id = one.enqueue("mail")
    assert [item.id for item in one.claim_batch("w1")] == [item_id]
    clock.advance(31)
    assert other.reap() is not None
    assert one.extend([item_id], "w1") == {item_id}
    clock.advance(600)
    (held,) = other.claim_batch("w2")
    clock.advance(10)
    assert one.extend([item_id], "w1") == {item_id}
    found = one.get(item_id)
    assert found is not None and found.lease_owner == "w2"
    assert found.lease_expires_at == held.lease_expires_at
    assert other.extend([item_id], "w2") == set()


def test_a_worker_renews_no_lease_of_what_has_ended_elsewhere(clock: FakeClock) -> None:
    storage = MemoryStorage(clock)
    one, other = (RowsOutboxStore(storage, lease_seconds=30.0) for _ in range(2))
    one.enqueue("mail")
    (item,) = one.claim_batch("w1")
    assert other.acknowledge("w1", [Outcome(item.id, token=item.lease_token)]) == set()
    assert one.extend([item.id], "w1") == {item.id}
