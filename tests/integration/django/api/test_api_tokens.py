"""Tokens: what is stored of them, what they open, and what ends them."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.models import ApiToken
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

SCOPED = "/service/scoped"


def bearer(text: str) -> APIClient:
    """A client that sends *text* as its token."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def test_only_a_digest_is_stored(token: Any) -> None:
    """No column, name or representation holds the token."""
    client = token()
    secret = client.text.split("_", 2)[2]
    stored = ApiToken.objects.values().get()
    assert secret not in json.dumps(stored, default=str)
    assert len(stored["digest"]) == 64
    for text in (str(client.token), repr(client.token), client.token.shown):
        assert secret not in text
    assert client.token.prefix in client.token.shown


def test_a_token_opens(token: Any, world: Any) -> None:
    """A service's is known by its name, a user's by the user."""
    assert token("reports:read").get(SCOPED).json() == {"user": "test"}
    assert token("reports:read", user=world.alice).get(SCOPED).json() == {"user": "alice"}


def refusals(token: Any, world: Any) -> dict[str, str]:
    """Tokens that open nothing, by why."""
    expired = token("*", expires_at=timezone.now() - timedelta(seconds=1))
    revoked = token("*")
    revoked.token.revoke()
    gone = User.objects.create(username="gone")
    of_gone = token("*", user=gone)
    gone.delete()
    User.objects.filter(pk=world.roman.pk).update(is_active=False)
    of_inactive = token("*", user=world.roman)
    good = token("*").text
    return {
        "expired": expired.text,
        "revoked": revoked.text,
        "user gone": of_gone.text,
        "user inactive": of_inactive.text,
        "another secret": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "another prefix": good.replace(good.split("_")[1], "0" * 12),
        "prefix alone": good.rpartition("_")[0],
        "empty": "",
        "another kind": "sk_live_abcdef",
        "strange": "atk_\x00_\udcff",
    }


def test_what_does_not_open_is_refused_alike(token: Any, world: Any) -> None:
    """One 401 for every reason: nobody learns that a token was right once."""
    answers = set()
    for why, text in refusals(token, world).items():
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
        response = client.get(SCOPED)
        assert response.status_code == 401, why
        answers.add((response.content, response["WWW-Authenticate"]))
    assert len(answers) == 1


def test_the_comparison_takes_as_long_for_an_unknown_token(
    token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compare_digest` is called for a token that is not there as for one that is."""
    import hmac

    compared = []
    genuine = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return genuine(one, other)

    monkeypatch.setattr("automate_kernel.access.tokens.hmac.compare_digest", compare)
    token()
    ApiToken.objects.matching("atk_unknown_x")
    ApiToken.objects.matching("nothing")
    assert compared == [(64, 64), (64, 64)]


@pytest.mark.parametrize(
    ("scopes", "method", "status"),
    [
        (["reports:read"], "get", 200),
        (["reports:read"], "post", 403),
        (["reports:read", "reports:write"], "post", 200),
        (["reports:*"], "post", 200),
        (["*"], "post", 200),
        (["reports"], "get", 403),
        (["events:write"], "get", 403),
        # Not named by the view: the scope for whatever names none.
        (["reports:*"], "put", 403),
        (["api:write"], "put", 200),
    ],
)
def test_scopes(token: Any, scopes: list[str], method: str, status: int) -> None:
    """A token does what its scopes say, and nothing that nobody thought of."""
    assert getattr(token(*scopes), method)(SCOPED).status_code == status


def test_a_view_that_asks_for_no_scope_asks_for_apis(world: Any, token: Any) -> None:
    """A token for events opens none of the project's own views."""
    tenant = str(world.acme.pk)
    projects = "/service/projects/"
    assert token("events:write", tenant_id=tenant).get(projects).status_code == 403
    reader = token("api:read", tenant_id=tenant)
    assert reader.get(projects).status_code == 200
    assert reader.post(projects, {"name": "x"}, format="json").status_code == 403


def test_use_is_noted_once_a_minute(token: Any) -> None:
    """One write in a minute, however many requests."""
    client = token("*")
    connection = connections[ApiToken.objects.db]
    with CaptureQueriesContext(connection) as first:
        client.get(SCOPED)
    with CaptureQueriesContext(connection) as second:
        client.get(SCOPED)
    updates = [
        sum(query["sql"].startswith("UPDATE") for query in queries) for queries in (first, second)
    ]
    assert updates == [1, 0]
    used = ApiToken.objects.get().last_used_at
    assert used is not None
    ApiToken.objects.update(last_used_at=used - timedelta(minutes=2))
    client.get(SCOPED)
    assert ApiToken.objects.get().last_used_at >= used


def test_revoking_works_at_once(token: Any) -> None:
    """The next request is refused."""
    client = token("*")
    assert client.get(SCOPED).status_code == 200
    assert client.token.revoke() is True
    assert client.get(SCOPED).status_code == 401
    assert client.token.revoke() is False


def test_tokens_are_looked_up_where_they_are_written(token: Any, replica: str) -> None:
    """A replica hears of a new one later, and of its revocation."""
    client = token("*")
    assert client.get(SCOPED).status_code == 200
    assert type(client.token).objects.get().last_used_at is not None
    client.token.revoke()
    assert client.get(SCOPED).status_code == 401


# -- manage.py automate tokens -------------------------------------------------------------------


def run(*arguments: str) -> tuple[str, str]:
    """What the command prints, on both streams."""
    out, err = io.StringIO(), io.StringIO()
    call_command("automate", "tokens", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_prints_a_token_once(empty: None) -> None:
    """It works, and no later command shows it."""
    out, err = run("new", "ci", "--tenant", "acme", "--scope", "reports:*", "--days", "90")
    text = out.strip()
    assert bearer(text).get(SCOPED).status_code == 200
    token = ApiToken.objects.get()
    assert (token.tenant_id, token.scopes, token.user_id) == ("acme", ["reports:*"], None)
    assert timedelta(days=89) < token.expires_at - timezone.now() < timedelta(days=91)
    listed, _ = run("ls")
    as_json, _ = run("ls", "--json")
    secret = text.split("_", 2)[2]
    assert secret not in listed + as_json + err
    assert json.loads(as_json)[0]["prefix"] == token.shown
    run("revoke", token.shown)
    assert bearer(text).get(SCOPED).status_code == 401
    assert "revoked" in run("ls")[0]
    trail = [each.action for each in get_kernel().audit.page(model="token").records]
    assert trail == ["revoke", "new"]


def test_the_command_says_what_is_wrong(empty: None) -> None:
    """No traceback, and nothing is made."""
    for arguments, told in (
        (["new", "x", "--scope", "*", "--user", "noone"], "no user 'noone'"),
        (["new", "x", "--scope", "*", "--days", "soon"], "days"),
        (["new", "x" * 201, "--scope", "*"], "the name is too long"),
        (["new", "x", "--scope", "*", "--tenant", ""], "tenant_id is empty"),
        (["new", "x", "--scope", "*", "--tenant", "acme "], "tenant_id has spaces around it"),
        (["revoke", "atk_0000"], "no token"),
        (["new", "x"], "--role"),
    ):
        with pytest.raises(CommandError, match=told):
            run(*arguments)
    assert not ApiToken.objects.exists()


def test_a_users_token(empty: None) -> None:
    """``--user`` binds it: it is no token of all tenants."""
    user = User.objects.create(username="alice")
    out, _ = run("new", "cli", "--user", "alice", "--scope", "*")
    token = ApiToken.objects.get()
    assert (token.user_id, token.all_tenants) == (str(user.pk), 0)
    assert bearer(out.strip()).get(SCOPED).json() == {"user": "alice"}


# -- the admin -----------------------------------------------------------------------------------


@pytest.fixture
def staff(empty: None) -> Any:
    """A logged-in member of the staff, with permissions."""

    def make(*permissions: str, **options: Any) -> APIClient:
        user = User.objects.create(username=f"s{User.objects.count()}", is_staff=True, **options)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = APIClient(enforce_csrf_checks=False)
        client.force_login(user)
        client.user = user
        return client

    return make


ADD, LIST = "/admin/automate_django/apitoken/add/", "/admin/automate_django/apitoken/"


def test_the_admin_shows_a_token_once(staff: Any) -> None:
    """On the page that answers the form, and on no other: not in a message, a list or a log."""
    client = staff(is_superuser=True)
    given = {"name": "ci", "scopes": ["*"], "tenant_id": "acme"}
    response = client.post(ADD, given)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    page = response.content.decode()
    token = ApiToken.objects.get()
    text = page.partition(f"atk_{token.prefix}_")[2].partition("<")[0]
    assert len(text) == 43
    assert bearer(f"atk_{token.prefix}_{text}").get(SCOPED).status_code == 200
    for path in (LIST, f"{LIST}{token.pk}/change/", f"{LIST}{token.pk}/history/"):
        shown = client.get(path)
        assert shown.status_code == 200
        assert text not in shown.content.decode()
        assert token.digest not in shown.content.decode()
    assert (token.tenant_id, token.user_id, token.all_tenants) == ("acme", None, False)


def test_who_is_no_operator_makes_own_tokens_alone(staff: Any) -> None:
    """Posting another user, tenant or all of them changes nothing."""
    client = staff("add_apitoken", "view_apitoken")
    other = User.objects.create(username="other", is_superuser=True)
    given = {
        "name": "x", "scopes": ["*"], "user_id": str(other.pk), "tenant_id": "rival",
        "all_tenants": "on",
    }  # fmt: skip
    assert client.post(ADD, given).status_code == 200
    token = ApiToken.objects.get()
    assert (token.user_id, token.tenant_id, token.all_tenants) == (
        str(client.user.pk),
        None,
        False,
    )


def test_an_operator_makes_no_token_for_another_user(staff: Any) -> None:
    """That would be to become that user."""
    client = staff("add_apitoken", "operate_outbox")
    other = User.objects.create(username="other", is_superuser=True)
    given = {"name": "x", "scopes": ["*"], "user_id": str(other.pk), "tenant_id": "acme"}
    client.post(ADD, given)
    assert (ApiToken.objects.get().user_id, ApiToken.objects.get().tenant_id) == (None, "acme")


def test_others_tokens_are_not_listed_nor_revoked(staff: Any) -> None:
    """A member of the staff sees the own ones; the bulk action takes those alone."""
    client = staff("view_apitoken", "change_apitoken")
    theirs, _ = ApiToken.objects.issue("of-another-9a3f", scopes=["*"])
    own, _ = ApiToken.objects.issue("own", user=client.user, scopes=["*"])
    page = client.get(LIST).content.decode()
    assert "own" in page
    assert "9a3f" not in page
    client.post(
        LIST, {"action": "revoke_selected", "_selected_action": [str(theirs.pk), str(own.pk)]}
    )
    states = dict(ApiToken.objects.values_list("name", "revoked_at"))
    assert states["own"] is not None
    assert states["of-another-9a3f"] is None


def test_a_digest_cant_be_guessed_by_filters(staff: Any) -> None:
    """``?digest__startswith=`` is no oracle."""
    client = staff("view_apitoken", "operate_outbox")
    token, _ = ApiToken.objects.issue("x-9a3f", scopes=["*"])
    for guess in (token.digest[:4], "zzzz"):
        response = client.get(f"{LIST}?digest__startswith={guess}")
        assert (response.status_code, b"9a3f" in response.content) in ((302, False), (400, False))
    assert b"9a3f" in client.get(f"{LIST}?name__startswith=x").content


def test_viewing_is_not_revoking(staff: Any) -> None:
    """The action needs the permission to change."""
    client = staff("view_apitoken", "operate_outbox")
    token, _ = ApiToken.objects.issue("x", scopes=["*"])
    client.post(LIST, {"action": "revoke_selected", "_selected_action": [str(token.pk)]})
    assert ApiToken.objects.get().revoked_at is None


def test_a_token_needs_a_scope(staff: Any) -> None:
    """One without any would do nothing, and look as if it did."""
    response = staff(is_superuser=True).post(ADD, {"name": "ci", "tenant_id": "acme"})
    assert "could do nothing" in response.content.decode()
    assert not ApiToken.objects.exists()
