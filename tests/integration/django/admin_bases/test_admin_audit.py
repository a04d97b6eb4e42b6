"""The audit trail: complete, in the transaction, without secrets, per tenant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from automate_django.models import AuditEntry
from backoffice.models import Project, Task
from django.contrib import admin
from django.db import connection

from .conftest import World, form_of, page, url


def entries(**values: Any) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(**values).order_by("id"))


def save(client: Any, project: Project, **more: Any) -> Any:
    address = url("project", project.pk, "change")
    return client.post(address, {**form_of(page(client.get(address))), **more})


def test_change_is_remembered_with_what_it_was(world_anywhere: World) -> None:
    world = world_anywhere
    client = world.staff("project", "task")
    save(client, world.ours.project, name="New", status="closed")
    (entry,) = entries()
    assert (entry.action, entry.model) == ("update", "backoffice.project")
    assert entry.object_id == str(world.ours.project.pk)
    assert entry.changes.pop("updated_at")
    assert entry.changes == {"name": ["our project", "New"], "status": ["open", "closed"]}
    assert entry.tenant_id == str(world.ours.tenant.pk)
    assert entry.actor and entry.actor_id


def test_a_trail_that_cannot_be_written_is_no_fault_of_the_user(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is undone, and the log has the reason: the form's values are as they should be."""
    client = world.staff("project", "task")
    client.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON automate_audit BEGIN"
            " SELECT RAISE(ABORT, 'CHECK constraint failed: full'); END"
        )
    try:
        answer = save(client, world.ours.project, name="New")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER full")
    assert answer.status_code == 500
    assert "automate_django.AuditEntry refused an entry of the audit trail" in caplog.text
    world.ours.project.refresh_from_db()
    assert world.ours.project.name == "our project"


def test_secrets_are_never_remembered(world: World) -> None:
    client = world.staff("project", "task")
    save(client, world.ours.project, api_key="brand-new", config='{"token": "t0ken", "n": 1}')
    (entry,) = entries()
    assert entry.changes["api_key"] == ["[hidden]", "[hidden]"]
    assert entry.changes["config"] == [{}, {"token": "[hidden]", "n": 1}]
    assert "brand-new" not in json.dumps(entry.changes)


def test_many_to_many_and_inlines_are_remembered(world: World) -> None:
    client = world.staff("project", "task", "label")
    save(
        client, world.ours.project, labels=[],
        **{
            "task_set-TOTAL_FORMS": "2",
            "task_set-0-title": "Other",
            "task_set-1-title": "Added",
            "task_set-1-project": world.ours.project.pk,
            "task_set-1-category": "",
        },
    )  # fmt: skip
    found = {(e.model, e.action): e.changes for e in entries() if "updated_at" not in e.changes}
    assert found["backoffice.task", "update"] == {"title": ["our task", "Other"]}
    assert found["backoffice.task", "create"]["title"] == [None, "Added"]
    assert found["backoffice.project", "update"] == {"labels": [[world.ours.label.pk], []]}


def test_inline_deletion_is_remembered(world: World) -> None:
    client = world.staff("project", "task")
    save(client, world.ours.project, **{"task_set-0-DELETE": "on"})
    assert not Task.objects.filter(pk=world.ours.task.pk).exists()
    (entry,) = entries(action="delete")
    assert (entry.model, entry.object_repr) == ("backoffice.task", "our task")


@pytest.mark.parametrize("how", ["page", "action"])
def test_deletion_is_remembered_with_what_went_along(world: World, how: str) -> None:
    client = world.staff("project", "task")
    key = world.ours.project.pk
    if how == "page":
        client.post(url("project", key, "delete"), {"post": "yes"})
    else:
        chosen = {"action": "delete_selected", "_selected_action": [key], "post": "yes"}
        client.post(url("project"), chosen)
    project, task = entries(action="delete")
    assert project.changes["name"] == ["our project", None]
    assert project.changes["api_key"] == ["[hidden]", None]
    assert (task.model, task.details) == ("backoffice.task", {"along_with": "backoffice.project"})


def test_list_editing_and_creating_are_remembered(world: World) -> None:
    client = world.staff("project", "task", "category")
    data = form_of(page(client.get(url("project"))))
    client.post(url("project"), {**data, "form-0-status": "closed", "_save": "Save"})
    data = form_of(page(client.get(url("project", "add"))))
    client.post(url("project", "add"), {**data, "name": "Added"})
    update, create = entries()
    assert update.changes["status"] == ["open", "closed"]
    assert create.changes["name"] == [None, "Added"]


def test_saving_without_a_change_writes_nothing(world: World, monkeypatch: Any) -> None:
    from backoffice.admin import site

    monkeypatch.setattr(type(site._registry[Project]), "audit_exclude", ["updated_at"])
    save(world.staff("project", "task", "category"), world.ours.project)
    assert entries() == []


def test_entry_and_change_are_one_transaction(world: World, monkeypatch: Any) -> None:
    """If the trail can't be written, nothing was changed."""
    client = world.staff("project", "task")
    from automate_django.admin.bases import audit

    def broken(*arguments: Any) -> None:
        raise RuntimeError("no trail")

    monkeypatch.setattr(audit, "write_entries", broken)
    address = url("project", world.ours.project.pk, "change")
    data = form_of(page(client.get(address)))
    with pytest.raises(RuntimeError, match="no trail"):
        client.post(address, {**data, "name": "New"})
    chosen = {"action": "bulk_disable", "_selected_action": [world.ours.project.pk], "index": 0}
    with pytest.raises(RuntimeError, match="no trail"):
        client.post(url("project"), chosen)
    project = Project.objects.get(pk=world.ours.project.pk)
    assert (project.name, project.is_active) == ("our project", True)


def test_only_chosen_fields_are_remembered(world: World, monkeypatch: Any) -> None:
    from backoffice.admin import site

    monkeypatch.setattr(type(site._registry[Project]), "audit_fields", ["status"])
    save(world.staff("project", "task"), world.ours.project, name="New", status="closed")
    assert entries()[0].changes == {"status": ["open", "closed"]}


def test_trail_can_be_turned_off_or_kept_elsewhere(world: World, monkeypatch: Any) -> None:
    from backoffice.admin import site
    from django.contrib.admin.models import LogEntry

    made = type(site._registry[Project])
    monkeypatch.setattr(made, "audit_log_changes", False)
    save(world.staff("project", "task"), world.ours.project, name="New")
    assert entries() == []
    written: list[Any] = []
    monkeypatch.setattr(made, "audit_log_changes", True)
    monkeypatch.setattr(made, "audit_log_model", "automate_django.AuditEntry")
    monkeypatch.setattr(
        AuditEntry._base_manager.__class__,
        "bulk_create",
        lambda self, made, batch_size: written.extend(made),
    )
    save(world.staff("project", "task"), world.ours.project, name="Newer")
    assert written[0].changes["name"] == ["New", "Newer"]
    assert LogEntry.objects.count() == 2


def test_page_shows_the_trail_without_values(world: World) -> None:
    from automate_django.admin import AuditableModelAdmin

    class Own(AuditableModelAdmin):
        fields = ["name"]

    AuditEntry.objects.create(
        actor="mia", action="update", model="backoffice.project",
        object_id=str(world.ours.project.pk), changes={"name": ["secret plan", "x"]},
    )  # fmt: skip
    from django.test import RequestFactory

    made = Own(Project, admin.AdminSite())
    request = RequestFactory().get("/")
    request.user = world.user(is_superuser=True)
    project = world.ours.project
    names = [name for name, _part in made.get_fieldsets(request, project)]
    assert str(names[-1]) == "Audit trail"
    shown = made.audit_trail(project)
    assert "mia update name" in shown and "secret plan" not in shown
    made.show_audit_fields = False
    assert len(made.get_fieldsets(request, project)) == 1


def test_nobody_edits_the_trail_and_each_tenant_sees_its_own(world: World) -> None:
    for side in (world.ours, world.theirs):
        AuditEntry.objects.create(
            actor="mia", action="update", model="x.y", tenant_id=str(side.tenant.pk),
            object_repr=side.tenant.name, changes={"name": ["<b>", "y"]},
        )  # fmt: skip
    base = "/admin/automate_django/auditentry/"
    ours = AuditEntry.objects.order_by("id")[0]
    from django.test import override_settings

    from .conftest import names_tenant

    with override_settings(AUTOMATE_ADMIN={"TENANT": names_tenant}):
        client = world.client(
            world.user(
                "view_auditentry",
                "change_auditentry",
                "add_auditentry",
                "delete_auditentry",
                tenant=world.ours.tenant,
            )  # fmt: skip
        )
        text = page(client.get(base, follow=True))
        assert "our tenant" in text and "their tenant" not in text
        assert "name" in text and "<b>" in text
        assert client.get(f"{base}add/").status_code == 403
        assert client.post(f"{base}{ours.pk}/delete/", {"post": "yes"}).status_code == 403
        client.post(f"{base}{ours.pk}/change/", {"actor": "nobody"})
        ours.refresh_from_db()
        assert ours.actor == "mia"
    assert AuditEntry.objects.count() == 2
