"""A limit to how many requests a client may send in a minute."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import APIException, Throttled

from automate_django.api.addresses import client_address
from automate_django.api.bases.placed import Placed
from automate_django.api.limits import Allowance, count_request
from automate_django.api.options import Configured, option
from automate_django.api.problems import Problem
from automate_django.models import ApiToken

__all__ = ["RateLimit", "RateLimitMixin"]


class RateLimit(Placed):
    """The behaviour of `RateLimitMixin`, asleep without ``rate_limited``."""

    rate_limited = False
    rate_limit_key_prefix: str = "api"
    rate_limit_per_minute: Any = Configured("RATE_LIMIT_PER_MINUTE")
    rate_limit_default = 60
    rate_limit_cache: Any = Configured("RATE_LIMIT_CACHE")
    rate_limit_fail_open: Any = Configured("RATE_LIMIT_FAIL_OPEN")
    rate_limit: Allowance | None = None

    def perform_authentication(self, request: Any) -> None:
        """Count the request, once it is known whose it is and before anything is looked up."""
        try:
            super().perform_authentication(request)
        except APIException:
            # Guessing is limited too, by where it comes from.
            self._limit(request, self._address_key(request))
            raise
        self._limit(request, self.get_rate_limit_key(request))

    def get_rate_limit_key(self, request: Any) -> str:
        """Whom *request* counts for: its token, else its user, else where it came from."""
        if isinstance(request.auth, ApiToken):
            return f"token:{request.auth.pk}"
        if getattr(request.user, "is_authenticated", False) and request.user.pk is not None:
            return f"user:{request.user.pk}"
        return self._address_key(request)

    def check_rate_limit(self, key: str) -> bool:
        """
        Count one request of *key*; whether it is within the limit.

        While the cache fails, what ``rate_limit_fail_open`` says.
        """
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
        """Tell the client how much is left."""
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
        return f"address:{client_address(request, option('TRUSTED_PROXIES'))}"


class RateLimitMixin(RateLimit):
    """
    So many requests per minute for each token, user or address, counted exactly.

    *rate_limit_per_minute* (or ``AUTOMATE_API["RATE_LIMIT_PER_MINUTE"]``, else 60) is the limit.
    Views with the same *rate_limit_key_prefix* share it. ``check_rate_limit(key)`` counts
    something else, logins of one name for example.
    """

    rate_limited = True
