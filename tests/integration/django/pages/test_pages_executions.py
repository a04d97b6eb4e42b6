"""Executions in the admin: found, looked at, resumed, cancelled, and never another tenant's."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from automate_django import definitions
from automate_django.kernel import get_kernel
from automate_django.models import AuditEntry, WorkflowExecution
from automate_kernel import Kernel, WorkflowContext
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.execution import ExecutionStatus
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

ORDERS = ("resume", "cancel", "again", "pause", "unpause", "retry", "fork")
BASE = "/admin/automate_django/workflowexecution/"
WORKFLOW = """\
name: ship
trigger: {type: event, event: order.paid}
steps:
  - id: pick
    action: shop.pick
    for_each: "{{ event.payload.lines }}"
    input: {line: "{{ item }}", note: "Bearer $secret:CHAT_TOKEN"}
  - id: label
    action: shop.label
    needs: []
    input: {address: "{{ event.payload.address }}"}
    retry: {attempts: 2, delay: 0, jitter: false}
  - id: send
    action: shop.send
    needs: [pick, label]
on_failure:
  - {id: apologise, action: shop.send}
output: {sent: "{{ steps.send.output }}"}
"""


def tenant_by_name(request: Any) -> str | None:
    name = request.user.get_username()
    return name.partition("-")[0] if name.startswith(("acme-", "globex-")) else None


@pytest.fixture(autouse=True)
def tenants() -> Any:
    with override_settings(AUTOMATE_ADMIN={"TENANT": tenant_by_name}):
        yield


@pytest.fixture
def broken() -> set[str]:
    """The actions that fail."""
    return set()


@pytest.fixture
def kernel(kernel: Any, broken: set[str]) -> Any:
    """The project's kernel with a workflow that ships orders."""

    def refuse(name: str) -> None:
        if name in broken:
            raise AutomateError(ErrorCodes.UNAVAILABLE, f"{name} is away <b>today</b>")

    @kernel.action("shop.pick")
    def pick(line: str, note: str) -> str:
        refuse("pick")
        return f"{line} picked with {note}"

    @kernel.action("shop.label")
    def label(address: str) -> str:
        refuse("label")
        return f"to {address}"

    @kernel.action("shop.send")
    def send() -> str:
        refuse("send")
        return "sent"

    definitions.create(WORKFLOW, author="ann")
    return kernel


@pytest.fixture
def ship(kernel: Any) -> Callable[..., str]:
    """Runs the workflow, and gives the execution's id."""

    def ship(tenant_id: str | None = None, *, lines: int = 2, **payload: Any) -> str:
        given = {"lines": [f"l{n}" for n in range(lines)], "address": "Bonn", **payload}
        execution_id = kernel.start("ship", given, tenant_id=tenant_id)
        kernel.run_until_idle()
        return str(execution_id)

    return ship


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer
    return answer.content.decode()


def order(client: Any, execution_id: str, name: str, **data: Any) -> Any:
    return client.post(f"{BASE}{execution_id}/order/", {"order": name, **data})


def status(kernel: Any, execution_id: str) -> str:
    return str(kernel.executions.get(execution_id).status)


# -- looking ---------------------------------------------------------------------------------------


def test_a_page_shows_the_steps_and_what_came_in_and_out(root: Any, ship: Any) -> None:
    """Each step with its attempts, each element of a list, the event, the output, the item."""
    execution_id = ship()
    text = text_of(root.get(f"{BASE}{execution_id}/change/"))
    for part in ('data-key="pick"', 'data-key="pick[1]"', 'data-key="label"', 'data-key="send"'):
        assert part in text
    assert "2 of 2 begun elements done" in text
    assert "apologise" not in text.partition("automate-picture")[0]  # it did not come to that
    assert "&quot;address&quot;: &quot;Bonn&quot;" in text
    assert "&quot;sent&quot;: &quot;sent&quot;" in text
    assert f"/outboxitem/{WorkflowExecution.objects.get().item_id}/change/" in text
    assert "version 1" in text
    assert "<svg" in text
    assert "style=" not in text


def test_a_step_shows_what_it_was_given_without_the_secret(root: Any, ship: Any) -> None:
    """The input is put together again, with the secret's name; the output is redacted."""
    execution_id = ship()
    text = text_of(root.get(f"{BASE}{execution_id}/steps/pick/1/"))
    assert "&quot;line&quot;: &quot;l1&quot;" in text
    assert "Bearer [secret CHAT_TOKEN]" in text
    assert "l1 picked with Bearer [secret]" in text
    assert "tok-51d0" not in text
    assert root.get(f"{BASE}{execution_id}/steps/pick/2/").status_code == 404
    assert root.get(f"{BASE}{execution_id}/steps/nothing/").status_code == 404


def test_a_loop_shows_its_rounds_and_a_chain_its_neighbours(root: Any, kernel: Any) -> None:
    """The rounds that were done count, also those whose rows are deleted."""
    label = {"id": "label", "action": "shop.label", "input": {"address": "no {{ index }}"}}
    rounds = {"id": "rounds", "until": "{{ index == 29 }}", "steps": [label]}
    more = "{{ event.payload.left > 0 }}"
    again = {"left": "{{ event.payload.left - 1 }}"}
    following = {"id": "next", "if": more, "continue_as_new": again}
    trigger = {"type": "manual"}
    kernel.add_workflow({"name": "turns", "trigger": trigger, "steps": [rounds, following]})
    first = kernel.executions.get(kernel.start("turns", {"left": 1}))
    kernel.run_until_idle()
    first = kernel.executions.get(first.id)
    text = text_of(root.get(f"{BASE}{first.id}/change/"))
    assert "30 rounds done" in text and 'data-key="rounds[29]"' in text
    assert 'data-key="rounds[0]"' not in text
    assert "Continued as" in text and f"{BASE}{first.successor_id}/change/" in text
    text = text_of(root.get(f"{BASE}{first.successor_id}/change/"))
    assert "Continues" in text and f"{BASE}{first.id}/change/" in text
    text = text_of(root.get(f"{BASE}{first.id}/steps/rounds[29].label/"))
    assert "&quot;address&quot;: &quot;no 29&quot;" in text
    assert root.get(f"{BASE}{first.id}/steps/rounds[2].label/").status_code == 404


def test_a_block_shows_some_of_the_steps_inside(root: Any, kernel: Any) -> None:
    """Those that matter most, however many there are; each has a page with its input."""
    inner = {"id": "label", "action": "shop.label", "input": {"address": "{{ item }}"}}
    block = {"id": "all", "for_each": "{{ event.payload }}", "steps": [inner]}
    kernel.add_workflow({"name": "block", "trigger": {"type": "manual"}, "steps": [block]})
    execution_id = kernel.run("block", [f"town {n}" for n in range(30)]).id
    with CaptureQueriesContext(connection) as few:
        text = text_of(root.get(f"{BASE}{execution_id}/change/"))
    assert 'data-key="all[1]"' in text and "30 of 30 begun elements done" in text
    assert text.count('.label"') == 20
    other = kernel.run("block", ["x"]).id
    with CaptureQueriesContext(connection) as fewer:
        root.get(f"{BASE}{other}/change/")
    assert len(few) <= len(fewer) + 1
    text = text_of(root.get(f"{BASE}{execution_id}/steps/all[3].label/"))
    assert "town 3" in text and "shop.label" in text


def test_a_failure_is_shown_and_escaped(root: Any, ship: Any, broken: set[str]) -> None:
    """The error of the step and of the execution, its attempts, and the recovery that ran."""
    broken.add("label")
    execution_id = ship()
    text = text_of(root.get(f"{BASE}{execution_id}/change/"))
    assert "label is away &lt;b&gt;today&lt;/b&gt;" in text
    assert "<b>today" not in text
    assert "Resume where it failed" in text
    (worker,) = {each.worker_id for each in get_kernel().executions.attempts(execution_id)}
    assert f"<code>{worker}</code>" in text
    step = text_of(root.get(f"{BASE}{execution_id}/steps/label/"))
    assert "UNAVAILABLE" in step
    assert "2 of 2" in step
    assert "in refuse" in step


def test_executions_are_found_by_several_labels(root: Any, kernel: Any) -> None:
    """Those that the workflow itself sets too; a value may hold a comma."""
    kernel.add_workflow(
        {
            "name": "labelled",
            "trigger": {"type": "manual"},
            "labels": {"customer": "{{ event.payload }}"},
            "steps": [{"id": "a", "sleep": 0}],
        }
    )
    one, other = (kernel.start("labelled", name, labels={"region": "eu"}) for name in ("a, b", "c"))
    text = text_of(root.get(BASE, {"label": "region=eu, customer=a, b"}))
    assert one in text
    assert other not in text
    assert "region=eu" in text_of(root.get(f"{BASE}{one}/change/"))
    assert "customer=a, b" in text_of(root.get(f"{BASE}{one}/change/"))


def test_what_is_handed_over_says_why(root: Any, staff: Any, kernel: Any) -> None:
    """On the list and the execution's own page, and to the own tenant alone."""
    kernel.add_workflow(
        {
            "name": "handing",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "shop.fly2"}],
        }
    )
    one = kernel.start("handing", tenant_id="globex")
    kernel.run_until_idle()
    for address in (BASE, f"{BASE}{one}/change/"):
        page = root.get(address).content.decode()
        assert "handed over" in page.lower()
        assert "know the action &#x27;shop.fly2&#x27;" in page
    acme = staff("view_workflowexecution", name="acme-anna")
    assert "shop.fly2" not in acme.get(BASE).content.decode()
    globex = staff("view_workflowexecution", name="globex-gina")
    assert "shop.fly2" in globex.get(BASE).content.decode()
    kernel.executions.cancel(one)
    assert "shop.fly2" not in root.get(BASE).content.decode()


def test_what_only_other_code_goes_on_with_says_so(root: Any, kernel: Any) -> None:
    """The code of a later deploy has recorded what this one does not repeat; nothing has failed."""

    def pack() -> str:
        return "packed"

    later = Kernel(kernel.storage, discover=False, secrets={})

    async def packing(ctx: WorkflowContext, step_name: str = "pack-again") -> None:
        await ctx.step(pack, name=step_name)
        await ctx.wait_for(signal="go")

    async def packing_before(ctx: WorkflowContext) -> None:
        await packing(ctx, "pack")

    later.workflow(name="packing")(packing)
    kernel.workflow(name="packing")(packing_before)
    one = later.start("packing")
    later.run_until_idle()
    assert kernel.outbox.request_release([kernel.executions.get(one).item_id])
    kernel.run_until_idle()
    for address in (BASE, f"{BASE}{one}/change/"):
        page = root.get(address).content.decode()
        assert "handed over" in page.lower()
        assert "recorded is pack-again at" in page and "now pack at" in page
        assert "a worker whose code repeats what is recorded" in page
    assert kernel.executions.get(one).status is ExecutionStatus.RUNNING
    # An operator ends it, and begins anew with the code that there is.
    for status in (ExecutionStatus.CANCELLING, ExecutionStatus.CANCELLED):
        root.post(f"{BASE}{one}/order/", {"order": "cancel"})
        kernel.run_until_idle()
        assert kernel.executions.get(one).status is status
    root.post(f"{BASE}{one}/order/", {"order": "again"})
    kernel.run_until_idle()
    (fresh,) = kernel.executions.find(status="RUNNING", workflow="packing")
    assert [run.step_id for run in fresh.steps] == ["pack", "wait_for"]


def test_what_looks_like_a_secret_in_an_event_is_hidden(root: Any, ship: Any) -> None:
    """A value under a telling name is not shown, wherever it came from."""
    execution_id = ship(password="hunter2-very-secret")
    text = text_of(root.get(f"{BASE}{execution_id}/change/"))
    assert "hunter2" not in text
    assert "[hidden]" in text


def test_an_execution_of_a_definition_that_is_gone_is_shown(
    root: Any, kernel: Any, ship: Any
) -> None:
    """Its steps stand in the timeline all the same."""
    from automate_django.models import WorkflowDefinition

    execution_id = ship()
    WorkflowDefinition.objects.all().delete()
    kernel.workflows._programs.clear()
    text = text_of(root.get(f"{BASE}{execution_id}/change/"))
    assert 'data-key="send"' in text
    assert "can't be put together again" in text_of(root.get(f"{BASE}{execution_id}/steps/send/"))


def test_a_list_of_thousands_costs_a_few_queries(root: Any, ship: Any) -> None:
    """The page of a step with many elements shows the telling ones, and counts the others."""
    few, many = ship(lines=30), ship(lines=120)

    def queries(execution_id: str) -> tuple[int, str]:
        with CaptureQueriesContext(connection) as captured:
            text = text_of(root.get(f"{BASE}{execution_id}/change/"))
        return len(captured), text

    queries(few)
    (small, _), (large, text) = queries(few), queries(many)
    assert small == large
    assert "120 of 120 begun elements done" in text
    assert "and 100 more" in text
    assert text.count("data-key=") < 40


# -- finding ---------------------------------------------------------------------------------------


def seed(n: int, **fields: Any) -> None:
    now = timezone.now()
    rows = [
        WorkflowExecution(
            **{
                "id": uuid4(), "workflow": "ship", "definition_id": "d", "status": "COMPLETED",
                "event": {"id": "e", "name": "x", "payload": None}, "item_id": uuid4(),
                "created_at": now - timedelta(seconds=60 + i), "updated_at": now, **fields,
            }
        )
        for i in range(n)
    ]  # fmt: skip
    WorkflowExecution.objects.bulk_create(rows, batch_size=200)


def ids_in(text: str) -> list[str]:
    from re import findall

    return findall(r"/workflowexecution/([0-9a-f-]{36})/change/", text)


def test_pages_follow_each_other_without_counting(root: Any, kernel: Any) -> None:
    """Every execution is on exactly one page, in the order of time, and none is counted."""
    seed(120)
    seen: list[str] = []
    url = BASE
    with CaptureQueriesContext(connection) as captured:
        while url:
            text = text_of(root.get(url))
            seen += ids_in(text)
            marker = 'rel="next"'
            line = next((part for part in text.split("<a ") if marker in part), "")
            url = (
                BASE + line.partition('href="')[2].partition('"')[0].replace("&amp;", "&")
                if line
                else ""
            )
    assert len(seen) == len(set(seen)) == 120
    newest_first = WorkflowExecution.objects.order_by("-created_at").values_list("pk", flat=True)
    assert seen == [str(pk) for pk in newest_first]
    assert not any("COUNT(" in q["sql"] and "automate_execution" in q["sql"] for q in captured)


def test_filters(root: Any, kernel: Any) -> None:
    """By status, workflow, time and tenant, together too."""
    seed(3)
    seed(2, status="FAILED", workflow="other", tenant_id="acme")
    seed(1, status="FAILED", created_at=timezone.now() - timedelta(days=3))

    def count(query: str) -> int:
        return len(ids_in(text_of(root.get(f"{BASE}?{query}"))))

    assert count("status=FAILED") == 3
    assert count("workflow=other") == 2
    assert count("status=FAILED&workflow=ship") == 1
    assert count("status=COMPLETED&workflow=other") == 0
    assert count("status=FAILED&since=24h") == 2
    assert count("since=7d") == 6
    assert count("tenant=acme&status=FAILED") == 2
    assert count("status=NONSENSE&since=nonsense") == 6
    assert count("workflow=%00&tenant=%00") == 6


def test_an_id_leads_to_its_execution(root: Any, ship: Any) -> None:
    """What stands in a log can be pasted; what is no id is said to be none."""
    execution_id = ship()
    answer = root.get(BASE, {"id": f" {execution_id} "})
    assert answer.url == f"{BASE}{execution_id}/change/"
    assert "is no id of an execution" in text_of(root.get(BASE, {"id": "<b>17"}))
    assert root.get(f"{BASE}{uuid4()}/change/").status_code == 404
    assert root.get(f"{BASE}17/change/").status_code == 404


def test_a_cursor_that_was_tampered_with_is_refused(root: Any, kernel: Any) -> None:
    """A page's address fits one list alone."""
    seed(60)
    text = text_of(root.get(BASE))
    after = text.partition("?after=")[2].partition('"')[0]
    assert after
    assert root.get(f"{BASE}?after={after}x").status_code == 404
    assert root.get(f"{BASE}?status=FAILED&after={after}").status_code == 404


# -- progress --------------------------------------------------------------------------------------


def test_progress_is_json_with_an_etag(root: Any, kernel: Any) -> None:
    """It changes when the execution does, costs little when it doesn't, and says when to stop."""
    execution_id = kernel.start("ship", {"lines": ["l"], "address": "Bonn"})
    url = f"{BASE}{execution_id}/progress/"
    first = root.get(url)
    assert first.json()["status"] == "PENDING"
    assert not first.json()["finished"]
    assert [t["key"] for t in first.json()["tracks"]] == ["pick", "label", "send"]
    with CaptureQueriesContext(connection) as captured:
        again = root.get(url, headers={"If-None-Match": first["ETag"]})
    assert again.status_code == 304
    assert not [q for q in captured if "automate_step" in q["sql"]]
    kernel.run_until_idle()
    after = root.get(url, headers={"If-None-Match": first["ETag"]})
    state = after.json()
    assert (state["status"], state["finished"]) == ("COMPLETED", True)
    assert json.loads(state["output"]) == {"sent": "sent"}
    assert all(0 <= t["x"] and t["x"] + t["width"] <= 1000 for t in state["tracks"])
    assert "tok-51d0" not in after.content.decode()
    assert "no-store" in after["Cache-Control"]


# -- orders ----------------------------------------------------------------------------------------


def test_resume(root: Any, kernel: Any, ship: Any, broken: set[str]) -> None:
    """It goes on where it failed: what was done is not done again. Once."""
    broken.add("send")
    execution_id = ship()
    assert status(kernel, execution_id) == "FAILED"
    broken.clear()
    answer = order(root, execution_id, "resume")
    assert answer.url == f"{BASE}{execution_id}/change/"
    assert "has not failed" in text_of(
        order(
            root,
            execution_id,
            "resume",
        ).client.get(answer.url)
    )
    kernel.run_until_idle()
    execution = kernel.executions.get(execution_id)
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.step("label").attempts == 1
    (entry,) = AuditEntry.objects.all()
    assert (entry.action, entry.object_id, entry.actor) == (
        "resume", execution_id, root.user.username,
    )  # fmt: skip


def resume_all(client: Any, **data: Any) -> Any:
    return client.post(f"{BASE}order/", {"order": "resume", "status": "FAILED", **data})


def test_all_that_match_are_resumed(
    root: Any, kernel: Any, ship: Any, broken: set[str], markup_of: Any
) -> None:
    """After a confirmation, with an entry in the audit trail; what doesn't match stays."""
    broken.add("send")
    mine, other = [ship("acme"), ship("acme")], ship("globex")
    ended = ship("acme", lines=0)
    broken.clear()
    listed = text_of(root.get(BASE, {"status": "FAILED", "tenant": "acme"}))
    assert "All failed executions of tenant acme:" in listed
    assert f'action="{BASE}order/"' in listed
    page = text_of(resume_all(root, tenant="acme"))
    assert "All <strong>3</strong> failed executions of tenant acme" in page
    assert markup_of(page).wrong == []
    assert status(kernel, mine[0]) == "FAILED"
    answer = resume_all(root, tenant="acme", sure="yes", per_second="1000")
    assert answer.url == f"{BASE}?status=FAILED&tenant=acme"
    assert "3 executions resumed." in text_of(root.get(answer.url))
    kernel.run_until_idle()
    assert [status(kernel, each) for each in (*mine, ended)] == ["COMPLETED"] * 3
    assert status(kernel, other) == "FAILED"
    entry = AuditEntry.objects.latest("id")
    assert (entry.action, entry.actor) == ("resume", root.user.username)
    assert entry.object_repr == "ended: 3 of 3 failed executions of tenant acme"
    assert entry.details["filter"] == {"status": "FAILED", "tenant": "acme"}
    # Once.
    assert "There are no failed executions of tenant acme any more." in text_of(
        root.get(resume_all(root, tenant="acme").url)
    )


def test_the_filters_of_the_list_are_those_of_its_button(
    root: Any, kernel: Any, ship: Any, broken: set[str]
) -> None:
    """Error group, workflow and age."""
    broken.add("send")
    execution_id = ship()
    group = kernel.executions.get(execution_id).error_group
    assert group
    for wrong in ({"group": "KeyError in x"}, {"workflow": "other"}):
        assert resume_all(root, sure="yes", **wrong).status_code == 302
        assert status(kernel, execution_id) == "FAILED"
    resume_all(root, group=group, workflow="ship", since="1h", sure="yes")
    assert status(kernel, execution_id) == "PENDING"


def test_only_failed_executions_are_resumed_together(root: Any, kernel: Any, ship: Any) -> None:
    """Those with a label are resumed one by one."""
    ship()
    for given in ({"status": ""}, {"status": "COMPLETED"}, {"status": "FAILED", "label": "a=b"}):
        assert resume_all(root, sure="yes", **given).status_code == 400
        assert "Resume all" not in text_of(root.get(BASE, given))


def test_who_resumes_all_reaches_the_own_tenant_alone(
    staff: Any, kernel: Any, ship: Any, broken: set[str]
) -> None:
    """And needs the permission to change executions."""
    broken.add("send")
    mine, theirs, nobodys = ship("acme"), ship("globex"), ship()
    viewer = staff("view_workflowexecution", name="acme-viewer")
    assert resume_all(viewer, sure="yes").status_code == 403
    assert "Resume all" not in text_of(viewer.get(BASE, {"status": "FAILED"}))
    permissions = ("view_workflowexecution", "change_workflowexecution")
    assert resume_all(staff(*permissions, name="lost"), sure="yes").status_code == 400
    acme = staff(*permissions, name="acme-ann")
    assert "<strong>1</strong>" in text_of(resume_all(acme, tenant="globex"))
    resume_all(acme, tenant="globex", sure="yes")
    assert [status(kernel, each) for each in (mine, theirs, nobodys)] == [
        "PENDING",
        "FAILED",
        "FAILED",
    ]


def test_resume_from_a_chosen_step(root: Any, kernel: Any, ship: Any) -> None:
    """A step that is done can be done again, with what follows from it."""
    execution_id = ship()
    page = text_of(root.get(f"{BASE}{execution_id}/steps/label/"))
    assert "Go on from this step" in page
    order(root, execution_id, "resume", step="label")
    kernel.run_until_idle()
    assert status(kernel, execution_id) == "COMPLETED"
    followed = order(
        root,
        execution_id,
        "resume",
        step="nonsense",
    ).client.get(f"{BASE}{execution_id}/change/")
    assert "no step &#x27;nonsense&#x27; to go on from" in text_of(followed)
    assert status(kernel, execution_id) == "COMPLETED"
    assert AuditEntry.objects.count() == 1


def test_cancel(root: Any, kernel: Any) -> None:
    """One that waits is cancelled, with its item; one that has ended stays as it is."""
    execution_id = kernel.start("ship", {"lines": [], "address": "Bonn"})
    order(root, execution_id, "cancel")
    assert status(kernel, execution_id) == "CANCELLED"
    order(root, execution_id, "cancel")
    assert AuditEntry.objects.filter(action="cancel").count() == 1


UNDOABLE = """\
name: undo
trigger: {type: manual}
steps:
  - {id: label, action: shop.label, input: {address: x}, compensate: {action: shop.send}}
  - {id: send, action: shop.send, retry: {attempts: 2, delay: 1h, max_delay: 1h, jitter: false}}
"""


@pytest.fixture
def undoable(kernel: Any, broken: set[str]) -> str:
    """An execution that waits for a retry, and has something to undo."""
    definitions.create(UNDOABLE, author="ann")
    broken.add("send")
    execution_id = kernel.start("undo", tenant_id="acme")
    kernel.run_until_idle()
    broken.clear()
    return str(execution_id)


def test_cancel_what_cleans_up(root: Any, kernel: Any, undoable: str) -> None:
    """It is CANCELLING until that is done, and its page shows what was undone."""
    order(root, undoable, "cancel")
    page = text_of(root.get(f"{BASE}{undoable}/change/"))
    assert status(kernel, undoable) == "CANCELLING"
    assert "is being cancelled" in page
    assert "End at once" in page
    assert undoable in ids_in(text_of(root.get(f"{BASE}?status=CANCELLING")))
    kernel.run_until_idle()
    assert status(kernel, undoable) == "CANCELLED"
    assert "label.compensate" in text_of(root.get(f"{BASE}{undoable}/change/"))
    step = text_of(root.get(f"{BASE}{undoable}/steps/label.compensate/"))
    assert "shop.send" in step
    assert "Go on from this step" not in step


def test_pause_and_go_on(root: Any, kernel: Any, undoable: str) -> None:
    """Both are written down; what can't be is said."""
    order(root, undoable, "pause")
    assert status(kernel, undoable) == "PAUSED"
    assert "Go on" in text_of(root.get(f"{BASE}{undoable}/change/"))
    order(root, undoable, "pause")
    order(root, undoable, "unpause")
    assert status(kernel, undoable) == "RUNNING"
    order(root, undoable, "unpause")
    entries = AuditEntry.objects.order_by("pk").values_list("action", "tenant_id")
    assert list(entries) == [("pause", "acme"), ("unpause", "acme")]


def test_try_a_step_now(root: Any, kernel: Any, undoable: str) -> None:
    """A step that waits for its retry is tried at once."""
    assert "Try now" in text_of(root.get(f"{BASE}{undoable}/steps/send/"))
    order(root, undoable, "retry", step="send", position="-1")
    kernel.run_until_idle()
    assert status(kernel, undoable) == "COMPLETED"
    order(root, undoable, "retry", step="send", position="-1")
    assert AuditEntry.objects.get().details == {"step": "send", "position": -1}


def test_a_copy_from_a_step(root: Any, staff: Any, kernel: Any, ship: Any) -> None:
    """It has another payload, and the page leads to it; only who may begin executions gets one."""
    first = ship("acme")
    assert "Begin a copy" in text_of(root.get(f"{BASE}{first}/steps/label/"))
    answer = order(root, first, "fork", step="label", payload='{"lines": [], "address": "Ulm"}')
    kernel.run_until_idle()
    copy = kernel.executions.get(answer.url.split("/")[-3])
    assert copy.step("label").output == "to Ulm"
    assert copy.runs_of("pick")[0].output == kernel.executions.get(first).runs_of("pick")[0].output
    assert copy.tenant_id == "acme"
    assert AuditEntry.objects.get().details == {"step": "label", "begun": copy.id}
    for payload in ("{", "[" * 100_000, '{"lines": NaN}'):
        order(root, first, "fork", step="label", payload=payload)
    assert WorkflowExecution.objects.count() == 2
    changer = staff("view_workflowexecution", "change_workflowexecution", name="acme-1")
    assert "Begin a copy" not in text_of(changer.get(f"{BASE}{first}/steps/label/"))
    assert order(changer, first, "fork", step="label").status_code == 403


def test_resume_with_the_workflow_as_it_is_now(
    root: Any, kernel: Any, ship: Any, broken: set[str]
) -> None:
    """The corrected definition is the one that the page shows then."""
    broken.add("send")
    execution_id = ship()
    document = definitions.WorkflowDocument.objects.get(name="ship")
    corrected = WORKFLOW.replace(
        "id: send\n    action: shop.send", "id: send\n    action: shop.label"
    )
    corrected = corrected.replace(
        "needs: [pick, label]", "needs: [pick, label]\n    input: {address: Ulm}"
    )
    definitions.save(document, corrected, author="ann")
    order(root, execution_id, "resume", definition="current")
    kernel.run_until_idle()
    assert status(kernel, execution_id) == "COMPLETED"
    assert kernel.executions.get(execution_id).step("send").output == "to Ulm"
    assert "definition" in AuditEntry.objects.get().details


def test_a_workflow_is_paused_on_its_page(root: Any, staff: Any, kernel: Any, ship: Any) -> None:
    """Its executions wait until it goes on; who may not change executions may not pause it."""
    document = definitions.WorkflowDocument.objects.get(name="ship")
    shown, pause = (
        reverse(f"admin:automate_workflow{name}", args=[document.pk]) for name in ("", "_pause")
    )
    assert ">Pause<" in text_of(root.get(shown))
    assert root.post(pause, {"pause": "yes"}).status_code == 302
    execution_id = ship("acme")
    assert status(kernel, execution_id) == "PENDING"
    assert "Its executions wait" in text_of(root.get(shown))
    viewer = staff("view_workflowdocument")
    assert viewer.post(pause, {"pause": "no"}).status_code in (403, 404)
    root.post(pause, {"pause": "no"})
    kernel.run_until_idle()
    assert status(kernel, execution_id) == "COMPLETED"
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "pause", "unpause",
    ]  # fmt: skip


def test_start_again(root: Any, kernel: Any, ship: Any) -> None:
    """Another execution sees the same event; the page leads to it."""
    first = ship("acme")
    answer = order(root, first, "again")
    kernel.run_until_idle()
    second = answer.url.split("/")[-3]
    assert UUID(second) != UUID(first)
    assert kernel.executions.get(second).event.payload == kernel.executions.get(first).event.payload
    assert kernel.executions.get(second).tenant_id == "acme"
    entry = AuditEntry.objects.get()
    assert (entry.tenant_id, entry.details) == ("acme", {"begun": second})


def test_an_order_that_is_none(root: Any, ship: Any) -> None:
    """Nothing happens, and nothing is written down."""
    assert order(root, ship(), "explode").status_code == 400
    assert not AuditEntry.objects.exists()


# -- who may ---------------------------------------------------------------------------------------

PATHS = ("", "{}/change/", "{}/progress/", "{}/steps/send/", "{}/steps/pick/0/")


def test_looking_takes_a_permission(staff: Any, ship: Any) -> None:
    """Staff without it get 403, visitors the login page."""
    from django.test import Client

    execution_id = ship()
    nobody = staff("view_outboxitem")
    for path in PATHS:
        assert nobody.get(BASE + path.format(execution_id)).status_code == 403
        assert Client().get(BASE + path.format(execution_id)).status_code == 302
    assert order(nobody, execution_id, "again").status_code == 403


def test_changing_takes_another(staff: Any, kernel: Any, ship: Any) -> None:
    """Who may look is shown no button, and refused when posting all the same."""
    execution_id = ship("acme")
    viewer = staff("view_workflowexecution", name="acme-viewer")
    assert "Start again" not in text_of(viewer.get(f"{BASE}{execution_id}/change/"))
    for name in ORDERS:
        assert order(viewer, execution_id, name).status_code == 403
    assert WorkflowExecution.objects.count() == 1
    changer = staff("view_workflowexecution", "change_workflowexecution", name="acme-changer")
    assert "Start again" in text_of(changer.get(f"{BASE}{execution_id}/change/"))
    assert order(changer, execution_id, "again").status_code == 302


def test_a_tenant_sees_its_own_alone(staff: Any, ship: Any) -> None:
    """Another's execution is not there: not in the list, not by its address, not by an order."""
    mine, theirs, nobodys = ship("acme"), ship("globex"), ship()
    client = staff("view_workflowexecution", "change_workflowexecution", name="acme-1")
    text = text_of(client.get(BASE))
    assert ids_in(text) == [mine]
    assert ids_in(text_of(client.get(f"{BASE}?tenant=globex"))) == [mine]
    for foreign in (theirs, nobodys):
        for path in PATHS[1:]:
            assert client.get(BASE + path.format(foreign)).status_code == 404
        for name in ORDERS:
            assert order(client, foreign, name).status_code == 404
    assert WorkflowExecution.objects.count() == 3


def test_staff_without_a_tenant_see_nothing(staff: Any, ship: Any) -> None:
    """Somebody who was forgotten in the set-up sees too little, never too much."""
    execution_id = ship("acme")
    client = staff("view_workflowexecution", "change_workflowexecution")
    text = text_of(client.get(BASE))
    assert ids_in(text) == []
    assert "ship" not in text
    assert client.get(f"{BASE}{execution_id}/change/").status_code == 404


def test_orders_are_posted_with_a_token(staff: Any, ship: Any) -> None:
    """Neither a link nor a form of another site can give one."""
    execution_id = ship()
    client = staff(superuser=True, enforce_csrf_checks=True)
    assert order(client, execution_id, "again").status_code == 403
    assert client.get(f"{BASE}{execution_id}/order/").status_code == 405
    assert WorkflowExecution.objects.count() == 1


@pytest.mark.parametrize("path", ["add/", "{}/delete/", "{}/change/"])
def test_rows_are_nobodys_to_write(root: Any, ship: Any, path: str) -> None:
    """Django's own forms for adding, changing and deleting are closed, to superusers too."""
    execution_id = ship()
    assert root.post(BASE + path.format(execution_id), {"status": "X"}).status_code == 403
    assert WorkflowExecution.objects.get().status == "COMPLETED"
