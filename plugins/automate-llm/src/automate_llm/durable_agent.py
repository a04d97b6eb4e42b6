"""Agents of Pydantic AI that survive a crash: each answer and each tool call is a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, infer_model
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_ai.usage import UsageLimits

from automate_kernel import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    Kernel,
    StepFailedError,
    WorkflowContext,
)
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_llm.agent_loop import AgentLoop, Asked, CallAnswer, InlineExecutor
from automate_llm.durable_run import DurableRun, PendingWork, StepOptions
from automate_llm.model_errors import normal_error

if TYPE_CHECKING:
    from typing_extensions import Self

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")

_APPROVAL = {"by", "timeout", "notify", "form"}


class DurableAgent(Generic[DepsT, OutputT]):
    """
    An agent whose every answer and tool call is a step of a workflow in code.

    *agent* is any agent of Pydantic AI, and stays as it is. *name* begins the names of the steps;
    by default it is the agent's. *retry* and *timeout* are those of a request to the model, and
    *tool_retry* and *tool_timeout* those of a call of a tool; only idempotent tools are tried
    again. With *stream* the text of an answer is the progress of its step while it comes.
    *approval* says who decides on destructive tools: ``by``, ``timeout`` and ``notify`` as in
    `WorkflowContext.approve`. Raises `ConfigError` for an unknown one.
    """

    def __init__(
        self,
        agent: Agent[DepsT, OutputT],
        kernel: Kernel,
        *,
        name: str | None = None,
        retry: int | RetryPolicy | None = 3,
        timeout: float | str | None = "10m",
        tool_retry: int | RetryPolicy | None = 3,
        tool_timeout: float | str | None = "10m",
        stream: bool = False,
        approval: Mapping[str, Any] | None = None,
    ) -> None:
        if unknown := sorted(set(approval or {}) - _APPROVAL):
            raise ConfigError(
                f"approval has no option {unknown[0]!r}", hint=f"it has {sorted(_APPROVAL)}"
            )
        self.agent: Agent[DepsT, OutputT] = agent
        self._kernel = kernel
        self._pending = PendingWork()
        self._options = StepOptions(
            prefix=name or agent.name or "agent",
            retry=retry,
            tool_retry=tool_retry,
            timeout=timeout,
            tool_timeout=tool_timeout,
            stream=stream,
            approval=dict(approval or {}),
        )

    async def run(
        self,
        ctx: WorkflowContext,
        prompt: str | Sequence[Any] | None = None,
        *,
        deps: Any = None,
        message_history: Sequence[ModelMessage] | None = None,
        usage_limits: UsageLimits | None = None,
        model: Model | str | None = None,
        model_settings: ModelSettings | None = None,
    ) -> AgentRunResult[OutputT]:
        """
        Run the agent in the workflow of *ctx*, and return its result.

        The arguments are those of the agent's own ``run``. A replay takes recorded answers and
        results, and goes on where they end. Raises `AutomateError` for what goes wrong:
        `StepFailedError` if the model or a tool of the agent's own fails for good, and
        ``RESOURCE_EXHAUSTED`` if *usage_limits* are reached.
        """
        if not isinstance(ctx, WorkflowContext):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "a durable agent runs in an async def workflow",
                hint="pass the context that the workflow gets as its first argument",
            )
        ids = {"run_id": str(ctx.uuid()), "conversation_id": str(ctx.uuid())}
        run = DurableRun(self._kernel, self._options, self._pending)
        wrapped = DurableModel(self._model(model), run)

        # The parameters that its releases have in common.
        agent: Any = self.agent

        async def work() -> AgentRunResult[OutputT]:
            toolsets = [DurableToolset(_checked(each), run) for each in self.agent.toolsets]
            with (
                run.current(),
                self.agent.using_thread_executor(InlineExecutor()),
                self.agent.parallel_tool_call_execution_mode("parallel_ordered_events"),
                self.agent.override(model=wrapped, toolsets=toolsets, tools=[]),
            ):
                result: AgentRunResult[OutputT] = await agent.run(
                    prompt,
                    deps=deps,
                    message_history=message_history,
                    usage_limits=usage_limits,
                    model_settings=model_settings,
                    infer_name=False,
                    **ids,
                )
            return result

        run.loop = AgentLoop(work)
        result: AgentRunResult[OutputT] = await _driven(ctx, run.loop)
        return result

    def _model(self, given: Model | str | None) -> Model:
        model = given if given is not None else self.agent.model
        if model is None:
            raise ConfigError(
                f"the agent {self._options.prefix!r} has no model",
                hint="give Agent or DurableAgent.run a model",
            )
        return infer_model(model)


async def _driven(ctx: WorkflowContext, loop: AgentLoop[Any]) -> Any:
    """Run *loop* to its end, with its calls made in the workflow, and return its result."""
    try:
        asked = loop.start()
        while asked:
            asked = loop.go_on(await _answers(ctx, asked))
        return loop.result()
    except (AgentRunError, UserError) as error:
        raise normal_error(error) from error
    finally:
        loop.leave()


async def _answers(ctx: WorkflowContext, asked: Sequence[Asked]) -> Sequence[CallAnswer]:
    """Make the calls that an agent waits for, side by side if there are several."""

    async def made(each: Asked) -> CallAnswer:
        try:
            return CallAnswer(await each.perform(ctx))
        except StepFailedError as error:
            return CallAnswer(error=error)

    if len(asked) == 1:
        return [await made(asked[0])]
    return await ctx.gather(*[made(each) for each in asked])


def _checked(toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
    def check(leaf: AbstractToolset[Any]) -> None:
        if type(leaf).__module__.startswith("pydantic_ai.mcp"):
            raise ConfigError(
                "a durable agent can't use an MCP toolset of Pydantic AI",
                hint="use automate-mcp: its tools are operations, for an OperationToolset",
            )

    toolset.apply(check)
    return toolset


class DurableModel(WrapperModel):
    """A model whose answers are steps of *run*."""

    def __init__(self, wrapped: Model, run: DurableRun) -> None:
        super().__init__(wrapped)
        self._run = run

    # The connection belongs to the step that asks, which is on another loop.
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def _run_scope(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def _refresh_http_client(self) -> None:
        return None

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the answer to *messages*."""
        return await self._run.ask_model(
            self.wrapped, messages, model_settings, model_request_parameters
        )

    def request_stream(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: an agent that looks at events would see them again in each replay."""
        raise UserError(
            "a durable agent has no event stream of its own: DurableAgent(…, stream=True) shows"
            " the text as the progress of the step"
        )


class DurableToolset(WrapperToolset[Any]):
    """A toolset whose calls are steps of *run*."""

    def __init__(self, wrapped: AbstractToolset[Any], run: DurableRun) -> None:
        super().__init__(wrapped)
        self._run = run

    async def for_run(self, ctx: RunContext[Any]) -> DurableToolset:
        """Return the toolset for a run."""
        return DurableToolset(await self.wrapped.for_run(ctx), self._run)

    async def for_run_step(self, ctx: RunContext[Any]) -> DurableToolset:
        """Return the toolset for a step of a run."""
        return DurableToolset(await self.wrapped.for_run_step(ctx), self._run)

    # It is entered in the step that calls a tool.
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tools. Those that need an approval ask for it by a step of the workflow."""
        tools = await self.wrapped.get_tools(ctx)
        return {name: _asking(tool) for name, tool in tools.items()}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call a tool."""
        return await self._run.call_tool(self.wrapped, name, tool_args, ctx, tool)


def _asking(tool: ToolsetTool[Any]) -> ToolsetTool[Any]:
    known = tool.tool_def
    if known.kind != "unapproved":
        return tool
    metadata = {**(known.metadata or {}), "destructive": True}
    return replace(tool, tool_def=replace(known, kind="function", metadata=metadata))
