"""A person connects a plugin to an account on the pages, in any host: whose answer counts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from page_hosts import in_fastapi, in_flask, on_uvicorn, on_waitress

from automate_kernel import Connector, Kernel
from automate_kernel.secrets import EnvSecretsBackend, WritableFileSecretsBackend
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import AUDIT, CONSENT
from automate_pages import LogIn, User, pages

pytestmark = pytest.mark.plugins

for name in ("authlib", "oauthlib", "automate_http"):
    pytest.importorskip(name, reason="uv run --group plugins pytest tests")

import httpx  # noqa: E402
from authorization_server import SECRET, AuthorizationServer  # noqa: E402
from automate_http import OAuth2  # noqa: E402

ACCOUNTS = "/shop/ops/accounts"


class Crm(Connector):
    """A service whose account is a person's."""

    key = "crm"

    def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
        super().__init__(config, ctx=ctx)
        url = self.config["url"]
        self.auth = OAuth2(
            "crm-account", authorize_url=f"{url}/authorize", token_url=f"{url}/token",
            client_id="crm", client_secret="CRM_SECRET", allow_private_networks=["127.0.0.1"],
        )  # fmt: skip

    def oauth(self) -> OAuth2:
        return self.auth


class Plain(Connector):
    """It has no account."""

    key = "plain"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthorizationServer]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # of the server alone
    found = AuthorizationServer()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture
def kernel(
    server: AuthorizationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kernel]:
    monkeypatch.setenv("AUTOMATE_SECRET_CRM_SECRET", SECRET)
    secrets = [EnvSecretsBackend(), WritableFileSecretsBackend(tmp_path / "tokens")]
    made = Kernel(
        MemoryStorage(), discover=False, plugins=[Crm, Plain], config={"crm": {"url": server.url}},
        secrets=secrets,
    )  # fmt: skip
    yield made
    made.close()


class Person:
    """A person with a browser of their own."""

    def __init__(self, host: str) -> None:
        self.browser = httpx.Client(base_url=host, follow_redirects=True)

    def send(self, path: str, **form: str) -> str:
        csrf = re.findall(r'name="csrf" value="([^"]+)"', self.browser.get(ACCOUNTS).text)
        data = {"csrf": csrf[0] if csrf else "", **form}
        origin = str(self.browser.base_url).rstrip("/")
        return self.browser.post(path, data=data, headers={"Origin": origin}).text

    def begin(self, key: str = "crm", tenant: str = "") -> str:
        """Press the button, and return the address of the service's page."""
        page = self.send(ACCOUNTS, order="connect", kind="connector", name=key, tenant=tenant)
        found = re.findall(r'href="(http[^"]+)" rel="noreferrer"', page)
        return html.unescape(found[0]) if found else page

    def allow(self, url: str) -> str:
        """Say yes at the service, and return the address to which it sends the browser."""
        return str(httpx.get(url).headers["location"])

    def get(self, url: str) -> str:
        return self.browser.get(url).text


@pytest.fixture(params=["fastapi", "flask"])
def host(request: pytest.FixtureRequest, kernel: Kernel) -> Iterator[str]:
    app = pages(kernel, auth=lambda _: User("ada", ["admin"], None))
    fast = request.param == "fastapi"
    with on_uvicorn(in_fastapi(app)) if fast else on_waitress(in_flask(app)) as url:
        yield url


def test_an_admin_connects_and_disconnects_an_account(
    host: str, kernel: Kernel, server: AuthorizationServer, tmp_path: Path
) -> None:
    """With PKCE and state; tokens and what proves the answer are in no page, trail or table."""
    ada = Person(host)
    assert f"<code>{host}{ACCOUNTS}/callback</code>" in ada.get(ACCOUNTS)
    url = ada.begin(tenant="acme")
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{host}{ACCOUNTS}/callback"]
    with kernel.storage.begin() as rows:
        (row,) = rows.select(CONSENT)
    page = ada.get(ada.allow(url))
    assert "The account of crm for the tenant acme is connected." in page
    assert "CONNECTED" in page
    assert "NOT CONNECTED" in ada.get(ACCOUNTS)
    tokens = json.loads((tmp_path / "tokens" / "crm-account.tenant.acme").read_text())
    assert (tokens["connected_by"], server.grants) == ("ada", ["authorization_code"])
    with kernel.storage.begin() as rows:
        assert rows.select(CONSENT) == []
        written = json.dumps([row, *rows.select(AUDIT)], default=str)
    kept = next(value for name, value in ada.browser.cookies.items() if "_kept" in name)
    for secret in (tokens["access_token"], tokens["refresh_token"], SECRET, kept):
        assert secret not in page
        assert secret not in written
    trail = {(each.action, each.outcome) for each in kernel.audit.page().records}
    assert {("connect", "done"), ("connected", "done")} <= trail
    gone = ada.send(ACCOUNTS, order="disconnect", kind="connector", name="crm", tenant="acme")
    assert "its tokens were deleted here" in gone


def test_an_answer_counts_once_and_where_it_was_asked_for(
    host: str, kernel: Kernel, server: AuthorizationServer
) -> None:
    """Nobody is led to connect an account of somebody else's."""
    ada, other = Person(host), Person(host)
    answer = ada.allow(ada.begin())
    assert "was not connected" in other.get(answer)
    assert "is connected" in ada.get(answer)
    assert "was not connected" in ada.get(answer)
    first, second = ada.begin(), ada.begin()
    assert "was not connected" in ada.get(ada.allow(first))
    assert "is connected" in ada.get(ada.allow(second))
    for query in ("", "?code=x", "?code=x&state=guessed", "?error=access_denied&state=%00%ff"):
        assert "was not connected" in ada.get(f"{host}{ACCOUNTS}/callback{query}")
    assert server.grants == ["authorization_code"] * 2
    for key in ("plain", "nosuch"):
        assert "bad" in ada.begin(key)


def test_only_admins_of_all_tenants_connect_and_in_their_own_session(
    kernel: Kernel, server: AuthorizationServer
) -> None:
    with on_uvicorn(in_fastapi(pages(kernel, auth=LogIn()))) as url:

        def logged_in(name: str, role: str, tenant: str | None = None) -> Person:
            _, text = kernel.tokens.new(name, roles=[role], tenant_id=tenant)
            found = Person(url)
            found.get("/shop/ops/log-in")
            csrf = re.findall(r'name="csrf" value="([^"]+)"', found.get("/shop/ops/log-in"))
            found.browser.post("/shop/ops/log-in", data={"csrf": csrf[0], "token": text})
            return found

        ada, eve = logged_in("ada", "admin"), logged_in("eve", "operator")
        answer = ada.allow(ada.begin())
        for person in (eve, logged_in("mia", "admin", "acme")):
            assert "http" not in person.begin()[:4]
            assert person.browser.get(answer).status_code == 403
        # The same person, the same browser, another session.
        again = logged_in("ada", "admin")
        kept = [each for each in ada.browser.cookies.jar if "_kept" in each.name]
        again.browser.cookies.jar.set_cookie(kept[0])
        assert "was not connected" in again.get(answer)
        assert "is connected" in ada.get(answer)
        assert server.grants == ["authorization_code"]
