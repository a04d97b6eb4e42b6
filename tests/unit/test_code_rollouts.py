"""Old and new code of a workflow side by side: no execution fails for it, and nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from example_counts import examples
from waiting import Gate, until
from workers import working
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Execution,
    Kernel,
    MemoryStorage,
    StepFailedError,
    WorkflowContext,
)
from automate_kernel.monitoring.diagnosis import worker_findings
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import OUTBOX
from automate_testing import FakeClock
from automate_kernel.workflows import RetryPolicy
from automate_kernel.workflows.execution import ExecutionStatus, StepStatus
from pydantic import BaseModel
from defined import item_of, see

calls: Counter[str] = Counter()
broken: dict[str, AutomateError] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    broken.clear()


def called(name: str) -> str:
    calls[name] += 1
    if name in broken:
        raise broken[name]
    return name


def a() -> str:
    return called("a")


def b() -> str:
    return called("b")


def c() -> str:
    return called("c")


def d() -> str:
    return called("d")


def undo() -> None:
    called("undo")


def release() -> None:
    called("release")


@pytest.fixture
def storage(clock: FakeClock) -> MemoryStorage:
    return MemoryStorage(clock)


Code = Callable[..., Awaitable[Any]]


def deployed(storage: Any, *functions: Code, **options: Any) -> Kernel:
    """Return the kernel of a process with this code; the first function is the workflow ``flow``."""
    kernel = Kernel(storage, discover=False, secrets={})
    flow, *others = functions
    kernel.workflow(name="flow", **options)(flow)
    for other in others:
        kernel.workflow(other)
    return kernel


def is_handed_over(kernel: Kernel, execution_id: str) -> bool:
    note = kernel.executions.handover(see(kernel, execution_id))
    assert note is None or note.code in ("CHANGED_CODE", "UNKNOWN_CODE")
    return note is not None


def wake(kernel: Kernel, execution_id: str) -> Execution:
    """Let the worker of *kernel* have the execution now."""
    kernel.outbox.request_release([see(kernel, execution_id).item_id or ""])
    kernel.run_until_idle()
    return see(kernel, execution_id)


# -- each row of "Change the code" -----------------------------------------------------------------


class Note(BaseModel):
    text: str


Part = Callable[[WorkflowContext], Awaitable[Any]]


def code(second: Part, third: Part = lambda ctx: ctx.step(c)) -> Code:
    """Return code that calls a, then the two parts, with a wait before each of them."""

    async def flow(ctx: WorkflowContext) -> list[Any]:
        found: list[Any] = [await ctx.step(a)]
        await ctx.wait_for(signal="go")
        found.append(await second(ctx))
        await ctx.wait_for(signal="go")
        return [*found, await third(ctx)]

    return flow


before = code(lambda ctx: ctx.step(b))
another_step = code(lambda ctx: ctx.step(d))


async def another_step_at_the_end(ctx: WorkflowContext) -> list[Any]:
    found = await before(ctx)
    await ctx.wait_for(signal="go")
    return [*found, await ctx.step(d)]


async def fewer_steps(ctx: WorkflowContext) -> list[Any]:
    found: list[Any] = [await ctx.step(a)]
    await ctx.wait_for(signal="go")
    return [*found, await ctx.step(b)]


async def side_by_side(ctx: WorkflowContext) -> list[Any]:
    async def then_b() -> str:
        await ctx.wait_for(signal="go")
        return await ctx.step(b)

    found: list[Any] = [await ctx.step(a)]
    await ctx.wait_for(signal="go")
    return [*found, *await ctx.gather(then_b(), ctx.step(c))]


async def b_of_another_type(ctx: WorkflowContext) -> str:
    def b() -> Note:
        return Note(text=called("b"))

    return (await ctx.step(b)).text


async def caught(ctx: WorkflowContext) -> list[Any]:
    found: list[Any] = [await ctx.step(a)]
    await ctx.wait_for(signal="go")
    broken["b"] = AutomateError(ErrorCodes.FAILED_PRECONDITION, "sold out")
    try:
        await ctx.step(b)
    except StepFailedError:
        found.append(await ctx.step(d))
        await ctx.wait_for(signal="go")
    return [*found, await ctx.step(c)]


async def undone(ctx: WorkflowContext) -> list[Any]:
    found: list[Any] = [await ctx.step(a)]
    with ctx.compensate(undo):
        await ctx.wait_for(signal="go")
        found.append(await ctx.step(b))
        await ctx.wait_for(signal="go")
        return [*found, await ctx.step(c)]


async def slept_then_b(ctx: WorkflowContext) -> str:
    await ctx.sleep(0.001)
    return await ctx.step(b)


async def time_then_b(ctx: WorkflowContext) -> str:
    ctx.now()
    return await ctx.step(b)


def gathered(*members: int) -> Code:
    """Return code with a gather of members that have so many waits, each with a step after it."""

    async def member(ctx: WorkflowContext, waits: int) -> None:
        for name in "ab"[:waits]:
            await ctx.wait_for(signal="go")
            await ctx.step({"a": a, "b": b}[name])

    async def flow(ctx: WorkflowContext) -> str:
        await ctx.gather(*[member(ctx, waits) for waits in members])
        await ctx.wait_for(signal="go")
        return await ctx.step(c)

    return flow


async def patched(ctx: WorkflowContext) -> list[Any]:
    found: list[Any] = []
    if ctx.patched("check-first"):
        found.append(await ctx.step(d))
    return [*found, *await before(ctx)]


async def patched_then_d(ctx: WorkflowContext) -> str:
    ctx.patched("d-for-b")
    return await ctx.step(d)


patched_ahead = code(lambda ctx: ctx.step(d if ctx.patched("d-for-b") else b))
second_version = code(lambda ctx: ctx.step(d if ctx.version("b", 2) > 1 else b))
third_version = code(
    lambda ctx: ctx.step({1: b, 2: d, 3: c}[ctx.version("b", 3)]),
    lambda ctx: ctx.step(c if ctx.version("b", 3) < 3 else b),
)


async def third_version_waits(ctx: WorkflowContext) -> list[Any]:
    """What the version decides about comes after a wait."""
    found: list[Any] = [await ctx.step(a)]
    version = ctx.version("b", 3)
    await ctx.wait_for(signal="go")
    found.append(await ctx.step({1: b, 2: d, 3: c}[version]))
    await ctx.wait_for(signal="go")
    return [*found, await ctx.step(c if version < 3 else b)]


async def second_version_waits(ctx: WorkflowContext) -> list[Any]:
    found: list[Any] = [await ctx.step(a)]
    version = ctx.version("b", 2)
    await ctx.wait_for(signal="go")
    found.append(await ctx.step(d if version > 1 else b))
    await ctx.wait_for(signal="go")
    return [*found, await ctx.step(c)]


ROWS: dict[str, tuple[Code, Code]] = {
    "another step": (before, another_step),
    "a step at the end": (before, another_step_at_the_end),
    "fewer steps": (before, fewer_steps),
    "another order": (before, code(lambda ctx: ctx.step(c), lambda ctx: ctx.step(b))),
    "side by side": (before, side_by_side),
    "another type": (before, code(b_of_another_type)),
    "a failure that is caught": (before, caught),
    "a member that does more": (gathered(1, 0), gathered(2, 0)),
    "a member more": (gathered(1), gathered(1, 1)),
    "a gather in the place of nothing": (gathered(), gathered(1)),
    "a compensation": (before, undone),
    "a sleep": (before, code(slept_then_b)),
    "the time": (before, code(time_then_b)),
    "patched": (before, patched),
    "patched ahead": (before, patched_ahead),
    "the if is taken out": (patched_ahead, code(patched_then_d)),
    "a version": (before, second_version),
    "a version more": (second_version, third_version),
    "a version more, which counts later": (second_version_waits, third_version_waits),
}


def roll(storage: MemoryStorage, workers: list[Kernel], turns: tuple[int, ...]) -> Execution:
    """Let an execution be woken by one worker after the other; who can't go on hands it over."""
    first = workers[turns[0]]
    execution_id = first.start("flow")
    first.run_until_idle()
    for turn in (*turns[1:], *itertools.repeat(0, 6)):
        kernel = workers[turn]
        if see(kernel, execution_id).status.finished:
            break
        kernel.signal(execution_id, "go")
        kernel.run_until_idle()
        storage.skip(1.0)
        kernel.run_until_idle()
        for other in workers:
            if is_handed_over(other, execution_id):
                wake(other, execution_id)
        assert not is_handed_over(kernel, execution_id), "no worker fits"
    return see(first, execution_id)


@pytest.mark.parametrize("row", ROWS)
def test_old_and_new_workers_take_turns(storage: MemoryStorage, row: str) -> None:
    """Whoever wakes it, in each order: it completes, no step runs twice, and no attempt is spent."""
    for turns in itertools.product((0, 1), repeat=examples(4, 3)):
        fresh_calls()
        workers = [deployed(storage, code) for code in ROWS[row]]
        execution = roll(storage, workers, turns)
        assert execution.status is ExecutionStatus.COMPLETED, (turns, execution.error)
        assert calls.keys() <= {*"abcd"} and set(calls.values()) <= {1, 2}, (turns, calls)
        assert all(run.attempts <= 1 for run in execution.steps)
        assert item_of(workers[0], execution.id).attempt_count <= 1
        steps = Counter(run.step_id.partition("@")[0].partition("#")[0] for run in execution.steps)
        assert {name: steps[name] for name in "abcd" if steps[name]} == calls


def fresh_calls() -> None:
    calls.clear()
    broken.clear()


def test_a_new_version_beside_the_old_one(storage: MemoryStorage) -> None:
    """Each goes on with the code that it began with, on a worker that has it."""
    for turns in itertools.product((0, 1), repeat=4):
        fresh_calls()
        workers = [deployed(storage, before), deployed(storage, another_step, version=2)]
        execution = roll(storage, workers, turns)
        assert execution.output == (["a", "d", "c"] if turns[0] else ["a", "b", "c"])
        assert set(calls.values()) == {1}


def test_a_bad_deploy_is_taken_back(storage: MemoryStorage) -> None:
    """While it is out, what it can't go on with waits; after it all of that goes on."""
    old = deployed(storage, before)

    async def bad(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step(d), *await before(ctx)]

    waiting = [old.start("flow") for _ in range(3)]
    old.run_until_idle()
    new = deployed(storage, bad)
    for execution_id in waiting:
        new.signal(execution_id, "go")
    for _ in range(30):
        new.run_until_idle()
        storage.skip(600.0)
    assert calls == {"a": 3}
    for execution_id in waiting:
        item = item_of(new, execution_id)
        assert is_handed_over(new, execution_id) and item.attempt_count == 0
        assert new.outbox.failed_attempts(item.id) == []
    back = deployed(storage, before)
    back.run_until_idle()
    for execution_id in waiting:
        back.signal(execution_id, "go")
    back.run_until_idle()
    assert [see(back, each).output for each in waiting] == [["a", "b", "c"]] * 3


def test_what_no_code_repeats_any_more_is_ended_by_an_operator(storage: MemoryStorage) -> None:
    """They see it, end it, and let it go on from a step with the code that there is."""
    bad = deployed(storage, another_step)
    ids = [bad.start("flow") for _ in range(3)]
    bad.run_until_idle()
    for execution_id in ids:
        bad.signal(execution_id, "go")
    bad.run_until_idle()
    assert calls == {"a": 3, "d": 3}
    good = deployed(storage, before)
    for execution_id in ids:
        assert wake(good, execution_id).status is ExecutionStatus.RUNNING
    findings = worker_findings(good.outbox, program="automate")
    (found,) = [each for each in findings if "handed over" in each.text]
    assert "3 items" in found.text and "does not repeat what is recorded" in found.text
    assert "now b at" in found.text
    assert "whose code repeats what is recorded" in str(found.remedy)
    assert "resume them from a step or start them again" in str(found.remedy)
    cancelled, resumed, again = ids
    for execution_id in ids:
        assert good.executions.cancel(execution_id, force=True)
        assert see(good, execution_id).status is ExecutionStatus.CANCELLED
    assert good.executions.resume(resumed, step_id="wait_for")
    fresh = good.start_again(again)
    good.run_until_idle()
    for execution_id in (resumed, fresh):
        while not see(good, execution_id).status.finished:
            good.signal(execution_id, "go")
            good.run_until_idle()
        assert see(good, execution_id).output == ["a", "b", "c"]
    assert see(good, cancelled).status is ExecutionStatus.CANCELLED


# -- crossed with other features -------------------------------------------------------------------


def test_a_parent_waits_for_a_child_that_is_handed_over(storage: MemoryStorage) -> None:
    """It fails not, and undoes nothing."""

    async def parent(ctx: WorkflowContext) -> list[Any]:
        with ctx.compensate(undo):
            return await ctx.child("child")  # type: ignore[no-any-return]

    def with_child(code: Code) -> Kernel:
        async def child(ctx: WorkflowContext) -> list[Any]:
            return await code(ctx)  # type: ignore[no-any-return]

        return deployed(storage, parent, child)

    old, new = with_child(before), with_child(another_step)
    parent_id = new.start("flow")
    new.run_until_idle()
    (child,) = new.executions.find(workflow="child")
    new.signal(child.id, "go")
    new.run_until_idle()
    new.signal(child.id, "go")
    for _ in range(20):
        old.run_until_idle()
        storage.skip(600.0)
    assert is_handed_over(old, child.id)
    assert see(old, parent_id).status is ExecutionStatus.RUNNING and calls["undo"] == 0
    new.run_until_idle()
    assert see(new, parent_id).output == ["a", "d", "c"] and calls["undo"] == 0


def test_a_parent_that_is_handed_over_takes_what_its_child_gave(storage: MemoryStorage) -> None:
    async def child(ctx: WorkflowContext) -> str:
        await ctx.wait_for(signal="go")
        return await ctx.step(b)

    async def old_parent(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step(a), await ctx.child(child)]

    async def new_parent(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step(d), await ctx.child(child)]

    old, new = deployed(storage, old_parent, child), deployed(storage, new_parent, child)
    parent_id = new.start("flow")
    new.run_until_idle()
    (one,) = new.executions.find(workflow="child")
    old.signal(one.id, "go")
    old.run_until_idle()
    assert see(old, one.id).status is ExecutionStatus.COMPLETED
    assert is_handed_over(old, parent_id)
    assert wake(new, parent_id).output == ["d", "b"]
    assert calls == {"d": 1, "b": 1}


def test_a_childs_output_that_only_the_new_parent_reads(storage: MemoryStorage) -> None:
    """The child runs on a new worker; the old one can't read what it gives, and fails nobody."""

    async def child(ctx: WorkflowContext) -> str:
        await ctx.wait_for(signal="go")
        return "text"

    async def old_parent(ctx: WorkflowContext) -> str:
        with ctx.compensate(undo):
            return await ctx.child(child)

    async def new_child(ctx: WorkflowContext) -> Note:
        await ctx.wait_for(signal="go")
        return Note(text="new")

    async def new_parent(ctx: WorkflowContext) -> str:
        with ctx.compensate(undo):
            return (await ctx.child(new_child)).text

    old = deployed(storage, old_parent, child)
    new = Kernel(storage, discover=False, secrets={})
    new.workflow(name="flow")(new_parent)
    new.workflow(name="child")(new_child)
    parent_id = old.start("flow")
    old.run_until_idle()
    (one,) = new.executions.find(workflow="child")
    new.signal(one.id, "go")
    assert new.executions.pause(parent_id)
    new.run_until_idle()
    assert see(new, one.id).output == {"text": "new"}
    assert new.executions.unpause(parent_id)
    old.run_until_idle()
    assert is_handed_over(old, parent_id)
    assert (wake(new, parent_id).output, calls["undo"]) == ("new", 0)


RETRIED = RetryPolicy(attempts=9, delay=60.0, jitter=False)


def undoing(*undoes: Callable[[], None]) -> Code:
    async def flow(ctx: WorkflowContext) -> str:
        with contextlib.ExitStack() as stack:
            for each in undoes:
                stack.enter_context(ctx.compensate(each, retry=RETRIED))
            await ctx.step(a)
            await ctx.wait_for(signal="go")
            return await ctx.step(b)

    return flow


@pytest.mark.parametrize("end", ["failed", "cancelled", "out of time"])
def test_compensations_of_other_code(storage: MemoryStorage, end: str) -> None:
    """Who has not begun to undo it leaves that to others, in each way that an execution ends."""
    old = deployed(storage, undoing(release), timeout="30d")
    new = deployed(storage, undoing(undo), timeout="30d")
    broken["undo"] = AutomateError(ErrorCodes.UNAVAILABLE, "later")
    if end == "failed":
        broken["b"] = AutomateError(ErrorCodes.FAILED_PRECONDITION, "b is broken")
    execution_id = new.start("flow")
    new.run_until_idle()
    if end == "failed":
        new.signal(execution_id, "go")
    elif end == "cancelled":
        assert new.executions.cancel(execution_id)
    else:
        storage.skip(31 * 86_400.0)
    new.run_until_idle()
    assert calls["undo"] == 1
    storage.skip(600.0)
    old.run_until_idle()
    assert is_handed_over(old, execution_id) and calls["release"] == 0
    assert not see(old, execution_id).status.finished
    broken.pop("undo")
    found = wake(new, execution_id)
    status, code = {
        "failed": (ExecutionStatus.FAILED, "FAILED_PRECONDITION"),
        "cancelled": (ExecutionStatus.CANCELLED, None),
        "out of time": (ExecutionStatus.FAILED, "DEADLINE_EXCEEDED"),
    }[end]
    assert (found.status, found.error_code) == (status, code)
    assert (calls["undo"], calls["release"]) == (2, 0)


def closing(last: Callable[[], str]) -> Code:
    async def flow(ctx: WorkflowContext) -> str:
        try:
            await ctx.step(a)
            return await ctx.step(b)
        finally:
            await ctx.wait_for(signal="go")
            await ctx.step(last)

    return flow


def test_a_finally_of_other_code(storage: MemoryStorage) -> None:
    old = deployed(storage, closing(c))
    broken["b"] = AutomateError(ErrorCodes.FAILED_PRECONDITION, "b is broken")
    broken["d"] = AutomateError(ErrorCodes.UNAVAILABLE, "later")

    async def newest(ctx: WorkflowContext) -> str:
        try:
            await ctx.step(a)
            return await ctx.step(b)
        finally:
            await ctx.wait_for(signal="go")
            await ctx.step(d, retry=RETRIED)

    new = deployed(storage, newest)
    execution_id = new.start("flow")
    new.run_until_idle()
    new.signal(execution_id, "go")
    new.run_until_idle()
    storage.skip(600.0)
    old.run_until_idle()
    assert is_handed_over(old, execution_id) and calls["c"] == 0
    broken.pop("d")
    found = wake(new, execution_id)
    assert found.status is ExecutionStatus.FAILED and "b is broken" in str(found.error)
    assert calls == {"a": 1, "b": 1, "d": 2}


def begun_by_new(
    storage: MemoryStorage, new_code: Code, old_code: Code
) -> tuple[str, Kernel, Kernel]:
    """Return an execution that only the second of the two kernels can go on with."""
    old, new = deployed(storage, old_code), deployed(storage, new_code)
    execution_id = new.start("flow")
    new.run_until_idle()
    wake(old, execution_id)
    assert is_handed_over(old, execution_id)
    return execution_id, old, new


async def d_undone(ctx: WorkflowContext) -> str:
    await ctx.step(d)
    with ctx.compensate(undo):
        await ctx.wait_for(signal="go")
        return await ctx.step(b)


def test_a_cancellation_while_it_is_handed_over(storage: MemoryStorage) -> None:
    """Who knows what is to be undone undoes it; an operator ends it at once if nobody does."""
    execution_id, old, new = begun_by_new(storage, d_undone, undoing(undo))
    assert old.executions.cancel(execution_id)
    old.run_until_idle()
    assert see(old, execution_id).status is ExecutionStatus.CANCELLING
    assert is_handed_over(old, execution_id) and calls["undo"] == 0
    assert wake(new, execution_id).status is ExecutionStatus.CANCELLED and calls["undo"] == 1
    other_id = new.start("flow")
    new.run_until_idle()
    wake(old, other_id)
    assert old.executions.cancel(other_id)
    old.run_until_idle()
    assert old.executions.cancel(other_id)
    assert see(old, other_id).status is ExecutionStatus.CANCELLED and calls["undo"] == 1


def test_its_time_is_over_while_it_is_handed_over(storage: MemoryStorage) -> None:
    old = deployed(storage, undoing(undo), timeout="1h")
    new = deployed(storage, d_undone, timeout="1h")
    execution_id = new.start("flow")
    new.run_until_idle()
    storage.skip(7200.0)
    old.run_until_idle()
    found = see(old, execution_id)
    assert is_handed_over(old, execution_id) and (found.error_code, calls["undo"]) == (None, 0)
    found = wake(new, execution_id)
    assert found.error_code == "DEADLINE_EXCEEDED" and calls["undo"] == 1


def test_a_pause_while_it_is_handed_over(storage: MemoryStorage) -> None:
    execution_id, old, new = begun_by_new(storage, d_undone, before)
    assert old.executions.pause(execution_id)
    storage.skip(6000.0)
    new.run_until_idle()
    assert see(new, execution_id).status is ExecutionStatus.PAUSED
    assert old.executions.unpause(execution_id)
    old.run_until_idle()
    new.signal(execution_id, "go")
    assert wake(new, execution_id).output == "b"


@pytest.mark.parametrize("how", ["fork", "resume", "retry_step"])
def test_an_operator_goes_on_with_what_only_others_repeat(storage: MemoryStorage, how: str) -> None:
    """Its record is the new code's: the old one hands the copy, or the execution, on."""
    broken["b"] = AutomateError(ErrorCodes.FAILED_PRECONDITION, "b is broken")
    old, new = deployed(storage, before), deployed(storage, another_step_before_b)
    execution_id = new.start("flow")
    new.run_until_idle()
    assert see(new, execution_id).status is ExecutionStatus.FAILED
    broken.clear()
    if how == "fork":
        execution_id = old.executions.fork(execution_id, "b")
    elif how == "resume":
        assert old.executions.resume(execution_id)
    else:
        assert old.executions.retry_step(execution_id, "b")
    old.run_until_idle()
    assert is_handed_over(old, execution_id)
    assert wake(new, execution_id).output == ["d", "b"] and calls == {"d": 1, "b": 2}


async def another_step_before_b(ctx: WorkflowContext) -> list[Any]:
    return [await ctx.step(d), await ctx.step(b)]


def counted(step: Callable[[], str]) -> Code:
    async def flow(ctx: WorkflowContext, number: int) -> int:
        await ctx.step(step)
        await ctx.wait_for(signal="go")
        if number < 2:
            ctx.continue_as_new(number + 1)
        return number

    return flow


def test_a_chain_over_a_rolling_deploy(storage: MemoryStorage) -> None:
    """Each link goes on with who has begun it; the next may be begun by anybody."""
    old, new = deployed(storage, counted(a)), deployed(storage, counted(d))
    execution_id = new.start("flow", 0)
    new.run_until_idle()
    old.signal(execution_id, "go")
    old.run_until_idle()
    assert is_handed_over(old, execution_id)
    first = wake(new, execution_id)
    assert first.status is ExecutionStatus.COMPLETED and first.successor_id
    # It has begun on the new worker, and goes on there.
    for last in (False, True):
        (going,) = new.executions.find(status="RUNNING")
        old.signal(going.id, "go")
        old.run_until_idle()
        assert is_handed_over(old, going.id)
        assert wake(new, going.id).output == (2 if last else None)
    assert calls == {"d": 3}


def test_the_record_is_not_changed_by_code_that_does_not_repeat_it(
    storage: MemoryStorage,
) -> None:
    """Beside the line that differs other lines could go on: what they did would bind the others."""

    def line(step: Callable[[], str]) -> Code:
        async def member(ctx: WorkflowContext) -> str:
            await ctx.wait_for(signal="go")
            return await ctx.step(step)

        async def flow(ctx: WorkflowContext) -> list[Any]:
            return list(await ctx.gather(member(ctx), ctx.step(step), ctx.step(c, retry=RETRIED)))

        return flow

    broken["c"] = AutomateError(ErrorCodes.UNAVAILABLE, "later")
    old, new = deployed(storage, line(a)), deployed(storage, line(d))
    execution_id = new.start("flow")
    new.run_until_idle()
    new.signal(execution_id, "go")
    before_ = see(new, execution_id).steps
    storage.skip(600.0)
    old.run_until_idle()
    assert is_handed_over(old, execution_id)
    assert see(old, execution_id).steps == before_ and calls == {"d": 1, "c": 1}
    broken.clear()
    assert wake(new, execution_id).output == ["d", "d", "c"]


def test_what_is_in_flight_is_saved_before_it_is_handed_over(storage: MemoryStorage) -> None:
    """Only the event that comes shows the change: the step beside it isn't made again."""
    gate = Gate()

    def slow() -> str:
        gate.pass_()
        return called("slow")

    def waiting(name: str) -> Code:
        async def wait(ctx: WorkflowContext) -> str:
            await ctx.wait_for(signal=name)
            return await ctx.step(b)

        async def flow(ctx: WorkflowContext) -> list[Any]:
            await ctx.wait_for(signal="begin")
            return list(await ctx.gather(wait(ctx), ctx.step(slow, retry=RETRIED)))

        return flow

    new = deployed(storage, waiting("new"))
    execution_id = new.start("flow")
    new.run_until_idle()
    new.signal(execution_id, "begin")
    gate.set()
    broken["slow"] = AutomateError(ErrorCodes.UNAVAILABLE, "later")
    new.run_until_idle()
    broken.clear()
    gate.clear()
    storage.skip(600.0)
    old = deployed(storage, waiting("old"))
    with working(old):
        until(lambda: see(old, execution_id).steps[-1].status is StepStatus.RUNNING)
        old.signal(execution_id, "new")
        until(lambda: not old.outbox.find(kind="automate.signal", status="PENDING"))
        gate.set()
        until(lambda: is_handed_over(old, execution_id))
    assert (calls["slow"], calls["b"]) == (2, 0)
    assert wake(new, execution_id).output == ["b", "slow"] and calls["slow"] == 2


def test_an_error_of_code_that_does_not_come_as_far_is_not_the_executions(
    storage: MemoryStorage,
) -> None:
    """It reads in a way of its own what the new code has recorded, and breaks before the rest."""

    def give() -> Any:
        return {"text": called("a")}

    async def new_code(ctx: WorkflowContext) -> str:
        found = await ctx.step(give)
        await ctx.wait_for(signal="go")
        return str(found["text"])

    async def old_code(ctx: WorkflowContext) -> str:
        found = await ctx.step(give)
        text = found["words"]
        await ctx.wait_for(signal="go")
        return str(text)

    execution_id, old, new = begun_by_new(storage, new_code, old_code)
    note = old.executions.handover(see(old, execution_id))
    assert note is not None and "now the workflow ends without it: " in note.reason
    assert "KeyError" in note.reason
    new.signal(execution_id, "go")
    assert wake(new, execution_id).output == "a"


def test_a_payload_that_others_took(storage: MemoryStorage) -> None:
    async def old_code(ctx: WorkflowContext, number: int) -> int:
        await ctx.wait_for(signal="go")
        return number

    async def new_code(ctx: WorkflowContext, number: Note) -> str:
        await ctx.wait_for(signal="go")
        return number.text

    old, new = deployed(storage, old_code), deployed(storage, new_code)
    execution_id = new.start("flow", {"text": "seven"})
    new.run_until_idle()
    new.signal(execution_id, "go")
    old.run_until_idle()
    assert is_handed_over(old, execution_id)
    assert wake(new, execution_id).output == "seven"
    # Nobody has taken this one.
    failed = old.start("flow", "x")
    old.run_until_idle()
    assert see(old, failed).status is ExecutionStatus.FAILED


# -- when it goes on -------------------------------------------------------------------------------


def test_it_goes_on_at_once_when_a_worker_comes_that_fits(storage: MemoryStorage) -> None:
    """However long it has waited before, and though old workers want it too."""
    storage = MemoryStorage()
    ids: list[str] = []
    old, new = deployed(storage, before), deployed(storage, d_undone)
    for _ in range(20):
        ids.append(new.start("flow"))
    new.run_until_idle()
    for execution_id in ids:
        wake(old, execution_id)
    with storage.begin() as rows:
        for item in old.outbox.handed_over(limit=100):
            note = {**(item.handover.to_json() if item.handover else {}), "times": 20}
            headers = {**item.headers, "automate.handover": note}
            rows.update(OUTBOX, [Where("id", "eq", item.id)], {"headers": headers})
    assert old.outbox.reschedule([item_of(old, each).id for each in ids], delay=280.0) == 20
    assert len(old.outbox.handed_over(limit=100)) == 20
    with working(old), working(deployed(storage, before)):
        until(lambda: len(old.outbox.workers()) == 2)
        with working(new):
            until(lambda: not old.outbox.handed_over())
            for execution_id in ids:
                new.signal(execution_id, "go")
            until(lambda: len(new.executions.find(status="COMPLETED")) == 20)


def test_without_a_worker_that_fits_it_is_tried_ever_more_seldom(
    storage: MemoryStorage, clock: FakeClock
) -> None:
    """Nothing is counted towards a failure, and the time of the first handover stays known."""
    execution_id, old, _ = begun_by_new(storage, d_undone, before)
    since = clock()
    delays = []
    for _ in range(30):
        item = item_of(old, execution_id)
        assert item.handover is not None and item.handover.since == since
        assert item.attempt_count == 0
        delays.append((item.next_attempt_at - clock()).total_seconds())
        clock.advance(delays[-1] + 1.0)
        old.run_until_idle()
    assert delays[0] < 10 and min(delays[8:]) > 200
    assert see(old, execution_id).status is ExecutionStatus.RUNNING


# -- where no other worker can exist ---------------------------------------------------------------


def fickle() -> Code:
    """Return code that does something else each time that it runs."""
    names = iter(range(1000))

    async def flow(ctx: WorkflowContext) -> str:
        await ctx.step(a, name=f"a{next(names)}")
        await ctx.sleep(0.01)
        return await ctx.step(b)

    return flow


@pytest.mark.parametrize("how", ["run", "memory", "child"])
def test_code_that_never_repeats_itself_fails_where_nobody_else_is(how: str) -> None:
    """Who runs it here gets the reason, with both lines and the remedy."""
    storage = MemoryStorage()
    if how == "memory":
        kernel = deployed(storage, fickle())
        execution_id = kernel.start("flow")
        kernel.run_until_idle(patience=5.0)
        found = see(kernel, execution_id)
    else:
        deployed(storage, before)  # another one could be there
        if how == "run":
            found = deployed(storage, fickle()).run("flow", patience=5.0)
        else:
            code = fickle()

            async def child(ctx: WorkflowContext) -> str:
                return str(await code(ctx))

            async def parent(ctx: WorkflowContext) -> str:
                return await ctx.child(child)

            kernel = deployed(storage, parent, child)
            found = kernel.run("flow", patience=30.0)
    assert found.status is ExecutionStatus.FAILED and found.error_code == "FAILED_PRECONDITION"
    assert "the code does not repeat what is recorded: recorded is a0 at " in str(found.error)
    assert "now a1 at" in str(found.error) and "then resume the execution" in str(found.error)
