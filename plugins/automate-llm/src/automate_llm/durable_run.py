"""Agents in a workflow: what they ask for is done in the workflow, as steps."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid5

from pydantic_ai import Agent, _agent_graph
from pydantic_ai.exceptions import AgentRunError, UserError

from automate_kernel import (
    StepFailedError,
    WorkflowContext,
)
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_llm.agent_loop import AgentLoop, Asked, CallAnswer, InlineExecutor
from automate_llm.model_errors import normal_error

T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]

_numbers = itertools.count()
_work: dict[str, Work] = {}
_current: ContextVar[DurableRun | None] = ContextVar("automate_llm_run", default=None)


def current_run() -> DurableRun | None:
    """Return the run whose agents' code this is, or None outside of one, and in a step of one."""
    return _current.get()


class DurableRun:
    """One call of ``run_agent``: its agents' loop, whose calls become steps of the workflow."""

    def __init__(self, seed: UUID) -> None:
        self._seed = seed
        self._ids = itertools.count()
        self.agents = 0
        """The runs of durable agents in it."""

    async def result_of(self, ctx: WorkflowContext, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* to its end, with its calls made in the workflow, and return its result."""
        loop: AgentLoop[T] = AgentLoop(lambda: self._inside(work))
        self._loop = loop
        try:
            asked = loop.start()
            while asked:
                asked = loop.go_on(await _answers(ctx, asked))
            return loop.result()
        except (AgentRunError, UserError) as error:
            raise normal_error(error) from error
        finally:
            loop.leave()

    async def _inside(self, work: Coroutine[Any, Any, T]) -> T:
        with (
            self._current(),
            Agent.using_thread_executor(InlineExecutor()),
            Agent.parallel_tool_call_execution_mode("parallel_ordered_events"),
            _agent_graph.set_agent_graph_sleep(self.sleep),
        ):
            return await work

    @contextmanager
    def _current(self) -> Iterator[None]:
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # -- what agents ask for ---------------------------------------------------------------

    def next_id(self) -> str:
        """Return an id that no other has, and which is the same in each replay."""
        return str(uuid5(self._seed, str(next(self._ids))))

    async def ask(self, perform: Callable[[WorkflowContext], Awaitable[T]]) -> T:
        """Have *perform* done in the workflow, and return what it returns."""
        result: T = await self._loop.ask(perform)
        return result

    async def now(self) -> datetime:
        """Return the workflow's time."""

        async def perform(ctx: WorkflowContext) -> datetime:
            return ctx.now()

        return await self.ask(perform)

    async def sleep(self, seconds: float) -> None:
        """Wait in the workflow, which holds nothing meanwhile."""

        async def perform(ctx: WorkflowContext) -> None:
            await ctx.sleep(max(seconds, 0.0), name="agent-sleep")

        await self.ask(perform)


async def _answers(ctx: WorkflowContext, asked: Sequence[Asked]) -> Sequence[CallAnswer]:
    """Make the calls that agents wait for, side by side if there are several."""

    async def made(each: Asked) -> CallAnswer:
        try:
            return CallAnswer(await each.perform(ctx))
        except StepFailedError as error:
            return CallAnswer(error=error)

    if len(asked) == 1:
        return [await made(asked[0])]
    return await ctx.gather(*[made(each) for each in asked])


# -- the functions of steps: one for each, which are there as long as the module is ------------


async def ask_model(number: str) -> Any:
    """Ask a model, and return its answer as a record."""
    return await _work[number]()


async def call_tool(number: str) -> Any:
    """Call a tool, and return its result as a record."""
    return await _work[number]()


async def begin_tool(number: str) -> Any:
    """Note that a tool is about to be called."""
    return await _work[number]()


async def do_part(number: str) -> Any:
    """Do what else an agent needs: list tools, check arguments, handle an event."""
    return await _work[number]()


async def step_of(
    ctx: WorkflowContext,
    function: Callable[[str], Coroutine[Any, Any, Any]],
    work: Work,
    name: str,
    *,
    retry: int | RetryPolicy | None = None,
    timeout: float | str | None = None,
) -> Any:
    """Do *work* in a step of *function*, and return its output: new, or from the record."""
    number = str(next(_numbers))
    _work[number] = work
    try:
        return await ctx.step(function, number, name=name, retry=retry, timeout=timeout)
    finally:
        _work.pop(number, None)
