"""procrastinate, with psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import BATCH, Contender, Filling, Purpose, payload

_TABLES = "procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers"
_FILL = (
    "INSERT INTO procrastinate_jobs(queue_name, task_name, args, status, attempts, scheduled_at,"
    " priority) SELECT 'noop', 'noop', jsonb_build_object('pad', repeat('x', 180)), '{status}', 1,"
    " {due}, number % 10 FROM generate_series(1, {rows}) number"
)


class Procrastinate(Contender):
    """Twenty jobs at once for a full queue; one for single items."""

    name = "procrastinate"
    title = "procrastinate"
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "bulk", "pick-up", "finished", "future",
            "memory", "import",
        }
    )  # fmt: skip
    packages = ("procrastinate", "psycopg")
    imports = "import procrastinate"
    pace: ClassVar = {"drain": 600, "bulk": 10_000, "enqueue": 1200, "future": 3}
    unfinished: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM procrastinate_jobs"
        " WHERE status IN ('todo', 'doing') AND scheduled_at IS NULL)"
    }
    claimed: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing')"
    }
    _app: Any
    _task: Any

    def _make(self, *, asynchronous: bool) -> Any:
        import procrastinate

        if asynchronous:
            connector = procrastinate.PsycopgConnector(conninfo=self.database.url, max_size=10)
        else:
            connector = procrastinate.SyncPsycopgConnector(conninfo=self.database.url)
        app = procrastinate.App(connector=connector)
        self._task = app.task(name="noop", queue="noop")(_noop)
        return app

    def open(self) -> None:
        self._app = self._make(asynchronous=False)
        self._app.open()

    def set_up(self) -> None:
        self.open()
        self._app.schema_manager.apply_schema()

    def _execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.database.url) as connection:
            for statement in statements:
                connection.execute(statement)

    def reset(self) -> None:
        self._execute(f"TRUNCATE {_TABLES}")

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._task.defer(**payload(number))

    def enqueue_bulk(self, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            self._task.batch_defer(*[payload(number) for number in numbers])

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        app, concurrency = self._make(asynchronous=True), 1 if purpose == "pick-up" else 20

        async def work() -> None:
            async with app.open_async():
                await app.run_worker_async(queues=["noop"], wait=True, concurrency=concurrency)

        return lambda: asyncio.run(work())

    def fill(self, filling: Filling, rows: int) -> None:
        done = filling == "finished"
        status, due = ("succeeded", "NULL") if done else ("todo", "now() + interval '1 day'")
        events = ("deferred", "started", "succeeded") if done else ("deferred", "scheduled")
        self._execute(
            # Its triggers write these events one by one.
            "SET session_replication_role = replica",
            _FILL.format(status=status, due=due, rows=rows),
            *(
                "INSERT INTO procrastinate_events(job_id, type)"
                f" SELECT id, '{event}' FROM procrastinate_jobs"
                for event in events
            ),
        )


async def _noop(**_: Any) -> None:
    counter.tick()


CONTENDER = Procrastinate
