"""pgqueuer, with asyncpg and uvloop: what drives it fastest."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import BATCH, WAIT_SECONDS, Contender, Filling, Purpose, payload

_FILL = {
    "finished": "INSERT INTO pgqueuer_log"
    "(job_id, status, priority, entrypoint, created, aggregated)"
    " SELECT number, 'successful', 0, 'noop', now(), true FROM generate_series(1, {}) number",
    "future": "INSERT INTO pgqueuer(priority, status, entrypoint, payload, execute_after)"
    " SELECT number % 10, 'queued', 'noop', convert_to(repeat('x', 200), 'UTF8'),"
    " now() + interval '1 day' FROM generate_series(1, {}) number",
}


class PgQueuer(Contender):
    """Batches of 250 for a full queue; its default of 10 for single items."""

    name = "pgqueuer"
    title = "pgqueuer"
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "bulk", "pick-up", "finished", "future", "wait",
            "wait-long", "memory", "import",
        }
    )  # fmt: skip
    packages = ("pgqueuer", "asyncpg", "uvloop")
    imports = "import pgqueuer"
    pace: ClassVar = {"drain": 20_000}
    # It deletes what is finished.
    unfinished: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM pgqueuer WHERE execute_after < now())"
    }
    claimed: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM pgqueuer WHERE status = 'picked')"
    }
    _loop: asyncio.AbstractEventLoop
    _queries: Any

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _connect(self) -> Any:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver

        return AsyncpgDriver(await asyncpg.connect(self.database.url))

    def open(self) -> None:
        from pgqueuer.queries import Queries

        self._loop = asyncio.new_event_loop()
        self._queries = Queries(self._run(self._connect()))

    def set_up(self) -> None:
        self.open()
        self._run(self._queries.install())

    def reset(self) -> None:
        self._run(self._queries.driver.execute("TRUNCATE pgqueuer, pgqueuer_log"))

    def enqueue_each(self, count: int) -> None:
        async def enqueue() -> None:
            for number in range(count):
                await self._queries.enqueue("noop", _body(number))

        self._run(enqueue())

    def enqueue_bulk(self, count: int) -> None:
        async def enqueue() -> None:
            for start in range(0, count, BATCH):
                bodies = [_body(number) for number in range(start, min(start + BATCH, count))]
                await self._queries.enqueue(["noop"] * len(bodies), bodies, [0] * len(bodies))

        self._run(enqueue())

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        import uvloop
        from pgqueuer import PgQueuer as Queuer

        async def work() -> None:
            queuer = Queuer(await self._connect())
            waits = purpose in WAIT_SECONDS
            queuer.entrypoint("noop")(counter.waiting(WAIT_SECONDS[purpose]) if waits else _noop)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
            await queuer.run(batch_size=10 if purpose == "pick-up" else 250)

        return lambda: uvloop.run(work())

    def fill(self, filling: Filling, rows: int) -> None:
        self._run(self._queries.driver.execute(_FILL[filling].format(rows)))


def _body(number: int) -> bytes:
    return json.dumps(payload(number)).encode()


async def _noop(job: Any) -> None:
    counter.tick()


CONTENDER = PgQueuer
