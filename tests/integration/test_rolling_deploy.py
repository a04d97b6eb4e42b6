"""Old and new workers side by side: nothing fails, nothing is lost, nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import warm_forks
from waiting import until
from workers import working
from automate_kernel import Kernel, WorkflowContext
from automate_cli.database import open_storage
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.execution import ExecutionStatus
from automate_sqlalchemy import SqlAlchemyStorage

PATIENCE = 60.0
NUMBER = 30
OLD = """\
def automate_configure(kernel):
    for name in NAMES:
        kernel.action(name)(lambda: name)
"""
STEPS = {
    "v1": ["shop.take", "shop.pay"],
    "v2": ["shop.take", "shop.pay2", "shop.ship2"],
}
SHARED = """\
name: order
trigger: {{type: event, event: order.placed}}
steps: [{steps}]
"""
NEW = """\
name: gift
trigger: {type: event, event: gift.asked}
steps: [{id: wrap, action: shop.wrap2}]
"""


def workflow(version: str) -> str:
    steps = [f"{{id: s{n}, action: {name}}}" for n, name in enumerate(STEPS[version])]
    return SHARED.format(steps=", ".join(steps))


def pass_delays(kernel: Kernel) -> None:
    """Let what is handed over be due at once."""
    later = [Where("waiting_for", "eq", "time")]
    with kernel.storage.begin(atomic=False) as rows:
        ids = [row["id"] for row in rows.select(OUTBOX, later, columns=("id",))]
    # One by one: many at once may meet what workers lock in another order.
    for item_id in ids:
        with kernel.storage.begin() as rows:
            rows.update(OUTBOX, [Where("id", "eq", item_id), *later], {"next_attempt_at": Now(-1)})


def check(kernel: Kernel, events: list[str], gifts: list[str], started: list[str]) -> None:
    """Each event has one execution, and all have completed."""
    found = kernel.executions.find(limit=1000)
    assert Counter(one.status for one in found) == {ExecutionStatus.COMPLETED: len(found)}
    assert sorted(one.event.id for one in found if one.name == "gift") == sorted(gifts)
    orders = [one for one in found if one.name == "order"]
    assert sorted(one.event.id for one in orders if one.id not in started) == sorted(events)
    assert {one.id for one in orders} >= set(started)
    for one in found:
        assert {run.attempts for run in one.steps} == {1}
    assert kernel.outbox.stats().total("FAILED") == 0


# -- two kernels -----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request: pytest.FixtureRequest) -> sa.Engine:
    return request.getfixturevalue(f"{request.param}_engine")


def kernel_of(engine: sa.Engine, version: str, calls: Counter[str]) -> Kernel:
    kernel = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={}, version=version)
    names = {*STEPS[version], *(["shop.wrap2"] if version == "v2" else [])}
    for name in names:

        @kernel.action(name)
        def act(name: str = name) -> None:
            calls[name] += 1

    steps = [{"id": f"s{n}", "action": name} for n, name in enumerate(STEPS[version])]
    on = {"type": "event", "event": "order.placed"}
    kernel.add_workflow({"name": "order", "trigger": on, "steps": steps})
    if version == "v2":
        on = {"type": "event", "event": "gift.asked"}
        steps = [{"id": "wrap", "action": "shop.wrap2"}]
        kernel.add_workflow({"name": "gift", "trigger": on, "steps": steps})
    return kernel


def test_a_rolling_deploy(engine: sa.Engine) -> None:
    """Old workers hand on what they don't know, and leave events to the new one."""
    calls: Counter[str] = Counter()
    olds = [kernel_of(engine, "v1", calls) for _ in range(2)]
    new = kernel_of(engine, "v2", calls)
    events, gifts, started = [], [], []
    with contextlib.ExitStack() as stack:
        for old in olds:
            stack.enter_context(working(old, grace_seconds=10.0))
        events += [new.emit("order.placed") for _ in range(NUMBER)]
        with working(new, grace_seconds=10.0):
            until(lambda: len(new.outbox.workers()) == 3, PATIENCE)
            until(lambda: all(old._leader_election.leaves_events for old in olds), PATIENCE)
            for _ in range(NUMBER):
                events.append(new.emit("order.placed"))
                gifts.append(new.emit("gift.asked"))
                started.append(new.start("order"))
                started.append(olds[0].start("order"))

            def done() -> bool:
                pass_delays(new)
                found = new.executions.stats().counts.values()
                waiting = new.outbox.stats()
                return not any(set(of) & {"PENDING", "RUNNING"} for of in found) and not (
                    waiting.total("PENDING") + waiting.total("RETRY") + waiting.total("RUNNING")
                )

            until(done, PATIENCE)
    check(new, events, gifts, started)
    assert calls["shop.wrap2"] == NUMBER
    assert calls["shop.ship2"] == calls["shop.pay2"]
    assert calls["shop.take"] == len(events) + len(started)


def code_of(engine: sa.Engine, version: str, calls: Counter[str]) -> Kernel:
    """Return a kernel with a workflow in code, of which v2 has other steps after the first wait."""
    kernel = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={}, version=version)

    def step(name: str) -> str:
        calls[name] += 1
        return name

    @kernel.workflow(on="order.placed")
    async def order(ctx: WorkflowContext) -> list[str]:
        found = [await ctx.step(step, "take", name="take")]
        with ctx.compensate(step, "undo", name="undo"):
            for name in ("pay", "ship"):
                await ctx.wait_for(signal="go")
                own = name if version == "v1" else f"{name}2"
                found.append(await ctx.step(step, own, name=own))
        return found

    return kernel


def test_a_rolling_deploy_of_code(engine: sa.Engine) -> None:
    """Each goes on with the code that has gone beyond the change, whichever worker wakes it."""
    calls: Counter[str] = Counter()
    old, new = code_of(engine, "v1", calls), code_of(engine, "v2", calls)
    for _ in range(NUMBER):
        old.emit("order.placed")
    with working(old, grace_seconds=10.0):
        until(lambda: calls["take"] == NUMBER, PATIENCE)
        ids = [one.id for one in old.executions.find(limit=NUMBER)]
        for execution_id in ids[: NUMBER // 2]:
            old.signal(execution_id, "go")
        until(lambda: calls["pay"] == NUMBER // 2, PATIENCE)
        with working(new, grace_seconds=10.0):
            until(lambda: len(new.outbox.workers()) == 2, PATIENCE)
            for execution_id in ids:
                new.signal(execution_id, "go")
                new.signal(execution_id, "go")
            until(lambda: len(new.executions.find(status="COMPLETED", limit=500)) == NUMBER, 120)
    found = new.executions.find(limit=500)
    assert {one.status for one in found} == {ExecutionStatus.COMPLETED}
    outputs = Counter(tuple(new.executions.output(one.id)) for one in found)
    assert set(outputs) <= {("take", "pay", "ship"), ("take", "pay2", "ship2")}
    assert outputs["take", "pay", "ship"] >= NUMBER // 2
    assert calls["undo"] == 0
    assert calls["take"] == NUMBER == calls["pay"] + calls["pay2"] == calls["ship"] + calls["ship2"]
    assert new.outbox.stats().total("FAILED") == 0


def test_what_is_handed_over_is_found(engine: sa.Engine) -> None:
    """Whatever else waits for its time; by tenant if asked for."""
    calls: Counter[str] = Counter()
    old, new = kernel_of(engine, "v1", calls), kernel_of(engine, "v2", calls)
    new.outbox.enqueue("later", delay=3600)
    started = [new.start("order", tenant_id=tenant) for tenant in ("acme", "globex", None)]
    old.run_until_idle()
    found = old.outbox.handed_over()
    assert {item.payload["execution_id"] for item in found} == set(started)
    assert {item.handover.code for item in found if item.handover} == {"UNKNOWN_ACTION"}
    (one,) = old.outbox.handed_over(tenant_id="acme")
    assert one.payload["execution_id"] == started[0]
    assert len(old.outbox.handed_over(limit=2)) == 2
    assert old.outbox.count_handed_over() == 3
    pass_delays(new)
    new.run_until_idle()
    assert new.outbox.handed_over() == []
    assert new.outbox.count_handed_over() == 0


# -- real processes --------------------------------------------------------------------------------


class Deploy:
    """A version of a project in a folder of its own, on a database that both versions share."""

    def __init__(self, folder: Path, version: str, url: str, forks: str) -> None:
        self.folder, self.version, self.forks = folder / version, version, forks
        (self.folder / "workflows").mkdir(parents=True)
        (self.folder / "automate.toml").write_text(
            f'app = "automation"\ndatabase = "{url}"\n'
            f'[worker]\npoll_seconds = 0.05\nversion = "{version}"\n'
        )
        names = [*STEPS[version], *(["shop.wrap2"] if version == "v2" else [])]
        (self.folder / "automation.py").write_text(f"NAMES = {names!r}\n{OLD}")
        (self.folder / "workflows" / "order.yaml").write_text(workflow(version))
        if version == "v2":
            (self.folder / "workflows" / "gift.yaml").write_text(NEW)

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
        with (
            (self.folder / "log").open("w") as log,
            warm_forks.running(
                self.forks,
                [sys.executable, "-m", "automate_cli", "worker"],
                cwd=self.folder,
                env=environment,
                text=True,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            yield process


@pytest.mark.slow
def test_a_rolling_deploy_of_processes(tmp_path: Path, forks: str) -> None:
    """``automate worker`` of both versions on one database; then the old one ends."""
    url = f"sqlite:///{tmp_path}/automate.sqlite3"
    old, new = (Deploy(tmp_path, version, url, forks) for version in ("v1", "v2"))
    kernel = Kernel(open_storage(url, folder=tmp_path), discover=False, secrets={})
    kernel.storage.create_tables()
    for path in (new.folder / "workflows").iterdir():
        kernel.add_workflow(path)
    gifts, events, started = [], [], []
    with old.running() as first:
        until(lambda: kernel.outbox.workers(), PATIENCE)
        events += [kernel.emit("order.placed") for _ in range(5)]
        until(lambda: len(kernel.executions.find(status="COMPLETED")) == 5, PATIENCE)
        with new.running():
            until(lambda: len(kernel.outbox.workers()) == 2, PATIENCE)
            threading.Event().wait(2.5)  # the old one looks every second
            for _ in range(NUMBER):
                gifts.append(kernel.emit("gift.asked"))
                events.append(kernel.emit("order.placed"))
                started.append(kernel.start("order"))
            until(
                lambda: len(kernel.executions.find(status="COMPLETED", limit=500)) > 2 * NUMBER,
                PATIENCE,
            )
            first.terminate()
            assert first.wait(PATIENCE) == 0

            def done() -> bool:
                pass_delays(kernel)
                return len(kernel.executions.find(status="COMPLETED", limit=500)) == 5 + 3 * NUMBER

            until(done, PATIENCE)
    check(kernel, events, gifts, started)
    kernel.storage.engine.dispose()  # type: ignore[attr-defined]
