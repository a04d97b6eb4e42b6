"""
``Idempotency-Key``: a POST is carried out once, however often it is sent.

::

                 ┌─ another request ───────▶ 422
    key is known ┼─ being answered ────────▶ 409, try again
                 └─ answered ──────────────▶ the same answer again
    key is new ────▶ locked ─▶ the view, and its answer kept, in one transaction

A request whose process dies leaves a lock, which ends by itself; its writes were rolled back. A
request that is only slow finds its lock taken over, and is rolled back too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http.request import RawPostDataException
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django import conf
from automate_django.api.bases.access import MixinOrderGuard
from automate_django.api.problems import Problem
from automate_django.kernel import get_kernel
from automate_django.tenants import tenant_of, token_of
from automate_kernel.http.api.exchange import ApiAnswer
from automate_kernel.http.api.idempotency import (
    LOCK_SECONDS,
    KeyedRequest,
    fingerprint_of,
    read_key,
)


class Idempotency(MixinOrderGuard):
    """The behaviour of `IdempotencyMixin`, asleep without ``idempotent``."""

    idempotent = False
    idempotency_atomic = True
    """The view's writes and its kept answer are one transaction; not where a call takes long."""
    idempotency_lock_seconds: Any = LOCK_SECONDS
    """The seconds after which the key of a request that died is free again."""

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Have the handler of a POST with a key called once for that key."""
        text = request.META.get("HTTP_IDEMPOTENCY_KEY") if self.idempotent else None
        if text is None or request.method != "POST":
            super().initial(request, *args, **kwargs)
            return
        # Before anything parses it: afterwards the bytes are gone.
        fingerprint = _fingerprint(request._request)
        super().initial(request, *args, **kwargs)
        kernel = get_kernel()
        once = KeyedRequest(
            kernel.storage,
            kernel.redactor.redact_value,
            owner_of(request),
            read_key(text),
            fingerprint,
            hours=conf.option("AUTOMATE_API", "IDEMPOTENCY_HOURS"),
            lock_seconds=self.idempotency_lock_seconds,
        )
        handler: Callable[..., Any] = getattr(self, "post", self.http_method_not_allowed)

        def post(*args: Any, **kwargs: Any) -> Response:
            def carry_out() -> Response:
                return _response(handler(*args, **kwargs))

            return answer_once(once, carry_out, atomic=self.idempotency_atomic)

        self.post = post


class IdempotencyMixin(Idempotency):
    """
    A POST with an ``Idempotency-Key`` is carried out once for each key and client.

    The same request again gets the same answer, with ``Idempotency-Replayed: true``. Another
    request with the same key gets 422, and one that overtakes the first gets 409. Answers are kept
    as JSON for ``AUTOMATE_API["IDEMPOTENCY_HOURS"]``: not for views that answer with a secret.
    """

    idempotent = True


def _fingerprint(request: Any) -> str:
    """Return a digest of *request*. Its body stays there for the view."""
    try:
        body = request.body
    except RawPostDataException:
        raise Problem(400, "An Idempotency-Key needs a body that was not read before.") from None
    parts = (request.method, request.get_full_path(), request.META.get("CONTENT_TYPE", ""))
    return fingerprint_of(*map(str, parts), body=body)


def owner_of(request: Any) -> str:
    """Return a digest of the client: each tenant, token or user has its own keys."""
    token = token_of(request)
    if token is not None:
        client = f"token:{token.pk}"
    elif getattr(request.user, "is_authenticated", False):
        client = f"user:{request.user.pk}"
    else:
        raise Problem(400, "An Idempotency-Key needs authentication.")
    return hashlib.sha256(f"{tenant_of(request)}\n{client}".encode()).hexdigest()


def _response(response: Any) -> Response:
    if not isinstance(response, Response):
        raise ImproperlyConfigured("what a view with Idempotency-Key answers must be a Response")
    return response


def answer_once(
    once: KeyedRequest, carry_out: Callable[[], Response], *, atomic: bool = True
) -> Response:
    """
    Return the one answer to a request; an exception of *carry_out* frees its key.

    What *carry_out* writes, and the answer that is kept, are one transaction if *atomic*.
    """
    before = once.begin()
    if before is not None:
        return Response(before.body, status=before.status, headers=dict(before.headers))
    using = once.storage.alias  # type: ignore[attr-defined]
    try:
        with transaction.atomic(using=using) if atomic else nullcontext():
            # Locks the row first: SQLite would not let what has read become a writer.
            once.hold()
            response = carry_out()
            if response.status_code < 500:
                _keep(once, using, response)
    except BaseException:
        once.release()
        raise
    if response.status_code >= 500:
        once.release()
    return response


def _keep(once: KeyedRequest, using: str, response: Response) -> None:
    body = None if response.data is None else json.loads(JSONRenderer().render(response.data))
    found = ApiAnswer(response.status_code, body, dict(response.items()))
    for connection in connections.all(initialized_only=True):
        whole = connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block
        # A transaction that is to be rolled back has no work whose answer could be wrong.
        if whole and connection.alias != using and not connection.needs_rollback:
            # The request's transaction commits after ours, and that may fail. Until then the
            # key is ours; whoever has lost it to another request must not commit.
            once.hold()
            transaction.on_commit(partial(once.keep, found), using=connection.alias)
            return
    once.keep(found)
