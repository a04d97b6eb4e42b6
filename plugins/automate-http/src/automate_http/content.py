"""Bodies: of a request as bytes, and of a response as JSON, text or base64."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from automate_http.answers import json_of
from automate_http.exchange import Reply
from automate_http.messages import HttpResponse, PostInput, Scalar
from automate_http.urls import utf8
from automate_kernel.base.errors import AutomateError, ErrorCodes

_JSON = re.compile(r"application/(json|[a-z0-9.+-]*\+json)|text/json", re.IGNORECASE)
_CHARSET = re.compile(r""";\s*charset\s*=\s*"?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
# Not every codec of Python's: some are slow on purpose-made input, and some are not text at all.
_CODECS = re.compile(r"(utf|iso|windows|cp|latin|us-ascii|ascii|koi8|gb|big5|euc|shift)[a-z0-9_-]*")
_TEXT = re.compile(r"text/|application/(xml|[a-z0-9.-]*\+xml|javascript|x-www-form-urlencoded)")


def encode_body(data: PostInput) -> tuple[bytes, str | None]:
    """Return the request's body and its content type."""
    if data.has_json:
        return encode_json(data.json_body), "application/json"
    if data.form is not None:
        return encode_form(data.form), "application/x-www-form-urlencoded"
    if data.text is not None:
        return utf8(data.text), "text/plain; charset=utf-8"
    return b"", None


def encode_form(form: Mapping[str, Scalar | list[Scalar]]) -> bytes:
    """Write *form* as an HTML form is sent."""
    pairs = {}
    for name, value in form.items():
        texts = map(_form_text, value if isinstance(value, list) else [value])
        pairs[utf8(name)] = [utf8(text) for text in texts]
    return urlencode(pairs, doseq=True).encode()


def encode_json(value: Any) -> bytes:
    """Write *value* as JSON in UTF-8, the same bytes for the same value."""
    try:
        return utf8(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "the body can't be written as JSON"
        ) from None


def response_of(reply: Reply) -> HttpResponse:
    """Return the workflow's view of *reply*."""
    headers = {name: value for name, value in reply.headers.items() if name != "set-cookie"}
    body = _body(reply.headers.get("content-type", ""), reply.content)
    return HttpResponse.model_validate(
        {"status": reply.status, "ok": reply.status < 400, "headers": headers, **body}
    )


def _body(kind: str, content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    if _JSON.match(kind):
        try:
            return {"json": json_of(content)}
        except ValueError:
            pass  # a proxy's error page, say: the text says more than an error here
    text = _decoded(kind, content)
    return {"base64": base64.b64encode(content).decode()} if text is None else {"text": text}


def _decoded(kind: str, content: bytes) -> str | None:
    """Decode *content* as text; None if it is none or can't be stored."""
    match = _CHARSET.search(kind)
    charset = match[1].lower() if match and _CODECS.fullmatch(match[1].lower()) else "utf-8"
    declared = _TEXT.match(kind.lower()) is not None or match is not None
    try:
        text = content.decode(charset, "replace" if declared else "strict")
    except (LookupError, ValueError):
        return None
    return None if "\0" in text else text


def _form_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
