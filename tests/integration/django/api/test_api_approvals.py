"""Approvals over the REST API, and the page behind their links: for whom, and what they hide."""

from __future__ import annotations

from typing import Any

import pytest
from approvals_asked import ask
from automate_django import get_kernel
from automate_django.approvals import ApprovalView
from automate_kernel.http.approvals import answer_show
from automate_kernel.outbox.item import new_id
from django.contrib.auth.models import Group, Permission, User
from django.template import TemplateDoesNotExist
from django.test import Client, RequestFactory, override_settings
from rest_framework.test import APIClient

API = "/api/automate/approvals"
URL = "https://shop.example/api/automate"
FORM = [{"name": "amount", "type": "integer", "required": True, "maximum": 100}]


def tenant_by_name(request: Any) -> str:
    """The tenant of a test's user: what stands before the dash."""
    return str(request.user.get_username()).partition("-")[0]


BY_NAME = override_settings(AUTOMATE_API={"TENANT": tenant_by_name})


@pytest.fixture(autouse=True)
def nobody_yet(empty: None) -> None:
    """No users and groups of a test before."""
    Group.objects.all().delete()


def user(name: str, *permissions: str, group: str = "") -> APIClient:
    """A client of a user, who may look and decide by default."""
    found = permissions or ("view_workflowwait", "change_workflowwait")
    made = User.objects.create(username=name)
    made.user_permissions.set(Permission.objects.filter(codename__in=found))
    if group:
        made.groups.add(Group.objects.get_or_create(name=group)[0])
    client = APIClient(raise_request_exception=False)
    client.force_login(made)
    return client


def decisions() -> list[dict[str, Any]]:
    """The decisions that were sent as signals."""
    items = get_kernel().outbox.find(kind="automate.signal")
    return [item.payload["event"]["payload"] for item in items]


@BY_NAME
def test_a_user_decides_under_the_own_name_and_groups() -> None:
    """Nobody gives another name, and who is not asked gets 403 with those who are."""
    kernel = get_kernel()
    asked = ask(kernel, tenant="acme", by=["acme-ann", "role:managers"], form=FORM)
    other, manager = user("acme-bob"), user("acme-kim", group="managers")
    refused = other.post(f"{API}/{asked}/ok/approve", {"form": {"amount": 3}}, format="json")
    assert refused.status_code == 403
    assert "role:managers" in refused.json()["detail"]
    body = {"comment": "fine", "form": {"amount": 3}, "by": "acme-ann"}
    assert manager.post(f"{API}/{asked}/ok/approve", body, format="json").status_code == 400
    del body["by"]
    done = manager.post(f"{API}/{asked}/ok/approve", body, format="json")
    assert done.status_code == 200
    assert done.json()["by"] == "acme-kim"
    again = manager.post(f"{API}/{asked}/ok/reject", {}, format="json")
    assert again.status_code == 409
    assert "acme-kim" in again.json()["detail"]
    assert [each["by"] for each in decisions()] == ["acme-kim"]


@BY_NAME
def test_the_list_has_the_tenant_s_and_says_which_are_the_caller_s() -> None:
    """With the form as JSON Schema, for a user interface of the project's own."""
    kernel = get_kernel()
    mine = ask(kernel, tenant="acme", by=["acme-ann"], form=FORM)
    others = ask(kernel, tenant="acme", by=["acme-bob"])
    ask(kernel, tenant="rival", by=["acme-ann"])
    client = user("acme-ann")
    found = client.get(API).json()["results"]
    assert [(one["execution_id"], one["may_decide"]) for one in found] == [
        (mine, True), (others, False),
    ]  # fmt: skip
    assert found[0]["form"]["required"] == ["amount"]
    assert [one["execution_id"] for one in client.get(f"{API}?mine=true").json()["results"]] == [
        mine
    ]
    assert client.get(f"{API}?workflow=other").json()["results"] == []
    assert client.get(f"{API}?tenant_id=rival").status_code == 403
    assert client.get(f"{API}/{mine}/ok").json()["title"] == "Pay it back?"


@BY_NAME
def test_another_tenant_s_approval_is_not_there() -> None:
    """Whoever it names."""
    asked = ask(get_kernel(), tenant="rival", by=["acme-ann"])
    client = user("acme-ann")
    for method, path in (("get", ""), ("post", "/approve"), ("post", "/reject")):
        answer = getattr(client, method)(f"{API}/{asked}/ok{path}", format="json")
        assert answer.status_code == 404
    for path in (f"{API}/{new_id()}/ok", f"{API}/nonsense/ok", f"{API}/nonsense/ok/approve"):
        assert client.get(path).status_code in (404, 405)
    assert decisions() == []


@BY_NAME
def test_permissions_and_scopes_stand_before_it(token: Any) -> None:
    """To look, and to decide."""
    asked = ask(get_kernel(), tenant="acme")
    looker = user("acme-lea", "view_workflowwait")
    assert looker.get(API).status_code == 200
    assert looker.post(f"{API}/{asked}/ok/approve", {}, format="json").status_code == 403
    assert user("acme-tom", "view_outboxitem").get(API).status_code == 403
    reading = token("approvals:read", tenant_id="acme")
    assert len(reading.get(API).json()["results"]) == 1
    assert reading.post(f"{API}/{asked}/ok/approve", {}, format="json").status_code == 403
    writing = token("approvals:write", tenant_id="acme")
    assert writing.post(f"{API}/{asked}/ok/approve", {}, format="json").status_code == 200
    assert [each["by"] for each in decisions()] == ["token:test"]


@BY_NAME
def test_errors_of_the_form_point_to_its_fields() -> None:
    """As other validation errors do; nothing is decided."""
    asked = ask(get_kernel(), tenant="acme", form=FORM)
    body = {"form": {"amount": 101, "more": 1}}
    answer = user("acme-ann").post(f"{API}/{asked}/ok/approve", body, format="json")
    assert answer.status_code == 400
    pointers = {each["pointer"]: each["detail"] for each in answer.json()["errors"]}
    assert pointers == {
        "#/form/amount": "must be at most 100",
        "#/form/more": "is no field of this form",
    }
    assert decisions() == []


# -- links -----------------------------------------------------------------------------------------


def link(**options: Any) -> str:
    """The path of a link, below the address that the settings give."""
    asked = ask(get_kernel(), **options)
    made = get_kernel().approvals.link(asked, "ok", by="ann")
    assert made.startswith(f"{URL}/approvals/")
    return made.removeprefix("https://shop.example")


@override_settings(AUTOMATE_APPROVALS={"PUBLIC_URL": URL})
def test_a_link_is_answered_without_an_account(markup_of: Any) -> None:
    """Looking decides nothing; the form decides, without a CSRF token, and once."""
    path = link(form=FORM, description="<b>x</b>", title='"><script>')
    client = Client(enforce_csrf_checks=True)
    shown = client.get(path)
    assert shown.status_code == 200
    for name, value in (("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")):
        assert shown.headers[name] == value
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert "<script" not in shown.content.decode()
    assert "&lt;b&gt;" in shown.content.decode()
    # The policy allows that style by its hash.
    assert markup_of(shown.content.decode()).wrong == ["inline <style>"]
    assert decisions() == []
    wrong = client.post(path, {"decision": "approve", "form.amount": "many"})
    assert wrong.status_code == 422
    assert "Amount must be a whole number." in wrong.content.decode()
    done = client.post(path, {"decision": "approve", "form.amount": "12", "comment": "ok"})
    assert done.status_code == 200
    assert [(each["by"], each["form"]) for each in decisions()] == [("ann", {"amount": 12})]
    gone = [client.get(path), client.post(path, {"decision": "reject"})]
    gone.append(client.get("/api/automate/approvals/x.y"))
    assert {each.status_code for each in gone} == {410}
    assert len({each.content for each in gone}) == 1
    assert client.delete(path).status_code == 405


@override_settings(AUTOMATE_APPROVALS={"PUBLIC_URL": URL})
def test_links_survive_a_new_secret_key() -> None:
    """As long as the former one is among SECRET_KEY_FALLBACKS."""
    path = link()
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["for tests"]):
        assert Client().get(path).status_code == 200
    with override_settings(SECRET_KEY="another"):
        assert Client().get(path).status_code == 410


def test_keys_of_the_project_s_own_take_the_place_of_secret_key() -> None:
    """For a worker that is no Django project, and shares the database."""
    key = "a-key-that-two-services-have-in-common"
    with override_settings(AUTOMATE_APPROVALS={"PUBLIC_URL": URL, "SIGNING_KEYS": [key]}):
        path = link()
        with override_settings(SECRET_KEY="another"):
            assert Client().get(path).status_code == 200


@override_settings(AUTOMATE_APPROVALS={"PUBLIC_URL": URL})
def test_the_page_is_that_of_every_host() -> None:
    """Its style is in it, and is all that the browser may use."""
    path = link(form=FORM)
    shown, kernel = Client().get(path), get_kernel()
    expected = answer_show(kernel.approvals, path.rpartition("/")[2])
    assert shown.content.decode() == expected.body
    policy = shown.headers["Content-Security-Policy"]
    assert policy == expected.headers["Content-Security-Policy"] and "'sha256-" in policy


OWN_PAGE = "<h1>{{ page.heading }}</h1><form method=post>{{ page.form_fields }}</form>"


@override_settings(
    AUTOMATE_APPROVALS={"PUBLIC_URL": URL},
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"automate_django/approval.html": OWN_PAGE},
                    )
                ]
            },
        }
    ],
)
def test_a_project_gives_the_page_its_own_look() -> None:
    """By a template, which gets the fields as HTML and brings its own style."""
    shown = Client().get(link(form=FORM, title="<Order>"))
    text = shown.content.decode()
    assert text.startswith("<h1>&lt;Order&gt;</h1>") and 'name="form.amount"' in text
    assert "style-src 'self'" in shown.headers["Content-Security-Policy"]


def test_a_misspelt_template_is_an_error() -> None:
    """And not the page as it is without a template."""
    view = ApprovalView.as_view(template_name="shop/aproval.html")
    with pytest.raises(TemplateDoesNotExist):
        view(RequestFactory().get("/"), token="no-link")
