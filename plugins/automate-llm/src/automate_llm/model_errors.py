"""Errors of models and agents, as the kernel's: with a code that says whether to try again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelHTTPError,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UserError,
)
from pydantic_ai.messages import BinaryContent, ModelMessage, UserPromptPart

from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status, normalize, retry_after_of
from automate_llm.http_client import UNREADABLE

_TOO_LONG = ("context_length", "context length", "context window", "maximum context", "too long")
_REFUSED = ("content_filter", "content_policy", "content management policy")
_NO_MONEY = ("insufficient_quota", "billing")
# How Pydantic AI calls an answer that is not the service's; what a model wrote is called otherwise.
_UNREADABLE = "Invalid response from"
_LONGEST_WAIT = 86_400.0
# So services answer a message that their model can't take.
_UNFIT = frozenset({400, 413, 415, 422})
_NO_FILES = ("image input", "multimodal", "multi-modal", "mmproj", "vision")


class ModelStepError(ModelAPIError):
    """
    The step of a model's answer has failed for good; its cause is the step's error.

    It is of the kind that `ModelFallback` of Pydantic AI takes another model for.
    """


def normal_error(error: Exception) -> AutomateError:
    """
    Return *error* as the kernel's, with the code that fits and the delay that a service asked for.

    The text holds the service's own words only where they are needed: a body may quote the prompt.
    """
    if (own := _own(error)) is not None:
        return own
    if isinstance(error, UsageLimitExceeded):
        return AutomateError(
            ErrorCodes.RESOURCE_EXHAUSTED,
            str(error),
            hint="the run has reached its usage limits; raise them, or give it less to do",
            retryable=False,
        )
    if isinstance(error, ContentFilterError):
        return _refusal(str(error))
    if isinstance(error, ModelAPIError):
        return _of_service(error)
    if isinstance(error, UnexpectedModelBehavior):
        if error.message.startswith(_UNREADABLE):
            return AutomateError(ErrorCodes.UNAVAILABLE, UNREADABLE)
        return AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the model did not answer as it should: {error.message}",
            hint="simplify the output or the tools, or take a larger model",
        )
    if isinstance(error, UserError):
        return AutomateError(ErrorCodes.INVALID_ARGUMENT, str(error))
    return normalize(error)


def refused_files(error: Exception, messages: Sequence[ModelMessage]) -> AutomateError | None:
    """Return the error of a request whose files the model can't take, or None if it is another."""
    types = sorted({each.media_type for each in files_in(messages)})
    if not types:
        return None
    if isinstance(error, ModelHTTPError):
        known = normal_error(error)
        body = str(error.body or "").casefold()
        unfit = error.status_code in _UNFIT or any(word in body for word in _NO_FILES)
        if not unfit or known.hint is not None:
            return None
        problem = f"{known.message} to a request with files ({', '.join(types)})"
    elif type(error) in (NotImplementedError, RuntimeError, UserError):
        # So Pydantic AI says of a service that has no such part of a message.
        problem = f"the service takes no message with such files ({', '.join(types)}): {error}"
    else:
        return None
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT,
        problem,
        hint="take a model that reads images or documents, or send what it reads",
    )


def files_in(messages: Sequence[ModelMessage]) -> Iterator[BinaryContent]:
    """Yield the files of *messages* that people have sent."""
    for message in messages:
        for part in message.parts:
            content = getattr(part, "content", None)
            if isinstance(part, UserPromptPart) and not isinstance(content, str):
                yield from (each for each in part.content if isinstance(each, BinaryContent))


def broken_off(error: ModelAPIError, characters: int) -> AutomateError:
    """Return the *error* of an answer of which so many *characters* had come as the kernel's."""
    found = normal_error(error)
    if characters == 0 or getattr(error, "status_code", None) is not None or _own(error):
        return found
    # Not that it can't be reached: nothing is wrong with the address.
    return AutomateError(
        found.code,
        f"the answer of the model {error.model_name!r} broke off after {characters:,} characters:"
        f" {error.message}",
        hint="it may have been paid; `retry` asks for another one",
    )


def _own(error: BaseException | None) -> AutomateError | None:
    """Return the error of our own HTTP client, which the services' libraries wrap in theirs."""
    while error is not None and not isinstance(error, AutomateError):
        error = error.__cause__
    return error


def _of_service(error: ModelAPIError) -> AutomateError:
    status = getattr(error, "status_code", None)
    name = error.model_name
    body = str(getattr(error, "body", "") or error.message).casefold()
    if status is None:
        late = "timed out" in error.message.casefold() or "Timeout" in type(error).__name__
        code = ErrorCodes.DEADLINE_EXCEEDED if late else ErrorCodes.UNAVAILABLE
        return AutomateError(code, f"the model {name!r} could not be reached: {error.message}")
    if status < 500 and any(word in body for word in _TOO_LONG):
        return AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the messages are too long for the model {name!r}",
            hint="send less of the history, or take a model with a larger context",
        )
    if status < 500 and any(word in body for word in _REFUSED):
        return _refusal(f"the service of the model {name!r} refused the content")
    code = code_of_status(status)
    hints = {
        401: "check the api_key of the service",
        403: "the api_key may not use this model",
        404: "check the name of the model and the base_url",
        429: "the service limits how often it is called",
    }
    spent = status == 429 and any(word in body for word in _NO_MONEY)
    return AutomateError(
        code,
        f"the service of the model {name!r} answered {status}",
        hint="the account has no credit left" if spent else hints.get(status),
        retryable=False if spent else None,
        retry_after=_retry_after(error),
    )


def _refusal(text: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        text,
        hint="change the prompt: the same one is refused again",
    )


def _retry_after(error: ModelAPIError) -> float | None:
    # A date is compared with the service's own clock, and not with ours.
    known = retry_after_of(getattr(error, "headers", None) or {})
    if known is None:
        known = getattr(error, "retry_after", None)
    return None if known is None else min(max(float(known), 0.0), _LONGEST_WAIT)
