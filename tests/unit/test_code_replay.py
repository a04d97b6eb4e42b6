"""Workflows in code under crashes: any program, killed anywhere, ends as if it had run at once."""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Event,
    Execution,
    Kernel,
    StepFailedError,
    StepRun,
    SyncWorkflowContext,
    WorkflowContext,
)
from automate_kernel.operations.context import Call
from automate_kernel.workflows.decide.activation import Activation
from automate_kernel.workflows.decide.waits import Arrived, OpenWait
from automate_kernel.workflows.decide.turn import CallOutcome, StepCall, Turn
from automate_kernel.workflows.drive.flow import needs_saving
from automate_kernel.workflows.decide.replay import CodeProgram
from automate_kernel.workflows.execution import ExecutionStatus, StepKey, StepStatus
from example_counts import examples
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from automate_kernel.storage.values import encode_json
from datetime import datetime, timezone

NOW = datetime(2026, 5, 4, tzinfo=timezone.utc)
SLOW = [HealthCheck.too_slow]


class CrashError(Exception):
    """The worker is killed."""


class Scene:
    """An execution that is driven in memory: its rows, and the calls that were made."""

    def __init__(self, kernel: Kernel, workflow: str, payload: Any, execution_id: str = "") -> None:
        self.kernel = kernel
        definition = kernel.workflows.get(workflow)
        program = kernel.workflows.program(definition.hash())
        assert isinstance(program, CodeProgram)
        self.program = program
        self.id = execution_id or str(uuid.uuid4())
        self.event = Event(id="e", name=workflow, payload=payload, type="manual")
        self.rows: dict[StepKey, StepRun] = {}
        self.calls: Counter[str] = Counter()
        self.waits: dict[StepKey, int] = {}
        self.error: tuple[str, str] | None = None
        self.output: Any = None
        self.end: ExecutionStatus | None = None
        self.cancelled: bool = False

    def drive(self, crashes: Iterator[bool], left: float | None = None) -> None:
        """Let one worker have it, until it ends or *crashes* kills the worker."""
        execution = Execution(
            id=self.id, name=self.event.name, definition_id="", event=self.event,
            steps=[copy.deepcopy(run) for run in self.rows.values()],
        )  # fmt: skip
        if self.cancelled:
            execution.status = ExecutionStatus.CANCELLING
        if self.error is not None:
            execution.error_code, execution.error = self.error
        waiting = [run for run in self.rows.values() if run.status is StepStatus.WAITING]
        came = {
            run.key: Arrived(OpenWait("", "event", {}), self._events_of(run))
            for run in waiting if "wait_for" in run.step_id
        }  # fmt: skip
        waits = {run.key: 0.0 for run in waiting if run.key not in came}
        flow = self.program.replay(
            Activation(execution=execution, waits=waits, left=left, arrived=came, now=NOW)
        )
        try:
            turn = next(flow)
            while True:
                self._save(execution, turn, crashes)
                if turn.last:
                    return
                outcomes = [self._call(call) for call in turn.calls]
                self._maybe(crashes)
                turn = flow.send((outcomes, 1.0))
        except CrashError:
            pass
        finally:
            flow.close()

    def _events_of(self, run: StepRun) -> list[Event]:
        """Return what comes for a wait while it waits: another's event, then its own, twice."""
        number = self.waits[run.key]
        payloads = [{"n": -1}, {"n": number}, {"n": number}]
        return [
            Event(id=f"{run.step_id}-{place}", name="came", payload=payload)
            for place, payload in enumerate(payloads)
        ]

    def _maybe(self, crashes: Iterator[bool]) -> None:
        if next(crashes, False):
            raise CrashError

    def _save(self, execution: Execution, turn: Turn, crashes: Iterator[bool]) -> None:
        if not needs_saving(turn):
            return
        self._maybe(crashes)
        for run in turn.saves:
            known = self.rows.get(run.key)
            assert known is None or not known.status.finished, f"{run.key} is saved twice"
            self.rows[run.key] = copy.deepcopy(run)
        for wait in turn.waits:
            assert self.rows[wait.run.key].status is StepStatus.WAITING
            self.waits[wait.run.key] = wait.details["match"]["n"] if wait.key else 0
        if execution.error_code is not None and (turn.failed or turn.end):
            self.error = execution.error_code, execution.error or ""
        if turn.end is not None:
            self.end, self.output = turn.end, turn.output
        self._maybe(crashes)

    def _call(self, call: StepCall) -> CallOutcome:
        known = self.rows.get(call.run.key)
        assert known is None or not known.status.finished, f"{call.run.key} is called again"
        self.calls[call.run.step_id] += 1
        about = Call(call.step.action)
        try:
            output = self.kernel.operations.invoke(call.operation, call.input, call=about)
        except AutomateError as error:
            return CallOutcome(call, error=error)
        return CallOutcome(call, output, encoded=encode_json(output, "output"))

    def finish(self, crashes: Sequence[bool] = (), left: float | None = None) -> None:
        """Drive it to its end, a new worker after each crash."""
        killing = iter(crashes)
        for _ in range(len(crashes) + 200):
            if self.end is not None:
                return
            self.drive(killing, left)
        raise AssertionError("it does not end")


# -- programs --------------------------------------------------------------------------------------

Op = tuple[Any, ...]


def work(n: int) -> int:
    return n * 2


async def awork(n: int) -> int:
    return n * 2 + 1


def broken(n: int) -> int:
    raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"no {n}")


def undo(n: int) -> None:
    return None


def programs(*, coroutines: bool) -> st.SearchStrategy[list[Op]]:
    number = st.integers(0, 9)
    leaf: st.SearchStrategy[Op] = st.one_of(
        st.tuples(st.just("step"), number),
        st.tuples(st.just("step"), number),
        st.tuples(st.just("fail"), number),
        st.tuples(st.just("facts")),
        st.tuples(st.just("side by side"), st.lists(number, max_size=3)),
        st.tuples(st.just("half fail"), number),
        st.tuples(st.just("sleep"), number),
        st.tuples(st.just("wait"), number),
    )

    def larger(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
        block = st.lists(inner, max_size=3)
        kinds: list[st.SearchStrategy[Op]] = [
            st.tuples(st.just("if"), number, block, block),
            st.tuples(st.just("try"), block, block),
            st.tuples(st.just("undo"), number, block),
        ]
        if coroutines:
            kinds.append(st.tuples(st.just("gather"), st.lists(block, min_size=1, max_size=3)))
        return st.one_of(kinds)

    return st.lists(st.recursive(leaf, larger, max_leaves=8), max_size=4)


class Model:
    """What a program does when it simply runs: results, undone steps, and the error."""

    def __init__(self) -> None:
        self.undone: Counter[int] = Counter()

    def run(self, ops: Sequence[Op]) -> list[Any]:
        found: list[Any] = []
        for op in ops:
            match op:
                case ("step", n):
                    found.append(work(n) if n % 2 else n * 2 + 1)
                case ("fail", n):
                    raise StepFailedError("", ErrorCodes.INVALID_ARGUMENT, f"no {n}", None)
                case ("facts",):
                    found.append("facts")
                case ("side by side", numbers):
                    found.append([work(n) for n in numbers])
                case ("sleep", n):
                    found.append(None)
                case ("wait", n):
                    found.append(n)
                case ("half fail", n):
                    raise StepFailedError("", ErrorCodes.INVALID_ARGUMENT, f"no {n}", None)
                case ("if", n, yes, no):
                    found.append(self.run(yes if n % 3 else no))
                case ("try", block, handler):
                    try:
                        found.append(self.run(block))
                    except StepFailedError:
                        found.append(self.run(handler))
                case ("undo", n, block):
                    try:
                        found.append(self.run(block))
                    except StepFailedError:
                        self.undone[n] += 1
                        raise
                case ("gather", blocks):
                    found.append(self._gather(blocks))
        return found

    def _gather(self, blocks: Sequence[Sequence[Op]]) -> list[Any]:
        results, errors = [], []
        for block in blocks:
            try:
                results.append(self.run(block))
            except StepFailedError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results


async def interpret(ctx: WorkflowContext, ops: Sequence[Any], facts: list[Any]) -> list[Any]:
    found: list[Any] = []
    for op in map(tuple, ops):
        match op:
            case ("step", n):
                found.append(await (ctx.step(work, n) if n % 2 else ctx.step(awork, n)))
            case ("fail", n):
                await ctx.step(broken, n)
            case ("facts",):
                facts += [ctx.random(), str(ctx.uuid()), ctx.patched("change")]
                assert ctx.now() >= NOW
                found.append("facts")
            case ("side by side", numbers):
                found.append(list(await ctx.gather(*[ctx.step(work, n) for n in numbers])))
            case ("sleep", n):
                found.append(await ctx.sleep(n))
            case ("wait", n):
                found.append((await ctx.wait_for("came", match={"n": n})).payload["n"])
            case ("half fail", n):
                await ctx.gather(ctx.step(work, n), ctx.step(broken, n))
            case ("if", n, yes, no):
                chosen = yes if n % 3 else no
                found.append(await interpret(ctx, chosen, facts))
            case ("try", block, handler):
                try:
                    found.append(await interpret(ctx, block, facts))
                except StepFailedError:
                    found.append(await interpret(ctx, handler, facts))
            case ("undo", n, block):
                with ctx.compensate(undo, n, name=f"undo{n}"):
                    found.append(await interpret(ctx, block, facts))
            case ("gather", blocks):
                branches = [interpret(ctx, block, []) for block in blocks]
                found.append(list(await ctx.gather(*branches)))
    return found


def interpret_plainly(ctx: SyncWorkflowContext, ops: Sequence[Any], facts: list[Any]) -> list[Any]:
    found: list[Any] = []
    for op in map(tuple, ops):
        match op:
            case ("step", n):
                found.append(ctx.step(work, n) if n % 2 else ctx.step(awork, n))
            case ("fail", n):
                ctx.step(broken, n)
            case ("facts",):
                facts += [ctx.random(), str(ctx.uuid()), ctx.patched("change")]
                found.append("facts")
            case ("side by side", numbers):
                found.append(list(ctx.gather(*[ctx.later(work, n) for n in numbers])))
            case ("sleep", n):
                found.append(ctx.sleep(n))  # type: ignore[func-returns-value]
            case ("wait", n):
                found.append(ctx.wait_for("came", match={"n": n}).payload["n"])
            case ("half fail", n):
                ctx.gather(ctx.later(work, n), ctx.later(broken, n))
            case ("if", n, yes, no):
                found.append(interpret_plainly(ctx, yes if n % 3 else no, facts))
            case ("try", block, handler):
                try:
                    found.append(interpret_plainly(ctx, block, facts))
                except StepFailedError:
                    found.append(interpret_plainly(ctx, handler, facts))
            case ("undo", n, block):
                with ctx.compensate(undo, n, name=f"undo{n}"):
                    found.append(interpret_plainly(ctx, block, facts))
    return found


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(discover=False, secrets={}) as made:

        @made.workflow
        async def program(ctx: WorkflowContext, ops: list[Any]) -> dict[str, Any]:
            facts: list[Any] = []
            found = await interpret(ctx, ops, facts)
            return {"found": found, "facts": facts}

        @made.workflow
        def plainly(ctx: SyncWorkflowContext, ops: list[Any]) -> dict[str, Any]:
            facts: list[Any] = []
            found = interpret_plainly(ctx, ops, facts)
            return {"found": found, "facts": facts}

        yield made


def as_json(value: Any) -> Any:
    return [as_json(each) for each in value] if isinstance(value, (list, tuple)) else value


def check(kernel: Kernel, name: str, ops: list[Op], crashes: list[bool]) -> None:
    model, expected, error = Model(), None, None
    try:
        expected = model.run(ops)
    except StepFailedError as failed:
        error = failed.message
    at_once = Scene(kernel, name, as_json(ops))
    at_once.finish()
    crashed = Scene(kernel, name, as_json(ops), at_once.id)
    crashed.finish(crashes)
    for scene in (at_once, crashed):
        if error is None:
            assert scene.end is ExecutionStatus.COMPLETED, scene.error
            assert scene.output["found"] == expected
        else:
            assert scene.end is ExecutionStatus.FAILED
            assert error in (scene.error or ("", ""))[1]
        undone = Counter[int]()
        for run in scene.rows.values():
            assert run.status.finished
            if run.step_id.startswith("undo"):
                assert run.status is StepStatus.COMPLETED
                undone[int(run.step_id[4])] += 1
        assert undone == model.undone
    assert crashed.output == at_once.output
    assert {key: run.output for key, run in crashed.rows.items() if "now" not in key[0]} == {
        key: run.output for key, run in at_once.rows.items() if "now" not in key[0]
    }
    assert {run.place for run in crashed.rows.values()} == {
        run.place for run in at_once.rows.values()
    }


@settings(max_examples=examples(150), deadline=None, suppress_health_check=SLOW)
@given(programs(coroutines=True), st.lists(st.booleans(), max_size=25))
def test_a_program_that_is_killed_anywhere_ends_as_if_it_had_run_at_once(
    kernel: Kernel, ops: list[Op], crashes: list[bool]
) -> None:
    """No saved step is called again, and every compensation that is due is made once."""
    check(kernel, "program", ops, crashes)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=SLOW)
@given(programs(coroutines=False), st.lists(st.booleans(), max_size=25))
def test_a_plain_program_that_is_killed_anywhere_ends_as_if_it_had_run_at_once(
    kernel: Kernel, ops: list[Op], crashes: list[bool]
) -> None:
    """The same for a ``def``, whose thread is left at each crash."""
    check(kernel, "plainly", ops, crashes)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=SLOW)
@given(
    programs(coroutines=True),
    st.lists(st.booleans(), max_size=10),
    st.lists(st.booleans(), max_size=10),
    st.booleans(),
)
def test_a_program_that_is_cancelled_anywhere_is_undone(
    kernel: Kernel, ops: list[Op], before: list[bool], after: list[bool], plain: bool
) -> None:
    """Whatever blocks it was in are undone once, however often it is killed; nothing else runs."""
    if plain and "gather" in str(ops):
        return
    scene = Scene(kernel, "plainly" if plain else "program", as_json(ops))
    killing = iter([*before, True])
    for _ in range(before.count(True) + 1):
        if scene.end is None:
            scene.drive(killing)
    assume(scene.end is None)
    known = {key for key, run in scene.rows.items() if not key[0].startswith("undo")}
    scene.cancelled = True
    scene.finish(after)
    assert scene.end is ExecutionStatus.CANCELLED
    assert scene.output is None
    for key, run in scene.rows.items():
        assert run.status.finished
        if key[0].startswith("undo"):
            assert run.status is StepStatus.COMPLETED
        elif key not in known and not key[0].startswith(("now", "version")):
            assert run.status is StepStatus.CANCELLED


def test_what_is_undone_on_a_cancellation(kernel: Kernel) -> None:
    """The blocks around the wait, the inner one first; the outer coroutine's too."""
    program = [
        ("undo", 1, [("step", 1), ("undo", 2, [("step", 2)]), ("undo", 3, [("wait", 5)])]),
        ("step", 7),
    ]
    scene = Scene(kernel, "program", as_json(program))
    scene.drive(iter(()))
    assert scene.end is None
    scene.cancelled = True
    scene.finish()
    assert [key[0] for key in scene.rows] == [
        "work", "awork", "wait_for", "undo3", "undo1",
    ]  # fmt: skip
    assert scene.rows["wait_for", -1].status is StepStatus.CANCELLED
    assert scene.end is ExecutionStatus.CANCELLED
