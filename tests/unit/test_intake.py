"""What is claimed for executions begins in bounded rounds, and holds up no claim for others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from waiting import PATIENCE, until
from workers import working

from machines import give
from automate_kernel import Kernel, hookimpl
from automate_kernel.outbox import ItemStatus, OutboxItem
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.storage.query import Where
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.in_flight import Task
from automate_kernel.workflows.drive import intake as intake_module
from automate_kernel.workflows.drive.intake import Intake
from automate_kernel.workflows.decide.waits import ADVANCE, EVENT, SIGNAL
from automate_kernel.workflows.execution import Execution, ExecutionStatus


class World:
    """An intake on a clock of its own, where each item takes *pace* seconds to begin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.stops = 0.0, False
        self.log: list[tuple[str, int]] = []
        self.back: list[Task] = []
        self.failures: list[tuple[int, str]] = []
        self.liveness = Liveness(lambda: self.now)
        give(monkeypatch, intake_module, monotonic=lambda: self.now)
        self.intake = Intake(
            (EVENT, ADVANCE),
            stopping=lambda: self.stops,
            release=self.back.extend,
            failed=lambda tasks, error: self.failures.append((len(tasks), str(error))),
            went_on=lambda: None,
            liveness=self.liveness,
        )

    def begin(self, kind: str, tasks: Sequence[Task], pace: float) -> Iterator[None]:
        for part in self.intake.parts(kind, tasks):
            self.log.append((kind, len(part)))
            self.now += pace * len(part)
            for task in part:
                task.started_at = self.now
            yield

    def put(self, kind: str, count: int, pace: float) -> None:
        tasks = [Task(_item(kind, n)) for n in range(count)]
        self.intake.put(kind, tasks, self.begin(kind, tasks, pace))

    def serve(self) -> None:
        """Begin what was put."""
        self.intake._went_on = lambda: None if self.intake.waiting else self.intake.stop()
        self.intake.serve()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def _item(kind: str, number: int) -> OutboxItem:
    return cast("OutboxItem", SimpleNamespace(id=f"{kind}-{number}", kind=kind))


def test_claims_take_turns_and_each_round_is_bounded_in_time(world: World) -> None:
    """Of two hundred slow executions an event waits for one round only."""
    world.put(ADVANCE, 200, pace=0.01)
    world.put(EVENT, 1, pace=0.01)
    world.serve()
    assert world.log.index((EVENT, 1)) == 1
    sizes = [count for kind, count in world.log if kind == ADVANCE]
    assert sum(sizes) == 200
    # A tenth of a second each, by what the rounds before took.
    assert max(sizes[1:]) <= 20
    assert sizes[-2] in (10, 11, 12)


def test_rounds_are_bounded_in_items_however_quick_they_are(world: World) -> None:
    """A load of a thousand rows is one statement that others wait for."""
    world.put(ADVANCE, 2000, pace=1e-6)
    world.serve()
    assert max(count for _, count in world.log) == 200


def test_what_is_slow_to_begin_is_claimed_in_small_numbers(world: World) -> None:
    """Another worker may be free; and few at once are worth no claim."""
    world.put(ADVANCE, 200, pace=0.05)
    world.serve()
    assert world.intake.room(0.25) in (4, 5)
    world.put(ADVANCE, 3, pace=0.05)
    assert world.intake.room(0.25) == 0


def test_a_kind_that_was_slow_once_leaves_room_for_the_others_again(world: World) -> None:
    """A lock held up an event, and no other came: executions were claimed by ones ever after."""
    world.put(EVENT, 1, pace=10.0)
    for _ in range(80):
        world.put(ADVANCE, 1, pace=0.001)
    world.serve()
    assert world.intake.room(0.25) >= 40


def test_signals_that_wake_many_take_no_room_of_others(world: World) -> None:
    """What is claimed meanwhile has its turn between their rounds."""
    rooms: list[int] = []

    def wakes() -> Iterator[None]:
        for _ in range(3):
            world.now += 0.1
            rooms.append(world.intake.room(0.25))
            yield
        for task in tasks:
            task.started_at = world.now

    tasks = [Task(_item(SIGNAL, n)) for n in range(60)]
    world.intake.put(SIGNAL, tasks, wakes())
    world.put(EVENT, 1, pace=0.0)
    world.intake._went_on = lambda: world.intake.stop() if tasks[0].started_at else None
    world.intake.serve()
    assert rooms[0] == 0 and min(rooms[1:]) > 0, "until all that has come has had a round"
    assert world.log == [(EVENT, 1)]


def test_what_comes_due_in_a_round_is_claimed_together(world: World) -> None:
    """Else each round would claim the few that are due by then, and each claim costs statements."""
    assert world.intake.room(0.25) > 0
    world.put(ADVANCE, 1, pace=0.0)
    world.put(SIGNAL, 1, pace=0.0)
    assert world.intake.room(0.25) == 0
    world.serve()
    assert world.intake.room(0.25) > 0


def test_a_worker_that_stops_gives_back_what_has_not_begun(world: World) -> None:
    """At once, so that another one has it."""
    world.put(ADVANCE, 50, pace=0.0)
    world.stops = True
    world.serve()
    assert (len(world.back), world.intake.waiting, world.log) == (50, 0, [])


@pytest.mark.parametrize("broken", [RuntimeError("broken"), SystemExit("broken")])
def test_a_round_that_fails_costs_no_other_claim(world: World, broken: BaseException) -> None:
    """What it has left has failed, and the thread goes on."""
    tasks = [Task(_item(SIGNAL, n)) for n in range(3)]

    def breaks() -> Iterator[None]:
        tasks[0].started_at = 1.0
        yield
        raise broken

    world.intake.put(SIGNAL, tasks, breaks())
    world.put(EVENT, 2, pace=0.0)
    world.serve()
    assert world.failures == [(2, "broken")]
    assert world.log == [(EVENT, 2)]


# -- in a worker -----------------------------------------------------------------------------------


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={}) as kernel:
        kernel.add_workflow(
            {
                "name": "waits",
                "trigger": {"type": "event", "event": "begin"},
                "steps": [{"id": "bell", "wait_for": {"event": "bell"}}],
            }
        )
        yield kernel


def deferred(kernel: Kernel, count: int) -> None:
    """Let so many executions wait for the bell."""
    for _ in range(count):
        kernel.start("waits")
    kernel.run_until_idle()
    with kernel.storage.begin() as rows:
        its = [Where("kind", "eq", ADVANCE), Where("waiting_for", "eq", "time")]
        assert len(rows.select(OUTBOX, its, columns=("id",))) == count


@pytest.mark.parametrize("held_up", ["loading", "waking", "beginning"])
def test_nothing_of_executions_holds_up_a_claim_for_another_kind(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, held_up: str
) -> None:
    """However long they take to be woken, loaded or begun, other kinds are claimed and handled."""
    handled, go = threading.Event(), threading.Event()
    kernel.handler("other")(lambda item: handled.set())
    deferred(kernel, 3)
    target, name = {
        "loading": (kernel.executions.checkpoints, "load_all"),
        "waking": (kernel.executions.signals, "_wake_parked"),
        "beginning": (kernel._runner, "begin_events"),
    }[held_up]
    real, reached = getattr(target, name), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        reached.set()
        assert go.wait(PATIENCE)
        return real(*arguments, **options)

    monkeypatch.setattr(target, name, slow)
    kernel.emit("begin" if held_up == "beginning" else "bell")
    with working(kernel):
        assert reached.wait(PATIENCE)
        kernel.outbox.enqueue("other")
        try:
            assert handled.wait(PATIENCE)
        finally:
            go.set()
        done = 0 if held_up == "beginning" else 3
        find = kernel.executions.find
        until(lambda: len(find(workflow="waits", status=ExecutionStatus.COMPLETED)) == done)


class _Exits:
    """A plugin that ends its thread, as a library's ``sys.exit`` does, for its first execution."""

    def __init__(self, where: str) -> None:
        self.where, self.exited = where, threading.Event()

    @hookimpl
    def automate_executing(self, execution: Execution) -> Any:
        if self.where == "before":
            self._exit()
        return self._around()

    @contextmanager
    def _around(self) -> Iterator[None]:
        if self.where == "entering":
            self._exit()
        yield
        if self.where == "after":
            self._exit()

    def _exit(self) -> None:
        if not self.exited.is_set():
            self.exited.set()
            sys.exit("the plugin")


@pytest.mark.parametrize("where", ["before", "entering", "after"])
def test_a_plugin_that_exits_ends_no_thread_of_a_worker(kernel: Kernel, where: str) -> None:
    """The thread died, and the worker claimed on and began nothing any more."""
    plugin = _Exits(where)
    kernel.register(plugin, "hook", key="exits")
    kernel.add_workflow(
        {
            "name": "rests",
            "trigger": {"type": "event", "event": "rest"},
            "steps": [{"id": "rest", "sleep": "1ms"}],
        }
    )
    find = kernel.executions.find
    with working(kernel):
        kernel.start("rests")
        assert plugin.exited.wait(PATIENCE)
        kernel.start("rests")
        until(lambda: len(find(workflow="rests", status=ExecutionStatus.COMPLETED)) == 2)


def test_an_execution_that_cannot_be_entered_is_tried_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was neither begun nor given back, and its lease was renewed for ever."""
    real, tries = kernel._runner.around, []

    def around(execution: Execution) -> Any:
        tries.append(execution.id)
        if len(tries) == 1:
            raise RuntimeError("no room")
        return real(execution)

    monkeypatch.setattr(kernel._runner, "around", around)
    parked_before = kernel.start("waits")
    with working(kernel) as worker:
        until(lambda: len(tries) > 1)
        until(lambda: not worker.in_flight)
    assert set(tries) == {parked_before}


def test_an_event_that_is_cancelled_while_it_waits_begins_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled, as it would be anywhere else before it has begun."""
    real, reached, go = kernel._runner.begin_events, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        reached.set()
        assert go.wait(PATIENCE)
        return real(*arguments)

    monkeypatch.setattr(kernel._runner, "begin_events", slow)
    monkeypatch.setattr(intake_module, "_MOST_IN_ROUND", 1)
    kernel.emit("begin")
    last = kernel.emit("begin")
    with working(kernel) as worker:
        assert reached.wait(PATIENCE)
        try:
            until(lambda: last in worker._in_flight.held())
            task = worker._in_flight.held()[last]
            kernel.outbox.cancel([last])
            until(lambda: task.asked)
        finally:
            go.set()
        until(lambda: not worker._in_flight.held())
    assert kernel.outbox.get(last).status is ItemStatus.CANCELLED
    assert len(kernel.executions.find(workflow="waits")) == 1


def test_an_event_wakes_a_bounded_number_in_each_round(kernel: Kernel) -> None:
    """Between them, other items have their turn."""
    deferred(kernel, 450)
    kernel.emit("bell")
    kernel.run_until_idle(kinds=[EVENT])
    (signal,) = kernel.outbox.claim_batch("worker", kinds=[SIGNAL])
    woken = [0]
    for _ in kernel._runner.deliver([signal]):
        with kernel.storage.begin() as rows:
            its = [Where("kind", "eq", ADVANCE), Where("waiting_for", "eq", "worker")]
            woken.append(len(rows.select(OUTBOX, its, columns=("id",))))
    assert woken == [0, 200, 400, 450]
