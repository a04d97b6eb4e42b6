"""Credentials by a document's security schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from automate_http import (
    AllOf,
    Auth,
    BasicAuth,
    BearerAuth,
    CookieAuth,
    HeaderAuth,
    OAuth2,
    QueryAuth,
)
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_openapi.config import OpenApiConfig, SchemeAuth
from automate_openapi.document import ApiDocument, BrokenReferenceError, is_url, mapping
from automate_openapi.names import OperationPlace

_TOLD_HERE = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "oauth2": {"type": "oauth2"},
}


class Security:
    """The security schemes of a *document* with the credentials of the *config*."""

    def __init__(self, document: ApiDocument, config: OpenApiConfig) -> None:
        self._document, self._config = document, config
        components = mapping(document.content.get("components"))
        self._schemes = mapping(components.get("securitySchemes"))
        for name, given in config.auth.items():
            if given.type is None and name not in self._schemes:
                known = ", ".join(sorted(self._schemes)) or "none"
                raise ConfigError(
                    f"auth: the document has no security scheme {name!r}",
                    hint=f"it has: {known}; or describe it here with type",
                )

    def chosen(self, place: OperationPlace) -> tuple[str, ...]:
        """
        Return the schemes to use for an action: of its alternatives the first that is configured.

        Raises ``UNAUTHENTICATED`` if there is none, before anything is sent.
        """
        told = place.operation.get("security", self._document.content.get("security"))
        if not isinstance(told, list):
            return tuple(self._config.auth)
        alternatives = [tuple(each) for each in told if isinstance(each, Mapping)]
        for names in sorted(alternatives, key=lambda names: not names):
            if names and all(name in self._config.auth for name in names):
                return names
        described = tuple(n for n, each in self._config.auth.items() if n not in self._schemes)
        optional = () in alternatives or not alternatives
        if optional and self._schemes:
            return ()  # its author knows schemes, and wants none here
        if described or optional:
            return described
        wanted = " or ".join(" with ".join(names) for names in alternatives)
        raise AutomateError(
            ErrorCodes.UNAUTHENTICATED,
            f"the service wants credentials, and none are configured: {wanted}",
            hint=f"set auth.{alternatives[0][0]} in the connector's config",
        )

    def auth(self, names: Sequence[str], base_url: str) -> Auth | None:
        """Return the credentials for a service at *base_url*."""
        if not names:
            return None
        return AllOf([self._auth(name, self._config.auth[name], base_url) for name in names])

    def _auth(self, name: str, given: SchemeAuth, base_url: str) -> Auth:
        scheme = self._scheme(name, given)
        kind, key = scheme.get("type"), given.secret
        if kind in ("oauth2", "openIdConnect"):
            return (
                BearerAuth(key) if key is not None else self._oauth(name, given, scheme, base_url)
            )
        if key is None:
            raise _wrong(name, "takes a secret, and no client_id")
        if kind == "apiKey":
            return _key_auth(name, scheme, key)
        word = str(scheme.get("scheme", "")).lower()
        if kind == "http" and word == "basic":
            if given.user is None:
                raise _wrong(name, "needs user, the user's name")
            return BasicAuth(given.user, key)
        if kind == "http" and word == "bearer":
            return BearerAuth(key)
        raise _wrong(
            name, f"is of the type {str(kind)[:40]!r} {word[:40]!r}, which isn't supported"
        )

    def _scheme(self, name: str, given: SchemeAuth) -> Mapping[str, Any]:
        if given.type is None:
            try:
                return self._document.resolved(self._schemes[name], self._document.place)[0]
            except BrokenReferenceError as problem:
                raise _wrong(name, str(problem)) from None
        told = _TOLD_HERE.get(given.type)
        return told or {"type": "apiKey", "in": given.type, "name": given.name}

    def _oauth(
        self, name: str, given: SchemeAuth, scheme: Mapping[str, Any], base_url: str
    ) -> Auth:
        flow = mapping(mapping(scheme.get("flows")).get("clientCredentials"))
        url = given.token_url or flow.get("tokenUrl")
        if not isinstance(url, str):
            raise _wrong(name, "has no flow for client credentials; give token_url, or a secret")
        from_web = is_url(self._document.place)
        hosts = {_host(each) for each in (base_url, self._document.place)}
        if given.token_url is None and from_web and _host(url) not in hosts:
            raise _wrong(name, "has its token_url on another host; if it is right, give it here")
        return OAuth2(
            f"openapi.{name}",
            token_url=url,
            client_id=given.client_id or "",
            client_secret=given.client_secret,
            scopes=given.scopes,
            allow_private_networks=self._config.allow_private_networks,
            allow_plain_http=self._config.allow_plain_http,
            ca_file=self._config.ca_file,
        )


def _key_auth(name: str, scheme: Mapping[str, Any], key: str) -> Auth:
    place, field = scheme.get("in"), str(scheme.get("name", ""))
    if place == "header":
        return HeaderAuth(field, key)
    if place == "query":
        return QueryAuth(field, key)
    if place == "cookie":
        return CookieAuth(field, key)
    raise _wrong(name, "has its key in no known place")


def _host(url: str) -> str | None:
    """Return the host of *url* with its port; None if it can't be read."""
    try:
        return urlsplit(url).netloc
    except ValueError:  # "https://[nowhere"
        return None


def _wrong(name: str, problem: str) -> ConfigError:
    return ConfigError(f"auth: the scheme {name!r} {problem}")
