"""Workers whose clocks are wrong, and reapers that come at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import fault_kernel
from automate_kernel.outbox import ItemStatus, NewItem, OutboxItem, RowsOutboxStore
from automate_kernel.storage.rows import Rows
from fault_scene import Scene, until
from fault_scripts import recover
from leases import pass_leases

DELAY_SECONDS = 2.0
SLOTS = 4


class Told:
    """A listener that writes down which items ended."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids

    def ended(self, rows: Rows, items: Sequence[OutboxItem]) -> None:
        self.ids += [item.id for item in items]

    def requeued(self, rows: Rows, item: OutboxItem) -> bool:
        return True


def test_worker_clocks_that_are_minutes_off(
    open_postgresql: Callable[..., Scene], full: bool
) -> None:
    """
    The database's clock alone decides what is due and whose lease has ended.

    Work of living workers is never taken away, though it takes longer than the lease, and nothing
    begins before its time.
    """
    scene = open_postgresql(6.0)
    offsets = [-3600.0, -240.0, 240.0, 3600.0] if full else [-240.0, 240.0]
    accepted = [scene.outbox.enqueue("job", {"seconds": 0.01}) for _ in range(40)]
    # More than all workers but one have slots for, so that each gets some.
    long = SLOTS * (len(offsets) - 1) + 2
    accepted += [scene.outbox.enqueue("job", scene.stop_at("long")) for _ in range(long)]
    late = [scene.outbox.enqueue("job", {"seconds": 0}, delay=DELAY_SECONDS) for _ in range(10)]
    begin = scene.rows("SELECT extract(epoch FROM clock_timestamp()) AS now")[0].now
    for seconds in offsets:
        scene.start(clock_seconds=seconds, slots=SLOTS)
    until(lambda: len({pid for pid, _ in scene.words("holding")}) == len(offsets))
    # Each has one, however late it came. Now longer than the lease.
    end = time.monotonic() + scene.lease_seconds + 1
    until(lambda: time.monotonic() > end)
    scene.go_on("long")
    scene.drain()
    told = scene.stop_all()
    assert sum(one["completed"] for one in told) == len(accepted) + len(late)
    assert all(one["completed"] for one in told), "one did nothing: the test shows little"
    scene.check([*accepted, *late])
    assert scene.words("job")
    assert scene.ran_again() == []
    early = (
        "SELECT id FROM automate_outbox WHERE completed_at < next_attempt_at"
        f" OR abs(extract(epoch FROM completed_at) - {begin}) > 120"
    )
    assert scene.rows(early) == []


def test_reapers_at_the_same_time(open_scene: Callable[..., Scene], full: bool) -> None:
    """Each item is recovered by one of them, and what is given up is told once."""
    scene = open_scene(600.0)
    count = 2000 if full else 200
    new = [NewItem("job", {"seconds": 0}, max_attempts=1 + n % 2) for n in range(count)]
    new += [NewItem("job", {"seconds": 0}, ordering_key=f"key-{n}") for n in range(20)]
    ids = scene.outbox.enqueue_many(new)
    while scene.outbox.claim_batch("dead", 100):
        pass
    pass_leases(scene.kernel)
    kernels = [fault_kernel.open_kernel(scene.url, scene.ledger, 600.0, 0.0) for _ in range(4)]
    start = threading.Barrier(len(kernels))
    reaped: list[str] = []
    told: list[str] = []

    def reap(outbox: RowsOutboxStore) -> None:
        outbox.listeners[:] = [Told(told)]
        start.wait()
        # Again and again: with many at once, whoever comes second finds some left.
        for _ in range(20):
            result = outbox.reap(25)
            reaped.extend(item.id for item in (*result.retried, *result.failed))

    threads = [threading.Thread(target=reap, args=(kernel.outbox,)) for kernel in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while result := scene.outbox.reap(25):
        reaped.extend(item.id for item in (*result.retried, *result.failed))
    for kernel in kernels:
        kernel.close()
        kernel.storage.engine.dispose()
    assert sorted(reaped) == sorted(ids)
    failed = [item.id for item in scene.outbox.find(status=ItemStatus.FAILED, limit=count)]
    assert len(failed) == count // 2
    assert sorted(told) == sorted(set(told))
    assert set(told) <= set(failed)
    recover(scene.kernel)
    scene.check(ids, failed=failed)
    assert scene.outbox.get(ids[1]).attempt_count == 2
