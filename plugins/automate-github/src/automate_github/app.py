"""Credentials of a GitHub App: a signed claim that is changed into a token for an hour."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from automate_github.config import AppConfig
from automate_http import Auth, Credentials, ServiceClient
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import PluginContext, SecretReader
from automate_kernel.secrets import SecretResolver

_RENEW_SECONDS = 300.0
# GitHub's clock may be behind ours, and it takes no claim for more than ten minutes.
_CLAIM_AGE_SECONDS, _CLAIM_SECONDS = 60, 540


class ClaimAuth(Auth):
    """A JSON Web Token that the App signs with its private key, for ten minutes at most."""

    def __init__(self, app: AppConfig) -> None:
        self._app = app
        self.hint = f"check app.client_id, and the secret {app.private_key_secret!r}"

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Sign a claim."""
        import jwt  # with cryptography, which takes a while to import

        key = await secrets.aget(self._app.private_key_secret)
        now = int(time.time())
        claim = {
            "iat": now - _CLAIM_AGE_SECONDS,
            "exp": now + _CLAIM_SECONDS,
            "iss": self._app.client_id,
        }
        try:
            # Environment variables and files of settings often have no line breaks.
            signed = jwt.encode(claim, key.replace("\\n", "\n"), algorithm="RS256")
        except Exception:  # of many kinds, some of which quote the key
            raise AutomateError(
                ErrorCodes.UNAUTHENTICATED,
                f"the secret {self._app.private_key_secret!r} is no private key",
                hint="it is the whole .pem file that GitHub made for the App",
            ) from None
        header = {"authorization": f"Bearer {signed}"}
        return Credentials(header, values=(signed,), account=f"app {self._app.client_id}")


class _InstallationToken(BaseModel):
    token: str = Field(min_length=1, max_length=4_096, pattern=r"^[!-~]+$")
    expires_at: AwareDatetime


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires_at: float


class AppAuth(Auth):
    """
    Tokens of an installation of a GitHub App, kept in memory.

    A token is renewed five minutes before it expires, and once when GitHub refuses it. *options*
    are those of the `ServiceClient` that asks for it.
    """

    def __init__(self, app: AppConfig, *, ctx: PluginContext, options: Mapping[str, Any]) -> None:
        self._app = app
        claim = ClaimAuth(app)
        self._client = ServiceClient(ctx=ctx, auth=claim, **options)
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self.hint = claim.hint

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Return the installation's token, renewed if it is about to expire."""
        # On a thread: one asks and the others wait, whatever loops they are on.
        token = await asyncio.to_thread(self._current, secrets, ())
        header = {"authorization": f"Bearer {token.value}"}
        account = f"installation {self._app.installation_id}"
        return Credentials(header, values=(token.value,), account=account)

    async def renew(self, secrets: SecretReader, used: Credentials) -> bool:
        """Return True if the token differs from the refused token."""
        token = await asyncio.to_thread(self._current, secrets, used.values)
        return token.value not in used.values

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _current(self, secrets: SecretReader, refused: tuple[str, ...]) -> _Token:
        with self._lock:
            token = self._token if self._token and self._token.value not in refused else None
            if token is None or token.expires_at - _RENEW_SECONDS <= time.time():
                token = self._token = self._renewed(token)
            # Each execution has secrets of its own to hide.
            if isinstance(secrets, SecretResolver):
                secrets.redactor.add(token.value)
            return token

    def _renewed(self, token: _Token | None) -> _Token:
        wanted = {
            "repositories": self._app.repositories,
            "permissions": self._app.permissions,
        }
        try:
            found = self._client.post(
                "/app/installations/{id}/access_tokens",
                id=self._app.installation_id,
                json={name: value for name, value in wanted.items() if value},
                returns=_InstallationToken,
            )
        except AutomateError as error:
            # GitHub can't be asked, and the token is good for a moment more.
            if token is not None and error.retryable and token.expires_at > time.time():
                return token
            raise
        expires_at: datetime = found.expires_at
        return _Token(found.token, expires_at.timestamp())
