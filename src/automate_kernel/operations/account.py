"""A person's account at a service, which a plugin is connected to in a browser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qs, urlsplit

from automate_kernel.base.errors import SecretNotFoundError

__all__ = ["Account", "AccountStatus", "Consent", "require_client", "tenant_account_key"]

# Shorter than a digest, so that no tenant is called as another's digest; small letters, for disks
# that take two spellings for one name.
_PLAIN_TENANT = re.compile(r"[a-z0-9_-]{1,40}")


@dataclass(frozen=True, slots=True)
class Consent:
    """
    A question to a person, who answers it at *url* in a browser.

    *private* must come back to `Account.finish` and be seen by nobody else: a session holds it, or
    the memory of the process that asks.
    """

    url: str
    redirect_uri: str
    private: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> str:
        """The state in `url`, which the answer to this question and to no other brings back."""
        return state_in(self.url)


def state_in(url: str) -> str:
    """Return the one state in the query of *url*; empty without one, and where it has several."""
    found = parse_qs(urlsplit(url).query).get("state", [])
    return found[0] if len(found) == 1 else ""


def tenant_account_key(key: str, tenant_id: str) -> str:
    """Return the key of the secret with the tokens of one tenant's account; no two share it."""
    if _PLAIN_TENANT.fullmatch(tenant_id):
        return f"{key}.tenant.{tenant_id}"
    return f"{key}.tenant.{sha256(tenant_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """
    The state of an account's connection, without its tokens.

    *expires_at* is the end of the access token. With *renews* a new token is asked for by then, and
    nobody has to do anything. *error* is the last failure to renew it; it ends with a success. With
    *ended* the service takes the connection no more: a person has to connect it again.
    """

    connected: bool
    connected_by: str = ""
    connected_at: str = ""
    expires_at: datetime | None = None
    renews: bool = False
    ended: bool = False
    error: str = ""


@runtime_checkable
class Account(Protocol):
    """
    The account of one plugin; `automate_http.OAuth2` is an example.

    `Plugin.oauth` returns the application's own. Calls of a tenant take that of `for_tenant`. An
    account whose `finish` reads secrets may have their keys as its ``needs``: they are looked for
    first.
    """

    @property
    def key(self) -> str:
        """The key of the secret in which its tokens are kept."""

    def for_tenant(self, tenant_id: str | None) -> Account:
        """Return the account of a tenant, with a `key` of its own; for None the application's."""

    def begin(self, redirect_uri: str) -> Consent:
        """Return the question whose answer the browser brings to *redirect_uri*."""

    def finish(self, consent: Consent, answer_url: str, secrets: Any, *, by: str) -> None:
        """
        Take the answer, the URL that the browser was sent to, and store the tokens in *secrets*.

        *by* names the person, for those who look who has to connect it again. Raises
        `AutomateError` for an answer to another question, and for a no.
        """

    def status(self, secrets: Any) -> AccountStatus:
        """Return the state of the connection; asks nobody but *secrets*."""

    def disconnect(self, secrets: Any) -> None:
        """Delete the tokens from *secrets*. The service doesn't learn of it."""


def require_client(account: Account, secrets: Any) -> None:
    """
    Raise `AutomateError` if `Account.finish` would fail whatever a person answers.

    Its secrets are looked for in *secrets*, and a backend that takes the tokens and can write now.
    """
    with secrets.writable.locked(account.key):
        pass
    for key in getattr(account, "needs", ()):
        try:
            secrets.get(key)
        except SecretNotFoundError as error:
            problem = f"{error.message}, and the account {account.key!r} needs it"
            raise SecretNotFoundError(key, problem, hint=error.hint) from None
