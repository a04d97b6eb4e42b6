"""Outputs of operations, as JSON in which every value keeps its type."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from automate_kernel.base.documents import shown_document
from automate_kernel.base.errors import OutputError, PayloadError, printed, type_name
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import (
    MAX_PAYLOAD_BYTES,
    TooLongError,
    UnstorableError,
    encode_json,
    has_long_number,
    is_plain,
    is_too_large,
    plain_json,
)

MOST_VALUES = 20_000_000
"""The most values in an output: the caller of an action may take more than can be stored."""


def json_output(output: Any, what: str, *, returned: bool = False) -> Any:
    """
    Return *output* as a JSON value; *what* names it in errors.

    With *returned* a function has returned it, whose annotation may say how it is written.

    Models and dataclasses become what pydantic writes for them; dates, times, UUIDs, decimals and
    paths become text. Raises `PayloadError` for all else that JSON has not, such as keys that are
    no text.
    """
    if is_plain(output, most=MOST_VALUES):
        return output
    try:
        return plain_json(output, other=_written, most=MOST_VALUES)
    except UnstorableError as error:
        raise (returned_error(error) if returned else error).about(what) from None


def json_document(value: Any, what: str, *, verb: str = "stored") -> str:
    """
    Return a JSON *value* as a document for others to read; *what* and *verb* name it in errors.

    Raises `PayloadError` for values that Python writes and JSON lacks: NaN, infinity, half a
    character, an integer that other readers make infinite.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not text.isascii():
            text.encode()
        if has_long_number(text):
            json.loads(text, parse_int=_held)
    except ValueError:
        raise _undocumented(value, what, verb) from None
    return text


def _held(digits: str) -> int:
    number = int(digits)
    if is_too_large(number):
        raise ValueError("too large")
    return number


def output_error(error: PayloadError, *, hint: str | None = None) -> OutputError:
    """
    Return *error*, about an operation's output, as an error that says that the operation was done.

    *hint* is the remedy for an output that is too large.
    """
    if isinstance(error, OutputError):
        return error
    if isinstance(error, TooLongError):
        return OutputError(error.message, hint=hint or error.hint, too_large=True)
    return OutputError(error.message, hint=error.hint)


def stored_output(
    output: Any,
    what: str,
    limit: int = MAX_PAYLOAD_BYTES,
    *,
    inside: int = 0,
    hint: str | None = None,
) -> JsonText:
    """
    Return *output* as JSON to be stored, of at most *limit* bytes; *what* names it in errors.

    Raises `OutputError` if it can't be stored. *hint* is the remedy for an output that is too
    large.
    """
    try:
        return encode_json(output, what, limit, inside=inside)
    except PayloadError as error:
        raise output_error(error, hint=hint) from None


def answered_output(output: Any, what: str, most: int | None = None) -> str:
    """
    Return an output as a document of JSON, as every door answers its caller; *what* names it.

    Raises `OutputError` for values that JSON lacks, and for more than *most* bytes.
    """
    try:
        text = json_document(output, what, verb="written")
    except PayloadError as error:
        raise output_error(error) from None
    size = len(text.encode()) if most is not None else 0
    if most is not None and size > most:
        raise OutputError(
            f"the {what} takes {size:,} bytes of JSON, and may take {most:,}",
            hint="the call was made; ask for less at once",
            too_large=True,
        )
    return text


def check_sendable(value: Any, what: str) -> None:
    """
    Raise `PayloadError` for what *value* has that no client sends as JSON and UTF-8.

    That is NaN, infinity, an integer of too many digits, and half a character. Objects of Python's
    are left to who sends it: it may know how they are written.
    """
    try:
        json.dumps(
            value, ensure_ascii=False, allow_nan=False, default=lambda _: None, skipkeys=True
        ).encode()
    except ValueError:
        raise _undocumented(value, what, "sent") from None


def shown_input(value: Any) -> Any:
    """
    Return a checked input as a JSON value to be shown, whatever its model holds.

    What JSON has not is text: an infinite default is no reason against a call.
    """
    return json.loads(shown_document(value, default=_readable))


def _readable(value: Any) -> Any:
    written = _written(value)
    known = written is not NotImplemented and not isinstance(written, UnstorableError)
    return written if known else printed(value)


def _undocumented(value: Any, what: str, verb: str) -> PayloadError:
    try:
        plain_json(value, most=MOST_VALUES, other=lambda _: None)
    except UnstorableError as error:
        return error.about(what, verb=verb)
    return PayloadError(f"the {what} can't be {verb} as JSON")


def returned_error(error: UnstorableError) -> UnstorableError:
    """Return *error* with the remedy that there is for what a function has returned."""
    hint = error.hint
    if hint.startswith("pass "):
        hint = f"return {hint.removeprefix('pass ')}"
    if error.typed:
        hint = f"write its type in the function's annotation, or {hint}"
    return UnstorableError(error.path, error.message, hint)


def _written(value: Any) -> Any:
    """Return the JSON value for a *value* that is not JSON, `NotImplemented`, or the error."""
    known = isinstance(value, (date, time, timedelta, UUID, Decimal, PurePath))
    model = hasattr(type(value), "__pydantic_serializer__") or is_dataclass(value)
    if not (known or model) or isinstance(value, type):
        return NotImplemented
    import pydantic_core

    try:
        return pydantic_core.to_jsonable_python(value)
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        if "utf-8" not in str(error):
            return NotImplemented
        place = "model_config" if hasattr(value, "model_config") else "__pydantic_config__"
        hint = f"set ser_json_bytes and val_json_bytes to 'base64' in its {place}"
        return UnstorableError((), f"is {type_name(value)} with bytes that are no text", hint)
