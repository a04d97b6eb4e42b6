"""Workflows, their executions and approvals as tools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp import types

from automate_kernel import Kernel
from automate_kernel.operations.schemas.checks import compile_schema, invalid
from automate_kernel.operations.schemas.portable import portable
from automate_kernel.workflows.definition.model import Workflow
from automate_mcp.answers import answer
from automate_mcp.executions import Executions
from automate_mcp.progress import Send
from automate_mcp.settings import Caller, ServeSettings

_ID = {"type": "string", "maxLength": 100, "description": "The id of the execution."}
_STEP = {"type": "string", "maxLength": 500, "description": "The id of the step that waits."}
_STATE = {
    "type": "object",
    "properties": {
        "execution_id": {"type": "string"},
        "workflow": {"type": "string"},
        "status": {"type": "string"},
        "finished": {"type": "boolean"},
        "output": {},
        "error": {"type": ["object", "null"]},
        "waits_for": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["execution_id", "workflow", "status", "finished"],
}


@dataclass(frozen=True, slots=True)
class StartTool:
    """The start of one *workflow* of *kernel*."""

    kernel: Kernel
    executions: Executions
    settings: ServeSettings
    workflow: Workflow

    scope = "workflows:start"

    def definition(self, name: str) -> types.Tool:
        """Return the tool as clients see it, called *name*."""
        workflow = self.workflow
        about = workflow.description or f"Start the workflow {workflow.name}."
        return types.Tool(
            name=name,
            title=f"Start {workflow.title or workflow.name}",
            description=f"{about}\n\nReturns the id and state of an execution, which may go on.",
            input_schema=self._schema(),
            output_schema=_STATE,
            annotations=types.ToolAnnotations(read_only_hint=False, destructive_hint=False),
        )

    def _schema(self) -> dict[str, Any]:
        payload = dict(self.kernel.workflows.payload_schema(self.workflow) or {})
        defs = payload.pop("$defs", None)
        most = self.settings.wait_seconds
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {
                "payload": {"description": "The payload of its event.", **payload},
                "wait_seconds": {
                    "type": "number", "minimum": 0, "maximum": most,
                    "description": "Seconds to wait for its end; by default it isn't waited for.",
                },
                "idempotency_key": {
                    "type": "string", "minLength": 1, "maxLength": 200,
                    "description": "A second start with the same key is the first one.",
                },
            },
            "required": ["payload"] if payload else [],
            "additionalProperties": False,
        }  # fmt: skip
        return portable({**schema, "$defs": defs} if defs else schema)

    async def call(
        self, caller: Caller, arguments: dict[str, Any], key: str | None, send: Send
    ) -> types.CallToolResult:
        """Start it for the caller's tenant, and return the state of the execution."""
        _check(self._schema(), arguments, f"start of {self.workflow.name!r}")
        key = arguments.get("idempotency_key") or key
        execution_id = await asyncio.to_thread(
            self.kernel.start,
            self.workflow.name,
            arguments.get("payload"),
            tenant_id=caller.tenant_id,
            idempotency_key=caller.key_for(self.workflow.name, key),
        )
        seconds = float(arguments.get("wait_seconds", 0))
        return await self.executions.wait(caller, execution_id, seconds, send)


Work = Callable[[Caller, dict[str, Any], Send], Awaitable[types.CallToolResult]]


@dataclass(frozen=True, slots=True)
class PlainTool:
    """A tool that is a function, for callers with *scope*."""

    scope: str
    tool: types.Tool
    work: Work

    def definition(self, name: str) -> types.Tool:
        """Return the tool as clients see it, called *name*."""
        return self.tool.model_copy(update={"name": name})

    async def call(
        self, caller: Caller, arguments: dict[str, Any], key: str | None, send: Send
    ) -> types.CallToolResult:
        """Check the arguments, and do it."""
        _check(self.tool.input_schema, arguments, f"input of {self.tool.name!r}")
        return await self.work(caller, arguments, send)


def execution_tools(executions: Executions, settings: ServeSettings) -> list[PlainTool]:
    """Return the tools for executions, each with its scope."""
    most, size = settings.wait_seconds, settings.max_output_bytes

    async def status(caller: Caller, given: dict[str, Any], send: Send) -> types.CallToolResult:
        return await executions.wait(caller, given["execution_id"], 0, send)

    async def wait(caller: Caller, given: dict[str, Any], send: Send) -> types.CallToolResult:
        seconds = float(given.get("seconds", most))
        return await executions.wait(caller, given["execution_id"], seconds, send)

    async def signal(caller: Caller, given: dict[str, Any], send: Send) -> types.CallToolResult:
        arguments = (caller, given["execution_id"], given["name"], given.get("payload"))
        return answer(await asyncio.to_thread(executions.signal, *arguments), most=size)

    seconds = {"type": "number", "minimum": 0, "maximum": most}
    return [
        PlainTool("executions:read", _tool(
            "execution_status", "Return the state of an execution, and its output if it has ended.",
            {"execution_id": _ID}, output=_STATE, reads=True,
        ), status),
        PlainTool("executions:read", _tool(
            "execution_wait", "Wait for the end of an execution, and return its state.",
            {"execution_id": _ID, "seconds": seconds}, ["execution_id"], output=_STATE, reads=True,
        ), wait),
        PlainTool("executions:write", _tool(
            "execution_signal", "Send a signal to an execution whose step waits for it.",
            {"execution_id": _ID, "name": {"type": "string", "maxLength": 200}, "payload": {}},
            ["execution_id", "name"],
        ), signal),
    ]  # fmt: skip


def approval_tools(executions: Executions, settings: ServeSettings) -> list[PlainTool]:
    """Return the tools for approvals, each with its scope."""
    size = settings.max_output_bytes

    async def waiting(caller: Caller, given: dict[str, Any], send: Send) -> types.CallToolResult:
        found = await asyncio.to_thread(executions.approvals, caller)
        return answer({"approvals": found}, most=size)

    def decided(*, approved: bool) -> Work:
        async def decide(caller: Caller, given: dict[str, Any], send: Send) -> types.CallToolResult:
            decision = await asyncio.to_thread(
                executions.decide,
                caller,
                given["execution_id"],
                given["step_id"],
                approved=approved,
                comment=given.get("comment", ""),
                form=given.get("form"),
            )
            return answer(decision, most=size)

        return decide

    step = {"execution_id": _ID, "step_id": _STEP, "comment": {"type": "string"}}
    return [
        PlainTool("approvals:read", _tool(
            "approvals_list", "List the steps that wait for your decision.", {}, reads=True,
        ), waiting),
        PlainTool("approvals:write", _tool(
            "approve", "Approve what a step waits for, in your name.",
            {**step, "form": {"type": "object"}}, ["execution_id", "step_id"], destroys=True,
        ), decided(approved=True)),
        PlainTool("approvals:write", _tool(
            "reject", "Reject what a step waits for, in your name.",
            step, ["execution_id", "step_id"], destroys=True,
        ), decided(approved=False)),
    ]  # fmt: skip


def _tool(
    name: str,
    about: str,
    properties: dict[str, Any],
    required: list[str] | None = None,
    *,
    output: dict[str, Any] | None = None,
    reads: bool = False,
    destroys: bool = False,
) -> types.Tool:
    return types.Tool(
        name=name,
        description=about,
        input_schema={
            "type": "object",
            "properties": properties,
            "required": list(properties) if required is None else required,
            "additionalProperties": False,
        },
        output_schema=output,
        annotations=types.ToolAnnotations(
            read_only_hint=reads, destructive_hint=destroys, idempotent_hint=reads
        ),
    )


def _check(schema: dict[str, Any], arguments: dict[str, Any], what: str) -> None:
    problems = compile_schema(schema, what)(arguments)
    if problems:
        raise invalid(what, problems)
