"""
``Idempotency-Key``: a POST is carried out once, however often it is sent.

::

                 ┌─ another body ──────────▶ 422
    key is known ┼─ being answered ────────▶ 409, try again
                 └─ answered ──────────────▶ the same answer again
    key is new ────▶ locked ─▶ the view, and its answer kept, in one transaction

A request whose process dies leaves a lock, which ends by itself; its writes were rolled back. A
request that is only slow finds its lock taken over, and is rolled back too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router, transaction
from django.http.request import RawPostDataException
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django import conf
from automate_django.api.bases.access import MixinOrderGuard
from automate_django.api.problems import Problem
from automate_django.kernel import get_kernel
from automate_django.models import IdempotencyRecord
from automate_django.tenants import tenant_of, token_of

LOCK_SECONDS = 60
# Without a comma, by which servers join two such headers.
_KEY = re.compile(r'"?([!-+\--~]{1,255}?)"?')
_KEPT_HEADERS = ("Location",)
_SWEEP_EVERY = 64
_SWEPT_AT_ONCE = 500


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
        once = IdempotentRequest(
            owner_of(request),
            _key(text),
            fingerprint,
            atomic=self.idempotency_atomic,
            lock_seconds=self.idempotency_lock_seconds,
        )
        handler: Callable[..., Any] = getattr(self, "post", self.http_method_not_allowed)

        def post(*args: Any, **kwargs: Any) -> Response:
            return once.answer(lambda: _response(handler(*args, **kwargs)))

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
    parts = (request.method, request.get_full_path(), request.META.get("CONTENT_TYPE", ""))
    digest = hashlib.sha256("\n".join(map(str, parts)).encode() + b"\n")
    try:
        digest.update(request.body)
    except RawPostDataException:
        raise Problem(400, "An Idempotency-Key needs a body that was not read before.") from None
    return digest.hexdigest()


def _key(text: str) -> str:
    found = _KEY.fullmatch(text.strip())
    if found is None:
        raise Problem(
            400, "Give one Idempotency-Key of 1 to 255 visible ASCII characters, no comma."
        )
    return found[1]


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


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """One request with a key: *owner* is its client's digest, *fingerprint* its own."""

    owner: str
    key: str
    fingerprint: str
    atomic: bool = True
    lock_seconds: float = LOCK_SECONDS

    @property
    def using(self) -> str:
        """The database of the records: the outbox's, so that one transaction holds both."""
        alias = conf.option("AUTOMATE_OUTBOX", "USING")
        return str(alias or router.db_for_write(IdempotencyRecord))

    def answer(self, carry_out: Callable[[], Response]) -> Response:
        """Return the one answer. An exception of *carry_out* frees the key."""
        lock = secrets.token_hex(16)
        found = self._claim(lock)
        if found is not None:
            return self._replayed(found)
        try:
            with transaction.atomic(using=self.using) if self.atomic else nullcontext():
                # Locks the row first: SQLite would not let what has read become a writer.
                self._update(lock, locked_until=self._soon())
                response = carry_out()
                if response.status_code < 500:
                    self._keep(lock, response)
        except BaseException:
            self._let_go(lock)
            raise
        if response.status_code >= 500:
            self._let_go(lock)
        return response

    def _keep(self, lock: str, response: Response) -> None:
        changes = {"lock": None, "locked_until": None, **_kept(response)}
        for connection in connections.all(initialized_only=True):
            whole = connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block
            # One that is to be rolled back has no work whose answer could be wrong.
            if whole and connection.alias != self.using and not connection.needs_rollback:
                # The request's transaction commits after ours, and that may fail. Until then the
                # key is ours; whoever has lost it to another request must not commit.
                self._update(lock, locked_until=self._soon())
                commit = partial(self._update, lock, **changes)
                transaction.on_commit(commit, using=connection.alias)
                return
        self._update(lock, **changes)

    def _let_go(self, lock: str) -> None:
        # If the database is gone, so is the transaction, and the lock ends by itself.
        with contextlib.suppress(DatabaseError):
            self._records.filter(lock=lock).delete()

    @property
    def _records(self) -> Any:
        return IdempotencyRecord.objects.using(self.using).filter(owner=self.owner, key=self.key)

    def _claim(self, lock: str) -> IdempotencyRecord | None:
        """Take the key; return None if it is now ours, else the other request's record."""
        now = timezone.now()
        record = IdempotencyRecord(
            owner=self.owner,
            key=self.key,
            fingerprint=self.fingerprint,
            lock=lock,
            locked_until=self._soon(),
            expires_at=now + timedelta(hours=conf.option("AUTOMATE_API", "IDEMPOTENCY_HOURS")),
        )
        self._records.filter(expires_at__lte=now).delete()
        IdempotencyRecord.objects.using(self.using).bulk_create([record], ignore_conflicts=True)
        found: IdempotencyRecord | None = self._records.first()
        if found is None:
            raise _in_progress()  # let go just now
        if found.lock == lock:
            if found.pk % _SWEEP_EVERY == 0:
                _sweep(self.using)
            return None
        if found.fingerprint == self.fingerprint and found.lock is not None:
            # Its request is gone, or will find that the lock has been taken over.
            over = self._records.filter(lock=found.lock, locked_until__lte=now)
            if over.update(lock=lock, locked_until=self._soon()):
                return None
        return found

    def _soon(self) -> datetime:
        return timezone.now() + timedelta(seconds=self.lock_seconds)

    def _update(self, held: str, /, **changes: Any) -> None:
        if not self._records.filter(lock=held).update(**changes):
            raise _in_progress()

    def _replayed(self, record: IdempotencyRecord) -> Response:
        if record.fingerprint != self.fingerprint:
            text = "This Idempotency-Key came before, with another request. Use a new key."
            raise Problem(422, text, code="IDEMPOTENCY_KEY_REUSED")
        if record.lock is not None:
            raise _in_progress()
        headers = {**record.headers, "Idempotency-Replayed": "true"}
        return Response(record.body, status=record.status_code, headers=headers)


def _kept(response: Response) -> dict[str, Any]:
    body = None
    if response.data is not None:
        body = get_kernel().redactor.redact_value(json.loads(JSONRenderer().render(response.data)))
    headers = {name: response[name] for name in _KEPT_HEADERS if response.has_header(name)}
    return {"status_code": response.status_code, "body": body, "headers": headers}


def _in_progress() -> Problem:
    text = "A request with this Idempotency-Key is being answered."
    return Problem(409, text, code="IDEMPOTENCY_KEY_IN_USE", headers={"Retry-After": "1"})


def _sweep(using: str) -> None:
    """Delete expired records, whoever their owners are."""
    records = IdempotencyRecord.objects.using(using)
    over = records.filter(expires_at__lte=timezone.now()).values_list("pk", flat=True)
    records.filter(pk__in=list(over[:_SWEPT_AT_ONCE])).delete()
