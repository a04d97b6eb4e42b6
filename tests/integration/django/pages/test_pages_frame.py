"""The shared pages in the admin: who may what by Django's permissions, and the admin's frame."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client, override_settings
from django.urls import include, path

from automate_django import definitions
from automate_django.models import AuditEntry, WorkflowWait
from automate_django.webhooks import WebhookView
from automate_kernel import Connector
from automate_kernel.plugins.connectors import TriggerSpec
from automate_kernel.workflows.steer import executions as stored_executions

BASE = "/admin/automate_django/pages"
OPERATOR = "operate_outbox"


def tenant_by_name(request: Any) -> str | None:
    """A project's own answer: the part of a user's name before the hyphen."""
    name = request.user.get_username()
    return name.partition("-")[0] if name.startswith(("acme-", "globex-")) else None


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Tenants by their users' names, and an operation that is offered."""
    with override_settings(
        AUTOMATE_ADMIN={"TENANT": tenant_by_name},
        AUTOMATE_OPERATIONS={"PAGES": ["orders.total"]},
    ):
        yield


class Orders:
    """Orders of two tenants: each waits for an approval, has failed, or is scheduled."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        kernel.action("pay")(self.pay)
        asks = {"title": "Ship it?", "by": "role:clerks"}
        self.add("buy", [{"id": "pay", "action": "pay", "input": "{{ event.payload }}"},
                         {"id": "ok", "needs": ["pay"], "approval": asks}])  # fmt: skip
        self.add("report", [{"id": "pay", "action": "pay"}], {"type": "schedule", "cron": "0 6 * * *"})  # fmt: skip

    def add(self, name: str, steps: Any, trigger: Any = None) -> None:
        self.kernel.add_workflow(
            {"name": name, "trigger": trigger or {"type": "manual"}, "steps": steps}
        )

    def pay(self, fails: bool = False) -> int:
        """Charge the customer's card."""
        if fails:
            raise ValueError("no money")
        return 7

    def begin(self, tenant: str | None = None, **payload: Any) -> Any:
        begun = self.kernel.start("buy", payload, tenant_id=tenant)
        self.kernel.run_until_idle()
        return self.kernel.executions.get(begun)


@pytest.fixture
def orders(kernel: Any) -> Orders:
    """The orders of the shop."""
    return Orders(kernel)


NOTHING = "00000000-0000-7000-8000-000000000000"
STORED = "name: stored\ntrigger: {type: manual}\nsteps: [{id: a, action: pay}]\n"


def routes(
    waiting: Any, failed: Any, document: Any = NOTHING
) -> dict[str, list[tuple[str, dict[str, str] | None]]]:
    """Return every page and order, with the right that it needs; None for what is only read."""
    its, waits = f"/executions/{failed.id}", f"/executions/{waiting.id}"
    item, approval = f"/outbox/{failed.item_id}", f"/approvals/{waiting.id}/ok/whole"
    return {
        "view:home": [("/", None)],
        "view:executions": [
            ("/executions", None), (its, None), (f"{its}/steps/pay/whole", None),
            ("/executions/grid?workflow=buy", None),
            (f"/executions/compare?a={waiting.id}&b={failed.id}", None),
            ("/saved", {"order": "save", "page": "executions", "name": "mine", "query": "q=1"}),
        ],
        "steer:executions": [
            (waits, {"order": "pause"}), (waits, {"order": "unpause"}), (its, {"order": "resume"}),
            (its, {"order": "cancel"}), (its, {"order": "retry", "step": "pay"}),
            (waits, {"order": "signal", "name": "go"}),
            ("/executions", {"order": "cancel", "id": failed.id}),
        ],
        "start:executions": [(its, {"order": "fork", "step": "pay"}), (its, {"order": "again"})],
        "view:outbox": [("/outbox", None), (item, None)],
        "steer:outbox": [
            (item, {"order": "retry"}), (item, {"order": "cancel"}),
            ("/outbox", {"order": "retry", "id": failed.item_id}),
        ],
        "discard:outbox": [
            (item, {"order": "discard"}), ("/outbox", {"order": "discard", "id": failed.item_id}),
        ],
        "view:workflows": [("/workflows", None), ("/workflows/buy", None)],
        "steer:workflows": [("/workflows/buy", {"order": each}) for each in ("pause", "resume")],
        "view:documents": [(f"/documents/{document}", None)],
        "edit:documents": [
            ("/documents/new", None), (f"/documents/{document}/edit", None),
            (f"/documents/{document}", {"order": "disable"}),
        ],
        "start:workflows": [("/workflows/buy", {"payload": "{}"}),
                            ("/workflows/buy", {"order": "dry", "payload": "{}"})],
        "view:approvals": [("/approvals", None), ("/approvals?of=decided", None), (approval, None)],
        "decide:approvals": [(approval, {"decision": "approve"})],
        "view:kinds": [("/kinds", None)],
        "steer:kinds": [("/kinds", {"order": "pause", "kind": "mail"})],
        "view:workers": [("/workers", None)],
        "view:plugins": [("/plugins", None)],
        "steer:plugins": [("/plugins", {"order": "load"})],
        "view:webhooks": [("/webhooks", None)],
        "view:accounts": [("/accounts", None)],
        "start:operations": [("/operations", None), ("/operations?name=orders.total", None)],
        "review:audit": [("/audit", None), ("/audit/csv", None)],
    }  # fmt: skip


OF_EVERYBODY = {"kinds", "workers", "plugins", "webhooks", "accounts"}
GIVES = {
    "view_outboxitem": {"view:outbox"},
    "change_outboxitem": {"view:outbox", "steer:outbox"},
    "change_outboxitem delete_outboxitem": {"view:outbox", "steer:outbox", "discard:outbox"},
    "view_workflowexecution": {"view:executions"},
    "view_workflowdocument": {"view:workflows", "view:documents"},
    "add_workflowdocument": set(),
    "add_workflowdocument change_workflowdocument": {
        "view:workflows", "view:documents", "edit:documents",
    },
    "change_workflowexecution view_workflowdocument": {
        "view:executions", "steer:executions", "view:workflows", "view:documents",
        "steer:workflows",
    },
    "view_workflowexecution add_workflowexecution view_workflowdocument": {
        "view:executions", "start:executions", "view:workflows", "view:documents",
        "start:workflows",
    },
    "view_workflowwait": {"view:approvals"},
    "change_workflowwait": {"view:approvals", "decide:approvals"},
    "view_auditentry": {"review:audit"},
    "call_operation": {"start:operations"},
    "view_apitoken": set(),
    "": set(),
}  # fmt: skip


def ask(client: Any, path: str, form: dict[str, str] | None, **headers: str) -> Any:
    if form is None:
        return client.get(f"{BASE}{path}", headers=headers)
    return client.post(f"{BASE}{path}", form, headers=headers)


@pytest.mark.parametrize(
    ("permissions", "operates"), [*((each, False) for each in GIVES), ("view_outboxitem", True)]
)
def test_a_permission_opens_its_screens_alone(
    orders: Orders, staff: Callable[..., Any], permissions: str, operates: bool
) -> None:
    """Each route; an operator has what belongs to all besides, and sees each tenant's rows."""
    held = [*permissions.split(), *([OPERATOR] if operates else [])]
    user = staff(*held, name=f"acme-{uuid4().hex[:6]}")
    rights = set(GIVES[permissions])
    if operates:
        rights |= {"view:kinds", "steer:kinds", "view:workers", "view:plugins", "steer:plugins",
                   "view:webhooks", "view:accounts"}  # fmt: skip
    if rights:
        rights.add("view:home")
    for right, asked in routes(orders.begin("acme"), orders.begin("acme", fails=True)).items():
        for path, form in asked:
            status = ask(user, path, form).status_code
            assert (status == 403) == (right not in rights), (path, form, status)


def test_another_tenants_rows_are_not_there(orders: Orders, staff: Callable[..., Any]) -> None:
    """Whatever a user of a tenant asks for, or sends, with every permission but the operator's."""
    held = {name for each in GIVES for name in each.split()} | {"change_workflowschedule"}
    user = staff(*held, name=f"acme-{uuid4().hex[:6]}")
    own = orders.begin("acme")
    for other in ("globex", None):
        waiting, failed = orders.begin(other), orders.begin(other, fails=True)
        for right, asked in routes(waiting, failed).items():
            for path, form in asked:
                answer = ask(user, path, form)
                text = getattr(answer, "content", b"").decode()
                if right.partition(":")[2] in OF_EVERYBODY:
                    assert answer.status_code == 403, path
                elif waiting.id in path or failed.id in path or failed.item_id in path:
                    assert answer.status_code == 404, (path, form)
                if answer.status_code == 200 and path != "/audit":  # what the user tried
                    assert failed.id not in text, path
        for before in (waiting, failed):
            after = orders.kernel.executions.get(before.id)
            assert (after.status, after.updated_at) == (before.status, before.updated_at)
    assert own.id in ask(user, "/executions", None).content.decode()


def test_who_belongs_to_no_tenant_sees_nothing(orders: Orders, staff: Callable[..., Any]) -> None:
    """But an operator: staff who were forgotten in the set-up see too little, never too much."""
    held = {name for each in GIVES for name in each.split()}
    lost, failed = staff(*held, name="somebody"), orders.begin(None, fails=True)
    for asked in routes(failed, failed).values():
        for path, form in asked:
            for headers in ({}, {"X-Automate-Part": "1"}, {"Accept": "text/event-stream"}):
                answer = ask(lost, path, form, **headers)
                assert answer.status_code == 403, path
                assert failed.id not in answer.content.decode()
    assert "belong to no tenant" in ask(lost, "/", None).content.decode()


def test_the_admins_log_in_is_asked_for(orders: Orders) -> None:
    """Also by the script that keeps a page up to date; nothing is done meanwhile."""
    failed = orders.begin(None, fails=True)
    for asked in routes(failed, failed).values():
        for path, form in asked:
            answer = ask(Client(), path, form)
            assert answer.status_code == 302, path
            assert answer.url.startswith("/admin/login/"), path
    assert AuditEntry.objects.count() == 0


def test_a_form_from_elsewhere_is_refused(orders: Orders, staff: Callable[..., Any]) -> None:
    failed = orders.begin(None, fails=True)
    checked = staff(superuser=True, enforce_csrf_checks=True)
    page = ask(checked, f"/executions/{failed.id}", None).content.decode()
    token = re.findall(r'name="csrf" value="([^"]+)"', page)[0]
    for form, origin in (
        ({}, None), ({"csrf": "guessed"}, None), ({"csrf": token}, "http://evil.example"),
        ({"csrf": token}, "null"),
    ):  # fmt: skip
        headers = {"Origin": origin} if origin else {}
        answer = ask(checked, f"/executions/{failed.id}", {"order": "again", **form}, **headers)
        assert answer.status_code == 403, form
    assert len(orders.kernel.executions.find()) == 1
    sent = ask(checked, f"/executions/{failed.id}", {"order": "again", "csrf": token})
    assert sent.status_code == 303
    assert len(orders.kernel.executions.find()) == 2


@pytest.mark.parametrize("atomic", [False, True])
def test_an_order_is_in_the_audit_trail_with_djangos_user(
    orders: Orders, root: Any, atomic: bool
) -> None:
    """Also with a transaction for each request, which an order is no part of."""
    from django.db import connections

    failed = orders.begin("acme", fails=True)
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        answer = ask(root, f"/executions/{failed.id}", {"order": "resume"})
        shown = root.get(answer.url).content.decode()
        refused = ask(root, f"/executions/{failed.id}", {"order": "nonsense"})
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False
    assert answer.status_code == 303
    assert "It goes on from where it failed" in shown
    assert refused.status_code == 400
    entries = AuditEntry.objects.order_by("created_at", "id")
    assert [(each.actor, each.actor_id, each.action, each.model, each.object_id, each.tenant_id,
             each.outcome) for each in entries] == [
        (root.user.username, str(root.user.pk), "resume", "execution", failed.id, "acme", "done"),
        (root.user.username, str(root.user.pk), "nonsense", "execution", failed.id, "acme", "refused"),
    ]  # fmt: skip


def test_entries_of_the_projects_own_models_are_for_their_tenant(
    orders: Orders, staff: Callable[..., Any], root: Any
) -> None:
    """An operator sees what was done with the automation, whosever it was."""
    for tenant in ("acme", "globex"):
        for model in ("shop.order", "execution"):
            orders.kernel.audit.write(
                f"{model}-of-{tenant}", actor="ada", model=model, tenant_id=tenant
            )
    seen = {
        name: set(re.findall(r"(?:shop.order|execution)-of-\w+", ask(user, "/audit", None).content.decode()))
        for name, user in {
            "tenant": staff("view_auditentry", name="acme-clerk"),
            "operator": staff("view_auditentry", OPERATOR),
            "superuser": root,
        }.items()
    }  # fmt: skip
    assert seen["tenant"] == {"shop.order-of-acme", "execution-of-acme"}
    assert seen["operator"] == {"execution-of-acme", "execution-of-globex"}
    assert len(seen["superuser"]) == 4
    file = ask(staff("view_auditentry", name="acme-auditor"), "/audit/csv", None)
    assert (
        set(re.findall(r"(?:shop.order|execution)-of-\w+", file.getvalue().decode()))
        == seen["tenant"]
    )


def test_groups_are_asked_for_by_approvals_and_give_no_right(
    orders: Orders, staff: Callable[..., Any], root: Any
) -> None:
    """Also a group with the name of a role that gives rights; nor is a superuser asked."""
    from django.contrib.auth.models import Group

    waiting = orders.begin("acme")
    its = f"/approvals/{waiting.id}/ok/whole"
    clerk = staff("change_workflowwait", name="acme-clerk")
    for each in (clerk, root):
        assert ask(each, its, {"decision": "approve"}).status_code == 303
    assert not orders.kernel.approvals.get(waiting.id, "ok").decided_by  # it isn't the user's
    for name in ("admin", "operator", "clerks"):
        clerk.user.groups.add(Group.objects.get_or_create(name=name)[0])
    assert ask(clerk, "/executions", None).status_code == 403
    assert ask(clerk, "/approvals", None).content.decode().count("Ship it?") >= 1
    assert ask(clerk, its, {"decision": "approve"}).status_code == 303
    assert orders.kernel.approvals.get(waiting.id, "ok").decided_by == "acme-clerk"


def test_the_home_shows_what_the_user_may_see(orders: Orders, staff: Callable[..., Any]) -> None:
    failed = orders.begin("acme", fails=True)
    orders.begin("acme")

    def home(*permissions: str) -> str:
        return str(ask(staff(*permissions, OPERATOR), "/", None).content.decode())

    assert failed.id in home("view_workflowexecution")
    assert "Failed executions" in home("view_workflowexecution")
    for permission in ("view_outboxitem", "view_workflowwait", "view_workflowdocument"):
        assert failed.id not in home(permission)
        assert "Failed executions" not in home(permission)
    assert "Approvals for you" in home("view_workflowwait")
    assert "Approvals for you" not in home("view_outboxitem")
    assert "Failed items" in home("view_outboxitem")
    assert 'href="/admin/automate_django/pages/outbox' not in home("view_workflowwait")


# -- bulk actions that a worker carries on ---------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "done"),
    [("permission", 10), ("tenant", 10), ("account", 10), ("nothing", 25), ("session", 25)],
)
def test_a_worker_asks_for_the_users_permission_and_tenant_each_time(
    orders: Orders, staff: Callable[..., Any], alive: Any, monkeypatch: Any, lost: str, done: int
) -> None:
    """A tenant of a session or a host name stays as it was: a worker can't ask for it again."""
    monkeypatch.setattr("automate_kernel.workflows.steer.bulk_runner.SECONDS", 0.0)
    few = replace(stored_executions.EXECUTIONS, batch=10)
    monkeypatch.setattr(stored_executions, "EXECUTIONS", few)
    alive(kinds=["automate.order"])

    def by_mail(request: Any) -> str:
        if lost == "session":
            return str(request.session and "acme")
        return str(request.user.email.partition("@")[0])

    with override_settings(AUTOMATE_ADMIN={"TENANT": by_mail}):
        from automate_django import get_kernel

        orders = Orders(get_kernel())
        for _ in range(25):
            orders.begin("acme")
        user = staff("change_workflowexecution")
        user.user.email = "acme@example.org"
        user.user.save()
        form = {"order": "cancel", "scope": "all", "status": "RUNNING", "sure": "yes"}
        answer = ask(user, "/executions", form)
        assert "/executions/bulk/" in answer.url
        if lost == "permission":
            user.user.user_permissions.clear()
        elif lost == "tenant":
            user.user.email = "globex@example.org"
        elif lost == "account":
            user.user.is_active = False
        user.user.save()
        orders.kernel.run_until_idle()
        counts = orders.kernel.executions.stats().counts.get("buy", {})
        assert counts.get("RUNNING", 0) == 25 - done
        (entry,) = orders.kernel.audit.page(model="bulk action").records
        assert entry.actor_id == str(user.user.pk)
        assert entry.outcome == ("done" if done == 25 else "refused")


# -- the frame -------------------------------------------------------------------------------------


def test_the_pages_stand_in_the_admins_frame(
    orders: Orders, root: Any, staff: Callable[..., Any], markup_of: Callable[[str], Any]
) -> None:
    """With its header, its sidebar and its way to log out; on its index is a door to them."""
    failed = orders.begin(None, fails=True)
    own = root.get("/admin/").content.decode().lower().count("<main")  # Django 4.2 has none
    for asked in routes(orders.begin(), failed).values():
        for path, form in asked:
            if form is None:
                answer = ask(root, path, None)
                if answer.streaming:  # a file, no page
                    continue
                html = answer.content.decode()
                assert 'id="logout-form"' in html, path
                assert html.count("<!DOCTYPE html>".lower()) <= 1
                assert html.lower().count("<main") == own, path
                found = markup_of(html)
                assert found.wrong == [], path
                assert len(found.ids) == len(set(found.ids)), path
    assert f'href="{BASE}/"' in root.get("/admin/").content.decode()
    assert BASE not in staff("view_apitoken").get("/admin/").content.decode()
    missing = ask(root, "/nothing", None)
    assert missing.status_code == 404
    assert 'id="logout-form"' in missing.content.decode()
    assert missing.headers["X-Frame-Options"] == "DENY"
    assert "no-store" in missing.headers["Cache-Control"]
    assert root.put(f"{BASE}/executions").status_code == 405


def test_tables_in_the_index_are_doors_to_the_screens(
    orders: Orders, root: Any, staff: Callable[..., Any]
) -> None:
    """By the names of Django's own pages; an address keeps what it asks for, nothing is edited."""
    from django.urls import reverse

    waiting = orders.begin("acme")
    wait = WorkflowWait.objects.get(execution=waiting.id)
    document = definitions.create(STORED)
    doors = {
        ("outboxitem", waiting.item_id): ("outbox", f"outbox/{waiting.item_id}"),
        ("workflowexecution", waiting.id): ("executions", f"executions/{waiting.id}"),
        ("workflowwait", wait.pk): ("approvals", f"approvals/{waiting.id}/ok/-1"),
        ("auditentry", uuid4()): ("audit", "audit"),
        ("workflowdocument", document.pk): ("workflows", f"documents/{document.pk}"),
    }
    index = root.get("/admin/").content.decode()
    for (model, key), (screen, place) in doors.items():
        listed = reverse(f"admin:automate_django_{model}_changelist")
        assert f'href="{listed}"' in index
        assert root.get(f"{listed}?q=a&q=b").url == f"{BASE}/{screen}?q=a&q=b"
        for page in ("change", "history"):
            address = reverse(f"admin:automate_django_{model}_{page}", args=[key])
            assert root.get(address).url == f"{BASE}/{place}"
            assert root.get(address, follow=True).status_code == 200
        if model != "workflowdocument":
            assert root.post(f"{listed}add/").status_code == 403
        assert root.post(f"{listed}{key}/delete/", {"post": "yes"}).status_code == 403
        assert f'href="{listed}"' not in staff("view_apitoken").get("/admin/").content.decode()
    new = reverse("admin:automate_django_workflowdocument_add")
    assert root.get(new).url == f"{BASE}/documents/new"
    foreign = staff("view_workflowwait", name="globex-clerk")
    assert foreign.get(reverse("admin:automate_django_workflowwait_change", args=[wait.pk])).status_code == 404  # fmt: skip


def test_styles_and_scripts_are_served_by_the_pages(orders: Orders, root: Any) -> None:
    html = ask(root, "/", None).content.decode()
    for address in re.findall(r'(?:href|src)="(/admin/automate_django/pages/static/[^"]+)"', html):
        assert b"".join(root.get(address).streaming_content)
    assert ask(root, "/static/../site.py", None).status_code == 400
    assert ask(root, "/static/nothing.js", None).status_code == 404


def test_a_live_part_has_its_viewers_own_token(orders: Orders, root: Any) -> None:
    waiting, failed = orders.begin(), orders.begin(None, fails=True)
    part = {"X-Automate-Part": "1"}
    answer = ask(root, f"/executions/{waiting.id}", None, **part)
    assert answer.headers["X-Automate-Part"] == "live"
    assert "<html" not in answer.content.decode()
    assert ask(root, f"/executions/{failed.id}", None, **part).headers["X-Automate-Part"] == "ended"
    assert ask(root, "/", None, Accept="text/event-stream").status_code == 204  # it polls


def test_a_server_with_asgi_tells_of_changes(orders: Orders, root: Any) -> None:
    from django.test import AsyncClient

    failed = orders.begin(None, fails=True)
    browser = AsyncClient()
    browser.cookies = root.cookies

    async def look() -> tuple[Any, bytes]:
        answer = await browser.get(
            f"{BASE}/executions/{failed.id}", headers={"Accept": "text/event-stream"}
        )
        return answer, b"".join([each async for each in answer.streaming_content])

    answer, told = asyncio.run(look())
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert told == b"retry: 2000\n\n"  # it has ended, so that nothing more is told


class Tea(Connector):
    """The tea house."""

    key = "tea"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec(name="sold")]


def urls(**patterns: Any) -> Any:
    """Return settings by which the project has these addresses beside its own."""
    module = ModuleType(f"urls_{uuid4().hex}")
    module.urlpatterns = [*import_module("shopsite.urls").urlpatterns[:1], *patterns["of"]]  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return override_settings(ROOT_URLCONF=module.__name__)


def test_webhooks_have_the_addresses_of_the_projects_own_views(orders: Orders, root: Any) -> None:
    """Wherever they are included, in a namespace, below a view of the project's own, or nowhere."""

    class Own(WebhookView):
        """The project's own view."""

    orders.kernel.register(Tea, "connector", key="tea")
    ask(root, "/plugins", {"order": "load"})
    address = "http://testserver{}<"
    seen = ask(root, "/webhooks", None).content.decode()
    assert address.format("/api/automate/webhooks/tea/sold") in seen
    assert "pages(…" not in seen
    for patterns, place in (
        ([path("in/", include(("automate_django.webhooks", "hooks"), namespace="hooks"))],
         "/in/webhooks/tea/sold"),
        ([path("own/<connector>/to/<trigger>/", Own.as_view())], "/own/tea/to/sold/"),
        ([path("<tenant>/", include("automate_django.webhooks")),
          path("b/", include("automate_django.webhooks"))], "/b/webhooks/tea/sold"),
    ):  # fmt: skip
        with urls(of=patterns):
            assert address.format(place) in ask(root, "/webhooks", None).content.decode()
    with urls(of=[]):
        nowhere = ask(root, "/webhooks", None).content.decode()
    assert "No view of this project takes webhooks" in nowhere
    assert "/tea/sold" not in nowhere


def test_times_are_those_of_the_project(orders: Orders, root: Any) -> None:
    failed = orders.begin(None, fails=True)
    with override_settings(TIME_ZONE="Asia/Tokyo", AUTOMATE_WORKER={}):
        page = ask(root, f"/executions/{failed.id}", None).content.decode()
    assert re.search(r'title="\d{4}-\d\d-\d\d \d\d:\d\d:\d\d JST"', page)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_screen_is_accessible_and_fits_in_the_frame(
    orders: Orders, operator: Callable[..., Any], width: int, scheme: str
) -> None:
    """Under a strict policy, in the admin's theme."""
    from axe_playwright_python.sync_playwright import Axe

    waiting, failed = orders.begin(), orders.begin(None, fails=True)
    one = operator(viewport={"width": width, "height": 900}, color_scheme=scheme)
    document = definitions.create(STORED).pk
    for asked in routes(waiting, failed, document).values():
        for path, form in asked:
            if form is None and not path.endswith("/csv"):  # a file, no screen
                page = one.open(f"{BASE}{path}")
                found = Axe().run(page).response["violations"]
                assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], path
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    assert one.complaints == []
