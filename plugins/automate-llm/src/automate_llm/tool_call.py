"""Calls of tools: each a step, and one that must not be repeated has a step before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_ai.tools import ToolDefinition

from automate_kernel import Call, Kernel, StepFailedError, WorkflowContext, current_call
from automate_kernel.outbox.item import EXPIRED
from automate_kernel.workflows import StepAttempt
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_llm.durable_run import Work, begin_tool, call_tool, step_of

# Times of a database that counts milliseconds are so much too early at most. By the ends, since
# beginnings are estimates.
_COARSE = timedelta(milliseconds=1)

INTERRUPTED = (
    "This call was begun, and interrupted before its result was known. It may have had its effect,"
    " or not. It has not been made again. Find out before you repeat it, or report it."
)
_OF_MCP = {
    "idempotent": "idempotentHint",
    "read_only": "readOnlyHint",
    "destructive": "destructiveHint",
}


@dataclass(frozen=True, slots=True)
class ToolProperties:
    """The properties of a tool by its metadata, or by the annotations of its MCP server."""

    name: str = ""
    idempotent: bool = False
    read_only: bool = False
    destructive: bool = False
    is_operation: bool = False

    @property
    def repeatable(self) -> bool:
        """True if the tool may be called again after a crash."""
        return self.idempotent or self.read_only


def hints_of(name: str, tool: ToolDefinition | None) -> ToolProperties:
    """Return the hints of the tool *name*. Its author's metadata wins over its server's words."""
    metadata: Mapping[str, Any] = (tool.metadata if tool is not None else None) or {}
    known = metadata.get("annotations")
    said: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    hints = {key: metadata.get(key, said.get(hint)) is True for key, hint in _OF_MCP.items()}
    return ToolProperties(name, is_operation="operation" in metadata, **hints)


@dataclass(frozen=True, slots=True)
class ToolSteps:
    """The names and options of the steps of calls, by the agent whose tools they are."""

    kernel: Kernel
    name: Callable[[str], str]
    retry: int | RetryPolicy | None
    timeout: float | str | None


@dataclass
class ToolCall:
    """
    One call of a tool, which *work* makes.

    A tool that is not idempotent has a step before it, which only notes that it begins. A replay
    that finds that note without a result knows of a call that may have had its effect: it was
    interrupted, or has failed before the execution was resumed.
    """

    steps: ToolSteps
    hints: ToolProperties
    work: Work
    begun: bool = False
    """True if it was this process that noted its beginning."""
    note: str | None = None
    """The step that notes its beginning, if that is known."""

    async def perform(self, ctx: WorkflowContext) -> Any:
        """Make the call in the workflow, and return its record."""
        steps, name = self.steps, self.hints.name
        if not self.hints.repeatable:
            self.begun = False
            self.note = await step_of(ctx, begin_tool, self._begin, steps.name(name) + "-begin")
        try:
            return await step_of(
                ctx, call_tool, self._work, steps.name(name),
                retry=steps.retry if self.hints.repeatable else 1, timeout=steps.timeout,
            )  # fmt: skip
        except StepFailedError as error:
            if not self.hints.is_operation:
                raise
            return failed(f"It failed: {error.code}: {error.message}")

    async def _begin(self) -> Any:
        self.begun = True
        call = current_call()
        return None if call is None else call.step_id

    async def _work(self) -> Any:
        if self.hints.repeatable or self.begun:
            return await self.work()
        call = current_call()
        # On a thread: the database may let one wait.
        failure = None if call is None else await asyncio.to_thread(self._failure, call)
        if failure is None:
            return failed(INTERRUPTED)
        said = f"It failed: {failure.error_code}: {failure.error}."
        more = "It has not been made again. Find out what it has done before you repeat it."
        return failed(f"{said} {more}")

    def _failure(self, call: Call) -> StepAttempt | None:
        """
        Return how this call has failed, or None if nobody knows its outcome.

        The execution was resumed then: its failure is forgotten, and the note that it began is not.
        """
        if call.execution_id is None or self.note is None:
            return None
        known = self.steps.kernel.executions.attempts(call.execution_id)
        noted = [each.ended_at for each in known if each.step_id == self.note]
        if not noted or noted[-1] is None:
            return None
        for each in reversed(known):
            # One before that was another call: somebody has resumed from a step before both.
            is_its = each.step_id == call.step_id and each.status == "FAILED"
            if is_its and each.ended_at is not None and each.ended_at >= noted[-1] - _COARSE:
                return None if each.error_code == EXPIRED else each
        return None


def failed(message: str) -> dict[str, Any]:
    """Return the record of a call that was not made, or has failed, as the model is told."""
    return {"kind": "tool_failed", "message": message}
