"""Models of the API: tokens with their scopes, and the answers to requests with a key."""

# ruff: noqa: DJ001  (a Meta speaks for itself; null says that there is none)

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.db import models, router
from django.utils import timezone

from automate_django.models.tables import KernelTable, meta_of, new_key
from automate_kernel.access import tokens
from automate_kernel.access.roles import scopes_of
from automate_kernel.storage.tables import IDEMPOTENCY, TOKEN


class ApiTokenManager(models.Manager["ApiToken"]):
    """
    Makes and finds tokens, in the database that they are written to.

    Where a project reads from replicas, a token that was revoked would open for a while yet.
    """

    def get_queryset(self) -> models.QuerySet[ApiToken]:
        """Return the tokens of the database that `using` names, else of that for writing."""
        found = super().get_queryset()
        return found if self._db else found.using(router.db_for_write(self.model))

    def issue(
        self,
        name: str,
        *,
        user: Any = None,
        tenant_id: str | None = None,
        scopes: Iterable[str] = (),
        all_tenants: bool = False,
        expires_at: datetime | None = None,
    ) -> tuple[ApiToken, str]:
        """Make a token; return it and its text, which is not stored and never shown again."""
        token = self.model(
            name=name,
            user_id=None if user is None else str(user.pk),
            tenant_id=tenant_id or None,
            all_tenants=int(all_tenants),
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
        )
        text = token.make_text()
        token.save(using=self._db)
        return token, text

    def matching(self, text: str) -> ApiToken | None:
        """
        Return the token with this *text*, whatever its state; None if there is none.

        The prefix finds the row, and is no secret. The secret is compared in constant time.
        """
        prefix = tokens.prefix_of(text)
        token = None if prefix is None else self.filter(prefix=prefix).first()
        return token if tokens.same_digest(text, None if token is None else token.digest) else None


class ApiToken(KernelTable):
    """
    A bearer token of the API: a user's, or a service's. Only its SHA-256 is stored.

    The kernel's own pages and commands have the same tokens: `automate_kernel.access.tokens`.
    """

    id = models.UUIDField(primary_key=True, default=new_key, editable=False)
    name = models.CharField(max_length=200, help_text="What it is for.")
    prefix = models.CharField(max_length=32, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    # Not a foreign key: a project may have no `django.contrib.auth`, or its users elsewhere.
    user_id = models.CharField(max_length=200, null=True, blank=True)
    tenant_id = models.CharField(max_length=200, null=True, blank=True)
    all_tenants = models.IntegerField(default=0)
    roles = models.JSONField(default=list, blank=True)
    scopes = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[ApiTokenManager] = ApiTokenManager()

    Meta = meta_of(TOKEN, verbose_name="API token")

    def __str__(self) -> str:
        return f"{self.name} ({self.shown})"

    def make_text(self) -> str:
        """Make a new text for the token, of which only the digest will be saved."""
        self.prefix, text = tokens.new_token()
        self.digest = tokens.digest_of(text)
        return text

    @property
    def shown(self) -> str:
        """The part of its text that may be shown: enough to recognize it."""
        return tokens.shown_token(self.prefix)

    @property
    def usable(self) -> bool:
        """True if it is neither revoked nor expired."""
        return self.revoked_at is None and (
            self.expires_at is None or self.expires_at > timezone.now()
        )

    def allows(self, scope: str) -> bool:
        """Return True if it has *scope*: by a role, by name, as ``outbox:*`` or as ``*``."""
        return tokens.scope_allowed(scope, (*self.scopes, *scopes_of(self.roles)))

    def revoke(self) -> bool:
        """End the token, from the next request on; return False if it had been revoked."""
        self.revoked_at = timezone.now()
        ended = type(self).objects.filter(pk=self.pk, revoked_at=None)
        return bool(ended.update(revoked_at=self.revoked_at))


class IdempotencyRecord(KernelTable):
    """
    A request with an ``Idempotency-Key``, and its answer.

    The kernel's own API has the same rows: `automate_kernel.http.api.idempotency`.
    """

    id = models.CharField(max_length=64, primary_key=True)
    fingerprint = models.CharField(max_length=64)
    lock = models.CharField(max_length=32, null=True)
    locked_until = models.DateTimeField(null=True)
    status_code = models.IntegerField(null=True)
    headers = models.JSONField()
    body = models.JSONField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    Meta = meta_of(
        IDEMPOTENCY,
        verbose_name="answer to an idempotent request",
        verbose_name_plural="answers to idempotent requests",
    )

    def __str__(self) -> str:
        # Not the id: who knows the key could ask for the answer again.
        return f"request of {self.created_at:%Y-%m-%d %H:%M:%S}"
