"""Operations of a kernel as the tools of an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, ToolFailed
from pydantic_ai.tools import RunContext, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from automate_kernel import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    Kernel,
    OutputError,
    current_call,
)
from automate_kernel.operations.context import Call
from automate_kernel.operations.exposure import (
    check_tool,
    check_tools,
    is_allowed,
    model_schema,
    tool_name,
)
from automate_kernel.operations.outputs import answered_output
from automate_kernel.operations.spec import OperationSpec
from automate_llm.durability import durability_of

_ARGUMENTS: Any = TypeAdapter(dict[str, Any]).validator


class OperationToolset(AbstractToolset[Any]):
    """
    The operations of *kernel* that *allowed* names, as tools: ``["orders.*", "mail.send"]``.

    Names, schemas, descriptions and hints come from the specs. A destructive operation needs its
    full name in *allowed*, and an approval before each call. A field that an author has to write
    (``x-written``) is left out, and an operation that requires one; raises `ConfigError` if
    *allowed* names such an operation in full. Secrets are resolved in the kernel, and taken out of
    what the model sees.
    """

    def __init__(
        self,
        kernel: Kernel,
        allowed: Sequence[str],
        *,
        max_retries: int = 2,
        id: str = "operations",
    ) -> None:
        if isinstance(allowed, str) or not allowed:
            raise ConfigError(
                "the allowed operations are a list of names or patterns",
                hint='OperationToolset(kernel, ["orders.*"])',
            )
        check_tools(kernel.operations, allowed)
        self._kernel = kernel
        self._allowed = tuple(allowed)
        self._max_retries = max_retries
        self._id = id

    @property
    def id(self) -> str:
        """The toolset's id."""
        return self._id

    async def for_run(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        """Return a toolset for one run, which lists its operations once."""
        return _ListedOperations(
            self._kernel, self._allowed, max_retries=self._max_retries, id=self._id
        )

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tools, by their names for the model."""
        durability = durability_of(ctx)
        listed = await (durability.listed(self._listed) if durability else self._listed())
        tools: dict[str, ToolsetTool[Any]] = {}
        for name, known in listed.items():
            definition = ToolDefinition(
                name=name,
                description=known["description"],
                parameters_json_schema=known["schema"],
                kind="unapproved" if known["hints"]["destructive"] else "function",
                metadata={**known["hints"], "operation": known["operation"]},
            )
            tools[name] = ToolsetTool(
                toolset=self,
                tool_def=definition,
                max_retries=self._max_retries,
                args_validator=_ARGUMENTS,
            )
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call an operation. The model is told of what it can mend, and of what is final."""
        operation = str((tool.tool_def.metadata or {})["operation"])
        try:
            await self._permit(operation, ctx, tool)
            # Nothing of the arguments stands in the workflow, whatever the step around has.
            around = current_call() or Call(operation)
            call = replace(around.part(operation, tool_args), written={})
            # Literally: text of a model is no template and no reference to a secret.
            output = await self._kernel.aperform(call, tool_args)
            # Pydantic AI makes null of NaN, and a model would believe it.
            answered_output(output, f"output of {operation!r}")
            return output
        except OutputError as error:
            # Another try would do it once more.
            raise ToolFailed(f"It was done, but {error}") from error
        except AutomateError as error:
            if error.code is ErrorCodes.INVALID_ARGUMENT:
                raise ModelRetry(str(error)) from error
            if error.retryable:
                raise
            raise ToolFailed(f"It failed: {error.code}: {error}") from error

    async def _permit(self, operation: str, ctx: RunContext[Any], tool: ToolsetTool[Any]) -> None:
        """
        Refuse an operation that was offered, and is allowed no more; ask for one that is riskier.

        The list of a run is recorded when it begins, and days and deployments may lie between.
        """
        # On a thread: a plugin may ask its service.
        spec = await asyncio.to_thread(self._kernel.operation, operation)
        if not is_allowed(operation, spec, self._allowed):
            raise ToolFailed(f"It failed: {operation} may not be called any more.")
        was_destructive = (tool.tool_def.metadata or {}).get("destructive")
        if spec.destructive and not (was_destructive or ctx.tool_call_approved):
            raise ApprovalRequired

    async def _listed(self) -> Any:
        # On a thread: a plugin may ask its service.
        return await asyncio.to_thread(self._found)

    def _found(self) -> dict[str, Any]:
        listed: dict[str, Any] = {}
        for pattern in self._allowed:
            found = self._kernel.operations.matching(pattern)
            if not found:
                raise ConfigError(
                    f"no operation is called {pattern!r}",
                    hint="`automate actions` lists them; a pattern must match one at least",
                )
            for operation, spec in found.items():
                if not is_allowed(operation, spec, self._allowed) or any(
                    known["operation"] == operation for known in listed.values()
                ):
                    continue
                if operation in self._allowed:
                    check_tool(operation, spec)
                if (schema := model_schema(spec)) is not None:
                    listed[tool_name(operation, listed)] = _described(operation, spec, schema)
        return listed


class _ListedOperations(OperationToolset):
    """The toolset of one run: its tools are listed once, and stay."""

    _tools: dict[str, ToolsetTool[Any]] | None = None

    async def for_run(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        return self

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        if self._tools is None:
            self._tools = await super().get_tools(ctx)
        return self._tools


def _described(operation: str, spec: OperationSpec, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operation": operation,
        "description": spec.description or spec.title or operation,
        "schema": {"type": "object", "properties": {}, **schema},
        "hints": {
            "idempotent": spec.idempotent,
            "read_only": spec.read_only,
            "destructive": spec.destructive,
        },
    }
