"""Workflows in the admin: listed, drawn, edited, run, and never another tenant's."""

from __future__ import annotations

from typing import Any

import pytest
from automate_django import definitions
from automate_django.models import (
    AuditEntry,
    WorkflowDocument,
    WorkflowExecution,
    WorkflowVersion,
)
from django.test import override_settings

BASE = "/admin/automate_django/workflowdocument/"
GREET = """\
name: greet
title: Say <hello> & more
trigger: {type: event, event: customer.came}
steps:
  - id: say
    name: <script>alert(1)</script>
    action: chat.post_message
    input: {channel: C1, text: "Hello {{ event.payload.name }}"}
"""
LOUD = GREET.replace("Hello {{", "HELLO {{")


def tenant_by_name(request: Any) -> str | None:
    name = request.user.get_username()
    return name.partition("-")[0] if name.startswith(("acme-", "globex-")) else None


@pytest.fixture(autouse=True)
def tenants() -> Any:
    with override_settings(AUTOMATE_ADMIN={"TENANT": tenant_by_name}):
        yield


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer
    return answer.content.decode()


def edit(client: Any, path: str, source: str, **data: Any) -> Any:
    return client.post(BASE + path, {"source": source, "format": "yaml", "save": "yes", **data})


# -- looking ---------------------------------------------------------------------------------------


def test_the_list_holds_those_of_files_and_of_the_database(root: Any, kernel: Any) -> None:
    """With what starts them, who has them, and how their last executions went."""
    definitions.create(GREET)
    definitions.create(GREET.replace("greet", "welcome"), tenant_id="acme", enabled=False)
    kernel.start("greet", {"name": "Ann"})
    kernel.start("greet", {})
    kernel.run_until_idle()
    text = text_of(root.get(BASE))
    for part in ("order-notify", "a file", "here, version 1", "event customer.came", "OFF", "acme"):
        assert part in text
    assert "1 of 2 failed" in text
    assert "never" in text
    assert "Say &lt;hello&gt; &amp; more" in text
    assert "order-notify" not in text_of(root.get(BASE, {"q": "gree"}))
    assert "No workflow is called like that" in text_of(root.get(BASE, {"q": "\0<b>"}))


def test_a_workflow_is_drawn_and_all_of_its_text_is_escaped(root: Any, kernel: Any) -> None:
    """The picture has a title, a description and a text beside it, and no style or script."""
    document = definitions.create(GREET)
    text = text_of(root.get(f"{BASE}{document.pk}/"))
    picture = text.partition('class="automate-graph"')[2].partition("</svg>")[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in picture
    assert "<desc" in picture
    assert "Starts on: event customer.came." in picture
    assert "<style" not in text
    assert "<script>alert" not in text
    assert " style=" not in text


def test_a_workflow_of_a_file_is_looked_at(root: Any, kernel: Any) -> None:
    """It is shown and can be run, and not edited."""
    text = text_of(root.get(f"{BASE}files/order-notify/"))
    assert "orders.total" in text
    assert "Run it now" in text
    assert "/change/" not in text.partition('id="content"')[2].partition("Last executions")[0]
    assert root.get(f"{BASE}files/nothing/").status_code == 404


def test_a_broken_workflow_says_what_is_wrong(root: Any, kernel: Any) -> None:
    """In the list and on its own page."""
    from automate_django.kernel import forget_kernel

    kernel.filter("shout")(str.upper)
    document = definitions.create(GREET.replace("payload.name", "payload.name | shout"))
    forget_kernel()
    for path in ("", f"{document.pk}/"):
        text = text_of(root.get(BASE + path))
        assert "BROKEN" in text
        assert "there is no filter &#x27;shout&#x27;" in text


def test_advice_is_shown(root: Any, kernel: Any) -> None:
    """An action that is not installed is told before it is missed."""
    document = definitions.create(GREET.replace("chat.post_message", "chat.post_mesage"))
    assert "steps.say.action" in text_of(root.get(f"{BASE}{document.pk}/"))


# -- editing ---------------------------------------------------------------------------------------


def test_a_new_workflow_is_saved_and_counts(root: Any, kernel: Any) -> None:
    """From the form to an execution, with who and why."""
    assert "my-workflow" in text_of(root.get(f"{BASE}add/"))
    answer = edit(root, "add/", GREET.replace("\n", "\r\n"), comment="We greet people")
    version = WorkflowVersion.objects.get()
    assert answer.url == f"{BASE}{version.document_id}/"
    assert (version.source, version.author) == (GREET, root.user.username)
    kernel.emit("customer.came", {"name": "Ann"})
    kernel.run_until_idle()
    assert WorkflowExecution.objects.get().workflow == "greet"
    assert "We greet people" in text_of(root.get(answer.url))
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_repr) == ("create", "greet")


def test_errors_stand_at_the_field_with_line_and_remedy(root: Any, kernel: Any) -> None:
    """All of them, with the line that is meant, and the text that was typed is still there."""
    wrong = GREET.replace("action:", "acton:").replace("customer.came", '""')
    text = text_of(edit(root, "add/", wrong))
    assert "3 problems. Nothing is saved." in text
    assert "Line 3: trigger.event" in text
    assert "did you mean &#x27;action&#x27;?" in text
    assert "7 |     acton: chat.post_message" in text
    assert "acton: chat.post_message\n" in text.partition("<textarea")[2]
    assert not WorkflowDocument.objects.exists()
    assert not AuditEntry.objects.exists()


def test_check_saves_nothing(root: Any, kernel: Any) -> None:
    """It tells whether the text could be saved, and draws it."""
    data = {"source": GREET, "format": "yaml", "check": "yes"}
    text = text_of(root.post(f"{BASE}add/", data))
    assert "It is a workflow, and can be saved." in text
    assert "automate-graph" in text
    assert not WorkflowDocument.objects.exists()


def test_an_edit_is_a_version_that_can_be_taken_back(root: Any, kernel: Any) -> None:
    """The page of a version shows what it changed, and has it count again."""
    document = definitions.create(GREET)
    path = f"{document.pk}/change/"
    assert 'name="based_on" value="1"' in text_of(root.get(BASE + path))
    edit(root, path, LOUD, based_on=1, comment="Louder")
    text = text_of(root.get(f"{BASE}{document.pk}/versions/2/"))
    added = text.partition('data-sign="+"')[2].partition("</tr>")[0]
    removed = text.partition('data-sign="-"')[2].partition("</tr>")[0]
    assert "HELLO" in added
    assert "Hello" in removed
    assert "Go back to this version" not in text
    assert "Go back to this version" in text_of(root.get(f"{BASE}{document.pk}/versions/1/"))
    answer = root.post(f"{BASE}{document.pk}/versions/1/restore/")
    assert answer.url == f"{BASE}{document.pk}/"
    assert kernel.workflows["greet"] == definitions.checked(GREET, "yaml", kernel)
    assert [one.action for one in AuditEntry.objects.order_by("pk")] == ["change", "restore"]
    assert root.get(f"{BASE}{document.pk}/versions/9/").status_code == 404


def test_a_working_version_is_not_replaced_unasked(root: Any, kernel: Any) -> None:
    """A mistyped action is told, and saved only by who has read just that."""
    document = definitions.create(GREET)
    path, wrong = f"{document.pk}/change/", GREET.replace("post_message", "post_mesage")
    text = text_of(edit(root, path, wrong, based_on=1))
    assert "Not saved yet" in text
    assert "steps.say.action" in text
    assert "chat.post_mesage" in text.partition("<textarea")[2]
    assert document.versions.count() == 1
    agreed = text.partition('name="agreed" value="')[2].partition('"')[0]
    # What was agreed to is not another mistake.
    another = text_of(edit(root, path, wrong.replace("chat.", "chta."), based_on=1, agreed=agreed))
    assert "Not saved yet" in another
    assert document.versions.count() == 1
    edit(root, path, wrong, based_on=1, agreed=agreed)
    assert document.versions.count() == 2
    # What fails already is not asked about again, and what mends it needs no question.
    edit(root, path, wrong.replace("C1", "C2"), based_on=2)
    edit(root, path, GREET, based_on=3)
    assert document.versions.count() == 4
    restore = f"{BASE}{document.pk}/versions/2/restore/"
    text = text_of(root.post(restore))
    assert "Nothing is changed yet" in text
    assert document.versions.count() == 4
    agreed = text.partition('name="agreed" value="')[2].partition('"')[0]
    assert root.post(restore, {"agreed": agreed}).status_code == 302
    assert document.versions.count() == 5


def test_a_new_workflow_that_would_fail_is_asked_about(root: Any, kernel: Any) -> None:
    """It would count at once."""
    wrong = GREET.replace("post_message", "post_mesage")
    assert "Not saved yet" in text_of(edit(root, "add/", wrong))
    assert not WorkflowDocument.objects.exists()


def test_who_was_overtaken_is_told(root: Any, kernel: Any) -> None:
    """What somebody else saved meanwhile is not overwritten, and what was typed is not lost."""
    document = definitions.create(GREET)
    definitions.save(document, LOUD)
    mine = GREET.replace("C1", "C2")
    text = text_of(edit(root, f"{document.pk}/change/", mine, based_on=1))
    assert "somebody has saved version 2 meanwhile" in text
    assert "channel: C2" in text.partition("<textarea")[2]
    assert document.versions.count() == 2


def test_nothing_changed_is_no_version(root: Any, kernel: Any) -> None:
    """Saving what is there changes nothing."""
    document = definitions.create(GREET)
    edit(root, f"{document.pk}/change/", GREET, based_on=1)
    assert document.versions.count() == 1
    assert not AuditEntry.objects.exists()


def test_a_secret_that_was_saved_is_not_shown(root: Any, kernel: Any) -> None:
    """A text that turns out to hold one is shown without it, in the editor too."""
    document = definitions.create(GREET.replace("C1", "tok-51d0"))
    kernel.redactor.add("tok-51d0")
    pages = ("", "change/", "versions/1/")
    for page in pages:
        assert "tok-51d0" not in text_of(root.get(f"{BASE}{document.pk}/{page}"))
    typed = text_of(edit(root, f"{document.pk}/change/", LOUD.replace("C1", "tok-51d0")))
    assert "it holds the value of a secret" in typed


def test_on_and_off(root: Any, kernel: Any) -> None:
    """Off, nothing starts it; both are written down."""
    document = definitions.create(GREET)
    root.post(f"{BASE}{document.pk}/switch/", {"enabled": "no"})
    assert "greet" not in kernel.workflows
    assert "Turn it on first" in text_of(root.get(f"{BASE}{document.pk}/"))
    root.post(f"{BASE}{document.pk}/switch/", {"enabled": "yes"})
    root.post(f"{BASE}{document.pk}/switch/", {"enabled": "yes"})
    assert "greet" in kernel.workflows
    assert [one.action for one in AuditEntry.objects.order_by("pk")] == ["disable", "enable"]


# -- running ---------------------------------------------------------------------------------------


def test_run_now(root: Any, kernel: Any) -> None:
    """With a payload, for a tenant if an operator says so; the execution's page follows."""
    document = definitions.create(GREET)
    answer = root.post(
        f"{BASE}{document.pk}/run/", {"payload": '{"name": "Ann"}', "tenant_id": "acme"}
    )
    execution = WorkflowExecution.objects.get()
    assert answer.url == f"/admin/automate_django/workflowexecution/{execution.pk}/change/"
    assert (execution.tenant_id, execution.event["payload"]) == ("acme", {"name": "Ann"})
    assert AuditEntry.objects.get().details == {"workflow": "greet", "begun": str(execution.pk)}
    assert root.post(f"{BASE}run/order-notify/", {"payload": ""}).status_code == 302
    assert WorkflowExecution.objects.filter(workflow="order-notify").count() == 1


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ('{"name": }', "It is not JSON: Expecting value (line 1, column 10)."),
        ("[" * 60_000, "nested too deeply"),
        ("NaN", "can&#x27;t be stored"),
        ('"\\u0000"', "can&#x27;t be stored"),
    ],
)
def test_a_payload_that_is_none_is_refused(root: Any, kernel: Any, payload: str, told: str) -> None:
    """The error stands at the field, and nothing is started."""
    document = definitions.create(GREET)
    assert told in text_of(root.post(f"{BASE}{document.pk}/run/", {"payload": payload}))
    assert not WorkflowExecution.objects.exists()


def test_run_later(root: Any, kernel: Any) -> None:
    """After a duration, which is refused at its field if it is none."""
    document = definitions.create(GREET)
    root.post(f"{BASE}{document.pk}/run/", {"payload": "{}", "delay": "2h"})
    item = kernel.outbox.get(str(WorkflowExecution.objects.get().item_id))
    assert item.waiting_for == "time"
    told = text_of(root.post(f"{BASE}{document.pk}/run/", {"payload": "{}", "delay": "soon"}))
    assert "is not a duration" in told
    assert WorkflowExecution.objects.count() == 1


def test_one_that_is_off_is_not_run(root: Any, kernel: Any) -> None:
    """The kernel refuses it, whatever is posted."""
    document = definitions.create(GREET, enabled=False)
    root.post(f"{BASE}{document.pk}/run/", {"payload": "{}"})
    assert not WorkflowExecution.objects.exists()
    assert not AuditEntry.objects.exists()


NIGHTLY = """\
name: nightly
trigger: [{type: manual}, {type: schedule, every: 1h}]
steps: [{id: a, action: chat.post_message, input: {channel: C1, text: hi}}]
"""


def test_schedules_are_paused_and_fired(root: Any, kernel: Any) -> None:
    """On the page of their workflow; it is written down."""
    document = definitions.create(NIGHTLY)
    kernel.workflows.look_again()
    page, post = f"{BASE}{document.pk}/", f"{BASE}{document.pk}/schedule/"
    assert "every 1h" in text_of(root.get(page))
    root.post(post, {"command": "pause", "number": "1"})
    (schedule,) = kernel.schedules.find("nightly")
    assert schedule.paused_at is not None
    assert "Resume" in text_of(root.get(page))
    root.post(post, {"command": "trigger", "number": "1"})
    root.post(post, {"command": "resume", "number": "1"})
    root.post(post, {"command": "resume", "number": "7"})  # there is none
    for number in ("x", "9" * 5_000, "-1"):  # nor are these all of them
        assert root.post(post, {"command": "pause", "number": number}).status_code == 302
    (schedule,) = kernel.schedules.find("nightly")
    assert (schedule.paused_at, WorkflowExecution.objects.count()) == (None, 1)
    assert str(schedule.execution_id)[-8:] in text_of(root.get(page))
    actions = [one.action for one in AuditEntry.objects.order_by("pk")]
    assert actions == ["pause schedule", "trigger schedule", "resume schedule"]
    assert root.post(post, {"command": "delete", "number": "1"}).status_code == 403


def test_polls_are_shown_with_their_state(root: Any, kernel: Any) -> None:
    """On the page of the workflow that listens to them."""
    from automate_kernel import Connector, PollResult, poll

    class Sheet(Connector):
        key = "sheet"
        display_name = "Sheet"

        @poll("new_row", every="1m")
        def new_row(self, cursor: Any) -> PollResult:
            raise ConnectionError("the sheet <b>is away</b>")

    kernel.plugins.register(Sheet)
    document = definitions.create(
        "name: rows\ntrigger: {type: event, event: sheet.new_row}\n"
        "steps: [{id: a, action: chat.post_message, input: {channel: C1, text: hi}}]\n"
    )
    kernel.workflows.look_again()
    page = f"{BASE}{document.pk}/"
    assert "sheet.new_row" in text_of(root.get(page))
    kernel._poller.run_due()
    shown = root.get(page).content.decode()
    assert "failing" in shown
    assert "UNAVAILABLE" in shown
    assert "the sheet &lt;b&gt;is away" in shown


# -- who may ---------------------------------------------------------------------------------------

PAGES = ("", "{}/", "{}/versions/1/", "files/order-notify/")
POSTS = (
    "{}/run/",
    "{}/schedule/",
    "schedule/order-notify/",
    "{}/switch/",
    "{}/versions/1/restore/",
    "{}/change/",
    "run/order-notify/",
    "add/",
)


def test_nobody_without_permission(staff: Any, kernel: Any) -> None:
    """Staff without it get 403, visitors the login page; looking is not changing."""
    from django.test import Client

    document = definitions.create(GREET)
    definitions.save(document, LOUD)
    nobody = staff("operate_outbox")
    for path in PAGES:
        assert nobody.get(BASE + path.format(document.pk)).status_code == 403
        assert Client().get(BASE + path.format(document.pk)).status_code == 302
    viewer = staff("view_workflowdocument", "operate_outbox")
    text = text_of(viewer.get(f"{BASE}{document.pk}/"))
    assert "Run it now" not in text
    assert "Turn off" not in text
    for path in POSTS:
        data = {"source": GREET, "format": "yaml", "payload": "{}", "enabled": "no"}
        for client in (nobody, viewer):
            assert client.post(BASE + path.format(document.pk), data).status_code == 403, path
    assert document.versions.count() == 2
    assert not WorkflowExecution.objects.exists()


def test_a_tenant_reaches_its_own_alone(staff: Any, kernel: Any) -> None:
    """Other tenants' workflows and everybody's are not there, whatever is asked or posted."""
    mine = definitions.create(GREET, tenant_id="acme")
    theirs = definitions.create(LOUD, tenant_id="globex")
    everybodys = definitions.create(GREET.replace("greet", "common"))
    permissions = (
        "view_workflowdocument", "change_workflowdocument", "add_workflowdocument",
        "add_workflowexecution",
    )  # fmt: skip
    client = staff(*permissions, name="acme-1")
    text = text_of(client.get(BASE))
    assert f'href="{BASE}{mine.pk}/"' in text
    for foreign in ("common", "order-notify", "globex"):
        assert foreign not in text
    for document in (theirs, everybodys):
        for path in PAGES[1:3]:
            assert client.get(BASE + path.format(document.pk)).status_code == 404
        for path in POSTS[:4]:
            data = {"source": LOUD, "format": "yaml", "payload": "{}", "enabled": "no"}
            assert client.post(BASE + path.format(document.pk), data).status_code == 404
    assert client.get(f"{BASE}files/order-notify/").status_code == 404
    assert client.post(f"{BASE}run/order-notify/", {"payload": ""}).status_code == 404
    # What it makes is its own, whatever tenant it says.
    edit(client, "add/", GREET.replace("greet", "new"), tenant_id="globex")
    assert WorkflowDocument.objects.get(name="new").tenant_id == "acme"
    client.post(f"{BASE}{mine.pk}/run/", {"payload": "{}", "tenant_id": "globex"})
    assert WorkflowExecution.objects.get().tenant_id == "acme"
    assert {one.tenant_id for one in AuditEntry.objects.all()} == {"acme"}


def test_staff_without_a_tenant_make_nothing(staff: Any, kernel: Any) -> None:
    """Somebody who was forgotten in the set-up makes no workflow for all."""
    client = staff("view_workflowdocument", "add_workflowdocument")
    assert "You see no workflows" in text_of(client.get(BASE))
    assert edit(client, "add/", GREET).status_code == 403
    assert not WorkflowDocument.objects.exists()


def test_changes_are_posted_with_a_token(staff: Any, kernel: Any) -> None:
    """Neither a link nor another site's form changes anything."""
    document = definitions.create(GREET)
    client = staff(superuser=True, enforce_csrf_checks=True)
    for path in POSTS:
        assert client.post(BASE + path.format(document.pk), {"save": "yes"}).status_code == 403
    for path in POSTS[:3]:
        assert client.get(BASE + path.format(document.pk)).status_code == 405
    assert WorkflowDocument.objects.get().enabled


def test_a_workflow_is_never_deleted_here(root: Any, kernel: Any) -> None:
    """Its versions are the answer to what an execution ran; it is turned off instead."""
    document = definitions.create(GREET)
    assert root.post(f"{BASE}{document.pk}/delete/", {"post": "yes"}).status_code == 403
    assert WorkflowDocument.objects.exists()
