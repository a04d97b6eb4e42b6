"""One run of a durable agent: its calls of the model and of tools, each a step of a workflow."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from automate_kernel import Call, Kernel, StepFailedError, WorkflowContext, current_call
from automate_kernel.outbox.item import EXPIRED
from automate_kernel.workflows import StepAttempt
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_llm.agent_loop import AgentLoop
from automate_llm.model_answers import as_json, of_json, recorded, response_of
from automate_llm.model_errors import normal_error
from automate_llm.streaming import shown_text
from automate_llm.tool_answers import INTERRUPTED, failed_before, raised, returned, value_of

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
# Times of a database that counts milliseconds are so much too early at most. By the ends, since
# beginnings are estimates.
_COARSE = timedelta(milliseconds=1)
_LONGEST_NAME = 88  # with "-approve" fewer than the 100 that a step's name may have
_MOST_SHOWN = 3_000

Work = Callable[[], Awaitable[Any]]

_numbers = itertools.count()
_current: ContextVar[DurableRun | None] = ContextVar("automate_llm_run", default=None)


def current_run() -> DurableRun | None:
    """Return the durable run whose agent's code this is, or None outside of one."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class StepOptions:
    """The options of the steps of an agent."""

    prefix: str
    retry: int | RetryPolicy | None
    tool_retry: int | RetryPolicy | None
    timeout: float | str | None
    tool_timeout: float | str | None
    stream: bool
    approval: Mapping[str, Any]

    def name(self, part: str) -> str:
        """Return the name of the steps for *part*: the model, or a tool."""
        name = _UNFIT.sub("_", f"{self.prefix}-{part}")[:_LONGEST_NAME]
        return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"


class PendingWork:
    """
    The work of steps that are about to be called, by a number that is their input.

    Steps call the methods of this object, which stays: a function for each call would be kept for
    good by whoever remembers functions.
    """

    def __init__(self) -> None:
        self._work: dict[str, Work] = {}

    @contextmanager
    def holding(self, work: Work) -> Iterator[str]:
        """Hold *work* while the block runs, and give its number."""
        number = str(next(_numbers))
        self._work[number] = work
        try:
            yield number
        finally:
            self._work.pop(number, None)

    async def ask_model(self, number: str) -> Any:
        """Ask a model, and return its answer as a record."""
        return await self._work[number]()

    async def call_tool(self, number: str) -> Any:
        """Call a tool, and return its result as a record."""
        return await self._work[number]()

    async def begin_tool(self, number: str) -> Any:
        """Note that a tool is about to be called."""
        return await self._work[number]()

    async def list_tools(self, number: str) -> Any:
        """List the operations that are tools."""
        return await self._work[number]()


@dataclass
class DurableRun:
    """One run: *loop* is the agent's, whose calls *options* and *pending* make steps of."""

    kernel: Kernel
    options: StepOptions
    pending: PendingWork
    loop: AgentLoop[Any] = field(init=False)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current run for the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # -- the model -----------------------------------------------------------------------------

    async def ask_model(
        self,
        model: Model,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer to *messages*: a step, or what the record has of it."""

        async def work() -> Any:
            sent = self._without_secrets(messages)
            try:
                async with model:
                    if self.options.stream:
                        async with model.request_stream(sent, settings, parameters) as stream:
                            await shown_text(stream)
                        response = stream.get()
                    else:
                        response = await model.request(sent, settings, parameters)
            except Exception as error:
                raise normal_error(error) from error
            return recorded(response)

        async def perform(ctx: WorkflowContext) -> Any:
            _date(messages, ctx.now())
            options = self.options
            with self.pending.holding(work) as number:
                return await ctx.step(
                    self.pending.ask_model, number, name=options.name("model"),
                    retry=options.retry, timeout=options.timeout,
                )  # fmt: skip

        return response_of(await self.loop.ask(perform))

    def _without_secrets(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        dumped = as_json(messages)
        cleaned = self.kernel.redactor.redact_value(dumped, cut=False)
        # What has none is sent as it is: JSON may lose what a service has attached to its answer.
        return messages if cleaned == dumped else of_json(cleaned)

    # -- tools ---------------------------------------------------------------------------------

    async def call_tool(
        self,
        toolset: AbstractToolset[Any],
        name: str,
        arguments: dict[str, Any],
        ctx: RunContext[Any],
        tool: ToolsetTool[Any],
    ) -> Any:
        """Return what a tool returns: a step, or what the record has of it."""
        call = ToolCall(self, toolset, name, arguments, ctx, tool)
        return value_of(name, await self.loop.ask(call.perform))

    async def listed(self, work: Work) -> Any:
        """Return what *work* lists: a step, or what the record has of it."""

        async def perform(ctx: WorkflowContext) -> Any:
            with self.pending.holding(work) as number:
                return await ctx.step(
                    self.pending.list_tools, number, name=self.options.name("tools"),
                    retry=self.options.tool_retry,
                )  # fmt: skip

        return await self.loop.ask(perform)


@dataclass
class ToolCall:
    """
    One call of a tool.

    A tool that is not idempotent has a step before it, which only notes that it begins. A replay
    that finds that note without a result knows of a call that may have had its effect: it was
    interrupted, or has failed before the execution was resumed.
    """

    run: DurableRun
    toolset: AbstractToolset[Any]
    name: str
    arguments: dict[str, Any]
    ctx: RunContext[Any]
    tool: ToolsetTool[Any]
    begun: bool = False
    """True if it was this process that noted its beginning."""
    note: str | None = None
    """The step that notes its beginning, if that is known."""

    @property
    def hints(self) -> Mapping[str, Any]:
        """The hints in the tool's metadata."""
        return self.tool.tool_def.metadata or {}

    @property
    def repeatable(self) -> bool:
        """True if the tool may be called again after a crash."""
        return bool(self.hints.get("idempotent") or self.hints.get("read_only"))

    async def perform(self, ctx: WorkflowContext) -> Any:
        """Make the call in the workflow, after an approval if it needs one."""
        if self.hints.get("destructive"):
            denied = await self._denied(ctx)
            if denied is not None:
                return denied
        record = await self._made(ctx)
        if record["outcome"] != "approval":
            return record
        denied = await self._denied(ctx)
        return denied if denied is not None else await self._made(ctx)

    async def _made(self, ctx: WorkflowContext) -> Any:
        pending, options = self.run.pending, self.run.options
        if not self.repeatable:
            self.begun = False
            with pending.holding(self._begin) as number:
                self.note = await ctx.step(
                    pending.begin_tool, number, name=options.name(self.name) + "-begin"
                )
        try:
            with pending.holding(self._work) as number:
                return await ctx.step(
                    pending.call_tool, number, name=options.name(self.name),
                    retry=options.tool_retry if self.repeatable else 1,
                    timeout=options.tool_timeout,
                )  # fmt: skip
        except StepFailedError as error:
            if "operation" not in self.hints:
                raise
            return {"outcome": "failed", "message": f"It failed: {error.code}: {error.message}"}

    async def _begin(self) -> Any:
        self.begun = True
        call = current_call()
        return None if call is None else call.step_id

    async def _work(self) -> Any:
        if not self.repeatable and not self.begun:
            call = current_call()
            # On a thread: the database may let one wait.
            failure = None if call is None else await asyncio.to_thread(self._failure, call)
            return INTERRUPTED if failure is None else failed_before(failure)
        try:
            async with self.toolset:
                value = await self.toolset.call_tool(self.name, self.arguments, self.ctx, self.tool)
        except Exception as error:
            record = raised(error)
            if record is None or (record["outcome"] == "approval" and self.ctx.tool_call_approved):
                raise
            return record
        return returned(self.name, value)

    def _failure(self, call: Call) -> StepAttempt | None:
        """
        Return how this call has failed, or None if nobody knows its outcome.

        The execution was resumed then: its failure is forgotten, and the note that it began is not.
        """
        if call.execution_id is None or self.note is None:
            return None
        known = self.run.kernel.executions.attempts(call.execution_id)
        noted = [each.ended_at for each in known if each.step_id == self.note]
        if not noted or noted[-1] is None:
            return None
        for each in reversed(known):
            # One before that was another call: somebody has resumed from a step before both.
            is_its = each.step_id == call.step_id and each.status == "FAILED"
            if is_its and each.ended_at is not None and each.ended_at >= noted[-1] - _COARSE:
                return None if each.error_code == EXPIRED else each
        return None

    async def _denied(self, ctx: WorkflowContext) -> Any:
        """Ask a person, and return the record of the call if it is refused."""
        options = self.run.options
        shown = json.dumps(self.arguments, ensure_ascii=False, indent=1, default=str)
        cut = "" if len(shown) <= _MOST_SHOWN else "\n…"
        answer = await ctx.approve(
            f"{options.prefix} wants to call {self.name}",
            description=shown[:_MOST_SHOWN] + cut,
            name=options.name(self.name) + "-approve",
            on_reject="continue",
            on_timeout="continue",
            **options.approval,
        )
        if answer.approved:
            self.ctx = replace(self.ctx, tool_call_approved=True)
            return None
        if answer.timed_out:
            return {"outcome": "failed", "message": "Nobody decided on this call in time."}
        said = f": {answer.comment}" if answer.comment else "."
        return {"outcome": "failed", "message": f"{answer.by} refused this call{said}"}


def _date(messages: list[ModelMessage], now: datetime) -> None:
    """Date the newest request by the workflow's clock, which a replay reads from the record."""
    request = messages[-1] if messages else None
    if not isinstance(request, ModelRequest):
        return
    if hasattr(request, "timestamp"):
        request.timestamp = now
    for part in request.parts:
        if hasattr(part, "timestamp"):
            part.timestamp = now
