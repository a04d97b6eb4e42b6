"""OAuth 2 against an authorization server of another library."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from hashlib import sha256
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from automate_kernel import AutomateError, ConfigError, ErrorCodes, SecretDeniedError, SecretError
from automate_kernel.operations.account import Account, AccountStatus, tenant_account_key
from automate_kernel.operations.context import Call, ConnectorContext, calling
from automate_kernel.secrets import (
    MemorySecretsBackend,
    SecretResolver,
    WritableFileSecretsBackend,
)
from automate_kernel.secrets.backends import is_file_name
from automate_testing.contracts.hostile_service import hostile_service

pytest.importorskip("authlib", reason="uv run --group plugins pytest plugins")
pytest.importorskip("oauthlib.oauth2", reason="uv run --group plugins pytest plugins")

from authorization_server import SECRET, AuthorizationServer  # noqa: E402

from automate_http import Credentials, OAuth2, OAuthServer, ServiceClient  # noqa: E402

KEY = "crm-account"


@pytest.fixture
def server(monkeypatch: Any) -> Any:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # of the server alone
    found = AuthorizationServer()
    yield found
    found.http.shutdown()
    found.http.server_close()


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def secrets(tmp_path: Path) -> SecretResolver:
    tokens = WritableFileSecretsBackend(tmp_path / "tokens")
    return SecretResolver([MemorySecretsBackend({"CRM_SECRET": SECRET}), tokens])


def account(server: Any, **options: Any) -> OAuth2:
    options = {
        "token_url": f"{server.url}/token",
        "authorize_url": f"{server.url}/authorize",
        "client_secret": "CRM_SECRET",
        "allow_private_networks": ["127.0.0.1"],
        **options,
    }
    return OAuth2(KEY, client_id="crm", **options)


def browse(url: str) -> str:
    """Say yes, as a person does, and return where the browser is sent."""
    return httpx.get(url, follow_redirects=False).headers["location"]


def connect(server: Any, secrets: SecretResolver, **options: Any) -> OAuth2:
    auth = account(server, **options)
    consent = auth.begin("http://127.0.0.1:8400/callback")
    auth.finish(consent, browse(consent.url), secrets, by="ada")
    return auth


def client(server: Any, auth: OAuth2, secrets: SecretResolver) -> ServiceClient:
    ctx = ConnectorContext(key="crm", secrets=secrets, redact=secrets.redactor.redact)
    return ServiceClient(server.url, ctx=ctx, auth=auth, allow_private_networks=["127.0.0.1"])


def stored(secrets: SecretResolver) -> dict[str, Any]:
    return json.loads(secrets.writable.get_secret(KEY))


def test_a_person_connects_an_account(server: Any, secrets: SecretResolver) -> None:
    """With PKCE and state, which the server checks and we do."""
    auth = connect(server, secrets, scopes=["read", "write"])
    assert isinstance(auth, Account)
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    kept = stored(secrets)
    assert kept["connected_by"] == "ada"
    assert kept["scope"] == "read write"
    assert server.grants == ["authorization_code"]
    assert secrets.redactor.redact(f"<{kept['refresh_token']}>") == "<[secret]>"


def _finish(server: Any) -> Callable[[SecretResolver], Any]:
    auth = account(server)
    consent = auth.begin("http://127.0.0.1:8400/callback")
    answer = browse(consent.url)
    return lambda secrets: auth.finish(consent, answer, secrets)


def _renew(server: Any) -> Callable[[SecretResolver], Any]:
    auth = account(server).for_tenant(None)
    return lambda secrets: auth.access_token(secrets, refused=[stored(secrets)["access_token"]])


def _ask_for_its_own(server: Any) -> Callable[[SecretResolver], Any]:
    auth = account(server, authorize_url=None)
    return lambda secrets: asyncio.run(auth.credentials(secrets))


# Each way in which an answer with tokens comes.
GRANTS = pytest.mark.parametrize("grant", [_finish, _renew, _ask_for_its_own])


@GRANTS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_request_for_tokens_follows_no_redirect(
    server: Any, secrets: SecretResolver, grant: Any, status: int
) -> None:
    """It has the client's secret, and the code or the refresh token: they go nowhere else."""
    connect(server, secrets)
    before = stored(secrets)
    with hostile_service(lambda method, path: {"access_token": "of-somebody-else"}) as other:
        server.moved = (status, f"{other.url}/token")
        with pytest.raises(AutomateError, match="goes nowhere else.*token_url") as caught:
            grant(server)(secrets)
        assert other.paths == []
    assert (caught.value.code, caught.value.retryable) == ("FAILED_PRECONDITION", False)
    assert {**stored(secrets), "error": ""} == before


TOKENS = {
    "access_token": "access-canary-7Qm2xVb9",
    "refresh_token": "refresh-canary-Zk3pLw81",
    "id_token": "id.canary-Hh5.Tt2wQ0",
    "authed_user": {"access_token": "inner-canary-Nn6yCc4d"},
}
VALUES = [
    *(value for value in TOKENS.values() if isinstance(value, str)),
    TOKENS["authed_user"]["access_token"],
]


@GRANTS
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, {}), (200, {"token_type": "mac"}), (200, {"access_token": 7}), (201, {}), (400, {}),
        (200, {"error": "x", "access_token": None}), (400, {"error": "invalid_grant"}),
        (500, {"message": json.dumps(TOKENS)}),
    ],
)  # fmt: skip
def test_no_token_of_an_answer_is_shown(
    server: Any, secrets: SecretResolver, caplog: Any, grant: Any, status: int, words: Any
) -> None:
    """In no log, error or repr, whatever the answer is taken for; nor what the request has."""
    connect(server, secrets)
    ask = grant(server)
    caplog.set_level("DEBUG")
    server.trouble = (status, json.dumps({**TOKENS, **words}).encode())
    server.forms.clear()
    fresh = SecretResolver(secrets.backends)  # a redactor that has seen nothing yet
    shown = ""
    try:
        ask(fresh)
    except AutomateError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error)
    sent = [server.forms[-1].get(name, [""])[0] for name in ("code", "refresh_token")]
    # The service's own log may have them.
    logged = [each.getMessage() for each in caplog.records if not each.name.startswith("oauthlib")]
    given = VALUES if words.get("access_token", "") == "" else VALUES[1:]
    for value in filter(None, [*given, *sent, SECRET]):
        assert value not in f"{shown}{logged}"
        assert fresh.redactor.redact(f"<{value}>") == "<[secret]>"


@pytest.mark.parametrize("options", [{}, {"authorize_url": None}], ids=["person", "own"])
def test_tokens_that_another_call_has_got_are_hidden(
    server: Any, secrets: SecretResolver, options: Any
) -> None:
    """Each execution has a redactor of its own."""
    connect(server, secrets)
    auth = account(server, **options)
    tokens = [asyncio.run(auth.credentials(secrets)).values[0] for _ in range(2)]
    other = SecretResolver(secrets.backends)
    assert [asyncio.run(auth.credentials(other)).values[0]] * 2 == tokens
    assert other.redactor.redact(f"<{tokens[0]}>") == "<[secret]>"


def test_tokens_that_another_call_could_not_store_are_hidden(
    server: Any, secrets: SecretResolver, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Each execution has a redactor of its own, which has not seen the renewal."""
    auth = connect(server, secrets).for_tenant(None)
    before = stored(secrets)["access_token"]

    def full(key: str, value: str) -> None:
        raise SecretError("the disk is full")

    monkeypatch.setattr(secrets.writable, "set_secret", full)
    renewed = auth.access_token(SecretResolver(secrets.backends), refused=[before])
    assert renewed != before
    gc.collect()  # the execution is over, and its redactor with it

    def quoting(key: str, value: str) -> None:
        raise SecretError(f"no room for {json.loads(value)['access_token']}")

    monkeypatch.setattr(secrets.writable, "set_secret", quoting)
    later = SecretResolver(secrets.backends)
    monkeypatch.setattr(auth, "_tried_at", -math.inf)  # it tries to store them again now
    assert auth.access_token(later) == renewed
    assert renewed not in caplog.text
    assert later.redactor.redact(f"<{renewed}>") == "<[secret]>"

    def away(key: str) -> str:
        raise SecretError("the disk is away")

    monkeypatch.setattr(secrets.writable, "get_secret", away)
    other = SecretResolver(secrets.backends)
    assert auth.access_token(other) == renewed
    assert other.redactor.redact(f"<{renewed}>") == "<[secret]>"


def test_a_proof_key_is_needed(server: Any, secrets: SecretResolver) -> None:
    """A code that was caught on its way is of no use to others."""
    auth = account(server)
    consent = auth.begin("http://127.0.0.1:8400/callback")
    answer = browse(consent.url)
    consent.private["verifier"] = "x" * 64
    with pytest.raises(AutomateError) as caught:
        auth.finish(consent, answer, secrets, by="ada")
    assert "challenge" in str(caught.value).lower() or "invalid" in str(caught.value).lower()


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("state=", "state=x"),
        lambda url: url.replace("state=", "other="),
        lambda url: url + "&state=x",
    ],
    ids=["another", "none", "two"],
)
def test_an_answer_to_another_question_is_refused(
    server: Any, secrets: SecretResolver, change: Any
) -> None:
    auth = account(server)
    consent = auth.begin("http://127.0.0.1:8400/callback")
    with pytest.raises(AutomateError, match="state differs"):
        auth.finish(consent, change(browse(consent.url)), secrets, by="ada")
    assert server.grants == []


def test_a_no_is_reported(server: Any, secrets: SecretResolver) -> None:
    server.denies = True
    with pytest.raises(AutomateError, match="not connected: access_denied"):
        connect(server, secrets)


def test_a_token_is_renewed_before_it_expires(server: Any, secrets: SecretResolver) -> None:
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    first = stored(secrets)
    clock.now += 3600 - 61
    client(server, auth, secrets).get("/me")
    assert stored(secrets) == first
    clock.now += 2
    client(server, auth, secrets).get("/me")
    second = stored(secrets)
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    assert second["connected_by"] == "ada"
    assert server.grants == ["authorization_code", "refresh_token"]


def test_what_a_renewal_does_not_say_stays(server: Any, secrets: SecretResolver) -> None:
    """A service says its scope again only where that has changed, and so its refresh token."""
    auth = connect(server, secrets, scopes=["read", "write"]).for_tenant(None)
    first = stored(secrets)
    server.trouble = (200, b'{"access_token": "second-access-token", "expires_in": 60}')
    auth.access_token(secrets, refused=[first["access_token"]])
    second = stored(secrets)
    kept = ("refresh_token", "scope", "connected_by", "connected_at")
    assert [second[name] for name in kept] == [first[name] for name in kept]
    assert second["scope"] == "read write"
    server.trouble = (200, b'{"access_token": "third-access-token", "scope": "read"}')
    auth.access_token(secrets, refused=["second-access-token"])
    assert (stored(secrets)["scope"], stored(secrets)["access_token"]) == (
        "read",
        "third-access-token",
    )


def test_a_token_of_a_short_life_is_not_renewed_for_each_request(
    server: Any, secrets: SecretResolver
) -> None:
    """It is never good for a minute more."""
    server.oauth = type(server.oauth)(server.validator, token_expires_in=40)
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    service = client(server, auth, secrets)
    for second in range(20):
        clock.now += 1
        service.get("/me")
        assert server.grants.count("refresh_token") == (second == 19)
    own = account(server, clock=clock, authorize_url=None)
    for _ in range(3):
        client(server, own, secrets).get("/me")
    assert server.grants.count("client_credentials") == 1


def test_a_refused_token_is_renewed_once(server: Any, secrets: SecretResolver) -> None:
    """The service ended it before its time; the request is sent again."""
    auth = connect(server, secrets)
    server.expire()
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    assert server.grants == ["authorization_code", "refresh_token"]


def test_a_refused_token_is_renewed_beside_other_credentials(
    server: Any, secrets: SecretResolver
) -> None:
    """Such as an API key that the request carries too, and that comes first."""
    auth = connect(server, secrets)
    token = stored(secrets)["access_token"]
    server.expire()
    assert asyncio.run(auth.renew(secrets, Credentials(values=("an-api-key", token))))
    assert stored(secrets)["access_token"] != token


@pytest.mark.parametrize("lifetime", [10**400, "9" * 5_000], ids=["integer", "text"])
def test_a_lifetime_that_no_clock_reaches_is_no_failure(
    server: Any, secrets: SecretResolver, lifetime: Any
) -> None:
    auth = connect(server, secrets)
    server.expire()
    body = {"access_token": "t-123456", "expires_in": lifetime}
    server.trouble = (200, json.dumps(body).encode())
    token = stored(secrets)["access_token"]
    assert asyncio.run(auth.renew(secrets, Credentials(values=(token,))))
    assert stored(secrets)["access_token"] == "t-123456"


def test_of_many_threads_one_renews(server: Any, secrets: SecretResolver) -> None:
    auth = connect(server, secrets)
    server.expire()
    service = client(server, auth, secrets)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: service.get("/me")["me"], range(16))) == ["ada"] * 16

    async def many() -> list[Any]:
        return await asyncio.gather(*(service.aget("/me") for _ in range(8)))

    server.expire()
    assert len(asyncio.run(many())) == 8
    assert server.grants.count("refresh_token") == 2


def _in_process(url: str, folder: str, results: Any) -> None:
    tokens = WritableFileSecretsBackend(folder)
    secrets = SecretResolver([MemorySecretsBackend({"CRM_SECRET": SECRET}), tokens])
    here = type("Server", (), {"url": url})
    service = client(here, account(here), secrets)
    results.put([service.get("/me")["me"] for _ in range(3)])
    service.close()


def test_of_many_processes_one_renews(server: Any, secrets: SecretResolver, tmp_path: Path) -> None:
    """A refresh token that is used twice would end the connection, with many services."""
    connect(server, secrets)
    server.expire()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (server.url, str(tmp_path / "tokens"), results)
    workers = [context.Process(target=_in_process, args=arguments) for _ in range(4)]
    for each in workers:
        each.start()
    assert [results.get(timeout=60) for _ in workers] == [["ada"] * 3] * 4
    for each in workers:
        each.join()
    assert server.grants.count("refresh_token") == 1


def test_a_process_that_dies_with_the_lock_keeps_nobody_out(tmp_path: Path) -> None:
    backend = WritableFileSecretsBackend(tmp_path)
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with backend.locked(KEY):
            held.set()
            threading.Event().wait()

    process = context.Process(target=hold)
    process.start()
    assert held.wait(30)
    process.kill()
    process.join()
    with backend.locked(KEY):
        pass


def stored_meanwhile(auth: Any, secrets: SecretResolver, newer: dict[str, Any]) -> None:
    """Have somebody store *newer* tokens after the service has answered, and before we do."""
    own = auth.for_tenant(None)
    ask = own._ask

    def meanwhile(*args: Any, **values: Any) -> Any:
        reply = ask(*args, **values)
        secrets.writable.set_secret(KEY, json.dumps(newer))
        return reply

    own._ask = meanwhile


def test_a_holder_whose_lock_was_lost_undoes_nothing(server: Any, secrets: SecretResolver) -> None:
    """A backend whose locks can end leaves the tokens of who came later."""
    auth = connect(server, secrets)
    newer = {**stored(secrets), "access_token": "newer-token-123456"}
    stored_meanwhile(auth, secrets, newer)
    used = asyncio.run(auth.credentials(secrets))
    assert asyncio.run(auth.renew(secrets, used))
    assert stored(secrets)["access_token"] == "newer-token-123456"


NO_LOGIN = SecretDeniedError("Vault refused the login", code=ErrorCodes.UNAUTHENTICATED)


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(28, "No space left on device"), "OSError"), (NO_LOGIN, "Vault refused the login")],
    ids=["disk", "login"],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_renewed_tokens_that_can_not_be_stored_are_stored_later(
    server: Any, secrets: SecretResolver, monkeypatch: Any, caplog: Any,
    elsewhere: bool, error: Exception, told: str,
) -> None:  # fmt: skip
    """The service has used the old refresh token up: lost with a full disk was the connection."""
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    before, write = stored(secrets), secrets.writable.set_secret
    clock.now += 4_000

    def full(key: str, value: str) -> None:
        raise error

    monkeypatch.setattr(secrets.writable, "set_secret", full)
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    assert f"can't be stored, and are lost with this process: {told}" in caplog.text
    clock.now += 4_000
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    assert stored(secrets) == before
    monkeypatch.setattr(secrets.writable, "set_secret", write)
    if elsewhere:  # another process has asked with what stands there
        with pytest.raises(AutomateError, match="has ended the connection"):
            client(server, account(server, clock=clock), secrets).get("/me")
        assert stored(secrets)["revoked"]
    clock.now += 5
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    assert server.grants.count("refresh_token") == 2 + elsewhere
    assert stored(secrets)["access_token"] != before["access_token"]
    assert client(server, account(server, clock=clock), secrets).get("/me") == {"me": "ada"}


def test_tokens_that_could_not_be_stored_give_way_to_a_new_connection(
    server: Any, secrets: SecretResolver, monkeypatch: Any
) -> None:
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    clock.now += 4_000
    with monkeypatch.context() as full:
        full.setattr(secrets.writable, "set_secret", lambda *_: 1 / 0)
        client(server, auth, secrets).get("/me")
    connect(server, secrets, clock=clock)
    new = stored(secrets)
    client(server, auth, secrets).get("/me")
    assert asyncio.run(auth.credentials(secrets)).values == (new["access_token"],)
    clock.now += 5
    client(server, auth, secrets).get("/me")
    assert stored(secrets) == new


@pytest.mark.parametrize("broken", ["locked", "get_secret", "set_secret"])
def test_calls_go_on_with_tokens_that_can_not_be_stored(
    server: Any, secrets: SecretResolver, monkeypatch: Any, broken: str
) -> None:
    """They try to store them now and then, each of them does not; a disconnection ends it."""
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    clock.now += 4_000
    tries = []

    def fail(*_: Any) -> Any:
        tries.append(clock.now)
        raise NO_LOGIN

    with monkeypatch.context() as full:
        full.setattr(secrets.writable, "set_secret", fail)
        client(server, auth, secrets).get("/me")
    with monkeypatch.context() as away:
        away.setattr(secrets.writable, broken, fail)
        service = client(server, auth, secrets)
        for _ in range(3):
            clock.now += 5
            tries.clear()
            for _ in range(4):
                assert service.get("/me") == {"me": "ada"}
            # Each call reads whether the account is still connected.
            assert len(tries) == (4 if broken == "get_secret" else 1)
        assert server.grants.count("refresh_token") == 1
    secrets.writable.delete_secret(KEY)
    with pytest.raises(AutomateError, match="is not connected"):
        service.get("/me")
    monkeypatch.setattr(secrets.writable, "get_secret", fail)
    with pytest.raises(AutomateError, match="Vault refused the login"):
        service.get("/me")


def test_a_backend_without_a_login_is_not_taken_for_an_account_that_is_not_connected(
    server: Any, secrets: SecretResolver, monkeypatch: Any
) -> None:
    auth = connect(server, secrets)

    def fail(key: str) -> str:
        raise NO_LOGIN

    monkeypatch.setattr(secrets.writable, "get_secret", fail)
    with pytest.raises(SecretDeniedError, match="Vault refused the login"):
        auth.status(secrets)


def test_processes_of_two_releases_read_the_tokens_of_each_other(
    server: Any, secrets: SecretResolver
) -> None:
    """While one takes the place of the other, and after a way back."""
    auth = connect(server, secrets)
    kept = stored(secrets)
    # All that the release before knows; it refuses other fields.
    known = "access_token refresh_token expires_at scope connected_by connected_at revoked error"
    assert kept.keys() <= {*known.split(), "server"}
    secrets.writable.set_secret(KEY, json.dumps({**kept, "of_a_later_release": 1}))
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    assert auth.status(secrets).connected_by == "ada"


def test_a_discovered_server_may_have_fields_of_a_later_release(
    server: Any, secrets: SecretResolver
) -> None:
    found = OAuthServer(f"{server.url}/token", "crm", f"{server.url}/authorize")
    auth = OAuth2(
        KEY,
        discover=lambda redirect_uri: found,
        client_secret="CRM_SECRET",
        allow_private_networks=["127.0.0.1"],
    )
    consent = auth.begin("http://127.0.0.1:8400/callback")
    auth.finish(consent, browse(consent.url), secrets, by="ada")
    kept = stored(secrets)
    kept["server"]["of_a_later_release"] = 1
    secrets.writable.set_secret(KEY, json.dumps(kept))
    server.expire()
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}


def test_who_connected_meanwhile_is_not_asked_to_connect_again(
    server: Any, secrets: SecretResolver
) -> None:
    """The refusal is of a refresh token that a newer one has replaced."""
    auth = connect(server, secrets)
    newer = {**stored(secrets), "access_token": "newer-token-123456"}
    used = asyncio.run(auth.credentials(secrets))
    server.revoke()
    stored_meanwhile(auth, secrets, newer)
    assert asyncio.run(auth.renew(secrets, used))
    assert stored(secrets)["access_token"] == "newer-token-123456"


def test_a_revoked_account_says_who_must_connect_again(
    server: Any, secrets: SecretResolver
) -> None:
    """At once, the next time: the service isn't asked again and again."""
    auth = connect(server, secrets)
    server.revoke()
    for _ in range(3):
        with pytest.raises(AutomateError) as caught:
            client(server, auth, secrets).get("/me")
        error = caught.value
        assert (error.code, error.retryable) == ("UNAUTHENTICATED", False)
        assert "connected by ada" in str(error)
        assert "automate connect" in str(error)
    assert server.grants.count("refresh_token") == 1
    connect(server, secrets)
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}


@pytest.mark.parametrize("word", ["bad_refresh_token", "invalid_refresh_token", "invalid_grant"])
def test_a_refusal_that_is_no_failure_of_http_ends_the_connection(
    server: Any, secrets: SecretResolver, word: str
) -> None:
    """GitHub and Slack answer 200, with an error in it."""
    auth = connect(server, secrets)
    server.expire()
    server.trouble = (200, json.dumps({"error": word}).encode())
    for _ in range(2):
        with pytest.raises(AutomateError, match="automate connect") as caught:
            client(server, auth, secrets).get("/me")
        assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)
    assert server.grants.count("refresh_token") == 1
    assert auth.status(secrets).ended


def test_words_of_a_refusal_that_is_no_failure_of_http_reach_the_person(
    server: Any, secrets: SecretResolver
) -> None:
    said = {"error": "bad_verification_code", "error_description": "The code has expired."}
    server.trouble = (200, json.dumps(said).encode())
    with pytest.raises(AutomateError, match="The code has expired"):
        connect(server, secrets)


def test_the_state_of_a_connection_is_told_without_its_tokens(
    server: Any, secrets: SecretResolver
) -> None:
    """Who connected it, until when the token is good, the last error; and then it is ended."""
    clock = Clock()
    auth = account(server, clock=clock)
    assert auth.status(secrets) == AccountStatus(connected=False)
    auth = connect(server, secrets, clock=clock)
    status = auth.status(secrets)
    assert (status.connected, status.connected_by, status.renews) == (True, "ada", True)
    assert status.expires_at is not None
    assert status.expires_at.timestamp() == clock.now + 3600
    tokens = stored(secrets)
    assert tokens["access_token"] not in repr(status)

    clock.now += 3600
    server.trouble = (503, b"{}")
    with pytest.raises(AutomateError, match="503"):
        client(server, auth, secrets).get("/me")
    status = auth.status(secrets)
    assert status.error.startswith("UNAVAILABLE: ")
    assert not status.ended
    server.trouble = None
    client(server, auth, secrets).get("/me")
    assert auth.status(secrets).error == ""

    server.revoke()
    with pytest.raises(AutomateError):
        client(server, auth, secrets).get("/me")
    status = auth.status(secrets)
    assert (status.ended, status.renews) == (True, False)
    assert "ended" in status.error
    auth.disconnect(secrets)
    auth.disconnect(secrets)
    assert auth.status(secrets) == AccountStatus(connected=False)


def called(tenant_id: str | None) -> Any:
    return calling(Call("crm.me", tenant_id))


def connect_tenant(server: Any, secrets: SecretResolver, auth: OAuth2, tenant: str) -> str:
    """Connect the tenant's account, and return its access token."""
    mine = auth.for_tenant(tenant)
    consent = mine.begin("http://127.0.0.1:8400/callback")
    mine.finish(consent, browse(consent.url), secrets, by=tenant)
    return str(json.loads(secrets.writable.get_secret(mine.key))["access_token"])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_takes_the_account_of_its_tenant(
    server: Any, secrets: SecretResolver, asynchronous: bool
) -> None:
    """And no other's: a tenant without one has none, though the application has."""
    auth = connect(server, secrets)
    of_acme = connect_tenant(server, secrets, auth, "acme")
    of_nova = connect_tenant(server, secrets, auth, "Nova & Söhne")
    own = stored(secrets)["access_token"]

    def me(tenant: str | None) -> str:
        service = client(server, auth, secrets)
        with called(tenant):
            found = asyncio.run(service.aget("/me")) if asynchronous else service.get("/me")
        assert found == {"me": "ada"}
        return str(server.last_token)

    assert [me("acme"), me("Nova & Söhne"), me(None), me("acme")] == [
        of_acme, of_nova, own, of_acme,
    ]  # fmt: skip
    served = server.served
    with pytest.raises(AutomateError) as caught:
        me("other's")
    assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)
    hint = "automate connect PLUGIN --tenant 'other'\"'\"'s'"
    assert 'of the tenant "other\'s" is not connected' in str(caught.value)
    assert hint in str(caught.value)
    assert server.served == served


def test_a_shared_account_is_for_tenants_without_one(server: Any, secrets: SecretResolver) -> None:
    """One whose own was ended does not fall back to it."""
    auth = connect(server, secrets, shared=True)
    of_acme = connect_tenant(server, secrets, auth, "acme")
    service = client(server, auth, secrets)
    for tenant, token in (("acme", of_acme), ("nova", stored(secrets)["access_token"])):
        with called(tenant):
            service.get("/me")
        assert server.last_token == token
    mine = auth.for_tenant("acme")
    kept = json.loads(secrets.writable.get_secret(mine.key))
    secrets.writable.set_secret(mine.key, json.dumps({**kept, "revoked": True}))
    with called("acme"), pytest.raises(AutomateError, match="has ended the connection"):
        service.get("/me")
    mine.disconnect(secrets)
    with called("acme"):
        assert service.get("/me") == {"me": "ada"}


def test_a_refused_token_of_a_tenant_renews_its_own(server: Any, secrets: SecretResolver) -> None:
    auth = connect(server, secrets)
    connect_tenant(server, secrets, auth, "acme")
    before = stored(secrets)
    server.expire()
    with called("acme"):
        client(server, auth, secrets).get("/me")
    assert stored(secrets) == before
    assert server.grants[-1] == "refresh_token"


@pytest.mark.parametrize(
    "tenants",
    [
        ("a/../b", "a.b", "A", "a", "ä", ""),
        ("x" * 300, "x" * 301),
        ("acme", sha256(b"acme").hexdigest()),
    ],
)
def test_no_two_tenants_share_a_secret(tenants: tuple[str, ...]) -> None:
    """Whatever their ids are; on a disk that makes no difference of letters' size, too."""
    keys = {tenant_account_key(KEY, tenant).casefold() for tenant in tenants}
    assert len(keys) == len(tenants)
    assert all(is_file_name(key) for key in keys)


def test_an_account_that_was_never_connected_says_so(server: Any, secrets: SecretResolver) -> None:
    with pytest.raises(AutomateError, match="not connected.*automate connect") as caught:
        client(server, account(server), secrets).get("/me")
    assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)


def test_a_token_service_that_is_away_is_tried_again(server: Any, secrets: SecretResolver) -> None:
    """A token that is still good for a moment is used until then."""
    clock = Clock()
    auth = connect(server, secrets, clock=clock)
    server.trouble = (503, b"{}")
    clock.now += 3600 - 30
    assert client(server, auth, secrets).get("/me") == {"me": "ada"}
    clock.now += 60
    with pytest.raises(AutomateError) as caught:
        client(server, auth, secrets).get("/me")
    assert (caught.value.code, caught.value.retryable) == ("UNAVAILABLE", True)
    assert not stored(secrets)["revoked"]


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"access_token": 7}', b'{"access_token": "a\\nb"}',
     b'{"access_token": "abc", "token_type": "mac"}', b"x" * 70_000],
    ids=["empty", "page", "list", "number", "line break", "mac", "long"],
)  # fmt: skip
def test_an_odd_answer_is_no_token(server: Any, secrets: SecretResolver, content: bytes) -> None:
    server.trouble = (200, content)
    with pytest.raises(AutomateError):
        connect(server, secrets)
    assert not Path(secrets.writable.directory / KEY).exists()


def test_a_client_has_a_token_of_its_own(server: Any, secrets: SecretResolver) -> None:
    """Client credentials: kept in memory, asked for again when it is refused."""
    auth = account(server, authorize_url=None, scopes=["read"])
    service = client(server, auth, secrets)
    assert [service.get("/me")["me"] for _ in range(3)] == ["ada"] * 3
    server.expire()
    service.get("/me")
    assert server.grants == ["client_credentials"] * 2


def test_a_wrong_client_secret_is_named(server: Any) -> None:
    wrong = SecretResolver(MemorySecretsBackend({"CRM_SECRET": "wrong-secret-987654"}))
    with pytest.raises(AutomateError) as caught:
        client(server, account(server, authorize_url=None), wrong).get("/me")
    assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)
    assert "'CRM_SECRET'" in str(caught.value)
    assert "wrong-secret" not in repr(caught.value)


@pytest.mark.parametrize("word", ["incorrect_client_credentials", "bad_client_secret"])
def test_a_wrong_client_secret_is_named_that_is_no_failure_of_http(
    server: Any, secrets: SecretResolver, word: str
) -> None:
    server.trouble = (200, json.dumps({"error": word}).encode())
    with pytest.raises(AutomateError, match="'CRM_SECRET'") as caught:
        client(server, account(server, authorize_url=None), secrets).get("/me")
    assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)


@pytest.mark.parametrize("field", ["token_url", "authorize_url"])
def test_tokens_go_over_https(server: Any, field: str) -> None:
    """A private network that may be asked is no reason to let others read the client's secret."""
    url = {field: "http://auth.example/x", "allow_private_networks": True}
    with pytest.raises(ConfigError, match="http://auth.example is not https.*allow_plain_http"):
        account(server, **url)
    assert account(server, **url, allow_plain_http=True)


APP = """
from automate_http import OAuth2, ServiceClient
from automate_kernel import Connector, Kernel, action
from automate_kernel.secrets import MemorySecretsBackend, WritableFileSecretsBackend

URL = {url!r}


class Crm(Connector):
    key = "crm"
    display_name = "CRM"

    def __init__(self, config=None, *, ctx=None):
        super().__init__(config, ctx=ctx)
        here = ["127.0.0.1"]
        self.auth = OAuth2(
            {key!r}, authorize_url=URL + "/authorize", token_url=URL + "/token", client_id="crm",
            client_secret="CRM_SECRET", allow_private_networks=here,
        )
        self.client = ServiceClient(URL, ctx=self.ctx, auth=self.auth, allow_private_networks=here)

    def oauth(self):
        return self.auth

    @action
    async def me(self):
        return await self.client.aget("/me")


secrets = [MemorySecretsBackend({{"CRM_SECRET": {secret!r}}}), WritableFileSecretsBackend("tokens")]
kernel = Kernel(plugins=[Crm], discover=False, secrets=secrets)
"""


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_a_command_connects_a_plugin(server: Any, tmp_path: Path, tenant: str | None) -> None:
    """From the page to the stored token, and an action that works in another process."""
    (tmp_path / "crm_app.py").write_text(APP.format(url=server.url, key=KEY, secret=SECRET))
    (tmp_path / "automate.toml").write_text('app = "crm_app:kernel"\n')
    command = [sys.executable, "-m", "automate_cli", "connect", "crm"]
    command += ["--tenant", tenant] if tenant is not None else []
    process = subprocess.Popen(
        [*command, "--no-browser", "--by", "grace", "--wait", "60s"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        url = next(line.strip() for line in process.stderr if line.startswith("http"))
        back = browse(url)
        icon = back.partition("/callback")[0] + "/favicon.ico"
        assert httpx.get(icon).status_code == 404  # as a browser asks for
        forged = f"{back.partition('?')[0]}?code=of-another&state=guessed"
        assert httpx.get(forged).status_code == 400  # any page and program can send it
        assert httpx.get(back.partition("?")[0]).status_code == 400
        assert httpx.get(back).status_code == 200
        printed = process.stdout.read() + process.stderr.read()
        assert process.wait(30) == 0, printed
    key, whose = (
        (KEY, "crm") if tenant is None else (f"{KEY}.tenant.acme", "crm of the tenant acme")
    )
    kept = json.loads((tmp_path / "tokens" / key).read_text())
    assert f"{whose} is connected" in printed
    assert kept["connected_by"] == "grace"
    assert kept["access_token"] not in printed
    asked = f"kernel.invoke('crm.me', tenant_id={tenant!r})"
    call = f"from crm_app import kernel; print({asked}); kernel.close()"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{'me': 'ada'}\n", done.stderr


def test_a_command_looks_for_the_clients_secret_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the secret, the account and the remedy; no page is printed."""
    from automate_cli.app import app
    from typer.testing import CliRunner

    text = APP.format(url="http://127.0.0.1:9", key=KEY, secret="")
    (tmp_path / "crm_less.py").write_text(text.replace("{\"CRM_SECRET\": ''}", "{}"))
    (tmp_path / "automate.toml").write_text('app = "crm_less:kernel"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(app, ["connect", "crm", "--wait", "1ms"])
    assert done.exit_code == 1
    assert "secret 'CRM_SECRET' was not found" in done.output
    assert f"the account '{KEY}' needs it" in done.output
    assert "hint: add 'CRM_SECRET' to the mapping of secrets" in done.output
    assert "Open this page" not in done.output


def test_a_command_tries_to_write_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens that can't be kept are known to be so before a person's work."""
    from automate_cli.app import app
    from typer.testing import CliRunner

    text = APP.format(url="http://127.0.0.1:9", key=KEY, secret=SECRET)
    (tmp_path / "crm_locked.py").write_text(text)
    (tmp_path / "automate.toml").write_text('app = "crm_locked:kernel"\n')
    (tmp_path / "tokens").write_text("a file where the folder should be")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(app, ["connect", "crm", "--wait", "1ms"])
    assert done.exit_code == 1
    assert f"secret '{KEY}' can't be written: File exists" in done.output
    assert "Open this page" not in done.output


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scopes": "read write"}, r"scopes is a list of texts \(write scopes=\['read', 'write'\]"),
        ({"client_id": ""}, "needs token_url and client_id"),
    ],
)
def test_a_slip_in_the_client_is_told(wrong: Any, says: str) -> None:
    """The scopes were the letters of a text, and the service alone knew that a client had no id."""
    given = {"token_url": "https://crm.example/token", "client_id": "me", **wrong}
    with pytest.raises(ConfigError, match=says):
        OAuth2("account", **given)


def test_an_address_for_the_answer_that_is_none_is_told() -> None:
    url = "https://crm.example"
    account = OAuth2("a", token_url=f"{url}/t", authorize_url=f"{url}/a", client_id="me")
    with pytest.raises(ConfigError, match="the redirect URI is no URL"):
        account.begin("app.example/callback")
