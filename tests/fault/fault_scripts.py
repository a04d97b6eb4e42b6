"""Short pieces of work that a process dies in, each with what must be there before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from automate_kernel.kernel import Kernel
from automate_kernel.outbox import ItemStatus, NewItem, Outcome
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import OUTBOX
from fault_kernel import Ledger
from leases import pass_leases

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Script:
    """*prepare* gives what `act` is called with, beside a kernel and the ledger."""

    prepare: Callable[[Kernel, int], list[Any]]
    act: Callable[..., None]


def pass_delays(kernel: Kernel) -> int:
    """Let everything that waits for its time be due; returns how many items that were."""
    with kernel.storage.begin() as rows:
        later = [Where("waiting_for", "eq", "time")]
        return rows.update(OUTBOX, later, {"next_attempt_at": Now(-1)})


def recover(kernel: Kernel) -> None:
    """What clean workers do after a death: take back what was held, and finish everything."""
    for kind in kernel.outbox.stats().paused:
        kernel.outbox.resume(kind)
    # First what is free, while the dead one's leases still run: it must not overtake them.
    kernel.run_until_idle()
    pass_leases(kernel)
    kernel.outbox.reap()
    while pass_delays(kernel):
        kernel.run_until_idle()


def recover_waits(kernel: Kernel) -> None:
    """
    Do as `recover` does, but let no time pass that nobody has waited for.

    Nothing but a signal may wake what is deferred.
    """
    kernel.run_until_idle()
    pass_leases(kernel)
    kernel.outbox.reap()
    kernel.run_until_idle(patience=_PATIENCE_SECONDS)


def recover_approvals(kernel: Kernel) -> None:
    """Do as `recover_waits` does, and decide what is still open."""
    recover_waits(kernel)
    for each in kernel.approvals.pending().approvals:
        kernel.approvals.approve(each.execution_id, each.step_id, by="another")
    kernel.run_until_idle(patience=_PATIENCE_SECONDS)


def _nothing(kernel: Kernel, number: int) -> list[Any]:
    return [number]


def _enqueue(kernel: Kernel, ledger: Ledger, number: int) -> None:
    """A host's transaction; who calls it again does no harm."""
    outbox = kernel.outbox
    with kernel.storage.engine.begin() as transaction:
        transaction.exec_driver_sql(f"INSERT INTO orders VALUES ({number})")
        ids = [
            outbox.enqueue("job", idempotency_key=f"order-{number}", transaction=transaction),
            outbox.enqueue("effect", transaction=transaction),
        ]
        many = [NewItem("job", {"seconds": 0}) for _ in range(60)]
        ids += outbox.enqueue_many(many, transaction=transaction)
    ledger.write("accepted", number, *ids)


def _waiting(kernel: Kernel, number: int) -> list[Any]:
    outbox = kernel.outbox
    for kind in ("job", "effect"):
        outbox.enqueue(kind)
        outbox.enqueue(kind, ordering_key=f"lane-{number}")
        outbox.enqueue(kind, ordering_key=f"lane-{number}")
        for _ in range(2):
            outbox.enqueue(kind, concurrency_key=f"slot-{number}", concurrency_limit=1)
    return []


def _work(kernel: Kernel, ledger: Ledger) -> None:
    kernel.run_until_idle(patience=_PATIENCE_SECONDS)


def _failing(kernel: Kernel, number: int) -> list[Any]:
    kernel.outbox.enqueue("flaky", 1)
    kernel.outbox.enqueue("flaky", 1, ordering_key=f"lane-{number}")
    kernel.outbox.enqueue("flaky", ordering_key=f"lane-{number}")
    kernel.outbox.enqueue("flaky", 1, max_attempts=1)
    return []


def _hold(kernel: Kernel, ledger: Ledger) -> None:
    """What a worker does around its handlers: renewing, giving back, finishing in groups."""
    outbox = kernel.outbox
    items = outbox.claim_batch("dying", 20)
    outbox.extend([item.id for item in items], "dying")
    outbox.release([items.pop().id], "dying")
    retry = Outcome(items[0].id, ItemStatus.RETRY, 0.01, "ERROR", "", items[0].lease_token)
    outbox.acknowledge(
        "dying",
        [retry, *(Outcome(item.id, token=item.lease_token) for item in items[1:] if _plain(item))],
    )


def _plain(item: Any) -> bool:
    return bool(item.kind == "job")


def _held(kernel: Kernel, number: int) -> list[Any]:
    _waiting(kernel, number)
    kernel.outbox.enqueue("job", max_attempts=1)
    kernel.outbox.claim_batch("dead", 20)
    pass_leases(kernel)
    return []


def _in_line(kernel: Kernel, number: int) -> list[Any]:
    return [[kernel.outbox.enqueue("job", ordering_key=f"lane-{number}") for _ in range(4)]]


def _in_turn(kernel: Kernel, ledger: Ledger, ids: list[str]) -> None:
    """Claims of one item, while more of its line are ready: none may overtake what this one held."""
    for _ in ids[:2]:
        for item in kernel.outbox.claim_batch("dying", 1):
            kernel.outbox.acknowledge("dying", [Outcome(item.id, token=item.lease_token)])


def _reap(kernel: Kernel, ledger: Ledger) -> None:
    kernel.outbox.reap()


def _started(kernel: Kernel, number: int) -> list[Any]:
    return [kernel.start("crash", {"n": number})]


def _advance(kernel: Kernel, ledger: Ledger, execution_id: str) -> None:
    kernel.run_until_idle(patience=_PATIENCE_SECONDS)


def _paid(kernel: Kernel, number: int) -> list[Any]:
    execution_id = kernel.start("waiting", {"n": number})
    kernel.emit("paid", {"n": number})
    return [execution_id]


def _asked(kernel: Kernel, number: int) -> list[Any]:
    return [kernel.start("asking", {"n": number})]


def _decide(kernel: Kernel, ledger: Ledger, execution_id: str) -> None:
    kernel.run_until_idle()
    kernel.approvals.approve(execution_id, "ok", by="ann")
    ledger.write("decided", execution_id)
    kernel.run_until_idle(patience=_PATIENCE_SECONDS)


def _booked(kernel: Kernel, number: int) -> list[Any]:
    return [kernel.start("booking", {"n": number})]


def _chained(kernel: Kernel, number: int) -> list[Any]:
    return [kernel.start("chain", {"n": number})]


def _steered(kernel: Kernel, number: int) -> list[Any]:
    _waiting(kernel, number)
    running = kernel.outbox.claim_batch("dead", 2)
    waiting = kernel.outbox.find(status=ItemStatus.PENDING.value, limit=100)
    return [[item.id for item in running], [item.id for item in waiting]]


def _steer(kernel: Kernel, ledger: Ledger, running: list[str], waiting: list[str]) -> None:
    outbox = kernel.outbox
    outbox.pause("job")
    outbox.claim_batch("dying", 3)
    outbox.resume("job")
    outbox.cancel([*running, *waiting[::2]])
    outbox.requeue(waiting[:1])
    outbox.reschedule(waiting[1:2], delay=0.01)


SCRIPTS = {
    "enqueue": Script(_nothing, _enqueue),
    "work": Script(_waiting, _work),
    "retry": Script(_failing, _work),
    "hold": Script(_waiting, _hold),
    "line": Script(_in_line, _in_turn),
    "reap": Script(_held, _reap),
    "workflow": Script(_started, _advance),
    "waits": Script(_paid, _advance),
    "approval": Script(_asked, _decide),
    "booking": Script(_booked, _advance),
    "chain": Script(_chained, _advance),
    "steer": Script(_steered, _steer),
}
