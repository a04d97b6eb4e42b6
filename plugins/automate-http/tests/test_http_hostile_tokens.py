"""A token endpoint that misbehaves in each way: no token, no secret and no time is lost."""

from __future__ import annotations

import json
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from automate_http import OAuth2
from automate_kernel import AutomateError, ErrorCodes
from automate_kernel.operations.account import Consent
from automate_kernel.secrets import (
    MemorySecretsBackend,
    SecretResolver,
    WritableFileSecretsBackend,
)
from automate_testing.contracts.hostile_service import ANSWERS, HostileService, hostile_service

pytest.importorskip("authlib", reason="uv run --group plugins pytest plugins")

KEY, SECRET = "crm-account", "client-canary-0a9s8d7f6g"
NEW = "new-canary-token"
KEPT: dict[str, Any] = {
    "access_token": "old-access-canary", "refresh_token": "old-refresh-canary", "expires_at": 1.0,
}  # fmt: skip
CONSENT = Consent(
    "http://unused", "http://127.0.0.1:8400/callback",
    {"state": "s", "verifier": "verifier-canary-11223344"},
)  # fmt: skip
CODE = "code-canary"
ANSWER = f"http://127.0.0.1:8400/callback?state=s&code={CODE}"
GOOD = {"access_token": "new-access-canary", "expires_in": 3600}
READ = {"right", "other_type", "cookie"}
ENDLESS = {"silent", "dripping", "dripping_headers", "broken_chunks"}
GRANTS = ["finish", "renew", "own"]


@pytest.fixture
def secrets(tmp_path: Path) -> SecretResolver:
    kept = WritableFileSecretsBackend(tmp_path / "tokens")
    kept.set_secret(KEY, json.dumps(KEPT))
    return SecretResolver([MemorySecretsBackend({"CRM_SECRET": SECRET}), kept])


@pytest.fixture
def service() -> Iterator[HostileService]:
    with hostile_service(lambda method, path: GOOD) as found:
        yield found


def ask(service: HostileService, secrets: SecretResolver, grant: str, **options: Any) -> str:
    """Have tokens asked for; return the token that the account then has."""
    url = None if grant == "own" else f"{service.url}/authorize"
    auth = OAuth2(
        KEY, token_url=f"{service.url}/token", client_id="crm", client_secret="CRM_SECRET",
        authorize_url=url, allow_private_networks=["127.0.0.1"],
        client_authentication="client_secret_post", **options,
    )  # fmt: skip
    if grant == "finish":
        auth.finish(CONSENT, ANSWER, secrets)
    return auth.for_tenant(None).access_token(secrets)


def stored(secrets: SecretResolver) -> tuple[Any, str]:
    """The tokens as they are kept, and the note of a failure."""
    found = json.loads(secrets.writable.get_secret(KEY))
    return {name: found.get(name) for name in KEPT}, found.get("error") or ""


def shown_of(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + caplog.text


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("manner", sorted(ANSWERS.keys() - READ))
def test_an_answer_that_is_no_token(
    manner: str, grant: str, service: HostileService, secrets: SecretResolver,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It is an error with a code, in bounded time and memory; the tokens that are kept stay."""
    if manner in ENDLESS:
        monkeypatch.setattr("automate_http.oauth_account._SECONDS", 1.0)
    service.manner = manner
    caplog.set_level("DEBUG")
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(AutomateError) as caught:
            ask(service, secrets, grant)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < 20
    assert peak < 16 * 1024 * 1024
    assert len(service.paths) == 1 and not service.reached
    assert caught.value.code is not ErrorCodes.INTERNAL or manner in {"failing", "unavailable"}
    tokens, note = stored(secrets)
    text = shown_of(caught.value, caplog) + note
    assert not [each for each in (SECRET, CODE, CONSENT.private["verifier"]) if each in text]
    assert tokens == KEPT


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("manner", ["other_type", "cookie"])
def test_an_answer_that_is_a_token(
    manner: str, grant: str, service: HostileService, secrets: SecretResolver
) -> None:
    """Its type is no matter, and a cookie is not sent back."""
    service.manner = manner
    assert ask(service, secrets, grant) == GOOD["access_token"]
    assert not service.cookies


ODD_TOKENS: dict[str, Any] = {
    "line break": "a\r\nX-Evil: 1", "control": "a\x00b", "encoded word": "a\u2028b",
    "half character": "a\ud800b", "mark": "a\u202eb", "blank": " ", "text": "", "number": 7,
    "list": ["a"], "object": {"a": 1}, "yes": True, "long": "a" * 20_000, "letters": "tökén",
    "emoji": "a😀",
}  # fmt: skip


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("field", ["access_token", "refresh_token"])
@pytest.mark.parametrize("odd", ODD_TOKENS)
def test_a_token_that_no_header_can_have(
    odd: str, field: str, grant: str, service: HostileService, secrets: SecretResolver
) -> None:
    """It is refused before it is kept, for it would fail or change each later request."""
    service.answer_to = lambda method, path: {**GOOD, field: ODD_TOKENS[odd]}
    if field == "refresh_token" and odd == "text":
        pytest.skip("without a refresh token there is nothing to try")
    with pytest.raises(AutomateError, match="without a bearer token") as caught:
        ask(service, secrets, grant)
    assert caught.value.code is ErrorCodes.UNAVAILABLE
    assert stored(secrets)[0] == KEPT


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize(
    "lifetime",
    [0, -1, -(10**30), 10**30, 10**400, 1e308, "3600", "-5", "soon", "٣", None, [], {}, True,
     0.0000001, "9" * 5_000],
    ids=str,
)  # fmt: skip
def test_a_lifetime_of_any_kind(
    lifetime: Any, grant: str, service: HostileService, secrets: SecretResolver
) -> None:
    """The token is used, and the account's state can be read."""
    service.answer_to = lambda method, path: {
        **GOOD, "refresh_token": "next-refresh-canary", "expires_in": lifetime,
    }  # fmt: skip
    assert ask(service, secrets, grant) == GOOD["access_token"]
    assert len(service.paths) <= 2
    if grant != "own":
        auth = OAuth2(KEY, token_url="https://x.example/t", client_id="crm",
                      authorize_url="https://x.example/a")  # fmt: skip
        assert auth.status(secrets).connected


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("field", ["error", "error_description", "message", "detail"])
def test_a_refusal_that_quotes_the_request(
    field: str, status: int, grant: str, service: HostileService, secrets: SecretResolver,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Its words reach people without the secrets, in whichever encoding they are quoted."""
    quoted = " ".join([SECRET, KEPT["refresh_token"], CODE, CONSENT.private["verifier"], NEW])
    words = {
        "error": "invalid_request", field: f"{quoted}\x1b[2J\n{quoted.encode().hex()}",
        "refresh_token": NEW,
    }  # fmt: skip
    caplog.set_level("DEBUG")
    body = json.dumps(words).encode()
    monkeypatch.setitem(ANSWERS, "right", lambda handler: handler.send(status, body))
    with pytest.raises(AutomateError) as caught:
        ask(service, secrets, grant)
    text = shown_of(caught.value, caplog) + stored(secrets)[1]
    sent = {"finish": [CODE, CONSENT.private["verifier"]], "renew": [KEPT["refresh_token"]]}
    for value in [SECRET, NEW, *sent.get(grant, [])]:
        assert value not in text
        assert value.encode().hex() not in text
    assert "\x1b" not in str(caught.value)
