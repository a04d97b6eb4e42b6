"""A limit to the requests of one client in a minute, counted in the cache."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from django.core.cache import caches
from rest_framework.exceptions import APIException, Throttled

from automate_django import conf
from automate_django.api.bases.access import Configured, MixinOrderGuard
from automate_django.api.problems import Problem
from automate_django.tenants import token_of
from automate_kernel.http.proxies import network_of
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)
WINDOW_SECONDS = 60
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Allowance:
    """The state of a limit, and the seconds until it starts again."""

    limit: int
    used: int
    reset_seconds: int

    @property
    def exceeded(self) -> bool:
        """True if this request was one too many."""
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        """Return the headers that show it to the client."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "RateLimit-Reset": str(self.reset_seconds),
        }


class RateLimit(MixinOrderGuard):
    """The behaviour of `RateLimitMixin`, asleep without ``rate_limited``."""

    rate_limited = False
    rate_limit_key_prefix: str = "api"
    rate_limit_per_minute: Any = Configured("RATE_LIMIT_PER_MINUTE")
    rate_limit_default = 60
    rate_limit_cache: Any = Configured("RATE_LIMIT_CACHE")
    rate_limit_fail_open: Any = Configured("RATE_LIMIT_FAIL_OPEN")
    rate_limit: Allowance | None = None

    def perform_authentication(self, request: Any) -> None:
        """Count the request, once its client is known and before anything is looked up."""
        try:
            super().perform_authentication(request)
        except APIException:
            # Guessing is limited too, by the address.
            self._limit(request, self._address_key(request))
            raise
        self._limit(request, self.get_rate_limit_key(request))

    def get_rate_limit_key(self, request: Any) -> str:
        """Return the client that *request* counts for: its token, else its user or address."""
        token = token_of(request)
        if token is not None:
            return f"token:{token.pk}"
        if getattr(request.user, "is_authenticated", False) and request.user.pk is not None:
            return f"user:{request.user.pk}"
        return self._address_key(request)

    def check_rate_limit(self, key: str) -> bool:
        """Count one request of *key*; return True within the limit, or if the cache may fail."""
        limit = self.rate_limit_per_minute
        self.rate_limit = count_request(
            self.rate_limit_key_prefix,
            key,
            self.rate_limit_default if limit is None else int(limit),
            cache=self.rate_limit_cache,
        )
        if self.rate_limit is None:
            return bool(self.rate_limit_fail_open)
        return not self.rate_limit.exceeded

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the headers of the limit."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if self.rate_limit is not None:
            for name, value in self.rate_limit.headers().items():
                response[name] = value
        return response

    def _limit(self, request: Any, key: str) -> None:
        if not self.rate_limited or self.check_rate_limit(key):
            return
        if self.rate_limit is None:
            raise Problem(503, "Try again later.", headers={"Retry-After": "5"})
        raise Throttled(wait=self.rate_limit.reset_seconds)

    def _address_key(self, request: Any) -> str:
        return f"address:{client_address(request, conf.option('AUTOMATE_API', 'TRUSTED_PROXIES'))}"


class RateLimitMixin(RateLimit):
    """
    So many requests per minute for each token, user or address, counted exactly.

    *rate_limit_per_minute* (or ``AUTOMATE_API["RATE_LIMIT_PER_MINUTE"]``, else 60) is the limit.
    Views with the same *rate_limit_key_prefix* share it. ``check_rate_limit(key)`` counts
    something else, logins of one name for example.
    """

    rate_limited = True


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
    # A digest: names and addresses don't fit into the keys of some caches, and none should show.
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        used = _count(cache, f"{prefix}:{digest}:{window}")
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


def client_address(request: Any, trusted_proxies: int = 0) -> str:
    """
    Return the address that *request* counts for.

    ``X-Forwarded-For`` is the client's own claim, except for the end that proxies of the host have
    added: with *trusted_proxies* of them, the address that the outermost saw is returned. Without
    any the header is not read. An IPv6 client is its /64 network.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "")
    if trusted_proxies > 0:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        # Fewer than there are proxies: it did not come through them, so nobody vouches for it.
        if len(hops) >= trusted_proxies:
            return network_of(hops[-trusted_proxies]) or network_of(peer) or peer
    return network_of(peer) or peer
