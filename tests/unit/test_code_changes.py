"""Workflows in code that change while executions go on, and executions that are resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Execution,
    Kernel,
    MemoryStorage,
    StepFailedError,
    WorkflowContext,
    WorkflowError,
)
from automate_kernel.workflows.decide.record import CallPlace, Record
from automate_kernel.workflows.execution import ExecutionStatus, StepRun, StepStatus
from hypothesis import given
from hypothesis import strategies as st
from defined import see

calls: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    broken.clear()


def called(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"{name} is broken")
    return name


def a() -> str:
    return called("a")


def b() -> str:
    return called("b")


def c() -> str:
    return called("c")


def undo() -> None:
    called("undo")


def release() -> None:
    called("release")


@pytest.fixture
def storage() -> Iterator[MemoryStorage]:
    made = MemoryStorage()
    yield made
    made.close()


def deployed(
    storage: MemoryStorage, function: Callable[..., Any], name: str = "flow", version: int = 1
) -> Kernel:
    """Return the kernel of a process that has *function* as its code."""
    kernel = Kernel(storage, discover=False, secrets={})
    kernel.workflow(name=name, version=version)(function)
    return kernel


def resumed(kernel: Kernel, execution: Execution, step_id: str | None = None) -> Execution:
    assert kernel.executions.resume(execution.id, step_id=step_id)
    kernel.run_until_idle()
    found = see(kernel, execution.id)
    return found


def taken_up(kernel: Kernel, execution: Execution) -> Execution:
    """Let the worker of *kernel* have an execution that waits."""
    assert kernel.outbox.request_release([execution.item_id or ""]) == 1
    kernel.run_until_idle()
    found = see(kernel, execution.id)
    return found


def why_handed_over(kernel: Kernel, execution: Execution) -> str:
    """Return the reason why an execution waits for other code; nothing of it has failed."""
    found, note = kernel.executions.get(execution.id), kernel.executions.handover(execution)
    assert found is not None and not found.status.finished
    assert (found.error_code, found.error) == (None, None)
    assert note is not None and note.code == "CHANGED_CODE"
    return note.reason


async def a_then_b(ctx: WorkflowContext) -> list[str]:
    return [await ctx.step(a), await ctx.step(b)]


# -- changed code ----------------------------------------------------------------------------------


async def c_then_b(ctx: WorkflowContext) -> list[str]:
    return [await ctx.step(c), await ctx.step(b)]


async def c_a_b(ctx: WorkflowContext) -> list[str]:
    return [await ctx.step(c), await ctx.step(a), await ctx.step(b)]


async def nothing(ctx: WorkflowContext) -> list[str]:
    return []


async def gathered(ctx: WorkflowContext) -> list[str]:
    return list(await ctx.gather(ctx.step(a), ctx.step(b)))


@pytest.mark.parametrize(
    ("changed", "now"),
    [(c_then_b, "now c at"), (c_a_b, "now c at"), (gathered, "now a at")],
)
def test_code_that_calls_something_else_hands_over_and_names_both_lines(
    storage: MemoryStorage, changed: Callable[..., Any], now: str
) -> None:
    """Nothing is called or fails, and a worker whose code repeats the calls goes on."""
    broken.add("b")
    old = deployed(storage, a_then_b)
    execution = old.run("flow")
    assert execution.status is ExecutionStatus.FAILED
    broken.clear()
    calls.clear()
    other = deployed(storage, changed)
    found = resumed(other, execution)
    text = why_handed_over(other, found)
    assert calls == []
    line = a_then_b.__code__.co_firstlineno + 1
    assert "recorded is a at " in text and f"test_code_changes.py:{line} (call 1)" in text
    assert now in text and "ctx.patched()" in text and "version" in text
    mended = taken_up(deployed(storage, a_then_b), found)
    assert mended.status is ExecutionStatus.COMPLETED
    assert (mended.output, calls) == (["a", "b"], ["b"])


KINDS: dict[str, Callable[[WorkflowContext], Any]] = {
    "sleep": lambda ctx: ctx.sleep("1h", name="x"),
    "workflow": lambda ctx: ctx.child("other", name="x"),
    "signal": lambda ctx: ctx.wait_for(signal="s", name="x"),
    "event": lambda ctx: ctx.wait_for("e", name="x"),
    "approval": lambda ctx: ctx.approve("Really?", name="x"),
    "start": lambda ctx: ctx.start("other", name="x"),
    "call": lambda ctx: ctx.step(a, name="x"),
}


@pytest.mark.parametrize("now", KINDS)
@pytest.mark.parametrize("before", [kind for kind in KINDS if kind not in ("start", "call")])
def test_a_wait_that_becomes_another_kind_of_call_hands_over(
    storage: MemoryStorage, before: str, now: str
) -> None:
    """It waits no longer for what the code doesn't ask for, and its answer is not taken for one."""

    async def other(ctx: WorkflowContext) -> None:
        await ctx.wait_for(signal="never")

    def with_kind(kind: str) -> Kernel:
        async def flow(ctx: WorkflowContext) -> None:
            await ctx.wait_for(signal="go")
            await KINDS[kind](ctx)

        kernel = deployed(storage, flow)
        kernel.workflow(other)
        return kernel

    old = with_kind(before)
    execution_id = old.start("flow")
    old.signal(execution_id, "go")
    old.run_until_idle()
    new = with_kind(now)
    found = new.executions.get(execution_id)
    # Any wake-up replays it.
    assert found is not None
    found = taken_up(new, found)
    if before == now:
        assert found.status is ExecutionStatus.RUNNING and not new.executions.handover(found)
    else:
        assert f"(call 2, {before}); now x at " in why_handed_over(new, found) and calls == []
        assert not old.executions.handover(taken_up(old, found))


def waits(*names: str, signals: bool = False) -> Callable[..., Any]:
    async def flow(ctx: WorkflowContext) -> list[Any]:
        found = [
            await (ctx.wait_for(signal=name) if signals else ctx.wait_for(name)) for name in names
        ]
        await ctx.step(b)
        return [None if one is None else one.name for one in found]

    return flow


def answer(kernel: Kernel, execution_id: str, name: str, signals: bool) -> Execution:
    if signals:
        kernel.signal(execution_id, name)
    else:
        kernel.emit(name)
    kernel.run_until_idle()
    found = see(kernel, execution_id)
    return found


@pytest.mark.parametrize("signals", [False, True])
@pytest.mark.parametrize("come", [1, 2])
def test_the_answer_of_one_wait_is_not_taken_for_that_of_another(
    storage: MemoryStorage, come: int, signals: bool
) -> None:
    """Two waits that changed places got each other's events, and nobody was told."""
    old = deployed(storage, waits("paid", "sent", signals=signals))
    execution_id = old.start("flow")
    old.run_until_idle()
    if come == 2:
        answer(old, execution_id, "paid", signals)
    new = deployed(storage, waits("sent", "paid", signals=signals))
    found = answer(new, execution_id, "paid" if come == 1 else "sent", signals)
    reason = why_handed_over(new, found)
    assert "recorded is wait_for for 'paid' at " in reason and calls == []
    assert "; now wait_for for 'sent' at " in reason
    # No event is lost to the code that waits for it.
    mended = deployed(storage, waits("paid", "sent", signals=signals))
    ended = taken_up(mended, found)
    if come == 1:
        ended = answer(mended, execution_id, "sent", signals)
    assert (ended.output, calls) == (["paid", "sent"], ["b"])


async def a_and_wait(ctx: WorkflowContext) -> str:
    found = await ctx.step(a)
    await ctx.wait_for(signal="go")
    return found


async def b_and_c(ctx: WorkflowContext) -> list[str]:
    return list(await ctx.gather(ctx.step(b), ctx.step(c)))


async def side_by_side(ctx: WorkflowContext) -> list[Any]:
    return list(await ctx.gather(a_and_wait(ctx), b_and_c(ctx)))


async def in_another_order(ctx: WorkflowContext) -> list[Any]:
    return list(await ctx.gather(b_and_c(ctx), a_and_wait(ctx)))


async def one_gathers(ctx: WorkflowContext) -> list[Any]:
    async def member() -> Any:
        return await ctx.gather(ctx.step(undo), ctx.step(a))

    return list(await ctx.gather(member(), b_and_c(ctx)))


async def one_does_not_gather(ctx: WorkflowContext) -> list[Any]:
    return list(await ctx.gather(a_and_wait(ctx), ctx.step(undo)))


async def nobody_then_wait(ctx: WorkflowContext) -> str:
    await ctx.gather()
    return await a_and_wait(ctx)


async def undo_then_wait(ctx: WorkflowContext) -> str:
    await ctx.step(undo)
    return await a_and_wait(ctx)


async def one_then_wait(ctx: WorkflowContext) -> str:
    await ctx.gather(ctx.step(b))
    return await a_and_wait(ctx)


async def two_then_wait(ctx: WorkflowContext) -> str:
    await ctx.gather(ctx.step(b), ctx.step(undo))
    return await a_and_wait(ctx)


@pytest.mark.parametrize(
    ("began", "changed", "recorded", "now"),
    [
        (side_by_side, in_another_order, "a@1.1", "b@1.1"),
        (side_by_side, one_gathers, "a@1.1", "undo@1.1"),
        (side_by_side, one_does_not_gather, "c@1.2", "undo"),
        (nobody_then_wait, undo_then_wait, "wait_for", "undo"),
        (one_then_wait, two_then_wait, "wait_for", "undo"),
    ],
)
def test_a_call_that_is_new_among_those_that_are_recorded_hands_over(
    storage: MemoryStorage,
    began: Callable[..., Any],
    changed: Callable[..., Any],
    recorded: str,
    now: str,
) -> None:
    """Where no call was, in another line of calls, it was made: the old ones ran once more."""
    kernel = deployed(storage, began)
    execution_id = kernel.start("flow")
    kernel.run_until_idle()
    calls.clear()
    other = deployed(storage, changed)
    other.signal(execution_id, "go")
    other.run_until_idle()
    found = other.executions.get(execution_id)
    assert found is not None and calls == []
    reason = why_handed_over(other, found)
    assert f"recorded is {recorded} at" in reason and f"; now {now} at" in reason
    back = taken_up(deployed(storage, began), found)
    assert (back.status, calls) == (ExecutionStatus.COMPLETED, [])


def test_code_that_ends_without_a_recorded_call_hands_over(storage: MemoryStorage) -> None:
    broken.add("b")
    execution = deployed(storage, a_then_b).run("flow")
    other = deployed(storage, nothing)
    reason = why_handed_over(other, resumed(other, execution))
    assert "recorded is a at" in reason and "the workflow ends without it" in reason


@pytest.mark.parametrize("closed", [True, False])
def test_beside_kernels_that_are_closed_nobody_is_handed_changed_code(
    storage: MemoryStorage, closed: bool
) -> None:
    """The error is there to be seen: nobody else would go on with it, ever."""

    async def before(ctx: WorkflowContext) -> None:
        await ctx.step(a)
        await ctx.wait_for(signal="go")

    async def after(ctx: WorkflowContext) -> None:
        await ctx.step(b)
        await ctx.wait_for(signal="go")

    first = deployed(storage, before)
    execution_id = first.start("flow")
    first.run_until_idle()
    if closed:
        first.close()
        first.close()
    second = deployed(storage, after)
    second.signal(execution_id, "go")
    second.run_until_idle()
    found = see(second, execution_id)
    assert found.status is (ExecutionStatus.FAILED if closed else ExecutionStatus.RUNNING)


def test_that_the_code_has_changed_can_not_be_held_up(storage: MemoryStorage) -> None:
    """It is no failure that the workflow could deal with."""

    async def stubborn(ctx: WorkflowContext) -> list[str]:
        try:
            await ctx.step(c)
        except BaseException:
            await ctx.step(b)
        return ["held up"]

    broken.add("b")
    execution = deployed(storage, a_then_b).run("flow")
    calls.clear()
    other = deployed(storage, stubborn)
    assert "now c at" in why_handed_over(other, resumed(other, execution)) and calls == []


def test_a_change_at_the_end_needs_nothing(storage: MemoryStorage) -> None:
    """What has not been reached yet may change."""

    async def a_then_c(ctx: WorkflowContext) -> list[str]:
        return [await ctx.step(a), await ctx.step(c)]

    broken.add("b")
    execution = deployed(storage, a_then_b).run("flow")
    found = resumed(deployed(storage, a_then_c), execution)
    assert found.output == ["a", "c"]


# -- patched and version ---------------------------------------------------------------------------


async def patched(ctx: WorkflowContext) -> list[str]:
    found = []
    if ctx.patched("c-first"):
        found.append(await ctx.step(c))
    return [*found, await ctx.step(a), await ctx.step(b)]


def test_a_patch_lets_old_executions_go_on_as_they_began(storage: MemoryStorage) -> None:
    broken.add("b")
    old = deployed(storage, a_then_b).run("flow")
    new_kernel = deployed(storage, patched)
    new = new_kernel.run("flow")
    assert [run.step_id for run in new.steps] == ["version.c-first", "c", "a", "b"]
    broken.clear()
    assert resumed(new_kernel, old).output == ["a", "b"]
    assert resumed(new_kernel, new).output == ["c", "a", "b"]


def test_versions_are_counted_and_stay(storage: MemoryStorage) -> None:
    def versioned(newest: int) -> Callable[..., Any]:
        async def flow(ctx: WorkflowContext) -> list[Any]:
            found: list[Any] = [ctx.version("price", newest)]
            await ctx.step(a)
            found.append(ctx.version("price", newest))
            await ctx.step(b)
            return found

        return flow

    async def flow_without(ctx: WorkflowContext) -> list[Any]:
        await ctx.step(a)
        await ctx.step(b)
        return []

    broken.add("b")
    before = deployed(storage, flow_without).run("flow")
    two = deployed(storage, versioned(2)).run("flow")
    newest = deployed(storage, versioned(3))
    three = newest.run("flow")
    broken.clear()
    found = [resumed(newest, each).output for each in (before, two, three)]
    assert found == [[1, 1], [2, 2], [3, 3]]


def test_a_version_below_one_is_refused(storage: MemoryStorage) -> None:
    async def flow(ctx: WorkflowContext) -> int:
        return ctx.version("price", 0)

    assert "1 or more" in str(deployed(storage, flow).run("flow").error)


# -- another process -------------------------------------------------------------------------------


def test_another_version_is_another_code(storage: MemoryStorage) -> None:
    broken.add("b")
    execution = deployed(storage, a_then_b).run("flow")
    kernel = deployed(storage, c_then_b, version=2)
    with pytest.raises(AutomateError, match="no code for version 1 of workflow 'flow'") as caught:
        kernel.workflows.program(execution.definition_id)
    assert caught.value.code is ErrorCodes.NOT_FOUND
    assert __name__ in str(caught.value)
    kernel.workflow(name="flow", version=1)(a_then_b)
    broken.clear()
    assert resumed(kernel, execution).output == ["a", "b"]


def test_other_triggers_are_the_same_code(storage: MemoryStorage) -> None:
    broken.add("b")
    execution = deployed(storage, a_then_b).run("flow")
    kernel = Kernel(storage, discover=False, secrets={})
    kernel.workflow(name="flow", on="order.created")(a_then_b)
    broken.clear()
    assert resumed(kernel, execution).output == ["a", "b"]


# -- resuming --------------------------------------------------------------------------------------


async def a_or_c_then_b(ctx: WorkflowContext) -> list[str]:
    try:
        found = await ctx.step(a)
    except StepFailedError:
        found = await ctx.step(c)
    return [found, await ctx.step(b)]


def test_a_failure_that_was_dealt_with_stays(storage: MemoryStorage) -> None:
    """To run it again could lead elsewhere than the record does."""
    broken.update("ab")
    kernel = deployed(storage, a_or_c_then_b)
    execution = kernel.run("flow")
    assert calls == ["a", "c", "b"]
    broken.clear()
    found = resumed(kernel, execution)
    assert (found.output, calls) == (["c", "b"], ["a", "c", "b", "b"])


def test_a_copy_keeps_a_failure_that_was_dealt_with(storage: MemoryStorage) -> None:
    """It goes the way that the original went, from the step on that it is to run."""
    broken.add("a")
    kernel = deployed(storage, a_or_c_then_b)
    execution = kernel.run("flow")
    broken.clear()
    calls.clear()
    copy = kernel.executions.fork(execution.id, "b")
    kernel.run_until_idle()
    found = see(kernel, copy)
    assert (found.output, calls) == (["c", "b"], ["b"])


def test_members_that_failed_run_again_and_the_others_do_not(storage: MemoryStorage) -> None:
    async def two(ctx: WorkflowContext) -> list[str]:
        return [await ctx.step(a), await ctx.step(b)]

    async def flow(ctx: WorkflowContext) -> list[Any]:
        return list(await ctx.gather(ctx.step(a), ctx.step(c), two(ctx)))

    broken.update("bc")
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    broken.clear()
    calls.clear()
    found = resumed(kernel, execution)
    assert found.output == ["a", "c", ["a", "b"]]
    assert sorted(calls) == ["b", "c"]


def test_a_mistake_between_the_steps_is_mended_and_resumed(storage: MemoryStorage) -> None:
    async def mistaken(ctx: WorkflowContext) -> int:
        found = await ctx.step(a)
        return int(found)

    async def mended(ctx: WorkflowContext) -> int:
        found = await ctx.step(a)
        return len(found)

    execution = deployed(storage, mistaken).run("flow")
    assert "ValueError" in str(execution.error)
    found = resumed(deployed(storage, mended), execution)
    assert (found.output, calls) == (1, ["a"])


def test_from_a_step_all_that_follows_runs_again(storage: MemoryStorage) -> None:
    async def flow(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.step(a)
        return [first, *await ctx.gather(ctx.step(b), ctx.step(c)), await ctx.step(a)]

    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    calls.clear()
    assert resumed(kernel, execution, "b").status is ExecutionStatus.COMPLETED
    assert calls == ["b", "a"]
    calls.clear()
    resumed(kernel, execution, "a")
    assert sorted(calls) == ["a", "a", "b", "c"]
    with pytest.raises(WorkflowError, match="no step 'z'"):
        kernel.executions.resume(execution.id, step_id="z")


def test_what_was_undone_is_not_taken_for_done(storage: MemoryStorage) -> None:
    """An execution that has undone its steps goes on from a step that is named."""

    async def flow(ctx: WorkflowContext) -> str:
        await ctx.step(a)
        with ctx.compensate(undo):
            return await ctx.step(b)

    broken.add("b")
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    broken.clear()
    with pytest.raises(WorkflowError, match="has undone what it had done: undo") as refused:
        kernel.executions.resume(execution.id)
    assert "'a' is the last that can be" in str(refused.value)
    with pytest.raises(WorkflowError, match="before 'b': undo.*'a' is the last that can be"):
        kernel.executions.resume(execution.id, step_id="b")
    calls.clear()
    found = resumed(kernel, execution, "a")
    assert (found.output, calls) == ("b", ["a", "b"])


def test_a_compensation_that_failed_has_undone_nothing(storage: MemoryStorage) -> None:
    """As in a definition: what it was to undo is kept, and the step that failed runs again."""

    async def flow(ctx: WorkflowContext) -> str:
        await ctx.step(a)
        with ctx.compensate(undo):
            return await ctx.step(b)

    async def nested(ctx: WorkflowContext) -> str:
        await ctx.step(a)
        with ctx.compensate(undo):
            await ctx.step(c)
            with ctx.compensate(release):
                return await ctx.step(b)

    broken.update(("b", "undo"))
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    assert "not undone: 'undo'" in str(execution.error)
    from_step = kernel.run("flow")
    broken.clear()
    calls.clear()
    assert (resumed(kernel, execution).output, calls) == ("b", ["b"])
    assert (resumed(kernel, from_step, "b").output, calls) == ("b", ["b", "b"])
    # Beside one that has undone its part, that part alone runs again.
    broken.update(("b", "undo"))
    kernel = deployed(storage, nested, name="nested")
    execution = kernel.run("nested")
    broken.clear()
    with pytest.raises(WorkflowError, match="done: release, undo .*'c' is the last that can be"):
        kernel.executions.resume(execution.id)
    calls.clear()
    assert (resumed(kernel, execution, "c").output, calls) == ("b", ["c", "b"])


def test_the_step_to_go_on_from_lies_before_all_that_was_undone_at_the_end(
    storage: MemoryStorage,
) -> None:
    """What was undone earlier, and dealt with, doesn't count; nor do calls of one gather."""

    async def flow(ctx: WorkflowContext) -> str:
        with contextlib.suppress(StepFailedError):
            with ctx.compensate(undo, name="undo_early"):
                await ctx.step(a)
        await ctx.step(c)
        await ctx.step(c)
        with ctx.compensate(release), ctx.compensate(undo):
            await ctx.step(c)
            return await ctx.step(b)

    broken.update("ab")
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    broken.clear()
    with pytest.raises(WorkflowError, match="'c#2' is the last that can be") as refused:
        kernel.executions.resume(execution.id)
    assert "done: undo, release" in str(refused.value)
    calls.clear()
    assert (resumed(kernel, execution, "c#2").output, calls) == ("b", ["c", "c", "b"])

    async def side_by_side(ctx: WorkflowContext) -> None:
        await ctx.gather(ctx.step(a), ctx.step(c))
        with ctx.compensate(undo):
            await ctx.step(b)

    broken.add("b")
    kernel = deployed(storage, side_by_side, name="beside")
    execution = kernel.run("beside")
    with pytest.raises(WorkflowError, match="name a step before what was undone, to go on from"):
        kernel.executions.resume(execution.id)


def test_events_that_mended_code_waits_for_count_from_the_resume_on(storage: MemoryStorage) -> None:
    """They may come before the call that waits; no execution has waited for such a one before."""

    async def flow(ctx: WorkflowContext) -> Any:
        return await ctx.step(b)

    async def mended(ctx: WorkflowContext) -> Any:
        await ctx.step(b)
        await ctx.sleep("1h")
        return (await ctx.wait_for("order.packed")).payload

    broken.add("b")
    execution = deployed(storage, flow).run("flow")
    broken.clear()
    kernel = deployed(storage, mended)
    assert kernel.executions.resume(execution.id)
    kernel.run_until_idle()
    kernel.emit("order.packed", {"n": 1})
    kernel.run_until_idle()
    storage.skip(3600)
    kernel.run_until_idle()
    found = kernel.executions.get(execution.id)
    assert found is not None and (found.status, found.output) == ("COMPLETED", {"n": 1})


def test_what_was_undone_and_dealt_with_is_history(storage: MemoryStorage) -> None:
    async def flow(ctx: WorkflowContext) -> str:
        try:
            with ctx.compensate(undo):
                await ctx.step(a)
        except StepFailedError:
            pass
        return await ctx.step(b)

    broken.update("ab")
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    broken.clear()
    found = resumed(kernel, execution)
    assert (found.output, calls) == ("b", ["a", "undo", "b", "b"])


async def a_then_close(ctx: WorkflowContext) -> str:
    await ctx.step(b)
    try:
        return await ctx.step(a)
    finally:
        await ctx.step(c)


def test_steps_after_the_failure_need_the_step_to_go_on_from(storage: MemoryStorage) -> None:
    """It said that it went on, and failed with the recorded failure without a call."""
    broken.add("a")
    kernel = deployed(storage, a_then_close)
    execution = kernel.run("flow")
    broken.clear()
    with pytest.raises(WorkflowError, match="has gone on after 'a' did not complete: c") as refused:
        kernel.executions.resume(execution.id)
    assert "from 'a' all of it runs again" in str(refused.value)
    calls.clear()
    assert (resumed(kernel, execution, "a").output, calls) == ("a", ["a", "c"])


def test_steps_after_the_end_of_the_time_need_the_step_to_go_on_from(
    storage: MemoryStorage,
) -> None:
    """What followed the interruption stood where the next step was: the code had not changed."""
    kernel = Kernel(storage, discover=False, secrets={})

    @kernel.workflow(timeout="2d")
    async def flow(ctx: WorkflowContext) -> str:
        try:
            await ctx.wait_for(signal="go")
            return await ctx.step(a)
        finally:
            await ctx.step(c)

    execution_id = kernel.start(flow)
    kernel.run_until_idle()
    storage.skip(3 * 86_400)
    kernel.run_until_idle()
    execution = kernel.executions.get(execution_id)
    assert execution is not None and calls == ["c"]
    assert execution.error == "the workflow took too long"
    with pytest.raises(WorkflowError, match="has gone on after 'wait_for' did not complete: c"):
        kernel.executions.resume(execution_id)
    assert resumed(kernel, execution, "wait_for").status is ExecutionStatus.RUNNING
    kernel.signal(execution_id, "go")
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None and (found.output, calls) == ("a", ["c", "a", "c"])


@pytest.mark.parametrize("undoes", [False, True])
def test_what_was_interrupted_beside_the_named_step_runs_anew(
    storage: MemoryStorage, undoes: bool
) -> None:
    """With what came after it, unless that has undone what is kept."""

    async def waiting(ctx: WorkflowContext) -> str:
        with ctx.compensate(undo) if undoes else contextlib.nullcontext():
            try:
                await ctx.wait_for(signal="go")
            finally:
                await ctx.step(c)
            return await ctx.step(a)

    async def flow(ctx: WorkflowContext) -> list[str]:
        return list(await ctx.gather(waiting(ctx), waiting(ctx)))

    kernel = deployed(storage, flow)
    execution_id = kernel.start("flow")
    kernel.run_until_idle()
    kernel.executions.cancel(execution_id)
    kernel.run_until_idle()
    execution = kernel.executions.get(execution_id)
    assert execution is not None and calls.count("undo") == 2 * undoes
    if undoes:
        with pytest.raises(WorkflowError, match="done beside 'wait_for@1.1': undo@1.2"):
            kernel.executions.resume(execution_id, step_id="wait_for@1.1")
        return
    calls.clear()
    assert resumed(kernel, execution, "wait_for@1.1").status is ExecutionStatus.RUNNING
    for _ in range(2):
        kernel.signal(execution_id, "go")
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None and (found.output, sorted(calls)) == (["a", "a"], ["a", "a", "c", "c"])


async def undoing(ctx: WorkflowContext) -> str:
    with ctx.compensate(release), ctx.compensate(undo):
        await ctx.step(a)
        await ctx.wait_for(signal="go")
        return await ctx.step(b)


@pytest.mark.parametrize("end", ["fails", "is cancelled", "has no time", "goes well"])
def test_a_compensation_that_failed_is_tried_once_more_by_hand(
    storage: MemoryStorage, end: str
) -> None:
    """That alone: others were called again, and what was cancelled went on as if it were not."""
    kernel = Kernel(storage, discover=False, secrets={})

    async def flow(ctx: WorkflowContext) -> str:
        try:
            return await undoing(ctx)
        except StepFailedError:
            if end != "goes well":
                raise
            return await ctx.step(c)

    kernel.workflow(timeout="2d")(flow)
    broken.update({"undo", "b"})
    execution_id = kernel.start("flow")
    kernel.run_until_idle()
    if end == "is cancelled":
        kernel.executions.cancel(execution_id)
    elif end == "has no time":
        storage.skip(3 * 86_400)
    else:
        kernel.signal(execution_id, "go")
    kernel.run_until_idle()
    before = kernel.executions.get(execution_id)
    calls.clear()
    for times in (1, 2):
        assert kernel.executions.retry_step(execution_id, "undo")
        kernel.run_until_idle()
        found = kernel.executions.get(execution_id)
        assert before is not None and found is not None
        assert (found.status, found.output) == (before.status, before.output)
        assert calls == ["undo"] * times
        assert found.error == before.error if times == 1 else "undo" not in str(found.error)
        broken.clear()
    codes = {"is cancelled": None, "goes well": None, "has no time": "DEADLINE_EXCEEDED"}
    assert found.error_code == codes.get(end, "INVALID_ARGUMENT")


def test_nothing_goes_on_from_what_was_undone(storage: MemoryStorage) -> None:
    """A step ran again though all that it needs was undone, and was kept as done."""

    async def flow(ctx: WorkflowContext) -> str:
        await ctx.step(c)
        with ctx.compensate(release):
            await ctx.step(a)
            with ctx.compensate(undo):
                return await ctx.step(b)

    broken.update({"undo", "b"})
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    executions = kernel.executions
    calls.clear()
    broken.clear()
    ways: list[Callable[[str], Any]] = [
        partial(executions.retry_step, execution.id),
        lambda step_id: executions.resume(execution.id, step_id=step_id),
        partial(executions.fork, execution.id),
    ]
    for go_on in ways:
        with pytest.raises(
            WorkflowError, match="undone what it had done before 'b': undo, release"
        ):
            go_on("b")
    for go_on in ways[1:]:
        with pytest.raises(WorkflowError, match="had done before 'a': release"):
            go_on("a")
        with pytest.raises(WorkflowError, match="'undo' undoes what was done.*retry_step tries it"):
            go_on("undo")
    kernel.run_until_idle()
    assert calls == []
    copy = executions.fork(execution.id, "c")
    kernel.run_until_idle()
    assert (executions.output(copy), calls) == ("b", ["c", "a", "b"])
    assert resumed(kernel, execution, "c").output == "b"


def test_what_was_done_beside_the_named_step_may_be_undone_from_around(
    storage: MemoryStorage,
) -> None:
    async def flow(ctx: WorkflowContext) -> tuple[str, ...]:
        with ctx.compensate(undo):
            return await ctx.gather(ctx.step(a), ctx.step(b))

    broken.add("b")
    kernel = deployed(storage, flow)
    execution = kernel.run("flow")
    with pytest.raises(WorkflowError, match="has undone what it had done before 'b': undo"):
        kernel.executions.retry_step(execution.id, "b")


# -- the record ------------------------------------------------------------------------------------


@given(
    st.text(max_size=30).filter(lambda text: "\n" not in text and "\r" not in text),
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["", "sleep", "workflow"]),
    st.none() | st.integers(0, 10**6),
)
def test_a_place_is_read_as_it_was_written(
    line: str, path: list[int], undoes: bool, kind: str, since: int | None
) -> None:
    place = CallPlace(line, tuple(path), undoes, kind, since)
    read = CallPlace.read(str(place))
    assert read is not None and (read.path, read.undoes) == (place.path, undoes)
    assert (read.kind, read.since) == (kind, since)


@pytest.mark.parametrize("text", [None, "", "flows.py:12", "flows.py:12 (call )", "x (call 1.a)"])
def test_another_text_is_no_place(text: str | None) -> None:
    assert CallPlace.read(text) is None


def test_a_record_reaches_as_far_as_its_scope() -> None:
    runs = [
        StepRun(execution_id="x", step_id=f"s{n}", status=StepStatus.COMPLETED, place=str(place))
        for n, place in enumerate([CallPlace("f:1", (1,)), CallPlace("f:2", (2, 1, 3))])
    ]
    record = Record(runs)
    assert record.reaches((), 2) and not record.reaches((), 3)
    assert record.reaches((2, 1), 3) and not record.reaches((2, 1), 4)
    assert not record.reaches((2, 2), 1)


PLACES = [(1,), (2, 1, 1), (2, 1, 2), (2, 2, 1), (3,)]


def recorded(*paths: tuple[int, ...]) -> tuple[Record, dict[tuple[int, ...], CallPlace]]:
    """Return the record of a call at each of *paths*, and the places."""
    places = {path: CallPlace(f"f:{n}", path) for n, path in enumerate(paths)}
    runs = [
        StepRun(execution_id="x", step_id=str(path), status=StepStatus.COMPLETED, place=str(place))
        for path, place in places.items()
    ]
    return Record(runs), places


@pytest.mark.parametrize(
    ("repeated", "inside", "missing"),
    [
        ([], (), (1,)),
        ([(1,)], (), (2, 1, 1)),
        ([(1,), (1,)], (), (2, 1, 1)),
        ([(1,)], (2,), (2, 1, 1)),
        ([(1,)], (2, 2), (2, 2, 1)),
        ([(2, 1, 1)], (2, 1), (2, 1, 2)),
        ([(2, 1, 1), (2, 1, 1)], (2, 1), (2, 1, 2)),
        ([(2, 2, 1)], (2, 2), None),
        ([(2, 1, 1), (2, 1, 2)], (2,), (2, 2, 1)),
        ([path for path in PLACES if path != (2, 2, 1)], (), (2, 2, 1)),
        (PLACES, (), None),
    ],
)
def test_a_record_names_the_first_call_that_is_missing(
    repeated: list[tuple[int, ...]], inside: tuple[int, ...], missing: tuple[int, ...] | None
) -> None:
    """Not one that was repeated, however often; and of a gather, not one outside it."""
    record, places = recorded(*PLACES)
    for path in repeated:
        assert record.check(str(path), places[path]) is None
    problem = record.unrepeated(inside=inside)
    assert (problem is None) == (missing is None)
    if problem is not None:
        assert f"recorded is {missing} at {places[missing or ()]};" in problem.message


@pytest.mark.parametrize(
    ("path", "goes_on"),
    [
        ((1,), True), ((3,), False), ((2,), True), ((2, 2), True), ((2, 1, 1), True),
        ((2, 1, 2), False), ((2, 2, 1), False),
    ],
)  # fmt: skip
def test_a_record_goes_on_after_a_call_in_its_line(path: tuple[int, ...], goes_on: bool) -> None:
    """A member of a gather that is a call itself is in the line of the gather."""
    record, _ = recorded(*PLACES)
    assert record.goes_on_after(path) is goes_on


def test_a_worker_without_the_code_hands_the_execution_on(storage: MemoryStorage) -> None:
    """It neither fails nor is lost: a process that has the code runs it."""
    other = Kernel(storage, discover=False, secrets={})
    other.workflow(name="another")(c_then_b)
    execution_id = deployed(storage, a_then_b).start("flow")
    other.run_until_idle()
    found = other.executions.get(execution_id)
    assert found is not None and found.status is ExecutionStatus.PENDING
    item = other.outbox.get(found.item_id or "")
    assert item is not None and item.last_error_code == "UNKNOWN_CODE" and item.handover
    assert "has no code for version 1 of workflow 'flow'" in str(item.last_error)
    assert calls == []
    other.outbox.reschedule([item.id])
    deployed(storage, a_then_b).run_until_idle()
    found = other.executions.get(execution_id)
    assert found is not None and found.output == ["a", "b"], found.error


def test_a_step_of_a_test_is_replaced_by_its_function(storage: MemoryStorage) -> None:
    """A function needs no name of an action to be replaced."""
    kernel = deployed(storage, a_then_b)
    with kernel.replace(a, "fake") as replaced:
        assert kernel.run("flow").output == ["fake", "b"]
    assert (len(replaced.calls), calls) == (1, ["b"])
    assert kernel.run("flow").output == ["a", "b"]


def test_a_dry_run_of_code_is_refused(storage: MemoryStorage) -> None:
    with pytest.raises(AutomateError, match="can't be foreseen"):
        deployed(storage, a_then_b).dry_run("flow")


# -- chance ----------------------------------------------------------------------------------------


async def by_chance(ctx: WorkflowContext) -> list[str]:
    async def member() -> str:
        return await ctx.step(a if ctx.random() < 0.5 else b)

    found = [await ctx.step(a if ctx.random() < 0.5 else b), str(ctx.uuid())]
    found += await ctx.gather(member(), member())
    return [*found, await ctx.step(c), str(ctx.uuid())]


def test_a_fork_draws_what_the_original_drew(storage: MemoryStorage) -> None:
    """It made other calls than are recorded; a copy of a copy, and of what is purged, as well."""
    kernel = deployed(storage, by_chance)
    for _ in range(20):
        first = kernel.run("flow")
        copy = first.id
        for _ in range(3):
            copy = kernel.executions.fork(copy, "c")
            kernel.run_until_idle()
            assert kernel.executions.output(copy) == first.output
    fresh = kernel.start_again(first.id)
    assert kernel.executions.purge(older_than_seconds=0.0, limit=1000) == 80
    kernel.run_until_idle()
    assert kernel.executions.output(fresh)[1] != first.output[1]


@pytest.mark.parametrize("how", ["resume", "retry_step", "fork"])
def test_what_goes_on_draws_the_same(storage: MemoryStorage, how: str) -> None:
    """Also while what it was forked from is gone, and once more on the next failure."""
    broken.add("c")
    kernel = deployed(storage, by_chance)
    first = kernel.run("flow")
    execution_id = kernel.executions.fork(first.id, "c")
    kernel.run_until_idle()
    drawn = [run.step_id for run in first.steps]
    kernel.executions.purge(older_than_seconds=0.0, limit=1)
    broken.clear()
    if how == "resume":
        assert kernel.executions.resume(execution_id)
    elif how == "retry_step":
        assert kernel.executions.retry_step(execution_id, "c")
    else:
        execution_id = kernel.executions.fork(execution_id, "c")
    kernel.run_until_idle()
    found = kernel.executions.get(execution_id)
    assert found is not None and found.status is ExecutionStatus.COMPLETED, found and found.error
    assert [run.step_id for run in found.steps] == drawn


def test_the_links_of_a_chain_draw_anew(storage: MemoryStorage) -> None:
    """A fork in the middle doesn't make them equal."""

    async def flow(ctx: WorkflowContext, number: int) -> str:
        await ctx.step(a)
        if number < 3:
            ctx.continue_as_new(number + 1)
        return str(ctx.uuid())

    kernel = deployed(storage, flow)
    first = kernel.start("flow", 0)
    kernel.run_until_idle()
    kernel.executions.fork(first, "a")
    kernel.run_until_idle()
    outputs = [each.output for each in kernel.executions.find() if each.output]
    assert len(outputs) == 2 == len({*outputs})


# -- what a replay sees ----------------------------------------------------------------------------

STRANGE = ["a\0b", "half \ud83d", "\udc80", "x" * 20_000]


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("how", ["step", "child"])
def test_a_replay_sees_the_error_that_the_first_run_saw(
    storage: MemoryStorage, text: str, how: str
) -> None:
    """What no database takes, or not all of, was there once and gone after a pause."""
    seen: list[tuple[str, ...]] = []

    def fail() -> None:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, text)

    async def child(ctx: WorkflowContext) -> None:
        await ctx.step(fail)

    async def flow(ctx: WorkflowContext) -> None:
        try:
            await (ctx.step(fail) if how == "step" else ctx.child(child))
        except StepFailedError as error:
            seen.append((str(error), error.message, str(error.code), str(error.group)))
        await ctx.wait_for(signal="go")
        if how == "step":
            await ctx.step(fail)

    kernel = deployed(storage, flow)
    kernel.workflow(child)
    execution_id = kernel.start("flow")
    kernel.run_until_idle()
    kernel.signal(execution_id, "go")
    kernel.run_until_idle()
    assert len(seen) > 1 and len({*seen}) == 1
    if how == "step":
        execution = kernel.run("child")
        found = kernel.executions.get(execution.id)
        assert found is not None and found.error == execution.error
        assert [run.error for run in found.steps] == [run.error for run in execution.steps]


async def three_waits(ctx: WorkflowContext) -> list[Any]:
    async def later() -> Any:
        await ctx.wait_for(signal="ready")
        return await ctx.wait_for("paid")

    found = await ctx.gather(later(), ctx.wait_for("paid", name="x"), ctx.wait_for("paid"))
    return [event.payload for event in found]


@pytest.mark.parametrize("together", [False, True])
def test_waits_side_by_side_take_events_in_the_order_in_which_they_are_written(
    storage: MemoryStorage, together: bool
) -> None:
    """They took them by the hashes of their keys: another order in each execution."""
    kernel = deployed(storage, three_waits)
    ids = [kernel.start("flow") for _ in range(12)]
    kernel.run_until_idle()
    for execution_id in ids:
        kernel.signal(execution_id, "ready")
    kernel.run_until_idle()
    for number in range(3):
        kernel.emit("paid", number)
        if not together:
            kernel.run_until_idle()
    kernel.run_until_idle()
    assert [kernel.executions.output(each) for each in ids] == [[0, 1, 2]] * 12
