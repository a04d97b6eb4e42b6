"""Retries of tasks: their number, and the delay after a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from django.core.exceptions import ImproperlyConfigured

from automate_kernel.outbox.item import DEFAULT_MAX_ATTEMPTS, MAX_ATTEMPTS, Backoff

F = TypeVar("F", bound=Callable[..., Any])
_ATTRIBUTE = "automate_retry"
_USUAL = Backoff()
OPTIONS = ("MAX_ATTEMPTS", "RETRY_ERRORS", "BASE_SECONDS", "MAXIMUM_SECONDS")
"""The keys of a backend's ``OPTIONS``."""


@dataclass(frozen=True, slots=True)
class Retry:
    """
    The number of a task's attempts, and the errors after which it is tried again.

    A task whose worker died is always tried again, until its attempts are spent.
    """

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    errors: bool = False
    backoff: Backoff = _USUAL
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        number = self.max_attempts
        if type(number) is not int or not 1 <= number <= MAX_ATTEMPTS:
            raise ImproperlyConfigured(f"a task's attempts must be 1 or more, not {number!r}")
        for seconds in (self.backoff.base_seconds, self.backoff.maximum_seconds):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0:
                raise ImproperlyConfigured(f"a task's backoff is seconds, not {seconds!r}")

    def again(self, error: BaseException) -> bool:
        """Return True if a task that raised *error* may be tried again."""
        return self.errors and not isinstance(error, self.give_up_on)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Retry:
        """Read a backend's ``OPTIONS``; raises ImproperlyConfigured."""
        return cls(
            options.get("MAX_ATTEMPTS", DEFAULT_MAX_ATTEMPTS),
            bool(options.get("RETRY_ERRORS", False)),
            Backoff(
                options.get("BASE_SECONDS", _USUAL.base_seconds),
                options.get("MAXIMUM_SECONDS", _USUAL.maximum_seconds),
            ),
        )


@overload
def retry(function: F, /) -> F: ...


@overload
def retry(
    *,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    base_seconds: float = _USUAL.base_seconds,
    maximum_seconds: float = _USUAL.maximum_seconds,
    give_up_on: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Callable[[F], F]: ...


def retry(
    function: Any = None,
    /,
    *,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    base_seconds: float = _USUAL.base_seconds,
    maximum_seconds: float = _USUAL.maximum_seconds,
    give_up_on: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Any:
    """
    Try a task that raises again, *max_attempts* times in all.

    The delay is exponential with full jitter; see `automate_kernel.outbox.item.Backoff`. Errors
    of the classes *give_up_on* fail the task at once. With ``max_attempts=1`` it never runs
    twice, not even if its worker dies. It may stand above or below ``@task``, in every version::

        @task
        @retry(max_attempts=8, give_up_on=ValueError)
        def charge(order_id): ...

    ``@retry`` alone has the default values.
    """
    classes = give_up_on if isinstance(give_up_on, tuple) else (give_up_on,)
    wanted = Retry(
        max_attempts=max_attempts,
        errors=True,
        backoff=Backoff(base_seconds, maximum_seconds),
        give_up_on=classes,
    )

    def decorate(decorated: F) -> F:
        # On the function: the other arguments of `@task` differ from version to version.
        setattr(getattr(decorated, "func", decorated), _ATTRIBUTE, wanted)
        return decorated

    return decorate if function is None else decorate(function)


def retry_of(function: Callable[..., Any], default: Retry) -> Retry:
    """Return the retries that `retry` set on a task's *function*, or *default*."""
    found: Retry = getattr(function, _ATTRIBUTE, default)
    return found
