"""
The door to operations for others: an allow-list, bounds, and problem details for what fails.

Nothing is callable that the application hasn't named. What others write is taken literally: their
text is no template and no reference to a secret.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
)
from automate_kernel.http.answers import HttpAnswer, HttpError, read_fields, title_of
from automate_kernel.kernel import Kernel
from automate_kernel.operations.exposure import (
    allowed_operations,
    callers_key,
    check_sent,
    hiding_secrets,
    is_allowed,
    shown_error,
)
from automate_kernel.operations.outputs import answered_output
from automate_kernel.operations.schemas.fields import input_fields
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.outbox.item import bounded_seconds, check_text
from automate_kernel.secrets.logs import get_logger

__all__ = ["ExposedOperations", "OperationProblem"]

logger: logging.Logger = get_logger(__name__)

_STATUS: Mapping[ErrorCodes, int] = {
    ErrorCodes.RESOURCE_EXHAUSTED: 429,
    ErrorCodes.UNAVAILABLE: 503,
    ErrorCodes.DEADLINE_EXCEEDED: 504,
    ErrorCodes.FAILED_PRECONDITION: 409,
    ErrorCodes.ALREADY_EXISTS: 409,
    ErrorCodes.ABORTED: 409,
    ErrorCodes.CANCELLED: 409,
    ErrorCodes.INVALID_ARGUMENT: 422,
    ErrorCodes.NOT_FOUND: 422,
    ErrorCodes.INTERNAL: 500,
}
"""The service's answer in the words of ours: its 401 or 404 says nothing of our own request."""
# Older versions of Python have the words of older standards.
_CODES = {408: ErrorCodes.DEADLINE_EXCEEDED.value, 413: "PAYLOAD_TOO_LARGE"}


@dataclass(frozen=True, slots=True)
class OperationProblem:
    """
    A failure of a call as problem details (RFC 9457).

    *errors* has an entry for each wrong field: its JSON pointer and what is wrong with it.
    """

    status: int
    code: str
    detail: str
    retryable: bool = False
    retry_after: float | None = None
    errors: tuple[Mapping[str, str], ...] = ()
    closing: Mapping[str, str] = field(default_factory=dict)
    """Headers that end the connection, after a request that was not read to its end."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        if self.retry_after is None:
            return {**self.closing}
        after = str(max(1, round(bounded_seconds(self.retry_after))))
        return {**self.closing, "Retry-After": after}

    def body(self) -> dict[str, Any]:
        """Return the problem as JSON."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": title_of(self.status),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        return {**body, "errors": list(self.errors)} if self.errors else body

    def answer(self) -> HttpAnswer:
        """Return it as an answer of the ASGI application."""
        kind = {"Content-Type": "application/problem+json"}
        return HttpAnswer(self.status, self.body(), {**kind, **self.headers})

    @classmethod
    def of_request(cls, error: HttpError) -> OperationProblem:
        """Return the problem of a request that could not be read to its end."""
        status = error.answer.status
        code = _CODES.get(status, ErrorCodes.INVALID_ARGUMENT.value)
        return cls(status, code, str(error), status == 408, closing=error.answer.headers)

    @classmethod
    def of(cls, error: BaseException, what: str) -> OperationProblem:
        """
        Return the problem of a call that raised *error*.

        What `shown_error` hides goes to the log, as *what*, and not into the answer.
        """
        error = shown_error(error, what)
        detail = str(error)
        if problems := error.details.get("problems"):
            errors = tuple(
                {"pointer": _pointer(each["field"]), "detail": each["message"]} for each in problems
            )
            return cls(400, error.code.value, "The input is not valid.", errors=errors)
        if isinstance(error, WrongRequestError):
            return cls(400, error.code.value, detail)
        if isinstance(error, UnknownOperationError):
            return cls(404, error.code.value, detail)
        return cls(
            _STATUS.get(error.code, 502),
            error.code.value,
            detail,
            retryable=error.retryable,
            retry_after=error.retry_after,
        )


def _pointer(field: str) -> str:
    parts = [each.replace("~", "~0").replace("/", "~1") for each in field.split(".") if each]
    return "#/" + "/".join(["input", *parts])


class UnknownOperationError(AutomateError):
    """There is no such operation here, or it is not offered: nobody learns which."""

    default_code = ErrorCodes.NOT_FOUND


class WrongRequestError(AutomateError):
    """The tenant or the key of a request is wrong: nothing was called."""

    default_code = ErrorCodes.INVALID_ARGUMENT


def _check_request(**texts: str | None) -> None:
    for name, text in texts.items():
        if text is not None:
            try:
                check_text(text, name, hint="leave it out for none")
            except AutomateError as error:
                raise WrongRequestError(message=str(error)) from None


class ExposedOperations:
    """
    The operations of *kernel* that others may call: those that *allowed* names.

    An entry is a name, or a pattern: ``slack.*``. A destructive operation needs its full name. A
    call that takes longer than *seconds* ends with ``DEADLINE_EXCEEDED``; a transactional operation
    has no limit of time. An output of more than *max_output_bytes* is an error.
    """

    def __init__(
        self,
        kernel: Kernel,
        allowed: Iterable[str],
        *,
        seconds: float = 30.0,
        max_output_bytes: int = 1_000_000,
    ) -> None:
        self.kernel = kernel
        self.allowed: tuple[str, ...] = _checked(allowed)
        """The names and patterns."""
        self.seconds = seconds
        self.max_output_bytes = max_output_bytes

    def offers(self, name: str, spec: OperationSpec) -> bool:
        """Return True if the operation *name* is on the allow-list."""
        return is_allowed(name, spec, self.allowed)

    def find(self, name: str, *, tenant_id: str | None = None) -> OperationSpec:
        """
        Return the spec of an operation; raises the same error for any other name.

        Where a service says which operations there are, and is away, raises that it is.
        """
        # Before the look-up, which would import a plugin that nobody may use.
        if any(fnmatchcase(name, each) for each in self.allowed):
            try:
                spec = self.kernel.operation(name, tenant_id=tenant_id)
            except AutomateError as error:
                if error.retryable:
                    raise
                logger.info("%s", error)
            else:
                if self.offers(name, spec):
                    return spec
        raise UnknownOperationError(message=f"there is no operation {name[:80]!r} here")

    def specs(self) -> dict[str, OperationSpec]:
        """Return the specs of the operations that are offered, by their names in order."""
        return allowed_operations(self.kernel.operations, self.allowed)

    def described(self) -> list[dict[str, Any]]:
        """Return the description of each operation that is offered."""
        return [self._described(name, spec) for name, spec in self.specs().items()]

    def describe(self, name: str) -> dict[str, Any]:
        """Return an operation's title, schemas and hints, and which fields have choices."""
        return self._described(name, self.find(name))

    def _described(self, name: str, spec: OperationSpec) -> dict[str, Any]:
        return {
            "name": name,
            "title": spec.title,
            "description": spec.description,
            "read_only": spec.read_only,
            "idempotent": spec.idempotent,
            "destructive": spec.destructive,
            "input_schema": spec.json_schema(),
            "output_schema": spec.output_json_schema(),
            "choices": self.fields_with_choices(name, spec),
        }

    def fields_with_choices(self, name: str, spec: OperationSpec) -> list[str]:
        """Return the fields of which `choices` lists what they may be."""
        dynamic = self.kernel.choices.dynamic_fields(name)
        fields = input_fields(spec.json_schema())
        return [each.name for each in fields if each.choices or each.name in dynamic]

    def call(
        self,
        name: str,
        data: Any,
        *,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        caller: str = "",
    ) -> Any:
        """
        Call an operation with *data* as its literal input, and return its output.

        The key that the operation sees is made of *idempotency_key*, tenant and *caller*: of two
        clients with the same key none gets the other's answer. Secrets in *data* by the schema
        are in no log, error or output. Raises `AutomateError`.
        """
        _check_request(tenant_id=tenant_id, idempotency_key=idempotency_key)
        spec = self.find(name, tenant_id=tenant_id)
        given = {} if data is None else data
        check_sent(name, spec, given)
        if idempotency_key is not None:
            idempotency_key = callers_key(
                idempotency_key, tenant_id=tenant_id, caller=caller, name=name
            )
        with hiding_secrets(given, spec.json_schema()) as hidden:
            output = self.kernel.invoke(
                name, given, timeout=self.seconds, tenant_id=tenant_id,
                idempotency_key=idempotency_key, literal=True,
            )  # fmt: skip
        output = hidden.redact_value(output, cut=False)
        answered_output(output, f"output of {name!r}", self.max_output_bytes)
        return output

    def choices(
        self,
        name: str,
        field: str,
        *,
        search: str = "",
        values: Mapping[str, Any] | None = None,
        limit: int = 100,
        tenant_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return what a field of an operation may be; see `Kernel.options`."""
        _check_request(tenant_id=tenant_id)
        spec = self.find(name, tenant_id=tenant_id)
        with hiding_secrets(values or {}, spec.json_schema()):
            found = self.kernel.options(
                name, field, search=search, values=values, limit=limit, tenant_id=tenant_id,
                timeout=min(self.seconds, 10.0),
            )  # fmt: skip
        return [each.to_json() for each in found]


_CALL_FIELDS: dict[str, tuple[type, ...]] = {
    "input": (dict,),
    "tenant_id": (str,),
    "idempotency_key": (str,),
}
_CHOICES_FIELDS: dict[str, tuple[type, ...]] = {
    "search": (str,),
    "values": (dict,),
    "limit": (int,),
    "tenant_id": (str,),
}


def answer_list(exposed: ExposedOperations) -> HttpAnswer:
    """Answer ``GET /operations``."""
    return _answered("operations", lambda: {"operations": exposed.described()})


def answer_operation(exposed: ExposedOperations, name: str) -> HttpAnswer:
    """Answer ``GET /operations/<name>``."""
    return _answered(name, lambda: exposed.describe(name))


def answer_call(
    exposed: ExposedOperations, name: str, body: bytes, key: str | None = None
) -> HttpAnswer:
    """Answer ``POST /operations/<name>``; *key* is the header ``Idempotency-Key``."""

    def call() -> dict[str, Any]:
        given = read_fields(body, _CALL_FIELDS)
        if key is not None:
            given.setdefault("idempotency_key", key)
        return {"output": exposed.call(name, given.pop("input", None), **given)}

    return _answered(name, call)


def answer_choices(exposed: ExposedOperations, name: str, field: str, body: bytes) -> HttpAnswer:
    """Answer ``POST /operations/<name>/choices/<field>``."""

    def look() -> dict[str, Any]:
        return {"choices": exposed.choices(name, field, **read_fields(body, _CHOICES_FIELDS))}

    return _answered(name, look)


def _answered(what: str, make: Callable[[], Mapping[str, Any]]) -> HttpAnswer:
    try:
        return HttpAnswer(200, make())
    except HttpError as error:
        status, text = error.answer.status, str(error)
        return OperationProblem(status, "INVALID_ARGUMENT", text).answer()
    except Exception as error:
        return OperationProblem.of(error, f"the operation {what[:80]}").answer()


def _checked(allowed: Iterable[str]) -> tuple[str, ...]:
    given = (allowed,) if isinstance(allowed, str) else tuple(allowed)
    for each in given:
        if not isinstance(each, str) or not each.strip():
            raise ConfigError(
                "the operations that others may call are a list of names",
                hint='for example ["slack.post_message", "http.*"]',
            )
    return given
