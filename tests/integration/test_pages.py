"""The operators' pages in an ASGI application: who sees what, what an order does, hostile values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from paged_shop import SECRET, Shop, admin, client, send

from automate_kernel import Kernel, WorkflowContext
from automate_kernel.storage import MemoryStorage
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow
from automate_pages import ROLES, User, loopback, pages


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.kernel.close()


def paths(execution: Execution) -> list[str]:
    """Return an address of every page."""
    its = f"/ops/executions/{execution.id}"
    return [
        "/ops/", "/ops/executions", its, f"{its}/steps/charge/whole", "/ops/workflows",
        "/ops/workflows/order", "/ops/approvals", "/ops/outbox", f"/ops/outbox/{execution.item_id}",
        "/ops/workers", "/ops/kinds", "/ops/plugins", "/ops/accounts", "/ops/webhooks",
        "/ops/executions/grid?workflow=order", "/ops/approvals?of=decided", "/ops/?span=24h",
        f"/ops/executions/compare?a={execution.id}&b={execution.id}", "/ops/executions?q=tea",
    ]  # fmt: skip


# -- what is shown ---------------------------------------------------------------------------


def test_every_page_shows_what_there_is(shop: Shop) -> None:
    waiting, failed = shop.order(name="tea"), shop.order(500, name="mugs")
    browser = client(shop, admin())
    for path in [*paths(waiting), *paths(failed)]:
        assert browser.get(path).status_code == 200, path
    home = browser.get("/ops/").text
    assert "ValueError in" in home
    assert f"/ops/executions/{waiting.id}" in home
    page = browser.get(f"/ops/executions/{failed.id}").text
    assert "can&#39;t pay 500" in page
    assert "Resume where it failed" in page
    assert "<svg" in page
    assert "Ship tea?" in browser.get("/ops/approvals").text
    assert "Why it waits" in browser.get(f"/ops/executions/{waiting.id}").text


def test_the_list_is_filtered_by_its_address(shop: Shop) -> None:
    waiting, failed = shop.order(), shop.order(500)
    browser = client(shop, admin())
    found = browser.get(
        "/ops/executions?status=FAILED&workflow=order&label=by%3Dtest&since=1h"
    ).text
    assert failed.id in found
    assert waiting.id not in found
    for nothing in ("workflow=none", "label=by%3Dnobody", "group=none"):
        assert "No execution is like that." in browser.get(f"/ops/executions?{nothing}").text
    everything = browser.get("/ops/executions?status=NONE&since=never").text
    assert failed.id in everything
    assert waiting.id in everything


def test_pages_follow_each_other(shop: Shop) -> None:
    for _ in range(60):
        shop.kernel.start("order", {"amount": 1})
    browser = client(shop, admin())
    first = browser.get("/ops/executions").text
    address = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0]
    second = browser.get(address.replace("&amp;", "&")).text
    assert first.count("<tr>") - 1 == 50
    assert second.count("<tr>") - 1 == 10
    assert "First page" in second


def test_no_secret_is_on_a_page(shop: Shop) -> None:
    assert shop.kernel.secrets.get("TOKEN") == SECRET
    failed = shop.order(500, name="tea", token=SECRET)
    fine = shop.order(5, name=SECRET)
    browser = client(shop, admin())
    for path in [*paths(failed), *paths(fine), f"/ops/approvals/{fine.id}/ok/whole"]:
        assert SECRET not in browser.get(path).text, path


def test_no_value_under_the_name_of_a_secret_is_on_a_page(shop: Shop) -> None:
    begun = shop.kernel.start("order", {"amount": 1}, labels={"password": "p4ss", "by": "test"})
    page = client(shop, admin()).get(f"/ops/executions/{begun}").text
    assert "by=test" in page
    assert "p4ss" not in page


@pytest.mark.parametrize("path", ["nothing", "executions/nothing", "outbox/nothing", "workflows/no",
                                  "approvals/no/such/7", "executions/%00", "outbox/%00/x"])  # fmt: skip
def test_what_is_not_there_says_so(shop: Shop, path: str) -> None:
    answer = client(shop, admin()).get(f"/ops/{path}")
    assert answer.status_code == 404
    assert "To the first page" in answer.text


def test_a_page_that_is_looked_at_again_sends_its_part_alone(shop: Shop) -> None:
    waiting, failed = shop.order(), shop.order(500)
    browser = client(shop, admin())
    for execution, state in ((waiting, "live"), (failed, "ended")):
        answer = browser.get(f"/ops/executions/{execution.id}", headers={"X-Automate-Part": "1"})
        assert answer.headers["X-Automate-Part"] == state
        assert "<html" not in answer.text
        assert "Steps" in answer.text


# -- who may ---------------------------------------------------------------------------------

RIGHTS = {
    "viewer": set(),
    "operator": {"cancel", "pause", "unpause", "resume", "retry", "discard"},
    "approver": {"approve"},
    "author": {
        "cancel", "pause", "unpause", "resume", "retry", "discard", "again", "fork", "start",
    },
    "admin": {
        "cancel", "pause", "unpause", "resume", "retry", "discard", "again", "fork", "start",
        "approve",
    },
}  # fmt: skip


def orders(execution: Execution) -> dict[str, tuple[str, dict[str, str]]]:
    its = f"/ops/executions/{execution.id}"
    return {
        "pause": (its, {"order": "pause"}),
        "unpause": (its, {"order": "unpause"}),
        "resume": (its, {"order": "resume"}),
        "fork": (its, {"order": "fork", "step": "charge"}),
        "discard": (f"/ops/outbox/{execution.item_id}", {"order": "discard"}),
        "cancel": (f"/ops/outbox/{execution.item_id}", {"order": "cancel"}),
        "retry": (f"/ops/outbox/{execution.item_id}", {"order": "retry"}),
        "again": (its, {"order": "again"}),
        "start": ("/ops/workflows/order", {"payload": '{"amount": 1}'}),
        "approve": (
            f"/ops/approvals/{execution.id}/ok/whole",
            {"decision": "approve", "field-boxes": "3", "boxes": "3"},
        ),
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_what_it_is_for(shop: Shop, role: str) -> None:
    execution = shop.order()
    browser = client(shop, User("eve", [role], None))
    for path in paths(execution):
        assert browser.get(path).status_code == 200, path
    for name, (path, form) in orders(execution).items():
        refused = send(browser, path, **form).status_code == 403
        assert refused == (name not in RIGHTS[role]), name


def test_who_is_nobody_is_sent_to_the_log_in(shop: Shop) -> None:
    browser = client(shop, None, log_in="/login")
    answer = browser.get("/ops/executions", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/ops/executions")


@pytest.mark.parametrize("role", ROLES)
def test_a_tenant_meets_its_own_rows_alone(shop: Shop, role: str) -> None:
    theirs, own = shop.order(500, tenant="other", name="theirs"), shop.order(tenant="mine")
    waiting = shop.order(tenant="other", name="theirs")
    browser = client(shop, User("eve", [role], "mine"))
    for path in ("", "executions", "executions?tenant=other", "approvals?of=all", "outbox",
                 "workflows", "workflows/order", "executions?status=FAILED", "executions?q=ValueError",
                 "executions/grid?workflow=order&tenant=other", "executions?q=by%3Dtest",
                 "outbox?tenant=other", "approvals?of=decided"):  # fmt: skip
        page = browser.get(f"/ops/{path}").text
        assert "theirs" not in page, path
        assert theirs.id not in page, path
    assert own.id in browser.get("/ops/executions").text
    for path in ("workers", "kinds", "plugins", "accounts", "webhooks",
                 f"executions/compare?a={own.id}&b={theirs.id}"):  # fmt: skip
        assert browser.get(f"/ops/{path}").status_code in (403, 404), path
    for execution in (theirs, waiting):
        for path in [*paths(execution)[2:4], f"/ops/outbox/{execution.item_id}",
                     f"/ops/approvals/{execution.id}/ok/whole",
                     f"/ops/executions?id={execution.id}"]:  # fmt: skip
            assert browser.get(path).status_code == 404, path
        for name, (path, form) in orders(execution).items():
            if name != "start":
                assert send(browser, path, **form).status_code in (403, 404), name
    after = shop.kernel.executions.get(waiting.id)
    assert after is not None
    assert after.status == waiting.status
    assert shop.kernel.approvals.get(waiting.id, "ok") is not None


def test_what_a_tenant_starts_is_the_tenants(shop: Shop) -> None:
    browser = client(shop, User("eve", ["author"], "mine"))
    answer = send(browser, "/ops/workflows/order", payload='{"amount": 1}')
    begun = shop.kernel.executions.get(str(answer.url).rsplit("/", 1)[1])
    assert begun is not None
    assert begun.tenant_id == "mine"


# -- orders ----------------------------------------------------------------------------------


def test_a_failed_execution_is_resumed_and_the_page_says_so(shop: Shop) -> None:
    failed = shop.order(500)
    shop.limit = 1000
    browser = client(shop, admin())
    answer = send(browser, f"/ops/executions/{failed.id}", order="resume")
    assert "It goes on from where it failed." in answer.text
    assert "It goes on from" not in browser.get(f"/ops/executions/{failed.id}").text
    shop.kernel.run_until_idle()
    assert shop.kernel.approvals.get(failed.id, "ok") is not None
    again = send(browser, f"/ops/executions/{failed.id}", order="resume")
    assert "It has not failed" in again.text


def test_an_approval_is_decided_by_its_form(shop: Shop) -> None:
    waiting = shop.order(name="tea")
    browser, path = client(shop, admin()), f"/ops/approvals/{waiting.id}/ok/whole"
    field = browser.get(path).text.split('type="number"')[0].rsplit('for="', 1)[1].split('"')[0]
    wrong = send(browser, path, decision="approve", comment="so be it")
    assert wrong.status_code == 422
    assert "so be it" in wrong.text
    assert "Choose to approve or to reject." in send(browser, path, decision="both").text
    assert "Approved." in send(browser, path, decision="approve", **{field: "3"}).text
    shop.kernel.run_until_idle()
    done = shop.kernel.executions.get(waiting.id)
    assert done is not None
    assert done.steps[-1].output["form"] == {"boxes": 3}
    assert done.steps[-1].output["by"] == "ada"


def test_approvals_are_decided_in_the_inbox(shop: Shop) -> None:
    """By a form for each, whose fields are told apart; without fields by the buttons alone."""
    first, second = shop.order(name="tea"), shop.order(name="coffee")
    plain = {"id": "ok", "approval": {"title": "Refund?"}}
    shop.kernel.add_workflow({"name": "refund", "trigger": {"type": "manual"}, "steps": [plain]})
    refund = shop.kernel.start("refund")
    shop.kernel.run_until_idle()
    browser = client(shop, admin())
    inbox = browser.get("/ops/approvals?of=all").text
    ids = re.findall(r' id="([^"]+)"', inbox)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'<label for="([^"]+)"', inbox)) <= set(ids)
    for begun, boxes in ((first, "3"), (second, "4")):
        form = inbox.split(f'action="/ops/approvals/{begun.id}/ok/whole"')[1].split("</form>")[0]
        field = form.split('type="number"')[1].split(' name="')[1].split('"')[0]
        path = f"/ops/approvals/{begun.id}/ok/whole"
        wrong = send(browser, path, decision="approve", of="all", comment="so be it")
        assert (wrong.status_code, "so be it" in wrong.text) == (422, True)
        answer = send(browser, path, decision="approve", of="all", **{field: boxes})
        assert str(answer.url).endswith("/ops/approvals?of=all")
    send(browser, f"/ops/approvals/{refund}/ok/whole", decision="reject")
    shop.kernel.run_until_idle()
    outputs = [shop.kernel.executions.get(each.id).steps[-1].output for each in (first, second)]  # type: ignore[union-attr]
    assert [each["form"] for each in outputs] == [{"boxes": 3}, {"boxes": 4}]
    assert shop.kernel.executions.get(refund).status == "FAILED"  # type: ignore[union-attr]
    shop.order(name="tea")
    viewer = client(shop, User("eve", ["viewer"], None)).get("/ops/approvals?of=all").text
    assert 'name="decision"' not in viewer


def test_a_step_is_copied_with_another_payload(shop: Shop) -> None:
    failed = shop.order(500)
    browser = client(shop, admin())
    its = f"/ops/executions/{failed.id}"
    wrong = send(browser, its, order="fork", step="charge", payload="{")
    assert "the payload is not JSON" in wrong.text
    copy = send(browser, its, order="fork", step="charge", payload='{"amount": 7}')
    assert "This is a copy" in copy.text
    shop.kernel.run_until_idle()
    begun = shop.kernel.executions.get(str(copy.url).rsplit("/", 1)[1])
    assert begun is not None
    assert begun.steps[0].output["charged"] == 7


def test_a_payload_that_is_no_json_starts_nothing(shop: Shop) -> None:
    browser = client(shop, admin())
    answer = send(browser, "/ops/workflows/order", payload='{"amount": ')
    assert "Nothing was started" in answer.text
    assert "{&#34;amount&#34;:" in answer.text  # it stays in the form
    assert shop.kernel.executions.find() == []


# -- from elsewhere --------------------------------------------------------------------------


def test_an_order_from_an_origin_of_ours_is_taken(shop: Shop) -> None:
    path, form = orders(shop.order())["pause"]
    allowed = client(shop, admin(), origins=["https://ops.example"])
    allowed.get("/ops/")
    sent = {**form, "csrf": allowed.cookies["automate_csrf"]}
    assert (
        allowed.post(path, data=sent, headers={"Origin": "https://ops.example"}).status_code == 200
    )


def test_a_cookie_of_the_pages_is_theirs_alone(shop: Shop) -> None:
    cookie = client(shop, admin()).get("/ops/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/ops" in cookie


def test_a_server_of_this_machine_answers_to_its_own_names_alone(shop: Shop) -> None:
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=loopback(admin())))])
    for host, status in (("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:9", 200),
                         ("evil.example", 401), ("127.0.0.1.evil.example", 401), ("", 401)):  # fmt: skip
        answer = TestClient(app).get("/ops/", headers={"Host": host})
        assert answer.status_code == status, host
    for origin, status in (
        ("http://localhost:9", 200),
        ("null", 401),
        ("http://evil.example", 401),
    ):
        given = {"Host": "localhost", "Origin": origin}
        assert TestClient(app).get("/ops/", headers=given).status_code == status, origin


def test_pages_ask_for_a_log_in(shop: Shop) -> None:
    from automate_kernel import ConfigError

    with pytest.raises(ConfigError, match="who asks"):
        pages(shop.kernel, auth=None)  # type: ignore[arg-type]


# -- hostile requests ------------------------------------------------------------------------


def test_a_user_without_a_tenant_is_not_a_user_of_an_empty_one() -> None:
    from automate_kernel import ConfigError

    with pytest.raises(ConfigError, match="tenant is empty"):
        User("eve", ["viewer"], "")


@pytest.mark.parametrize("path", ["/ops/executions?status=FAILED&label=a%3Db", "//evil.example/x"])
def test_the_log_in_leads_back_to_this_host_and_to_the_same_list(shop: Shop, path: str) -> None:
    app = pages(shop.kernel, auth=lambda _: None, log_in="/login?by=form")
    host = TestClient(app, base_url="http://shop.example")
    answer = host.get(f"http://shop.example{path}", follow_redirects=False)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query == {"by": ["form"], "next": [f"/{path.lstrip('/')}"]}


@pytest.mark.parametrize("position", ["9" * 30, "9" * 5_000, "-2", "\u0663"])
def test_a_position_that_is_no_number_is_nowhere(shop: Shop, position: str) -> None:
    its, browser = f"/ops/executions/{shop.order().id}", client(shop, admin())
    for path in (f"{its}/steps/charge/{position}", f"{its.replace('executions', 'approvals')}/ok/{position}"):  # fmt: skip
        assert browser.get(path).status_code == 404
    assert send(browser, its, order="retry", step="charge", position=position).status_code == 404


def test_a_form_with_too_many_fields_is_refused(shop: Shop) -> None:
    many = {f"field-{number}": "1" for number in range(600)}
    assert send(client(shop, admin()), "/ops/workflows/order", **many).status_code == 403


def test_a_host_that_is_no_name_is_nobodys(shop: Shop) -> None:
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=loopback(admin())))])
    assert TestClient(app).get("/ops/", headers={"Host": "["}).status_code == 401


def test_a_notice_fits_into_a_cookie(shop: Shop) -> None:
    browser, its = client(shop, admin()), f"/ops/executions/{shop.order(500).id}"
    browser.get("/ops/")
    form = {"csrf": browser.cookies["automate_csrf"], "order": "fork", "step": "\u00fc" * 5_000}
    answer = browser.post(its, data=form, follow_redirects=False)
    assert len(answer.headers["set-cookie"]) < 4_096
    assert "has no step" in browser.get(its).text


def test_the_path_of_a_mount_adds_nothing_to_a_cookie(shop: Shop) -> None:
    app = Starlette(routes=[Mount("/{shop}", pages(shop.kernel, auth=lambda _: admin()))])
    browser = TestClient(app, base_url="http://shop.example")
    answer = browser.get("/x;Domain=example.com;%20y/")
    assert "path=/x%3bdomain" in answer.headers["set-cookie"].lower()
    assert 'href="/x%3BDomain=example.com%3B%20y/executions"' in answer.text


def test_a_problem_keeps_the_letters_of_names(shop: Shop) -> None:
    assert "no workflow &#39;orderImport&#39;." in client(shop, admin()).get("/ops/workflows/orderImport").text  # fmt: skip


def test_a_refused_payload_stands_in_no_address(shop: Shop) -> None:
    browser = client(shop, admin())
    for payload in ('{"password": "p4ss",', '{"password": "p4ss\\u0000"}'):
        answer = send(browser, "/ops/workflows/order", payload=payload)
        assert "Nothing was started" in answer.text
        assert "p4ss" in answer.text
        assert [each.headers.get("location") for each in answer.history] == []


def test_a_step_among_many_elements_is_read_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"id": "each", "action": "charge", "for_each": "{{ event.payload.many }}",
              "input": {"amount": "{{ item }}"}}]  # fmt: skip
    shop.kernel.add_workflow({"name": "many", "trigger": {"type": "manual"}, "steps": steps})
    begun = shop.kernel.start("many", {"many": [1, 2, 3]})
    shop.kernel.run_until_idle()
    browser, path = client(shop, admin()), f"/ops/executions/{begun}/steps/each/1"
    assert "&#34;amount&#34;: 2" in browser.get(path).text
    monkeypatch.setattr("automate_pages.screens.execution._MOST_READ", 2)
    monkeypatch.setattr(shop.kernel.executions, "get", None)  # it reads every step
    page = browser.get(path).text
    assert "&#34;charged&#34;: 2" in page
    assert "too many steps" in page


def test_what_changed_code_can_not_go_on_with_starts_again_in_the_new_code() -> None:
    storage = MemoryStorage()

    def kernel_of(name: str) -> Kernel:
        kernel = Kernel(storage, discover=False)

        @kernel.workflow(name="flow")
        async def flow(ctx: WorkflowContext) -> str:
            done = await ctx.call(name)
            if name == "first":
                await ctx.wait_for("go")
            return done

        kernel.action("first")(lambda: "first")
        kernel.action("second")(lambda: "second")
        return kernel

    old = kernel_of("first")
    begun = old.start("flow")
    old.run_until_idle()
    new = kernel_of("second")
    new.emit("go")
    new.run_until_idle()
    for roles, offered in ((["admin"], True), (["operator"], False), (["author"], True)):
        app = pages(new, auth=lambda _, roles=roles: User("ada", roles, None))
        text = TestClient(app).get(f"/executions/{begun}").text
        assert ("Start again with the new code" in text) is offered, roles
    app = Starlette(routes=[Mount("/ops", pages(new, auth=lambda _: admin()))])
    browser = TestClient(app, base_url="http://shop.example")
    answer = send(browser, f"/ops/executions/{begun}", order="renew")
    assert "with the new code" in answer.text
    assert begun not in answer.url.path
    new.run_until_idle()  # the new one
    assert new.executions.get(begun).status.value == "CANCELLED"
    assert new.executions.find(workflow="flow", status="COMPLETED")[0].output == "second"


class Source:
    """Two tenants' workflows, which have the same name."""

    def stamp(self) -> object:
        return 1

    def load(self) -> list[SuppliedWorkflow]:
        titles = {"alpha": "alphas", "beta": "betas"}
        return [
            SuppliedWorkflow(
                name="order",
                definition={
                    "name": "order",
                    "trigger": {"type": "manual"},
                    "steps": [{"id": title, "action": "charge", "input": {"amount": 1}}],
                },
                tenant_id=tenant,
            )
            for tenant, title in titles.items()
        ]


def test_workflows_of_one_name_are_each_tenants_own() -> None:
    kernel = Kernel(MemoryStorage(), workflow_source=Source())

    @kernel.action
    def charge(amount: int) -> int:
        """Charge the customer's card."""
        return amount

    for user, query in ((User("eve", ["author"], "beta"), ""), (admin(), "?tenant=beta")):
        app = Starlette(routes=[Mount("/ops", pages(kernel, auth=lambda _, user=user: user))])
        browser = TestClient(app)
        page = browser.get(f"/ops/workflows/order{query}").text
        assert "id: betas" in page
        path = page.split('<form method="post" action="')[1].split('"')[0]
        begun = str(send(browser, path, payload="{}").url).rsplit("/", 1)[1]
        found = kernel.executions.get(begun)
        assert found is not None
        assert found.tenant_id == "beta"
        if user.tenant is None:
            assert 'href="/ops/workflows/order?tenant=beta"' in browser.get("/ops/workflows").text
    kernel.close()
