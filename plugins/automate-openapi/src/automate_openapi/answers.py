"""A service's answer as the output of an action."""

from __future__ import annotations

import base64
import logging
from typing import Any, Literal

from automate_http.answers import read_answer
from automate_http.exchange import Reply
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_openapi.actions import ApiAction
from automate_openapi.bodies import kind_of

_SHOWN = 5


def output_of(reply: Reply) -> Any:
    """Return JSON as its value, text as text, other content as base64, and none as None."""
    if not reply.content or reply.method == "HEAD":
        return None
    media_type = reply.headers.get("content-type", "").strip()
    kind = kind_of(media_type) if media_type else "json"
    if kind == "json":
        return read_answer(reply, None)
    text = read_answer(reply, str) if kind in ("text", "form") else None
    if text is not None and "\0" not in text:
        return text
    return {"base64": base64.b64encode(reply.content).decode(), "content_type": media_type[:200]}


def check_output(
    action: ApiAction,
    output: Any,
    how: Literal["warn", "error", "off"],
    logger: logging.Logger,
) -> None:
    """
    Compare *output* with the document. For ``error`` it raises ``FAILED_PRECONDITION``.

    For text in place of anything else it is ``UNAVAILABLE``: a page of a proxy, perhaps.
    """
    check = action.output_check if how != "off" else None
    problems = check(output) if check is not None else []
    if not problems:
        return
    listed = "; ".join(str(each)[:200] for each in problems[:_SHOWN])
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    text = f"the answer to {action.spec.name!r} is not as its document says: {listed}{more}"
    if how == "warn":
        logger.warning("%s", text)
        return
    if isinstance(output, str):
        raise AutomateError(
            ErrorCodes.UNAVAILABLE,
            text,
            hint="see who answers there: a login page or a proxy's has no JSON",
        )
    raise AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        text,
        hint="report it to the service, or set validate_output to warn",
        retryable=False,
    )
