"""Executions as clients see them: their own tenant's, of workflows that are offered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import anyio
from mcp import types

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.steer.approvals import PendingApproval
from automate_mcp.answers import answer, failed
from automate_mcp.progress import Send
from automate_mcp.settings import CALL_PREFIX, Caller, ServeSettings

_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.05, 1.0
_MOST_APPROVALS = 50


class Executions:
    """The executions of *kernel* that callers may see, and approvals that they may decide."""

    def __init__(self, kernel: Kernel, settings: ServeSettings) -> None:
        self._kernel = kernel
        self._settings = settings

    def find(self, caller: Caller, execution_id: str, *, large_outputs: bool = True) -> Execution:
        """
        Return an execution, or raise ``NOT_FOUND``: also for another tenant's.

        A call that waits for an approval is its caller's own. Without *large_outputs* those that
        are kept apart are not read.
        """
        found = self._kernel.executions.get(execution_id, large_outputs=large_outputs)
        if (
            found is not None
            and found.tenant_id == caller.tenant_id
            and (self._settings.offers_workflow(found.name) or client_of(found) == caller.name)
        ):
            return found
        raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id[:80]!r}")

    def describe(self, execution: Execution) -> dict[str, Any]:
        """Return an execution's state as JSON, with what it waits for."""
        told: dict[str, Any] = {
            "execution_id": execution.id,
            "workflow": execution.name,
            "status": execution.status.value,
            "finished": execution.status.finished,
            "output": execution.output,
            "error": None,
            "waits_for": [],
        }
        if execution.error_code is not None:
            told["error"] = {"code": execution.error_code, "message": execution.error}
        if not execution.status.finished:
            told["waits_for"] = [
                {"about": each.about, "step_id": each.step_id, "name": _name_of(each.details)}
                for each in self._kernel.executions.waits(execution.id)
            ]
        return told

    async def wait(
        self, caller: Caller, execution_id: str, seconds: float, send: Send, *, whole: bool = True
    ) -> types.CallToolResult:
        """
        Wait for the end of an execution, *seconds* at most, and return its state.

        Without *whole* one that has completed gives its output alone, and one that failed an error.
        """
        until, pause, steps = time.monotonic() + seconds, _FIRST_LOOK_SECONDS, -1
        while True:
            execution = await asyncio.to_thread(
                self.find, caller, execution_id, large_outputs=False
            )
            left = until - time.monotonic()
            if execution.status.finished or left <= 0:
                break
            done = sum(run.completed_at is not None for run in execution.steps)
            if done > steps:
                steps = done
                await send(float(done + 1), None, f"{execution.name}: {execution.status.value}")
            await anyio.sleep(min(pause, left))
            pause = min(pause * 2, _LOOK_SECONDS)
        if execution.status.finished:
            execution = await asyncio.to_thread(self.find, caller, execution_id)
        told = await asyncio.to_thread(self.describe, execution)
        if not whole and execution.status.finished:
            if told["error"] is not None or execution.status.value != "COMPLETED":
                return failed(_end_of(execution))
            return answer(
                execution.output,
                most=self._settings.max_output_bytes,
                what="output of the workflow",
            )
        if not whole:
            told["next"] = "a person has to approve it; ask for its state by execution_status"
        return answer(told, most=self._settings.max_output_bytes)

    def signal(self, caller: Caller, execution_id: str, name: str, payload: Any) -> dict[str, Any]:
        """Send a signal to an execution; return its id."""
        execution = self.find(caller, execution_id)
        return {"signal_id": self._kernel.signal(execution.id, name, payload)}

    def approvals(self, caller: Caller) -> list[dict[str, Any]]:
        """List the approvals that the caller may decide, the oldest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self._kernel.approvals.pending(
                by=caller.name, roles=caller.roles, tenant_id=caller.tenant_id, after=after
            )
            found += [_approval(each) for each in page.approvals if self._decidable(caller, each)]
            after = page.after
            if not after or len(found) >= _MOST_APPROVALS:
                return found[:_MOST_APPROVALS]

    def decide(
        self,
        caller: Caller,
        execution_id: str,
        step_id: str,
        *,
        approved: bool,
        comment: str,
        form: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Approve or reject in the caller's name; return the decision."""
        approvals = self._kernel.approvals
        waiting = approvals.get(execution_id, step_id, tenant_id=caller.tenant_id)
        if waiting is None or not self._decidable(caller, waiting):
            text = (
                f"no such step waits for {caller.name}: {step_id[:80]!r} of {execution_id[:80]!r}"
            )
            raise AutomateError(ErrorCodes.NOT_FOUND, text, hint="approvals_list lists them")
        decide = approvals.approve if approved else approvals.reject
        return decide(
            execution_id, step_id, by=caller.name, roles=caller.roles, comment=comment, form=form,
            tenant_id=caller.tenant_id,
        )  # fmt: skip

    def _decidable(self, caller: Caller, waiting: PendingApproval) -> bool:
        if waiting.tenant_id != caller.tenant_id:
            return False
        if self._settings.offers_workflow(waiting.workflow):
            return True
        execution = self._kernel.executions.get(waiting.execution_id, large_outputs=False)
        client = client_of(execution) if execution is not None else None
        # Whoever wants a destructive call does not allow it.
        return client is not None and client != caller.name


def client_of(execution: Execution) -> str | None:
    """Return the caller whose destructive call *execution* is, or None."""
    payload = execution.event.payload
    if not execution.name.startswith(CALL_PREFIX) or not isinstance(payload, dict):
        return None
    return str(payload.get("client"))


def _name_of(details: Mapping[str, Any]) -> Any:
    return next((details[name] for name in ("name", "title", "workflow") if name in details), None)


def _approval(waiting: PendingApproval) -> dict[str, Any]:
    return {
        "execution_id": waiting.execution_id,
        "step_id": waiting.step_id,
        "workflow": waiting.workflow,
        "title": waiting.title,
        "description": waiting.description,
        "form": waiting.form_schema() if waiting.form else None,
        "expires_at": waiting.expires_at and waiting.expires_at.isoformat(),
    }


def _end_of(execution: Execution) -> AutomateError:
    if execution.error_code is None:
        text = f"the execution {execution.id} was {execution.status.value.lower()}"
        return AutomateError(ErrorCodes.CANCELLED, text)
    code = ErrorCodes.of(execution.error_code)
    text = execution.error or "it failed"
    return AutomateError(code, f"{text} (execution {execution.id})", retryable=False)
