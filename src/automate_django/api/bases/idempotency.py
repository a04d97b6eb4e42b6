"""``Idempotency-Key``: a POST that is repeated is carried out once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http.request import RawPostDataException
from rest_framework.response import Response

from automate_django.api.bases.placed import Placed
from automate_django.api.idempotency import IdempotentRequest, fingerprint_of
from automate_django.api.principals import tenant_of
from automate_django.api.problems import Problem
from automate_django.models import ApiToken

__all__ = ["Idempotency", "IdempotencyMixin"]

_KEY = re.compile(r'"?([!-~]{1,255}?)"?')


class Idempotency(Placed):
    """The behaviour of `IdempotencyMixin`, asleep without ``idempotent``."""

    idempotent = False

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Have the handler of a POST with a key called once for that key."""
        text = request.META.get("HTTP_IDEMPOTENCY_KEY") if self.idempotent else None
        if text is None or request.method != "POST":
            super().initial(request, *args, **kwargs)
            return
        # Before anything parses it: afterwards the bytes are gone.
        fingerprint = _fingerprint(request)
        super().initial(request, *args, **kwargs)
        once = IdempotentRequest(_owner(request), _key(text), fingerprint)
        handler: Callable[..., Any] = getattr(self, "post", self.http_method_not_allowed)

        def post(*args: Any, **kwargs: Any) -> Response:
            return once.answer(lambda: _response(handler(*args, **kwargs)))

        self.post = post


class IdempotencyMixin(Idempotency):
    """
    A POST with an ``Idempotency-Key`` is carried out once for each key and client.

    The same request again gets the same answer, with ``Idempotency-Replayed: true``; another one
    with the same key gets 422, one that overtakes the first gets 409. Answers are kept as JSON
    for ``AUTOMATE_API["IDEMPOTENCY_HOURS"]``: not for views that answer with a secret.
    """

    idempotent = True


def _fingerprint(request: Any) -> str:
    try:
        return fingerprint_of(request._request)
    except RawPostDataException:
        raise Problem(400, "An Idempotency-Key needs a body that was not read before.") from None


def _key(text: str) -> str:
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise Problem(400, "An Idempotency-Key is 1 to 255 visible ASCII characters.")
    return found[1]


def _owner(request: Any) -> str:
    """A digest of who asks: another tenant, token or user has keys of its own."""
    if isinstance(request.auth, ApiToken):
        who = f"token:{request.auth.pk}"
    elif getattr(request.user, "is_authenticated", False):
        who = f"user:{request.user.pk}"
    else:
        raise Problem(400, "An Idempotency-Key needs authentication.")
    return hashlib.sha256(f"{tenant_of(request)}\n{who}".encode()).hexdigest()


def _response(response: Any) -> Response:
    if not isinstance(response, Response):
        raise ImproperlyConfigured("what a view with Idempotency-Key answers must be a Response")
    return response
