"""Credentials of requests to a service, read from the secrets at each request."""

from __future__ import annotations

import base64
import hashlib
import secrets as random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.context import SecretReader

_SALT = random.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    The headers and query parameters that prove who asks.

    *values* are the secrets in them, which no error may show. *account* names the one whom the
    service counts requests for, where the values change and it doesn't. *secret* is the key of the
    secret that the values come from, if every tenant has the same.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    values: tuple[str, ...] = field(default=(), repr=False)
    account: str = ""
    secret: str = ""

    def limit_key(self) -> str:
        """Return a key for the limits of the account; it shows nothing of the values."""
        about = self.account or "\n".join(self.values)
        if not about:
            return ""
        known = about.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(known, key=_SALT, digest_size=16).hexdigest()

    def shared_key(self, tenant_id: str | None) -> tuple[str, ...]:
        """
        Return a key for the limits of the account that is the same in each process.

        It is made of names: a hash of a value that stays the same could be guessed from.
        """
        if self.account or self.secret:
            return ("account", self.account) if self.account else ("secret", self.secret)
        # The values may be those of the call's tenant, whom no other's limits may hold up.
        return ("tenant", tenant_id) if self.values and tenant_id else ()


class Auth(ABC):
    """A way to prove who asks. Instances hold keys of secrets, and no values."""

    hint: str = ""
    """The remedy in the error for a request that the service refused with 401."""

    @abstractmethod
    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Return what the next request is sent with. Raises `AutomateError`."""

    async def renew(self, secrets: SecretReader, used: Credentials) -> bool:
        """
        Return True if the request is worth another try with new credentials.

        Called after a 401 that *used* got, once for a request.
        """
        return False


class BearerAuth(Auth):
    """``Authorization: Bearer …`` with the secret *key*; services differ in the *scheme*'s word."""

    def __init__(self, key: str, *, scheme: str = "Bearer") -> None:
        self._key, self._scheme = key, scheme
        self.hint = f"check the secret {key!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the token."""
        token = await secrets.aget(self._key)
        sent = {"authorization": f"{self._scheme} {token}"}
        return Credentials(sent, values=(token,), secret=self._key)


class BasicAuth(Auth):
    """HTTP's own authentication: *user* as text, and the secret *key* as the password."""

    def __init__(self, user: str, key: str) -> None:
        self._user, self._key = user, key
        self.hint = f"check the secret {key!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the password."""
        password = await secrets.aget(self._key)
        pair = base64.b64encode(f"{self._user}:{password}".encode()).decode("ascii")
        sent = {"authorization": f"Basic {pair}"}
        return Credentials(sent, values=(password, pair), secret=self._key)


class HeaderAuth(Auth):
    """A *header* of the service's own (``X-Api-Key``) with the secret *key*."""

    def __init__(self, header: str, key: str) -> None:
        self._header, self._key = header.lower(), key
        self.hint = f"check the secret {key!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the key."""
        value = await secrets.aget(self._key)
        return Credentials({self._header: value}, values=(value,), secret=self._key)


class QueryAuth(Auth):
    """A *parameter* of the query with the secret *key*. Take a header where there is a choice."""

    def __init__(self, parameter: str, key: str) -> None:
        self._parameter, self._key = parameter, key
        self.hint = f"check the secret {key!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the key."""
        value = await secrets.aget(self._key)
        sent = {self._parameter: value}
        return Credentials(query=sent, values=(value,), secret=self._key)


class CookieAuth(Auth):
    """A *cookie* with the secret *key*."""

    def __init__(self, cookie: str, key: str) -> None:
        self._cookie, self._key = cookie, key
        self.hint = f"check the secret {key!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Read the value."""
        value = await secrets.aget(self._key)
        written = quote(value, safe="!#$&'()*+-./:<=>?@[]^_`{|}~")
        sent = {"cookie": f"{self._cookie}={written}"}
        return Credentials(sent, values=(value, written), secret=self._key)


class AllOf(Auth):
    """The credentials of several schemes at once."""

    def __init__(self, auths: Sequence[Auth]) -> None:
        self._auths = auths
        self.hint = "; ".join(each.hint for each in auths if each.hint)

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Return them all. What fails here fails before anything is sent to the service."""
        try:
            found = [await each.credentials(secrets) for each in self._auths]
        except AutomateError as error:
            error.details = {**error.details, "sent": False}
            raise
        cookies = [each.headers["cookie"] for each in found if "cookie" in each.headers]
        headers = {name: text for each in found for name, text in each.headers.items()}
        names = [each.account or each.secret for each in found]
        return Credentials(
            {**headers, **({"cookie": "; ".join(cookies)} if cookies else {})},
            {name: text for each in found for name, text in each.query.items()},
            tuple(value for each in found for value in each.values),
            secret="\n".join(names) if all(names) else "",
        )

    async def renew(self, secrets: SecretReader, used: Credentials) -> bool:
        """Return True if one of them could be renewed."""
        return any([await each.renew(secrets, used) for each in self._auths])
