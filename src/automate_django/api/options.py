"""
The setting ``AUTOMATE_API``, with a default for each key.

=========================== ====================================================================
``AUTHENTICATION``          classes, as paths; our tokens, then Django's sessions
``PERMISSIONS``             classes, as paths; whoever is authenticated, within a token's scopes
``THROTTLES``               classes, as paths; none, since `RateLimitMixin` counts exactly
``PAGINATION``              ``"cursor"`` or ``"offset"``
``PAGE_SIZE``               rows on a page, 50
``MAX_PAGE_SIZE``           rows that a client may ask for, 200
``CORS_ALLOWED_ORIGINS``    origins, such as ``"https://app.example"``, or ``["*"]``; none
``CORS_ALLOWED_METHODS``    methods that another origin's scripts may use
``CORS_ALLOWED_HEADERS``    headers that they may send
``CORS_EXPOSED_HEADERS``    headers of answers that they may read
``CORS_ALLOW_CREDENTIALS``  whether they may send cookies; False
``CORS_MAX_AGE``            for how many seconds a browser remembers that, 600
``RATE_LIMIT_PER_MINUTE``   requests of one client; what the view's class says
``RATE_LIMIT_CACHE``        the alias of the cache that counts, ``"default"``
``RATE_LIMIT_FAIL_OPEN``    whether requests are let through while that cache fails; True
``TRUSTED_PROXIES``         how many proxies of yours add to ``X-Forwarded-For``; 0
``TENANT``                  a function (path) that takes a request and returns its tenant's id
``IDEMPOTENCY_HOURS``       for how long the answer to an ``Idempotency-Key`` is kept, 24
``PROBLEM_TYPES``           where problems are explained: ``type`` is this and the code
=========================== ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automate_django import conf

__all__ = ["DEFAULTS", "SETTING", "Configured", "classes", "option"]

SETTING = "AUTOMATE_API"
_TOKENS = conf.OVERRIDABLE["token_authentication"]

DEFAULTS: Mapping[str, Any] = {
    "AUTHENTICATION": (
        "automate_django.api.tokens.ApiTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ),
    "PERMISSIONS": (
        "rest_framework.permissions.IsAuthenticated",
        "automate_django.api.scopes.HasRequiredScopes",
    ),
    "THROTTLES": (),
    "PAGINATION": "cursor",
    "PAGE_SIZE": 50,
    "MAX_PAGE_SIZE": 200,
    "CORS_ALLOWED_ORIGINS": (),
    "CORS_ALLOWED_METHODS": ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"),
    "CORS_ALLOWED_HEADERS": (
        "accept",
        "authorization",
        "content-type",
        "idempotency-key",
        "x-csrftoken",
        "x-requested-with",
    ),
    "CORS_EXPOSED_HEADERS": (
        "idempotency-replayed",
        "link",
        "location",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
    ),
    "CORS_ALLOW_CREDENTIALS": False,
    "CORS_MAX_AGE": 600,
    "RATE_LIMIT_PER_MINUTE": None,
    "RATE_LIMIT_CACHE": "default",
    "RATE_LIMIT_FAIL_OPEN": True,
    "TRUSTED_PROXIES": 0,
    "TENANT": None,
    "IDEMPOTENCY_HOURS": 24,
    "PROBLEM_TYPES": None,
}
"""Every key, and what counts without it."""


def option(key: str) -> Any:
    """The value of *key* in ``AUTOMATE_API``, or its default."""
    return conf.option(SETTING, key, DEFAULTS[key])


def classes(key: str) -> list[type]:
    """The classes that *key* lists, imported. Raises `ConfigError`."""
    return [_class(key, path) for path in option(key)]


def _class(key: str, path: Any) -> type:
    found: type = conf.load(path, f"{SETTING}[{key!r}]")
    return conf.replaced("token_authentication", found) if path == _TOKENS else found


class Configured:
    """
    A class attribute whose value is read from ``AUTOMATE_API`` whenever it is asked for.

    A view that sets the attribute itself has its own; `override_settings` works for the others.
    """

    def __init__(self, key: str, *, load: bool = False) -> None:
        self._key = key
        self._load = load

    def __get__(self, view: object, owner: type | None = None) -> Any:
        if self._load:
            return classes(self._key)
        value = option(self._key)
        return list(value) if isinstance(value, tuple) else value
