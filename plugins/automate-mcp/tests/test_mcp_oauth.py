"""OAuth both ways: our server takes tokens of an authorization server, our client gets them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from automate_mcp import McpProvider, ServeSettings, access_tokens, discovery, mcp_app
from automate_mcp.access_tokens import AccessTokens
from automate_mcp.settings import SCOPES, Authorization
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from mcp_authorization import AuthorizationService
from mcp_support import Serving, Shop, run
from pydantic import AnyUrl

from automate_kernel import AutomateError, Kernel
from automate_kernel.base.errors import ConfigError
from automate_kernel.secrets import WritableFileSecretsBackend
from automate_testing.contracts.hostile_service import ANSWERS, hostile_service

pytest.importorskip("automate_http", reason="uv run --group plugins pytest plugins")
pytest.importorskip("authlib", reason="uv run --group plugins pytest plugins")

HERE = "http://127.0.0.1:8400/callback"


@pytest.fixture
def service() -> Iterator[AuthorizationService]:
    found = AuthorizationService()
    serving = Serving(found.app)
    found.url = f"http://127.0.0.1:{serving.port}"
    serving.start()
    yield found
    serving.stop()


@pytest.fixture
def resource(
    kernel: Kernel, shop: Shop, service: AuthorizationService, caplog: Any
) -> Iterator[Serving]:
    """The shop over HTTP, for tokens of the service; in the end no log has one."""
    caplog.set_level(logging.DEBUG)
    serving = Serving(lambda: mcp_app(kernel, settings))
    settings = ServeSettings(
        operations=["shop.*"],
        authorization=Authorization(
            issuer=service.url, resource=serving.url, tenant_claim="org", roles_claim="roles"
        ),
    )
    serving.start()
    yield serving
    serving.stop()
    for token in service.tokens:
        assert token not in caplog.text


def agree(url: str) -> str:
    """Say yes at the service's page, and return where the browser is sent."""
    return str(httpx2.get(url, follow_redirects=False).headers["location"])


class Kept:
    """What the SDK's client keeps."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


def by_sdk(url: str) -> Any:
    """The SDK's own client, with a person who agrees at once."""
    answers: list[str] = []

    async def redirect(where: str) -> None:
        async with httpx2.AsyncClient() as browser:
            answers.append(str((await browser.get(where)).headers["location"]))

    async def callback() -> AuthorizationCodeResult:
        found = parse_qs(urlsplit(answers.pop()).query)
        return AuthorizationCodeResult(code=found["code"][0], state=found["state"][0])

    metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(HERE)], client_name="sdk")
    auth = OAuthClientProvider(url, metadata, Kept(), redirect, callback)
    return streamable_http_client(url, http_client=httpx2.AsyncClient(auth=auth, timeout=30))


def with_token(url: str, token: str) -> Any:
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return streamable_http_client(url, http_client=client)


async def asked(transport: Any, tool: str = "shop_keyed", **arguments: Any) -> Any:
    async with Client(transport) as client:
        tools = {each.name for each in (await client.list_tools()).tools}
        if tool not in tools:
            return tools
        return (await client.call_tool(tool, arguments)).structured_content


def post(url: str, token: str | None) -> httpx2.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.post(url, json={}, headers=headers)


# -- out: our server is a resource server ------------------------------------------------------


def test_a_client_logs_in_by_what_the_server_says(
    resource: Serving, service: AuthorizationService
) -> None:
    """Metadata, registration, PKCE and the audience; the tenant is the token's."""
    service.claims = {"org": "acme"}
    assert run(asked(by_sdk(resource.url)))["tenant"] == "acme"
    assert service.grants == ["authorization_code"]
    claims = jwt.decode(service.tokens[-1], options={"verify_signature": False})
    assert claims["aud"] == resource.url


def test_scopes_and_tenants_are_those_of_the_token(
    resource: Serving, service: AuthorizationService
) -> None:
    """Words that are none of our scopes give nothing, ``*`` included."""
    token = service.token(resource.url, ["*", "admin", "executions:read"], org="acme")
    tools = run(asked(with_token(resource.url, token)))
    assert "shop_keyed" not in tools
    listed = service.token(resource.url, [], org="nova", scope=["operations:call"])
    assert run(asked(with_token(resource.url, listed)))["tenant"] == "nova"


def test_a_session_of_one_tenant_is_no_other_s(
    resource: Serving, service: AuthorizationService
) -> None:
    """Though both have the same name."""
    begin = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        },
    }  # fmt: skip
    headers = {"accept": "application/json, text/event-stream"}

    def send(org: str, body: Any, **more: str) -> httpx2.Response:
        token = service.token(resource.url, ["operations:call"], org=org)
        sent = {**headers, **more, "authorization": f"Bearer {token}"}
        return httpx2.post(resource.url, json=body, headers=sent)

    session = send("acme", begin).headers["mcp-session-id"]
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    more = {"mcp-session-id": session, "mcp-protocol-version": "2025-06-18"}
    assert send("acme", ping, **more).status_code == 200
    assert send("nova", ping, **more).status_code == 404


def wrongly_signed(service: AuthorizationService, url: str, way: str) -> str:
    right = service.token(url, ["operations:call"], org="acme")
    head, body, signature = right.split(".")
    claims = jwt.decode(right, options={"verify_signature": False})
    if way == "none":
        return jwt.encode(claims, None, "none", headers={"kid": service.kid})
    if way == "shared key":  # what is public, taken for a shared secret
        public = httpx2.get(f"{service.url}/keys").json()["keys"][0]["x"]
        return jwt.encode(claims, public, "HS256", headers={"kid": service.kid})
    if way == "changed":
        return f"{head}.{jwt.encode({**claims, 'org': 'x'}, 'k' * 32, 'HS256').split('.')[1]}.{signature}"
    other = AuthorizationService()
    return jwt.encode(claims, other.key, "ES256", headers={"kid": service.kid})


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "http://127.0.0.1:1/mcp"},
        {"aud": None},
        {"iss": "https://other.example"},
        {"iss": None},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": "a\nb"},
        {"org": None},
        {"org": ["acme", "nova"]},
        {"org": ""},
        "none",
        "shared key",
        "changed",
        "another's key",
        "no token at all",
        "a.b.c",
        "x" * 20_000,
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_server_is_refused(
    resource: Serving, service: AuthorizationService, change: Any
) -> None:
    """With the address of the metadata, by which a client finds out how to get a right one."""
    if isinstance(change, dict):
        claims = {"org": "acme", **change}
        audience = claims.pop("aud", resource.url)
        token = service.token(audience, ["operations:call"], **claims)
    elif "." in change or len(change) > 99 or "token" in change:
        token = change
    else:
        token = wrongly_signed(service, resource.url, change)
    answer = post(resource.url, token)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    place = f"http://127.0.0.1:{resource.port}/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{place}"' in challenge
    assert 'error="invalid_token"' in challenge
    assert "error=" not in post(resource.url, None).headers["www-authenticate"]
    metadata = httpx2.get(place).json()
    assert metadata["resource"] == resource.url
    assert metadata["authorization_servers"] == [service.url]
    assert set(metadata["scopes_supported"]) == set(SCOPES)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_new_keys_are_found_and_strangers_cause_no_flood(service: AuthorizationService) -> None:
    """A name that no key has leads to one look at the keys, however often it comes."""
    given = Authorization(issuer=service.url, resource="https://mcp.example/mcp")
    clock = Clock()
    tokens = AccessTokens(given, clock)
    assert tokens.caller(service.token(given.resource, ["operations:call"])) is not None
    stranger = AuthorizationService()
    stranger.url, stranger.kid = service.url, "unknown"
    clock.now += 11
    for _ in range(20):
        assert tokens.caller(stranger.token(given.resource, [])) is None
    assert service.key_reads == 2
    service.new_key("second")
    clock.now += 11
    assert tokens.caller(service.token(given.resource, [])) is not None


def test_a_service_that_is_away_ends_nobody_s_session(service: AuthorizationService) -> None:
    """Its keys are good for an hour; then nobody can say whose a token is, which is no refusal."""
    given = Authorization(issuer=service.url, resource="https://mcp.example/mcp")
    clock = Clock()
    tokens = AccessTokens(given, clock)
    token = service.token(given.resource, [])
    assert tokens.caller(token) is not None
    service.is_down = True
    clock.now += 3_000
    assert tokens.caller(token) is not None
    clock.now += 1_000
    with pytest.raises(AutomateError) as caught:
        tokens.caller(token)
    assert caught.value.retryable
    service.is_down = False
    clock.now += 11
    assert tokens.caller(token) is not None


def test_while_the_keys_are_away_the_answer_is_503(
    kernel: Kernel, service: AuthorizationService
) -> None:
    """401 would make a client ask its person to log in again."""
    service.is_down = True
    serving = Serving(lambda: mcp_app(kernel, settings))
    settings = ServeSettings(authorization=Authorization(issuer=service.url, resource=serving.url))
    serving.start()
    assert post(serving.url, service.token(serving.url, [])).status_code == 503
    serving.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://auth.example"},
        {"issuer": "https://u:p@auth.example"},
        {"resource": "mcp"},
        {"jwks_url": "ftp://keys"},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
    ],
)
def test_an_unsafe_authorization_is_refused(change: Any) -> None:
    given = {"issuer": "https://auth.example", "resource": "https://mcp.example/mcp", **change}
    with pytest.raises(ValueError, match=next(iter(change))):
        Authorization(**given)


# -- in: our client has an account -------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    made: list[Kernel] = []

    def make(url: str, **oauth: Any) -> Kernel:
        kernel = Kernel(
            discover=False,
            config={"far": {"url": url, "tools": ["*"], "oauth": oauth}},
            secrets=[WritableFileSecretsBackend(tmp_path / "tokens")],
        )
        kernel.register(McpProvider, key="far")
        made.append(kernel)
        return kernel

    yield make
    for kernel in made:
        kernel.close()


def connect(kernel: Kernel, tenant: str | None = None) -> None:
    account = kernel.provider("far").oauth().for_tenant(tenant)
    consent = account.begin(HERE)
    account.finish(consent, agree(consent.url), kernel.secrets, by="ada")


def failure(call: Callable[[], Any]) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        call()
    return caught.value


def keyed(kernel: Kernel, tenant: str | None = None) -> Any:
    return kernel.invoke("far.shop_keyed", tenant_id=tenant)["structured"]["tenant"]


def test_an_account_is_connected_and_used(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService, tmp_path: Path
) -> None:
    """The server's own words are enough: nothing but its URL is in the config."""
    service.claims = {"org": "acme"}
    far = make(resource.url)
    connect(far)
    assert keyed(far) == "acme"
    kept = json.loads((tmp_path / "tokens" / "mcp.far").read_text())
    assert kept["server"]["resource"] == resource.url
    assert [each.client_secret for each in service.clients.values()] == [None]
    again = make(resource.url)  # another process, which is told nothing
    assert keyed(again) == "acme"
    assert "12 tool(s)" in run(again.provider("far").check())


def test_an_account_that_is_not_connected_is_a_final_error(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """It says what to do, and no browser is opened by a worker."""
    far = make(resource.url)
    error = failure(lambda: keyed(far))
    assert (error.code, error.retryable) == ("UNAUTHENTICATED", False)
    assert error.hint == "automate connect far"
    error = failure(lambda: keyed(far, "acme"))
    assert error.hint == "automate connect far --tenant acme"
    assert service.grants == []


def test_each_tenant_calls_with_its_own_account(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """In sessions of their own; one that is disconnected is over at once."""
    far = make(resource.url)
    for tenant in ("acme", "nova"):
        service.claims = {"org": f"{tenant}-there"}
        connect(far, tenant)
    for tenant in ("acme", "nova", "acme"):
        assert keyed(far, tenant) == f"{tenant}-there"
    for other in ("other", None):
        assert failure(lambda: keyed(far, other)).code == "UNAUTHENTICATED"
    far.provider("far").oauth().for_tenant("acme").disconnect(far.secrets)
    assert failure(lambda: keyed(far, "acme")).code == "UNAUTHENTICATED"
    assert keyed(far, "nova") == "nova-there"


def test_a_shared_account_needs_a_word_in_the_config(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    service.claims = {"org": "whole"}
    far = make(resource.url, shared=True)
    connect(far)
    assert keyed(far, "acme") == "whole"


def age(far: Kernel) -> None:
    """Let the token of the account be one that has expired."""
    kept = json.loads(far.secrets.get("mcp.far"))
    far.secrets.writable.set_secret("mcp.far", json.dumps({**kept, "expires_at": 1.0}))


def test_of_many_calls_one_renews(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """A refresh token is used once, or the service ends the connection."""
    service.claims = {"org": "acme"}
    far = make(resource.url)
    connect(far)
    age(far)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: keyed(far), range(8)))
    assert found == ["acme"] * 8
    assert service.grants == ["authorization_code", "refresh_token"]


def test_a_refused_token_is_renewed_in_the_session(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """The server changed its keys: the old token is refused, and the call does well."""
    service.claims = {"org": "acme"}
    far = make(resource.url)
    connect(far)
    keyed(far)
    kept = json.loads(far.secrets.get("mcp.far"))
    wrong = service.token("http://elsewhere/mcp", ["operations:call"], org="acme")
    far.secrets.writable.set_secret("mcp.far", json.dumps({**kept, "access_token": wrong}))
    assert keyed(far) == "acme"
    assert service.grants[-1] == "refresh_token"


def test_an_ended_connection_says_who_connects_it_again(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    service.claims = {"org": "acme"}
    far = make(resource.url)
    connect(far)
    age(far)
    service.is_down = True  # it takes no refresh token
    for _ in range(2):
        error = failure(lambda: keyed(far))
        assert (error.code, error.retryable) == ("UNAUTHENTICATED", False)
        assert "connected by ada" in str(error)
        assert "automate connect far" in str(error)
    assert service.grants.count("refresh_token") == 1


def test_a_client_that_was_registered_by_hand(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """Where a server lets none register itself, the error says what to do."""
    service.claims = {"org": "acme"}
    known = make(resource.url)
    connect(known)
    (client_id,) = service.clients
    mine = make(resource.url, client_id=client_id)
    connect(mine)
    assert list(service.clients) == [client_id]
    assert keyed(mine) == "acme"


class Misleading:
    """A server whose answers are given by path."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            return
        self.asked.append(scope["path"])
        status, body = self.answers.get(scope["path"], (404, {}))
        content = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _answers(url: str, origin: str, **change: Any) -> dict[str, Any]:
    server = {
        "issuer": origin, "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token", "registration_endpoint": f"{origin}/register",
        "code_challenge_methods_supported": ["S256"], **change.get("server", {}),
    }  # fmt: skip
    resource = {"resource": url, "authorization_servers": [origin], **change.get("resource", {})}
    return {
        "/mcp": (401, {}),
        "/.well-known/oauth-protected-resource/mcp": (200, resource),
        "/.well-known/oauth-authorization-server": (200, server),
        "/register": change.get("register", (201, {"client_id": "c"})),
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        ({"server": {"code_challenge_methods_supported": None}}, "PKCE"),
        ({"server": {"issuer": "https://other.example"}}, "another's"),
        ({"server": {"registration_endpoint": None}}, "oauth.client_id"),
        ({"server": {"token_endpoint": "http://auth.example/token"}}, "not https"),
        ({"server": {"authorization_endpoint": "http://auth.example/a"}}, "not https"),
        ({"resource": {"resource": "https://bank.example/mcp"}}, "another resource"),
        ({"resource": {"authorization_servers": ["http://169.254.169.254"]}}, "not allowed"),
        ({"resource": {"authorization_servers": ["http://10.0.0.1"]}}, "not allowed"),
        ({"register": (400, {"error_description": "no\nthanks"})}, "no thanks"),
        ({"register": (201, {"client_id": "c", "client_secret": "s" * 20,
                             "token_endpoint_auth_method": "client_secret_basic"})}, "public"),
        ({"register": (201, {"client_id": "c", "client_secret": "s" * 20})}, "public"),
        ({"register": (201, ["x"])}, "registered no client"),
    ],
)  # fmt: skip
def test_a_misleading_server_is_not_followed(
    make: Callable[..., Kernel], change: Any, text: str
) -> None:
    """Nobody is sent to it, and no private address is asked for it."""
    app = Misleading({})
    serving = Serving(lambda: app)
    app.answers = _answers(serving.url, serving.url.removesuffix("/mcp"), **change)
    serving.start()
    account = make(serving.url).provider("far").oauth()
    if not text:
        assert account.begin(HERE).url.startswith(serving.url.removesuffix("/mcp"))
    else:
        error = failure(lambda: account.begin(HERE))
        assert text in str(error)
        assert not error.retryable
        assert "s" * 20 not in str(error)
    serving.stop()


MANNERS = sorted(ANSWERS.keys() - {"right", "other_type", "cookie"})
ENDLESS = {"silent", "dripping", "dripping_headers", "broken_chunks"}


@pytest.mark.parametrize("part", ["metadata", "keys"])
@pytest.mark.parametrize("manner", MANNERS)
def test_keys_that_come_in_no_good_way(
    manner: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say whose a token is, for a bounded time; the next look finds the keys."""
    if manner in ENDLESS:
        bounds = replace(access_tokens._BOUNDS, timeout_seconds=1.0)
        monkeypatch.setattr(access_tokens, "_BOUNDS", bounds)
    signer = AuthorizationService()
    with hostile_service(
        lambda method, path: answers["keys" if "keys" in path else "found"]
    ) as one:
        signer.url = one.url
        answers = {
            "found": {"issuer": one.url, "jwks_uri": f"{one.url}/keys"},
            "keys": {"keys": [signer.public_key()]},
        }
        given = Authorization(issuer=one.url, resource="https://mcp.example/mcp")
        clock = Clock()
        tokens = AccessTokens(given, clock)
        token = signer.token(given.resource, [])
        one.manner, one.well = manner, int(part == "keys")
        begin = time.monotonic()
        with pytest.raises(AutomateError) as caught:
            tokens.caller(token)
        assert time.monotonic() - begin < 20
        assert caught.value.code == "UNAVAILABLE"
        assert not one.reached
        one.manner = "right"
        clock.now += 11
        assert tokens.caller(token) is not None


@pytest.mark.parametrize("manner", MANNERS)
def test_a_server_whose_authorization_comes_in_no_good_way(
    manner: str, make: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account is not connected, with a reason, in bounded time."""
    if manner in ENDLESS:
        bounds = replace(discovery._BOUNDS, timeout_seconds=1.0)
        monkeypatch.setattr(discovery, "_BOUNDS", bounds)
    with hostile_service(lambda method, path: {}) as one:
        one.manner = manner
        begin = time.monotonic()
        error = failure(lambda: make(f"{one.url}/mcp").provider("far").oauth().begin(HERE))
        assert time.monotonic() - begin < 20
        assert error.code != "INTERNAL"
        assert not one.reached


def test_an_answer_of_another_server_is_refused(
    make: Callable[..., Kernel], resource: Serving, service: AuthorizationService
) -> None:
    """By the name of the server in it (RFC 9207): its code goes nowhere."""
    far = make(resource.url)
    account = far.provider("far").oauth()
    consent = account.begin(HERE)
    answer = f"{agree(consent.url)}&iss=https%3A%2F%2Fother.example"
    error = failure(lambda: account.finish(consent, answer, far.secrets, by="ada"))
    assert "another server" in str(error)
    assert service.grants == []


@pytest.mark.parametrize(
    "config",
    [
        {"command": "npx", "oauth": {}},
        {"url": "https://mcp.example/mcp", "oauth": {}, "token": "x"},
        {"url": "https://mcp.example/mcp", "oauth": {"client_secret": "KEY"}},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError):
        McpProvider.parse_config({"tools": ["*"], **config})
