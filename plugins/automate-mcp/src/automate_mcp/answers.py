"""The results of our own tools: outputs, errors and executions, as MCP has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp import types

from automate_kernel.base.errors import OutputError
from automate_kernel.operations.exposure import shown_error
from automate_kernel.operations.outputs import answered_output


def answer(output: Any, *, most: int, what: str = "answer") -> types.CallToolResult:
    """
    Return the result with *output*, as an object and as text; *what* names it in errors.

    What isn't an object stands in the field ``result``. One of more than *most* bytes is an error.
    """
    structured = output if isinstance(output, dict) else {"result": output}
    try:
        text = answered_output(output, what, most)
    except OutputError as error:
        return failed(error)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=structured
    )


def failed(error: BaseException, what: str = "a call") -> types.CallToolResult:
    """
    Return the result of a tool that failed, with the code, the hint, and if a retry can help.

    What `shown_error` hides goes to the log, as *what*, and not to the client.
    """
    error = shown_error(error, what)
    told: dict[str, Any] = {
        "code": error.code.value,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
    }
    if problems := error.details.get("problems"):
        told["problems"] = problems
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=f"{error.code.value}: {error}")],
        structured_content={"error": told},
        is_error=True,
    )


def wrapped_schema(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """
    Return the schema of an output as `answer` gives it, or None if that can't be said.

    MCP wants an object: any other value stands in the field ``result``.
    """
    if schema is None:
        return None
    if schema.get("type") == "object":
        return dict(schema)
    inner = {name: value for name, value in schema.items() if name not in ("$defs", "$schema")}
    # Moved below a field, a reference to any other place would lead nowhere.
    if any(not each.startswith("#/$defs/") for each in _references(schema)):
        return None
    whole: dict[str, Any] = {
        "type": "object", "properties": {"result": inner}, "required": ["result"],
    }  # fmt: skip
    return {**whole, "$defs": schema["$defs"]} if "$defs" in schema else whole


def _references(schema: Any) -> list[str]:
    if isinstance(schema, Mapping):
        own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
        return own + [each for value in schema.values() for each in _references(value)]
    if isinstance(schema, list):
        return [each for value in schema for each in _references(value)]
    return []
