"""
Requests that are carried out once, however often they are sent.

::

                 ┌─ another body ──────────▶ 422
    key is known ┼─ being answered ────────▶ 409, try again
                 └─ answered ──────────────▶ the same answer again
    key is new ────▶ locked ─▶ the view, and its answer kept, in one transaction

A request whose process dies leaves a lock, which ends by itself; what it had written was rolled
back. One that was only slow finds its lock taken over, and is rolled back too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, router, transaction
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from automate_django import conf
from automate_django.api.options import option
from automate_django.api.problems import Problem
from automate_django.kernel import get_kernel
from automate_django.models import IdempotencyRecord

__all__ = ["IdempotentRequest", "fingerprint_of"]

LOCK_SECONDS = 60
_KEPT_HEADERS = ("Location",)
_SWEEP_EVERY = 64
_SWEPT_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """
    One request with a key: *owner* is who sent it, *fingerprint* what was sent.

    `answer` gives the answer that was given to its first sending, or that of *carry_out*.
    """

    owner: str
    key: str
    fingerprint: str

    @property
    def using(self) -> str:
        """The database of the records: the outbox's, so that one transaction holds both."""
        alias = conf.option("AUTOMATE_OUTBOX", "USING")
        return str(alias or router.db_for_write(IdempotencyRecord))

    def answer(self, carry_out: Callable[[], Response]) -> Response:
        """The one answer. What *carry_out* raises is not kept: the key can be used again."""
        lock = secrets.token_hex(16)
        found = self._claim(lock)
        if found is not None:
            return self._again(found)
        try:
            with transaction.atomic(using=self.using):
                # Locks the row first: SQLite would not let what has read become a writer.
                self._mine(lock, locked_until=_soon())
                response = carry_out()
                if response.status_code < 500:
                    self._mine(lock, lock=None, locked_until=None, **_kept(response))
        except BaseException:
            self._let_go(lock)
            raise
        if response.status_code >= 500:
            self._let_go(lock)
        return response

    def _let_go(self, lock: str) -> None:
        # If the database is gone, so is the transaction, and the lock ends by itself.
        with contextlib.suppress(DatabaseError):
            self._records.filter(lock=lock).delete()

    @property
    def _records(self) -> Any:
        return IdempotencyRecord.objects.using(self.using).filter(owner=self.owner, key=self.key)

    def _claim(self, lock: str) -> IdempotencyRecord | None:
        """Make the key ours; None if it now is, else the record of whose it is."""
        now = timezone.now()
        record = IdempotencyRecord(
            owner=self.owner,
            key=self.key,
            fingerprint=self.fingerprint,
            lock=lock,
            locked_until=_soon(),
            expires_at=now + timedelta(hours=option("IDEMPOTENCY_HOURS")),
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
            # Whoever had it is gone, or will find that it has been taken over.
            over = self._records.filter(lock=found.lock, locked_until__lte=now)
            if over.update(lock=lock, locked_until=_soon()):
                return None
        return found

    def _mine(self, held: str, /, **changes: Any) -> None:
        if not self._records.filter(lock=held).update(**changes):
            raise _in_progress()

    def _again(self, record: IdempotencyRecord) -> Response:
        if record.fingerprint != self.fingerprint:
            raise Problem(
                422,
                "This Idempotency-Key came before, with another request. Use a new key.",
                code="IDEMPOTENCY_KEY_REUSED",
            )
        if record.lock is not None:
            raise _in_progress()
        headers = {**record.headers, "Idempotency-Replayed": "true"}
        return Response(record.body, status=record.status_code, headers=headers)


def fingerprint_of(request: Any) -> str:
    """A digest of what *request* asks for. Reads its body, which stays there for the view."""
    parts = (request.method, request.get_full_path(), request.META.get("CONTENT_TYPE", ""))
    digest = hashlib.sha256("\n".join(map(str, parts)).encode() + b"\n")
    digest.update(request.body)
    return digest.hexdigest()


def _kept(response: Response) -> dict[str, Any]:
    body = None
    if response.data is not None:
        body = get_kernel().redactor.redact_value(json.loads(JSONRenderer().render(response.data)))
    headers = {name: response[name] for name in _KEPT_HEADERS if response.has_header(name)}
    return {"status_code": response.status_code, "body": body, "headers": headers}


def _soon() -> Any:
    return timezone.now() + timedelta(seconds=LOCK_SECONDS)


def _in_progress() -> Problem:
    return Problem(
        409,
        "A request with this Idempotency-Key is being answered.",
        code="IDEMPOTENCY_KEY_IN_USE",
        headers={"Retry-After": "1"},
    )


def _sweep(using: str) -> None:
    """Delete records that have expired, of anybody."""
    records = IdempotencyRecord.objects.using(using)
    over = records.filter(expires_at__lte=timezone.now()).values_list("pk", flat=True)
    records.filter(pk__in=list(over[:_SWEPT_AT_ONCE])).delete()
