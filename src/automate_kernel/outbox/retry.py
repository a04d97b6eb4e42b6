"""How long to wait before the next attempt."""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Exponential backoff with full jitter.

    The delay before attempt *n* + 1 is uniform between 0 and
    ``min(maximum_seconds, base_seconds * 2 ** (n - 1))`` (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015), so that a crowd of failures comes back spread out.
    """

    base_seconds: float = 2.0
    maximum_seconds: float = 900.0

    def delay(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds to wait after the failure of attempt number *attempt* (the first is 1)."""
        # 2 ** 40 seconds is beyond any maximum, and a float can't hold 2 ** 2000.
        ceiling = min(self.maximum_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 40))
        return float(ceiling * random())
