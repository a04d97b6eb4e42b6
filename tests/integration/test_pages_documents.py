"""Workflows that are edited on the operators' pages, in any host."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import Kernel
from automate_kernel.storage import MemoryStorage
from automate_kernel.workflows import StoredWorkflows
from automate_pages import User, pages

GREET = """\
name: greet
trigger: {type: event, event: customer.came}
steps:
  - id: say
    action: chat.say
    input: {text: "Hello {{ event.payload.name }}"}
"""
LOUD = GREET.replace("Hello", "HELLO") + (
    '  - {id: log, action: chat.say, input: {text: "{{ event.payload.shop.name }}"}}\n'
)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    storage = MemoryStorage()
    with Kernel(
        storage, discover=False, secrets={}, workflow_source=StoredWorkflows(storage)
    ) as made:

        @made.action("chat.say")
        def say(text: str) -> str:
            return text

        yield made


def browser(kernel: Kernel, role: str = "author", tenant: str | None = None) -> TestClient:
    user = User("ada", [role], tenant)
    app = Starlette(routes=[Mount("/ops", pages(kernel, auth=lambda _: user))])
    made = TestClient(app, base_url="http://shop.example")
    made.get("/ops/")
    return made


def send(client: TestClient, path: str, **form: Any) -> Any:
    return client.post(f"/ops/{path}", data={"csrf": client.cookies["automate_csrf"], **form})


def saved(client: TestClient, source: str = GREET, path: str = "documents/new", **form: Any) -> str:
    """Save a draft; return the path of its version's page."""
    page = send(client, path, source=source, format="yaml", order="save", **form)
    assert page.status_code == 200, page.text
    assert "saved as a draft" in page.text
    return str(page.url.path).removeprefix("/ops/")


def published(client: TestClient, source: str = GREET, path: str = "documents/new") -> str:
    """Save and publish; return the path of the document's page."""
    page = send(client, saved(client, source, path), order="publish")
    assert "is published" in page.text
    return str(page.url.path).removeprefix("/ops/")


def test_a_workflow_is_written_looked_at_and_published(kernel: Kernel) -> None:
    """A draft starts nothing; its page shows what publishing means, and does it."""
    client = browser(kernel)
    assert "Write one here" in client.get("/ops/workflows").text
    draft = saved(client, comment="For the shop")
    assert "DRAFT" in client.get("/ops/workflows").text
    assert list(kernel.workflows) == []
    page = client.get(f"/ops/{draft}").text
    for shown in ("Publish version 1", "For the shop", "by ada", "[name]", "<svg"):
        assert shown in page
    done = send(client, draft, order="publish")
    assert "Version 1 is published: new executions run it." in done.text
    assert [each.name for each in kernel.workflows] == ["greet"]
    assert "documents/" in client.get("/ops/workflows/greet").text
    again = send(client, draft, order="publish")
    assert "counts already" in again.text


def test_a_draft_is_compared_as_text_and_as_picture(kernel: Kernel) -> None:
    """With the published version by default, and with the one that is chosen."""
    client = browser(kernel)
    document = published(client)
    draft = saved(client, LOUD, f"{document}/edit", based_on="1")
    page = html.unescape(client.get(f"/ops/{draft}").text)
    assert '- input: {text: "Hello' in re.sub(r"-\s+input", "- input", page)
    for shown in ('<g class="CHANGED"', '<g class="ADDED"', "+ log", "~ say", "in version 1"):
        assert shown in page
    published(client, GREET.replace("Hello", "Hi"), f"{document}/edit")
    page = client.get(f"/ops/{document}/versions/3?with=2").text
    assert '<g class="REMOVED"' in page
    assert "What it changes in version 2" in page
    assert "events start" not in client.get("/ops/workflows/greet").text


def test_problems_stand_under_their_lines(kernel: Kernel) -> None:
    """The text stays in the editor, nothing is saved, and the status says so."""
    client = browser(kernel)
    wrong = GREET.replace("action:", "acton:")
    for order in ("save", "check"):
        page = send(client, "documents/new", source=wrong, format="yaml", order=order)
        assert page.status_code == 422
        text = html.unescape(page.text)
        assert "2 problems. Nothing is saved" in text
        line = text[text.index('<li value="5"') :]
        assert "did you mean 'action'?" in line[: line.index("</li>")]
        assert "acton: chat.say" in text[text.index("<textarea") :]
    assert kernel.documents.find() == []
    torn = send(client, "documents/new", source="name: [", format="yaml", order="save")
    assert "is not YAML" in torn.text
    large = send(client, "documents/new", source="#" * 300_000, format="yaml", order="save")
    assert "larger than 256 KiB" in large.text


def test_a_check_saves_nothing(kernel: Kernel) -> None:
    client = browser(kernel)
    document = published(client)
    text = LOUD.replace("chat.say", "chat.shout")
    page = send(client, f"{document}/edit", source=text, format="yaml", order="check").text
    assert "It is a workflow" in page
    assert "it would fail" in page
    assert 'class="CHANGED"' in page
    assert len(kernel.documents.versions(kernel.documents.find()[0].id)) == 1


def test_who_was_overtaken_sees_both(kernel: Kernel) -> None:
    """Nothing is saved, the text stays, and the next save replaces what was seen."""
    ada, ben = browser(kernel), browser(kernel)
    document = published(ada)
    saved(ben, LOUD, f"{document}/edit", based_on="1")
    mine = GREET.replace("Hello", "Hi")
    form = {"source": mine, "format": "yaml", "order": "save"}
    page = send(ada, f"{document}/edit", based_on="1", **form)
    assert page.status_code == 422
    assert "there is a newer version 2 by ada" in page.text
    assert "Hi {{ event" in html.unescape(page.text)
    assert 'name="based_on" value="2"' in page.text
    assert saved(ada, mine, f"{document}/edit", based_on="2").endswith("/versions/3")
    stale = send(ada, f"{document}/versions/2", order="publish")
    assert "somebody has saved version 3 meanwhile" in html.unescape(stale.text)


def test_a_version_is_tried_without_calls(kernel: Kernel) -> None:
    """Before it is published, with a payload that has the fields that it takes."""
    client = browser(kernel)
    draft = saved(client, LOUD)
    page = html.unescape(client.get(f"/ops/{draft}").text)
    assert '"shop": {\n    "name": "[name]"' in page
    tried = send(client, draft, order="dry", payload='{"name": "Ann", "shop": {"name": "Tea"}}')
    assert "HELLO Ann" in tried.text
    assert kernel.executions.find() == []
    torn = send(client, draft, order="dry", payload="{")
    assert torn.status_code == 422
    assert "not JSON" in torn.text


def test_going_back_and_turning_off(kernel: Kernel) -> None:
    """A former version comes back as a new one; what is off starts nothing and stays listed."""
    client = browser(kernel)
    document = published(client)
    published(client, LOUD, f"{document}/edit")
    done = send(client, f"{document}/versions/1", order="restore", based_on="2")
    assert "Version 3 is published" in done.text
    assert "has the text of version 1" in done.text
    overtaken = send(client, f"{document}/versions/2", order="restore", based_on="2")
    assert "somebody has saved version 3" in html.unescape(overtaken.text)
    assert "It is off" in send(client, document, order="disable").text
    assert list(kernel.workflows) == []
    assert "OFF" in client.get("/ops/workflows").text
    assert "It is on" in send(client, document, order="enable").text
    assert "It is so already" in send(client, document, order="enable").text
    trail = kernel.audit.page(model="workflow").records
    assert [(each.action, each.outcome) for each in trail][:3] == [
        ("enable", "nothing"), ("enable", "done"), ("disable", "done"),
    ]  # fmt: skip
    assert all(each.actor == "ada" for each in trail)


@pytest.mark.parametrize("role", ["viewer", "operator", "approver"])
def test_who_is_no_author_looks_only(kernel: Kernel, role: str) -> None:
    """Versions are seen by everybody; each order is refused, and no button asks for it."""
    document = published(browser(kernel))
    draft = saved(browser(kernel), LOUD, f"{document}/edit")
    other = browser(kernel, role)
    for path in ("workflows", "workflows/greet", document, draft):
        page = other.get(f"/ops/{path}")
        assert page.status_code == 200
        for button in ("New workflow", "/edit", "Publish version", 'value="publish"', "Turn off"):
            assert button not in page.text
    assert "HELLO" in other.get(f"/ops/{draft}").text
    for path in ("documents/new", f"{document}/edit"):
        assert other.get(f"/ops/{path}").status_code == 403
    for path, order in ((draft, "publish"), (draft, "restore"), (document, "disable"),
                        (draft, "dry"), (f"{document}/edit", "save"), ("documents/new", "save")):  # fmt: skip
        assert send(other, path, order=order, source=GREET).status_code == 403
    assert kernel.documents.find()[0].version == 1


def test_a_tenant_reaches_its_own(kernel: Kernel) -> None:
    """Another tenant's workflow, and everybody's, is not found; a new one is the tenant's."""
    acme = browser(kernel, tenant="acme")
    document = published(acme, GREET.replace("Hello", "acme's"))
    assert kernel.documents.find()[0].tenant_id == "acme"
    common = published(browser(kernel), GREET.replace("greet", "common"))
    forged = saved(acme, GREET.replace("greet", "mine"), tenant="other")
    assert forged
    assert [each.tenant_id for each in kernel.documents.find("mine")] == ["acme"]
    for client, path in ((acme, common), (browser(kernel, tenant="other"), document)):
        for below in ("", "/edit", "/versions/1"):
            assert client.get(f"/ops/{path}{below}").status_code == 404
        assert send(client, f"{path}/versions/1", order="publish").status_code == 404
        assert send(client, path, order="disable").status_code == 404
        assert send(client, f"{path}/edit", order="save", source=LOUD).status_code == 404
    assert "acme" not in browser(kernel, tenant="other").get("/ops/workflows").text
    operators = published(browser(kernel, "admin"), GREET.replace("greet", "theirs"))
    assert operators


@pytest.mark.parametrize("path", ["no-such", "new/versions/1", "x/versions/y", "x/edit"])
def test_what_is_not_there(kernel: Kernel, path: str) -> None:
    assert browser(kernel).get(f"/ops/documents/{path}").status_code == 404


def test_hostile_texts_stay_texts(kernel: Kernel) -> None:
    """Markup in names, comments and errors is shown as it is; a secret is not shown at all."""
    kernel.redactor.add("hunter2-of-the-shop")
    client = browser(kernel)
    evil = "<script>alert(1)</script>"
    draft = saved(client, GREET.replace("Hello", evil), comment=evil)
    for path in (draft, draft.partition("/versions")[0], f"{draft.partition('/versions')[0]}/edit"):
        assert evil not in client.get(f"/ops/{path}").text
    wrong = send(client, "documents/new", source=evil, format=evil, order="save", comment=evil)
    assert wrong.status_code == 422
    assert evil not in wrong.text
    text = GREET.replace("Hello", "hunter2-of-the-shop")
    secret = send(client, "documents/new", source=text, format="yaml", order="save")
    assert "it holds the value of a secret" in secret.text
    assert "hunter2" not in secret.text
    assert send(client, f"{draft}", order="no-such").status_code == 400


def test_an_application_that_runs_none_edits_none() -> None:
    """The kernel has no StoredWorkflows: a saved text would never run."""
    with Kernel(MemoryStorage(), discover=False, secrets={}) as kernel:
        client = browser(kernel)
        assert "New workflow" not in client.get("/ops/workflows").text
        assert client.get("/ops/documents/new").status_code == 404
        assert send(client, "documents/new", source=GREET, order="save").status_code == 404
        assert kernel.documents.find() == []
