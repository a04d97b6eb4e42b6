"""dbos: a queue of workflows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import counter
from benchmarks.contender import Contender, Filling, Purpose, payload

_VERSION = "benchmark"
_BATCH = 500
_UNFINISHED_SQLITE = (
    "SELECT EXISTS (SELECT 1 FROM workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))"
)


class Dbos(Contender):
    """Its default polling for a full queue, which is its best; 5 ms for single items."""

    name = "dbos"
    title = "dbos"
    databases = ("postgresql", "sqlite")
    offers = frozenset(
        {
            "drain-1", "drain-2", "enqueue", "bulk", "pick-up", "finished", "memory", "import",
            "workflows-each", "workflows", "sqlite-enqueue", "sqlite-drain", "sqlite-workflows",
        }
    )  # fmt: skip
    packages = ("dbos", "SQLAlchemy", "psycopg")
    imports = "import dbos"
    pace: ClassVar = {"drain": 1000, "bulk": 2000, "enqueue": 900, "sqlite": 400, "workflows": 60}
    unfinished: ClassVar = {
        "postgresql": "SELECT EXISTS (SELECT FROM dbos.workflow_status"
        " WHERE status IN ('ENQUEUED', 'PENDING'))",
        "sqlite": _UNFINISHED_SQLITE,
        "sqlite-workflows": _UNFINISHED_SQLITE,
        "workflows": "SELECT EXISTS (SELECT FROM dbos.workflow_status"
        " WHERE status IN ('ENQUEUED', 'PENDING'))",
    }
    _dbos: Any = None
    _client: Any
    _noop: Any
    _three: Any

    def _launch(self, **queue: Any) -> None:
        from dbos import DBOS

        DBOS(
            config={
                "name": "benchmark",
                "system_database_url": self.database.url,
                "log_level": "ERROR",
                "application_version": _VERSION,
                "executor_id": f"executor-{os.getpid()}",
                "sys_db_pool_size": 20,
            }
        )
        step = DBOS.step()(_step)

        def three(body: Any) -> int:
            return step(step(0) + step(1))

        self._dbos = DBOS
        self._noop = DBOS.workflow()(_noop)
        self._three = DBOS.workflow()(three)
        if not queue:
            DBOS.listen_queues([])
        DBOS.launch()
        DBOS.register_queue("noop", on_conflict="always_update", **queue)

    def open(self) -> None:
        from dbos import DBOSClient

        self._launch()
        self._client = DBOSClient(system_database_url=self.database.url)

    def set_up(self) -> None:
        self._launch()
        self._dbos.destroy(destroy_registry=True)

    def reset(self) -> None:
        if self.database.kind == "postgresql":
            self._execute("TRUNCATE dbos.workflow_status CASCADE")
        else:
            self._execute("DELETE FROM operation_outputs", "DELETE FROM workflow_status")

    def _execute(self, *statements: str) -> None:
        with self._client._sys_db.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def enqueue_each(self, count: int) -> None:
        for number in range(count):
            self._dbos.enqueue_workflow("noop", self._noop, payload(number))

    def enqueue_bulk(self, count: int) -> None:
        """Many in one transaction, as its client offers it."""
        self._enqueue_many(self._noop, count)

    def _enqueue_many(self, workflow: Any, count: int) -> None:
        options = {
            "workflow_name": workflow.__qualname__,
            "queue_name": "noop",
            "app_version": _VERSION,
        }
        for start in range(0, count, _BATCH):
            with self._client._sys_db.engine.begin() as connection:
                for number in range(start, min(start + _BATCH, count)):
                    self._client.enqueue_in_transaction(connection, options, payload(number))

    def worker(self, purpose: Purpose) -> Callable[[], object]:
        if purpose == "pick-up":
            queue = {"polling_interval_sec": 0.005}
        elif purpose == "workflows":
            queue = {"polling_interval_sec": 0.02, "worker_concurrency": 50}
        else:
            queue = {"polling_interval_sec": 1.0}

        def work() -> None:
            self._launch(**queue)
            threading.Event().wait()

        return work

    def fill(self, filling: Filling, rows: int) -> None:
        self.enqueue_each(1)
        values = {"workflow_uuid": "gen_random_uuid()::text", "status": "'SUCCESS'"}
        values |= dict.fromkeys(("queue_name", "deduplication_id"), "NULL")
        with self._client._sys_db.engine.connect() as connection:
            names = [
                name
                for (name,) in connection.exec_driver_sql(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = 'dbos'"
                    " AND table_name = 'workflow_status' AND is_generated = 'NEVER'"
                )
            ]
        chosen = ", ".join(values.get(name, name) for name in names)
        self._execute(
            f"INSERT INTO dbos.workflow_status({', '.join(names)}) SELECT {chosen}"
            f" FROM dbos.workflow_status, generate_series(1, {rows})",
            "DELETE FROM dbos.workflow_status WHERE status = 'ENQUEUED'",
        )

    def run_workflows(self, count: int) -> None:
        for number in range(count):
            self._three(payload(number))

    def start_workflows(self, count: int) -> None:
        self._enqueue_many(self._three, count)


def _noop(body: Any) -> None:
    counter.tick()


def _step(value: int) -> int:
    counter.tick()
    return value


CONTENDER = Dbos
