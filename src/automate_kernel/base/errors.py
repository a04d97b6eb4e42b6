"""Every error that the kernel raises, under one root: `AutomateError`."""

from __future__ import annotations

import copyreg
import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum
from itertools import islice
from typing import Any

__all__ = [
    "AutomateError",
    "ConfigError",
    "ErrorCodes",
    "LeaseLostError",
    "OutputError",
    "PayloadError",
    "PluginError",
    "SecretDeniedError",
    "SecretError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "StorageError",
    "TemplateError",
    "UnknownHereError",
    "WebhookRejectedError",
    "WorkflowError",
]


class ErrorCodes(str, Enum):
    """
    The kinds of failure, in the words of gRPC's status codes.

    A code decides whether trying again can help (`retryable`), so a connector that maps its
    service's failures to codes gets sensible retries without more.
    """

    INTERNAL = "INTERNAL"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ABORTED = "ABORTED"
    CANCELLED = "CANCELLED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    DATA_LOSS = "DATA_LOSS"

    # The same text on every Python: 3.10's str() of a str-enum member is "ErrorCodes.INTERNAL".
    __str__ = str.__str__

    @classmethod
    def of(cls, text: str | None) -> ErrorCodes:
        """Return the code that *text* names; one that is unknown here, or None, is INTERNAL."""
        try:
            return cls(text or cls.INTERNAL)
        except ValueError:
            return cls.INTERNAL

    @property
    def retryable(self) -> bool:
        """True if the same call may succeed later, with nothing changed."""
        return self.value in _RETRYABLE


_RETRYABLE = {"INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}


class AutomateError(Exception):
    """
    A failure with a code for programs, a message for people and, if it is known, a remedy.

    *retryable* overrides the code. *retry_after* is the delay in seconds that the other side
    asked for; what is no number is None. After a call, `trace` holds files, lines and their source,
    without values. `group` names what an error has in common with its like (``KeyError in
    shop.actions.charge``). None of these may hold a secret's value.
    """

    default_code = ErrorCodes.INTERNAL

    def __init__(
        self,
        code: ErrorCodes | str | None = None,
        message: str = "",
        *,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.code: ErrorCodes = _code(code) if code is not None else self.default_code
        # Errors are read where nothing may fail any more. So wrong types that plugins pass, or
        # texts that are translated later, are converted here.
        text = message if isinstance(message, str) else printed(message)
        self.message: str = text or self._default_message()
        self.hint: str | None = hint if hint is None or isinstance(hint, str) else printed(hint)
        self.retryable: bool = retryable if isinstance(retryable, bool) else self.code.retryable
        self.retry_after: float | None = _seconds(retry_after)
        self.details: dict[str, Any] = dict(details) if isinstance(details, Mapping) else {}
        self.trace: str | None = None
        self.group: str | None = None
        super().__init__(self.message)

    def _default_message(self) -> str:
        """Return the words for an error without any: those of its class, or of its code."""
        words = type(self).__dict__.get("__doc__") if type(self) is not AutomateError else None
        return (words or "").strip().split("\n")[0] or self.code.lower().replace("_", " ")

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments; without a call of __init__ all of them can be pickled.
        new = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(self), *self.args), self.__dict__


class _WordedError(AutomateError):
    """An error whose code is fixed by its class, so that its message comes first."""

    default_code = ErrorCodes.INVALID_ARGUMENT

    def __init__(self, message: str = "", **options: Any) -> None:
        super().__init__(options.pop("code", None), message, **options)


class ConfigError(_WordedError):
    """The configuration is wrong."""


class PluginError(_WordedError):
    """A plugin is missing, broken or ambiguous."""

    default_code = ErrorCodes.FAILED_PRECONDITION


class SecretError(_WordedError):
    """A secret could not be resolved."""

    default_code = ErrorCodes.FAILED_PRECONDITION


class SecretNotFoundError(SecretError):
    """No secrets backend has this key."""

    default_code = ErrorCodes.NOT_FOUND

    def __init__(self, key: str = "", message: str = "", **options: Any) -> None:
        self.key = key
        super().__init__(message or f"secret {key!r} was not found", **options)


class SecretDeniedError(SecretError):
    """A secrets backend refused to give out this key."""

    default_code = ErrorCodes.PERMISSION_DENIED


class SecretUnavailableError(SecretError):
    """A secrets backend could not be reached."""

    default_code = ErrorCodes.UNAVAILABLE


class TemplateError(_WordedError):
    """A template does not parse or render."""


class WorkflowError(_WordedError):
    """A workflow definition is wrong."""


class WebhookRejectedError(_WordedError):
    """The webhook was refused."""

    default_code = ErrorCodes.UNAUTHENTICATED


class UnknownHereError(_WordedError):
    """
    An action, a plugin, a workflow or code is not known in this process, and may be in another.

    *reason* is ``UNKNOWN_ACTION``, ``UNUSABLE_PLUGIN``, ``UNKNOWN_WORKFLOW``,
    ``UNREADABLE_DEFINITION``, ``UNKNOWN_CODE`` or ``CHANGED_CODE``.
    """

    default_code = ErrorCodes.NOT_FOUND

    def __init__(
        self, message: str = "", *, reason: str = "UNKNOWN_ACTION", **options: Any
    ) -> None:
        self.reason = reason
        super().__init__(message, **options)


class PayloadError(_WordedError):
    """The payload can't be stored as JSON."""


class OutputError(PayloadError):
    """
    A returned value that can't be passed on: the work is done, and another attempt would repeat it.

    An output that is *too_large* for its receiver has the code ``RESOURCE_EXHAUSTED``, and is not
    tried again. *operation* names the operation that returned it, where the kernel knows it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        too_large: bool = False,
        operation: str | None = None,
        **options: Any,
    ) -> None:
        if too_large:
            options = {"code": ErrorCodes.RESOURCE_EXHAUSTED, "retryable": False, **options}
        self.operation = operation
        super().__init__(message, **options)


class StorageError(_WordedError):
    """The database refused or is missing something."""

    default_code = ErrorCodes.UNAVAILABLE


class LeaseLostError(_WordedError):
    """The lease ran out or was taken over: another worker owns this item now."""

    default_code = ErrorCodes.ABORTED


def _code(given: ErrorCodes | str) -> ErrorCodes:
    try:
        return ErrorCodes(given)
    except ValueError:
        # A message alone is what other exceptions take, and a code of the service's own is near.
        meant = nearest(given, ErrorCodes)
        known = ErrorCodes[meant] if meant is not None else ErrorCodes.NOT_FOUND
        raise ValueError(
            f"{printed(given)[:80]!r} is no code of an error, which comes first:"
            f' write AutomateError(ErrorCodes.{known.name}, "…"), or another of ErrorCodes'
        ) from None


def _seconds(given: Any) -> float | None:
    if given is None or isinstance(given, bool):
        return None
    try:
        number = float(given.total_seconds() if isinstance(given, timedelta) else given)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


_SETUP = (ConfigError, SecretError, PluginError, StorageError)
_SETUP_GROUP = re.compile(r"(Config|Secret\w*|Plugin|Storage)Error\b")


def is_setup_fault(error: BaseException) -> bool:
    """
    Return True for a fault of the set-up: the config, a secret, a plugin or the database.

    Its words are for the log, and never for a client.
    """
    # The invoker keeps the class's name of an error inside a call in the group.
    group = error.group if isinstance(error, AutomateError) else None
    return isinstance(error, _SETUP) or bool(group and _SETUP_GROUP.match(group))


def printed(value: object) -> str:
    """Return the text of *value*, whatever its ``__str__`` does."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that can't be printed>"


def describe_error(error: BaseException) -> str:
    """Return an error's class and text, whatever its ``__str__`` does."""
    name, text = type(error).__name__, printed(error)
    return f"{name}: {text}" if text else name


def type_name(value: object) -> str:
    """
    Return the type of *value* with its article, for a message: ``a list``, ``an int``.

    A class of ours whose name says nothing to people has words for it as its ``in_words``.
    """
    name = getattr(type(value), "in_words", type(value).__name__)
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


# A comparison takes the square of the lengths, and strangers may have chosen the words.
_MOST_WORDS, _LONGEST_WORD = 1_000, 200


def nearest(word: object, known: Iterable[object], *, cutoff: float = 0.6) -> str | None:
    """Return the text of *known* that is most like *word* in any case, or None if none is."""
    import difflib

    texts = (text for text in islice(known, _MOST_WORDS) if isinstance(text, str))
    by_lower = {text.lower(): text for text in texts if len(text) <= _LONGEST_WORD}
    close = difflib.get_close_matches(str(word)[:_LONGEST_WORD].lower(), by_lower, 1, cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(
    word: object, known: Iterable[object], *, also: str = "", cutoff: float = 0.6
) -> str:
    """Return ``did you mean 'x'?`` for the nearest of *known*, if one is near, and then *also*."""
    near = nearest(word, known, cutoff=cutoff)
    return " ".join(filter(None, (f"did you mean {near!r}?" if near else "", also)))


def exit_code(error: AutomateError) -> int:
    """Return the exit code of a command that ends with *error*: 2 for wrong usage, else 1."""
    mistaken = isinstance(error, (ConfigError, WorkflowError, TemplateError, PluginError))
    not_found = error.code == ErrorCodes.NOT_FOUND
    return 2 if (mistaken or error.code == ErrorCodes.INVALID_ARGUMENT) and not not_found else 1
