"""Failures: any exception of a plugin gets the code that says whether to try again."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import (
    code_of_status,
    normalize,
    normalizing,
    retry_after_of,
)


class Response:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HTTPStatusError(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeoutError(), ErrorCodes.DEADLINE_EXCEEDED),
        (asyncio.TimeoutError(), ErrorCodes.DEADLINE_EXCEEDED),
        (ConnectionResetError("x"), ErrorCodes.UNAVAILABLE),
        (socket.gaierror("x"), ErrorCodes.UNAVAILABLE),
        (NotImplementedError(), ErrorCodes.UNIMPLEMENTED),
        (ValueError("x"), ErrorCodes.INTERNAL),
        (HTTPStatusError(Response(401)), ErrorCodes.UNAUTHENTICATED),
        (HTTPStatusError(Response(429)), ErrorCodes.RESOURCE_EXHAUSTED),
        (HTTPStatusError(Response(503)), ErrorCodes.UNAVAILABLE),
        (HTTPStatusError(Response(418)), ErrorCodes.FAILED_PRECONDITION),
        (HTTPStatusError(Response(200)), ErrorCodes.INTERNAL),
    ],
)
def test_the_code_fits_the_error(error: Exception, code: ErrorCodes) -> None:
    """By its type, or by the HTTP status of the response that it carries."""
    assert normalize(error).code is code


def test_the_errors_of_httpx_are_told_apart() -> None:
    """They don't derive from the built-in ones."""
    httpx = pytest.importorskip("httpx")
    assert normalize(httpx.ReadTimeout("x")).code is ErrorCodes.DEADLINE_EXCEEDED
    assert normalize(httpx.ConnectError("x")).code is ErrorCodes.UNAVAILABLE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30", 30.0), ("-1", None), ("²", None), ("soon", None), ("9" * 400, None)],
)
def test_the_service_says_when_to_try_again(value: str, seconds: float | None) -> None:
    """A Retry-After in seconds is kept; anything else is not guessed at."""
    error = normalize(HTTPStatusError(Response(429, Retry_After=value)))
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "999999999"}, 86_400.0),
        ({"Retry-After": "Thu, 26 Nov 2026 10:02:00 GMT"}, None),
        ({"Retry-After": "Thu, 26 Nov 2026 10:02:00 GMT", "Date": "Thu, 26 Nov 2026 10:00:00 GMT"},
         120.0),
        ({"Retry-After": "Thu, 26 Nov 2026 10:00:00 GMT", "Date": "Thu, 26 Nov 2026 10:02:00 GMT"},
         0.0),
        ({}, None),
    ],
)  # fmt: skip
def test_a_wait_is_read_by_the_services_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    """In both forms; a day at most."""
    assert retry_after_of(headers) == seconds


def test_a_client_error_is_not_tried_again() -> None:
    """4xx says that the request is wrong, save for those that pass."""
    retried = [status for status in range(400, 600) if code_of_status(status).retryable]
    assert set(retried) == {408, 409, 429, *range(500, 600)} - {501}


def test_the_text_is_redacted_before_it_is_cut() -> None:
    """Half a secret at the end of a cut text would not be recognised."""
    secret = "hunter2-hunter2"
    error = normalize(
        ValueError("x" * 495 + secret), redact=lambda text: text.replace(secret, "[secret]")
    )
    assert "hunt" not in str(error)
    assert len(str(error)) < 520


def test_a_validation_error_shows_no_value() -> None:
    """pydantic's own text quotes the input."""

    class Model(BaseModel):
        password: int

    with pytest.raises(ValueError, match="password") as caught:
        Model.model_validate({"password": "hunter2"})
    error = normalize(caught.value, what="provider 'x'")
    assert str(error) == "provider 'x': ValidationError: password: int_parsing"


class Plugin:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def normalize_error(self, exc: Exception) -> Exception:
        if isinstance(self.answer, type):
            raise self.answer("worse")
        answer: Exception = exc if self.answer == "same" else self.answer
        return answer


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (AutomateError("NOT_FOUND", "gone"), ErrorCodes.NOT_FOUND, "gone"),
        ("same", ErrorCodes.INTERNAL, "ValueError: first"),
        (KeyError("k"), ErrorCodes.INTERNAL, "KeyError: 'k'"),
        (
            None,
            ErrorCodes.INTERNAL,
            "ValueError: first (its normalize_error() returned None: let it return an"
            " AutomateError, or super()'s)",
        ),
        (
            TimeoutError,
            ErrorCodes.DEADLINE_EXCEEDED,
            "TimeoutError: worse (its normalize_error() raised it, on ValueError)",
        ),
    ],
)
def test_nothing_but_automate_errors_get_out(answer: Any, code: ErrorCodes, text: str) -> None:
    """Whatever normalize_error answers, or if it fails itself."""
    with pytest.raises(AutomateError) as caught, normalizing(Plugin(answer)):
        raise ValueError("first")
    assert (caught.value.code, str(caught.value)) == (code, text)
    assert str(caught.value.__cause__) == "first"


def test_an_error_that_can_not_be_shown_is_still_one() -> None:
    """A broken __str__ does not hide the failure."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert str(normalize(OddError())) == "OddError"


def test_an_automate_error_is_left_alone() -> None:
    """It has a code already."""
    error = AutomateError("NOT_FOUND", "gone", retry_after=3)
    with pytest.raises(AutomateError) as caught, normalizing(Plugin("same")):
        raise error
    assert caught.value is error


def test_a_types_name_has_its_article() -> None:
    """Messages say an int and a list."""
    from automate_kernel.base.errors import type_name

    assert [type_name(each) for each in (1, [], object(), None, "")] == [
        "an int", "a list", "an object", "a NoneType", "a str"
    ]  # fmt: skip


class Lazy:
    """A text that is translated when it is read, as a web framework's."""

    def __str__(self) -> str:
        return "translated"


@pytest.mark.parametrize(
    ("given", "kept"),
    [(5, 5.0), ("5", 5.0), (timedelta(seconds=5), 5.0), ("soon", None), ([], None),
     (float("nan"), None), (True, None), (10**400, float("inf"))],
    ids=str,
)  # fmt: skip
def test_a_wait_that_an_author_passes_is_a_number_or_none(given: Any, kept: float | None) -> None:
    """Whoever reads it later may not fail: the worker that would store it, or an answer."""
    assert AutomateError("UNAVAILABLE", "later", retry_after=given).retry_after == kept


def test_an_error_with_other_arguments_is_the_steps_error() -> None:
    """They failed in the engine: the execution ran, and was retried, without an end."""
    kernel = Kernel(secrets={}, discover=False)
    given: dict[str, dict[str, Any]] = {
        "message": {"message": Lazy()},
        "hint": {"message": "no", "hint": Lazy()},
        "details": {"message": "no", "details": [1]},
        "wait": {"message": "no", "retry_after": "soon"},
    }

    @kernel.action("odd.fail")
    def fail(kind: str) -> None:
        raise AutomateError("NOT_FOUND", **given[kind])

    step = {"id": "a", "action": "odd.fail", "input": {"kind": "{{ event.payload }}"}}
    kernel.add_workflow({"name": "w", "trigger": {"type": "event", "event": "e"}, "steps": [step]})
    ids = {kind: kernel.emit("e", kind) for kind in given}
    kernel.run_until_idle()
    errors = {one.event.payload: one.error for one in kernel.executions.find()}
    assert set(errors) == set(ids)
    assert "translated" in str(errors["message"])
    assert all(one.status == "FAILED" for one in kernel.executions.find())


def test_a_handlers_error_with_another_wait_is_its_items() -> None:
    """It ended `run_until_idle`, and the item ran on."""
    kernel = Kernel(secrets={}, discover=False)

    @kernel.handler("odd")
    def fail(item: Any) -> None:
        wrong: Any = {"message": Lazy(), "retry_after": "soon"}
        raise AutomateError("NOT_FOUND", **wrong)

    item_id = kernel.outbox.enqueue("odd", {})
    kernel.run_until_idle()
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert (item.status, item.last_error_code) == ("FAILED", "NOT_FOUND")
