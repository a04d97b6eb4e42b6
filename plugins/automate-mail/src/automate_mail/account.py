"""Accounts: logins by OAuth 2, at services that take no passwords any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from automate_kernel.base.errors import ConfigError
from automate_kernel.base.hosts import is_loopback
from automate_kernel.secrets.keys import SecretKey

if TYPE_CHECKING:
    from automate_http.oauth_account import OAuthAccount

_MICROSOFT = "https://login.microsoftonline.com/{directory}/oauth2/v2.0"
_OUTLOOK = "https://outlook.office.com"
_URLS = {
    "microsoft": (f"{_MICROSOFT}/authorize", f"{_MICROSOFT}/token"),
    "google": (
        "https://accounts.google.com/o/oauth2/v2/auth",
        "https://oauth2.googleapis.com/token",
    ),
}
# Without the first no refresh token comes.
_SCOPES = {
    "microsoft": {
        "": ["offline_access"],
        "smtp": [f"{_OUTLOOK}/SMTP.Send"],
        "imap": [f"{_OUTLOOK}/IMAP.AccessAsUser.All"],
    },
    "google": {"": ["https://mail.google.com/"]},
}
_EXTRA = {"google": {"access_type": "offline", "prompt": "consent"}}
_SERVERS: dict[str, dict[str, dict[str, Any]]] = {
    "microsoft": {
        "smtp": {"host": "smtp.office365.com", "tls": "starttls"},
        "imap": {"host": "outlook.office365.com"},
    },
    "google": {"smtp": {"host": "smtp.gmail.com"}, "imap": {"host": "imap.gmail.com"}},
}


class MailOAuth(BaseModel):
    """The account that a person connects with ``automate connect``; its tokens are renewed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["microsoft", "google"] | None = Field(
        None, description="The service, whose addresses and scopes are known."
    )
    user: str = Field(min_length=1, description="The mailbox's address.")
    client_id: str = Field(min_length=1, description="The client, as the service knows it.")
    client_secret: SecretKey | None = Field(
        None, description="The key of the secret of the client, if it has one."
    )
    directory: str = Field(
        "common",
        pattern=r"^[A-Za-z0-9.-]{1,100}$",
        description="Of Microsoft: the directory (tenant) in which the client is registered.",
    )
    authorize_url: str | None = Field(None, description="The page that asks a person.")
    token_url: str | None = Field(None, description="The address that gives tokens.")
    scopes: list[str] = Field(default=[], description="The scopes to ask for.")

    @model_validator(mode="after")
    def _check(self) -> MailOAuth:
        if self.provider is None and not (self.authorize_url and self.token_url):
            raise ValueError("oauth needs a provider, or authorize_url and token_url")
        return self

    def account(self, key: str, *, plugin: str, servers: list[str]) -> OAuthAccount:
        """Return the account whose tokens are kept under the secret *key*, for these *servers*."""
        try:
            from automate_http import OAuth2
        except ImportError:
            raise ConfigError(
                "mail by OAuth 2 needs automate-http", hint="pip install 'automate-mail[oauth]'"
            ) from None
        authorize_url, token_url = self._urls()
        host = urlsplit(token_url).hostname or ""
        return OAuth2(
            key,
            plugin=plugin,
            authorize_url=authorize_url,
            token_url=token_url,
            client_id=self.client_id,
            client_secret=self.client_secret,
            client_authentication="client_secret_post",
            scopes=self.scopes or self._known_scopes(servers),
            extra=_EXTRA.get(self.provider or ""),
            # Who names this machine means it.
            allow_private_networks=[host] if is_loopback(host) else False,
        ).for_tenant(None)

    def _urls(self) -> tuple[str, str]:
        known = [
            each.format(directory=self.directory) for each in _URLS.get(self.provider or "", ())
        ]
        authorize_url, token_url = known or ("", "")
        return self.authorize_url or authorize_url, self.token_url or token_url

    def _known_scopes(self, servers: list[str]) -> list[str]:
        known = _SCOPES.get(self.provider or "", {})
        return [scope for name in ("", *servers) for scope in known.get(name, [])]


def with_known_servers(config: Any) -> Any:
    """Return *config* with what is known of the servers of its ``oauth``; its own words win."""
    oauth = config.get("oauth") if isinstance(config, Mapping) else None
    if isinstance(oauth, MailOAuth):
        oauth = oauth.model_dump()
    if not isinstance(oauth, Mapping):
        return config
    known = _SERVERS.get(str(oauth.get("provider")), {})
    named = {name for name in ("smtp", "imap") if config.get(name) is not None}
    found = dict(config)
    for name in named or known:
        given = config.get(name) or {}
        if isinstance(given, Mapping) and "secret" not in given:
            mine = {"user": oauth.get("user"), "auth": "xoauth2"}
            found[name] = {**known.get(name, {}), **mine, **given}
    return found
