"""Commits of many clients where a flush takes long: what our notices cost them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.databases import Databases

_CLIENTS, _THREADS = 16, 4
# In turns that are short, since what else the machine does changes by the second.
_SECONDS = 0.7
_FLUSH = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    usleep(1500);
    return real(file);
}
"""
_CLIENT = """
import sys, threading, time
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_sqlalchemy import SqlAlchemyStorage

engine = sa.create_engine(sys.argv[1], pool_size=int(sys.argv[2]))
ours, silent = (
    Kernel(SqlAlchemyStorage(engine, listen=listen), discover=False, secrets={})
    for listen in (True, False)
)

def commit(mode, until, counts):
    kernel = ours if mode == "ours" else silent
    while time.monotonic() < until:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO orders DEFAULT VALUES")
            kernel.emit("order.created", {"id": 1}, transaction=connection)
            if mode == "inside":
                connection.exec_driver_sql("SELECT pg_notify('automate_outbox', '')")
        counts.append(1)

print("ready", flush=True)
for line in sys.stdin:
    mode, seconds = line.split()
    given = (mode, time.monotonic() + float(seconds), counts := [])
    running = [threading.Thread(target=commit, args=given) for _ in range(int(sys.argv[2]))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(len(counts), flush=True)
"""
_WORKER = """
import sys
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.worker import run_until_stopped
from automate_sqlalchemy import SqlAlchemyStorage

kernel = Kernel(SqlAlchemyStorage(sa.create_engine(sys.argv[1])), discover=False, secrets={})
kernel.handler("something-else")(lambda item: None)
print("ready", flush=True)
run_until_stopped(kernel.worker(kinds=["something-else"]))
"""
_MODES = {
    "none": "without notices (listen=False)",
    "ours": "with ours, after the commit",
    "inside": "with pg_notify in the transaction",
}


@dataclass(frozen=True)
class Commits:
    """Commits a second of 16 clients, by what notifies, without a worker and beside an idle one."""

    rates: dict[str, dict[str, list[float]]]

    def __str__(self) -> str:
        lines = [f"{_CLIENTS} clients in {_CLIENTS // _THREADS} processes, a flush 1.5 ms longer:"]
        for beside, rates in self.rates.items():
            for mode, found in rates.items():
                rate = statistics.median(found)
                # Of the turns of one round, since a busy machine slows down those that are near.
                pairs = [rate / plain for rate, plain in zip(found, rates["none"], strict=True)]
                low, middle, high = statistics.quantiles(pairs * 2, n=4)
                shown = f"{rate:,.0f} commits/s ({min(found):,.0f}–{max(found):,.0f})"
                of_plain = f"{middle:.2f} ({low:.2f}–{high:.2f}) of without, by rounds"
                lines.append(f"{beside}, {_MODES[mode]}: {shown}, {of_plain}")
        return "\n".join(lines)


def commits(rounds: int = 15) -> Commits:
    """Measure *rounds* times; needs gcc, for a library that makes each flush longer."""
    with tempfile.TemporaryDirectory(prefix="automate-commits-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        source, library = folder / "flush.c", folder / "flush.so"
        source.write_text(_FLUSH)
        build = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(build, check=True)
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = str(library)
        try:
            databases = Databases(folder)
        finally:
            os.environ.pop("LD_PRELOAD")
            if before is not None:
                os.environ["LD_PRELOAD"] = before
        try:
            return _measure(databases, rounds)
        finally:
            databases.close()


def _measure(databases: Databases, rounds: int) -> Commits:
    import sqlalchemy

    from automate_sqlalchemy import SqlAlchemyStorage

    database, _ = databases.database("postgresql", "commits")
    url = database.url.replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(url)
    SqlAlchemyStorage(engine).create_tables()
    engine.dispose()
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id bigserial PRIMARY KEY)")
    rates: dict[str, dict[str, list[float]]] = {}
    for beside in ("no worker", "an idle worker"):
        worker = _started(_WORKER, url) if beside != "no worker" else None
        clients = [_started(_CLIENT, url, str(_THREADS)) for _ in range(_CLIENTS // _THREADS)]
        rates[beside] = {mode: [] for mode in _MODES}
        _turn(clients, "ours", [])
        for number in range(rounds):
            modes = list(_MODES)
            for mode in modes[number % 3 :] + modes[: number % 3]:
                _turn(clients, mode, rates[beside][mode])
        for process in [*clients, *([worker] if worker else [])]:
            process.terminate()
            process.communicate()
    return Commits(rates)


def _turn(clients: list[Any], mode: str, rates: list[float]) -> None:
    for client in clients:
        client.stdin.write(f"{mode} {_SECONDS}\n")
        client.stdin.flush()
    counts = [client.stdout.readline() for client in clients]
    if not all(counts):
        raise RuntimeError("a client of the benchmark has ended: its error is above")
    rates.append(sum(map(int, counts)) / _SECONDS)


def _started(code: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process
