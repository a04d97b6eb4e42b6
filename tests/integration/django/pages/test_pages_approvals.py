"""The pages of approvals: what a user sees, may decide, and what is written down of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from approvals_asked import ask

BASE = "/admin/automate_django/workflowwait/"
FORM = [{"name": "amount", "type": "integer", "required": True, "help": "In euros."}]
MAY = ("view_workflowwait", "change_workflowwait", "operate_outbox")


@pytest.fixture
def member(staff: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a staff user in a group."""
    from django.contrib.auth.models import Group

    def member(*permissions: str, group: str = "", **options: Any) -> Any:
        client = staff(*permissions, **options)
        if group:
            client.user.groups.add(Group.objects.get_or_create(name=group)[0])
        return client

    return member


def wait_of(execution_id: str) -> Any:
    from automate_django.models import WorkflowWait

    return WorkflowWait.objects.get(execution_id=execution_id)


def decisions(kernel: Any) -> list[dict[str, Any]]:
    items = kernel.outbox.find(kind="automate.signal")
    return [item.payload["event"]["payload"] for item in items]


def test_users_see_what_waits_for_them_and_decide_it(
    kernel: Any, member: Callable[..., Any], markup_of: Callable[[str], Any]
) -> None:
    """By their group too; the audit trail has the decision."""
    from automate_django.models import AuditEntry

    AuditEntry.objects.all().delete()
    asked = ask(kernel, by=["role:managers"], title="Refund <b>4711</b>?", form=FORM)
    other = ask(kernel, by=["somebody"], title="Not mine")
    client = member(*MAY, group="managers")
    page = client.get(BASE)
    assert "Refund &lt;b&gt;4711&lt;/b&gt;?" in page.content.decode()
    assert "Not mine" not in page.content.decode()
    assert "Not mine" in client.get(f"{BASE}?for=all").content.decode()
    form = client.get(f"{BASE}{wait_of(asked).pk}/change/")
    assert 'name="form.amount"' in form.content.decode()
    for each in (page, form):
        assert markup_of(each.content.decode()).wrong == []
    decide = f"{BASE}{wait_of(asked).pk}/decide/"
    wrong = client.post(decide, {"decision": "approve", "form.amount": "x"})
    assert wrong.status_code == 422
    assert "Amount must be a whole number." in wrong.content.decode()
    done = client.post(
        decide, {"decision": "approve", "form.amount": "7", "comment": "ok"}, follow=True
    )
    assert "Approved." in done.content.decode()
    name = client.user.get_username()
    assert [(each["by"], each["form"]) for each in decisions(kernel)] == [(name, {"amount": 7})]
    (entry,) = AuditEntry.objects.filter(action="approve")
    assert (entry.actor, entry.object_id, entry.details["step"]) == (name, asked, "ok")
    again = client.post(decide, {"decision": "reject"}, follow=True)
    assert f"Already decided by {name}" in again.content.decode()
    assert "has decided" in client.get(f"{BASE}{wait_of(asked).pk}/change/").content.decode()
    refused = client.post(f"{BASE}{wait_of(other).pk}/decide/", {"decision": "reject"}, follow=True)
    assert "may not decide this" in refused.content.decode()
    assert "not for you" in client.get(f"{BASE}{wait_of(other).pk}/change/").content.decode()
    assert len(decisions(kernel)) == 1
    assert AuditEntry.objects.filter(action="reject").count() == 0


def test_a_superuser_is_not_asked_either(kernel: Any, root: Any) -> None:
    """Four eyes stay four: a permission makes nobody one of those who are asked."""
    asked = ask(kernel, by=["ann"])
    answer = root.post(f"{BASE}{wait_of(asked).pk}/decide/", {"decision": "approve"}, follow=True)
    assert "may not decide this" in answer.content.decode()
    assert decisions(kernel) == []


def test_permissions_stand_before_looking_and_deciding(
    kernel: Any, staff: Callable[..., Any]
) -> None:
    """Each has its own."""
    asked = ask(kernel)
    change, decide = (f"{BASE}{wait_of(asked).pk}/{page}/" for page in ("change", "decide"))
    stranger, looker = staff("view_outboxitem"), staff("view_workflowwait", "operate_outbox")
    for path in (BASE, change):
        assert stranger.get(path).status_code == 403
        assert looker.get(path).status_code == 200
    assert "not for you" in looker.get(change).content.decode()
    for client in (stranger, looker):
        assert client.post(decide, {"decision": "approve"}).status_code == 403
    assert looker.get(decide).status_code == 405
    assert looker.post(change, {}).status_code == 403
    assert decisions(kernel) == []


def test_a_tenant_s_user_reaches_the_tenant_s_alone(kernel: Any, staff: Callable[..., Any]) -> None:
    """Another tenant's approval is not there, though it names the user."""
    from django.test import override_settings

    client = staff("view_workflowwait", "change_workflowwait")
    mine = ask(kernel, tenant="acme", title="Ours?")
    theirs = ask(kernel, tenant="rival", title="Theirs?", by=[client.user.get_username()])
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: "acme"}):
        listed = client.get(f"{BASE}?for=all").content.decode()
        assert "Ours?" in listed
        assert "Theirs?" not in listed
        assert client.get(f"{BASE}{wait_of(mine).pk}/change/").status_code == 200
        for path in ("change", "decide"):
            call = client.get if path == "change" else client.post
            assert call(f"{BASE}{wait_of(theirs).pk}/{path}/").status_code == 404
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: None}):
        assert "belong to no tenant" in client.get(BASE).content.decode()


def test_what_waits_for_an_event_is_no_approval(kernel: Any, root: Any) -> None:
    """Other waits stand in the same table."""
    from automate_django.models import WorkflowWait

    asked = ask(kernel, title="An event")
    WorkflowWait.objects.filter(execution_id=asked).update(about="event")
    assert "An event" not in root.get(f"{BASE}?for=all").content.decode()
    assert root.get(f"{BASE}{wait_of(asked).pk}/change/").status_code == 404


def test_a_workflow_asks_and_goes_on(kernel: Any, member: Callable[..., Any]) -> None:
    """From the event to the decision on the page; the execution's own pages show it."""
    told: list[dict[str, Any]] = []

    @kernel.action("tell.person")
    def tell(to: str, link: str) -> None:
        told.append({"to": to, "link": link})

    kernel.approvals.public_url = "https://shop.example/api/automate"
    kernel.add_workflow(
        {
            "name": "refund",
            "trigger": {"type": "event", "event": "refund.asked"},
            "steps": [
                {
                    "id": "ok",
                    "approval": {
                        "title": "Refund {{ event.payload.order }}?",
                        "by": ["role:managers"],
                        "form": FORM,
                        "notify": {
                            "action": "tell.person",
                            "input": {"to": "{{ approval.to }}", "link": "{{ approval.link }}"},
                        },
                    },
                }
            ],
            "output": "{{ steps.ok.output.form }}",
        }
    )
    kernel.emit("refund.asked", {"order": 12})
    kernel.run_until_idle()
    (execution,) = kernel.executions.find(workflow="refund")
    client = member(*MAY, "view_workflowexecution", group="managers")
    page = f"/admin/automate_django/workflowexecution/{execution.id}/"
    for path in (f"{page}change/", f"{page}steps/ok/", f"{page}progress/"):
        assert "WAITING" in client.get(path).content.decode()
    assert "Refund 12?" in client.get(BASE).content.decode()
    (mail,) = told
    assert mail["to"] == "role:managers"
    path = mail["link"].removeprefix("https://shop.example")
    assert "Refund 12?" in client.get(path).content.decode()
    decide = f"{BASE}{wait_of(execution.id).pk}/decide/"
    client.post(decide, {"decision": "approve", "form.amount": "7"})
    assert client.get(path).status_code == 410
    kernel.run_until_idle()
    assert kernel.executions.get(execution.id).output == {"amount": 7}
    shown = client.get(f"{page}steps/ok/").content.decode()
    assert client.user.get_username() in shown
    assert "approval" in shown
