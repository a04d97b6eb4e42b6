"""The log-in by OpenID Connect, against a provider: the way there and back, and every wrong answer."""

from __future__ import annotations

import base64
import hashlib
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import oidc_provider_mock
import pytest
from paged_shop import Shop
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import ConfigError
from automate_pages import LogIn, Oidc, pages
from automate_testing.contracts.hostile_service import ANSWERS, hostile_service

PUBLIC = "https://ops.example/ops"
ROLES = {"groups": {"ops": "operator", "admins": "admin"}}
PEOPLE = {
    "ada": {"preferred_username": "Ada", "groups": ["ops"], "org": "acme"},
    "eve": {"groups": ["sales", "admin"], "org": "acme"},
    "bob": {"preferred_username": "Bob", "groups": ["ops"]},
}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    people = [oidc_provider_mock.User(sub=name, claims=claims) for name, claims in PEOPLE.items()]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(autouse=True)
def http_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Authlib takes plain http only where it is told to, and the provider here has no TLS."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.kernel.close()


def oidc(provider: str, **options: Any) -> Oidc:
    given = {"public_url": PUBLIC, "roles": ROLES, "tenant": "org", **options}
    return Oidc(provider, "the-client", "$secret:TOKEN", **given)


def browser(shop: Shop, auth: Oidc, **more: Any) -> TestClient:
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=LogIn(auth)))])
    return TestClient(app, base_url="https://ops.example", follow_redirects=False, **more)


def to_provider(client: TestClient, **more: Any) -> str:
    """Begin a log-in, and return the provider's address."""
    answer = client.get("/ops/log-in/oidc", params={"next": "/ops/outbox?status=FAILED"}, **more)
    assert answer.status_code == 303
    return str(answer.headers["location"])


def back_from(address: str, who: str) -> str:
    """Log *who* in at the provider, and return the path that it leads back to."""
    answer = httpx.post(address, data={"sub": who}, follow_redirects=False)
    assert answer.status_code in (302, 303), answer.text
    return str(answer.headers["location"])


def changed(address: str, **fields: str | None) -> str:
    """Return *address* with fields of its query changed, or without those that are None."""
    parts = urlsplit(address)
    query = {**dict(parse_qsl(parts.query)), **fields}
    return parts._replace(
        query=urlencode({name: text for name, text in query.items() if text is not None})
    ).geturl()


def test_a_person_of_the_provider_is_a_user(shop: Shop, provider: str) -> None:
    client = browser(shop, oidc(provider))
    assert "Log in with single sign-on" in client.get("/ops/log-in").text
    address = to_provider(client)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert asked["redirect_uri"] == f"{PUBLIC}/log-in/oidc/callback"
    assert asked["code_challenge_method"] == "S256"
    assert asked["response_type"] == "code"
    assert {"state", "nonce", "code_challenge"} <= set(asked)
    answer = client.get(back_from(address, "ada"))
    assert answer.headers["location"] == "/ops/outbox?status=FAILED"
    page = client.get("/ops/executions").text
    assert "Ada" in page
    assert "acme" in page
    (session,) = shop.kernel.sessions.all()
    assert (session.user_name, session.roles, session.method) == ("Ada", ("operator",), "oidc")
    (entry,) = shop.kernel.audit.page().records
    assert (entry.actor, entry.actor_id, entry.tenant_id) == ("Ada", "ada", "acme")
    assert client.get("/ops/audit").status_code == 403


def test_who_guesses_from_many_addresses_locks_nobody_out(shop: Shop, provider: str) -> None:
    """A person of the provider gets in; what fails then is written down no more."""
    for number in range(100):
        shop.kernel.audit.write(
            "log-in", actor=f"203.0.113.{number}", model="session", outcome="refused"
        )
    client = browser(shop, oidc(provider))
    assert client.get(back_from(to_provider(client), "ada")).status_code == 303
    wrong = changed(back_from(to_provider(client), "ada"), code="wrong")
    assert client.get(wrong).status_code == 401
    refused = shop.kernel.audit.page(outcome="refused", limit=200).records
    assert len(refused) == 100


@pytest.mark.parametrize("who", ["eve", "bob"])
def test_who_has_no_role_or_no_tenant_is_not_let_in(shop: Shop, provider: str, who: str) -> None:
    """And a group that is called as a role of ours is none."""
    client = browser(shop, oidc(provider))
    answer = client.get(back_from(to_provider(client), who))
    assert answer.status_code == 401
    assert shop.kernel.sessions.all() == []
    assert [each.outcome for each in shop.kernel.audit.page().records] == ["refused"]


def wrong_answers(shop: Shop, provider: str) -> dict[str, tuple[TestClient, str]]:
    """Return browsers, each with an answer of the provider that is not for it."""
    config = oidc(provider)
    client, other = browser(shop, config), browser(shop, config)
    good = back_from(to_provider(client), "ada")
    return {
        "another state": (client, changed(good, state="x")),
        "no state": (client, changed(good, state=None)),
        "no code": (client, changed(good, code=None)),
        "another code": (client, changed(good, code="x")),
        "another issuer": (client, changed(good, iss="https://evil.example")),
        "an error": (client, changed(good, error="access_denied", code=None)),
        "another browser": (other, good),
    }


@pytest.mark.parametrize(
    "case",
    ["another state", "no state", "no code", "another code", "another issuer", "an error",
     "another browser"],
)  # fmt: skip
def test_a_wrong_answer_begins_no_session(shop: Shop, provider: str, case: str) -> None:
    client, address = wrong_answers(shop, provider)[case]
    answer = client.get(address)
    assert answer.status_code == 401
    assert shop.kernel.sessions.all() == []
    assert not any("session" in name for name in client.cookies)


def test_another_nonce_is_refused(shop: Shop, provider: str) -> None:
    """An answer that was made for another log-in, and is put into this one."""
    client = browser(shop, oidc(provider))
    address = to_provider(client)
    assert client.get(back_from(changed(address, nonce="x"), "ada")).status_code == 401
    address = to_provider(client)
    assert client.get(back_from(changed(address, nonce=None), "ada")).status_code == 401
    assert "nonce" in shop.kernel.audit.page().records[0].details["reason"]


def test_the_code_is_of_use_to_this_browser_alone(
    shop: Shop, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PKCE: what is sent with the code is what the challenge was made of, and another each time."""
    import requests

    sent, send = [], requests.Session.send

    def record(self: Any, request: Any, **options: Any) -> Any:
        sent.append(dict(parse_qsl(request.body or "")))
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", record)
    challenges = []
    for _ in range(2):
        client = browser(shop, oidc(provider))
        address = to_provider(client)
        challenges += parse_qs(urlsplit(address).query)["code_challenge"]
        assert client.get(back_from(address, "ada")).status_code == 303
    verifiers = [each["code_verifier"] for each in sent if "code_verifier" in each]
    digests = [hashlib.sha256(each.encode()).digest() for each in verifiers]
    assert [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in digests] == challenges
    assert len(set(challenges)) == 2


def test_an_answer_counts_once(shop: Shop, provider: str) -> None:
    client = browser(shop, oidc(provider))
    good = back_from(to_provider(client), "ada")
    assert client.get(good).status_code == 303
    assert client.get(good).status_code == 401


def test_a_host_that_somebody_has_made_up_leads_nobody_away(shop: Shop, provider: str) -> None:
    address = to_provider(browser(shop, oidc(provider)), headers={"Host": "evil.example"})
    assert parse_qs(urlsplit(address).query)["redirect_uri"] == [f"{PUBLIC}/log-in/oidc/callback"]


def test_a_token_for_another_client_or_of_another_issuer_is_refused(
    shop: Shop, provider: str
) -> None:
    client = browser(shop, oidc(provider))
    address = changed(to_provider(client), client_id="another")
    assert client.get(back_from(address, "ada")).status_code == 401
    elsewhere = browser(shop, oidc(provider.replace("localhost", "127.0.0.1") + "/x"))
    assert elsewhere.get("/ops/log-in/oidc").status_code == 502


def test_a_provider_that_is_away_says_nothing_of_itself(shop: Shop) -> None:
    answer = browser(shop, oidc("http://127.0.0.1:9")).get("/ops/log-in/oidc")
    assert answer.status_code == 502
    assert "127.0.0.1:9" not in answer.text


def test_no_secret_of_the_client_is_anywhere(shop: Shop, provider: str, caplog: Any) -> None:
    client = browser(shop, oidc(provider))
    texts = [client.get(back_from(changed(to_provider(client), nonce="x"), "ada")).text]
    texts += [to_provider(client), repr(vars(oidc(provider))), caplog.text]
    texts += [repr(shop.kernel.audit.page().records)]
    assert not any("hunter2" in text for text in texts)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"public_url": ""}, "public_url"),
        ({"public_url": "http://ops.example"}, "https"),
        ({"roles": {}}, "nobody could log in"),
        ({"roles": {"groups": {"ops": "operater"}}}, "nobody could log in"),
        ({"roles": {"groups": "operator"}}, "roles"),
    ],
)
def test_a_provider_is_set_up_with_care(options: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        oidc("https://sso.example", **options)


def test_a_log_in_needs_a_way() -> None:
    with pytest.raises(ConfigError, match="nobody could log in"):
        LogIn(tokens=False)


def test_tokens_are_refused_where_the_provider_alone_counts(shop: Shop, provider: str) -> None:
    _, text = shop.kernel.tokens.new("ada", roles=["admin"])
    auth = LogIn(oidc(provider), tokens=False)
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=auth))])
    client = TestClient(app, base_url="https://ops.example")
    page = client.get("/ops/log-in").text
    assert 'name="token"' not in page
    csrf = next(value for name, value in client.cookies.items() if "csrf" in name)
    answer = client.post("/ops/log-in", data={"csrf": csrf, "token": text})
    assert answer.status_code == 403


# -- a provider that misbehaves ------------------------------------------------------------------

ENDLESS = {"silent", "dripping", "dripping_headers"}
QUOTED = "token-canary-5Tg8Uj2"


@pytest.mark.parametrize("where", ["metadata", "token", "keys"])
@pytest.mark.parametrize("manner", sorted(ANSWERS.keys() - {"right", "other_type", "cookie"}))
def test_a_provider_that_misbehaves(
    manner: str, where: str, shop: Shop, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is let in, nothing of it is shown, and the log-in ends in bounded time and memory."""
    if manner in ENDLESS:
        monkeypatch.setattr("automate_pages.openid._ALL_SECONDS", 1.5)
    shop.kernel.redactor.add("hunter2")

    def answer(method: str, path: str) -> Any:
        if path.endswith("openid-configuration"):
            own = {
                "issuer": service.url, "authorization_endpoint": f"{service.url}/authorize",
                "token_endpoint": f"{service.url}/token", "jwks_uri": f"{service.url}/keys",
            }  # fmt: skip
            return own
        return {"access_token": QUOTED, "token_type": "bearer", "id_token": "a.b.c"}

    with hostile_service(answer) as service:
        service.manner = manner
        service.well = {"metadata": 0, "token": 1, "keys": 2}[where]
        client = browser(shop, oidc(service.url))
        tracemalloc.start()
        begin = time.monotonic()
        answered = client.get("/ops/log-in/oidc")
        if where != "metadata":
            state = parse_qs(urlsplit(answered.headers["location"]).query)["state"][0]
            answered = client.get(f"/ops/log-in/oidc/callback?state={state}&code={QUOTED}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert time.monotonic() - begin < 20
        assert peak < 32 * 1024 * 1024
        assert answered.status_code == (502 if where == "metadata" else 401)
        assert not service.reached and len(service.paths) <= 3
    assert shop.kernel.sessions.all() == []
    own = [each.getMessage() for each in caplog.records if each.name.startswith("automate")]
    reasons = repr([record.details for record in shop.kernel.audit.page().records])
    for text in (answered.text, reasons, *own):
        assert QUOTED not in text
        assert "hunter2" not in text


def test_log_ins_that_a_provider_keeps_waiting_are_few(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond them people are refused at once, and the pages have their threads."""
    monkeypatch.setattr("automate_pages.openid._ALL_SECONDS", 0.2)
    monkeypatch.setattr("automate_pages.openid._MOST_WAITING", 2)
    with hostile_service(lambda method, path: {}) as service:
        service.manner = "dripping_headers"
        client = browser(shop, oidc(service.url))
        for _ in range(4):
            assert client.get("/ops/log-in/oidc").status_code == 502
        assert len(service.paths) <= 2
