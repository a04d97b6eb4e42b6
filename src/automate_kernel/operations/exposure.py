"""Operations that others may call: the allow-list, the names of tools, keys, hidden secrets."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PayloadError,
    is_setup_fault,
)
from automate_kernel.operations.invoker import Invoker
from automate_kernel.operations.outputs import json_document
from automate_kernel.operations.schemas.checks import invalid, unwritable
from automate_kernel.operations.schemas.portable import portable
from automate_kernel.operations.spec import NAME_PATTERN, OperationSpec
from automate_kernel.secrets import Redactor
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.masking import secrets_of_input
from automate_kernel.secrets.tracebacks import log_error, trace_of

logger: logging.Logger = get_logger(__name__)

_OURS = "It failed. The log of the service says why."
_LONGEST_TOOL, _DIGEST = 64, 8
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


def check_sent(name: str, spec: OperationSpec, data: Any) -> None:
    """
    Check what a client has sent as the input of the operation *name*.

    Raises ``INVALID_ARGUMENT`` that names each wrong field. Numbers that JSON's readers make
    infinite are wrong for every schema: Python reads ``1e400`` as infinity.
    """
    try:
        json_document(data, "input")
    except PayloadError:
        raise invalid(f"input of {name!r}", [unwritable(data)]) from None
    spec.validate(data, called=name)


def is_allowed(name: str, spec: OperationSpec, allowed: Iterable[str]) -> bool:
    """
    Return True if one of *allowed* names an operation, or fits it as a pattern: ``slack.*``.

    A destructive operation needs its full name.
    """
    return any(
        name == each or (not spec.destructive and fnmatchcase(name, each)) for each in allowed
    )


def allowed_operations(operations: Invoker, allowed: Iterable[str]) -> dict[str, OperationSpec]:
    """
    Return the operations that *allowed* names or fits, by their names in order.

    Those that can't be described now are left out with a line in the log.
    """
    patterns, found = tuple(allowed), dict[str, OperationSpec]()
    for pattern in patterns:
        try:
            found |= operations.matching(pattern)
        except Exception as error:
            logger.warning("the operations %r are left out: %s", pattern, error)
    return {name: found[name] for name in sorted(found) if is_allowed(name, found[name], patterns)}


def model_schema(spec: OperationSpec) -> dict[str, Any] | None:
    """
    Return the JSON Schema of the input that a model may give; None if it can never call *spec*.

    A field that an author has to write (``x-written``) is refused when it comes from a model. So it
    is left out, and the whole operation with it if the field is required. So is a pattern that does
    not mean the same to all clients; the operation itself checks it.
    """
    schema, written = portable(spec.json_schema()), spec.written_fields
    if not written:
        return schema
    if any(name in written for name in schema.get("required", ())):
        return None
    fields: Mapping[str, Any] = schema["properties"]
    kept = {name: field for name, field in fields.items() if name not in written}
    return {**schema, "properties": kept}


def check_tools(operations: Invoker, allowed: Iterable[str]) -> None:
    """
    Raise `ConfigError` if one of *allowed* is the name of an operation that no model can call.

    Names that are not there yet, and patterns that fit nothing, are passed over with a line in the
    log.
    """
    for name in (each for each in allowed if NAME_PATTERN.fullmatch(each)):
        try:
            spec = operations.spec_at_hand(name)
        except AutomateError as error:  # a plugin may come later, or it is a slip
            logger.warning("%r is on the list of tools, and isn't there yet: %s", name, error)
            continue
        check_tool(name, spec)


def check_tool(name: str, spec: OperationSpec) -> None:
    """Raise `ConfigError` if no model can call the operation *name*."""
    if model_schema(spec) is None:
        fields = ", ".join(map(repr, spec.written_fields))
        raise ConfigError(
            f"the operation {name!r} can't be a tool: an author has to write its {fields}",
            hint="take it off the list; offer an action of your own that calls it with its text",
        )


def tool_name(name: str, taken: Container[str]) -> str:
    """
    Return the name of a tool for *name*, in the letters that all models and clients take.

    A name that is *taken*, or too long, ends with a part of the hash of *name*.
    """
    fit = _UNFIT.sub("_", name)
    if len(fit) > _LONGEST_TOOL or fit in taken:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        fit = f"{fit[: _LONGEST_TOOL - _DIGEST - 1]}_{digest}"
    return fit


def callers_key(key: str, *, tenant_id: str | None, caller: str, name: str) -> str:
    """
    Return the key that what is called *name* gets for a caller's own idempotency *key*.

    Two callers with the same key never get each other's answers.
    """
    asked = json.dumps([tenant_id, caller, name, key])
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def shown_error(error: BaseException, what: str) -> AutomateError:
    """
    Return the error that a caller may see for *error*, through whichever door it came.

    The words of a bug (``INTERNAL``) and of a fault of the set-up may reveal anything: they go to
    the log, as *what*, with files and lines, and without secrets. The caller gets ``INTERNAL``, or
    ``UNAVAILABLE`` for a set-up that may work later: a secrets backend is away, say.
    """
    known = error if isinstance(error, AutomateError) else None
    ours = known is None or is_setup_fault(known)
    if known is not None and not ours and known.code is not ErrorCodes.INTERNAL:
        return known
    # That of a call is in the log already, by the call's own name.
    trace = trace_of(error, str) if known is None or known.trace is None else None
    log_error(logger, logging.ERROR, "%s failed: %s", what, error, trace=trace)
    retryable = known is not None and known.retryable
    code = ErrorCodes.UNAVAILABLE if ours and retryable else ErrorCodes.INTERNAL
    wait = known.retry_after if known is not None else None
    return AutomateError(code, _OURS, retryable=retryable, retry_after=wait)


@contextmanager
def hiding_secrets(data: Any, schema: Mapping[str, Any] | None) -> Iterator[Redactor]:
    """
    Keep the secrets that *data* has by its *schema* out of the block's logs and `AutomateError`.

    The redactor is for the output.
    """
    # While it is there, logs are redacted by it too.
    hidden = Redactor(secrets_of_input(data, schema))
    try:
        yield hidden
    except AutomateError as error:
        error.message = hidden.redact(error.message)
        error.hint = error.hint and hidden.redact(error.hint)
        # Wrong input of a call within this call is no fault of the request.
        error.details.pop("problems", None)
        raise
