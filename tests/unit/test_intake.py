"""What is claimed for executions begins in bounded rounds, and holds up no claim for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from waiting import PATIENCE, until
from workers import working

from automate_kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.storage.query import Where
from automate_kernel.worker.in_flight import Task
from automate_kernel.workflows.drive import intake as intake_module
from automate_kernel.workflows.drive.intake import Intake
from automate_kernel.workflows.store.stored import ADVANCE
from automate_kernel.workflows.decide.waits import EVENT, SIGNAL
from automate_kernel.workflows.execution import ExecutionStatus


class World:
    """An intake on a clock of its own, where each item takes *pace* seconds to begin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.stops = 0.0, False
        self.log: list[tuple[str, int]] = []
        self.back: list[Task] = []
        self.failures: list[tuple[int, str]] = []
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(intake_module, "time", clock)
        self.intake = Intake(
            (EVENT, ADVANCE),
            stopping=lambda: self.stops,
            give_back=self.back.extend,
            failed=lambda tasks, error: self.failures.append((len(tasks), str(error))),
            went_on=lambda: None,
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


def test_a_worker_that_stops_gives_back_what_has_not_begun(world: World) -> None:
    """At once, so that another one has it."""
    world.put(ADVANCE, 50, pace=0.0)
    world.stops = True
    world.serve()
    assert (len(world.back), world.intake.waiting, world.log) == (50, 0, [])


def test_a_round_that_fails_costs_no_other_claim(world: World) -> None:
    """What it has left has failed, and the thread goes on."""
    tasks = [Task(_item(SIGNAL, n)) for n in range(3)]

    def breaks() -> Iterator[None]:
        tasks[0].started_at = 1.0
        yield
        raise RuntimeError("broken")

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


def parked(kernel: Kernel, count: int) -> None:
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
    parked(kernel, 3)
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


def test_an_event_wakes_a_bounded_number_in_each_round(kernel: Kernel) -> None:
    """Between them, other items have their turn."""
    parked(kernel, 450)
    kernel.emit("bell")
    kernel.run_until_idle(kinds=[EVENT])
    (signal,) = kernel.outbox.claim_batch("worker", kinds=[SIGNAL])
    woken = [0]
    for _ in kernel._runner.deliver([signal]):
        with kernel.storage.begin() as rows:
            its = [Where("kind", "eq", ADVANCE), Where("waiting_for", "eq", "worker")]
            woken.append(len(rows.select(OUTBOX, its, columns=("id",))))
    assert woken == [0, 200, 400, 450]
