"""absurd: durable tasks in functions of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import Contender, Purpose, payload

_QUEUE = "noop"
_BATCH = 100


class Absurd(Contender):
    """Batches of 100 in one thread, which beats its threads."""

    name = "absurd"
    title = "absurd"
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "bulk", "pick-up", "memory", "import",
            "workflows-each", "workflows",
        }
    )  # fmt: skip
    packages = ("absurd-sdk", "psycopg")
    imports = "import absurd_sdk"
    pace: ClassVar = {"drain": 1000, "bulk": 3000, "enqueue": 2000, "workflows": 150}
    unfinished: ClassVar = dict.fromkeys(
        ("postgresql", "workflows"),
        f"SELECT EXISTS (SELECT FROM absurd.t_{_QUEUE} WHERE state NOT IN"
        " ('completed', 'failed', 'cancelled'))",
    )
    _app: Any

    def open(self) -> None:
        from absurd_sdk import Absurd as App

        self._app = App(self.database.url, queue_name=_QUEUE)
        self._app.register_task("noop")(_noop)
        self._app.register_task("three")(_three)

    def set_up(self) -> None:
        import absurdctl
        import psycopg

        version = absurdctl.ABSURD_SCHEMA_TARGET_VERSION
        sql, _ = absurdctl.load_absurd_sql("", version, verbose=False)
        with psycopg.connect(self.database.url) as connection:
            connection.execute(sql)
        self.open()
        self._app.create_queue(_QUEUE)

    def reset(self) -> None:
        tables = ", ".join(f"absurd.{letter}_{_QUEUE}" for letter in "trcew")
        self._app._conn.execute(f"TRUNCATE {tables}")

    def enqueue_each(self, count: int) -> None:
        self._spawn("noop", count)

    def _spawn(self, task: str, count: int) -> None:
        for number in range(count):
            self._app.spawn(task, payload(number))

    def enqueue_bulk(self, count: int) -> None:
        """Many calls in one transaction: it has nothing for many at once."""
        with self._app._conn.transaction():
            self._spawn("noop", count)

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        self.open()
        if purpose == "pick-up":
            return lambda: self._app.start_worker(poll_interval=0.005)
        return lambda: self._app.start_worker(batch_size=_BATCH, poll_interval=0.05)

    def run_workflows(self, count: int) -> None:
        for number in range(count):
            self._app.spawn("three", payload(number))
            self._app.work_batch()

    def start_workflows(self, count: int) -> None:
        with self._app._conn.transaction():
            self._spawn("three", count)


def _noop(body: Any, context: Any) -> None:
    counter.tick()


def _three(body: Any, context: Any) -> int:
    return sum(context.step(name, _step) for name in ("one", "two", "three"))


def _step() -> int:
    counter.tick()
    return 1


CONTENDER = Absurd
