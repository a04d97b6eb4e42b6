"""The token of an account, in each request to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.errors import ConfigError
from automate_kernel.operations.context import SecretReader
from automate_mcp.config import OAuthSettings

if TYPE_CHECKING:
    import httpx2

    from automate_http import Credentials, OAuth2, OAuthAccount


def accounts_of(key: str, url: str, settings: OAuthSettings) -> OAuth2:
    """Return the accounts of the plugin *key* at the authorization server of *url*."""
    try:
        from automate_http import OAuth2, OAuthServer
    except ImportError:
        raise ConfigError(
            "OAuth needs automate-http", hint="pip install 'automate-kernel-mcp[oauth]'"
        ) from None

    def discover(redirect_uri: str) -> OAuthServer:
        from automate_mcp.discovery import find_server

        return find_server(url, settings, redirect_uri)

    return OAuth2(
        f"mcp.{key}",
        plugin=key,
        discover=discover,
        client_secret=settings.client_secret,
        shared=settings.shared,
        allow_private_networks=settings.networks_for(url),
        allow_plain_http=settings.allow_plain_http,
    )


class RequestSigning:
    """Writes the token of *account* into requests; a worker never asks a person."""

    def __init__(self, account: OAuthAccount, secrets: SecretReader) -> None:
        self._account, self._secrets = account, secrets

    @property
    def hint(self) -> str:
        """The remedy where the server refuses the token."""
        return self._account.hint

    async def sign(self, request: httpx2.Request) -> Credentials:
        """Add the token to *request*, renewed if it is about to expire."""
        found = await self._account.credentials(self._secrets)
        request.headers.update(found.headers)
        return found

    async def renew(self, used: Credentials) -> bool:
        """Return True if the token differs from the refused token."""
        return await self._account.renew(self._secrets, used)
