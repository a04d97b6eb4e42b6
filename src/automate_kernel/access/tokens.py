"""Tokens: bearer tokens of people and services, of which only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from automate_kernel.access.audit import unknown
from automate_kernel.access.roles import ROLES, scopes_of
from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_texts
from automate_kernel.base.errors import ConfigError, StorageError, did_you_mean
from automate_kernel.outbox.item import check_number, check_text, new_id
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.paging import IndexRange, read_page
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import SESSION, TABLES, TOKEN

__all__ = ["AccessToken", "TokenPage", "TokenStore"]

logger: logging.Logger = get_logger(__name__)

_MARK = "atk"
_PREFIX_BYTES = 6
_SECRET_BYTES = 32
_LONGEST = 500  # characters of what is given as a token
_USE_NOTED_EVERY = timedelta(minutes=1)
# A century: databases and Python know no time that is much later.
_LONGEST_SECONDS = 100 * 366 * 86_400.0
_COLUMNS = tuple(column.name for column in TABLES[TOKEN].columns if column.name != "digest")


def new_token() -> tuple[str, str]:
    """Return the prefix and the text of a new token, which has 256 random bits."""
    prefix = secrets.token_hex(_PREFIX_BYTES)
    return prefix, f"{_MARK}_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest_of(text: str) -> str:
    """
    Return the SHA-256 of a token or a session's id, as hex digits.

    They hold 256 random bits, so no dictionary helps to guess them, and a slow hash would only make
    each request dear.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# An unknown prefix is compared with this, so that it takes as long as a known one.
_NOBODYS = digest_of("nobody's")


def prefix_of(text: str) -> str | None:
    """Return the prefix of a token, which finds its row and is no secret; None if it has none."""
    mark, _, rest = text.partition("_")
    prefix, _, _ = rest.partition("_")
    usual = len(prefix) <= 32 and prefix.isascii() and prefix.isalnum()
    return prefix if mark == _MARK and usual else None


def same_digest(text: str, digest: str | None) -> bool:
    """Return True if *digest* is that of *text*; takes as long when there is none."""
    return hmac.compare_digest(digest_of(text), digest or _NOBODYS) and digest is not None


def shown_token(prefix: str) -> str:
    """Return the part of a token that may be shown: enough to recognize it."""
    return f"{_MARK}_{prefix}_…"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """
    A bearer token, without its text.

    *roles* open the pages and the API, *scopes* the API alone. Its rows are those of *tenant_id*,
    or of all tenants if *all_tenants*. *user_id* is the user of a Django project that it acts for.
    """

    id: str
    name: str
    prefix: str
    user_id: str | None
    tenant_id: str | None
    all_tenants: bool
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def shown(self) -> str:
        """The part of its text that may be shown: enough to recognize it."""
        return shown_token(self.prefix)

    @property
    def state(self) -> str:
        """The words for its state by this machine's clock: usable, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "usable" if self.usable_at(runtime.utc_now()) else "expired"

    def usable_at(self, now: datetime) -> bool:
        """Return True if it is neither revoked nor expired at *now*."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def allows(self, scope: str) -> bool:
        """Return True if it has *scope*: by a role, by name, as ``outbox:*`` or as ``*``."""
        return scope_allowed(scope, (*self.scopes, *scopes_of(self.roles)))


def scope_allowed(scope: str, among: Iterable[str]) -> bool:
    """Return True if *scope* is *among* the scopes, by name, as ``outbox:*`` or as ``*``."""
    area, _, _ = scope.partition(":")
    return bool({scope, f"{area}:*", "*"}.intersection(among))


@dataclass(frozen=True, slots=True)
class TokenPage:
    """A page of tokens, the latest first; *after* leads to the next one."""

    tokens: list[AccessToken] = field(default_factory=list)
    after: str = ""


class TokenStore:
    """The tokens of *storage*."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def new(
        self,
        name: str,
        *,
        roles: Iterable[str] = (),
        scopes: Iterable[str] = (),
        tenant_id: str | None = None,
        all_tenants: bool = True,
        expires_in_seconds: float | None = None,
        user_id: str | None = None,
        transaction: Any = None,
    ) -> tuple[AccessToken, str]:
        """
        Make a token; return it and its text, which is not stored and can't be shown again.

        *name* says whose it is: on the pages it is the user's name. Without *tenant_id* the rows of
        all tenants are its; if not *all_tenants*, those that the user with *user_id* sees. Raises
        `ConfigError` for unknown roles, and if it could do nothing.
        """
        check_text(name, "the name", column="kind")
        roles, scopes = check_roles(roles), check_texts(scopes, "scopes", 'scopes=["outbox:*"]')
        if not roles and not scopes:
            raise ConfigError("the token could do nothing", hint='give it roles, as ["viewer"]')
        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")
        if expires_in_seconds is not None:
            check_number(expires_in_seconds, "the token's time", 1, _LONGEST_SECONDS, whole=False)
        prefix, text = new_token()
        row: Row = {
            "id": new_id(), "name": name, "prefix": prefix, "digest": digest_of(text),
            "user_id": user_id, "tenant_id": tenant_id,
            "all_tenants": int(all_tenants and tenant_id is None),
            "roles": sorted(set(roles)), "scopes": sorted(set(scopes)), "created_at": Now(),
            "expires_at": None if expires_in_seconds is None else Now(expires_in_seconds),
            "last_used_at": None, "revoked_at": None,
        }  # fmt: skip

        def insert(rows: Rows) -> Row:
            rows.insert(TOKEN, [row])
            return _read(rows, Where("id", "eq", row["id"]))[0]

        return _token(write(self._storage, transaction, insert)), text

    def find(self, text: str) -> AccessToken | None:
        """
        Return the usable token with this *text*; None if there is none, or it has ended.

        The secret is compared in constant time. The use is noted once a minute.
        """
        prefix = prefix_of(text) if len(text) <= _LONGEST else None
        with self._storage.begin(atomic=False) as rows:
            wanted = [] if prefix is None else rows.select(TOKEN, [Where("prefix", "eq", prefix)])
            row = wanted[0] if wanted else None
            same = same_digest(text[:_LONGEST], None if row is None else row.pop("digest"))
            if row is None or not same:
                return None
            token, now = _token(row), rows.now()
        if not token.usable_at(now):
            logger.info("token %s was refused: it is revoked or expired", token.shown)
            return None
        self._note_use(token, now)
        return token

    def get(self, prefix: str) -> AccessToken | None:
        """Return the token with this prefix, with or without ``atk_``; None if there is none."""
        bare = prefix.removeprefix(f"{_MARK}_").partition("_")[0]
        with self._storage.begin(atomic=False) as rows:
            found = _read(rows, Where("prefix", "eq", bare))
        return _token(found[0]) if found else None

    def by_ids(self, ids: Iterable[str]) -> dict[str, AccessToken]:
        """Return the usable tokens with these ids."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        with self._storage.begin(atomic=False) as rows:
            found = [_token(row) for row in _read(rows, Where("id", "in", wanted))]
            # The clock of the database matters only for what expires.
            ends = any(each.expires_at for each in found)
            now = rows.now() if ends else runtime.utc_now()
        return {each.id: each for each in found if each.usable_at(now)}

    def page(self, *, tenant_id: str | None = None, after: str = "", limit: int = 50) -> TokenPage:
        """Return a page of the tokens, the latest first: those of a tenant, or all."""
        its = [] if tenant_id is None else [Where("tenant_id", "eq", tenant_id)]
        with self._storage.begin(atomic=False) as rows:
            found = read_page(
                rows, TOKEN, [IndexRange(its)], name=f"tokens {tenant_id}", after=after,
                limit=limit, columns=_COLUMNS,
            )  # fmt: skip
        return TokenPage([_token(row) for row in found.rows], found.after)

    def revoke(self, prefix: str, *, tenant_id: str | None = None, transaction: Any = None) -> bool:
        """
        End a token from the next request on, and the sessions that it began.

        Returns False if it had been revoked. With *tenant_id* only a token of that tenant is found.
        Raises ``NOT_FOUND``.
        """
        token = self.get(prefix)
        if token is None or tenant_id not in (None, token.tenant_id):
            raise unknown("token", prefix)

        def revoke(rows: Rows) -> int:
            where = [Where("id", "eq", token.id), Where("revoked_at", "eq", None)]
            rows.delete(SESSION, [Where("token_id", "eq", token.id)])
            return rows.update(TOKEN, where, {"revoked_at": Now()})

        return bool(write(self._storage, transaction, revoke))

    def _note_use(self, token: AccessToken, now: datetime) -> None:
        used = token.last_used_at
        if used is not None and used > now - _USE_NOTED_EVERY:
            return
        where = [Where("id", "eq", token.id), Where("last_used_at", "eq", used)]
        changes = {"last_used_at": Now()}
        try:
            write(self._storage, None, lambda rows: rows.update(TOKEN, where, changes))
        except StorageError as error:
            # A read-only or locked database is no reason to turn anybody away.
            logger.warning("the use of token %s could not be noted: %s", token.shown, error)


def check_roles(roles: Iterable[str]) -> list[str]:
    """Return *roles*, each of which gives rights; raises `ConfigError` for another."""
    found = check_texts(roles, "roles", 'roles=["operator"]')
    for role in found:
        if role not in ROLES:
            also = f"there are {', '.join(ROLES)}"
            raise ConfigError(
                f"there is no role {role[:40]!r}", hint=did_you_mean(role, ROLES, also=also)
            )
    return found


def _read(rows: Rows, where: Where) -> list[Row]:
    return rows.select(TOKEN, [where], columns=_COLUMNS)


def _token(row: Row) -> AccessToken:
    lists = {name: tuple(row[name]) for name in ("roles", "scopes")}
    return AccessToken(**{**row, **lists, "all_tenants": bool(row["all_tenants"])})
