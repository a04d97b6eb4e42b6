"""OpenID Connect: people log in at a provider, by the code flow with PKCE, state and nonce."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlsplit

from automate_kernel.base.arguments import check_address, check_table
from automate_kernel.base.errors import ConfigError
from automate_kernel.kernel import Kernel
from automate_kernel.operations.timed_calls import TimedCalls
from automate_kernel.secrets.logs import get_logger
from automate_pages.users import ROLES, User, roles_from

logger: logging.Logger = get_logger(__name__)

T = TypeVar("T")

_TIMEOUT_SECONDS = 10.0
# A limit for each read sees no end of an answer that drips.
_ALL_SECONDS = 20.0
# Log-ins that the provider keeps waiting beyond that; more are refused at once.
_MOST_WAITING = 10
_METADATA_SECONDS = 3600.0
_LARGEST, _PART = 1_000_000, 16_384  # bytes of an answer
# No HS256, which a client's secret would sign, and no "none".
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
               "EdDSA"]  # fmt: skip
_LEEWAY_SECONDS = 60


class OidcError(Exception):
    """A log-in that the provider, or our check of its answer, has refused; the text is for logs."""


@dataclass(frozen=True, slots=True)
class OidcPerson:
    """A person whom the provider knows: the user, and the provider's own id of it."""

    user: User
    subject: str


class CodeFlow:
    """The secrets of one log-in: all follow from *secret*, which the browser alone keeps."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self.state, self.nonce, self.verifier = map(self._part, ("state", "nonce", "verifier"))

    def _part(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), sha256).hexdigest()


class Oidc:
    """
    A provider of OpenID Connect, for `LogIn`: *issuer* is its address, as in its metadata.

    *client_secret* may be ``$secret:KEY``. *public_url* is the address of the pages as people reach
    them; the provider must know ``PUBLIC_URL/log-in/oidc/callback`` as a redirect address. *roles*
    maps the values of a claim to roles: ``{"groups": {"ops": "operator"}}``; who has none of our
    roles is not let in. With *tenant*, the name of a claim, a user sees the rows of that tenant
    alone, and nobody is let in without it. *name* is the claim with the user's name. It needs
    ``automate-kernel[oidc]``. Raises `ConfigError`.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        *,
        public_url: str,
        roles: Mapping[str, Mapping[str, str]],
        tenant: str | None = None,
        name: str = "preferred_username",
        scope: str = "openid profile email",
        label: str = "single sign-on",
    ) -> None:
        self._issuer = _address(issuer, "issuer").rstrip("/")
        self.public_url: str = _address(public_url, "public_url").rstrip("/")
        """The address of the pages, as people reach them."""
        self.label: str = label
        """The words of the button."""
        example = '{"groups": {"ops": "operator"}}'
        self._roles = check_table(roles, "roles", example, of=Mapping)
        given = {role for mapping in self._roles.values() for role in mapping.values()}
        if not given & set(ROLES):
            raise ConfigError(
                "with these roles nobody could log in",
                hint=f"map values of a claim to {', '.join(ROLES)}: {example}",
            )
        self._client_id, self._client_secret = client_id, client_secret
        self._tenant, self._name, self._scope = tenant, name, scope
        self._known: tuple[float, dict[str, Any]] | None = None
        self._calls = TimedCalls(_MOST_WAITING)
        _library()

    @property
    def callback(self) -> str:
        """The address that the provider sends people back to, whatever ``Host`` says."""
        return f"{self.public_url}/log-in/oidc/callback"

    def begin(self, kernel: Kernel, flow: CodeFlow) -> str:
        """Return the provider's address to send a browser to; raises `OidcError`."""

        def work() -> str:
            with self._session(kernel) as session:
                where = self._metadata(session)["authorization_endpoint"]
                address, _ = session.create_authorization_url(
                    where, state=flow.state, nonce=flow.nonce, code_verifier=flow.verifier
                )
                return str(address)

        return self._in_time(work)

    def finish(self, kernel: Kernel, flow: CodeFlow, query: Mapping[str, str]) -> OidcPerson:
        """Return the person with whom the provider answered; raises `OidcError`."""
        if not hmac.compare_digest(query.get("state", "").encode(), flow.state.encode()):
            raise OidcError("the state is not that of this browser")
        if query.get("error"):
            raise OidcError(f"the provider says {query['error'][:100]}")
        # RFC 9207: the answer of another provider is none of this one.
        if query.get("iss", self._issuer).rstrip("/") != self._issuer:
            raise OidcError("the answer is of another issuer")
        claims = partial(self._claims, kernel, flow, query.get("code", ""))
        return self._in_time(lambda: self._person(claims()))

    def _in_time(self, work: Callable[[], T]) -> T:
        """Return the result of *work*, which asks the provider; raises `OidcError`."""
        try:
            result: T = self._calls.run(work, _ALL_SECONDS)
        except OidcError:
            raise
        except Exception as error:
            # The libraries' own, of the network, of tokens, of keys. Their text may quote a token.
            raise OidcError(f"the provider can't be understood: {type(error).__name__}") from None
        return result

    def _claims(self, kernel: Kernel, flow: CodeFlow, code: str) -> Mapping[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        with self._session(kernel) as session:
            metadata = self._metadata(session)
            token = session.fetch_token(
                metadata["token_endpoint"], code=code, code_verifier=flow.verifier,
                timeout=_TIMEOUT_SECONDS, allow_redirects=False, stream=True,
            )  # fmt: skip
            jwks: Any = _json(session, metadata["jwks_uri"])
            keys = KeySet.import_key_set(jwks)
        try:
            found = jwt.decode(str(token.get("id_token", "")), keys, algorithms=_ALGORITHMS)
            claims = CodeIDToken(
                found.claims, found.header,
                {"iss": {"essential": True, "value": metadata["issuer"]}},
                {"nonce": flow.nonce, "client_id": self._client_id,
                 "access_token": token.get("access_token")},
            )  # fmt: skip
            claims.validate(leeway=_LEEWAY_SECONDS)
        except JoseError as error:  # in our libraries' own words
            raise OidcError(f"the token is refused: {error}") from None
        audience = found.claims.get("aud")
        if self._client_id not in (audience if isinstance(audience, list) else [audience]):
            raise OidcError("the token is for another client")
        return dict(found.claims)

    def _person(self, claims: Mapping[str, Any]) -> OidcPerson:
        subject = str(claims["sub"])
        roles: set[str] = set()
        for claim, mapping in self._roles.items():
            roles |= roles_from(_texts(claims.get(claim)), mapping)
        tenant = None if self._tenant is None else claims.get(self._tenant)
        if self._tenant is not None and (not isinstance(tenant, str) or not tenant):
            raise OidcError(f"{subject} has no claim {self._tenant!r}, which says the tenant")
        if self._name == "email" and claims.get("email_verified") is False:
            raise OidcError(f"the e-mail address of {subject} is not verified")
        name = claims.get(self._name)
        user = User(str(name if isinstance(name, str) and name else subject)[:200], roles, tenant)
        if not user.may("view"):
            raise OidcError(f"{subject} has none of our roles")
        return OidcPerson(user, subject)

    def _session(self, kernel: Kernel) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        secret = self._client_secret
        if secret.startswith("$secret:"):
            secret = kernel.secrets.get(secret.removeprefix("$secret:"))
        else:
            kernel.redactor.add(secret)
        session = OAuth2Session(
            self._client_id, secret or None, scope=self._scope, redirect_uri=self.callback,
            code_challenge_method="S256", default_timeout=_TIMEOUT_SECONDS,
        )  # fmt: skip
        session.hooks["response"].append(_bound)
        return session

    def _metadata(self, session: Any) -> dict[str, Any]:
        known = self._known
        # Without a lock: one that the provider keeps waiting must not hold up the others.
        if known is None or known[0] < time.monotonic():
            where = f"{self._issuer}/.well-known/openid-configuration"
            try:
                found = _json(session, where)
            except OidcError:
                raise
            except Exception as error:
                raise OidcError(f"{where}: {type(error).__name__}") from None
            if str(found.get("issuer", "")).rstrip("/") != self._issuer:
                raise OidcError(f"{where} is the metadata of another issuer")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if urlsplit(str(found.get(name, ""))).scheme not in self._schemes:
                    raise OidcError(f"{where} has no usable {name}")
            known = self._known = time.monotonic() + _METADATA_SECONDS, found
        return known[1]

    @property
    def _schemes(self) -> tuple[str, ...]:
        return ("https",) if self._issuer.startswith("https:") else ("https", "http")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _json(session: Any, address: str) -> dict[str, Any]:
    """Return the JSON object at *address*, of a bounded size, from there and nowhere else."""
    from automate_kernel.storage.values import read_json

    with session.request(
        "GET", address, withhold_token=True, timeout=_TIMEOUT_SECONDS, allow_redirects=False,
        stream=True,
    ) as answer:  # fmt: skip
        if answer.status_code != 200:
            raise OidcError(f"{address} answers with status {answer.status_code}")
        body = answer.content
    found = read_json(body)
    if not isinstance(found, dict):
        raise OidcError(f"{address} is no JSON object")
    return found


def _bound(answer: Any, **_: Any) -> Any:
    """Read no more of an *answer* than it may have, nor for longer than it may take."""
    until, body = time.monotonic() + _ALL_SECONDS, bytearray()
    # Of what has come, where urllib3 can: else until a part is full.
    read = getattr(answer.raw, "read1", answer.raw.read)
    while part := read(_PART, decode_content=True):
        body += part
        if len(body) > _LARGEST or time.monotonic() > until:
            answer.close()
            raise OidcError("the provider answers with too much, or too slowly")
    answer.close()
    answer.raw = BytesIO(body)
    return answer


def _address(given: str, name: str) -> str:
    found = check_address(given, name)
    if found is None:
        raise ConfigError(f"Oidc needs its {name}", hint=f'{name}="https://sso.example.com"')
    parts = urlsplit(found)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(f"{name} must begin with https://, but for this machine itself")
    return found


def _library() -> None:
    try:
        import authlib  # noqa: F401
        import requests  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"OpenID Connect needs {error.name}", hint='pip install "automate-kernel[oidc]"'
        ) from None
