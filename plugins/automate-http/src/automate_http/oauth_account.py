"""
One account of OAuth 2: tokens that are asked for, kept, renewed and sent.

The grants' messages are written and read by Authlib, which comes with the extra ``oauth``. Its own
HTTP clients aren't used: the requests go through the guard as all others do.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import secrets as random
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx

from automate_http.addresses import AddressPolicy
from automate_http.auth import Auth, Credentials
from automate_http.body import ACCEPT_ENCODING
from automate_http.exchange import Bounds, Reply, exchange
from automate_http.failures import failure_of
from automate_http.guard import Guard, origin
from automate_http.transports import Transports
from automate_http.urls import parse_base_url, require_encrypted
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, SecretNotFoundError
from automate_kernel.operations.account import AccountStatus, Consent, tenant_account_key
from automate_kernel.operations.context import SecretReader
from automate_kernel.secrets import Redactor, SecretResolver, WritableSecretsBackend
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)

ClientAuthentication = Literal["client_secret_basic", "client_secret_post", "none"]

_SECONDS, _MOST_BYTES = 30.0, 65_536
_LONGEST_TOKEN, _LONGEST_ERROR, _TOKEN_LEVELS = 16_384, 500, 3
# What a request has that proves a person's consent, and a renewal.
_ONCE = frozenset({"code", "code_verifier", "refresh_token"})
# Between two attempts to store tokens that could not be stored.
_SAVE_SECONDS = 5.0
# GitHub and Slack refuse with 200, and in words of their own.
_REFUSED = frozenset({200, 400, 401, 403})
_ENDED = frozenset({"invalid_grant", "access_denied", "bad_refresh_token", "invalid_refresh_token"})
_WRONG_CLIENT = frozenset(
    {
        "invalid_client", "unauthorized_client", "incorrect_client_credentials",
        "bad_client_secret", "invalid_client_id",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OAuthServer:
    """
    An authorization server, and the client as it knows it. Nothing here is a secret.

    Answers of a server with an *issuer* are taken from that one alone (RFC 9207); with
    *names_itself* they have to say so. *resource* is what the tokens are for (RFC 8707).
    """

    token_url: str
    client_id: str
    authorize_url: str | None = None
    scopes: tuple[str, ...] = ()
    issuer: str | None = None
    names_itself: bool = False
    resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """The settings that the accounts of all tenants share; see `automate_http.OAuth2`."""

    plugin: str | None
    server: OAuthServer | None
    discover: Callable[[str], OAuthServer] | None
    client_secret: str | None
    client_authentication: ClientAuthentication
    extra: Mapping[str, str]
    skew_seconds: float
    networks: bool | list[str]
    allow_plain_http: bool
    ca_file: str | None
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        if self.server is not None:
            self.checked(self.server)
        elif self.discover is None:
            raise ConfigError("OAuth 2 needs token_url and client_id", hint="or discover")

    @property
    def is_persons(self) -> bool:
        """True if a person connects accounts; else the client has a token of its own."""
        return self.server is None or self.server.authorize_url is not None

    @property
    def place(self) -> str:
        """The server, as far as it is known before an account is connected."""
        return "a server to be found" if self.server is None else _place(self.server)

    def found(self, redirect_uri: str) -> OAuthServer:
        """Return the server to ask, which may have to be found first."""
        if self.server is not None:
            return self.server
        if self.discover is None:
            raise RuntimeError("neither a server nor a way to find it")
        return self.checked(self.discover(redirect_uri))

    def checked(self, server: OAuthServer) -> OAuthServer:
        """Return *server* if its URLs may be used; raises `ConfigError`."""
        for url in (server.token_url, server.authorize_url):
            if url is not None:
                require_encrypted(parse_base_url(url), allow_plain_http=self.allow_plain_http)
        return server


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of an account, as they are kept."""

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    scope: str | None = None
    connected_by: str = ""
    connected_at: str = ""
    revoked: bool = False
    """True once the service refused the refresh token: a person has to connect again."""
    error: str = ""
    """The last failure to renew them, since the last success."""
    server: Mapping[str, Any] | None = None
    """The `OAuthServer` that gave them, where it was discovered."""
    lifetime: float | None = None
    """The seconds that the access token was good for when it came, if they are few."""

    def __repr__(self) -> str:
        return f"<Tokens of {self.connected_by or 'nobody'}>"

    def is_fresh(self, skew_seconds: float, now: float) -> bool:
        """Return True if the access token is good for *skew_seconds* more, or half its lifetime."""
        if self.expires_at is None:
            return True
        if self.lifetime is not None:
            # One that never lives that long would be renewed for each request.
            skew_seconds = min(skew_seconds, self.lifetime / 2)
        return self.expires_at - skew_seconds > now


class _NotConnectedError(AutomateError):
    """There are no tokens. The code alone may be that of a backend whose login was refused."""


class OAuthAccount(Auth):
    """
    One account called *name*: the application's, or that of the tenant *tenant_id*.

    `automate_http.OAuth2` makes them.
    """

    def __init__(self, name: str, client: OAuthClient, tenant_id: str | None = None) -> None:
        self._name, self._client, self._tenant_id = name, client, tenant_id
        self._key = name if tenant_id is None else tenant_account_key(name, tenant_id)
        of = f" of the tenant {tenant_id!r}" if tenant_id is not None else ""
        self._title = f"the account {name!r}{of}"
        self._guard = Guard(AddressPolicy.parse(client.networks))
        self._lock = threading.Lock()
        self._own: Tokens | None = None
        # Tokens that could not be stored, and those in whose place they belong.
        self._unsaved: tuple[Tokens, Tokens] | None = None
        self._tried_at = -math.inf
        self.hint = self._how_to_connect() if client.is_persons else "check the client's id"

    def __repr__(self) -> str:
        return f"<OAuthAccount {self._key!r} at {self._client.place}>"

    @property
    def key(self) -> str:
        """The key of the secret in which the tokens are kept."""
        return self._key

    def for_tenant(self, tenant_id: str | None) -> OAuthAccount:
        """Return this account for its own tenant; it knows no other."""
        if tenant_id != self._tenant_id:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION, f"{self._title} is not for another tenant"
            )
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of the secrets that `finish` reads: that of the client, if it has one."""
        secret = self._client.client_secret
        return () if secret is None else (secret,)

    def is_kept(self, secrets: SecretReader) -> bool:
        """Return True if it was connected, and not disconnected since."""
        try:
            _store(secrets).get_secret(self._key)
        except SecretNotFoundError:
            return False
        return True

    # -- connecting --------------------------------------------------------------------------

    def begin(self, redirect_uri: str) -> Consent:
        """Return the question to a person, with a state and a proof key (PKCE) of its own."""
        if not self._client.is_persons:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"{self._key!r} is no person's account: it has no authorize_url",
            )
        if not urlsplit(redirect_uri).scheme:
            raise ConfigError(
                "the redirect URI is no URL", hint="such as https://app.example/oauth/callback"
            )
        server, authlib = self._client.found(redirect_uri), _Authlib()
        state, verifier = random.token_urlsafe(32), random.token_urlsafe(64)
        url = authlib.prepare_grant_uri(
            server.authorize_url,
            server.client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=list(server.scopes) or None,
            state=state,
            code_challenge=authlib.create_s256_code_challenge(verifier),
            code_challenge_method="S256",
            **_resource(server),
            **self._client.extra,
        )
        private = {"state": state, "verifier": verifier}
        if server is not self._client.server:
            private["server"] = json.dumps(asdict(server))
        return Consent(url, redirect_uri, private)

    def finish(
        self, consent: Consent, answer_url: str, secrets: SecretReader, *, by: str = ""
    ) -> None:
        """Change the code in the answer into tokens, and store them."""
        store = _store(secrets)
        found = consent.private.get("server")
        told = json.loads(found) if found is not None else None
        server = self._server_of(told)
        code = self._code_in(answer_url, consent, server)
        reply = self._ask(
            secrets,
            server,
            "authorization_code",
            code=code,
            redirect_uri=consent.redirect_uri,
            code_verifier=consent.private["verifier"],
        )
        self._check(reply, secrets)
        now = datetime.fromtimestamp(self._client.clock(), timezone.utc)
        tokens = replace(
            self._tokens_in(reply),
            connected_by=by,
            connected_at=now.isoformat(timespec="seconds"),
            server=told,
        )
        with store.locked(self._key):
            self._keep(store, secrets, tokens)

    def _code_in(self, answer_url: str, consent: Consent, server: OAuthServer) -> str:
        # Authlib's own reader looks at neither a refusal nor a repeated parameter.
        found = parse_qs(urlsplit(answer_url).query)
        state = found.get("state", [])
        expected = consent.private["state"].encode()
        if len(state) != 1 or not hmac.compare_digest(state[0].encode(), expected):
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                "the answer is not one to this question: its state differs",
                hint="begin again, and use the newest page",
            )
        named = found.get("iss", [])
        is_named = server.issuer is not None and (bool(named) or server.names_itself)
        if is_named and named != [server.issuer]:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED, "the answer comes from another server"
            )
        if "error" in found:
            words = (found.get("error_description") or found["error"])[0]
            text = "".join(each if each.isprintable() else " " for each in words)[:200]
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED, f"the account was not connected: {text}"
            )
        if len(found.get("code", [])) != 1:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the answer has no code")
        return found["code"][0]

    def status(self, secrets: SecretReader) -> AccountStatus:
        """Return the state of the connection, without a request to the service."""
        try:
            tokens = self._kept(_store(secrets), secrets)
        except _NotConnectedError:
            return AccountStatus(connected=False)
        lapsed = tokens.refresh_token is None and not tokens.is_fresh(0, self._client.clock())
        return AccountStatus(
            connected=True,
            connected_by=tokens.connected_by,
            connected_at=tokens.connected_at,
            expires_at=_moment(tokens.expires_at),
            renews=tokens.refresh_token is not None and not tokens.revoked,
            ended=tokens.revoked or lapsed,
            error=tokens.error,
        )

    def disconnect(self, secrets: SecretReader) -> None:
        """Delete the tokens. A renewal that is under way ends before."""
        store = _store(secrets)
        with store.locked(self._key):
            store.delete_secret(self._key)
            self._unsaved = None

    # -- sending -----------------------------------------------------------------------------

    async def credentials(self, secrets: SecretReader) -> Credentials:
        """Return the access token, renewed if it is about to expire."""
        return _sent(await asyncio.to_thread(self._current, secrets, ()), self._key)

    def access_token(self, secrets: SecretReader, *, refused: Sequence[str] = ()) -> str:
        """
        Return the access token for a protocol other than HTTP; it blocks.

        It is renewed if it is about to expire, or is among those that were *refused*.
        """
        return self._current(secrets, refused).access_token

    async def renew(self, secrets: SecretReader, used: Credentials) -> bool:
        """Return True if the token differs from the refused token."""
        # The token is one of them: a request may carry other credentials beside it.
        tokens = await asyncio.to_thread(self._current, secrets, used.values)
        return tokens.access_token not in used.values

    def _current(self, secrets: SecretReader, refused: Sequence[str]) -> Tokens:
        """Return tokens to send, which are none of those *refused* if others can be had."""
        found = self._found(secrets, refused)
        _hide(secrets, found)  # another call may have got them, with another redactor
        return found

    def _found(self, secrets: SecretReader, refused: Sequence[str]) -> Tokens:
        if not self._client.is_persons:
            return self._own_tokens(secrets, refused)
        # Looked at before the store is: what stands there then is no older.
        store, unsaved = _store(secrets), self._unsaved
        try:
            return self._stored(store, secrets, refused, unsaved)
        except _NotConnectedError:
            self._forget(unsaved)
            raise
        except Exception:
            # What can't store them may not be able to read or to lock either.
            unsaved = self._unsaved
            if unsaved is None or not self._is_good(unsaved[1], refused):
                raise
            return unsaved[1]

    def _stored(
        self,
        store: WritableSecretsBackend,
        secrets: SecretReader,
        refused: Sequence[str],
        unsaved: tuple[Tokens, Tokens] | None,
    ) -> Tokens:
        kept, now = self._kept(store, secrets), self._client.clock()
        tokens = kept if unsaved is None else _in_force(kept, unsaved)
        if tokens is kept:
            self._forget(unsaved)
        waits = tokens is kept or 0 <= now - self._tried_at < _SAVE_SECONDS
        if waits and self._is_good(tokens, refused):
            return tokens
        self._tried_at = now
        with self._lock, store.locked(self._key):
            # Another may have done it while this one waited.
            tokens = self._saved_late(store, secrets, self._kept(store, secrets))
            return tokens if self._is_good(tokens, refused) else self._renewed(
                store, secrets, tokens, refused
            )  # fmt: skip

    def _forget(self, unsaved: tuple[Tokens, Tokens] | None) -> None:
        """Drop tokens in whose place others stand, or none."""
        if unsaved is not None:
            with self._lock:
                if self._unsaved is unsaved:
                    self._unsaved = None

    def _is_good(self, tokens: Tokens, refused: Sequence[str]) -> bool:
        if tokens.revoked:
            raise self._revoked(tokens)
        return tokens.access_token not in refused and tokens.is_fresh(
            self._client.skew_seconds, self._client.clock()
        )

    def _renewed(
        self,
        store: WritableSecretsBackend,
        secrets: SecretReader,
        tokens: Tokens,
        refused: Sequence[str],
    ) -> Tokens:
        if tokens.refresh_token is None:
            if not refused and tokens.is_fresh(0, self._client.clock()):
                return tokens
            raise self._revoked(tokens)
        try:
            server = self._server_of(tokens.server)
            reply = self._ask(secrets, server, "refresh_token", refresh_token=tokens.refresh_token)
            if reply.status in _REFUSED and _error_in(reply) in _ENDED:
                ended = replace(tokens, revoked=True, error="the service has ended the connection")
                kept = self._keep_if_same(store, secrets, tokens, ended)
                if kept.revoked:
                    raise self._revoked(kept)
                return kept
            self._check(reply, secrets)
        except AutomateError as error:
            self._note(store, secrets, tokens, error)
            # The service that renews tokens is away, and this one is good for a moment more.
            if error.retryable and not refused and tokens.is_fresh(0, self._client.clock()):
                return tokens
            raise
        new = self._tokens_in(reply)
        new = replace(
            new,
            refresh_token=new.refresh_token or tokens.refresh_token,
            scope=new.scope or tokens.scope,
            connected_by=tokens.connected_by,
            connected_at=tokens.connected_at,
            server=tokens.server,
        )
        there = tokens if self._unsaved is None else self._unsaved[0]
        return self._saved(store, secrets, there, new)

    def _saved(
        self, store: WritableSecretsBackend, secrets: SecretReader, before: Tokens, new: Tokens
    ) -> Tokens:
        """Store *new*; what can't be stored is kept here, and stored by a later call."""
        try:
            found = self._keep_if_same(store, secrets, before, new)
        except _NotConnectedError:
            raise  # disconnected meanwhile
        except Exception as error:
            # The service may take the refresh token before no more: these stand nowhere else.
            self._unsaved = before, new
            logger.warning(
                "the renewed tokens of %s can't be stored, and are lost with this process: %s",
                self._title, error if isinstance(error, AutomateError) else type(error).__name__,
            )  # fmt: skip
            return new
        self._unsaved = None
        return found

    def _saved_late(
        self, store: WritableSecretsBackend, secrets: SecretReader, kept: Tokens
    ) -> Tokens:
        """Return the tokens that count: those *kept*, or those that could not be stored before."""
        tokens = kept if self._unsaved is None else _in_force(kept, self._unsaved)
        if tokens is not kept:
            return self._saved(store, secrets, kept, tokens)
        self._unsaved = None
        return kept

    def _note(
        self,
        store: WritableSecretsBackend,
        secrets: SecretReader,
        tokens: Tokens,
        error: AutomateError,
    ) -> None:
        """Keep the reason of a failure beside the *tokens*, for those who look at `status`."""
        text = f"{error.code}: {error.message}"[:_LONGEST_ERROR]
        if text != tokens.error:
            with suppress(AutomateError):  # the failure itself is what is reported
                self._keep_if_same(store, secrets, tokens, replace(tokens, error=text))

    def _keep_if_same(
        self, store: WritableSecretsBackend, secrets: SecretReader, before: Tokens, new: Tokens
    ) -> Tokens:
        """Store *new*, unless another holder of a lock that was lost has stored its own."""
        now = self._kept(store, secrets)
        if now != before:
            return now
        self._keep(store, secrets, new)
        return new

    def _own_tokens(self, secrets: SecretReader, refused: Sequence[str]) -> Tokens:
        tokens = self._own
        if tokens is not None and self._is_good(tokens, refused):
            return tokens
        with self._lock:
            tokens = self._own
            if tokens is None or not self._is_good(tokens, refused):
                server = self._server_of(None)
                scopes = list(server.scopes) or None
                reply = self._ask(secrets, server, "client_credentials", scope=scopes)
                self._check(reply, secrets)
                tokens = self._own = self._tokens_in(reply)
            return tokens

    # -- storing -----------------------------------------------------------------------------

    def _kept(self, store: WritableSecretsBackend, secrets: SecretReader) -> Tokens:
        # Past the session of the call, in which a secret has one value: another process may have
        # renewed it.
        try:
            text = store.get_secret(self._key)
        except SecretNotFoundError:
            raise _NotConnectedError(
                ErrorCodes.UNAUTHENTICATED,
                f"{self._title} is not connected",
                hint=self._how_to_connect(),
            ) from None
        try:
            tokens = Tokens(**_known(Tokens, json.loads(text)))
        except (ValueError, TypeError):
            tokens = None
        if tokens is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the secret {self._key!r} holds no tokens",
                hint=self._how_to_connect(),
            )
        return tokens

    def _keep(self, store: WritableSecretsBackend, secrets: SecretReader, tokens: Tokens) -> None:
        _hide(secrets, tokens)
        # A process of the release before refuses fields that it doesn't know.
        told = {name: value for name, value in asdict(tokens).items() if value is not None}
        store.set_secret(self._key, json.dumps(told))

    # -- asking ------------------------------------------------------------------------------

    def _ask(self, secrets: SecretReader, server: OAuthServer, grant: str, **values: Any) -> Reply:
        """Send a token request and return its answer; blocks, on a thread without a loop."""
        authlib = _Authlib()
        secret = (
            secrets.get(self._client.client_secret)
            if self._client.client_secret is not None
            else ""
        )
        body = authlib.prepare_token_request(grant, **_resource(server), **values)
        method = self._client.client_authentication
        client = authlib.ClientAuth(server.client_id, secret, method)
        url = httpx.URL(server.token_url)
        headers = {
            "accept": "application/json",
            "accept-encoding": ACCEPT_ENCODING,
            "content-type": "application/x-www-form-urlencoded",
        }
        _, headers, body = client.prepare("POST", str(url), headers, body)
        for name in _ONCE & values.keys():
            _hide_values(secrets, values[name])  # a refusal may quote it
        content = body.encode()
        headers["content-length"] = str(len(content))
        request = httpx.Request("POST", url, headers=headers, content=content)
        reply = asyncio.run(self._exchange(request))
        # Before anything looks at the answer, whatever it turns out to be.
        _hide_values(secrets, *_tokens_of(_json_in(reply)))
        return reply

    async def _exchange(self, request: httpx.Request) -> Reply:
        transports = Transports(
            self._guard, ca_file=self._client.ca_file, owner=f"OAuth2 {self._key!r}"
        )
        try:
            # No redirects: the request holds the client's secret.
            return await exchange(transports.get(), request, Bounds(_SECONDS, _MOST_BYTES, 0))
        finally:
            await transports.aclose()

    def _tokens_in(self, reply: Reply) -> Tokens:
        found = _json_in(reply)
        access: Any = found.get("access_token")
        refresh: Any = found.get("refresh_token")
        kind = str(found.get("token_type") or "bearer").lower()
        lifetime = _seconds(found.get("expires_in"))
        is_short = lifetime is not None and lifetime / 2 < self._client.skew_seconds
        usable = _is_token(access) and (refresh is None or _is_token(refresh)) and kind == "bearer"
        if not usable:
            raise AutomateError(
                ErrorCodes.UNAVAILABLE, f"{origin(reply.url)} answered without a bearer token"
            )
        return Tokens(
            access,
            refresh or None,
            self._client.clock() + lifetime if lifetime is not None else None,
            scope=str(found["scope"])[:4_096] if found.get("scope") else None,
            lifetime=lifetime if is_short else None,
        )

    def _check(self, reply: Reply, secrets: SecretReader) -> None:
        """Raise the error in *reply*, if it says that there are no tokens."""
        told = _error_in(reply)
        if reply.status == 200 and not told:
            return
        if 300 <= reply.status < 400:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"{origin(reply.url)} redirected the request for tokens, which has the client's"
                " secret and goes nowhere else",
                hint="let token_url be the address that answers itself",
            )
        if isinstance(secrets, SecretResolver):
            redactor = secrets.redactor
        else:
            redactor = Redactor(_tokens_of(_json_in(reply)))
        error = failure_of(reply, redactor.redact)
        if reply.status == 200:
            error.code, error.retryable, error.hint = ErrorCodes.UNAVAILABLE, True, None
        if told in _WRONG_CLIENT:
            error.code, error.retryable = ErrorCodes.UNAUTHENTICATED, False
            error.hint = f"check client_id, and the secret {self._client.client_secret!r}"
        raise error

    def _revoked(self, tokens: Tokens) -> AutomateError:
        by = f" It was connected by {tokens.connected_by}" if tokens.connected_by else ""
        at = f" at {tokens.connected_at}." if by else ""
        return AutomateError(
            ErrorCodes.UNAUTHENTICATED,
            f"{_place(self._server_of(tokens.server))} has ended the connection of"
            f" {self._title}.{by}{at}",
            hint=f"a person who may use the account must connect it again: "
            f"{self._how_to_connect()}",
        )

    def _how_to_connect(self) -> str:
        # Quoted: a tenant's id may be any text, and people copy this line.
        tenant = f" --tenant {shlex.quote(self._tenant_id)}" if self._tenant_id is not None else ""
        plugin = self._client.plugin
        if plugin is not None:
            return f"automate connect {plugin}{tenant}"
        return f"automate connect PLUGIN{tenant}, for the plugin that uses {self._name!r}"

    def _server_of(self, told: Mapping[str, Any] | None) -> OAuthServer:
        """Return the server that gave tokens: that of the config, or the one kept with them."""
        if self._client.server is not None:
            return self._client.server
        given = _known(OAuthServer, told or {})
        try:
            server = OAuthServer(**{**given, "scopes": tuple(given.get("scopes", ()))})
        except TypeError:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the secret {self._key!r} doesn't say which server gave its tokens",
                hint=self._how_to_connect(),
            ) from None
        return self._client.checked(server)


class _Authlib:
    """The functions of Authlib that are used: writing messages, none that sends."""

    def __init__(self) -> None:
        try:
            from authlib.oauth2.auth import ClientAuth
            from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
            from authlib.oauth2.rfc7636 import create_s256_code_challenge
        except ImportError:
            raise ConfigError(
                "OAuth 2 needs Authlib", hint="pip install 'automate-http[oauth]'"
            ) from None
        self.ClientAuth: Any = ClientAuth
        self.prepare_grant_uri: Any = prepare_grant_uri
        self.prepare_token_request: Any = prepare_token_request
        self.create_s256_code_challenge: Any = create_s256_code_challenge


def need_authlib() -> None:
    """Raise `ConfigError` if Authlib isn't installed."""
    _Authlib()


def _place(server: OAuthServer) -> str:
    return origin(httpx.URL(server.token_url))


def _resource(server: OAuthServer) -> dict[str, str]:
    return {} if server.resource is None else {"resource": server.resource}


def _store(secrets: SecretReader) -> WritableSecretsBackend:
    if not isinstance(secrets, SecretResolver):
        raise ConfigError(
            "there is no secrets backend that can be written to",
            hint="give the plugin a context with a SecretResolver",
        )
    return secrets.writable


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of *kind* in *told*; a later release may have stored more."""
    return {each.name: told[each.name] for each in fields(kind) if each.name in told}


def _in_force(kept: Tokens, unsaved: tuple[Tokens, Tokens]) -> Tokens:
    """Return the tokens that count: those *kept*, or those that could not be stored there."""
    before, new = unsaved
    # Another process may have noted that the refresh token is used up, and nothing more.
    same = replace(kept, revoked=before.revoked, error=before.error) == before
    return new if same else kept


def _hide(secrets: SecretReader, tokens: Tokens) -> None:
    _hide_values(secrets, tokens.access_token, tokens.refresh_token)


def _hide_values(secrets: SecretReader, *values: str | None) -> None:
    if isinstance(secrets, SecretResolver):
        for value in filter(None, values):
            secrets.redactor.add(value)


def _tokens_of(answer: Any, levels: int = _TOKEN_LEVELS) -> Iterator[str]:
    """Yield the tokens of an answer by their fields: ``id_token`` too, and Slack's inner tokens."""
    for name, value in answer.items():
        if isinstance(value, str) and str(name).lower().endswith(("token", "secret")):
            yield value
        elif isinstance(value, Mapping) and levels:
            yield from _tokens_of(value, levels - 1)


def _sent(tokens: Tokens, key: str) -> Credentials:
    token = tokens.access_token
    return Credentials({"authorization": f"Bearer {token}"}, values=(token,), secret=key)


def _is_token(value: Any) -> bool:
    # RFC 6749 has printable ASCII alone, and no header can have another text.
    is_text = isinstance(value, str) and 0 < len(value) <= _LONGEST_TOKEN
    return is_text and value.isascii() and value.isprintable() and value == value.strip()


def _seconds(lifetime: Any) -> float | None:
    """Return the seconds that a token is good for, or None where nothing usable is said."""
    is_text = isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit()
    is_number = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
    if not is_text and not is_number:  # some services send text
        return None
    try:
        seconds = max(0.0, float(lifetime))
    except OverflowError:  # an integer of hundreds of digits
        return None
    return seconds if math.isfinite(seconds) else None


def _moment(seconds: float | None) -> datetime | None:
    """Return the time of *seconds* since 1970, or None for a time that no calendar has."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def _json_in(reply: Reply) -> Mapping[str, Any]:
    try:
        found = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _error_in(reply: Reply) -> str:
    """Return the service's word for its refusal; nothing beside a token."""
    found = _json_in(reply)
    return "" if found.get("access_token") else str(found.get("error") or "")
