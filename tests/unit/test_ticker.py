"""Schedules fire once each, however many kernels look at them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from workers import fire_due
from automate_kernel.kernel import Kernel
from automate_kernel.storage import MemoryStorage, Rows, Where
from automate_kernel.storage.tables import SCHEDULE
from automate_testing.clock import FakeClock
from automate_kernel.workflows.steer import schedule
from automate_kernel.workflows.steer.schedule import Schedule, Ticker
from automate_kernel.workflows.execution import ExecutionStatus
from automate_sqlalchemy import SqlAlchemyStorage
from waiting import at_once

Open = Callable[..., Kernel]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def open_kernel(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Open]:
    """Opens kernels on the same data, each as a process of its own has it."""
    if request.param == "memory":
        storage: Any = MemoryStorage(clock)
    else:
        engine: sa.Engine = request.getfixturevalue(f"{request.param}_engine")
        storage = SqlAlchemyStorage(engine, clock=clock)
    opened: list[Kernel] = []

    def open_kernel(**trigger: Any) -> Kernel:
        kernel = Kernel(storage, discover=False, secrets={})
        opened.append(kernel)
        kernel.action("do.it")(lambda: None)
        kernel.add_workflow(
            {"name": "w", "trigger": {"type": "schedule", **trigger},
             "steps": [{"id": "a", "action": "do.it"}]}
        )  # fmt: skip
        return kernel

    yield open_kernel
    for kernel in opened:
        kernel.close()


def fired(kernel: Kernel) -> list[str]:
    return sorted(one.event.occurred_at or "" for one in kernel.executions.find(limit=1000))


def test_it_fires_when_it_is_due(open_kernel: Open, clock: FakeClock) -> None:
    """A schedule that is seen for the first time waits for its next time, and then fires."""
    kernel = open_kernel(every="10m", payload={"n": 1})
    assert [fire_due(kernel) for _ in range(2)] == [0, 0]
    clock.advance(599)
    assert fire_due(kernel) == 0
    clock.advance(1)
    assert [fire_due(kernel) for _ in range(2)] == [1, 0]
    kernel.run_until_idle()
    (execution,) = kernel.executions.find()
    assert execution.status is ExecutionStatus.COMPLETED
    event = execution.event
    assert (event.type, event.name, event.payload) == ("schedule", "w", {"n": 1})
    assert event.occurred_at == "2026-01-01T00:10:00+00:00"


def test_kernels_that_look_at_the_same_moment(open_kernel: Open, clock: FakeClock) -> None:
    """Four that tick at once fire each time once between them."""
    kernels = [open_kernel(every="10m") for _ in range(4)]
    fire_due(kernels[0])
    for _ in range(3):
        clock.advance(600)
        together, counts = threading.Barrier(4), []

        def tick(
            kernel: Kernel, together: threading.Barrier = together, counts: list[int] = counts
        ) -> None:
            together.wait(20)
            counts.append(fire_due(kernel))

        at_once(*(partial(tick, kernel) for kernel in kernels))
        assert (len(counts), sum(counts)) == (4, 1)
    assert len(fired(kernels[0])) == 3


def test_more_missed_times_than_one_look_fires(open_kernel: Open, clock: FakeClock) -> None:
    """The oldest hundred fire at each look; none is lost, nor those that come meanwhile."""
    kernel = open_kernel(every="1m", catch_up=True)
    fire_due(kernel)
    clock.advance(250 * 60)
    assert fire_due(kernel) == 100
    # Another worker goes on where the first one was.
    other = open_kernel(every="1m", catch_up=True)
    clock.advance(60)
    assert [fire_due(other) for _ in range(3)] == [100, 51, 0]
    assert len(set(fired(kernel))) == 251
    clock.advance(130 * 60)
    kernel.run_until_idle()
    assert len(set(fired(kernel))) == 381


@pytest.mark.parametrize("overlap", ["allow", "queue", "skip"])
def test_a_worker_that_looks_late_misses_no_time(
    open_kernel: Open, clock: FakeClock, overlap: str
) -> None:
    """Looks lie a little more than a second apart: two times may come between, and both fire."""
    kernel = open_kernel(every="1s", overlap=overlap)
    fire_due(kernel)
    for seconds in (1.5, 2.5, 1.0, 7.0, 0.2, 0.8, 30.0):
        clock.advance(seconds)
        fire_due(kernel)
        kernel.run_until_idle()
    times = [f"2026-01-01T00:00:{n:02}+00:00" for n in range(1, 44)]
    if overlap == "skip":  # of those that come together the first begins one
        times = [times[n] for n in (0, 1, 4, 5, 12, 13)]
    assert fired(kernel) == times


def test_a_schedule_that_nobody_looked_at_has_missed_its_times(
    open_kernel: Open, clock: FakeClock
) -> None:
    """A worker that begins, or was frozen for more than a minute, fires the newest alone."""
    kernel = open_kernel(every="1s")
    fire_due(kernel)
    clock.advance(61)
    assert fire_due(kernel) == 1
    clock.advance(3)
    assert fire_due(kernel) == 3
    clock.advance(5)
    assert fire_due(open_kernel(every="1s")) == 1
    # Another one has fired a later time meanwhile: what came before is over.
    assert fire_due(kernel) == 0


def test_a_fire_that_fails_is_made_later(
    open_kernel: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule moves on in the transaction that starts the execution, or not at all."""
    kernel = open_kernel(every="10m")
    fire_due(kernel)
    clock.advance(600)

    def fail(rows: Rows, *_: Any) -> None:
        assert rows.select(SCHEDULE, [Where("last_fired_at", "eq", clock())])
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(kernel._ticker, "_fire", fail)
        with pytest.raises(ZeroDivisionError):
            fire_due(kernel)
    assert fire_due(kernel) == 1


def test_a_kernel_without_schedules_asks_nothing() -> None:
    """The ticker touches no database if no workflow has a schedule."""
    kernel = Kernel(discover=False, secrets={})
    kernel.storage = None  # type: ignore[assignment]
    kernel._ticker._storage = None  # type: ignore[assignment]
    assert fire_due(kernel) == 0


def test_a_schedules_if_decides(open_kernel: Open, clock: FakeClock) -> None:
    """A tick whose condition is false starts nothing, and the schedule goes on."""
    kernel = open_kernel(**{"every": "10m", "if": "{{ event.occurred_at[14:16] != '10' }}"})
    fire_due(kernel)
    for _ in range(3):
        clock.advance(600)
        fire_due(kernel)
    assert [moment[14:16] for moment in fired(kernel)] == ["20", "30"]


def test_a_schedules_broken_if_holds_up_nothing(
    open_kernel: Open, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the tick is left out, and the next one is made."""
    kernel = open_kernel(**{"every": "10m", "if": "{{ event.payload.missing.more }}"})
    fire_due(kernel)
    clock.advance(600)
    assert fire_due(kernel) == 1
    assert fire_due(kernel) == 0
    assert fired(kernel) == []
    assert "the schedule of workflow 'w': trigger[0].if" in caplog.text


def test_a_start_that_is_refused_holds_up_no_other_schedule(
    open_kernel: Open, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Here its payload is too long: it is logged, and moves on to its next time."""
    kernel = open_kernel(every="10m", payload={"text": "x" * 3_000_000})
    kernel.add_workflow(
        {"name": "x", "trigger": {"type": "schedule", "every": "10m"},
         "steps": [{"id": "a", "action": "do.it"}]}
    )  # fmt: skip
    fire_due(kernel)
    for times in (1, 2):
        clock.advance(600)
        assert fire_due(kernel) == 2
        assert [one.name for one in kernel.executions.find()] == ["x"] * times
    assert fire_due(kernel) == 0
    assert "the schedule of workflow 'w': the payload is too long" in caplog.text


def test_a_clock_that_was_ahead_stops_no_schedule(open_kernel: Open, clock: FakeClock) -> None:
    """It is set back by a day: each hour fires, and the one that had fired by then not again."""
    kernel = open_kernel(every="1h")
    fire_due(kernel)
    clock.advance(25 * 3600)
    assert fire_due(kernel) == 1
    clock.advance(-24 * 3600)
    assert fire_due(kernel) == 0
    for hour in range(2, 27):
        clock.advance(3600)
        fire_due(kernel)
        times = [*range(2, hour + 1), *([25] if hour < 25 else [])]
        assert len(fired(kernel)) == len(times)
    assert len(set(fired(kernel))) == 25


def test_a_worker_that_freezes_while_it_looks_sets_nothing_back(
    open_kernel: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one fires meanwhile: that is no time in the future."""
    frozen, other = open_kernel(every="1h"), open_kernel(every="1h")
    fire_due(frozen)
    clock.advance(3600)
    assert fire_due(frozen) == 1

    def freeze(rows: Rows, schedules: Any) -> Any:
        monkeypatch.undo()
        clock.advance(7200)
        assert fire_due(other) == 1
        return schedule.as_stored(rows, schedules)

    monkeypatch.setattr(schedule, "as_stored", freeze)
    assert fire_due(frozen) == 0
    (found,) = frozen.schedules.find()
    assert found.last_fired_at == clock()


def test_a_schedule_that_moves_among_the_triggers_stays_the_same(
    open_kernel: Open, clock: FakeClock
) -> None:
    """Its times go on where they were, its pause holds, and the trigger before it is new."""
    every = {"type": "schedule", "every": "10m"}
    step = {"id": "a", "action": "do.it"}

    def deploy(*triggers: dict[str, Any]) -> Kernel:
        kernel = open_kernel(every="1d")
        kernel.add_workflow({"name": "moved", "trigger": list(triggers), "steps": [step]})
        return kernel

    def begun(kernel: Kernel) -> list[str]:
        found = kernel.executions.find(workflow="moved")
        return sorted(one.event.occurred_at or "" for one in found)

    kernel = deploy(every)
    fire_due(kernel)
    clock.advance(600)
    assert fire_due(kernel) == 1
    (before,) = begun(kernel)
    # It comes due while the workflow is deployed anew, with others before it.
    clock.advance(600)
    kernel = deploy({"type": "manual"}, {"type": "schedule", "every": "7m"}, every)
    assert fire_due(kernel) == 1
    assert len(begun(kernel)) == 2 and begun(kernel)[0] == before
    assert kernel.schedules.pause("moved", number=2) == 1
    kernel = deploy(every)
    (schedule,) = kernel.schedules.find("moved")
    assert schedule.paused_at is not None
    assert kernel.schedules.resume("moved") == 1
    clock.advance(600)
    assert fire_due(kernel) == 1


def test_two_schedules_with_the_same_times_are_told_apart_by_their_ids(
    open_kernel: Open, clock: FakeClock
) -> None:
    """Whichever stands first, and if one of them goes, each keeps its own pause."""
    one, two = (
        {"type": "schedule", "id": name, "every": "10m", "payload": {"n": name}}
        for name in ("one", "two")
    )

    def deploy(*triggers: dict[str, Any]) -> Kernel:
        kernel = open_kernel(every="1d")
        steps = [{"id": "a", "action": "do.it"}]
        kernel.add_workflow({"name": "twins", "trigger": list(triggers), "steps": steps})
        return kernel

    def paused(kernel: Kernel) -> dict[str, bool]:
        found = kernel.schedules.find("twins")
        return {each.about: each.paused_at is not None for each in found}

    kernel = deploy(one, two)
    fire_due(kernel)
    assert kernel.schedules.pause("twins", number=0) == 1
    assert paused(kernel) == {"every 10m (one)": True, "every 10m (two)": False}
    kernel = deploy(two, one)
    assert paused(kernel) == {"every 10m (one)": True, "every 10m (two)": False}
    clock.advance(600)
    assert fire_due(kernel) == 1
    (execution,) = kernel.executions.find(workflow="twins")
    assert execution.event.payload == {"n": "two"}
    assert paused(deploy(two)) == {"every 10m (two)": False}
    assert paused(deploy({"type": "manual"}, one)) == {"every 10m (one)": True}


def test_two_schedules_with_the_same_times_are_two(open_kernel: Open, clock: FakeClock) -> None:
    """Each fires, wherever it stands."""
    twice = [{"type": "schedule", "every": "10m", "payload": {"n": n}} for n in (1, 2)]

    def deploy(*triggers: dict[str, Any]) -> Kernel:
        kernel = open_kernel(every="1d")
        step = {"id": "a", "action": "do.it"}
        kernel.add_workflow({"name": "twice", "trigger": list(triggers), "steps": [step]})
        return kernel

    fire_due(deploy(*twice))
    clock.advance(600)
    kernel = deploy({"type": "manual"}, *twice)
    assert fire_due(kernel) == 2
    found = kernel.executions.find(workflow="twice")
    assert sorted(one.event.payload["n"] for one in found) == [1, 2]


def test_a_schedule_keeps_to_the_conditions_of_its_workflow(
    open_kernel: Open, clock: FakeClock
) -> None:
    """Its times begin no more executions than may go on at once."""
    kernel = open_kernel(every="1d")
    kernel.add_workflow(
        {
            "name": "alone", "trigger": {"type": "schedule", "every": "10m"},
            "concurrency": {"when_full": "skip"},
            "steps": [{"id": "wait", "wait_for": {"signal": "go"}}],
        }
    )  # fmt: skip
    for _ in range(3):
        fire_due(kernel)
        clock.advance(600)
    assert len(kernel.executions.find(workflow="alone")) == 1


def test_a_pause_between_two_times_that_are_due(open_kernel: Open, clock: FakeClock) -> None:
    """It holds from its commit on, though the ticker has looked at the schedule before."""
    kernel = open_kernel(every="10m", catch_up=True)
    fire_due(kernel)
    clock.advance(3600)

    def fire(rows: Rows, schedule: Schedule, moment: datetime) -> Callable[[], None]:
        return pause

    def pause() -> None:
        assert kernel.schedules.pause("w") == 1

    ticker = Ticker(kernel.storage, kernel.schedules.all, fire)
    assert [ticker.tick(), ticker.tick()] == [1, 0]
    assert kernel.schedules.resume("w") == 1
    assert fire_due(kernel) == 5
