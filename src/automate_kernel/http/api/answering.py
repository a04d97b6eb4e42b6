"""A request's way through a route: what is sent is checked, what is answered is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, get_origin

from pydantic import ValidationError

from automate_kernel.base.documents import shown_document
from automate_kernel.http.api.exchange import AcceptedExecution, ApiAnswer, ApiPage, ApiRequest
from automate_kernel.http.api.inputs import ApiInput, NoInput
from automate_kernel.http.api.problems import NOT_VALID, ApiError, invalid
from automate_kernel.http.api.routes import ApiRoute
from automate_kernel.http.api.trail import recorded
from automate_kernel.kernel import Kernel
from automate_kernel.secrets.masking import hide_named


def read_query(route: ApiRoute, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a query; raises a 400 for what nobody knows, and for a second value."""
    model = route.query or NoInput
    given: dict[str, Any] = {}
    for name, value in pairs:
        known = model.model_fields.get(name)
        if known is not None and get_origin(known.annotation) is list:
            given.setdefault(name, []).append(value)
        elif name in given:
            # Which of them counts would be for us to guess.
            again = {"parameter": name[:40], "detail": "Give it once.", "code": "invalid"}
            raise ApiError(400, NOT_VALID, errors=[again])
        else:
            given[name] = value
    if not given.get("cursor", "-"):
        del given["cursor"]  # the first page
    return _checked(model, given, "parameter", strict=False)


def read_body(route: ApiRoute, given: Any) -> dict[str, Any]:
    """Return the fields of a body; raises a 400 that points to what is wrong."""
    return _checked(route.body or NoInput, given, "pointer", strict=None)


def _checked(
    model: type[ApiInput], given: Any, where: str, *, strict: bool | None
) -> dict[str, Any]:
    try:
        read = model.model_validate(given, strict=strict)
    except ValidationError as error:
        raise invalid(error, where) from None
    return {name: getattr(read, name) for name in sorted(read.model_fields_set)}


def answer(route: ApiRoute, request: ApiRequest, arguments: Sequence[str]) -> ApiAnswer:
    """Carry a request out; raises `ApiError`, and `AutomateError` as the kernel does."""
    if route.operator and not request.client.operator:
        raise ApiError(403, "This is for operators.")
    request.client.tenant_for(None)  # raises for somebody who would see nothing

    def carry_out() -> Any:
        return route.handle(request, *arguments)

    audited = route.audited
    found = recorded(route, request, arguments, carry_out) if audited else carry_out()
    headers = {}
    if isinstance(found, AcceptedExecution):
        headers["Location"] = f"{request.base}{found.path}"
    return ApiAnswer(route.status, _shown(route, found, request.kernel), headers)


def with_etag(found: ApiAnswer, if_none_match: str | None) -> ApiAnswer:
    """Return the answer to a GET with an ETag, or a 304 if the client has it already."""
    text = shown_document(found.body, ascii_only=True)
    tag = f'W/"{hashlib.sha256(text.encode("ascii")).hexdigest()[:32]}"'
    # A comparison for caching is a weak one (RFC 9110): marks of weakness don't count.
    known = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
    headers = {**found.headers, "ETag": tag, "Cache-Control": "private, no-cache"}
    if "*" in known or tag.removeprefix("W/") in known:
        return ApiAnswer(304, None, headers)
    return ApiAnswer(found.status, found.body, headers)


def _shown(route: ApiRoute, found: Any, kernel: Kernel) -> Any:
    output = route.output
    if output is None:
        return None
    redact = kernel.redactor.redact_value
    context = {"show": lambda value: hide_named(redact(value))}

    def one(value: Any) -> Any:
        return output.model_validate(value, context=context).model_dump(mode="json")

    if isinstance(found, ApiPage):
        results = [one(each) for each in found.results]
        return {"next": found.next, "previous": found.previous, "results": results}
    return [one(each) for each in found] if route.many else one(found)
