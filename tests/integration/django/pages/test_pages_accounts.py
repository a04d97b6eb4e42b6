"""The page of accounts: who connects a plugin, whose answer counts, and what is never shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from automate_kernel import Connector

pytestmark = pytest.mark.plugins

for name in ("authlib", "oauthlib", "automate_http"):
    pytest.importorskip(name, reason="uv run --group plugins pytest tests")

import httpx  # noqa: E402
from authorization_server import SECRET, AuthorizationServer  # noqa: E402
from automate_http import OAuth2  # noqa: E402

BASE = "/admin/automate_django/outboxitem/accounts/"
CONNECT, DISCONNECT = f"{BASE}connector/crm/connect/", f"{BASE}connector/crm/disconnect/"
# As the browser of a person on this machine asks.
HOST = {"HTTP_HOST": "127.0.0.1:8000"}


class Crm(Connector):
    key = "crm"
    display_name = "CRM"

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
    display_name = "Plain"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthorizationServer]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # of the server alone
    found = AuthorizationServer()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(autouse=True)
def project(
    database: str, server: AuthorizationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A project with two connectors, and a place for tokens."""
    from automate_django.models import AuditEntry
    from django.test import override_settings

    AuditEntry.objects.all().delete()
    monkeypatch.setenv("AUTOMATE_SECRET_CRM_SECRET", SECRET)
    secrets = [
        "automate_kernel.secrets.EnvSecretsBackend",
        {
            "BACKEND": "automate_kernel.secrets.WritableFileSecretsBackend",
            "OPTIONS": {"directory": str(tmp_path / "tokens")},
        },
    ]
    with override_settings(
        AUTOMATE_CONNECTORS=[Crm, Plain],
        AUTOMATE_CONFIG={"crm": {"url": server.url}},
        AUTOMATE_SECRETS=secrets,
        ALLOWED_HOSTS=["127.0.0.1", "testserver"],
    ):
        yield


@pytest.fixture
def operator(staff: Callable[..., Any]) -> Any:
    return staff("operate_outbox", **HOST)


def begin(client: Any, tenant: str = "") -> str:
    """Press the button, and return the service's page."""
    answer = client.post(CONNECT, {"tenant": tenant})
    assert answer.status_code == 302
    return str(answer["Location"])


def consent(url: str) -> str:
    """Say yes at the service, and return the path to which it sends the browser."""
    back = urlsplit(httpx.get(url, follow_redirects=False).headers["location"])
    assert back.netloc == HOST["HTTP_HOST"]
    return f"{back.path}?{back.query}"


def tokens(tmp_path: Path, tenant: str = "") -> Any:
    file = tmp_path / "tokens" / f"crm-account{tenant and f'.tenant.{tenant}'}"
    return json.loads(file.read_text()) if file.exists() else None


def test_an_operator_connects_and_disconnects_an_account(
    operator: Any, server: AuthorizationServer, tmp_path: Path, markup_of: Callable[[str], Any]
) -> None:
    """With PKCE and state; the tokens are stored, and shown nowhere."""
    from automate_django.models import AuditEntry

    page = operator.get(BASE).content.decode()
    assert markup_of(page).wrong == []
    assert "not connected" in page
    assert "plain" not in page
    assert f"http://127.0.0.1:8000{BASE}callback/" in page

    url = begin(operator)
    assert parse_qs(urlsplit(url).query)["code_challenge_method"] == ["S256"]
    done = operator.get(consent(url))
    assert (done.status_code, done["Location"]) == (302, BASE)
    assert done["Referrer-Policy"] == "no-referrer"
    kept = tokens(tmp_path)
    assert kept["connected_by"] == operator.user.username
    assert server.grants == ["authorization_code"]

    page = operator.get(BASE).content.decode()
    assert markup_of(page).wrong == []
    assert "The account of crm is connected." in page
    assert operator.user.username in page
    assert "renewed by itself" in page
    written = json.dumps(list(AuditEntry.objects.values("action", "object_repr", "changes")))
    for value in (kept["access_token"], kept["refresh_token"], SECRET):
        assert value not in page
        assert value not in written
    assert [each.action for each in AuditEntry.objects.all()] == ["connect"]

    assert operator.post(DISCONNECT).status_code == 302
    assert tokens(tmp_path) is None
    assert "not connected" in operator.get(BASE).content.decode()


def test_each_tenant_has_an_account_of_its_own(
    operator: Any, server: AuthorizationServer, tmp_path: Path, markup_of: Callable[[str], Any]
) -> None:
    """The page of one shows and changes no other's, nor the application's."""
    operator.get(consent(begin(operator)))
    assert "not connected" in operator.get(BASE, {"tenant": "acme"}).content.decode()
    done = operator.get(consent(begin(operator, "acme")))
    assert done["Location"] == f"{BASE}?tenant=acme"
    own, of_acme = tokens(tmp_path), tokens(tmp_path, "acme")
    assert own["access_token"] != of_acme["access_token"]
    page = operator.get(done["Location"]).content.decode()
    assert markup_of(page).wrong == []
    assert "The account of crm for the tenant acme is connected." in page

    operator.post(DISCONNECT, {"tenant": "acme"})
    assert tokens(tmp_path, "acme") is None
    assert tokens(tmp_path) == own
    assert operator.get(BASE, {"tenant": "<b>"}).content.decode().count("<b>") == 0


def test_looking_imports_no_plugin_whose_manifest_names_no_account(operator: Any) -> None:
    """The page is as quick as there are few accounts."""
    from automate_django.kernel import get_kernel
    from django.test import override_settings

    with override_settings(AUTOMATE_PLUGINS={"DISCOVER": True}):
        assert "not connected" in operator.get(BASE).content.decode()
        states = {one.key: one.state for one in get_kernel().plugins.records("connector")}
    loaded = sorted(key for key, state in states.items() if state == "LOADED")
    # That of mail names one, where it is installed.
    assert [key for key in loaded if key != "mail"] == ["crm", "plain"]
    assert states["http"] == "DISCOVERED"


def test_an_answer_counts_once(operator: Any, server: AuthorizationServer, tmp_path: Path) -> None:
    """A second time, and one with a state that was not asked for, nobody is asked."""
    answer = consent(begin(operator))
    operator.get(answer)
    operator.post(DISCONNECT)
    operator.get(answer)
    assert "begin again" in operator.get(BASE).content.decode()
    for query in ("", "?code=x", "?code=x&state=guessed", "?error=access_denied&state=guessed"):
        operator.get(f"{BASE}callback/{query}")
        assert "begin again" in operator.get(BASE).content.decode()
    assert server.grants == ["authorization_code"]
    assert tokens(tmp_path) is None


def test_an_answer_counts_only_where_it_was_asked_for(
    operator: Any, staff: Callable[..., Any], server: AuthorizationServer, tmp_path: Path
) -> None:
    """Nobody is led to connect an account of somebody else's."""
    other = staff("operate_outbox", **HOST)
    answer = consent(begin(other))
    operator.get(answer)
    assert "begin again" in operator.get(BASE).content.decode()
    assert server.grants == []
    assert tokens(tmp_path) is None


def test_an_answer_that_comes_late_is_refused(
    operator: Any, server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    answer = consent(begin(operator))
    now = time.time()
    monkeypatch.setattr("automate_django.admin.pages.accounts.time.time", lambda: now + 601)
    operator.get(answer)
    monkeypatch.undo()
    assert server.grants == []


def test_two_questions_at_once_are_both_answered(
    operator: Any, server: AuthorizationServer
) -> None:
    """In two tabs; only the newest few are remembered."""
    first, second = begin(operator), begin(operator)
    operator.get(consent(second))
    operator.get(consent(first))
    assert server.grants == ["authorization_code"] * 2
    old = begin(operator)
    for _ in range(5):
        begin(operator)
    operator.get(consent(old))
    assert server.grants == ["authorization_code"] * 2


@pytest.mark.parametrize("permissions", [(), ("view_outboxitem", "call_operation")])
def test_it_is_for_operators(
    staff: Callable[..., Any], server: AuthorizationServer, permissions: tuple[str, ...]
) -> None:
    """An account is the application's: a tenant's staff can't touch it."""
    client = staff(*permissions, **HOST)
    assert client.get(BASE).status_code == 403
    assert client.get(f"{BASE}callback/?code=x&state=y").status_code == 403
    assert client.post(CONNECT).status_code == 403
    assert client.post(DISCONNECT).status_code == 403


def test_buttons_need_post_and_csrf(staff: Callable[..., Any]) -> None:
    client = staff("operate_outbox", enforce_csrf_checks=True, **HOST)
    assert client.post(CONNECT).status_code == 403
    assert client.post(DISCONNECT).status_code == 403
    assert client.get(CONNECT).status_code == 405
    assert client.post(f"{BASE}callback/?code=x&state=y").status_code in (403, 405)


def test_a_plugin_without_an_account_is_not_found(operator: Any) -> None:
    for key in ("plain", "nothing"):
        assert operator.post(f"{BASE}connector/{key}/connect/").status_code == 404
    assert operator.post(f"{BASE}filter/crm/connect/").status_code == 404


def test_a_no_and_a_failure_are_shown(operator: Any, server: AuthorizationServer) -> None:
    """The question is over then; and nothing of the service's words is markup."""
    from automate_django.models import AuditEntry

    server.denies = True
    operator.get(consent(begin(operator)))
    assert "The account of crm was not connected: the account was not connected: access_denied" in (
        operator.get(BASE).content.decode()
    )
    server.denies = False
    answer = consent(begin(operator))
    server.trouble = (503, b"<script>")
    operator.get(answer)
    page = operator.get(BASE).content.decode()
    assert "The account of crm was not connected" in page
    assert "<script>" not in page
    actions = AuditEntry.objects.values_list("action", flat=True)
    assert list(actions) == ["connect_failed", "connect_failed"]


def test_a_project_without_a_place_for_tokens_is_told_so(
    operator: Any, server: AuthorizationServer
) -> None:
    """Before a person's work."""
    from django.test import override_settings

    with override_settings(AUTOMATE_SECRETS=["automate_kernel.secrets.EnvSecretsBackend"]):
        page = operator.get(BASE).content.decode()
        assert "no secrets backend that can be written to" in page
        assert "WritableFileSecretsBackend" in page, "the remedy"
        answer = operator.post(CONNECT)
        assert answer["Location"] == BASE
    assert server.grants == []


def test_a_missing_secret_of_the_client_is_told(
    operator: Any, server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a person's work, too."""
    monkeypatch.delenv("AUTOMATE_SECRET_CRM_SECRET")
    assert operator.post(CONNECT)["Location"] == BASE
    page = operator.get(BASE).content.decode()
    assert "CRM_SECRET" in page
    assert "set the environment variable" in page
    assert server.grants == []


def test_a_broken_plugin_hides_no_other(operator: Any) -> None:
    """Its own row says what is wrong with it."""
    from django.test import override_settings

    class Odd(Crm):
        key = "odd"

        def oauth(self) -> OAuth2:
            raise KeyError("nowhere")

    with override_settings(AUTOMATE_CONNECTORS=[Crm, Odd], AUTOMATE_CONFIG={
        key: {"url": "http://127.0.0.1:1"} for key in ("crm", "odd")
    }):  # fmt: skip
        page = operator.get(BASE).content.decode()
    assert "not connected" in page
    assert "KeyError: &#x27;nowhere&#x27;" in page


def test_a_renewal_that_failed_is_shown(
    operator: Any, server: AuthorizationServer, tmp_path: Path
) -> None:
    """With the last error, and whether a person has to do something."""
    operator.get(consent(begin(operator)))
    file = tmp_path / "tokens" / "crm-account"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "error": "UNAVAILABLE: it was <away>"}))
    page = operator.get(BASE).content.decode()
    assert "it was &lt;away&gt;" in page
    file.write_text(json.dumps({**kept, "revoked": True}))
    assert ">ended<" in operator.get(BASE).content.decode()
