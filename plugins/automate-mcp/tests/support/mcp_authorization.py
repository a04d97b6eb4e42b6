"""An authorization server, made of the SDK's own, with signed tokens and a person who agrees."""

from __future__ import annotations

import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server.auth.provider import (
    AuthorizationCode,
    AuthorizationParams,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class AuthorizationService:
    """*person* and *claims* are those of who agrees next; the rest is what was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.person = "ann"
        self.claims: dict[str, Any] = {}
        self.lifetime_seconds = 3600
        self.grants: list[str] = []
        self.key_reads = 0
        self.registers = True
        self.is_down = False
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, tuple[AuthorizationCode, dict[str, Any]]] = {}
        self.refreshers: dict[str, tuple[RefreshToken, dict[str, Any]]] = {}
        self.tokens: list[str] = []
        self.new_key("first")

    def new_key(self, kid: str) -> None:
        """Sign with another key from now on, and name no older one."""
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid

    def public_key(self) -> dict[str, Any]:
        """The key by which its tokens are checked, as it is published."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "use": "sig"}

    def app(self) -> Any:
        options = ClientRegistrationOptions(enabled=self.registers)
        routes = create_auth_routes(self, AnyHttpUrl(self.url), client_registration_options=options)
        metadata = next(each for each in routes if "well-known" in each.path)
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "code_challenge_methods_supported": ["S256"],
            **({"registration_endpoint": f"{self.url}/register"} if self.registers else {}),
        }

        async def describe(request: Request) -> JSONResponse:
            return JSONResponse(told)

        async def keys(request: Request) -> JSONResponse:
            self.key_reads += 1
            if self.is_down:
                return JSONResponse({}, 503)
            return JSONResponse({"keys": [self.public_key()]})

        others = [each for each in routes if each is not metadata]
        return Starlette(routes=[Route(metadata.path, describe), Route("/keys", keys), *others])

    def token(self, resource: str | None, scopes: list[str], **claims: Any) -> str:
        """A signed token; *claims* replace its own, and None leaves one out."""
        now = int(time.time())
        whole = {
            "iss": self.url, "aud": resource, "sub": self.person, "scope": " ".join(scopes),
            "iat": now, "exp": now + self.lifetime_seconds, "jti": secrets.token_hex(8),
            **claims,
        }  # fmt: skip
        kept = {name: value for name, value in whole.items() if value is not None}
        made = jwt.encode(kept, self.key, "ES256", headers={"kid": self.kid})
        self.tokens.append(made)
        return made

    # -- what the SDK's server asks for --------------------------------------------------------

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        code = AuthorizationCode(
            code=secrets.token_hex(16), scopes=params.scopes or [], expires_at=time.time() + 60,
            client_id=client.client_id, code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri, resource=params.resource,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
        )  # fmt: skip
        self.codes[code.code] = code, {"sub": self.person, **self.claims}
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(self, client: Any, code: str) -> AuthorizationCode | None:
        return self.codes[code][0] if code in self.codes else None

    async def exchange_authorization_code(self, client: Any, code: Any) -> OAuthToken:
        self.grants.append("authorization_code")
        _, claims = self.codes.pop(code.code)
        return self._pair(client, code.resource, code.scopes, claims)

    async def load_refresh_token(self, client: Any, token: str) -> RefreshToken | None:
        return self.refreshers[token][0] if token in self.refreshers else None

    async def exchange_refresh_token(self, client: Any, token: Any, scopes: Any) -> OAuthToken:
        self.grants.append("refresh_token")
        if self.is_down:
            raise TokenError("invalid_grant")
        _, claims = self.refreshers.pop(token.token)
        return self._pair(client, token.resource, token.scopes, claims)

    def _pair(self, client: Any, resource: Any, scopes: Any, claims: Any) -> OAuthToken:
        refresher = RefreshToken(
            token=f"refresh-{secrets.token_hex(16)}", client_id=client.client_id, scopes=scopes,
            resource=resource,
        )  # fmt: skip
        self.refreshers[refresher.token] = refresher, claims
        self.tokens.append(refresher.token)
        return OAuthToken(
            access_token=self.token(resource, scopes, **claims), scope=" ".join(scopes),
            expires_in=self.lifetime_seconds, refresh_token=refresher.token,
        )  # fmt: skip

    async def load_access_token(self, token: str) -> None:
        return None

    async def revoke_token(self, token: Any) -> None:
        self.refreshers.clear()
