"""The results and errors of a server's tools, as outputs and errors of capabilities."""

from __future__ import annotations

import json
from typing import Any

from mcp import MCPError, types
from pydantic import ValidationError

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.values import readable
from automate_mcp.messages import MARK

_MOST_TEXT = 2_000
_MOST_PLACES = 3
# A stranger may ask for any pause.
_MOST_PAUSE = 86_400.0
_CODES = {
    types.INVALID_PARAMS: ErrorCodes.INVALID_ARGUMENT,
    types.INVALID_REQUEST: ErrorCodes.FAILED_PRECONDITION,
    types.METHOD_NOT_FOUND: ErrorCodes.UNIMPLEMENTED,
    types.PARSE_ERROR: ErrorCodes.DATA_LOSS,
    types.REQUEST_TIMEOUT: ErrorCodes.DEADLINE_EXCEEDED,
    types.CONNECTION_CLOSED: ErrorCodes.UNAVAILABLE,
    types.URL_ELICITATION_REQUIRED: ErrorCodes.UNIMPLEMENTED,
    types.MISSING_REQUIRED_CLIENT_CAPABILITY: ErrorCodes.UNIMPLEMENTED,
}
UNSURE = "the call may have been carried out, and isn't made again by itself"
"""The hint of an error after which nobody knows what a tool has done."""


def output_of(result: types.CallToolResult, *, typed: bool, most: int) -> Any:
    """
    Return a result as JSON: its structured content if the tool is *typed*, else all of it.

    That is ``{"text": …, "content": […], "structured": …}``. Raises ``RESOURCE_EXHAUSTED`` if it
    takes more than *most* bytes.
    """
    content = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content
    ]
    output: Any = result.structured_content
    if not typed:
        output = {"text": text_of(result), "content": content, "structured": output}
    size = len(json.dumps(output, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size > most:
        raise AutomateError(
            ErrorCodes.RESOURCE_EXHAUSTED,
            f"the result takes {size:,} bytes, more than the {most:,} that are allowed",
            hint="ask for less, or raise max_result_bytes in the config",
            retryable=False,
        )
    return readable(output)


def text_of(result: types.CallToolResult) -> str:
    """Return the text of a result, block by block."""
    return "\n".join(each.text for each in result.content if isinstance(each, types.TextContent))


def failure_of(result: types.CallToolResult, tool: str) -> AutomateError:
    """
    Return the error that a tool reports of itself.

    The tool has answered, so the same call would most likely fail again. A server of this project
    says more: its code is taken over.
    """
    structured = result.structured_content
    told: Any = structured.get("error") if isinstance(structured, dict) else None
    if (code := _code_in(told)) is not None:
        return AutomateError(
            code,
            _short(str(told.get("message") or "")),
            hint=_short(str(told["hint"])) if told.get("hint") else None,
            retryable=told.get("retryable") is True,
            retry_after=_seconds(told.get("retry_after")),
        )
    text = _short(text_of(result)) or "without a reason"
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION, f"the tool {tool!r} reports: {text}", retryable=False
    )


def error_of(error: MCPError, what: str, *, idempotent: bool) -> AutomateError:
    """
    Return the error for one of the protocol, about *what*.

    Where the call may have been carried out, only an *idempotent* one is worth another attempt.
    """
    stream = _stream_failure(error)
    if stream is not None:
        return AutomateError(stream[0], f"{what}: {stream[1]}", hint=stream[2], retryable=False)
    ours: Any = error.data.get(MARK) if isinstance(error.data, dict) else None
    text, told, hint = _short(error.message), _code_in(ours), None
    if told is not None:
        hint = _short(str(ours["hint"])) if ours.get("hint") else None
        code, sent = told, ours.get("sent") is not False
        retryable, after = ours.get("retryable") is True, ours.get("retry_after")
    else:
        code, sent, after = _CODES.get(error.code, ErrorCodes.INTERNAL), True, None
        retryable = code.retryable
    unsure = retryable and sent and not idempotent
    return AutomateError(
        code,
        f"{what}: {text}",
        hint=UNSURE if unsure else hint,
        retryable=retryable and not unsure,
        retry_after=_seconds(after),
    )


def _stream_failure(error: MCPError) -> tuple[ErrorCodes, str, str] | None:
    """
    Return code, text and hint for an event that can't be taken: as for an answer of one piece.

    The SDK's own text quotes what came.
    """
    hint = "if a tool was called, it may have done its work"
    if error.code == types.PARSE_ERROR and error.message.startswith("Failed to parse "):
        return ErrorCodes.DATA_LOSS, "its answer isn't one of the protocol", hint
    if "Server-sent event exceeded" in error.message:
        hint += "; ask for less, or raise max_result_bytes in the config"
        return ErrorCodes.RESOURCE_EXHAUSTED, "the answer is larger than max_result_bytes", hint
    return None


def unreadable(error: ValidationError, what: str) -> AutomateError:
    """Return the error for an answer of *what* that isn't one of the protocol; shows no value."""
    places = [".".join(map(str, each["loc"])) for each in error.errors(include_input=False)]
    shown = ", ".join(dict.fromkeys(places[:_MOST_PLACES]))
    return AutomateError(
        ErrorCodes.DATA_LOSS,
        f"{what} gave an answer that isn't one of the protocol: {_short(shown)}",
        hint="if it was called, it may have done its work; report it to the author of the server",
        retryable=False,
    )


def _seconds(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= _MOST_PAUSE else None


def _code_in(told: Any) -> ErrorCodes | None:
    """Return the code that an error says it has; None if it is worded otherwise than ours."""
    code = told.get("code") if isinstance(told, dict) else None
    return ErrorCodes(code) if isinstance(code, str) and code in ErrorCodes.__members__ else None


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
