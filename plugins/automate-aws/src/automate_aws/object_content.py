"""The content of objects: bytes as values of a workflow, and back."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from automate_kernel.base.errors import AutomateError, ErrorCodes, type_name
from automate_kernel.storage.values import read_json

CONTENT_TYPES: dict[str, str] = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "base64": "application/octet-stream",
}
"""The media types of encodings, where a call gives none."""


def encoded(content: Any, encoding: str) -> bytes:
    """Return the bytes of *content*; raise ``INVALID_ARGUMENT`` if it isn't of that *encoding*."""
    if encoding == "json":
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    if not isinstance(content, str):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the content is {type_name(content)}, and {encoding} is text",
            hint="use encoding: json for other values",
        )
    if encoding == "text":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the content is no base64") from None


def decoded(data: bytes, encoding: str) -> Any:
    """Return *data* as a value; raise ``FAILED_PRECONDITION`` if it isn't of that *encoding*."""
    if encoding == "base64":
        return base64.b64encode(data).decode("ascii")
    try:
        return read_json(data) if encoding == "json" else data.decode()
    except ValueError:
        wanted = "JSON" if encoding == "json" else "UTF-8 text"
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the object is no {wanted}",
            hint="use encoding: base64, or download_file",
        ) from None
