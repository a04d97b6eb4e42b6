"""Attempts of steps: each is kept with its beginning, its duration, its worker and its error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from waiting import PATIENCE, Gate, until
from workers import working
from automate_kernel import AutomateError, Call, ErrorCodes, Kernel
from automate_kernel.outbox import OutboxItem
from automate_kernel.outbox.failed_attempts import FailedAttempt
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.checkpoint import Saved
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.query import Now
from automate_kernel.storage.tables import OUTBOX
from automate_testing.clock import FakeClock
from automate_sqlalchemy import SqlAlchemyStorage
from automate_kernel.workflows.steer.attempts import StepAttempt, step_attempts
from automate_kernel.workflows.code import WorkflowContext
from automate_kernel.workflows.drive import driver
from automate_kernel.workflows.store.checkpoints import Checkpoints, Save
from automate_kernel.workflows.drive.runner import Runner
from automate_kernel.workflows.execution import StepRun, StepStatus

pytestmark = pytest.mark.any_storage


@pytest.fixture
def kernel(storage: Storage) -> Iterator[Kernel]:
    with Kernel(storage, discover=False, secrets={}) as kernel:
        yield kernel


def add(kernel: Kernel, *steps: dict[str, Any]) -> None:
    kernel.add_workflow({"name": "flow", "trigger": {"type": "manual"}, "steps": list(steps)})


def brief(attempts: list[StepAttempt]) -> list[tuple[str, int, str, str | None]]:
    return [(each.step_id, each.attempt, each.status, each.error_code) for each in attempts]


def flaky(kernel: Kernel, failures: int) -> None:
    @kernel.action("work")
    def work(call: Call) -> int:
        if call.attempt <= failures:
            raise ConnectionError("the shop hung up")
        return call.attempt


@pytest.mark.every_storage
def test_all_attempts_are_kept(kernel: Kernel) -> None:
    """Those that failed and the one that did not, in their order."""
    flaky(kernel, 2)
    retry = {"attempts": 3, "delay": 0}
    add(kernel, {"id": "a", "action": "work", "retry": retry}, {"id": "b", "action": "work",
        "on_failure": "continue"})  # fmt: skip
    with working(kernel):
        one = kernel.start("flow")
        until(lambda: kernel.executions.get(one).status.finished)  # type: ignore[union-attr]
    attempts = kernel.executions.attempts(one)
    assert brief(attempts) == [
        ("a", 1, "FAILED", "UNAVAILABLE"),
        ("a", 2, "FAILED", "UNAVAILABLE"),
        ("a", 3, "COMPLETED", None),
        ("b", 1, "FAILED", "UNAVAILABLE"),
    ]
    assert len({each.worker_id for each in attempts}) == 1
    assert attempts[0].worker_id
    assert attempts[0].error is not None
    assert "the shop hung up" in attempts[0].error
    for each in attempts:
        assert each.started_at is not None
        assert each.duration_seconds is not None
        assert 0 <= each.duration_seconds < 60


def test_a_call_that_runs_has_a_worker_and_a_beginning(kernel: Kernel) -> None:
    seen: list[StepAttempt] = []

    @kernel.action("work")
    def work(call: Call) -> None:
        call.progress(1)
        until(lambda: kernel.executions.attempts(call.execution_id or ""))
        seen.extend(kernel.executions.attempts(call.execution_id or ""))

    add(kernel, {"id": "a", "action": "work"})
    kernel.run("flow")
    (running,) = seen
    assert (running.attempt, running.status, running.ended_at) == (1, "RUNNING", None)
    assert running.worker_id
    assert running.started_at is not None


def test_an_attempt_that_is_lost_with_its_worker_is_kept() -> None:
    """Each recovery notes the one that was in flight."""
    clock = FakeClock()
    with Kernel(MemoryStorage(clock), discover=False, secrets={}) as kernel:
        flaky(kernel, 1)
        add(kernel, {"id": "a", "action": "work", "retry": {"attempts": 3, "delay": 0}})
        one = kernel.start("flow")
        (item,) = kernel.outbox.claim_batch("worker-that-dies")
        assert item.payload == {"execution_id": one}
        clock.advance(kernel.outbox.lease_seconds + 1)
        kernel.outbox.reap()
        clock.advance(60)
        kernel.run_until_idle()
        # The clock stands still, and so can't tell which was earlier.
        assert sorted(brief(kernel.executions.attempts(one))) == [
            ("a", 1, "FAILED", "LEASE_EXPIRED"),
            ("a", 2, "COMPLETED", None),
        ]


def test_a_resumed_execution_keeps_those_of_before(kernel: Kernel) -> None:
    broken = [True]

    @kernel.action("work")
    def work() -> None:
        if broken.pop():
            raise ValueError("no")

    add(kernel, {"id": "a", "action": "work"})
    one = kernel.run("flow").id
    broken.append(False)
    kernel.executions.resume(one)
    kernel.run_until_idle()
    assert [each[1:3] for each in brief(kernel.executions.attempts(one))] == [
        (1, "FAILED"),
        (1, "COMPLETED"),
    ]


# -- calls that may have been made before ----------------------------------------------------------


def recording(kernel: Kernel, *actions: str) -> list[tuple[str | None, int, bool]]:
    """Add *actions* that fail at their first call; return the list of all calls."""
    calls: list[tuple[str | None, int, bool]] = []

    def record(call: Call) -> None:
        known = [step_id for step_id, _, _ in calls]
        calls.append((call.step_id, call.attempt, call.repeated))
        if call.step_id not in known:
            raise ConnectionError("the shop hung up")

    for each in actions:
        kernel.action(each)(record)
    return calls


def test_a_failed_attempt_may_be_repeated(kernel: Kernel) -> None:
    calls = recording(kernel, "work")
    add(kernel, {"id": "a", "action": "work", "retry": {"attempts": 2, "delay": 0}})
    kernel.run("flow")
    assert calls == [("a", 1, False), ("a", 2, True)]


@pytest.mark.parametrize("how", ["resume", "resume from", "retry"])
def test_a_resumed_step_may_be_repeated_though_its_attempts_begin_anew(
    kernel: Kernel, how: str
) -> None:
    """It has the idempotency key of before: who looks for what was made must look now."""
    calls = recording(kernel, "work")
    add(kernel, {"id": "a", "action": "work"})
    one = kernel.run("flow").id
    if how == "retry":
        kernel.executions.retry_step(one, "a")
    else:
        kernel.executions.resume(one, step_id="a" if how == "resume from" else None)
    kernel.run_until_idle()
    assert calls == [("a", 1, False), ("a", 1, True)]


def test_a_sub_workflow_that_goes_on_with_its_parent_may_repeat_its_calls(kernel: Kernel) -> None:
    calls = recording(kernel, "work")
    add(kernel, {"id": "a", "action": "work"})
    child = {"id": "child", "workflow": "flow"}
    kernel.add_workflow({"name": "parent", "trigger": {"type": "manual"}, "steps": [child]})
    one = kernel.run("parent").id
    kernel.executions.resume(one)
    kernel.run_until_idle()
    assert calls == [("a", 1, False), ("a", 1, True)]


@pytest.mark.every_storage
def test_a_call_that_a_worker_gave_back_may_be_repeated(kernel: Kernel) -> None:
    """Its worker was stopped, which spends no attempt; what came after it is new."""
    calls: list[tuple[str | None, int, bool]] = []

    @kernel.action("work")
    async def work(call: Call) -> None:
        calls.append((call.step_id, call.attempt, call.repeated))
        if len(calls) == 1:
            await asyncio.sleep(PATIENCE * 10)

    add(kernel, {"id": "a", "action": "work"}, {"id": "b", "action": "work"})
    with working(kernel, grace_seconds=0.0):
        one = kernel.start("flow")
        until(lambda: calls and kernel.executions.attempts(one))
    kernel.run_until_idle()
    assert calls == [("a", 1, False), ("a", 1, True), ("b", 1, False)]


def test_a_requeued_execution_may_repeat_its_calls(kernel: Kernel) -> None:
    """Its worker died in one of them, again and again; the item that drives it is the same."""
    calls = recording(kernel, "work")
    add(kernel, {"id": "a", "action": "work"})
    found = kernel.executions.get(kernel.start("flow"))
    assert found is not None and found.item_id is not None
    for _ in range(20):
        kernel.outbox.claim_batch("died", 1)
        with kernel.storage.begin() as rows:
            rows.update(OUTBOX, [], {"lease_expires_at": Now(-1), "next_attempt_at": Now(-1)})
        kernel.outbox.reap()
    assert kernel.outbox.requeue([found.item_id]) == 1
    kernel.run_until_idle()
    assert calls == [("a", 1, True)]


def ends_well(kernel: Kernel, one: str) -> None:
    """Let another worker go on, which brings the execution to its end."""
    kernel.run_until_idle()
    done = kernel.executions.get(one)
    assert done is not None and done.status == "COMPLETED"


LEAVING: list[tuple[str, float]] = [
    ("def", PATIENCE), ("def", 0.0), ("async def", PATIENCE), ("async def", 0.0),
    ("transactional", PATIENCE), ("deaf def", 0.0), ("deaf async def", 0.0),
]  # fmt: skip


@pytest.mark.every_storage
@pytest.mark.parametrize(("kind", "grace"), LEAVING)
@pytest.mark.parametrize("in_code", [False, True], ids=["definition", "code"])
def test_a_call_that_was_given_back_at_once_may_be_repeated(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, kind: str, grace: float, in_code: bool
) -> None:
    """Before anybody has seen that it runs: it may have had its effect."""
    monkeypatch.setattr(driver, "SEEN_SECONDS", PATIENCE * 100)
    calls: list[tuple[int, bool]] = []
    began, over = Gate(), Gate()

    def noted(call: Call) -> bool:
        calls.append((call.attempt, call.repeated))
        began.set()
        return len(calls) == 1

    def work(call: Call) -> None:
        if noted(call):
            until(lambda: over.is_set() if kind == "deaf def" else call.cancelled)
            raise ValueError("stopped half-way")

    async def work_async(call: Call) -> None:
        if noted(call):
            while kind == "deaf async def" or not call.cancelled:
                await asyncio.sleep(0.001)
            raise ValueError("stopped half-way")

    given = work_async if kind.endswith("async def") else work
    kernel.action("work", transactional=kind == "transactional")(given)

    @kernel.workflow
    async def coded(ctx: WorkflowContext) -> None:
        await ctx.call("work")

    add(kernel, {"id": "a", "action": "work"})
    with working(kernel, grace_seconds=grace) as worker:
        one = kernel.start(coded if in_code else "flow")
        began.pass_()
        worker.stop()
    ends_well(kernel, one)
    over.set()
    assert calls == [(1, False), (1, True)]


@pytest.mark.every_storage
def test_one_that_was_given_back_beside_another_may_be_repeated(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is left behind when the time of its worker is over."""
    monkeypatch.setattr(driver, "SEEN_SECONDS", PATIENCE * 100)
    calls: list[tuple[str | None, int, bool]] = []
    began, over = [Gate(), Gate()], Gate()

    @kernel.action
    def heed(call: Call) -> None:
        calls.append((call.step_id, call.attempt, call.repeated))
        if len(calls) <= 2:
            began[0].set()
            until(lambda: call.cancelled)
            raise ValueError("stopped half-way")

    @kernel.action
    def go_on(call: Call) -> None:
        calls.append((call.step_id, call.attempt, call.repeated))
        if len(calls) <= 2:
            began[1].set()
            over.pass_()

    add(kernel, {"id": "a", "action": "heed"}, {"id": "b", "action": "go_on", "needs": []})
    with working(kernel, grace_seconds=0.2) as worker:
        one = kernel.start("flow")
        for each in began:
            each.pass_()
        worker.stop()
    ends_well(kernel, one)
    over.set()
    assert sorted(calls[:2]) == [("a", 1, False), ("b", 1, False)]
    assert sorted(calls[2:]) == [("a", 1, True), ("b", 1, True)]


@pytest.mark.every_storage
def test_a_call_that_ended_and_was_not_saved_may_be_repeated(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database was slow as the worker's time was over."""
    monkeypatch.setattr(driver, "SEEN_SECONDS", PATIENCE * 100)
    calls: list[tuple[int, bool]] = []
    saves, over, save = Gate(), Gate(), Checkpoints.save

    def slow(self: Checkpoints, group: Sequence[Save], **options: Any) -> Any:
        if len(calls) == 1 and any(one.turn.saves for one in group) and not over.is_set():
            saves.set()
            over.pass_()
        return save(self, group, **options)

    monkeypatch.setattr(Checkpoints, "save", slow)

    @kernel.action
    def work(call: Call) -> None:
        calls.append((call.attempt, call.repeated))

    add(kernel, {"id": "a", "action": "work"})
    one = kernel.start("flow")
    worker = kernel.worker(grace_seconds=0.0, poll_seconds=0.01)
    running = threading.Thread(target=worker.run, daemon=True)
    running.start()
    saves.pass_()
    worker.stop()
    found = kernel.executions.get(one)
    assert found is not None and found.item_id is not None
    item_id = found.item_id
    until(lambda: kernel.outbox.get(item_id).status == "PENDING")  # type: ignore[union-attr]
    kernel.run_until_idle()
    over.set()
    running.join(PATIENCE)
    done = kernel.executions.get(one)
    assert done is not None and done.status == "COMPLETED"
    assert calls == [(1, False), (1, True)]


@pytest.mark.every_storage
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_call_that_was_given_back_after_a_death_spends_no_attempt(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    """Those that killed a worker count, the one that was given back does not."""
    monkeypatch.setattr(driver, "SEEN_SECONDS", PATIENCE * 100)
    calls: list[int] = []
    began, over = Gate(), Gate()

    @kernel.action
    def work(call: Call) -> None:
        calls.append(call.attempt)
        began.set()
        if len(calls) == 1:
            over.pass_()

    add(kernel, {"id": "a", "action": "work", "retry": {"attempts": deaths + 1, "delay": 0}})
    one = kernel.start("flow")
    for _ in range(deaths):
        kernel.outbox.claim_batch("died", 1)
        with kernel.storage.begin() as rows:
            rows.update(OUTBOX, [], {"lease_expires_at": Now(-1)})
        kernel.outbox.reap()
        with kernel.storage.begin() as rows:
            rows.update(OUTBOX, [], {"next_attempt_at": Now(-1)})
    with working(kernel, grace_seconds=0.0) as worker:
        began.pass_()
        worker.stop()
    ends_well(kernel, one)
    over.set()
    assert calls == [deaths + 1] * 2


@pytest.mark.every_storage
def test_an_execution_of_which_nothing_can_be_saved_keeps_no_other_item(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs out, which counts; what else the worker holds is handed back."""
    began, over = [Gate(), Gate()], Gate()

    def locked(self: Runner, calls: Any) -> None:
        raise LockedError("somebody holds its row")

    monkeypatch.setattr(Runner, "show", locked)

    @kernel.action
    def work() -> None:
        began[0].set()
        over.pass_()

    @kernel.handler("plain")
    def handle(item: OutboxItem) -> None:
        began[1].set()
        over.pass_()

    add(kernel, {"id": "a", "action": "work"})
    found, plain = kernel.executions.get(kernel.start("flow")), kernel.outbox.enqueue("plain")
    assert found is not None and found.item_id is not None
    with working(kernel, grace_seconds=0.0) as worker:
        for each in began:
            each.pass_()
        worker.stop()
    items = [kernel.outbox.get(one) for one in (found.item_id, plain)]
    over.set()
    assert [one and one.status for one in items] == ["RUNNING", "PENDING"]


@pytest.mark.every_storage
@pytest.mark.parametrize("kind", ["def", "async def", "transactional"])
def test_a_call_that_must_not_be_repeated_is_not_given_back(kernel: Kernel, kind: str) -> None:
    """It has looked whether its worker stops, and failed in a way of which nobody knows more."""
    calls: list[int] = []
    began = Gate()
    unknown = AutomateError(
        ErrorCodes.UNAVAILABLE, "the payment may have been made", retryable=False
    )

    def work(call: Call) -> None:
        calls.append(call.attempt)
        began.set()
        until(lambda: call.cancelled or len(calls) > 1)
        raise unknown

    async def work_async(call: Call) -> None:
        calls.append(call.attempt)
        began.set()
        while not call.cancelled and len(calls) < 2:
            await asyncio.sleep(0.001)
        raise unknown

    given = work_async if kind == "async def" else work
    kernel.action("work", transactional=kind == "transactional")(given)
    add(kernel, {"id": "a", "action": "work"})
    with working(kernel, grace_seconds=PATIENCE) as worker:
        one = kernel.start("flow")
        began.pass_()
        worker.stop()
    kernel.run_until_idle()
    done = kernel.executions.get(one)
    assert done is not None and done.status == "FAILED"
    assert calls == [1]


def test_parts_of_a_step_that_is_made_for_the_first_time_are_all_made(kernel: Kernel) -> None:
    """Though its execution was resumed: the second is no repetition of the first."""
    posted: dict[str | None, str] = {}
    broken = [True]

    @kernel.action
    def fail() -> None:
        if broken.pop():
            raise ValueError("no")

    @kernel.action("post")
    def post(text: str, call: Call) -> str:
        if not call.repeated:
            posted[call.idempotency_key] = text
        return posted.setdefault(call.idempotency_key, text)

    @kernel.action("two")
    def two(call: Call) -> list[str]:
        texts = [{"text": each} for each in ("first", "second", "second")]
        return [kernel.perform(call.part("post", each), each) for each in texts]

    add(kernel, {"id": "a", "action": "fail"}, {"id": "b", "action": "two"})
    one = kernel.run("flow").id
    broken.append(False)
    kernel.executions.resume(one)
    kernel.run_until_idle()
    assert sorted(posted.values()) == ["first", "second", "second"]
    kernel.executions.resume(one, step_id="b")
    kernel.run_until_idle()
    assert len(posted) == 3


def test_a_part_whose_input_is_no_json_is_refused() -> None:
    """Its key would be another one in each process, and nothing that was made be found again."""
    for odd in ({"a", "b"}, object(), {"a": 1, 2: "b"}):
        with pytest.raises(AutomateError) as caught:
            Call("two", idempotency_key="k").part("post", odd)
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_outside_a_workflow_nobody_counts_the_calls_with_a_key(kernel: Kernel) -> None:
    seen: list[bool] = []

    @kernel.action("work")
    def work(call: Call) -> None:
        seen.append(call.repeated)

    kernel.invoke("work")
    kernel.invoke("work", idempotency_key="k")
    assert seen == [False, True]


def test_elements_and_steps_of_code_have_attempts_too(kernel: Kernel) -> None:
    flaky(kernel, 1)
    again = {"attempts": 2, "delay": 0}
    add(kernel, {"id": "a", "action": "work", "for_each": [1, 2], "retry": again})
    one = kernel.run("flow").id
    found = [(each.position, *each_brief) for each, each_brief in zip(
        kernel.executions.attempts(one), brief(kernel.executions.attempts(one)), strict=True
    )]  # fmt: skip
    assert sorted(found) == [
        (0, "a", 1, "FAILED", "UNAVAILABLE"), (0, "a", 2, "COMPLETED", None),
        (1, "a", 1, "FAILED", "UNAVAILABLE"), (1, "a", 2, "COMPLETED", None),
    ]  # fmt: skip

    @kernel.workflow
    async def in_code(ctx: WorkflowContext, payload: Any) -> Any:
        return await ctx.call("work", retry=2)

    one = kernel.run("in_code").id
    assert [each[1:3] for each in brief(kernel.executions.attempts(one))] == [
        (1, "FAILED"), (2, "COMPLETED"),
    ]  # fmt: skip


@pytest.mark.every_storage
def test_a_late_reply_of_the_database_moves_no_attempt(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed began when it began, though a worker only guesses the database's time."""
    shown = threading.Event()
    save = kernel.executions.checkpoints.save

    def saved_late(group: Sequence[Save], **options: Any) -> Saved:
        saved = save(group, **options)
        runs = [(run.step_id, run.status) for each in group for run in each.turn.saves]
        if ("b", StepStatus.RUNNING) in runs:
            shown.set()
        if ("a", StepStatus.COMPLETED) in runs:
            # As when the reply has taken a second.
            return replace(saved, at=saved.at - timedelta(seconds=1))
        return saved

    monkeypatch.setattr(kernel.executions.checkpoints, "save", saved_late)

    @kernel.action("work")
    def work() -> None: ...

    @kernel.action("fail")
    def fail() -> None:
        assert shown.wait(PATIENCE)
        raise ValueError("no")

    add(kernel, {"id": "a", "action": "work"}, {"id": "b", "action": "fail"})
    with working(kernel):
        one = kernel.start("flow")
        until(lambda: kernel.executions.get(one).status.finished)  # type: ignore[union-attr]
    first, second = kernel.executions.attempts(one)
    assert brief([first, second]) == [("a", 1, "COMPLETED", None), ("b", 1, "FAILED", "INTERNAL")]
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.ended_at <= second.started_at
    (run,) = kernel.executions.get(one).steps[1:]  # type: ignore[union-attr]
    assert (run.attempted_at, run.completed_at) == (second.started_at, second.ended_at)


@pytest.mark.parametrize("off", [0, 1, -1, 700])
def test_steps_that_began_in_about_the_same_moment_stand_in_their_order(off: int) -> None:
    """The clock of a database may be coarse, and failures are read before the steps' own rows."""
    now = datetime(2026, 11, 28, tzinfo=timezone.utc)
    late = now + timedelta(microseconds=off)
    runs = [
        StepRun(execution_id="x", step_id=step_id, attempts=attempts, status=status,
                attempted_at=late if step_id == "first" else now, completed_at=now)
        for step_id, attempts, status in [
            ("first", 2, StepStatus.COMPLETED), ("last", 1, StepStatus.FAILED)
        ]
    ]  # fmt: skip
    failed = [
        FailedAttempt(attempt=1, error_code="DOWN", error_group="DOWN", error="away", step_id=step_id,
                      started_at=now, failed_at=now)
        for step_id in ("last", "first")
    ]  # fmt: skip
    found = [(each.step_id, each.attempt) for each in step_attempts(runs, failed)]
    assert found == [("first", 1), ("first", 2), ("last", 1)]


def test_a_failure_that_seems_to_end_before_it_began_is_one_attempt() -> None:
    """Its beginning is an estimate, and its end a time of a database that counts milliseconds."""
    end = datetime(2026, 11, 28, tzinfo=timezone.utc)
    began = end + timedelta(microseconds=900)
    run = StepRun(
        execution_id="x", step_id="only", attempts=1, attempted_at=began, completed_at=began,
        status=StepStatus.FAILED,
    )  # fmt: skip
    failure = FailedAttempt(
        attempt=1, error_code="DOWN", error_group="DOWN", error="away", step_id="only",
        started_at=began, failed_at=end,
    )  # fmt: skip
    assert [each.attempt for each in step_attempts([run], [failure])] == [1]


@pytest.mark.parametrize("database", ["memory", "sqlite", "postgresql", "mariadb"])
def test_a_step_keeps_the_time_at_which_it_began(
    request: pytest.FixtureRequest, database: str
) -> None:
    """Later saves don't move it: of another attempt, of an answer, of a loop's next round."""
    clock, storage = FakeClock(), None
    if database != "memory":
        engine = request.getfixturevalue(f"{database}_engine")
        storage = SqlAlchemyStorage(engine, clock=clock)
    with Kernel(storage or MemoryStorage(clock), discover=False, secrets={}) as kernel:
        flaky(kernel, 2)
        add(
            kernel,
            {"id": "retried", "action": "work", "retry": {"attempts": 3, "delay": "1m"}},
            {"id": "asked", "approval": {"title": "Go on?"}},
            {"id": "looped", "for_each": "{{ [1, 2] }}", "steps": [{"id": "in", "sleep": "10m"}]},
        )
        execution_id = kernel.start("flow")
        seen: dict[str, set[datetime]] = {}
        for number in range(30):
            kernel.run_until_idle()
            for run in kernel.executions.get(execution_id).steps:
                if run.started_at is not None and run.step_id is not None:
                    seen.setdefault(run.step_id, set()).add(run.started_at)
            if number == 5:
                kernel.approvals.approve(execution_id, "asked", by="ann")
                kernel.run_until_idle()
            clock.advance(60)
        assert kernel.executions.get(execution_id).status.value == "COMPLETED"
    assert all(len(times) == 1 for times in seen.values()), seen
    began = {step: min(times) for step, times in seen.items()}
    first, second = "looped[0].in", "looped[1].in"
    assert began["retried"] < began["asked"] < began["looped"] <= began[first] < began[second]
