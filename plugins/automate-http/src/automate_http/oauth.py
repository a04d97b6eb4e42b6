"""OAuth 2 for clients: the accounts of an application and of its tenants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from automate_http.auth import Auth, Credentials
from automate_http.oauth_account import (
    ClientAuthentication,
    OAuthAccount,
    OAuthClient,
    OAuthServer,
    need_authlib,
)
from automate_kernel.base.errors import ConfigError
from automate_kernel.operations.account import AccountStatus, Consent
from automate_kernel.operations.context import SecretReader, current_call

_MOST_TENANTS = 1_000


class OAuth2(Auth):
    """
    Tokens of OAuth 2, kept under the secret *key* in a backend that can be written to.

    With *authorize_url* a person connects an account (`begin`, `finish`, ``automate connect``):
    the authorization code grant, with PKCE and state. Without it the client has a token of its own
    by the client credentials grant, which is kept in memory.

    A person's account is connected once for the application, and once for each tenant. A call takes
    that of its tenant, and no other; with *shared* the application's, if the tenant has none.

    A token is renewed *skew_seconds* before it expires, or at half its life if that is later, and
    once when a service refuses it. Of many threads and processes one does so, under a lock of the
    backend, and the others take what it got. *client_secret* is the key of a secret; a client
    without one is public.

    Without *token_url* and *client_id*, *discover* finds the server for a redirect URI when a
    person connects an account. *plugin* is the key of the plugin, for the hint of errors.
    """

    def __init__(
        self,
        key: str,
        *,
        plugin: str | None = None,
        token_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        authorize_url: str | None = None,
        discover: Callable[[str], OAuthServer] | None = None,
        shared: bool = False,
        scopes: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        client_authentication: ClientAuthentication = "client_secret_basic",
        skew_seconds: float = 60.0,
        allow_private_networks: bool | list[str] = False,
        allow_plain_http: bool = False,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        need_authlib()
        if isinstance(scopes, str):  # its letters would be the scopes
            raise ConfigError(
                "OAuth 2: scopes is a list of texts", hint=f"write scopes={scopes.split()!r}"
            )
        server = None
        if token_url and client_id:
            server = OAuthServer(token_url, client_id, authorize_url, tuple(scopes))
        self._client = OAuthClient(
            plugin=plugin,
            server=server,
            discover=discover,
            client_secret=client_secret,
            client_authentication=client_authentication if client_secret is not None else "none",
            extra=dict(extra or {}),
            skew_seconds=skew_seconds,
            networks=allow_private_networks,
            allow_plain_http=allow_plain_http,
            ca_file=ca_file,
            clock=clock,
        )
        self._shared = shared
        self._application = OAuthAccount(key, self._client)
        self._tenants: dict[str, OAuthAccount] = {}
        self.hint = self._application.hint

    def __repr__(self) -> str:
        return f"<OAuth2 {self.key!r} at {self._client.place}>"

    @property
    def key(self) -> str:
        """The key of the secret in which the application's tokens are kept."""
        return self._application.key

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the secrets that `finish` reads: that of the client, if it has one."""
        return self._application.needs

    def for_tenant(self, tenant_id: str | None) -> OAuthAccount:
        """Return the account of a tenant, whoever calls; for None the application's."""
        if tenant_id is None or not self._client.is_persons:
            return self._application
        found = self._tenants.get(tenant_id)
        if found is None:
            if len(self._tenants) >= _MOST_TENANTS:
                self._tenants = {}
            mine = OAuthAccount(self.key, self._client, tenant_id)
            found = self._tenants.setdefault(tenant_id, mine)
        return found

    def for_call(self, secrets: SecretReader) -> OAuthAccount:
        """Return the account that the current call takes: its tenant's, or as *shared* says."""
        call = current_call()
        account = self.for_tenant(call.tenant_id if call is not None else None)
        if self._shared and account is not self._application and not account.is_kept(secrets):
            return self._application
        return account

    # -- the application's -------------------------------------------------------------------

    def begin(self, redirect_uri: str) -> Consent:
        """Return the question to a person, with a state and a proof key (PKCE) of its own."""
        return self._application.begin(redirect_uri)

    def finish(
        self, consent: Consent, answer_url: str, secrets: SecretReader, *, by: str = ""
    ) -> None:
        """Change the code in the answer into tokens, and store them."""
        self._application.finish(consent, answer_url, secrets, by=by)

    def status(self, secrets: SecretReader) -> AccountStatus:
        """Return the state of the connection, without a request to the service."""
        return self._application.status(secrets)

    def disconnect(self, secrets: SecretReader) -> None:
        """Delete the tokens. A renewal that is under way ends before."""
        self._application.disconnect(secrets)

    # -- sending -----------------------------------------------------------------------------

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Return the access token of the call's account, renewed if it is about to expire."""
        return await (await self._chosen(secrets)).credentials(secrets)

    async def renew(self, secrets: SecretReader, used: Credentials) -> bool:
        """Return True if the token differs from the refused token."""
        return await (await self._chosen(secrets)).renew(secrets, used)

    async def _chosen(self, secrets: SecretReader) -> OAuthAccount:
        if not self._shared:
            return self.for_call(secrets)
        return await asyncio.to_thread(self.for_call, secrets)
