"""Sessions of people on the pages: kept on the server, revocable, known by a hashed id alone."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from automate_kernel.access.tokens import AccessToken, digest_of
from automate_kernel.base.arguments import check_age, check_limit
from automate_kernel.base.errors import StorageError
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import SESSION
from automate_kernel.storage.values import storable

__all__ = ["IDLE_SECONDS", "LIFETIME_SECONDS", "SessionStore", "UserSession"]

logger: logging.Logger = get_logger(__name__)

IDLE_SECONDS = 12 * 3600.0
"""The time without a request after which a session ends."""
LIFETIME_SECONDS = 7 * 86_400.0
"""The time after which a session ends, however much it is used."""
_SEEN_SECONDS = 60.0
_SECRET_BYTES = 32
_LONGEST = 200  # characters of a session's id, and of what is kept of a browser
_MOST_OF_USER = 50


@dataclass(frozen=True, slots=True)
class UserSession:
    """
    A session of the user *user_name*; *id* is the hash by which it is known.

    It ends at *expires_at* if it is not used before, and at *ends_at*. *tenant_id* None means all
    tenants.
    """

    id: str
    user_name: str
    roles: tuple[str, ...]
    tenant_id: str | None
    token_id: str | None
    method: str
    address: str | None
    agent: str | None
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    ends_at: datetime


class SessionStore:
    """
    The sessions of *storage*.

    They end after *idle_seconds* without a request, and after *lifetime_seconds* in any case.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> None:
        self._storage = storage
        self._idle = check_age(idle_seconds, "idle_seconds")
        self._lifetime = check_age(lifetime_seconds, "lifetime_seconds")

    def begin(
        self,
        user_name: str,
        *,
        roles: Iterable[str],
        tenant_id: str | None,
        method: str,
        token: AccessToken | None = None,
        address: str | None = None,
        agent: str | None = None,
        transaction: Any = None,
    ) -> str:
        """
        Begin a session and return its id, a secret of the browser; only its hash is stored.

        A session that was begun with a *token* ends with it. A user has 50 at most: the oldest end.
        """
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        row: Row = {
            "id": digest_of(secret), "user_name": user_name, "roles": sorted(set(roles)),
            "tenant_id": tenant_id, "token_id": None if token is None else token.id,
            "method": method, "address": _cut(address), "agent": _cut(agent),
            "created_at": Now(), "seen_at": Now(), "expires_at": Now(self._idle),
            "ends_at": Now(self._lifetime),
        }  # fmt: skip

        def insert(rows: Rows) -> None:
            rows.insert(SESSION, [row])
            its = [Where("user_name", "eq", user_name)]
            old = rows.select(
                SESSION, its, order_by=["-created_at"], offset=_MOST_OF_USER, limit=_MOST_OF_USER,
                columns=["id"],
            )  # fmt: skip
            rows.delete(SESSION, [Where("id", "in", [each["id"] for each in old])])

        write(self._storage, transaction, insert)
        return secret

    def find(self, secret: str) -> UserSession | None:
        """Return the session with the id *secret*, unless it has ended; notes its use."""
        return self.find_many([secret]).get(secret)

    def find_many(self, secrets: Iterable[str]) -> dict[str, UserSession]:
        """Return the living sessions of *secrets*, their ids in browsers; notes their use."""
        ids = {digest_of(each): each for each in secrets if each and len(each) <= _LONGEST}
        if not ids:
            return {}
        its = [Where("id", "in", list(ids)), *_alive()]
        seen = min(_SEEN_SECONDS, self._idle / 4)
        with self._storage.begin(atomic=False) as rows:
            # Mostly they were seen in this minute: then it is one statement.
            found = rows.select(SESSION, [*its, Where("seen_at", "gt", Now(-seen))])
            noted = {row["id"] for row in found}
            if len(noted) < len(ids):
                found = rows.select(SESSION, its)
        self._note_use([row["id"] for row in found if row["id"] not in noted])
        return {ids[row["id"]]: _session(row) for row in found}

    def look_up(self, session_id: str) -> tuple[UserSession | None, datetime]:
        """
        Return the session with a hashed id, and the time now.

        An expired session is returned for up to an hour, and an ended session is not.
        """
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(SESSION, [Where("id", "eq", session_id)])
            return (_session(found[0]) if found else None), rows.now()

    def of(self, user_name: str, tenant_id: str | None) -> list[UserSession]:
        """Return the living sessions of a user, the latest first."""
        its = [Where("user_name", "eq", user_name), Where("tenant_id", "eq", tenant_id)]
        return self._living(its, _MOST_OF_USER)

    def all(self, *, tenant_id: str | None = None, limit: int = 200) -> list[UserSession]:
        """Return the living sessions of a tenant, or with None all, the latest first."""
        its = [] if tenant_id is None else [Where("tenant_id", "eq", tenant_id)]
        return self._living(its, check_limit(limit))

    def end(self, session_id: str, *, transaction: Any = None, **whose: str | None) -> bool:
        """
        End a session by its hashed id; return False if there is none.

        *whose* (``user_name``, ``tenant_id``) are conditions: a session of others is not found.
        """
        its = [Where(name, "eq", value) for name, value in whose.items()]
        where = [Where("id", "eq", session_id), *its]
        return bool(write(self._storage, transaction, lambda rows: rows.delete(SESSION, where)))

    def leave(self, session_id: str, *, transaction: Any = None) -> bool:
        """Expire a session at once, at its user's wish; actions begun in it go on."""
        where = [Where("id", "eq", session_id), *_alive()]
        changes = {"expires_at": Now()}
        return bool(
            write(self._storage, transaction, lambda rows: rows.update(SESSION, where, changes))
        )

    def purge(self, *, limit: int = 1_000) -> int:
        """Delete up to *limit* sessions that have ended, and return their number."""
        deleted = 0
        for column in ("expires_at", "ends_at"):
            ended = partial(Rows.delete_some, table=SESSION, where=[Where(column, "lt", Now())])
            deleted += write(self._storage, None, partial(ended, limit=limit))
        return deleted

    def _living(self, where: list[Where], limit: int) -> list[UserSession]:
        with self._storage.begin(atomic=False) as rows:
            found = rows.select(
                SESSION, [*where, *_alive()], order_by=["-created_at", "id"], limit=limit
            )
        return [_session(row) for row in found]

    def _note_use(self, session_ids: list[str]) -> None:
        if not session_ids:
            return
        where = [Where("id", "in", session_ids), *_alive()]
        changes = {"seen_at": Now(), "expires_at": Now(self._idle)}
        try:
            write(self._storage, None, lambda rows: rows.update(SESSION, where, changes))
        except StorageError as error:
            # A read-only or locked database is no reason to turn anybody away.
            logger.warning("the use of a session could not be noted: %s", error)


def _alive() -> list[Where]:
    return [Where("expires_at", "gt", Now()), Where("ends_at", "gt", Now())]


def _cut(text: str | None) -> str | None:
    return None if text is None else storable(text, _LONGEST)


def _session(row: Row) -> UserSession:
    return UserSession(**{**row, "roles": tuple(row["roles"])})
