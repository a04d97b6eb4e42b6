"""Results of tools as JSON: what a step records of them, and what the agent gets of the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn, ToolReturnPart, UserPromptPart

from automate_kernel.workflows import StepAttempt

_RETURNED: TypeAdapter[ToolReturnPart] = TypeAdapter(ToolReturnPart)
_ADDED: TypeAdapter[UserPromptPart] = TypeAdapter(UserPromptPart)

INTERRUPTED = {"outcome": "interrupted"}
"""The record of a call that had begun in a process which died, and must not be made again."""

_INTERRUPTED_TEXT = (
    "This call was begun, and interrupted before its result was known. It may have had its effect,"
    " or not. It has not been made again. Find out before you repeat it, or report it."
)


def failed_before(attempt: StepAttempt) -> dict[str, Any]:
    """Return the record of a call that has failed as *attempt* did, and must not be made again."""
    said = f"It failed: {attempt.error_code}: {attempt.error}."
    more = "It has not been made again. Find out what it has done before you repeat it."
    return {"outcome": "failed", "message": f"{said} {more}"}


def returned(name: str, value: Any) -> dict[str, Any]:
    """Return the record of a tool that returned *value*."""
    if not isinstance(value, ToolReturn):
        return {"outcome": "returned", "value": _written(name, value)}
    added = None
    if value.content is not None:
        part = UserPromptPart(value.content if isinstance(value.content, str) else [*value.content])
        added = _ADDED.dump_python(part, mode="json")["content"]
    metadata = _RETURNED.dump_python(
        ToolReturnPart(tool_name=name, content="", tool_call_id="", metadata=value.metadata),
        mode="json",
    )["metadata"]
    return {
        "outcome": "returned",
        "value": _written(name, value.return_value),
        "rich": {"content": added, "metadata": metadata},
    }


def raised(error: Exception) -> dict[str, Any] | None:
    """Return the record of an *error* that is meant for the model or the run; None for others."""
    if isinstance(error, ModelRetry):
        return {"outcome": "retry", "message": error.message}
    if isinstance(error, ToolFailed):
        return {"outcome": "failed", "message": str(error)}
    if isinstance(error, CallDeferred):
        return {"outcome": "deferred", "metadata": error.metadata}
    if isinstance(error, ApprovalRequired):
        return {"outcome": "approval", "metadata": error.metadata}
    return None


def value_of(name: str, record: Mapping[str, Any]) -> Any:
    """Return the value that a *record* holds, or raise the error that it is of."""
    outcome = record["outcome"]
    if outcome == "retry":
        raise ModelRetry(record["message"])
    if outcome == "failed":
        raise ToolFailed(record["message"])
    if outcome == "deferred":
        raise CallDeferred(metadata=record["metadata"])
    if outcome == "approval":
        raise ApprovalRequired(metadata=record["metadata"])
    if outcome == "interrupted":
        raise ToolFailed(_INTERRUPTED_TEXT)
    value = _read(name, record["value"])
    rich = record.get("rich")
    if rich is None:
        return value
    content = rich["content"]
    if content is not None:
        content = _ADDED.validate_python({"content": content, "part_kind": "user-prompt"}).content
    return ToolReturn(return_value=value, content=content, metadata=rich["metadata"])


def _written(name: str, value: Any) -> Any:
    part = ToolReturnPart(tool_name=name, content=value, tool_call_id="")
    return _RETURNED.dump_python(part, mode="json")["content"]


def _read(name: str, stored: Any) -> Any:
    part = {"tool_name": name, "content": stored, "tool_call_id": "", "part_kind": "tool-return"}
    return _RETURNED.validate_python(part).content
