"""What both of our hosts have in common: only the storage and the transaction differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks import counter
from benchmarks.contender import (
    BATCH,
    STEP_SECONDS,
    WAIT_SECONDS,
    Contender,
    Filling,
    Purpose,
    payload,
)

if TYPE_CHECKING:
    from automate_kernel import Kernel
    from automate_kernel.outbox import NewItem

_DAY = 86_400
_PRIORITIES = 10
_CLAIMED = "SELECT EXISTS (SELECT 1 FROM automate_outbox WHERE lease_expires_at IS NOT NULL)"
_UNFINISHED = (
    "SELECT EXISTS (SELECT 1 FROM automate_outbox"
    " WHERE waiting_for = 'worker' OR lease_expires_at IS NOT NULL)"
)
_UNENDED = "SELECT EXISTS (SELECT 1 FROM automate_execution WHERE completed_at IS NULL)"
_THREE_STEPS = {
    "name": "three",
    "trigger": {"type": "manual"},
    "steps": [{"id": f"step{number}", "action": "bench.noop"} for number in range(3)],
}
_ELEMENTS = {
    "name": "elements",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "each",
            "for_each": "{{ event.payload.numbers }}",
            "concurrency": 50,
            "action": "bench.noop",
        }
    ],
}
_ASYNC_STEP = {
    "name": "async-step",
    "trigger": {"type": "manual"},
    "steps": [{"id": "step", "action": "bench.wait"}],
}
_SLEEPING = {
    "name": "sleeping",
    "trigger": {"type": "manual"},
    "steps": [{"id": "nap", "sleep": "1d"}],
}
_WAITING = {
    "name": "waiting",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "rung", "wait_for": {"event": "bell", "match": {"id": "{{ event.payload.id }}"}}}
    ],
}


class Ours(Contender):
    """automate-kernel by its public interface; a variant has an ``async def`` handler."""

    peer = False
    databases = ("postgresql", "sqlite")
    variants: ClassVar[tuple[str, ...]] = ("async",)
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "enqueue-within", "bulk", "pick-up", "finished",
            "future", "wait", "wait-long", "memory", "import", "workflows-each", "workflows",
            "elements", "async-steps", "sqlite-enqueue", "sqlite-drain", "sqlite-workflows",
        }
    )  # fmt: skip
    pace: ClassVar = {"drain": 20_000, "sqlite": 20_000, "workflows": 1500}
    unfinished: ClassVar = {
        "postgresql": _UNFINISHED,
        "sqlite": _UNFINISHED,
        "workflows": _UNENDED,
        "sqlite-workflows": _UNENDED,
    }
    claimed: ClassVar = {"postgresql": _CLAIMED, "sqlite": _CLAIMED}
    _kernel: Kernel | None = None

    def storage(self) -> Any:
        """The host's storage."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction of the host."""
        raise NotImplementedError

    def execute(self, sql: str) -> list[Any]:
        """Run a statement that is not measured, and commit it."""
        raise NotImplementedError

    def kernel(self) -> Kernel:
        """The host's kernel."""
        if self._kernel is None:
            from automate_kernel import Kernel

            self._kernel = Kernel(self.storage())
            self._kernel.action("bench.noop")(_step)
            self._kernel.action("bench.wait")(_async_step)
            for workflow in (_THREE_STEPS, _ELEMENTS, _ASYNC_STEP, _SLEEPING, _WAITING):
                self._kernel.add_workflow(workflow)
        return self._kernel

    def set_up(self) -> None:
        self.kernel().storage.create_tables()

    def open(self) -> None:
        self.kernel()

    def reset(self) -> None:
        tables = ("automate_wait", "automate_signal", "automate_step", "automate_execution")
        for table in (*tables, "automate_outbox"):
            # SQLite's DELETE without a condition is as quick.
            verb = "TRUNCATE" if self.database.kind == "postgresql" else "DELETE FROM"
            self.execute(f"{verb} {table}")

    def enqueue_each(self, count: int) -> None:
        outbox = self.kernel().outbox
        for number in range(count):
            outbox.enqueue("noop", payload(number))

    def enqueue_within(self, count: int) -> None:
        outbox = self.kernel().outbox
        for number in range(count):
            with self.transaction() as transaction:
                outbox.enqueue("noop", payload(number), transaction=transaction)

    def enqueue_bulk(self, count: int) -> None:
        outbox = self.kernel().outbox
        for start in range(0, count, BATCH):
            outbox.enqueue_many(_new_items(range(start, min(start + BATCH, count))))

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        from automate_kernel.worker import run_until_stopped

        kernel = self.kernel()
        options: dict[str, Any] = {}
        if purpose in WAIT_SECONDS:
            kernel.handler("noop")(counter.waiting(WAIT_SECONDS[purpose]))
            options = {"async_slots": 5000}
        elif purpose == "async-steps":
            options = {"slots": 4}
        elif self.variant == "async":
            kernel.handler("noop")(_anoop)
        else:
            kernel.handler("noop")(_noop)
        # As `automate worker` and `manage.py automate_worker` run it.
        return partial(run_until_stopped, kernel.worker(**options))

    def fill(self, filling: Filling, rows: int) -> None:
        # Rows made by the library, multiplied: so they are right whatever columns there are.
        outbox = self.kernel().outbox
        if filling == "finished":
            outbox.enqueue("noop", payload(0))
            item = outbox.claim_batch("filler", 1)[0]
            outbox.mark_success(item.id, "filler")
            templates = 1
        else:
            for priority in range(_PRIORITIES):
                outbox.enqueue("noop", payload(0), delay=_DAY, priority=priority)
            templates = _PRIORITIES
        names = [
            name
            for (name,) in self.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = 'automate_outbox' AND is_generated = 'NEVER'"
            )
        ]
        values = {
            "id": "gen_random_uuid()",
            "next_attempt_at": "next_attempt_at + number * interval '1 ms'",
            "sort_at": "sort_at + number * interval '1 ms'",
        }
        chosen = ", ".join(values.get(name, name) for name in names)
        self.execute(
            f"INSERT INTO automate_outbox ({', '.join(names)}) SELECT {chosen}"
            f" FROM automate_outbox, generate_series(1, {rows // templates}) number"
        )

    def run_workflows(self, count: int) -> None:
        kernel = self.kernel()
        for number in range(count):
            kernel.run("three", payload(number))

    def start_workflows(self, count: int) -> None:
        self.start_waiting("three", count)

    def start_async_steps(self, count: int) -> None:
        self.start_waiting("async-step", count)

    def start_elements(self, count: int) -> None:
        self.kernel().start("elements", {"numbers": list(range(count))})

    def start_waiting(self, name: str, count: int) -> None:
        """Start *count* executions, which wait for a worker, or then for something else."""
        for start in range(0, count, BATCH):
            with self.transaction() as transaction:
                for number in range(start, min(start + BATCH, count)):
                    self.kernel().start(name, payload(number), transaction=transaction)

    def ring(self, count: int) -> None:
        """Emit an event for each of the executions that wait for one."""
        for start in range(0, count, BATCH):
            with self.transaction() as transaction:
                for number in range(start, min(start + BATCH, count)):
                    self.kernel().emit("bell", {"id": number}, transaction=transaction)

    def purge(self, seconds: float) -> int:
        """Delete what finished that long ago."""
        return self.kernel().purge(older_than_seconds=seconds)


def _new_items(numbers: range) -> Iterator[NewItem]:
    from automate_kernel.outbox import NewItem

    return (NewItem("noop", payload(number)) for number in numbers)


def _noop(item: Any) -> None:
    counter.tick()


async def _anoop(item: Any) -> None:
    counter.tick()


def _step() -> None:
    counter.tick()


async def _async_step() -> None:
    await counter.waiting(STEP_SECONDS)(None)
