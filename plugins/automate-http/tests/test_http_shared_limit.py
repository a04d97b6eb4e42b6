"""Rate limits that several processes keep together: kernels on one database, by one clock."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from automate_http import BearerAuth, RateLimiter, ServiceClient
from automate_http.auth import Auth, Credentials
from automate_http.shared_limit import SharedLimit
from automate_kernel import AutomateError, ConfigError, Connector, Kernel, action
from automate_kernel.operations.call_rates import CallRates
from automate_kernel.operations.context import Call, ConnectorContext, calling
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import BUDGET
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from hypothesis import given, settings
from hypothesis import strategies as st


class Processes:
    """As many processes as are asked for, on one database; a process is what it has in memory."""

    def __init__(self, storage: Any, clock: FakeClock, **limit: Any) -> None:
        self.storage, self.clock, self.limit = storage, clock, limit
        self.sent: list[float] = []

    def start(self) -> SharedLimit:
        begin = self.clock()
        limiter = RateLimiter(**self.limit, clock=lambda: (self.clock() - begin).total_seconds())
        return SharedLimit(limiter, CallRates(self.storage), ("limit", "crm"))

    def call(self, process: SharedLimit) -> bool:
        """Make a call, whose time is noted, or return False."""
        try:
            wait = asyncio.run(process.reserve("", ()))
        except AutomateError as error:
            assert error.code == "RESOURCE_EXHAUSTED" and error.retry_after
            return False
        self.sent.append(self.clock().timestamp() + wait)
        return True

    def most_in(self, seconds: float) -> int:
        """Return the most calls that any window of so many seconds has."""
        times = sorted(self.sent)
        # Times of databases have microseconds.
        return max(sum(at - 1e-5 <= each < at + seconds - 1e-4 for each in times) for at in times)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 3)),
        st.tuples(st.just("pass"), st.sampled_from([0.001, 0.01, 0.049, 0.2, 1.3])),
        st.tuples(st.just("die"), st.integers(0, 3)),
    ),
    max_size=80,
)


@settings(max_examples=40)
@given(steps, st.sampled_from([(3, 1.0, 1), (20, 1.0, 1), (40, 2.0, 5), (200, 1.0, 1)]))
def test_no_order_of_calls_passes_the_limit(
    steps: list[tuple[str, Any]], allowed: tuple[int, float, int]
) -> None:
    """Nor does one in which processes die, and others start in their place."""
    calls, seconds, burst = allowed
    clock = FakeClock()
    all_ = Processes(
        MemoryStorage(clock), clock, calls=calls, per_seconds=seconds, burst=burst,
        max_wait_seconds=1.5,
    )  # fmt: skip
    processes = [all_.start() for _ in range(4)]
    for what, value in steps:
        if what == "call":
            all_.call(processes[value])
        elif what == "pass":
            clock.advance(value)
        else:
            processes[value] = all_.start()
    assert not all_.sent or all_.most_in(seconds) <= calls + burst - 1


@pytest.fixture
def storage(tmp_path: Path, clock: FakeClock) -> Iterator[SqlAlchemyStorage]:
    made = SqlAlchemyStorage(sa.create_engine(f"sqlite:///{tmp_path}/x.sqlite3"), clock=clock)
    made.create_tables()
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_four_processes_make_as_many_calls_as_one(storage: Any, clock: FakeClock) -> None:
    """Each of them counted for itself: four times what the service allows went out."""
    all_ = Processes(storage, clock, calls=10, max_wait_seconds=0.0)
    processes = [all_.start() for _ in range(4)]
    for _ in range(200):
        for process in processes:
            all_.call(process)
        clock.advance(0.05)
    assert all_.most_in(1.0) == 10
    assert len(all_.sent) == 100  # and no fewer than it allows


def test_what_a_dead_process_had_taken_returns_by_itself(storage: Any, clock: FakeClock) -> None:
    all_ = Processes(storage, clock, calls=100, max_wait_seconds=5.0)
    dead, living = all_.start(), all_.start()
    for _ in range(30):
        all_.call(dead)
    clock.advance(1.0)  # it has places for a quarter of a second, and uses none
    all_.sent.clear()
    for _ in range(10):
        assert all_.call(living)
    assert all_.sent[-1] - clock().timestamp() < 0.25 + 0.1


def test_the_database_is_asked_a_few_times_in_a_second(
    storage: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_ = Processes(storage, clock, calls=1_000, max_wait_seconds=5.0)
    process, asked = all_.start(), list[str]()
    for name in ("take", "wait"):
        real = getattr(CallRates, name)
        monkeypatch.setattr(CallRates, name, lambda *a, n=name, r=real: (asked.append(n), r(*a))[1])
    for _ in range(1_000):
        assert all_.call(process)
    assert asked.count("take") <= 12 and asked.count("wait") == 1


def test_a_wait_that_a_service_asks_for_holds_all_processes(storage: Any, clock: FakeClock) -> None:
    all_ = Processes(storage, clock, calls=100, burst=5, max_wait_seconds=5.0)
    asked, others = all_.start(), [all_.start() for _ in range(3)]
    assert all(all_.call(each) for each in [asked, *others])
    asyncio.run(asked.hold((), 60.0))
    clock.advance(1.1)  # by then each has looked again
    for each in others:
        with pytest.raises(AutomateError) as refused:
            asyncio.run(each.reserve("", ()))
        assert refused.value.retry_after == pytest.approx(58.9)
    asyncio.run(others[0].hold((), 5.0))  # a shorter one shortens nothing
    clock.advance(58.0)
    assert 0 < asyncio.run(others[1].held("", ())) <= 0.9
    clock.advance(2.0)
    all_.sent.clear()
    assert all(all_.call(each) for each in [asked, *others])


class Crm(Connector):
    key = "crm"
    display_name = "CRM"

    def __init__(self, config: dict[str, Any], *, ctx: ConnectorContext) -> None:
        super().__init__(config, ctx=ctx)
        self.client = ServiceClient(
            config["url"], ctx=ctx, allow_private_networks=["127.0.0.1"],
            auth=PerTenant() if config.get("tenants") else BearerAuth("TOKEN"),
            rate_limit=config.get("limit") and RateLimiter(config["limit"], max_wait_seconds=0),
        )  # fmt: skip

    @action(read_only=True)
    async def me(self) -> dict[str, Any]:
        return dict(await self.client.aget("/me"))

    async def close(self) -> None:
        await self.client.aclose()


class PerTenant(Auth):
    async def credentials(self, secrets: Any) -> Credentials:
        from automate_kernel.operations.context import current_call

        call = current_call()
        token = f"tok-of-{call.tenant_id if call else None}-1234"
        return Credentials({"authorization": token}, values=(token,))


@pytest.fixture
def start(server: Any, storage: Any) -> Iterator[Callable[..., Kernel]]:
    """Starts a kernel on the database, as another process does."""
    started: list[Kernel] = []

    def start(**config: Any) -> Kernel:
        # A service's address with a port of each test's own: no other test's process is meant.
        config = {"url": server.url("/v1", "127.0.0.1"), **config}
        kernel = Kernel(
            storage, plugins=[Crm], config={"crm": config}, discover=False,
            secrets={"TOKEN": "tok-9f8e7d6c5b4a3210"},
        )  # fmt: skip
        started.append(kernel)
        return kernel

    yield start
    for kernel in started:
        kernel.close()


def test_kernels_on_one_database_share_a_limit_of_a_plugin(
    server: Any, start: Callable[..., Kernel], clock: FakeClock
) -> None:
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    kernels = [start(limit=1) for _ in range(4)]
    refused = 0
    for kernel in kernels:
        try:
            kernel.invoke("crm.me", {})
        except AutomateError as error:
            assert error.code == "RESOURCE_EXHAUSTED" and error.retryable
            refused += 1
    assert (len(server.requests), refused) == (1, 3)
    clock.advance(1)
    kernels[3].invoke("crm.me", {})


def test_a_transactional_step_on_sqlite_counts_in_its_own_process(
    server: Any, start: Callable[..., Kernel], clock: FakeClock, storage: Any
) -> None:
    """Its transaction holds the lock for writing: each call in it waited five seconds, and failed."""
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    kernel = start(limit=1)

    @kernel.action("shop.book", transactional=True)
    def book(call: Call) -> list[str]:
        call.transaction.execute(sa.text("CREATE TABLE booked (id INTEGER)"))
        ends = list[str]()
        for _ in range(2):
            try:
                kernel.invoke("crm.me", {})
                ends.append("sent")
            except AutomateError as error:
                ends.append(error.code.value)
        return ends

    steps = [{"id": "book", "action": "shop.book"}]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    done = kernel.run("w")
    assert (done.status.value, done.step("book").output) == (
        "COMPLETED", ["sent", "RESOURCE_EXHAUSTED"],
    )  # fmt: skip
    assert len(server.requests) == 1
    # Outside of a transaction the database counts again.
    with storage.begin() as rows:
        before = rows.select(BUDGET, [])
    kernel.invoke("crm.me", {})
    with storage.begin() as rows:
        assert len(rows.select(BUDGET, [])) == len(before) + 1


def forget_this_process(kernel: Kernel) -> None:
    """Another process knows nothing of what this one was answered."""
    kernel.connector("crm").client._rate_limit._paces.clear()


def test_after_a_429_no_kernel_sends_anything(
    server: Any, start: Callable[..., Kernel], clock: FakeClock
) -> None:
    first, second = start(), start()
    server.answer("/v1/me", 429, Retry_After="60")
    with pytest.raises(AutomateError):
        first.invoke("crm.me", {})
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    forget_this_process(second)
    with pytest.raises(AutomateError) as refused:
        second.invoke("crm.me", {})
    assert refused.value.code == "RESOURCE_EXHAUSTED" and 50 < refused.value.retry_after <= 60
    assert len(server.requests) == 1


def test_a_tenants_wait_holds_up_no_other(
    server: Any, start: Callable[..., Kernel], clock: FakeClock
) -> None:
    first, second = start(tenants=True), start(tenants=True)
    server.answer("/v1/me", 429, Retry_After="60")
    with pytest.raises(AutomateError):
        first.invoke("crm.me", {}, tenant_id="acme")
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    forget_this_process(second)
    with pytest.raises(AutomateError, match="no room"):
        second.invoke("crm.me", {}, tenant_id="acme")
    second.invoke("crm.me", {}, tenant_id="beta")
    assert len(server.requests) == 2


def test_no_row_shows_anything_of_a_token(
    server: Any, start: Callable[..., Kernel], storage: Any
) -> None:
    """Nor a hash of it, from which a short one could be guessed: the rows are the same for another."""
    server.answer("/v1/me", 429, Retry_After="60")
    kernel = start()
    with pytest.raises(AutomateError):
        kernel.invoke("crm.me", {})
    with storage.begin() as rows:
        (row,) = rows.select(BUDGET)
    used = [
        asyncio.run(BearerAuth("TOKEN").credentials(reader)).shared_key(None)
        for reader in (Fixed("tok-9f8e7d6c5b4a3210"), Fixed("tok-of-another-12345"))
    ]
    assert used[0] == used[1] and "tok-" not in str(row)
    assert kernel.budgets.find() == []  # nor is it a budget


class Fixed:
    def __init__(self, value: str) -> None:
        self.value = value

    def get(self, key: str) -> str:
        return self.value

    async def aget(self, key: str) -> str:
        return self.value


def test_while_the_database_is_away_a_limit_lets_nothing_through(
    server: Any, start: Callable[..., Kernel], storage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin that only heeds the service's own waits goes on: its 429 says what is too much."""
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    limited, free = start(limit=10), start()
    limited.invoke("crm.me", {})
    storage.engine.dispose()
    with storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE automate_budget RENAME TO elsewhere"))
    with caplog.at_level(logging.WARNING):
        with pytest.raises(AutomateError) as refused:
            limited.invoke("crm.me", {})
        assert refused.value.code == "UNAVAILABLE" and refused.value.retryable
        free.invoke("crm.me", {})
        free.invoke("crm.me", {})
    assert len(server.requests) == 3
    said = [each for each in caplog.messages if "other processes for are unknown" in each]
    assert 1 <= len(said) <= 2  # a line for each that has looked, and no more


def test_without_a_database_each_process_counts_for_itself(server: Any) -> None:
    config = {"crm": {"url": server.url("/v1", "127.0.0.1")}}
    with Kernel(plugins=[Crm], config=config, discover=False) as kernel:
        assert kernel.connector("crm").ctx.call_rates is None


def test_a_limit_of_two_plugins_needs_a_name(server: Any, storage: Any) -> None:
    """Their processes would each count apart."""
    rates, limit = CallRates(storage), RateLimiter(5)
    url = server.url("/v1")
    one, other = (ConnectorContext(key=key, call_rates=rates) for key in ("crm", "erp"))
    ServiceClient(url, ctx=one, rate_limit=limit)
    ServiceClient(url, ctx=one, rate_limit=limit)
    with pytest.raises(ConfigError, match="'crm' and 'erp' share a rate limit"):
        ServiceClient(url, ctx=other, rate_limit=limit)
    named = RateLimiter(5, name="intranet")
    for each in (one, other):
        ServiceClient(url, ctx=each, rate_limit=named)


def test_a_call_that_waits_its_turn_heeds_a_wait_that_comes_meanwhile(server: Any) -> None:
    """It was sent though the service had asked to wait, by then for a minute."""
    server.answer("/v1/me", 200, b"{}", Content_Type="application/json")
    limit = RateLimiter(1, 0.3, max_wait_seconds=5)
    client = ServiceClient(
        server.url("/v1", "127.0.0.1"), allow_private_networks=["127.0.0.1"], rate_limit=limit
    )

    async def calls() -> None:
        await client.aget("/me")
        second = asyncio.ensure_future(client.aget("/me"))
        while limit._paces[""].free_at - limit.clock() < 0.3:
            await asyncio.sleep(0)
        limit.observe(429, {"retry-after": "60"})
        with pytest.raises(AutomateError, match="no room"):
            await second
        await client.aclose()

    with calling(Call("crm.me")):
        asyncio.run(calls())
    assert len(server.requests) == 1


_WORKER = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from automate_http.rate_limit import RateLimiter
from automate_http.shared_limit import SharedLimit
from automate_kernel.operations.call_rates import CallRates
from automate_sqlalchemy import SqlAlchemyStorage

url, calls, dies_after = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rates = CallRates(SqlAlchemyStorage(sa.create_engine(url)))
limit = SharedLimit(RateLimiter(20, max_wait_seconds=60), rates, ("limit", "crm"))

async def work():
    for number in range(calls):
        if number == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(await limit.reserve("", ()))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(work())
print("done", flush=True)
"""


def test_real_processes_keep_the_pace_and_one_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite3"
    SqlAlchemyStorage(sa.create_engine(url)).create_tables()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, url, "12", str(dies_after)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for dies_after in (-1, -1, 4)
    ]  # fmt: skip
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 3
        begin = time.monotonic()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        assert [worker.stdout.readline() for worker in workers] == ["done\n", "done\n", ""]
        # 12 + 12 + 4 calls; a busy machine makes them later, and never earlier.
        assert time.monotonic() - begin >= 27 / 20
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
