"""Counting requests in the cache, exactly, whoever else counts at the same time."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from dataclasses import dataclass

from django.core.cache import caches

__all__ = ["Allowance", "count_request"]

from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)
WINDOW_SECONDS = 60
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of a limit is left, and for how many seconds that holds."""

    limit: int
    used: int
    reset_seconds: int

    @property
    def exceeded(self) -> bool:
        """Whether this request was one too many."""
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        """What to tell the client of it."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "RateLimit-Reset": str(self.reset_seconds),
        }


def count_request(prefix: str, key: str, limit: int, *, cache: str = "default") -> Allowance | None:
    """
    Count one request of *key* in this minute; None if the cache can't.

    ``add`` and ``incr`` are one operation each in the cache, so that of requests that race exactly
    *limit* are within it. A minute is one of the clock's: at its turn a client may send twice the
    limit within a few seconds.
    """
    now = time.time()
    window = int(now // WINDOW_SECONDS)
    reset = max(1, math.ceil((window + 1) * WINDOW_SECONDS - now))
    try:
        used = _count(cache, f"{prefix}:{_digest(key)}:{window}")
    except Exception:
        logger.warning("the cache %r can't count requests", cache, exc_info=True)
        return None
    return None if used is None else Allowance(limit, used, reset)


def _count(cache: str, key: str) -> int | None:
    for _ in range(_TRIES):
        # Twice the window: it must not end before the window does, and then nobody asks for it.
        caches[cache].add(key, 0, timeout=2 * WINDOW_SECONDS)
        try:
            return caches[cache].incr(key)
        except ValueError:
            continue  # evicted in between, or a cache that keeps nothing
    logger.warning("the cache %r keeps no counts", cache)
    return None


def _digest(key: str) -> str:
    # Keys hold names and addresses, which some caches can't have in theirs, and none should show.
    return hashlib.sha256(key.encode()).hexdigest()[:32]
