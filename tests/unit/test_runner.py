"""Executions under a worker: pauses, parallel steps, lost leases, a database that fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pytest
from workers import handle
from waiting import PATIENCE, Gate, until
from automate_kernel.base import runtime
from automate_kernel import hookimpl, signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.context import handled_item
from automate_kernel.outbox import ItemStatus, RowsOutboxStore
from automate_kernel.outbox.item import new_id
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.worker.handler import stoppable_by
from automate_kernel.worker.periodic import SAVE_SECONDS
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.values import encode_json
from automate_testing.clock import FakeClock
from automate_kernel.workflows.drive.driver import ActiveExecution
from automate_kernel.workflows.drive.engine import Engine
from automate_kernel.workflows.drive.flow import Flow
from automate_kernel.workflows.drive.runner import Runner
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall
from automate_kernel.workflows.execution import Execution, ExecutionStatus, StepStatus
from defined import define, item_of, see

LEASE = 10.0


class Failing:
    """A storage that fails when it is told to, before or after it has committed."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self.failures = 0
        self.after_commit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True) -> Iterator[Any]:
        fails = transaction is None and self.failures > 0
        if fails:
            self.failures -= 1
        if fails and not self.after_commit:
            raise StorageError("the database is down", retryable=False)
        with self._storage.begin(transaction, atomic=atomic) as rows:
            yield rows
        if fails:
            raise StorageError("the reply was lost", retryable=False)


@pytest.fixture
def storage(clock: FakeClock) -> Failing:
    return Failing(MemoryStorage(clock))


@pytest.fixture
def kernel(storage: Failing) -> Iterator[Kernel]:
    with Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE) as kernel:
        yield kernel


def step(step_id: str, **options: Any) -> dict[str, Any]:
    return {"id": step_id, "action": options.pop("action", "do.it"), **options}


def start_worker(kernel: Kernel, **options: Any) -> tuple[Any, threading.Thread]:
    worker = kernel.worker(poll_seconds=0.05, **options)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return worker, thread


def joined(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- pausing ---------------------------------------------------------------------------------------


def test_a_stop_pauses_an_execution_between_two_steps(kernel: Kernel) -> None:
    """The step that runs is finished and saved; the next one is another worker's, and free."""
    begun, go = Gate(), Gate()
    calls = []

    @kernel.action("do.it")
    def do(n: int) -> int:
        calls.append(n)
        if n == 1:
            begun.set()
            go.pass_()
        return n

    define(kernel, *[step(f"s{n}", input={"n": n}) for n in (1, 2, 3)])
    execution_id = kernel.start("w")
    worker, thread = start_worker(kernel)
    begun.pass_()
    worker.stop()
    go.set()
    joined(thread)
    execution = see(kernel, execution_id)
    assert calls == [1]
    assert execution.status is ExecutionStatus.RUNNING
    assert [(run.step_id, run.status) for run in execution.steps] == [("s1", StepStatus.COMPLETED)]
    item = item_of(kernel, execution_id)
    assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)
    kernel.run_until_idle()
    assert calls == [1, 2, 3]
    assert {run.attempts for run in see(kernel, execution_id).steps} == {1}


def test_a_stop_pauses_parallel_work_too(kernel: Kernel) -> None:
    """Of a long for_each, what is in flight is finished, and nothing more of it begins."""
    go = Gate()
    calls: list[int] = []
    both = threading.Barrier(3)

    @kernel.action("do.it")
    def do(n: int) -> int:
        calls.append(n)
        if n < 2:
            both.wait(PATIENCE)
            go.pass_()
        return n

    elements = list(range(50))
    define(kernel, step("a", for_each=elements, concurrency=2, input={"n": "{{ item }}"}))
    execution_id = kernel.start("w")
    worker, thread = start_worker(kernel)
    both.wait(PATIENCE)
    worker.stop()
    go.set()
    joined(thread)
    assert sorted(calls) == [0, 1]
    saved = {run.position: run.status for run in see(kernel, execution_id).steps}
    assert saved == {0: StepStatus.COMPLETED, 1: StepStatus.COMPLETED}
    kernel.run_until_idle()
    assert Counter(calls) == Counter(elements)
    assert see(kernel, execution_id).status is ExecutionStatus.COMPLETED


def test_a_paused_retry_keeps_its_attempts(kernel: Kernel, clock: FakeClock) -> None:
    """A retry that was due when the worker stopped is made later, and was not counted."""
    calls = []

    @kernel.action("do.it")
    def do() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "try later")

    retry = {"attempts": 2, "delay": 5, "jitter": False}
    define(kernel, step("a", retry=retry))
    execution_id = kernel.start("w")
    kernel.run_until_idle()
    clock.advance(5)
    (item,) = kernel.outbox.claim_batch("w")
    with stoppable_by(lambda: True):
        handle(kernel, item)
    (run,) = see(kernel, execution_id).steps
    assert (run.status, run.attempts, len(calls)) == (StepStatus.RETRY, 1, 1)
    kernel.run_until_idle()
    (run,) = see(kernel, execution_id).steps
    assert (run.status, run.attempts) == (StepStatus.COMPLETED, 2)


def test_run_until_idle_inside_a_worker_that_stops(kernel: Kernel) -> None:
    """A stop is for the worker's own executions: what a handler runs itself is run to its end."""

    @kernel.action("do.it")
    def do() -> str:
        return "done"

    define(kernel, step("a"))
    with stoppable_by(lambda: True):
        assert kernel.run("w").status is ExecutionStatus.COMPLETED


# -- parallel steps --------------------------------------------------------------------------------


def test_a_short_retry_beside_a_long_step(kernel: Kernel) -> None:
    """A retry is made when it is due, while another step still runs."""
    retried = Gate()
    attempts = []

    @kernel.action("flaky.do")
    def flaky() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "try later")
        retried.set()

    @kernel.action("do.it")
    def do() -> None:
        retried.pass_()

    retry = {"attempts": 2, "delay": 0.01, "jitter": False}
    define(kernel, step("a", action="flaky.do", retry=retry), step("b", needs=[]))
    assert kernel.run("w").status is ExecutionStatus.COMPLETED


# -- time ------------------------------------------------------------------------------------------


def test_a_step_that_takes_too_long(kernel: Kernel) -> None:
    """Each attempt is bounded by the step's timeout, and may be tried again."""
    go = Gate()
    calls = []

    @kernel.action("do.it")
    async def do() -> str:
        import asyncio

        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "done"

    define(
        kernel,
        # A moment would do, but that the first one ends when it is cancelled, and the second one
        # begins, has the same time: some seconds, as the machine may be busy.
        step("a", timeout=2, retry={"attempts": 50, "delay": 0}),
        output="{{ steps.a.output }}",
    )
    assert kernel.run("w").output == "done"
    go.set()


def test_a_workflow_that_takes_too_long(kernel: Kernel) -> None:
    """A call without a timeout of its own is bounded by what the workflow has left."""
    go, undone = Gate(), []

    @kernel.action("do.it")
    def do() -> None:
        go.wait(PATIENCE)

    @kernel.action("undo.it")
    def undo(code: str) -> None:
        undone.append(code)

    recovery = step("undo", action="undo.it", input={"code": "{{ error.code }}"})
    define(kernel, step("a"), step("b"), timeout=0.05, on_failure=[recovery])
    execution = kernel.run("w")
    go.set()
    assert (execution.status, execution.error_code) == (ExecutionStatus.FAILED, "DEADLINE_EXCEEDED")
    assert "the workflow took longer than its timeout of 50ms" in (execution.error or "")
    assert undone == ["DEADLINE_EXCEEDED"]


def test_a_resumed_execution_has_its_time_again(kernel: Kernel, clock: FakeClock) -> None:
    """The workflow's timeout counts from when it was resumed, not from its first day."""
    broken = [True]

    @kernel.action("do.it")
    def do() -> None:
        if broken[0]:
            raise AutomateError(ErrorCodes.NOT_FOUND, "not yet")

    define(kernel, step("a"), step("b"), timeout=60)
    execution = kernel.run("w")
    assert execution.status is ExecutionStatus.FAILED
    clock.advance(3600)
    broken[0] = False
    assert kernel.executions.resume(execution.id)
    kernel.run_until_idle()
    assert see(kernel, execution.id).status is ExecutionStatus.COMPLETED


# -- leases and steering -----------------------------------------------------------------------------


def test_who_lost_the_execution_calls_nothing_more(
    kernel: Kernel, storage: Failing, clock: FakeClock
) -> None:
    """A worker that was too slow saves nothing, and begins no further step."""
    calls: list[str] = []

    @kernel.action("do.it")
    def do(name: str) -> str:
        calls.append(name)
        if len(calls) == 1:
            other = RowsOutboxStore(storage, lease_seconds=LEASE)
            clock.advance(LEASE + 1)
            other.reap()
            clock.advance(86_400)
            (taken,) = other.claim_batch("another")
            kernel.held = taken  # type: ignore[attr-defined]
        return name

    define(kernel, step("a", input={"name": "a"}), step("b", input={"name": "b"}))
    execution_id = kernel.start("w")
    stats = kernel.run_until_idle()
    assert (calls, stats.lost, stats.completed) == (["a"], 1, 0)
    (run,) = see(kernel, execution_id).steps
    assert (run.status, run.output) == (StepStatus.RUNNING, None)
    kernel.outbox.release([], "another")
    clock.advance(LEASE + 1)
    kernel.outbox.reap()
    clock.advance(86_400)
    kernel.run_until_idle()
    assert calls == ["a", "a", "b"]


def test_a_cancelled_execution_goes_no_further(kernel: Kernel) -> None:
    """A step that runs is not interrupted, but nothing follows it, and its item is done."""
    calls = []

    @kernel.action("do.it")
    def do(execution_id: str) -> None:
        calls.append(1)
        assert kernel.executions.cancel(execution_id)

    given = {"execution_id": "{{ execution.id }}"}
    define(kernel, step("a", input=given), step("b", input=given))
    execution = kernel.run("w")
    assert (execution.status, len(calls)) == (ExecutionStatus.CANCELLED, 1)
    assert item_of(kernel, execution.id).status is ItemStatus.COMPLETED


def test_an_item_of_before_the_resume_drives_nothing(kernel: Kernel) -> None:
    """An old wake-up that is put back to wait leaves the execution to its new one."""
    calls = []

    @kernel.action("do.it")
    def do() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise AutomateError(ErrorCodes.NOT_FOUND, "not yet")

    define(kernel, step("a"))
    execution_id = kernel.start("w")
    (item,) = kernel.outbox.claim_batch("w")
    kernel.outbox.mark_failed(item.id, "w", "BAD")
    kernel.executions.resume(execution_id)
    (new,) = kernel.outbox.claim_batch("another")
    kernel.outbox.requeue([item.id])
    kernel.run_until_idle()
    assert calls == []
    kernel.outbox.release([new.id], "another")
    kernel.run_until_idle()
    assert len(calls) == 1


@pytest.mark.parametrize("style", ["plain", "async", "parallel"])
def test_a_step_that_exits_fails_in_the_end(kernel: Kernel, clock: FakeClock, style: str) -> None:
    """SystemExit in an action ends neither the worker nor the other steps, and is given up."""
    attempts = []

    @kernel.action("exit.plain")
    def leave() -> None:
        attempts.append(1)
        raise SystemExit(3)

    @kernel.action("exit.async")
    async def aleave() -> None:
        attempts.append(1)
        raise SystemExit(3)

    @kernel.action("do.it")
    async def do() -> str:
        return "fine"

    action = "exit.async" if style == "async" else "exit.plain"
    define(kernel, step("a", action=action), *[step("b", needs=[])][: style == "parallel"])
    execution_id = kernel.start("w")
    for _ in range(12):
        kernel.run_until_idle()
        clock.advance(86_400)
    execution = see(kernel, execution_id)
    assert execution.status is ExecutionStatus.FAILED
    assert "SystemExit" in (execution.error or "")
    assert len(attempts) == 1  # as the step's retry policy says, which has one attempt
    assert kernel.invoke("do.it") == "fine"


@pytest.mark.parametrize("why", ["lost", "cancelled", "stop"])
def test_calls_that_wait_for_a_thread_don_t_begin(kernel: Kernel, why: str) -> None:
    """Who may begin nothing more doesn't make the calls either that no thread was free for."""
    begun, go = Gate(), Gate()
    calls: list[int] = []

    @kernel.action("do.it")
    def do(n: int) -> int:
        calls.append(n)
        begun.set()
        go.pass_()
        return n

    elements = list(range(20))
    define(kernel, step("a", for_each=elements, concurrency=20, input={"n": "{{ item }}"}))
    execution_id = kernel.start("w")
    worker, thread = start_worker(kernel, slots=1)
    begun.pass_()
    (task,) = worker._in_flight.tasks.values()
    if why == "stop":
        worker.stop()
    elif why == "lost":
        task.lost = True
        task.stop()
    else:
        assert kernel.executions.cancel(execution_id)
        until(lambda: task.asked)
    go.set()
    until(lambda: not worker.in_flight)
    assert calls == [0]
    worker.stop()
    joined(thread)
    assert calls == [0]
    if why == "stop":
        item = item_of(kernel, execution_id)
        assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)
        kernel.run_until_idle()
        assert sorted(calls) == elements
        execution = see(kernel, execution_id)
        assert execution.status is ExecutionStatus.COMPLETED
        assert {run.attempts for run in execution.steps if run.position >= 0} == {1}


@pytest.mark.parametrize("taken", [True, False])
def test_a_lease_that_ran_out_unnoticed(storage: Failing, taken: bool) -> None:
    """Who was frozen for longer than its lease looks at it before the next call begins."""
    begun, go = Gate(), Gate()
    calls: list[int] = []
    with Kernel(storage, discover=False, secrets={}, lease_seconds=LEASE) as kernel:

        @kernel.action("do.it")
        def do(n: int) -> int:
            calls.append(n)
            begun.set()
            go.pass_()
            return n

        define(kernel, step("a", for_each=[0, 1, 2], concurrency=3, input={"n": "{{ item }}"}))
        execution_id = kernel.start("w")
        worker, thread = start_worker(kernel, slots=1, heartbeat_seconds=3600)
        begun.pass_()
        (task,) = worker._in_flight.tasks.values()
        if taken:
            its = [Where("id", "eq", task.item.id)]
            with storage.begin() as rows:
                rows.update(OUTBOX, its, {"lease_token": new_id(), "lease_owner": "another"})
        task.leased_at -= LEASE + 1
        go.set()
        until(lambda: not worker.in_flight)
        worker.stop()
        joined(thread)
        assert calls == ([0] if taken else [0, 1, 2])
        assert task.lost is taken
        assert see(kernel, execution_id).status.finished is not taken


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_steps_have_the_context_of_their_execution(kernel: Kernel, kind: str) -> None:
    """What a hook around the execution has set, a step sees: in a ``def`` and an ``async def``."""
    driven: ContextVar[str] = ContextVar("driven", default="")
    done = Gate()

    class Around:
        @hookimpl
        @contextmanager
        def automate_executing(self, execution: Execution) -> Iterator[None]:
            token = driven.set(execution.id)
            yield
            driven.reset(token)

    kernel.register(Around(), "hook", key="around")

    @kernel.action("do.plain")
    def plain() -> list[Any]:
        return [driven.get(), handled_item.get() is not None]

    @kernel.action("do.async")
    async def awaited() -> list[Any]:
        return plain()

    define(kernel, step("a", action=f"do.{kind}"), output="{{ steps.a.output }}")

    def note(sender: Any, **_: Any) -> None:
        done.set()

    with signals.workflow_completed.connected_to(note, sender=kernel):
        execution_id = kernel.start("w")
        worker, thread = start_worker(kernel)
        done.pass_()
        worker.stop()
        joined(thread)
    assert see(kernel, execution_id).output == [execution_id, True]


# -- a database that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_result_outlives_a_failing_database(
    kernel: Kernel, storage: Failing, after_commit: bool
) -> None:
    """What a call gave is saved once the database is back, and the call is not made again."""
    calls: list[str] = []

    @kernel.action("do.it")
    def do(name: str) -> str:
        calls.append(name)
        storage.failures, storage.after_commit = 2, after_commit
        return name

    define(
        kernel, *[step(name, input={"name": name}) for name in "abc"], output="{{ steps.b.output }}"
    )
    execution = kernel.run("w", patience=0)
    assert calls == ["a", "b", "c"]
    assert (execution.status, execution.output) == (ExecutionStatus.COMPLETED, "b")


def test_a_database_that_is_down_at_the_wrong_moments(
    kernel: Kernel, storage: Failing, clock: FakeClock
) -> None:
    """Wherever one transaction fails, the execution ends, and no saved step runs again."""
    calls: list[str] = []
    saved: list[str] = []

    @kernel.action("do.it")
    def do(name: str) -> str:
        assert name not in saved
        calls.append(name)
        return name

    def note(sender: Any, step: Any, **_: Any) -> None:
        saved.append(step.step_id)

    define(kernel, *[step(name, input={"name": name}) for name in "abc"])
    begin = storage.begin
    with signals.step_completed.connected_to(note, sender=kernel):
        for moment in range(14):
            calls.clear()
            saved.clear()
            execution_id = kernel.start("w")
            count = [0]

            def failing_once(
                transaction: Any = None,
                *,
                atomic: bool = True,
                count: list[int] = count,
                moment: int = moment,
            ) -> Any:
                count[0] += transaction is None
                storage.failures = int(transaction is None and count[0] == moment)
                return begin(transaction, atomic=atomic)

            storage.begin = failing_once  # type: ignore[method-assign]
            for _ in range(5):
                # The claim or the acknowledgement itself: a worker would try again.
                with suppress(StorageError):
                    kernel.run_until_idle()
                clock.advance(LEASE + 1)
                with suppress(StorageError):
                    kernel.outbox.reap()
                clock.advance(86_400)
            storage.begin = begin  # type: ignore[method-assign]
            assert see(kernel, execution_id).status is ExecutionStatus.COMPLETED, moment
            assert set(calls) == set("abc")


def test_who_can_t_save_begins_nothing_more(
    storage: Failing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that gives up saving gives the execution back, and not its waiting calls to threads."""
    begun, go = Gate(), Gate()
    calls: list[int] = []
    passed, real = [0.0], time.monotonic
    monkeypatch.setattr(runtime, "monotonic", lambda: real() + passed[0])

    with Kernel(storage, discover=False, secrets={}, lease_seconds=400.0) as kernel:

        @kernel.action("do.it")
        def do(n: int) -> int:
            calls.append(n)
            if len(calls) == 1:
                storage.failures = 10**9
            elif len(calls) == 2:
                begun.set()
                go.pass_()
            return n

        elements = list(range(5))
        define(kernel, step("a", for_each=elements, concurrency=5, input={"n": "{{ item }}"}))
        kernel.start("w")
        worker, thread = start_worker(kernel, slots=1)
        begun.pass_()
        (task,) = worker._in_flight.tasks.values()
        until(lambda: "saving executions failed" in caplog.text)
        passed[0] = SAVE_SECONDS + 1
        until(lambda: task.ended)
        storage.failures = 0
        until(lambda: not worker.in_flight)
        (engine,) = (pool for pool in worker._pools if isinstance(pool, Engine))
        go.set()
        until(lambda: not engine._steps.busy)
        worker.stop()
        joined(thread)
        (execution,) = kernel.executions.find()
        assert calls == [0, 1]
        assert item_of(kernel, execution.id).status is ItemStatus.RETRY


def test_two_calls_that_can_not_be_saved_give_the_execution_back_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may notice in the same moment. Counted twice, no timer would ring for the next one."""
    both, forget = threading.Barrier(2), Engine._close

    def fail_together(runner: Runner, flow: Flow, call: StepCall) -> CallOutcome:
        both.wait(PATIENCE)
        raise StorageError("the database is down", retryable=False)

    def forget_together(engine: Engine, driven: ActiveExecution) -> bool:
        if threading.current_thread().name.startswith("automate-step"):
            both.wait(PATIENCE)
        return forget(engine, driven)

    @kernel.action("do.it")
    def do() -> None:
        """It isn't even called."""

    monkeypatch.setattr(Runner, "perform", fail_together)
    monkeypatch.setattr(Engine, "_close", forget_together)
    define(kernel, step("a", for_each=[1, 2], concurrency=2))
    kernel.start("w")
    worker, thread = start_worker(kernel)
    until(lambda: worker.stats.retried and not worker.in_flight)
    worker.stop()
    joined(thread)
    assert (worker.stats.retried, worker.stats.lost) == (1, 0)


def test_an_output_is_encoded_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked as storable is stored as it is, however large it is."""
    from automate_kernel.operations import outputs
    from automate_kernel.workflows.store import checkpoints

    encoded: list[Any] = []

    def noting(value: Any, *args: Any, **options: Any) -> Any:
        encoded.append(value)
        return encode_json(value, *args, **options)

    monkeypatch.setattr(checkpoints, "encode_json", noting)
    monkeypatch.setattr(outputs, "encode_json", noting)
    kernel.action("do.it")(lambda: ["once"])
    define(kernel, step("a"))
    execution = kernel.run("w")
    assert execution.runs_of("a")[0].output == ["once"]
    assert encoded.count(["once"]) == 1


def test_an_inline_run_begins_nothing_after_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews its lease while a step runs: what is another's by now is not gone on with."""
    kernel, gate = Kernel(discover=False, lease_seconds=60.0), Gate()
    passed, real = [0.0], time.monotonic
    monkeypatch.setattr(runtime, "monotonic", lambda: real() + passed[0])
    calls: list[str] = []
    failed = Gate()

    @kernel.action("wait.long")
    def wait_long() -> None:
        if not gate.is_set():
            gate.pass_()

    @kernel.action("fail.once")
    def fail_once() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            failed.set()
            raise ConnectionError("down")

    def take_over() -> None:
        failed.pass_()
        (one,) = kernel.executions.find()
        until(lambda: kernel.executions.failed_attempts(one.id))
        # At once: what is saved before has the lease of then, and what is saved later has none.
        with kernel.storage.begin() as rows:
            if len(calls) == 1:
                passed[0] = 61.0
                rows.update(OUTBOX, [], {"lease_expires_at": Now(-1)})
                kernel.outbox.reap()
        # The time of the retry comes.
        for _ in range(30):
            if len(calls) == 1:
                taken.wait(0.02)
        gate.set()

    taken = threading.Event()
    define(
        kernel,
        {"id": "long", "action": "wait.long"},
        {
            "id": "again",
            "action": "fail.once",
            "needs": [],
            "retry": {"attempts": 5, "delay": "500ms", "jitter": False},
        },
    )
    thread = threading.Thread(target=take_over, daemon=True)
    thread.start()
    execution = kernel.run("w", patience=120.0)
    thread.join(PATIENCE)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert len(calls) == 2, "who had lost the execution made a call"
    kernel.close()


def test_steps_without_needs_run_beside_each_other(kernel: Kernel) -> None:
    """Two steps that wait for each other both end."""
    together = threading.Barrier(2)

    @kernel.action("do.it")
    def do() -> None:
        together.wait(PATIENCE)

    define(kernel, step("a"), step("b", needs=[]))
    assert kernel.run("w").status is ExecutionStatus.COMPLETED
