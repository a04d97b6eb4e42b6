"""The screens of the operators' pages: what each shows of an installation, and what it can do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest
from paged_shop import SECRET, Shop, admin, client, send
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from waiting import until

from automate_kernel import Connector, Kernel, PollResult, SyncWorkflowContext, poll
from automate_kernel.base.errors import WebhookRejectedError
from automate_kernel.operations.account import AccountStatus
from automate_kernel.outbox.worker_reports import ExecutorUse, WorkerInfo
from automate_kernel.plugins.connectors import TriggerSpec
from automate_kernel.storage import MemoryStorage, Now, Where
from automate_kernel.storage.rows import queries
from automate_kernel.storage.tables import POLL
from automate_kernel.workflows.steer import bulk_runner
from automate_kernel.workflows.steer import executions as steering
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow
from automate_pages import User, pages
from automate_pages.screens import executions as listing
from automate_pages.exchange import PageAnswer, PageRequest, SentFields
from automate_pages.site import Site
from automate_sqlalchemy import SqlAlchemyStorage
from automate_testing.clock import FakeClock
from automate_testing.memory_executor import MemoryExecutor
from automate_testing.memory_relay import MemoryRelay, MemoryTopic


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.kernel.close()


def rows_of(page: str) -> list[str]:
    return re.findall(r"<tr.*?</tr>", page, re.DOTALL)[1:]


# -- executions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "finds"),
    [
        ("by=test", "both"),
        ("test", "both"),
        ("mugs", "input"),
        ("VALUEERROR", "cause"),
        ("by=nobody", "nothing"),
        ("nonsense", "nothing"),
        ("%00", "everything"),
    ],
)
def test_a_search_finds_labels_and_causes(shop: Shop, search: str, finds: str) -> None:
    waiting, failed = shop.order(), shop.order(500, name="mugs")
    page = client(shop, admin()).get(f"/ops/executions?q={search}").text
    assert (waiting.id in page) == (finds in ("both", "everything"))
    assert (failed.id in page) == (finds in ("both", "everything", "input"))
    assert ("ValueError in" in page) == (finds in ("cause", "everything", "input"))
    assert ("No execution is like that" in page) == (finds in ("cause", "nothing"))


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        ("größe", True), ("GRÖSSE", True), ('said "yes"', True), ("\u0642\u0647\u0648\u0629", True),
        ("c:\\new", True), ("mug", True), ("hunter3", False), ("sku-7", False), ("\\u", False),
    ],
)  # fmt: skip
def test_a_search_finds_what_the_input_shows(shop: Shop, text: str, finds: bool) -> None:
    """In any letters, and nothing under the name of a secret, nor of another tenant."""
    sent = {"note": 'Größe: he said "yes" in c:\\new', "\u0642\u0647\u0648\u0629": [{"mug": 1}],
            "password": "hunter3"}  # fmt: skip
    begun = shop.kernel.start("order", {"amount": 1, "lines": sent}, tenant_id="mine")
    for user, sees in ((admin(), finds), (User("eve", ["viewer"], "mine"), finds),
                       (User("eve", ["viewer"], "other"), False)):  # fmt: skip
        page = client(shop, user).get("/ops/executions", params={"q": text}).text
        assert (begun in page) == sees


def test_a_search_of_inputs_reads_a_bounded_part(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how many it has read, and goes on where it was."""
    monkeypatch.setattr(listing, "_MOST_INPUTS", 60)
    monkeypatch.setattr(listing, "monotonic", lambda: 0.0)
    wanted = shop.kernel.start("order", {"amount": 1, "name": "saffron"})
    for _ in range(130):
        shop.kernel.start("order", {"amount": 1})
    browser, seen, queried = client(shop, admin()), list[str](), list[int]()
    address = "/ops/executions?q=saffron&workflow=order"
    while address:
        before = queries.count
        page = browser.get(address).text
        queried.append(queries.count - before)
        seen.append(page)
        link = re.search(r'href="([^"]+)" rel="next">Keep looking', page)
        address = link[1].replace("&amp;", "&") if link else ""
    assert [wanted in each for each in seen] == [False, True]
    assert "None among these 75." in seen[0]
    assert max(queried) < 20
    monkeypatch.setattr(listing, "monotonic", iter(range(0, 10**6, 1)).__next__)
    assert "None among these 25." in browser.get("/ops/executions?q=saffron").text


def test_a_search_for_an_id_opens_it(shop: Shop) -> None:
    failed = shop.order(500)
    page = client(shop, admin()).get(f"/ops/executions?q={failed.id}").text
    assert "Resume where it failed" in page
    other = client(shop, User("eve", ["viewer"], "mine"))
    assert other.get(f"/ops/executions?q={failed.id}").status_code == 404


def test_a_list_has_the_times_that_are_asked_for(shop: Shop) -> None:
    failed = shop.order(500)
    browser = client(shop, admin())
    for query, there in (
        ("from=2020-01-01T00:00", True), ("to=2020-01-01T00:00", False), ("from=2999-01-01", False),
        ("from=never", True), ("from=2020-01-01T00:00%2B05:00&to=2999-01-01T00:00", True),
    ):  # fmt: skip
        assert (failed.id in browser.get(f"/ops/executions?{query}").text) == there, query


def nested(shop: Shop, many: int) -> str:
    """Run a workflow that starts *many* sub-workflows; return its id."""
    child = [{"id": "pay", "action": "charge", "input": {"amount": "{{ event.payload.amount }}"}}]
    shop.kernel.add_workflow({"name": "pay", "trigger": {"type": "manual"}, "steps": child})
    step = {"id": "all", "workflow": "pay", "for_each": "{{ event.payload }}",
            "input": {"amount": "{{ item }}"}}  # fmt: skip
    shop.kernel.add_workflow({"name": "batch", "trigger": {"type": "manual"}, "steps": [step]})
    begun = shop.kernel.start("batch", list(range(many)))
    shop.kernel.run_until_idle()
    return begun


def test_sub_workflows_stand_below_the_execution_that_began_them(shop: Shop) -> None:
    parent = nested(shop, 5)
    browser = client(shop, admin())
    page = browser.get("/ops/executions").text
    assert page.count('<tr data-depth="1">') == 4
    assert "2 more sub-workflows" in page
    its = browser.get(f"/ops/executions/{parent}").text
    assert "Sub-workflows" in its
    assert its.count("<strong>pay</strong>") == 5
    child = shop.kernel.executions.children([parent])[parent].executions[0]
    assert f"/ops/executions/{parent}" in browser.get(f"/ops/executions/{child.id}").text


def test_the_grid_has_a_cell_for_each_step_of_each_run(shop: Shop) -> None:
    runs = [shop.order(), shop.order(500), shop.order()]
    browser = client(shop, admin())
    assert "Choose a workflow" in browser.get("/ops/executions/grid").text
    page = browser.get("/ops/executions/grid?workflow=order").text
    assert all(f"/ops/executions/{run.id}/steps/charge/whole" in page for run in runs)
    charge, ok = rows_of(page)
    assert [charge.count(each) for each in ('data-tone="ok"', 'data-tone="bad"')] == [2, 1]
    assert [ok.count(each) for each in ('data-tone="warn"', "not begun")] == [2, 1]
    failed = browser.get("/ops/executions/grid?workflow=order&status=FAILED").text
    assert failed.count("steps/charge/whole") == 1


def test_two_executions_are_compared(shop: Shop) -> None:
    first, second = shop.order(name="tea"), shop.order(500, name="mugs", token="p4ss")
    browser = client(shop, admin())
    browser.get("/ops/")
    sent = {"csrf": browser.cookies["automate_csrf"], "order": "compare"}
    page = browser.post("/ops/executions", data={**sent, "id": [first.id, second.id]}).text
    for line in ("&#34;name&#34;: &#34;tea&#34;", "&#34;amount&#34;: 500"):
        assert line in page
    assert "p4ss" not in page
    assert "Tick the two" in browser.post("/ops/executions", data={**sent, "id": [first.id]}).text
    for tenant in ("mine",):
        other = client(shop, User("eve", ["viewer"], tenant))
        address = f"/ops/executions/compare?a={first.id}&b={second.id}"
        assert other.get(address).status_code == 404


# -- many at once ----------------------------------------------------------------------------


def test_all_that_failed_are_resumed_by_their_cause(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [shop.order(500) for _ in range(7)]
    waiting = shop.order()
    shop.limit = 1000
    browser = client(shop, admin())
    asked = {"order": "resume", "scope": "all", "status": "FAILED", "group": failed[0].error_group}
    question = send(browser, "/ops/executions", **asked).text
    assert "Resume 7 executions?" in question
    assert "failed executions with ValueError" in question
    assert status(shop, failed[0].id) == "FAILED"

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    few = replace(steering.EXECUTIONS, batch=3)
    monkeypatch.setattr(steering, "EXECUTIONS", few)
    page = send(browser, "/ops/executions", **hidden(question))
    for _ in range(10):
        if "data-go-on" not in page.text:
            break
        page = send(browser, "/ops/executions", **hidden(page.text))
    assert "7 executions resumed." in page.text
    assert {status(shop, each.id) for each in failed} == {"PENDING"}
    assert status(shop, waiting.id) == "RUNNING"


def test_the_workers_page_shows_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the settings and those that workers report, with what keeps their tasks."""
    executors = {"gpu": MemoryExecutor(), "mail": MemoryExecutor()}
    shop = Shop(kernel=Kernel(MemoryStorage(), executors=executors, secrets={"TOKEN": SECRET}))
    browser = client(shop, admin())
    assert browser.get("/ops/workers").text.count("no worker uses it") == 2
    assert shop.kernel.secrets.get("TOKEN") == SECRET
    use = ExecutorUse("gpu", 3, 1200, f"INTERNAL: <b> {SECRET}", "no executor serves it")
    now = shop.kernel.outbox.now()
    reported = [
        WorkerInfo("a", "desk", 1, None, now, executors=(use, ExecutorUse("mail", 1))),
        WorkerInfo("b", "desk", 2, None, now, executors=(replace(use, in_flight=4), )),
        WorkerInfo("c", "desk", 3, None, now, executors=(replace(use, in_flight=90), ), lost=True),
        WorkerInfo("d", "desk", 4, None, now, executors=(ExecutorUse("older"), )),
    ]  # fmt: skip
    monkeypatch.setattr(shop.kernel.outbox, "workers", lambda: reported)
    page = browser.get("/ops/workers").text
    found = page.split('id="executors"')[1].split("</table>")[0]
    gpu, mail, older = rows_of(found)
    assert re.findall(r'class="right">([0-9,]+)<', gpu) == ["7", "0", "2,400"]
    assert gpu.count("no executor serves it") == 1
    assert "INTERNAL: &lt;b&gt;" in gpu
    assert "ALIVE" in mail
    assert "set elsewhere" in older
    assert SECRET not in page
    shop.kernel.close()


def test_the_kinds_show_what_a_relay_has_not_sent() -> None:
    """As any kind: the number, the age of the oldest, and behind it the reason."""
    topic, clock = MemoryTopic(available=False), FakeClock()
    kernel = Kernel(MemoryStorage(clock), relays={"orders": MemoryRelay(topic)})
    browser = client(Shop(kernel=kernel), admin())
    kernel.emit("order.paid")
    kernel.run_until_idle()
    clock.advance(3_600)
    row = browser.get("/ops/kinds").text.split("<strong>automate.relay:orders</strong>")[1]
    assert re.search(r'data-label="Oldest" class="nowrap">(1 h|60 min|1h)', row), row[:900]
    (item,) = kernel.outbox.find(kind="automate.relay:orders")
    assert "the broker can&#39;t be reached" in browser.get(f"/ops/outbox/{item.id}").text
    kernel.close()


@pytest.fixture
def with_worker(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that carries bulk actions on, in small steps."""
    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(steering, "EXECUTIONS", replace(steering.EXECUTIONS, batch=3))
    monkeypatch.setattr("automate_kernel.outbox.operator_commands.BATCH", 3)
    own = WorkerInfo("w", "desk", 1, None, None, kinds=(bulk_runner.KIND,))
    monkeypatch.setattr(shop.kernel.outbox, "workers", lambda: [own])


@pytest.mark.usefixtures("with_worker")
def test_a_worker_carries_a_bulk_action_on_when_the_page_is_closed(shop: Shop) -> None:
    """Its page shows how far it is, in the tenant alone, and its end is in the audit trail."""
    failed = [shop.order(500, tenant="mine") for _ in range(7)]
    other = shop.order(500, tenant="other")
    shop.limit = 1000
    browser = client(shop, User("eve", ["operator"], "mine"))
    asked = {"order": "resume", "scope": "all", "status": "FAILED"}
    question = send(browser, "/ops/executions", **asked).text
    page = send(browser, "/ops/executions", **hidden(question))
    address = page.url.path
    assert "A worker carries it on, also when this page is closed." in page.text
    assert "<strong>3</strong> of 7" in page.text
    assert "It waits for a worker" in page.text
    listed = browser.get("/ops/executions").text
    assert f'<a href="{address}">Resume: 3 of 7 failed executions' in listed
    assert address not in client(shop, User("mia", ["admin"], "other")).get("/ops/executions").text
    for user, path, code in (
        (User("mia", ["admin"], "other"), address, 404),
        (User("ada", ["viewer"], None), address, 200),
        (User("ada", ["viewer"], None), address.replace("executions", "outbox"), 404),
        (User("ada", ["viewer"], None), "/ops/executions/bulk/none", 404),
    ):
        assert client(shop, user).get(path).status_code == code, path
    viewer = client(shop, User("ada", ["viewer"], "mine"))
    assert send(viewer, address, order="stop").status_code == 403
    shop.kernel.run_until_idle()
    assert {status(shop, each.id) for each in failed} == {"RUNNING"}
    assert status(shop, other.id) == "FAILED"
    done = browser.get(address).text
    assert "It is done. 7 executions resumed." in done
    assert "Stop</button>" not in done
    assert "was over" in send(browser, address, order="stop").text
    assert address not in browser.get("/ops/executions").text
    ends = [each for each in shop.kernel.audit.page().records if each.model == "bulk action"]
    assert ("resume", "done", "mine") in [
        (each.action, each.outcome, each.tenant_id) for each in ends
    ]


@pytest.mark.usefixtures("with_worker")
def test_many_executions_are_copied_from_a_step(shop: Shop) -> None:
    """The step is asked for, one workflow is meant, and who starts nothing is offered none."""
    failed = [shop.order(500) for _ in range(4)]
    shop.kernel.add_workflow({"name": "other", "trigger": {"type": "manual"},
                              "steps": [{"id": "a", "action": "charge"}]})  # fmt: skip
    other = shop.kernel.start("other")
    shop.kernel.run_until_idle()
    browser = client(shop, admin())
    everything = browser.get("/ops/executions?status=FAILED").text
    assert 'value="fork"' in everything
    assert "Copy all…" not in everything
    assert "Copy all…" in browser.get("/ops/executions?status=FAILED&workflow=order").text
    both = {"order": "fork", "id": [failed[0].id, other]}
    page = send(browser, "/ops/executions", **both)  # type: ignore[arg-type]
    assert "Tick executions of one workflow" in page.text
    asked = {"order": "fork", "scope": "all", "status": "FAILED", "workflow": "order"}
    question = send(browser, "/ops/executions", **asked).text
    assert "Copy 4 executions?" in question
    assert '<option value="charge">' in question
    assert 'name="definition" value="current"' in question
    sent = hidden(question)
    assert "Copy 4 executions?" in send(browser, "/ops/executions", **sent).text
    page = send(browser, "/ops/executions", **sent, step="charge", definition="current")
    assert "<strong>3</strong> of 4" in page.text
    shop.limit = 1000
    shop.kernel.run_until_idle()
    assert "4 executions copied." in browser.get(page.url.path).text
    for each in failed:
        [copy] = shop.kernel.executions.page(labels=[f"forked_from={each.id}"]).executions
        assert (copy.status.value, status(shop, each.id)) == ("RUNNING", "FAILED")
    [entry] = [each for each in shop.kernel.audit.page().records if each.details.get("step")]
    assert (entry.action, entry.details["step"]) == ("fork", "charge")
    operator = client(shop, User("eve", ["operator"], None))
    assert 'value="fork"' not in operator.get("/ops/executions").text
    assert send(operator, "/ops/executions", **sent, step="charge").status_code == 403


@pytest.mark.usefixtures("with_worker")
def test_a_bulk_action_is_stopped(shop: Shop) -> None:
    """What is done stays done; also where finished items are deleted at once."""
    ids = fail(shop, "mail", 7)
    browser = client(shop, admin())
    asked = {"order": "retry", "scope": "all", "status": "FAILED", "kind": "mail", "sure": "yes"}
    address = send(browser, "/ops/outbox", **asked, total="7").url.path
    assert "It is stopped" in send(browser, address, order="stop").text
    shop.kernel.run_until_idle()
    page = browser.get(address).text
    assert "It was stopped" in page
    assert "3 items put back to wait." in page
    assert shop.kernel.outbox.stats().total("FAILED") == len(ids) - 3
    entries = [each for each in shop.kernel.audit.page().records if each.action == "stop"]
    assert [(each.model, each.object_id) for each in entries] == [
        ("bulk action", address.rpartition("/")[2])
    ]


def test_an_item_says_its_kind_and_priority_and_what_runs_whose_it_is(shop: Shop) -> None:
    """What runs is cancelled from the page of workers, by who may."""
    [failed] = fail(shop, "letter", 1)
    urgent = shop.kernel.outbox.enqueue("mail", {}, priority=7, tenant_id="mine")
    [running] = shop.kernel.outbox.claim_batch("w-1", kinds=["mail"])
    browser = client(shop, admin())
    page = browser.get(f"/ops/outbox/{failed}").text
    assert '<a href="/ops/outbox?kind=letter">letter</a>' in page
    assert re.search(r"<dt>Priority</dt><dd>7<", browser.get(f"/ops/outbox/{urgent}").text)
    viewer = client(shop, User("eve", ["viewer"], None))
    cancels = f'action="/ops/outbox/{running.id}"'
    assert cancels not in viewer.get("/ops/workers").text
    [row] = [each for each in rows_of(browser.get("/ops/workers").text) if cancels in each]
    assert "mine" in row
    assert "asked to stop" in send(browser, f"/ops/outbox/{running.id}", order="cancel").text
    stopping = browser.get("/ops/workers").text
    assert cancels not in stopping
    assert "STOPPING" in stopping
    assert "STOPPING" in browser.get("/ops/outbox?status=RUNNING").text


def hidden(page: str) -> dict[str, str]:
    found = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page))
    return {name: text for name, text in found.items() if name != "csrf"}


def status(shop: Shop, execution_id: str) -> str:
    found = shop.kernel.executions.get(execution_id)
    assert found is not None
    return found.status.value


def test_ticked_executions_are_cancelled_once_it_is_sure(shop: Shop) -> None:
    ticked, other = shop.order(), shop.order()
    browser = client(shop, admin())
    question = send(browser, "/ops/executions", order="cancel", id=ticked.id)
    assert "Cancel 1 execution?" in question.text
    assert ticked.id in question.text
    done = send(browser, "/ops/executions", **hidden(question.text))
    assert "1 execution cancelled" in done.text
    assert [status(shop, each.id) for each in (ticked, other)] == ["CANCELLED", "RUNNING"]


@pytest.mark.parametrize(
    ("user", "form", "code"),
    [
        (User("eve", ["viewer"], None), {"order": "cancel", "id": "{id}", "sure": "yes"}, 403),
        (User("eve", ["operator"], "mine"), {"order": "cancel", "id": "{id}", "sure": "yes"}, 200),
        (User("eve", ["operator"], "mine"), {"order": "cancel", "scope": "all", "status": "RUNNING",
                                             "tenant": "other", "sure": "yes"}, 200),
        (User("eve", ["operator"], None), {"order": "cancel", "scope": "all"}, 400),
        (User("eve", ["operator"], None), {"order": "no", "id": "{id}", "sure": "yes"}, 400),
        (User("eve", ["operator"], None), {"order": "cancel", "sure": "yes"}, 200),
        (User("eve", ["operator"], None), {"order": "cancel", "scope": "all", "status": "RUNNING",
                                           "label": "by=test", "sure": "yes"}, 400),
        (User("eve", ["operator"], None), {"order": "cancel", "scope": "all", "status": "RUNNING",
                                           "began_at": "x", "sure": "yes"}, 400),
    ],
)  # fmt: skip
def test_nobody_changes_what_isnt_theirs_to_change(
    shop: Shop, user: User, form: dict[str, str], code: int
) -> None:
    execution = shop.order(tenant="other")
    filled = {name: text.format(id=execution.id) for name, text in form.items()}
    answer = send(client(shop, user), "/ops/executions", **filled)
    assert answer.status_code == code
    assert status(shop, execution.id) == "RUNNING"


# -- one execution ---------------------------------------------------------------------------


def test_the_step_that_failed_stands_beside_the_timeline(shop: Shop) -> None:
    failed = shop.order(500, name="mugs")
    browser = client(shop, admin())
    page = browser.get(f"/ops/executions/{failed.id}").text
    panel = page.split('id="step"')[1]
    assert "Copy from here" in panel
    assert "Resume from here" in panel
    assert "&#34;amount&#34;: 500" in panel.split("</textarea>")[0]
    assert 'aria-current="true"' in page


def test_a_payload_with_a_hidden_part_is_not_offered_for_a_copy(shop: Shop) -> None:
    failed = shop.order(500, token="p4ss")
    page = client(shop, admin()).get(f"/ops/executions/{failed.id}").text
    assert "p4ss" not in page
    assert "a part is hidden" in page
    assert re.search(r'<textarea id="payload"[^>]*>\s*</textarea>', page)


def test_a_signal_is_sent_by_a_form(shop: Shop) -> None:
    step = {"id": "truck", "wait_for": {"signal": "truck"}}
    shop.kernel.add_workflow({"name": "ship", "trigger": {"type": "manual"}, "steps": [step]})
    begun = shop.kernel.start("ship")
    shop.kernel.run_until_idle()
    browser, its = client(shop, admin()), f"/ops/executions/{begun}"
    assert "Send truck" in browser.get(its).text
    assert "not JSON" in send(browser, its, order="signal", name="truck", payload="{").text
    assert "is sent" in send(browser, its, order="signal", name="truck", payload='{"n": 7}').text
    assert "&#34;n&#34;: 7" in browser.get(its).text.split('id="signals"')[1]
    shop.kernel.run_until_idle()
    assert status(shop, begun) == "COMPLETED"
    viewer = client(shop, User("eve", ["viewer"], None))
    assert send(viewer, its, order="signal", name="truck").status_code == 403


@pytest.mark.parametrize("asks", ["role:manager", "ivo"])
def test_who_stands_in_answers_for_whom_is_asked(shop: Shop, asks: str) -> None:
    step = {"id": "ok", "approval": {"title": "Refund?", "by": [asks]}}
    shop.kernel.add_workflow({"name": "refund", "trigger": {"type": "manual"}, "steps": [step]})
    begun = shop.kernel.start("refund")
    shop.kernel.run_until_idle()
    page = f"/ops/approvals/{begun}/ok/whole"
    other = client(shop, admin())
    assert f"asks {asks}: Refund?" in other.get("/ops/executions").text
    assert f'href="{page}">Decide' in other.get(f"/ops/executions/{begun}").text
    assert "There are some for others" in other.get("/ops/approvals").text
    assert "is for" in send(other, page, decision="approve").text
    developer = client(shop, User("dev", ["admin"], None, stands_in=True))
    assert "Refund?" in developer.get("/ops/approvals").text
    send(developer, page, decision="approve")
    shop.kernel.run_until_idle()
    found = shop.kernel.executions.get(begun)
    assert found is not None
    assert found.steps[0].output["by"] == ("ivo" if asks == "ivo" else "dev")


# -- workflows -------------------------------------------------------------------------------


def test_a_workflow_shows_the_outcome_of_its_last_runs(shop: Shop) -> None:
    runs = [shop.order(500), shop.order()]
    shop.kernel.approvals.approve(runs[1].id, "ok", by="ada", form={"boxes": 1})
    shop.kernel.run_until_idle()
    browser = client(shop, admin())
    page = browser.get("/ops/workflows").text
    assert "50%" in page
    assert all(f"/ops/executions/{run.id}" in page for run in runs)
    assert "order" not in rows_of(browser.get("/ops/workflows?q=none").text)
    its = browser.get("/ops/workflows/order").text
    assert "50%" in its
    digest = re.findall(r"/versions/([0-9a-f]{64})", its)[0]
    assert "No difference." in browser.get(f"/ops/workflows/order/versions/{digest}").text


def test_a_version_is_compared_with_the_workflow_as_it_is_now(shop: Shop) -> None:
    shop.order()
    old = shop.kernel.workflows.get("order")
    then = old.hash()
    secret = {"id": "bill", "action": "charge", "input": {"amount": 1, "token": "p4ss"}}
    changed = Kernel(shop.kernel.storage)
    changed.action("charge")(shop.charge)
    changed.add_workflow({**old.to_dict(), "steps": [*old.to_dict()["steps"], secret]})
    app = Starlette(routes=[Mount("/ops", pages(changed, auth=lambda _: admin()))])
    page = TestClient(app).get(f"/ops/workflows/order/versions/{then}").text
    assert 'data-sign="+"' in page
    assert "id: bill" in page
    assert "p4ss" not in page
    assert TestClient(app).get(f"/ops/workflows/order/versions/{'0' * 64}").status_code == 404
    changed.close()


class Parcel(BaseModel):
    """What is shipped."""

    boxes: int
    fast: bool = False


STARTS = [
    ({"payload": '{"amount": 7}'}, "It is started."),
    ({"payload": '{"amount": 7}', "delay": "2h"}, "It is started."),
    ({"payload": "[1"}, "the payload is not JSON"),
    ({"payload": "{}", "delay": "soon"}, "the delay can&#39;t be read"),
    ({"payload": '{"amount": 7}', "order": "dry"}, "What would happen"),
    ({"payload": "{}", "order": "dry"}, "charge: "),
]


@pytest.mark.parametrize(("form", "says"), STARTS)
def test_a_workflow_is_started_by_a_form_or_tried(
    shop: Shop, form: dict[str, str], says: str
) -> None:
    assert says in send(client(shop, admin()), "/ops/workflows/order", **form).text
    begun = shop.kernel.executions.find()
    assert len(begun) == (says == "It is started.")


def test_the_payload_of_a_workflow_in_code_has_a_form(shop: Shop) -> None:
    @shop.kernel.workflow
    def ship(ctx: SyncWorkflowContext, parcel: Parcel) -> int:
        """Ship boxes."""
        return parcel.boxes

    browser, its = client(shop, admin()), "/ops/workflows/ship"
    assert 'name="input.boxes"' in browser.get(its).text
    refused = send(browser, its, **{"input.boxes": "many"})
    assert "some fields are not right" in refused.text
    assert 'value="many"' in refused.text
    started = send(browser, its, **{"input.boxes": "3", "input.fast": "true"})
    begun = shop.kernel.executions.get(str(started.url).rsplit("/", 1)[1])
    assert begun is not None
    assert begun.event.payload == {"boxes": 3, "fast": True}


def test_schedules_are_paused_resumed_and_run_now(shop: Shop) -> None:
    trigger = {"type": "schedule", "cron": "0 6 * * *"}
    step = {"id": "a", "action": "charge", "input": {"amount": 1}}
    shop.kernel.add_workflow({"name": "report", "trigger": trigger, "steps": [step]})
    browser, its = client(shop, admin()), "/ops/workflows/report"
    form = {"number": "0"}
    assert "Run now" in browser.get(its).text
    assert "fires no more" in send(browser, its, order="pause_schedule", **form).text
    assert "PAUSED" in browser.get(its).text
    assert "It fires again" in send(browser, its, order="resume_schedule", **form).text
    assert "It has fired" in send(browser, its, order="trigger", **form).text
    assert len(shop.kernel.executions.find(workflow="report")) == 1
    for number in ("x", "7", "9" * 40):
        assert send(browser, its, order="trigger", number=number).status_code in (200, 400)
    # What is everybody's is no tenant's to stop, or to start in the name of nobody.
    other = client(shop, User("eve", ["admin"], "mine"))
    assert send(other, its, order="trigger", **form).status_code == 400
    assert "Run now" not in other.get(its).text
    assert len(shop.kernel.executions.find(workflow="report")) == 1


def test_times_of_the_past_are_made_up_for(shop: Shop) -> None:
    trigger = {"type": "schedule", "cron": "0 6 * * *"}
    step = {"id": "a", "action": "charge", "input": {"amount": 1}}
    shop.kernel.add_workflow({"name": "report", "trigger": trigger, "steps": [step]})
    browser, its = client(shop, admin()), "/ops/workflows/report"
    form = {"order": "backfill", "number": "0", "first": "2026-03-01T00:00"}
    assert 'type="datetime-local" name="first"' in browser.get(its).text
    many = send(browser, its, **form, last="2026-03-03T23:59")
    assert "3 executions begun, for times that had none." in many.text
    again = send(browser, its, **form, last="2026-03-04T12:00")
    assert "1 execution begun" in again.text
    for last, words in (("2026-02-01T00:00", "end before"), ("2025-13-01", "give the first"),
                        ("2027-03-01T00:00", "end in the future"), ("", "give the first"),
                        ("2026-11-30T00:00", "has more than 200 times")):  # fmt: skip
        assert words in send(browser, its, **form, last=last).text, last
    assert len(shop.kernel.executions.find(workflow="report")) == 4
    entries = [each for each in shop.kernel.audit.page().records if each.outcome == "done"]
    assert entries[-1].details["first"] == "2026-03-01T00:00"
    operator = client(shop, User("eve", ["operator"], None))
    assert "Backfill" not in operator.get(its).text
    assert send(operator, its, **form, last="2026-03-09T00:00").status_code == 403
    other = client(shop, User("eve", ["admin"], "mine"))
    assert send(other, its, **form, last="2026-03-09T00:00").status_code == 400


class Sheet(Connector):
    """A sheet whose new rows are asked for."""

    key = "sheet"
    fails: ClassVar[bool] = True

    @poll("new_row", every=3600)
    def new_row(self, cursor: Any) -> PollResult:
        """Ask for new rows."""
        if self.fails:
            raise OSError("the sheet is away")
        return PollResult([], cursor=7)


def test_polls_are_paused_resumed_asked_and_started_over(shop: Shop) -> None:
    """By operators of all tenants; a poll of another workflow is not there."""
    kernel = shop.kernel
    kernel.register(Sheet, "connector", key="sheet")
    trigger = {"type": "event", "event": "sheet.new_row"}
    step = {"id": "a", "action": "charge", "input": {"amount": 1}}
    kernel.add_workflow({"name": "rows", "trigger": trigger, "steps": [step]})
    kernel.run_until_idle()
    browser, its = client(shop, User("eve", ["operator"], None)), "/ops/workflows/rows"

    def state() -> Any:
        [found] = kernel.polls.find()
        return found

    def order(name: str, user: Any = browser, path: str = its) -> Any:
        return send(user, path, order=name, name="sheet.new_row")

    now = kernel.outbox.now()
    assert "It keeps its place" in order("pause_poll").text
    assert "paused already" in order("pause_poll").text
    assert state().paused_at is not None
    assert "It is paused: resume it first" in order("call_now").text
    assert "goes on where it was" in order("resume_poll").text
    assert "not paused" in order("resume_poll").text
    with kernel.storage.begin() as rows:
        changes = {"next_at": Now(5000), "failures": 3, "error": "away", "poll_cursor": 5}
        rows.update(POLL, [Where("id", "eq", state().id)], changes)
    assert "A worker asks its service now" in order("call_now").text
    assert (state().failures, state().next_at < now + timedelta(seconds=600)) == (3, True)
    assert "its next call is its first" in order("start_over").text
    assert state().failures == 0
    assert "Start over" in browser.get(its).text
    viewer = client(shop, User("eve", ["viewer"], None))
    assert "Start over" not in viewer.get(its).text
    for user, path, code in (
        (viewer, its, 403),
        (client(shop, User("eve", ["admin"], "mine")), its, 400),
        (browser, "/ops/workflows/order", 400),
    ):
        assert order("pause_poll", user, path).status_code == code
    assert state().paused_at is None


@pytest.mark.parametrize("tenant", [None, "mine"])
def test_a_workflow_is_paused_for_whom_the_user_sees(shop: Shop, tenant: str | None) -> None:
    browser, its = client(shop, User("eve", ["operator"], tenant)), "/ops/workflows/order"
    assert "It is paused" in send(browser, its, order="pause", reason="the bank").text
    assert [each.tenant_id for each in shop.kernel.workflows.paused()] == [tenant]
    assert "PAUSED" in browser.get("/ops/workflows").text
    assert "the bank" in browser.get(its).text
    assert "go on" in send(browser, its, order="resume").text
    assert shop.kernel.workflows.paused() == []
    viewer = client(shop, User("eve", ["viewer"], tenant))
    assert send(viewer, its, order="pause").status_code == 403


# -- outbox ----------------------------------------------------------------------------------


def fail(shop: Shop, kind: str, many: int, tenant: str | None = None) -> list[str]:
    """Return the ids of items that have failed."""
    outbox, ids = shop.kernel.outbox, []
    for number in range(many):
        outbox.enqueue(kind, {"n": number}, tenant_id=tenant, labels={"n": number}, max_attempts=1)
    for item in outbox.claim_batch("w", many + 100):
        outbox.mark_failed(item.id, "w", error=f"no {kind}", token=item.lease_token)
        ids.append(item.id)
    return ids


def test_failed_items_are_put_back_at_a_rate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = fail(shop, "mail", 7), fail(shop, "fax", 2)
    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr("automate_kernel.outbox.operator_commands.BATCH", 3)
    browser = client(shop, admin())
    page = browser.get("/ops/outbox?status=FAILED&kind=mail").text
    assert "Retry all…" in page
    assert "With all failed items of mail" in page
    asked = {"order": "retry", "scope": "all", "status": "FAILED", "kind": "mail"}
    question = send(browser, "/ops/outbox", **asked)
    assert "Retry 7 items?" in question.text
    page = send(browser, "/ops/outbox", **hidden(question.text), per_second="10").text
    for _ in range(10):
        if "data-go-on" not in page:
            break
        page = send(browser, "/ops/outbox", **hidden(page)).text
    assert "7 items put back to wait" in page
    assert "at 10 a second" in page
    found = [shop.kernel.outbox.get(each) for each in mine]
    assert {item.status.value for item in found if item} <= {"PENDING", "RETRY"}
    assert len({item.next_attempt_at for item in found if item}) == 7
    assert shop.kernel.outbox.stats().total("FAILED") == len(other)


def test_an_item_shows_what_happened_to_it(shop: Shop) -> None:
    failed = shop.order(500)
    (item_id,) = fail(shop, "mail", 1)
    browser = client(shop, admin())
    page = browser.get(f"/ops/outbox/{item_id}").text
    for text in ("Accepted", "Given up at attempt 1 of 1", "no mail", "n=0"):
        assert text in page, text
    assert f"/ops/executions/{failed.id}" in browser.get(f"/ops/outbox/{failed.item_id}").text
    question = send(browser, f"/ops/outbox/{item_id}", order="discard")
    assert "undone" in question.text
    assert shop.kernel.outbox.get(item_id) is not None
    sent = {**hidden(question.text), "order": "discard"}
    assert "1 item deleted" in send(browser, f"/ops/outbox/{item_id}", **sent).text
    assert shop.kernel.outbox.get(item_id) is None


@pytest.mark.parametrize("scope", ["all", "ticked"])
def test_items_of_another_tenant_are_left(shop: Shop, scope: str) -> None:
    (theirs,), (own,) = fail(shop, "mail", 1, "other"), fail(shop, "mail", 1, "mine")
    browser = client(shop, User("eve", ["operator"], "mine"))
    assert theirs not in browser.get("/ops/outbox?status=FAILED").text
    sent = {"order": "retry", "status": "FAILED", "tenant": "other", "sure": "yes"}
    sent |= {"scope": "all"} if scope == "all" else {"id": theirs}
    send(browser, "/ops/outbox", **sent)
    item, its = shop.kernel.outbox.get(theirs), shop.kernel.outbox.get(own)
    assert item is not None
    assert its is not None
    assert (item.status.value, its.status.value == "FAILED") == ("FAILED", scope != "all")


def test_kinds_are_paused_and_limited(shop: Shop) -> None:
    fail(shop, "mail", 2)
    browser = client(shop, admin())

    def steer(order: str, **more: str) -> str:
        return str(send(browser, "/ops/kinds", order=order, kind="mail", **more).text)

    assert "Paused mail" in steer("pause", reason="the server moves")
    assert "the server moves" in browser.get("/ops/kinds").text
    assert "Resumed mail" in steer("resume")
    assert "Limited mail" in steer("limit", concurrency="3", rate="10", per_seconds="60")
    assert "3 at once, 10 per 1 min" in browser.get("/ops/kinds").text
    assert "is a number" in steer("limit", concurrency="many")
    assert "Removed the limit" in steer("unlimit")
    for user, code in ((User("eve", ["viewer"], None), 403), (User("eve", ["admin"], "mine"), 403)):
        answer = send(client(shop, user), "/ops/kinds", order="pause", kind="mail")
        assert answer.status_code == code


def test_keys_that_stand_still_say_why(shop: Shop) -> None:
    for _ in range(4):
        shop.kernel.outbox.enqueue("ship", {}, ordering_key="customer-7")
    shop.kernel.outbox.claim_batch("w", 1)
    shop.kernel.outbox.claim_batch("w", 1)
    page = client(shop, admin()).get("/ops/kinds").text
    assert "customer-7" in page
    assert "3 waiting" in page
    assert "one at a time" in page


# -- who did what ----------------------------------------------------------------------------


def test_who_steered_and_decided_is_shown(shop: Shop) -> None:
    waiting, theirs = shop.order(), shop.order(tenant="other")
    browser, its = client(shop, admin()), f"/ops/executions/{waiting.id}"
    send(browser, its, order="pause")
    send(browser, its, order="unpause")
    field = f"/ops/approvals/{waiting.id}/ok/whole"
    name = browser.get(field).text.split('type="number"')[0].rsplit('for="', 1)[1].split('"')[0]
    send(browser, field, decision="approve", **{name: "3"})
    send(browser, f"/ops/approvals/{theirs.id}/ok/whole", decision="reject")
    page = browser.get(its).text.split('id="steered"')[1]
    assert "<strong>ada</strong>: pause" in page
    assert "<strong>ada</strong>: approve, step ok" in page
    decided = browser.get("/ops/approvals?of=decided").text
    assert "approved" in decided
    assert "rejected" in decided
    assert theirs.id in decided
    mine = client(shop, User("eve", ["viewer"], "mine")).get("/ops/approvals?of=decided").text
    assert theirs.id not in mine


# -- home ------------------------------------------------------------------------------------


def test_home_says_what_needs_a_person(shop: Shop) -> None:
    kernel, storage = shop.kernel, shop.kernel.storage
    trigger = {"type": "schedule", "cron": "* * * * *"}
    step = {"id": "a", "action": "charge", "input": {"amount": 1}}
    kernel.add_workflow({"name": "report", "trigger": trigger, "steps": [step]})
    shop.order(500), shop.order()
    kernel.outbox.enqueue("mail", {})
    kernel.outbox.claim_batch("gone", 1)
    kernel.outbox.enqueue("mail", {})
    kernel.outbox.pause("fax", "no paper")
    kernel.workflows.pause("order")
    kernel.run_until_idle()
    storage.skip(600)  # type: ignore[attr-defined]
    page = client(shop, admin()).get("/ops/").text
    for card in ("Approvals for you", "Failed executions", "Oldest due item", "Paused kinds",
                 "Stuck leases", "Missed schedules", "Paused workflows", "Workers"):  # fmt: skip
        assert f"<span>{card}</span>" in page, card
    assert "ValueError in" in page
    assert "NEW" in page
    assert "1 of the last hour, 0 of the hour before" in page
    assert "Executions per minute" in page
    own = client(shop, User("eve", ["admin"], "mine")).get("/ops/").text
    assert "Stuck leases" not in own
    assert "Throughput" not in own


def test_a_long_history_is_gathered_beside_the_page(shop: Shop) -> None:
    shop.order(500)
    browser = client(shop, admin())
    browser.get("/ops/?span=7d")
    until(lambda: "being gathered" not in browser.get("/ops/?span=7d").text)
    page = browser.get("/ops/?span=7d").text
    assert "Executions per 4 hours" in page
    assert "As a table" in page
    assert "Last 7 days" in page


# -- operations, plugins, webhooks -----------------------------------------------------------


def test_an_operation_is_called_once_by_its_form(shop: Shop) -> None:
    browser = client(shop, admin(), operations=["charge"])
    assert 'href="/ops/operations"' in browser.get("/ops/").text
    assert "charge" in browser.get("/ops/operations").text
    page = browser.get("/ops/operations?name=charge").text
    assert "Charge the customer" in page
    sent = {**hidden(page), "input.amount": "7", "input.name": "tea"}
    called = send(browser, "/ops/operations", **sent).text
    assert "&#34;charged&#34;: 7" in called
    for each in (browser, client(shop, admin(), operations=["charge"])):  # another process
        assert "was sent before" in send(each, "/ops/operations", **sent).text
    for amount, problem in (("many", "Some fields are not right"), ("500", "INTERNAL")):
        form = {**hidden(browser.get("/ops/operations?name=charge").text), "input.amount": amount}
        wrong = send(browser, "/ops/operations", **form)
        assert wrong.status_code == 422
        assert problem in wrong.text
    trail = [(each.action, each.outcome) for each in shop.kernel.audit.page().records]
    assert ("call", "done") in trail


@pytest.mark.parametrize(
    ("user", "operations", "code"),
    [
        (User("eve", ["operator"], None), ["charge"], 403),
        (User("eve", ["author"], None), [], 404),
        (User("eve", ["author"], None), ["notify"], 404),
        (User("eve", ["author"], "mine"), ["charge"], 200),
    ],
)
def test_only_authors_call_what_is_offered(
    shop: Shop, user: User, operations: list[str], code: int
) -> None:
    browser = client(shop, user, operations=operations)
    assert browser.get("/ops/operations?name=charge").status_code == code
    form = {"name": "charge", "key": "k", "input.amount": "1"}
    assert ("charged" in send(browser, "/ops/operations", **form).text) == (code == 200)


class Tea(Connector):
    """The tea house."""

    key = "tea"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec(name="sold", description="A pot was sold.")]


def test_plugins_and_webhooks_say_what_there_is(shop: Shop) -> None:
    shop.kernel.register(Tea, "connector", key="tea")
    browser = client(shop, admin())
    assert "<strong>tea</strong>" in browser.get("/ops/plugins").text
    loaded = send(browser, "/ops/plugins", order="load").text
    assert "tea" in loaded
    page = browser.get("/ops/webhooks").text
    assert "/webhooks/tea/sold" in page
    assert "A pot was sold." in page
    for path in ("plugins", "webhooks", "kinds"):
        assert client(shop, User("eve", ["admin"], "mine")).get(f"/ops/{path}").status_code == 403


class Proven(Tea):
    """The tea house, which proves itself with a word."""

    def verify_webhook(self, headers: Any, raw_body: bytes) -> bool:
        return headers.get("x-proof") == "yes"


def test_a_delivery_is_shown_with_its_end_and_redelivered_once(shop: Shop) -> None:
    """What was refused with the reason, and nothing of its body; a second click does nothing."""
    shop.kernel.register(Proven, "connector", key="tea")
    shop.kernel.receive_webhook("tea", "sold", {"x-proof": "yes"}, b'{"pot": 1}')
    with pytest.raises(WebhookRejectedError):
        shop.kernel.receive_webhook("tea", "sold", {}, b'{"forged": "by eve"}')
    browser = client(shop, admin(), webhooks="https://tea.example/hooks/")
    page = browser.get("/ops/webhooks").text
    assert "<code>https://tea.example/hooks/webhooks/tea/sold</code>" in page
    assert "refused 1" in page
    assert "by eve" not in page
    assert "None. A delivery" in browser.get("/ops/webhooks?outcome=repeated").text
    assert "No delivery" in browser.get("/ops/webhooks?connector=coffee").text
    form = {"order": "redeliver", **hidden(page)}
    operator = client(shop, User("eve", ["operator"], None))
    assert send(operator, "/ops/webhooks", **form).status_code == 403
    assert send(client(shop, admin(tenant="mine")), "/ops/webhooks", **form).status_code == 403
    assert "is emitted again" in send(browser, "/ops/webhooks", **form).text
    assert "was redelivered meanwhile" in send(browser, "/ops/webhooks", **form).text
    assert len(shop.kernel.outbox.find(kind="automate.event")) == 2
    for wrong in ({"seen": "x"}, {"seen": ""}):
        assert send(browser, "/ops/webhooks", **{**form, **wrong}).status_code == 400
    unknown = send(browser, "/ops/webhooks", **{**form, "delivery": "<b>"}).text
    assert "there is no accepted delivery" in unknown
    assert "<b>" not in unknown
    trail = [(each.action, each.model, each.outcome) for each in shop.kernel.audit.page().records]
    assert ("redeliver", "webhook", "done") in trail


def test_the_address_of_a_webhook_is_that_of_the_reader(shop: Shop) -> None:
    """What somebody else has sent as Host is on nobody's page."""
    shop.kernel.register(Proven, "connector", key="tea")
    app = client(shop, admin(), webhooks="/hooks").app
    for host in ("evil.example", "shop.example"):
        page = TestClient(app, base_url=f"http://{host}").get(
            "/ops/webhooks", headers={"X-Automate-Part": "1"}
        )
        assert f"<code>http://{host}/hooks/webhooks/tea/sold</code>" in page.text


class Account:
    """An account at a service, whose tokens are a word."""

    key = "crm-account"
    tokens: ClassVar[dict[str | None, str]] = {}

    def __init__(self, tenant: str | None = None) -> None:
        self.tenant = tenant

    def for_tenant(self, tenant: str | None) -> Account:
        return Account(tenant)

    def status(self, secrets: object) -> AccountStatus:
        there = self.tenant in self.tokens
        return AccountStatus(connected=there, connected_by="ada" if there else "")

    def disconnect(self, secrets: object) -> None:
        self.tokens.pop(self.tenant, None)


class Crm(Connector):
    key = "crm"

    def oauth(self) -> Account:  # type: ignore[override]
        return Account()


def test_accounts_say_how_they_are_connected_and_are_ended_by_admins(shop: Shop) -> None:
    shop.kernel.register(Crm, "connector", key="crm")
    Account.tokens = {None: "t", "acme": "t"}
    browser = client(shop, admin())
    assert "CONNECTED" in browser.get("/ops/accounts").text
    form = {"order": "disconnect", "kind": "connector", "name": "crm", "tenant": "acme"}
    operator = client(shop, User("eve", ["operator"], None))
    assert send(operator, "/ops/accounts", **form).status_code == 403
    assert client(shop, User("eve", ["admin"], "acme")).get("/ops/accounts").status_code == 403
    assert "disconnected" in send(browser, "/ops/accounts", **form).text
    assert list(Account.tokens) == [None]
    page = client(shop, User("eve", ["operator"], None)).get("/ops/accounts?tenant=acme").text
    assert "automate connect crm --tenant acme" in page
    assert "no connector" in send(browser, "/ops/accounts", **{**form, "name": "none"}).text
    assert send(browser, "/ops/accounts", **{**form, "order": "explode"}).status_code == 400


def test_a_workflow_that_can_not_be_read_is_shown() -> None:
    class Broken:
        def stamp(self) -> object:
            return 1

        def load(self) -> list[SuppliedWorkflow]:
            return [SuppliedWorkflow(name="odd", definition={"name": "odd"}, tenant_id=None)]

    kernel = Kernel(MemoryStorage(), workflow_source=Broken())
    app = Starlette(routes=[Mount("/ops", pages(kernel, auth=lambda _: admin()))])
    assert "can't be read" in TestClient(app).get("/ops/workflows").text
    kernel.close()


# -- every database --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["postgresql_engine", "mariadb_engine", "sqlite_engine"])
def test_every_screen_reads_every_database(engine: str, request: pytest.FixtureRequest) -> None:
    shop = Shop(SqlAlchemyStorage(request.getfixturevalue(engine)))
    waiting, failed = shop.order(), shop.order(500, tenant="mine")
    (item_id,) = fail(shop, "mail", 1)
    digest = shop.kernel.workflows.get("order").hash()
    for user in (admin(), User("eve", ["admin"], "mine")):
        browser = client(shop, user)
        for path in (
            *BOUNDS, "executions?q=mugs", "executions?status=FAILED&since=1h&from=2020-01-01",
            "executions?label=by%3Dtest&group=x", "outbox?status=FAILED&since=24h&code=-",
            "outbox?waiting_for=key", f"outbox/{item_id}", "?span=7d", "approvals?of=decided",
            f"executions/compare?a={waiting.id}&b={failed.id}", "accounts",
            f"workflows/order/versions/{digest}",
        ):  # fmt: skip
            answer = browser.get(f"/ops/{path.format(id=failed.id)}")
            assert answer.status_code in (200, 403, 404), (path, answer.text)
            assert user.tenant or answer.status_code == 200, path
    sent = {"order": "resume", "scope": "all", "status": "FAILED", "sure": "yes"}
    assert "1 execution resumed" in send(client(shop, admin()), "/ops/executions", **sent).text
    sent = {"order": "retry", "scope": "all", "status": "FAILED", "sure": "yes"}
    assert "1 item put back" in send(client(shop, admin()), "/ops/outbox", **sent).text
    shop.kernel.close()


# -- the cost of a page ----------------------------------------------------------------------

BOUNDS = {
    "": 30,
    "executions": 12,
    "executions?q=nothing": 12,
    "executions/grid?workflow=order": 8,
    "outbox": 8,
    "kinds": 16,
    "plugins": 2,
    "webhooks": 4,
    "workflows": 6,
    "workflows/order": 8,
    "executions/{id}": 24,
    "executions/{id}/steps/charge/whole": 24,
}


@pytest.mark.parametrize("path", BOUNDS)
def test_a_page_costs_a_bounded_number_of_statements(shop: Shop, path: str) -> None:
    site, costs = Site(shop.kernel), []
    for _ in range(2):
        execution = [shop.order(500), *(shop.order() for _ in range(8))][-1]
        asked, _, query = path.format(id=execution.id).partition("?")
        request = PageRequest(shop.kernel, admin(), asked, query=SentFields(parse_qsl(query)))
        site.answer(request)
        before = queries.count
        page = site.answer(request)
        assert isinstance(page, PageAnswer)
        site.render(request, page, csrf="", notice=None)
        costs.append(queries.count - before)
    assert costs[0] <= BOUNDS[path], costs
    assert costs[1] <= costs[0], costs
