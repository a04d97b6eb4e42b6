"""Durability as a capability of agents: each request and each call is a step of a workflow."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from weakref import WeakValueDictionary

from pydantic import TypeAdapter
from pydantic_ai.agent import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities.abstract import AbstractCapability, WrapRunHandler
from pydantic_ai.durable_exec import (
    BaseDurabilityCapability,
    CapabilityOperationId,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    EventStreamHandlerId,
    JournalCallableOperationBackend,
    ModelCancelSuspendedResponseId,
    ModelCompactMessagesId,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import AgentStreamEvent, ModelMessage, ModelRequest
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT, RunContext
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, FunctionToolset, ToolsetTool
from pydantic_ai.usage import RunUsage

from automate_kernel import ConfigError, Kernel, StepFailedError, WorkflowContext
from automate_kernel.workflows.code.routine import in_workflow
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_llm.approved_toolset import ApprovedToolset
from automate_llm.durable_run import DurableRun, Work, ask_model, current_run, do_part, step_of
from automate_llm.model_errors import ModelStepError, normal_error
from automate_llm.step_codec import STEP_CODEC, unwritable
from automate_llm.step_model import StepModel
from automate_llm.step_toolset import StepToolset
from automate_llm.streaming import shown
from automate_llm.tool_call import ToolCall, ToolProperties, ToolSteps, hints_of

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 87  # with "-validate" fewer than the 100 that a step's name may have
_APPROVAL = {"by", "timeout", "notify", "form"}
_INLINE = "automate"
_USAGE: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)

_NO_TOOL = ToolProperties()
_spent: ContextVar[list[RunUsage] | None] = ContextVar("automate_llm_spent", default=None)


class AutomateDurability(BaseDurabilityCapability[AgentDepsT]):
    """
    The durability of an agent: ``Agent(…, capabilities=[AutomateDurability(kernel)])``.

    In a workflow, ``await run_agent(ctx, agent.run("…"))`` makes each answer of a model and each
    call of a tool a step. Outside of one the agent runs as ever. *name* begins the names of the
    steps; by default it is the agent's. *retry* and *timeout* are those of a request to the model,
    and *tool_retry* and *tool_timeout* those of a call of a tool; only idempotent tools are tried
    again. With *stream* the text of an answer is the progress of its step while it comes.

    *approval* says who decides on destructive tools: ``by``, ``timeout``, ``notify`` and ``form``
    as in `WorkflowContext.approve`. False leaves them to the run, which ends with
    ``DeferredToolRequests``. *event_stream_handler* gets the events of a request in its step, and
    each other event in a step of its own. *models* names models that a run may change to. Raises
    `ConfigError` for an unknown option of *approval*.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="automate-kernel",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=STEP_CODEC,
        serialization_failure=unwritable,
        # They are entered in the step that needs them, which is on another event loop.
        toolset_lifecycles=dict.fromkeys(("function", "mcp", "dynamic"), "enter-never"),
        tool_config_key=_INLINE,
    )

    def __init__(
        self,
        kernel: Kernel,
        *,
        name: str | None = None,
        retry: int | RetryPolicy | None = 3,
        timeout: float | str | None = "10m",
        tool_retry: int | RetryPolicy | None = 3,
        tool_timeout: float | str | None = "10m",
        stream: bool = False,
        approval: Mapping[str, Any] | Literal[False] | None = None,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
    ) -> None:
        if unknown := sorted(set(approval or {}) - _APPROVAL):
            raise ConfigError(
                f"approval has no option {unknown[0]!r}", hint=f"it has {sorted(_APPROVAL)}"
            )
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._kernel = kernel
        self._retry, self._timeout = retry, timeout
        self._tool_retry, self._tool_timeout = tool_retry, tool_timeout
        self._stream = stream
        self._given: WeakValueDictionary[str, Model] = WeakValueDictionary()
        self._approval = None if approval is False else dict(approval or {})

    # -- what Pydantic AI asks of an engine ------------------------------------------------

    @property
    def in_durable_context(self) -> bool:
        """True in the workflow, and False in its steps and outside of it."""
        return current_run() is not None

    def get_durable_operation_backend(self) -> DurableOperationBackend[Any]:
        """Return what makes steps of the operations of an agent."""
        return _StepBackend(self.name, self._config, self._in_step)

    def get_default_run_id(self) -> str | None:
        """Return an id that is the same in each replay, or None outside of a workflow."""
        self._check_place()
        run = current_run()
        return None if run is None else run.next_id()

    _default_run_id = get_default_run_id  # its name in 2.54, the last for Python 3.10

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return an id that is the same in each replay, or None outside of a workflow."""
        return self.get_default_run_id()

    async def before_run(self, ctx: RunContext[AgentDepsT]) -> None:
        """Refuse a run in the code of a workflow that no replay could repeat."""
        self._check_place()  # its id may have been given
        await super().before_run(ctx)

    def _check_place(self) -> None:
        if in_workflow.get() and not self.in_durable_context:
            raise ConfigError(
                f"the durable agent {self.name!r} runs in a workflow, and would not be durable",
                hint="await run_agent(ctx, agent.run(…)) in an async def workflow, or run it in a"
                " step",
            )

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """Refuse the timeout of a run in a workflow: a replay would meet it elsewhere."""
        if self.in_durable_context:
            raise UserError(
                "agent.run(timeout=…) can't be repeated in a workflow: bound the requests with"
                " AutomateDurability(timeout=…, tool_timeout=…), or the workflow with its timeout"
            )
        return None

    async def wrap_run(
        self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        """Run the agent, and note that it was a durable one."""
        if (run := current_run()) is not None:
            run.agents += 1
        return await super().wrap_run(ctx, handler=handler)

    def _bind_to_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> None:
        """Leave the toolsets as they are: a run wraps all that it has, those of the run too."""

    # -- names and options of steps --------------------------------------------------------

    def _step_name(self, part: str) -> str:
        name = _UNFIT.sub("_", f"{self.name}-{part}")[:_LONGEST_NAME]
        return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"

    def _config(
        self, operation: DurableOperationId, tool: object, name: str
    ) -> ToolProperties | Literal[False]:
        """Return the hints of a tool, or False for a tool that its author runs in the workflow."""
        definition = tool.tool_def if isinstance(tool, ToolsetTool) else None
        if definition is not None and (definition.metadata or {}).get(_INLINE) is False:
            return False
        return hints_of(name, definition)

    async def _in_step(
        self,
        operation: DurableOperationId,
        body: Work,
        key: tuple[object, ...],
        hints: ToolProperties,
    ) -> object:
        run = current_run()
        if run is None:
            return await body()
        if isinstance(operation, ModelRequestId | ModelCompactMessagesId):
            return await self._answered(run, operation, body)
        if isinstance(operation, ToolsetCallToolId):
            return await self._called(run, body, key, hints)
        name = self._step_name(_part(operation, hints.name))

        async def perform(ctx: WorkflowContext) -> object:
            return await step_of(
                ctx, do_part, body, name, retry=self._tool_retry, timeout=self._tool_timeout
            )

        return await run.ask(perform)

    # -- models ----------------------------------------------------------------------------

    async def _answered(
        self, run: DurableRun, operation: ModelRequestId | ModelCompactMessagesId, body: Work
    ) -> object:
        async def work() -> object:
            try:
                return await body()
            except Exception as error:
                raise normal_error(error) from error

        part = "model" if isinstance(operation, ModelRequestId) else "compact"

        async def perform(ctx: WorkflowContext) -> object:
            return await step_of(
                ctx, ask_model, work, self._step_name(part), retry=self._retry,
                timeout=self._timeout,
            )  # fmt: skip

        try:
            return await run.ask(perform)
        except StepFailedError as error:
            raise ModelStepError(operation.model_name, str(error)) from error

    def _find_model_id(self, model: Model) -> str | None:
        try:
            return super()._find_model_id(model)
        except UserError:
            # Its step is in this process, and a replay is given the run's model again.
            number = str(id(model))
            self._given[number] = model
            return number

    async def _resolve_model_for_request(
        self, model_id: str | None, run_context: RunContext[AgentDepsT]
    ) -> Model:
        model = None if model_id is None else self._given.get(model_id)
        if model is None:
            model = await super()._resolve_model_for_request(model_id, run_context)
        return StepModel(model, self._kernel.redactor)

    async def before_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Date the newest request by the workflow's clock, which a replay reads from the record."""
        if (run := current_run()) is not None:
            _date(request_context.messages, await run.now())
        return await super().before_model_request(ctx, request_context)

    @property
    def has_wrap_run_event_stream(self) -> bool:
        """True if models are to be asked for a stream."""
        return super().has_wrap_run_event_stream or (self._stream and self.in_durable_context)

    def _model_stream_event_handler(self) -> EventStreamHandler[AgentDepsT] | None:
        own = super()._model_stream_event_handler()
        if not self._stream:
            return own

        async def handler(
            ctx: RunContext[AgentDepsT], events: AsyncIterable[AgentStreamEvent]
        ) -> None:
            seen = shown(events)
            if own is not None:
                await own(ctx, seen)
            async for _ in seen:
                pass

        return handler

    # -- tools -----------------------------------------------------------------------------

    def get_wrapper_toolset(
        self, toolset: AbstractToolset[AgentDepsT]
    ) -> AbstractToolset[AgentDepsT] | None:
        """Return the toolset of a run in a workflow, with its calls as steps; None elsewhere."""
        if (run := current_run()) is None:
            return None
        self._check_servers(toolset)
        wrapped = toolset.visit_and_replace(self._durable)
        if self._approval is None:
            return wrapped
        return ApprovedToolset(wrapped, run, self.name, self._tool_steps(), self._approval)

    def _tool_steps(self) -> ToolSteps:
        return ToolSteps(self._kernel, self._step_name, self._tool_retry, self._tool_timeout)

    async def listed(self, work: Work) -> Any:
        """Return what *work* lists: a step, or what the record has of it."""
        return await self._in_step(ToolsetGetToolsId("function", toolset_id=""), work, (), _NO_TOOL)

    def _check_servers(self, toolset: AbstractToolset[AgentDepsT]) -> None:
        servers: dict[str, AbstractToolset[AgentDepsT]] = {}

        def check(leaf: AbstractToolset[AgentDepsT]) -> None:
            if _is_mcp(leaf) and servers.setdefault(leaf.id or "", leaf) is not leaf:
                raise UserError(
                    f"two MCP toolsets have the id {leaf.id!r}: name each by MCPToolset(…, id=…),"
                    " since their lists of tools are kept by it"
                )

        toolset.apply(check)

    def _durable(self, leaf: AbstractToolset[AgentDepsT]) -> AbstractToolset[AgentDepsT]:
        if isinstance(leaf, DynamicToolset):
            return self._build_dynamic_toolset(leaf)
        if _is_mcp(leaf):
            return self._build_mcp_toolset(leaf)
        # The others of Pydantic AI's own only change the run that they are of.
        own = type(leaf).__module__.startswith("pydantic_ai.")
        if own and not isinstance(leaf, FunctionToolset):
            return leaf
        functions: Any = StepToolset(leaf)
        durable = self._build_function_toolset(functions)
        durable.wrapped = leaf
        return durable

    async def _called(
        self, run: DurableRun, body: Work, key: tuple[object, ...], hints: ToolProperties
    ) -> object:
        async def work() -> object:
            spent: list[RunUsage] = []
            token = _spent.set(spent)
            try:
                record: Any = await body()
            finally:
                _spent.reset(token)
            used = [_USAGE.dump_python(each, mode="json") for each in spent if each.has_values()]
            return {**record, "usage": used} if used else record

        record: Any = await run.ask(ToolCall(self._tool_steps(), hints, work).perform)
        for each in record.get("usage", ()):
            for ctx in key:
                if isinstance(ctx, RunContext):
                    ctx.usage.incr(_USAGE.validate_python(each))
        return {name: value for name, value in record.items() if name != "usage"}

    @contextmanager
    def _tool_run_context_scope(
        self, ctx: RunContext[AgentDepsT]
    ) -> Iterator[RunContext[AgentDepsT]]:
        # What agents in a tool spend is in the record: a replay counts it too.
        before = deepcopy(ctx.usage)
        with super()._tool_run_context_scope(replace(ctx, usage=deepcopy(before))) as own:
            yield own
        if (spent := _spent.get()) is not None:
            spent.append(own.usage - before)


def durability_of(ctx: RunContext[Any]) -> AutomateDurability[Any] | None:
    """Return the durability of the agent whose run *ctx* is of; None outside of a workflow."""
    found: list[AutomateDurability[Any]] = []

    def look(capability: AbstractCapability[Any]) -> None:
        if isinstance(capability, AutomateDurability):
            found.append(capability)

    if current_run() is not None and ctx.root_capability is not None:
        ctx.root_capability.apply(look)
    return found[0] if found else None


def _is_mcp(toolset: AbstractToolset[Any]) -> bool:
    # It is imported if there is such a toolset.
    module: Any = sys.modules.get("pydantic_ai.mcp")
    return module is not None and isinstance(toolset, module.MCPToolset)


class _StepBackend(JournalCallableOperationBackend[ToolProperties]):
    """The backend that has *in_step* run each operation."""

    def __init__(
        self,
        agent_name: str,
        config: Callable[[DurableOperationId, object, str], ToolProperties | Literal[False]],
        in_step: Callable[..., Awaitable[object]],
    ) -> None:
        super().__init__(
            agent_name=agent_name,
            config=RoleBasedOperationConfig(
                **dict.fromkeys(("model", "event", "capability", "tool"), _NO_TOOL),
                resolve_tool=config,
            ),
        )
        self._in_step = in_step

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Work,
        cache_key: tuple[object, ...],
        config: ToolProperties,
    ) -> object:
        """Do *body* in a step."""
        return await self._in_step(operation_id, body, cache_key, config)


def _part(operation: DurableOperationId, tool: str) -> str:
    """Return the part of a step's name that says what it does."""
    if isinstance(operation, EventStreamHandlerId):
        return "event"
    if isinstance(operation, ModelCancelSuspendedResponseId):
        return "cancel"
    if isinstance(operation, ToolsetValidateToolArgumentsId):
        return f"{tool}-validate"
    if isinstance(operation, ToolsetGetInstructionsId):
        return "instructions"
    if isinstance(operation, CapabilityOperationId):
        return f"{operation.capability_id}-{operation.operation}"
    return "tools"


def _date(messages: list[ModelMessage], now: datetime) -> None:
    request = messages[-1] if messages else None
    if not isinstance(request, ModelRequest):
        return
    if hasattr(request, "timestamp"):
        request.timestamp = now
    for part in request.parts:
        if hasattr(part, "timestamp"):
            part.timestamp = now
