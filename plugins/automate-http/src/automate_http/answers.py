"""A service's answer as a value of the type that its caller expects."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from automate_http.exchange import Reply
from automate_http.guard import origin
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.values import read_json, readable

_SHOWN_PROBLEMS = 5


def read_answer(reply: Reply, returns: Any) -> Any:
    """
    Return the body of *reply* as *returns*: a model or any other type, from JSON.

    ``str`` and ``bytes`` are the body itself. None is whatever JSON there is, or None for an empty
    body. NUL and halves of characters, which no database takes, are U+FFFD in it. Raises
    ``UNAVAILABLE`` for text that is not JSON, which a proxy or a cut connection causes, and
    ``FAILED_PRECONDITION`` for JSON of another shape.
    """
    if returns is bytes:
        return reply.content
    if returns is str:
        return reply.content.decode("utf-8", "replace")
    if returns is None and not reply.content:
        return None
    try:
        value = json_of(reply.content)
    except ValueError:
        where = f"{reply.method} {origin(reply.url)}"
        raise AutomateError(
            ErrorCodes.UNAVAILABLE, f"{where} answered {reply.status} with no valid JSON"
        ) from None
    return value if returns is None else as_type(value, returns, reply)


def json_of(content: bytes) -> Any:
    """Return JSON in a form that databases take; raises `ValueError` for what is none."""
    value = read_json(content)
    try:
        return readable(value) if b"\\u" in content else value  # it stands in no other way there
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def as_type(value: Any, returns: Any, reply: Reply) -> Any:
    """Return the JSON *value* as *returns*. Values are not shown where it does not fit."""
    try:
        # From text: a date is text in JSON, and Python's own values are stricter.
        return _adapter(returns).validate_json(json.dumps(value))
    except ValidationError as error:
        problems = _problems(error)
    raise AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"{reply.method} {origin(reply.url)} answered JSON of another shape: {problems}",
        hint="the service may have changed; compare its documentation with the plugin's model",
    )


def _problems(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    texts = [
        # The names in a location may be the service's own: keys of a mapping.
        f"{'.'.join(str(part)[:40] for part in each['loc'][:8]) or 'the whole'}: {each['type']}"
        for each in found[:_SHOWN_PROBLEMS]
    ]
    more = f" and {len(found) - len(texts)} more" if len(found) > len(texts) else ""
    return "; ".join(texts) + more


@lru_cache(256)
def _adapter(returns: Any) -> TypeAdapter[Any]:
    return TypeAdapter(returns)
