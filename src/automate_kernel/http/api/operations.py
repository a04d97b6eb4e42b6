"""``/operations``: the actions and capabilities that clients may call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from automate_kernel.base.errors import AutomateError
from automate_kernel.http.api.exchange import ApiRequest, without
from automate_kernel.http.api.problems import NOT_VALID, ApiError
from automate_kernel.http.operations import OperationProblem


def list_operations(request: ApiRequest) -> list[dict[str, Any]]:
    """List the operations that can be called, with the JSON Schemas of input and output."""
    return request.operations.described()


def show(request: ApiRequest, name: str) -> dict[str, Any]:
    """Read one operation."""
    with _refusing(name):
        return request.operations.describe(name)


def call(request: ApiRequest, name: str) -> Any:
    """
    Call an operation, and answer with its output.

    A failure of the service behind it is answered with 409, 422, 429 or 5xx, and its own code:
    its 401 or 404 says nothing of this request.
    """
    tenant = request.client.tenant_for(request.body.get("tenant_id"))
    with _refusing(name):
        output = request.operations.call(
            name, request.body.get("input", {}), tenant_id=tenant,
            idempotency_key=request.idempotency_key, caller=request.client.key,
        )  # fmt: skip
    return {"output": output}


def list_choices(request: ApiRequest, name: str, field: str) -> list[dict[str, Any]]:
    """List what a field of an operation may be, given what the other fields are."""
    tenant = request.client.tenant_for(request.body.get("tenant_id"))
    with _refusing(name):
        given = without(request.body, "tenant_id")
        return request.operations.choices(name, field, tenant_id=tenant, **given)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Raise the problem that an error of the operation *name* is for its client."""
    try:
        yield
    except AutomateError as error:
        found = OperationProblem.of(error, f"the operation {name[:80]}")
        errors = [{**each, "code": "invalid"} for each in found.errors]
        raise ApiError(
            found.status, NOT_VALID if errors else found.detail, code=found.code, errors=errors,
            headers=found.headers,
        ) from None  # fmt: skip
