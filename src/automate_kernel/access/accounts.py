"""Accounts of plugins at services, as people connect them in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from automate_kernel.access.audit import unknown
from automate_kernel.access.tokens import digest_of
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.account import Account, Consent, require_client, state_in
from automate_kernel.operations.invoker import Invoker
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.rows import Row, Rows, Storage, write
from automate_kernel.storage.tables import CONSENT
from automate_kernel.storage.values import read_json

ACCOUNT_KINDS = ("connector", "provider")
"""The kinds of plugins that may have accounts."""
CONSENT_SECONDS = 600
"""The time that a person has to answer the service's question."""
_MOST_KEPT = 3_000  # characters, of the 4 KB that a browser keeps
_PURGED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class AskedConsent:
    """
    A question to a person, who answers it at *url*.

    *kept* is for the browser alone, which brings it back with the answer.
    """

    url: str
    kept: str


@dataclass(frozen=True, slots=True)
class FinishedConsent:
    """The account of the plugin *key* that a person connected; *secret* has its tokens."""

    kind: str
    key: str
    tenant: str | None
    secret: str


class AccountDesk:
    """
    Connects the accounts of plugins by OAuth 2, for pages in any host.

    A service's answer counts once, within ten minutes, for the user and the session that asked, and
    in the browser that asked. What proves it (the verifier of PKCE) is kept by that browser;
    *storage* has a hash of it.
    """

    def __init__(self, storage: Storage, operations: Invoker) -> None:
        self._storage, self._operations = storage, operations

    def find(self, kind: str, key: str, tenant: str | None) -> Account:
        """
        Return the account of a plugin, for a tenant or for the application.

        Raises ``NOT_FOUND`` for an unknown plugin, and ``FAILED_PRECONDITION`` for a plugin that
        has no account.
        """
        if kind not in ACCOUNT_KINDS:
            raise unknown("kind of plugins", kind[:100])
        account: Account | None = self._operations.instance(kind, key).oauth()
        if account is None:
            looks = f"automate plugins show {key}"
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the plugin {key!r} is not connected to accounts",
                hint=f"its credentials are in its config, or in secrets: {looks}",
            )
        return account.for_tenant(tenant)

    def begin(
        self,
        kind: str,
        key: str,
        tenant: str | None,
        redirect_uri: str,
        *,
        by: str,
        session: str = "",
    ) -> AskedConsent:
        """
        Return the question whose answer the browser brings to *redirect_uri*.

        What a person's work would be in vain without is looked for first: the client's secret, and
        a place for the tokens. *by* and *session* are the user who asks and the user's session.
        """
        account = self.find(kind, key, tenant)
        require_client(account, self._operations.secrets)
        consent = account.begin(redirect_uri)
        if urlsplit(consent.url).scheme not in ("http", "https") or not consent.state:
            raise AutomateError(
                ErrorCodes.INTERNAL, f"the plugin {key!r} asks at an address that can't be opened",
                hint="its account's begin() returns an address of http(s) with one state",
                retryable=False,
            )  # fmt: skip
        private = json.dumps([secrets.token_urlsafe(16), dict(consent.private)])
        kept = base64.urlsafe_b64encode(private.encode()).decode()
        if len(kept) > _MOST_KEPT:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, "the answer's proof is too long for a cookie",
                hint=f"connect it on the command line: automate connect {key}",
            )  # fmt: skip
        asked = {
            "kind": kind, "key": key, "tenant": tenant, "url": consent.url,
            "redirect_uri": consent.redirect_uri,
        }  # fmt: skip
        row: Row = {
            "id": digest_of(consent.state), "digest": _proof(kept, by, session), "asked": asked,
            "expires_at": Now(CONSENT_SECONDS),
        }  # fmt: skip
        write(self._storage, None, lambda rows: rows.insert(CONSENT, [row]))
        return AskedConsent(consent.url, kept)

    def finish(self, query: str, kept: str, *, by: str, session: str = "") -> FinishedConsent:
        """
        Take a service's answer, the *query* of the address that the browser was sent to.

        *kept* is what the browser kept. Raises ``PERMISSION_DENIED`` for an answer to no question
        that *by* has asked here in this *session*, and the account's error for a no.
        """
        where = [
            Where("id", "eq", digest_of(state_in(f"?{query}"))),
            Where("digest", "eq", _proof(kept, by, session)), Where("expires_at", "gt", Now()),
        ]  # fmt: skip

        def take(rows: Rows) -> Any:
            found = rows.select(CONSENT, where, columns=["asked"])
            # Of two requests with one answer the first deletes it, and goes on.
            return found[0]["asked"] if found and rows.delete(CONSENT, where) else None

        asked = write(self._storage, None, take)
        if asked is None:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                "this answers no question that you have asked here in the last ten minutes",
                hint="begin again with Connect, in this browser",
            )
        _, private = read_json(base64.urlsafe_b64decode(kept.encode()))
        account = self.find(asked["kind"], asked["key"], asked["tenant"])
        consent = Consent(asked["url"], asked["redirect_uri"], private)
        answer = f"{consent.redirect_uri}?{query}"
        account.finish(consent, answer, self._operations.secrets, by=by)
        return FinishedConsent(asked["kind"], asked["key"], asked["tenant"], account.key)

    def purge(self) -> int:
        """Delete questions that nobody has answered in time, and return their number."""
        old = [Where("expires_at", "lt", Now())]
        return write(
            self._storage, None, lambda rows: rows.delete_some(CONSENT, old, _PURGED_AT_ONCE)
        )


def _proof(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
