"""How often a step is tried, and how long to wait in between."""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from automate_kernel.errors import ErrorCodes
from automate_kernel.workflows.duration import Duration, format_duration
from automate_kernel.workflows.values import Part

__all__ = ["RetryPolicy"]

_Codes = Annotated[
    Sequence[Annotated[ErrorCodes, Field(strict=False)]], Field(min_length=1), AfterValidator(tuple)
]


class RetryPolicy(Part):
    """
    How often a step is tried, and how long to wait in between.

    The wait before attempt *n* + 1 is *delay* (``fixed``), *n* times it (``linear``) or twice the
    one before (``exponential``), at most *max_delay*. With *jitter* it is a random part of
    that, so that many executions that failed together don't come back together.
    """

    attempts: int = Field(default=3, ge=1, le=1000)
    """How often in all, the first time included."""
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    delay: Duration = 1.0
    max_delay: Duration = 300.0
    jitter: bool = True
    on: _Codes | None = None
    """Only these failures are tried again; None leaves it to the failure itself."""

    @model_validator(mode="after")
    def _delay_fits(self) -> RetryPolicy:
        if self.delay > self.max_delay:
            raise PydanticCustomError(
                "retry",
                "delay ({delay}) is longer than max_delay ({max_delay})",
                {
                    "delay": format_duration(self.delay),
                    "max_delay": format_duration(self.max_delay),
                    "hint": f"set max_delay: {format_duration(self.delay)}, or more",
                },
            )
        return self

    def delay_for(self, attempt: int, *, random: Callable[[], float] = _random.random) -> float:
        """Seconds to wait after attempt number *attempt* (the first is 1) has failed."""
        factor: int = 1
        if self.backoff == "linear":
            factor = attempt
        elif self.backoff == "exponential":
            factor = 2 ** min(attempt - 1, 64)  # past any max_delay, and far from overflowing
        delay = min(self.delay * factor, self.max_delay)
        return delay * random() if self.jitter else delay

    def allows(self, error_code: ErrorCodes | str | None, *, retryable: bool | None = None) -> bool:
        """
        Whether a failure with *error_code* is tried again, if an attempt is left.

        *retryable* is what the error itself says, and counts where `on` names no codes. A code
        that is not one of ours counts as INTERNAL.
        """
        try:
            code = ErrorCodes(error_code or ErrorCodes.INTERNAL)
        except ValueError:
            code = ErrorCodes.INTERNAL
        if self.on is not None:
            return code in self.on
        return code.retryable if retryable is None else retryable
