"""Any two programs as old and new code: whoever has gone on last goes on, and nothing runs twice."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from example_counts import examples
from automate_kernel import (
    AutomateError,
    ErrorCodes,
    Kernel,
    MemoryStorage,
    StepFailedError,
    WorkflowContext,
)
from defined import see

Op = tuple[Any, ...]
Program = list[Op]
FAIL: Op = ("step", "fail")
LEAVES = ("step", "wait", "sleep", "now", "child")
BLOCKS = ("gather", "try", "undo", "patched", "version", "chance")

calls: Counter[tuple[str, str]] = Counter()


def made(random: Random, depth: int = 0) -> Program:
    """Return a program at random."""
    kinds = LEAVES if depth >= 3 else (*LEAVES, "step", "step", *BLOCKS)

    def parts(number: int) -> list[Program]:
        return [made(random, depth + 1) for _ in range(number)]

    def failing() -> Program:
        return [*made(random, depth + 1), *([FAIL] if random.random() < 0.5 else [])]

    makers: dict[str, Callable[[], Op]] = {
        "step": lambda: ("step", random.choice("abcd")),
        "gather": lambda: ("gather", *parts(random.randint(1, 3))),
        "try": lambda: ("try", failing(), *parts(1)),
        "undo": lambda: ("undo", failing()),
        "patched": lambda: ("patched", *parts(1), random.choice("xy")),
        "version": lambda: ("version", *parts(3), random.choice("vw"), random.randint(1, 3)),
        "chance": lambda: ("chance", *parts(2)),
    }
    found = (random.choice(kinds) for _ in range(random.randint(1, 3)))
    return [makers.get(kind, lambda kind=kind: (kind,))() for kind in found]  # type: ignore[misc]


def changed(random: Random, program: Program) -> Program:
    """Return *program* with a change somewhere inside."""
    program = copy.deepcopy(program)
    lists = [program]
    for each in lists:
        lists += [part for op in each for part in op[1:] if isinstance(part, list)]
    chosen = random.choice(lists)
    at = random.randint(0, len(chosen))
    new = made(random, 2)
    if random.random() < 0.3:
        new = [("patched", new, f"new{random.randint(0, 9)}")]
    chosen[at : at + random.choice((0, 0, 1, 9))] = new if random.random() < 0.8 else []
    return program


def flow_of(program: Program) -> Callable[..., Any]:
    """Return the workflow that does what *program* says."""

    def step(execution_id: str, name: str) -> str:
        calls[execution_id, name] += 1
        if name == "fail":
            raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "it is broken")
        return name

    async def run(ctx: WorkflowContext, program: Program) -> None:
        for kind, *given in program:
            if kind == "step":
                await ctx.step(step, ctx.execution_id, given[0], name=given[0])
            elif kind == "wait":
                await ctx.wait_for(signal="go")
            elif kind == "sleep":
                await ctx.sleep(5)
            elif kind == "now":
                ctx.now()
            elif kind == "child":
                await ctx.child("other")
            elif kind == "gather":
                await ctx.gather(*[run(ctx, each) for each in given])
            elif kind == "try":
                try:
                    await run(ctx, given[0])
                except StepFailedError:
                    await run(ctx, given[1])
            elif kind == "undo":
                with ctx.compensate(step, ctx.execution_id, "undone", name="undone"):
                    await run(ctx, given[0])
            elif kind == "patched":
                if ctx.patched(given[1]):
                    await run(ctx, given[0])
            elif kind == "version":
                await run(ctx, given[ctx.version(given[3], given[4]) - 1])
            else:
                await run(ctx, given[0 if ctx.random() < 0.5 else 1])

    async def flow(ctx: WorkflowContext) -> None:
        await run(ctx, program)

    return flow


def deployed(storage: MemoryStorage, program: Program) -> Kernel:
    kernel = Kernel(storage, discover=False, secrets={})
    kernel.workflow(name="flow")(flow_of(program))

    @kernel.workflow
    async def other(ctx: WorkflowContext) -> str:
        return "other"

    return kernel


def woken(kernel: Kernel, other: Kernel, execution_id: str) -> bool:
    """Return True if an execution has ended; *other* has it now if *kernel* has handed it over."""
    found = see(kernel, execution_id)
    if not found.status.finished and kernel.executions.handover(found):
        other.outbox.request_release([found.item_id or ""])
        other.run_until_idle()
        found = see(other, execution_id)
        assert found.status.finished or not other.executions.handover(found), "nobody goes on"
    return found.status.finished


# The last three call what follows a gather that has gone on elsewhere, if nothing sees to it.
@pytest.mark.parametrize("seed", [*range(examples(30, 10)), 103, 266, 884])
def test_any_two_programs_side_by_side(seed: int) -> None:
    """Woken in any order, cancelled at any time: each step of the record was called once."""
    calls.clear()
    random, storage = Random(seed), MemoryStorage()
    old = new = made(random)
    for _ in range(random.randint(1, 3)):
        new = changed(random, new)
    kernels = [deployed(storage, old), deployed(storage, new)]
    execution_id = random.choice(kernels).start("flow")
    cancelled_at = random.randint(1, 12) if random.random() < 0.3 else None
    for turn in range(80):
        kernel, other = random.sample(kernels, 2)
        if turn == cancelled_at:
            kernel.executions.cancel(execution_id)
        if random.random() < 0.6 and not see(kernel, execution_id).status.finished:
            kernel.signal(execution_id, "go")
        else:
            storage.skip(random.choice([1.0, 10.0, 400.0]))
        kernel.run_until_idle()
        if woken(kernel, other, execution_id):
            break
    found = see(kernels[0], execution_id)
    assert found.status.finished
    assert found.error is None or "it is broken" in found.error
    steps = Counter(run.step_id.partition("@")[0].partition("#")[0] for run in found.steps)
    for (_, name), number in calls.items():
        assert steps[name] == number
