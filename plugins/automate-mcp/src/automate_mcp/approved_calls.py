"""
Calls of destructive operations, which wait for a person.

Each is an execution of a small workflow, whose first step is the approval and whose second is the
call. So it survives a restart, and shows on the pages of operators.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from mcp import types

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.masking import secret_fields
from automate_mcp.executions import Executions
from automate_mcp.progress import Send
from automate_mcp.settings import CALL_PREFIX, Caller, ServeSettings

_MOST_SHOWN = 3_000


class ApprovedCalls:
    """The calls of *kernel* that wait for an approval as *settings* say."""

    def __init__(self, kernel: Kernel, settings: ServeSettings, executions: Executions) -> None:
        self._kernel = kernel
        self._settings = settings
        self._executions = executions

    async def call(
        self, caller: Caller, operation: str, data: dict[str, Any], key: str | None, send: Send
    ) -> types.CallToolResult:
        """
        Ask for the approval of a call, and return its execution; its output if that ends.

        Raises ``FAILED_PRECONDITION`` for an input with secrets: what waits is stored, and shown
        to those who approve it.
        """
        execution_id = await asyncio.to_thread(self._start, caller, operation, data, key)
        return await self._executions.wait(
            caller, execution_id, self._settings.wait_seconds, send, whole=False
        )

    def _start(self, caller: Caller, operation: str, data: dict[str, Any], key: str | None) -> str:
        spec = self._kernel.operation(operation, tenant_id=caller.tenant_id)
        if fields := secret_fields(data, spec.json_schema()):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the input of {operation} has a secret in {', '.join(fields)[:200]}, and a call "
                "that waits for a person is stored",
                hint="leave it out; the host can keep it in the config of the plugin",
            )
        name = CALL_PREFIX + operation
        if name not in self._kernel.workflows:
            self._kernel.add_workflow(self._definition(name, operation))
        shown = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
        cut = "" if len(shown) <= _MOST_SHOWN else "\n… (the execution's event has all of it)"
        payload = {"client": caller.name, "input": data, "shown": shown[:_MOST_SHOWN] + cut}
        return self._kernel.start(
            name, payload, tenant_id=caller.tenant_id, idempotency_key=caller.key_for(name, key)
        )

    def _definition(self, name: str, operation: str) -> Mapping[str, Any]:
        given = self._settings.approval
        approval: dict[str, Any] = {
            "title": f"{{{{ event.payload.client }}}} wants to call {operation}",
            "description": "{{ event.payload.shown }}",
            "timeout": given.timeout,
        }
        if given.by:
            approval["by"] = given.by
        if given.notify is not None:
            approval["notify"] = given.notify
        return {
            "name": name,
            "title": f"{operation}, called by a client of MCP",
            "trigger": {"type": "manual"},
            "steps": [
                {"id": "approval", "approval": approval},
                {"id": "call", "action": operation, "input": "{{ event.payload.input }}"},
            ],
            "output": "{{ steps.call.output }}",
        }
