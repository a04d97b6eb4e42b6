"""chancy, with asynchronous jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import Contender, Purpose, payload


class Chancy(Contender):
    """A hundred jobs at once and eager polling for a full queue; NOTIFY for single items."""

    name = "chancy"
    title = "chancy"
    offers = frozenset(
        {"drain-1", "drain-2", "enqueue", "bulk", "pick-up", "memory", "import"}
    )  # fmt: skip
    packages = ("chancy", "psycopg")
    imports = "import chancy"
    pace: ClassVar = {"drain": 2000, "bulk": 4500, "enqueue": 1200}
    unfinished: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM chancy_jobs"
        " WHERE state NOT IN ('succeeded', 'failed'))"
    }
    _chancy: Any

    def _make(self) -> Any:
        from chancy import Chancy as App

        log = logging.getLogger("chancy")
        log.setLevel(logging.ERROR)
        return App(self.database.url, log=log)

    def open(self) -> None:
        self._chancy = self._make()
        self._chancy.__enter__()

    def set_up(self) -> None:
        async def migrate() -> None:
            async with self._make() as app:
                await app.migrate()

        asyncio.run(migrate())

    def reset(self) -> None:
        import psycopg

        with psycopg.connect(self.database.url) as connection:
            connection.execute("TRUNCATE chancy_jobs")

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._chancy.sync_push(_job(number))

    def enqueue_bulk(self, count: int) -> None:
        for _ in self._chancy.sync_push_many([_job(number) for number in range(count)]):
            pass

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        from chancy import Chancy as App
        from chancy import Queue, Worker

        single = purpose == "pick-up"
        queue = Queue(
            "noop",
            concurrency=10 if single else 100,
            executor=App.Executor.Async,
            polling_interval=5 if single else 1,
            eager_polling=not single,
        )

        async def work() -> None:
            async with self._make() as app:
                await app.declare(queue, upsert=True)
                async with Worker(app) as worker:
                    await worker.wait_for_shutdown()

        return lambda: asyncio.run(work())


def _job(number: int) -> Any:
    from chancy import Job

    return Job(func=f"{__name__}.noop", queue="noop", kwargs=payload(number))


async def noop(**_: Any) -> None:
    """The handler."""
    counter.tick()


CONTENDER = Chancy
