"""The engine of a worker: nothing it holds stays for ever, and each execution is on its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import PATIENCE, until
from workers import working
from defined import is_over, see
from automate_kernel.base import runtime
from automate_kernel import Kernel, SyncWorkflowContext
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_kernel.outbox import ItemStatus
from automate_kernel.plugins import hookimpl
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.worker.worker import Worker
from automate_kernel.workflows.drive import engine
from automate_kernel.workflows.drive.engine import Engine
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.execution import Execution, ExecutionStatus


def add(kernel: Kernel, name: str, *steps: dict[str, Any], **more: Any) -> None:
    more.setdefault("trigger", {"type": "manual"})
    kernel.add_workflow({"name": name, "steps": list(steps), **more})


def item_status(kernel: Kernel, item_id: str) -> ItemStatus:
    found = kernel.outbox.get(item_id)
    assert found is not None
    return found.status


# -- context ---------------------------------------------------------------------------------------


# -- calls that end in an unusual way --------------------------------------------------------------


def test_a_call_that_is_cancelled_before_it_began_ends(kernel: Kernel) -> None:
    """A busy loop begins a call and cancels it in one go: the execution ends all the same."""
    held, begun = threading.Event(), threading.Event()

    @kernel.action
    async def later() -> None:
        await asyncio.sleep(3600)

    @kernel.action
    def before() -> None:
        begun.set()

    add(kernel, "late", {"id": "a", "action": "before"}, {"id": "b", "action": "later"})
    kernel.operations.portal.call_soon(held.wait, PATIENCE)
    with working(kernel) as worker:
        one = kernel.start("late")
        assert begun.wait(PATIENCE)
        # The second one's call was handed to the loop before it is shown.
        until(lambda: [run.step_id for run in see(kernel, one).steps] == ["a", "b"])
        kernel.executions.cancel(one)
        until(lambda: all(task.asked for task in worker._in_flight.tasks.values()))
        held.set()
        until(lambda: worker.in_flight == 0)
    assert see(kernel, one).status is ExecutionStatus.CANCELLED


def test_a_keyboard_interrupt_in_a_step_ends_the_step(kernel: Kernel) -> None:
    """Ctrl-C is meant for the main thread; raised elsewhere it is an error like any other."""

    @kernel.action
    def interrupt() -> None:
        raise KeyboardInterrupt

    add(kernel, "rude", {"id": "a", "action": "interrupt"})
    with working(kernel):
        one = kernel.start("rude")
        until(lambda: is_over(kernel, one))
    assert see(kernel, one).status is ExecutionStatus.FAILED


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_no_call_begins_whose_lease_ran_out(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Calls that were about to begin when the process was frozen are another worker's by now."""
    frozen_seconds, real = [0.0], time.monotonic
    monkeypatch.setattr(runtime, "monotonic", lambda: real() + frozen_seconds[0])
    called = list[int]()

    def work(n: int) -> None:
        if n == 5:
            with kernel.outbox.storage.begin() as rows:
                rows.update(OUTBOX, [], {"lease_token": "another's"})
            frozen_seconds[0] = kernel.outbox.lease_seconds + 1
        called.append(n)

    async def awork(n: int) -> None:
        work(n)

    def slow(n: int) -> None:
        work(n)
        threading.Event().wait(0.001)

    kernel.action("work")({"plain": slow, "async": awork}[kind])
    # One that is held up tells nothing of the order in which others begin.
    add(
        kernel, "listed",
        {"id": "each", "action": "work", "for_each": list(range(20)), "concurrency": 15,
         "input": {"n": "{{ item }}"}},
    )  # fmt: skip
    with working(kernel, slots=2) as worker:
        kernel.start("listed")
        until(lambda: 5 in called and worker.in_flight == 0)
    # What has begun on the other thread at that moment can't be called back.
    assert len(called[called.index(5) + 1 :]) <= (1 if kind == "plain" else 0)


# -- items that can't be handled -------------------------------------------------------------------


@pytest.mark.parametrize("payload", [{}, {"execution_id": 5}, {"execution_id": "no"}, []])
def test_a_bad_wake_up_holds_up_no_other(kernel: Kernel, payload: Any) -> None:
    """An item that names no execution fails alone."""

    @kernel.action
    def work() -> None:
        pass

    add(kernel, "fine", {"id": "a", "action": "work"})
    one = kernel.start("fine")
    bad = kernel.outbox.enqueue("automate.advance", payload, max_attempts=1)
    two = kernel.start("fine")
    with working(kernel) as worker:
        until(lambda: is_over(kernel, one) and is_over(kernel, two))
        until(lambda: worker.in_flight == 0)
    assert item_status(kernel, bad) in (ItemStatus.FAILED, ItemStatus.COMPLETED)
    assert see(kernel, one).status is ExecutionStatus.COMPLETED


def test_a_bad_event_holds_up_no_other(kernel: Kernel) -> None:
    """An event item that can't be read fails alone."""

    @kernel.action
    def work() -> None:
        pass

    add(kernel, "fine", {"id": "a", "action": "work"}, trigger={"type": "event", "event": "order"})
    bad = kernel.outbox.enqueue("automate.event", {"type": 5}, max_attempts=1)
    kernel.emit("order", {})
    with working(kernel) as worker:
        until(lambda: worker.in_flight == 0 and kernel.executions.find(status="COMPLETED"))
        until(lambda: item_status(kernel, bad) is ItemStatus.FAILED)


def test_a_worker_of_events_alone_leaves_executions_to_others(kernel: Kernel) -> None:
    """What a worker is not to work on it doesn't take for itself either."""
    made: list[str] = []

    @kernel.action
    def work() -> None:
        made.append("work")

    add(kernel, "fine", {"id": "a", "action": "work"}, trigger={"type": "event", "event": "order"})
    with working(kernel, kinds=["automate.event"]):
        for _ in range(2):  # the second is claimed once the first has begun its execution
            item_id = kernel.emit("order", {})
            until(lambda one=item_id: item_status(kernel, one) is ItemStatus.COMPLETED)
    assert not made
    kernel.run_until_idle()
    assert made == ["work"] * 2


# -- steps that wait for a thread ------------------------------------------------------------------


# -- timers ----------------------------------------------------------------------------------------


def test_a_retry_that_is_due_while_its_execution_is_saved_is_made(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long step is saved just as another one's retry becomes due: the retry doesn't wait."""
    tries: list[int] = []
    saving, go = threading.Event(), threading.Event()
    checkpoint = kernel.executions.checkpoints.save

    def slow(group: Any) -> set[str]:
        if any(str(run.status) == "RUNNING" for save in group for run in save.turn.saves):
            saving.set()
            threading.Event().wait(1.0)
        return checkpoint(group)

    @kernel.action
    def flaky() -> None:
        tries.append(1)
        if len(tries) < 2:
            raise ConnectionError

    @kernel.action
    def long() -> None:
        assert go.wait(PATIENCE)

    monkeypatch.setattr(kernel.executions.checkpoints, "save", slow)
    add(
        kernel, "w", {"id": "a", "action": "flaky", "needs": [], "retry": {"delay": 0.5, "jitter": False}},
        {"id": "b", "action": "long", "needs": []},
    )  # fmt: skip
    with working(kernel):
        one = kernel.start("w")
        assert saving.wait(PATIENCE)
        until(lambda: len(tries) == 2)
        go.set()
        until(lambda: is_over(kernel, one))


# -- statistics ------------------------------------------------------------------------------------


def test_the_events_of_a_group_are_timed(kernel: Kernel) -> None:
    """How long events wait is counted, however they are begun."""

    @kernel.action
    def work() -> None:
        pass

    add(kernel, "fine", {"id": "a", "action": "work"}, trigger={"type": "event", "event": "order"})
    item_id = kernel.emit("order", {})
    with working(kernel):
        until(lambda: item_status(kernel, item_id) is ItemStatus.COMPLETED)
    (events,) = (each for each in kernel.outbox.activity() if each.kind == "automate.event")
    assert sum(events.wait_buckets.values()) == 1


# -- room ------------------------------------------------------------------------------------------


def test_no_more_is_claimed_than_threads_will_soon_begin(kernel: Kernel) -> None:
    """Executions that would wait for a thread are left to workers that have one."""
    begun, go = threading.Event(), threading.Event()

    @kernel.action
    def work() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    add(kernel, "slow", {"id": "a", "action": "work"})
    started = [kernel.start("slow") for _ in range(50)]
    with working(kernel, slots=2) as worker:
        assert begun.wait(PATIENCE)
        threading.Event().wait(0.3)
        assert worker.in_flight <= 4
        go.set()
        until(lambda: all(is_over(kernel, one) for one in started))


def test_executions_that_wait_for_a_thread_for_long_are_given_back(kernel: Kernel) -> None:
    """Another worker drives them, though steps took far less time when they were claimed."""
    stuck, go = threading.Event(), threading.Event()

    @kernel.action
    def work(wait: bool) -> None:
        if not wait:
            time.sleep(0.001)
            return
        stuck.set()
        assert go.wait(3 * PATIENCE)

    add(kernel, "w", {"id": "a", "action": "work", "input": {"wait": "{{ event.payload }}"}})

    def start(*waits: bool) -> list[str]:
        kernel.outbox.pause(ADVANCE)
        ids = [kernel.start("w", wait) for wait in waits]
        kernel.outbox.resume(ADVANCE)
        return ids

    def over(ids: list[str]) -> list[str]:
        return [one for one in ids if is_over(kernel, one)]

    with working(kernel, slots=1) as worker:
        before = start(*[False] * 100)
        until(lambda: over(before) == before)
        held, *others = start(True, *[False] * 20)
        assert stuck.wait(PATIENCE)
        until(lambda: worker.in_flight == 1)
        with working(kernel, slots=1):
            until(lambda: over(others) == others)
        assert not is_over(kernel, held)
        go.set()
        until(lambda: is_over(kernel, held))
    attempts = {run.attempts for one in others for run in see(kernel, one).steps}
    assert attempts == {1}


def test_a_thread_that_is_free_again_is_noticed_at_once(kernel: Kernel) -> None:
    """A step's end makes room, though its execution goes on without a thread."""
    made: list[int] = []

    @kernel.action
    def work() -> None:
        threading.Event().wait(0.3)
        made.append(1)

    @kernel.action
    async def wait() -> None:
        await asyncio.sleep(3600)

    add(kernel, "w", {"id": "a", "action": "work"}, {"id": "b", "action": "wait"})
    started = [kernel.start("w") for _ in range(5)]
    with working(kernel, slots=1, poll_seconds=60.0):
        until(lambda: len(made) == 5)
        for one in started:
            kernel.executions.cancel(one)


def test_room_that_comes_right_after_it_was_looked_for_is_noticed(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claimer that found an engine full, and a moment later not, must not wait for notice."""
    made: list[int] = []
    idle = threading.Event()

    @kernel.action
    def work() -> None:
        made.append(1)

    def waiting(worker: Worker, seconds: float) -> float:
        idle.set()
        return wait(worker, seconds)

    wait = Worker._wait_for_work
    monkeypatch.setattr(Worker, "_wait_for_work", waiting)
    add(kernel, "w", {"id": "a", "action": "work"})
    with working(kernel, poll_seconds=60.0) as worker:
        assert idle.wait(PATIENCE)
        full: Any = next(one for one in worker._pools if isinstance(one, Engine))
        free = full.free

        def full_once() -> int:
            full.free = free
            return 0

        full.free = full_once
        kernel.start("w")
        until(lambda: made)


# -- a database whose reply is lost ----------------------------------------------------------------


def lose_a_reply(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the transaction that begins executions fail once, after it has committed."""
    outbox: Any = kernel.outbox
    begin, insert_claimed = kernel.storage.begin, outbox.insert_claimed
    started: list[int] = []

    def insert(*arguments: Any, **options: Any) -> Any:
        found = insert_claimed(*arguments, **options)
        started.append(threading.get_ident())
        return found

    @contextlib.contextmanager
    def losing(transaction: Any = None, *, atomic: bool = True) -> Iterator[Any]:
        with begin(transaction, atomic=atomic) as rows:
            yield rows
        # Of that thread alone: others end transactions of their own in the same moment.
        if started == [threading.get_ident()] and transaction is None:
            started.append(0)
            raise StorageError("the reply was lost", retryable=True)

    monkeypatch.setattr(outbox, "insert_claimed", insert)
    monkeypatch.setattr(kernel.storage, "begin", losing)


def test_executions_that_began_although_the_reply_was_lost_go_on(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They don't wait for the end of a lease that nobody knows of."""
    made: list[int] = []

    @kernel.action
    def work() -> None:
        made.append(1)

    add(kernel, "fine", {"id": "a", "action": "work"}, trigger={"type": "event", "event": "order"})
    lose_a_reply(kernel, monkeypatch)
    item_id = kernel.emit("order", {})
    with working(kernel):
        until(lambda: kernel.executions.find(status="COMPLETED"))
        until(lambda: item_status(kernel, item_id) is ItemStatus.COMPLETED)
    assert made == [1]


def test_an_execution_that_run_could_not_wait_for_is_free(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker drives what `Kernel.run` began before it failed."""
    made: list[int] = []

    @kernel.action
    def work() -> None:
        made.append(1)

    add(kernel, "fine", {"id": "a", "action": "work"})
    lose_a_reply(kernel, monkeypatch)
    with pytest.raises(StorageError):
        kernel.run("fine")
    kernel.run_until_idle()
    assert made == [1]


def test_the_async_calls_of_an_execution_that_is_given_back_are_cancelled(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it next makes them again, and they must not run twice at once."""
    begun, cancelled = threading.Event(), threading.Event()

    @kernel.action
    def work() -> None:
        assert begun.wait(PATIENCE)

    @kernel.action
    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    checkpoint = kernel.executions.checkpoints.save

    def defect(group: Any) -> Any:
        if not begun.is_set():  # that a call takes long may be saved before it begins
            return checkpoint(group)
        raise RuntimeError("a defect")

    monkeypatch.setattr(kernel.executions.checkpoints, "save", defect)
    steps = [{"id": name, "action": name, "needs": []} for name in ("wait", "work")]
    add(kernel, "w", *steps)
    one = kernel.start("w")
    with working(kernel) as worker:
        assert cancelled.wait(PATIENCE)
        until(lambda: worker.in_flight == 0)
    item = kernel.outbox.get(see(kernel, one).item_id or "")
    assert item is not None
    assert item.status is ItemStatus.RETRY


@pytest.mark.parametrize("inline", [False, True])
def test_what_the_database_refuses_altogether_fails_alone(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    """An error that can't be stored either fails its execution, after a few tries and no more."""
    checkpoint, refusals = kernel.executions.checkpoints.save, 0

    def refuse(group: Any) -> set[str]:
        nonlocal refusals
        if any("odd" in (run.error or "") for save in group for run in save.turn.saves):
            refusals += 1
            raise StorageError("refused", code=ErrorCodes.INVALID_ARGUMENT)
        return checkpoint(group)

    @kernel.action
    def work(n: int) -> None:
        if n == 5:
            raise ValueError("odd")

    monkeypatch.setattr(kernel.executions.checkpoints, "save", refuse)
    step = {"id": "a", "action": "work", "input": {"n": "{{ event.payload.n }}"}}
    add(kernel, "w", {**step, "retry": {"attempts": 1}})
    started = [kernel.start("w", {"n": n}) for n in range(10)]
    if inline:
        kernel.run_until_idle()
    else:
        with working(kernel):
            until(lambda: all(is_over(kernel, one) for one in started))
    failed = [see(kernel, one).status is ExecutionStatus.FAILED for one in started]
    assert failed == [n == 5 for n in range(10)]
    assert refusals <= 10


# -- overruns --------------------------------------------------------------------------------------


def test_the_engine_goes_on_if_no_thread_can_be_started(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that computes for long keeps its thread, which then takes the turns on."""
    start, refused = threading.Thread.start, threading.Event()
    computing = False

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "automate-engine" and computing:
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    @kernel.workflow
    def long(ctx: SyncWorkflowContext) -> None:
        nonlocal computing
        computing = True
        assert refused.wait(PATIENCE)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    add(kernel, "w", {"id": "a", "sleep": "1ms"})
    with working(kernel):
        ids = [kernel.start("long"), kernel.start("w")]
        until(lambda: all(is_over(kernel, one) for one in ids))


def test_what_is_entered_around_an_execution_is_left_when_it_is_handed_back(
    kernel: Kernel,
) -> None:
    """A worker that gives up what runs closes the spans and contexts around it."""
    begun, go = threading.Event(), threading.Event()
    around: list[str] = []

    class Hooks:
        @hookimpl
        @contextlib.contextmanager
        def automate_executing(self, execution: Execution) -> Iterator[None]:
            around.append("entered")
            yield
            around.append("left")

    @kernel.action
    def work() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    kernel.register(Hooks(), "hook", key="around")
    add(kernel, "long", {"id": "a", "action": "work"})
    with working(kernel) as worker:
        one = kernel.start("long")
        assert begun.wait(PATIENCE)
        worker.stop(abandon=True)
        until(lambda: "left" in around)
        go.set()
    assert around == ["entered", "left"]
    assert not is_over(kernel, one)
