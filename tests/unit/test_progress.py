"""Progress of calls: seen while they run, known to the next attempt, and no burden to anybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from machines import no_more_threads
from waiting import PATIENCE, Gate, until
from workers import working
import sqlalchemy as sa
from automate_kernel import Call, Kernel, WorkflowContext, current_call
from automate_kernel.base.errors import PayloadError
from automate_kernel.operations.context import calling
from automate_kernel.outbox.item import new_id
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import EXECUTION, OUTBOX, STEP
from automate_kernel.workflows.drive import progress
from automate_kernel.workflows.execution import ExecutionStatus, StepRun, StepStatus
from automate_sqlalchemy import SqlAlchemyStorage

pytestmark = pytest.mark.any_storage

KINDS = ("def", "async def")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={"KEY": "s3cr3t-value-of-the-key"}) as kernel:
        yield kernel


def add(kernel: Kernel, *steps: dict[str, Any], **more: Any) -> None:
    more.setdefault("trigger", {"type": "manual"})
    kernel.add_workflow({"name": "flow", "steps": list(steps), **more})


STEP_A = {"id": "a", "action": "work"}
AGAIN = {**STEP_A, "retry": {"attempts": 2, "delay": 0}}


def run_of(kernel: Kernel, execution_id: str) -> StepRun | None:
    found = kernel.executions.get(execution_id)
    return found and found.step("a")


def seen(kernel: Kernel, execution_id: str) -> Any:
    run = run_of(kernel, execution_id)
    return run and run.progress


def reporting(kernel: Kernel, kind: str, work: Callable[[Call], Any]) -> None:
    """Make *work* the action, as a plain function or an asynchronous one."""
    if kind == "def":

        @kernel.action("work")
        def plain() -> Any:
            call = current_call()
            assert call is not None
            return work(call)

    else:

        @kernel.action("work")
        async def later(call: Call) -> Any:
            return await asyncio.to_thread(work, call)


# -- while it runs ---------------------------------------------------------------------------------


@pytest.mark.every_storage
def test_a_row_that_comes_in_the_moment_of_the_report(
    postgresql_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine saves that a call runs while its first report is being written."""
    real, storage = progress._row, SqlAlchemyStorage(postgresql_engine)
    go_on = Gate()

    def row_of(report: progress.StepReport) -> dict[str, Any]:
        row = real(report)
        with storage.begin() as rows:
            rows.insert(STEP, [{**row, "id": new_id(), "progress": None}])
        return row

    def work(call: Call) -> None:
        call.progress(0.25)
        go_on.pass_()

    # It never saves so itself.
    monkeypatch.setattr("automate_kernel.workflows.drive.driver.SEEN_SECONDS", 600.0)
    monkeypatch.setattr(progress, "_row", row_of)
    with Kernel(storage, discover=False, secrets={}) as kernel:
        reporting(kernel, "def", work)
        add(kernel, STEP_A)
        with working(kernel):
            one = kernel.start("flow")
            until(lambda: seen(kernel, one) == {"value": 0.25, "message": None})
            go_on.set()
            until(lambda: kernel.executions.get(one).status is ExecutionStatus.COMPLETED)


@pytest.mark.every_storage
@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_seen_while_the_call_runs(storage: Storage, kind: str) -> None:
    go_on, end = Gate(), Gate()

    def work(call: Call) -> str:
        call.progress(0.25, "page 1 of 4")
        go_on.pass_()
        call.progress({"page": 2})
        end.pass_()
        return "done"

    with Kernel(storage, discover=False, secrets={}) as kernel:
        reporting(kernel, kind, work)
        add(kernel, STEP_A)
        with working(kernel):
            one = kernel.start("flow")
            until(lambda: seen(kernel, one) == {"value": 0.25, "message": "page 1 of 4"})
            run = run_of(kernel, one)
            assert run is not None and (run.status, run.attempts) == (StepStatus.RUNNING, 1)
            go_on.set()
            until(lambda: seen(kernel, one) == {"value": {"page": 2}, "message": None})
            end.set()
            until(lambda: kernel.executions.get(one).status.finished)  # type: ignore[union-attr]
        run = run_of(kernel, one)
    assert run is not None
    assert (run.status, run.output, run.attempts) == (StepStatus.COMPLETED, "done", 1)
    assert run.progress == {"value": {"page": 2}, "message": None}


@pytest.mark.every_storage
def test_a_machine_without_threads_shows_the_next_report(kernel: Kernel) -> None:
    """And the call that reports does not fail for it."""
    end = Gate()

    def work(call: Call) -> None:
        with no_more_threads("automate-progress"):
            call.progress(1)
        call.progress(2)
        end.pass_()

    reporting(kernel, "def", work)
    add(kernel, STEP_A)
    with working(kernel):
        one = kernel.start("flow")
        until(lambda: seen(kernel, one) == {"value": 2, "message": None})
        end.set()
        until(lambda: kernel.executions.get(one).status is ExecutionStatus.COMPLETED)  # type: ignore[union-attr]


def test_a_run_in_this_thread_shows_it_too(storage: Storage) -> None:
    """There nothing else writes that the step runs."""
    found: list[StepRun | None] = []

    with Kernel(storage, discover=False, secrets={}) as kernel:

        @kernel.action
        def work(call: Call) -> None:
            if slow:
                call.progress(1)
                until(lambda: seen(kernel, call.execution_id or ""))
                found.append(run_of(kernel, call.execution_id or ""))

        add(kernel, STEP_A)
        slow = False
        kernel.run("flow")  # it is known as quick from here on, and has no row while it runs
        slow = True
        done = kernel.run("flow")
    (run,) = found
    assert run is not None and (run.status, run.attempts) == (StepStatus.RUNNING, 1)
    assert run.started_at is not None
    assert done.status is ExecutionStatus.COMPLETED and done.steps[0].attempts == 1


def test_elements_report_each_for_itself(kernel: Kernel) -> None:
    @kernel.action
    def work(n: int) -> None:
        current_call().progress(n)  # type: ignore[union-attr]

    add(
        kernel,
        {**STEP_A, "for_each": [1, 2, 3], "concurrency": 3, "input": {"n": "{{ item }}"}},
    )
    done = kernel.run("flow")
    found = kernel.executions.get(done.id)
    assert found is not None
    values = [run.progress["value"] for run in found.runs_of("a") if run.position >= 0]
    assert values == [1, 2, 3]


def test_thousands_of_reports_are_few_writes(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save = progress.ProgressWriter._save

    def counting(self: Any, rows: Any, reports: Any) -> None:
        written.append(len(reports))
        save(self, rows, reports)

    monkeypatch.setattr(progress.ProgressWriter, "_save", counting)
    # One more for each second that a busy machine takes says nothing.
    monkeypatch.setattr(progress, "SECONDS", PATIENCE)

    @kernel.action
    def work() -> None:
        for n in range(10_000):
            current_call().progress(n)  # type: ignore[union-attr]

    add(kernel, STEP_A)
    done = kernel.run("flow")
    assert seen(kernel, done.id) == {"value": 9_999, "message": None}, "the last is not lost"
    assert 1 <= len(written) <= 5


def test_who_reports_nothing_costs_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.ProgressWriter, "_save", None)
    kernel.action("work")(lambda: None)
    add(kernel, STEP_A)
    done = kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED and done.steps[0].progress is None


# -- the next attempt ------------------------------------------------------------------------------


@pytest.mark.every_storage
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("worker", [False, True])
def test_a_retry_goes_on_from_the_last_progress(kernel: Kernel, kind: str, worker: bool) -> None:
    known: list[Any] = []

    def work(call: Call) -> None:
        known.append(call.last_progress)
        call.progress({"cursor": 40 + call.attempt})
        if call.attempt < 2:
            raise ConnectionError("gone")

    reporting(kernel, kind, work)
    add(kernel, AGAIN)
    if worker:
        with working(kernel):
            one = kernel.start("flow")
            until(lambda: kernel.executions.get(one).status.finished)  # type: ignore[union-attr]
    else:
        one = kernel.run("flow").id
    assert known == [None, {"cursor": 41}]
    assert seen(kernel, one)["value"] == {"cursor": 42}


@pytest.mark.every_storage
def test_what_is_reported_last_is_there_when_the_step_has_ended() -> None:
    """Though the thread that writes once in a second has it in hand, and comes to it later."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(MemoryStorage):
        def begin(self, transaction: Any = None, *, atomic: bool = True) -> Any:
            if threading.current_thread().name == "automate-progress":
                begun.set()
                assert go_on.wait(30)
            return super().begin(transaction, atomic=atomic)

    with Kernel(Slow(), discover=False, secrets={}) as kernel:

        @kernel.action
        def work(call: Call) -> None:
            call.progress("the last")
            assert begun.wait(30)

        add(kernel, STEP_A)
        try:
            assert seen(kernel, kernel.run("flow").id)["value"] == "the last"
        finally:
            go_on.set()


def test_another_worker_knows_what_a_dead_one_reported(storage: Storage) -> None:
    """The row of a step that ran has its progress, whatever became of its worker."""
    known: list[Any] = []

    with Kernel(storage, discover=False, secrets={}) as kernel:

        @kernel.action
        def work(call: Call) -> None:
            known.append(call.last_progress)
            call.progress(len(known))
            if len(known) == 1:
                until(lambda: seen(kernel, call.execution_id or ""))
                raise KeyboardInterrupt  # in this thread it ends the program

        add(kernel, {**STEP_A, "retry": {"attempts": 3}})
        with pytest.raises(KeyboardInterrupt):
            kernel.run("flow")
        (one,) = kernel.executions.find()
        run = run_of(kernel, one.id)
        assert run is not None and run.status is StepStatus.RUNNING
        with kernel.storage.begin() as rows:
            rows.update(
                OUTBOX, [Where("id", "eq", one.item_id)],
                {"status": "RETRY", "waiting_for": "worker", "lease_token": None,
                 "lease_expires_at": None, "lease_owner": None},
            )  # fmt: skip
        kernel.run_until_idle()
    assert known == [None, 1]


# -- what must not happen --------------------------------------------------------------------------


def test_secrets_are_taken_out(kernel: Kernel) -> None:
    @kernel.action
    def work(key: str, call: Call) -> None:
        call.progress({"key": key}, f"with {key}")

    add(kernel, {**STEP_A, "input": {"key": "$secret:KEY"}})
    done = kernel.run("flow")
    assert seen(kernel, done.id) is not None and "s3cr3t" not in str(seen(kernel, done.id))


@pytest.mark.parametrize("value", [object(), "x" * 4_001, float("nan"), {1: 2}])
def test_what_can_not_be_stored_is_refused(kernel: Kernel, value: Any) -> None:
    raised: list[PayloadError] = []

    @kernel.action
    def work(call: Call) -> None:
        with pytest.raises(PayloadError) as error:
            call.progress(value)
        raised.append(error.value)

    add(kernel, STEP_A)
    done = kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED
    assert "progress" in raised[0].message and seen(kernel, done.id) is None


def test_a_lost_claim_writes_nothing(storage: Storage) -> None:
    """Another worker has the execution by now: its progress counts."""
    with Kernel(storage, discover=False, secrets={}) as kernel:

        @kernel.action
        def work(call: Call) -> None:
            with kernel.storage.begin() as rows:
                ours = [Where("status", "eq", "RUNNING")]
                rows.update(OUTBOX, ours, {"lease_token": "01890000-0000-7000-8000-00000000dead"})
            call.progress(1)

        add(kernel, STEP_A)
        kernel.start("flow")
        kernel.run_until_idle()
        with kernel.storage.begin() as rows:
            assert [row["progress"] for row in rows.select(STEP)] == [None]


def test_a_cancelled_execution_gets_no_row_that_runs(storage: Storage) -> None:
    with Kernel(storage, discover=False, secrets={}) as kernel:

        @kernel.action
        def work(call: Call) -> None:
            if cancels:
                kernel.executions.cancel(call.execution_id or "")
                call.progress(1)

        add(kernel, STEP_A)
        cancels = False
        kernel.run("flow")
        cancels = True
        one = kernel.start("flow")
        kernel.run_until_idle()
        with kernel.storage.begin() as rows:
            (row,) = rows.select(EXECUTION, [Where("id", "eq", one)])
            runs = rows.select(STEP, [Where("execution_id", "eq", one)])
    assert row["status"] == "CANCELLED"
    assert "RUNNING" not in [run["status"] for run in runs]


def test_a_database_that_fails_does_not_fail_the_call(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such column")

    monkeypatch.setattr(progress.ProgressWriter, "_save", fail)

    @kernel.action
    def work(call: Call) -> None:
        call.progress(1)

    add(kernel, STEP_A)
    assert kernel.run("flow").status is ExecutionStatus.COMPLETED
    assert "can't be written" in caplog.text


def test_a_transactional_step_may_report(sqlite_engine: sa.Engine) -> None:
    storage = SqlAlchemyStorage(sqlite_engine)
    with Kernel(storage, discover=False, secrets={}) as kernel:

        @kernel.action(transactional=True)
        def work(call: Call) -> str:
            call.progress(1)
            return "written"

        add(kernel, STEP_A)
        done = kernel.run("flow")
    assert done.status is ExecutionStatus.COMPLETED


def test_outside_a_workflow_nothing_happens(kernel: Kernel) -> None:
    @kernel.action
    def work(call: Call) -> list[Any]:
        call.progress(1)
        return [call.last_progress, call.cancelled]

    assert kernel.invoke("work") == [None, False]
    with calling(Call("work")) as call:
        call.progress(object())


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.every_storage
@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_a_plain_call_hears_that_it_should_stop(kernel: Kernel, how: str) -> None:
    began, heard = Gate(), Gate()

    @kernel.action
    def work(call: Call) -> None:
        assert not call.cancelled
        began.set()
        until(lambda: call.cancelled)
        heard.set()

    add(kernel, STEP_A)
    with working(kernel) as worker:
        one = kernel.start("flow")
        began.pass_()
        if how == "cancel":
            kernel.executions.cancel(one)
        else:
            worker.stop()
        heard.pass_()


@pytest.mark.every_storage
@pytest.mark.parametrize("kind", ["def", "async def", "transactional"])
@pytest.mark.parametrize("in_code", [False, True], ids=["definition", "code"])
def test_a_call_that_gives_up_for_a_stop_has_not_failed(
    kernel: Kernel, kind: str, in_code: bool
) -> None:
    """The next worker makes it again, with what it had reported: its only attempt is not spent."""
    began, reports = Gate(), list[Any]()

    def at_work(call: Call) -> bool:
        reports.append(call.last_progress)
        call.progress("half")
        began.set()
        return len(reports) == 1

    def work(call: Call) -> str:
        if at_work(call):
            until(lambda: call.cancelled)
            raise ValueError("stopped half-way")
        return "done"

    async def work_async(call: Call) -> str:
        if at_work(call):
            while not call.cancelled:
                await asyncio.sleep(0.001)
            raise ValueError("stopped half-way")
        return "done"

    given = work_async if kind == "async def" else work
    kernel.action("work", transactional=kind == "transactional")(given)

    @kernel.workflow
    async def coded(ctx: WorkflowContext) -> Any:
        return await ctx.call("work")

    add(kernel, STEP_A)
    with working(kernel) as worker:
        one = kernel.start(coded if in_code else "flow")
        began.pass_()
        worker.stop()
    left = kernel.executions.get(one)
    assert left is not None and left.error is None and not left.status.finished
    kernel.run_until_idle()
    done = kernel.executions.get(one)
    assert done is not None and done.status is ExecutionStatus.COMPLETED
    assert [run.attempts for run in done.steps] == [1]
    assert kernel.executions.failed_attempts(one) == []
    assert reports == [None, None if kind == "transactional" else "half"]


@pytest.mark.every_storage
def test_a_call_that_fails_by_itself_while_its_worker_stops_has_failed(kernel: Kernel) -> None:
    began, stopped = Gate(), Gate()

    @kernel.action
    def work(call: Call) -> None:
        began.set()
        stopped.pass_()
        raise ValueError("it has not looked")

    add(kernel, STEP_A)
    with working(kernel) as worker:
        one = kernel.start("flow")
        began.pass_()
        worker.stop()
        stopped.set()
    kernel.run_until_idle()
    done = kernel.executions.get(one)
    assert done is not None and done.status is ExecutionStatus.FAILED
    assert "it has not looked" in str(done.error)


@pytest.mark.every_storage
def test_an_attempt_that_took_too_long_hears_it(kernel: Kernel) -> None:
    heard = Gate()

    @kernel.action
    def work(call: Call) -> None:
        until(lambda: call.cancelled)
        call.progress("too late")
        heard.set()

    add(kernel, {**STEP_A, "timeout": 0.05})
    done = kernel.run("flow")
    heard.pass_()
    assert (done.status, done.error_code) == (ExecutionStatus.FAILED, "DEADLINE_EXCEEDED")
    assert seen(kernel, done.id) is None
