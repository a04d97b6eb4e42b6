"""The pages' own log-in: who gets in, for how long, what is written down, and what is refused."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from paged_shop import Shop
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import ConfigError, Kernel
from automate_kernel.storage.tables import AUDIT
from automate_pages.csv_file import unescaped
from automate_pages import ROLES, LogIn, User, header, pages, read_only

COOKIE = re.compile(r"__Host-automate_session_[0-9a-f]{8}")


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.kernel.close()


def browser(shop: Shop, auth: Any = None, base: str = "https://ops.example", **more: Any) -> Any:
    """Return a browser that nobody has logged in with; its app has the pages below /ops."""
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=auth or LogIn()))])
    return TestClient(app, base_url=base, **more)


def csrf_of(page: Any) -> str:
    return re.search(r'name="csrf" value="([^"]+)"', page.text)[1]  # type: ignore[index]


def log_in(client: Any, token: str, **form: str) -> Any:
    """Send the form of the log-in, and return the answer without following it."""
    csrf = csrf_of(client.get("/ops/log-in"))
    data = {"csrf": csrf, "token": token, **form}
    return client.post("/ops/log-in", data=data, follow_redirects=False)


def post(client: Any, path: str, **form: str) -> Any:
    """Send a form with the token that the page at /ops/access has."""
    csrf = csrf_of(client.get("/ops/access"))
    return client.post(path, data={"csrf": csrf, **form}, follow_redirects=False)


def token_of(shop: Shop, *roles: str, **options: Any) -> str:
    name = options.pop("name", "ada")
    return shop.kernel.tokens.new(name, roles=roles, **options)[1]


def trail(shop: Shop, **matching: Any) -> list[tuple[str, str, str, str]]:
    """Return who did what with which outcome, the latest first."""
    found = shop.kernel.audit.page(**matching).records
    return [(each.actor, each.action, each.model, each.outcome) for each in found]


# -- a token ---------------------------------------------------------------------------------


def test_a_token_begins_a_session_and_leads_back(shop: Shop) -> None:
    client = browser(shop)
    away = client.get("/ops/executions?status=FAILED", follow_redirects=False)
    assert away.headers["location"] == "/ops/log-in?next=/ops/executions%3Fstatus%3DFAILED"
    page = client.get(away.headers["location"])
    assert "Executions" not in page.text
    answer = log_in(client, f" {token_of(shop, 'viewer')}\n", next="/ops/executions?status=FAILED")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/ops/executions?status=FAILED"
    cookie = next(each for each in answer.headers.get_list("set-cookie") if "session" in each)
    assert COOKIE.match(cookie)
    for word in ("HttpOnly", "Secure", "Path=/;", "SameSite=lax", "Max-Age="):
        assert word in cookie + ";"
    assert "Domain" not in cookie
    home = client.get("/ops/")
    assert home.status_code == 200
    assert "ada" in home.text
    assert client.get("/ops/log-in", follow_redirects=False).status_code == 303
    assert post(client, "/ops/log-out").headers["location"] == "/ops/log-in"
    assert client.get("/ops/", follow_redirects=False).status_code == 303
    assert trail(shop) == [
        ("ada", "log-out", "session", "done"), ("ada", "log-in", "session", "done"),
    ]  # fmt: skip


def test_a_log_in_and_an_order_on_every_database(storage: Any) -> None:
    """The session and its entry are one transaction, on the application's kind of connection."""
    with Kernel(storage) as kernel:
        kernel.add_workflow(
            {"name": "order", "trigger": {"type": "manual"}, "steps": [{"id": "a", "sleep": "1h"}]}
        )
        begun = kernel.start("order", tenant_id="acme")
        client = browser(SimpleNamespace(kernel=kernel))
        log_in(client, kernel.tokens.new("ada", roles=["admin"])[1])
        post(client, f"/ops/executions/{begun}", order="cancel")
        post(client, "/ops/log-out")
        wrong = [log_in(client, f"atk_{number}_x").status_code for number in range(11)]
        assert wrong == [401] * 10 + [429]
        found = [
            (each.action, each.outcome, each.tenant_id) for each in kernel.audit.page().records
        ]
        assert found[10:] == [
            ("log-out", "done", None), ("cancel", "done", "acme"), ("log-in", "done", None),
        ]  # fmt: skip
        assert client.get("/ops/", follow_redirects=False).status_code == 303


def tokens_that_open_nothing(shop: Shop) -> dict[str, str]:
    tokens, good = shop.kernel.tokens, token_of(shop, "admin")
    ended, text = tokens.new("b", roles=["admin"])
    tokens.revoke(ended.prefix)
    return {
        "none": "", "cut": good[:-1], "another's secret": good[:17] + text[17:],
        "revoked": text, "no role": tokens.new("c", scopes=["*"])[1],
        "a Django user's": tokens.new("d", roles=["admin"], user_id="7")[1],
        "long": "atk_" + "x" * 100_000, "NUL": "\x00", "the digest": good[:17] + "0" * 64,
    }  # fmt: skip


def test_what_is_no_token_of_ours_opens_nothing(shop: Shop) -> None:
    cases = tokens_that_open_nothing(shop)
    for name, text in cases.items():
        client = browser(shop)
        answer = log_in(client, text)
        assert answer.status_code == 401, name
        assert not any("session" in each for each in answer.headers.get_list("set-cookie")), name
        assert client.get("/ops/", follow_redirects=False).status_code == 303, name
        if len(text) > 20:
            assert text not in answer.text, name
    assert [outcome for *_, outcome in trail(shop)] == ["refused"] * len(cases)
    with shop.kernel.storage.begin() as rows:
        stored = repr(rows.select(AUDIT))
    assert not any(text[17:] in stored for text in cases.values() if len(text) > 20)


def test_an_expired_token_opens_nothing_and_neither_does_its_session(shop: Shop) -> None:
    text, client = token_of(shop, "viewer", expires_in_seconds=600), browser(shop)
    assert log_in(client, text).status_code == 303
    shop.kernel.storage.skip(601)  # type: ignore[attr-defined]
    assert client.get("/ops/", follow_redirects=False).status_code == 303
    assert log_in(browser(shop), text).status_code == 401


def test_failed_log_ins_are_bounded_and_the_right_token_opens(shop: Shop) -> None:
    """By address, in whatever process they failed; those that come after leave no entry."""
    processes, good = [browser(shop), browser(shop)], token_of(shop, "viewer")
    statuses = [log_in(processes[n % 2], f"atk_{n}_x").status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    late = log_in(processes[0], "atk_late_x")
    assert 290 < int(late.headers["Retry-After"]) <= 300
    assert len(trail(shop)) == 10
    assert log_in(processes[1], good).status_code == 303
    shop.kernel.storage.skip(301)  # type: ignore[attr-defined]
    assert log_in(processes[0], "atk_late_x").status_code == 401


@pytest.mark.parametrize(
    ("addresses", "most"),
    [(["203.0.113.{}"], 100), (["2001:db8:0:0:{:x}::1"], 10), (["2001:db8:0:{:x}::1"], 100)],
    ids=["addresses", "a network", "networks"],
)
def test_guessing_from_many_addresses_is_bounded_too(
    shop: Shop, addresses: list[str], most: int
) -> None:
    """A network of IPv6 is one person's, and all together are a hundred in five minutes."""
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=LogIn()))])
    statuses = []
    for number in range(most + 5):
        address = addresses[0].format(number)
        client = TestClient(app, base_url="https://ops.example", client=(address, 4711))
        statuses.append(log_in(client, f"atk_{number}_x").status_code)
    assert statuses == [401] * most + [429] * 5
    assert len(shop.kernel.audit.page(limit=200).records) == most


@pytest.mark.parametrize(
    "place",
    ["https://evil.example/", "//evil.example", "/ops/\\evil.example", "/elsewhere", "javascript:1",
     "/ops/\nx", "/\\evil.example", "", "/opsevil", "///ops/"],
)  # fmt: skip
def test_the_log_in_leads_nowhere_else(shop: Shop, place: str) -> None:
    answer = log_in(browser(shop), token_of(shop, "viewer"), next=place)
    assert answer.headers["location"] == "/ops/"


# -- sessions --------------------------------------------------------------------------------


def session_of(client: Any) -> str:
    return next(value for name, value in client.cookies.items() if "session" in name)


def test_a_log_in_takes_no_session_from_outside(shop: Shop) -> None:
    """Fixation: who knew a session before, or the token of a form, knows none after."""
    victim, attacker = browser(shop), browser(shop)
    log_in(attacker, token_of(shop, "viewer", name="eve"))
    planted = {name: value for name, value in attacker.cookies.items() if "session" in name}
    for name, value in planted.items():
        victim.cookies.set(name, value, domain="ops.example", path="/")
    victim.get("/ops/")
    before = dict(victim.cookies.items())
    page = victim.get("/ops/access")
    assert "eve" in page.text
    post(victim, "/ops/log-out")
    log_in(victim, token_of(shop, "admin"))
    after = dict(victim.cookies.items())
    assert len(after) == 2
    assert not {*before.values()} & {*after.values()}
    assert attacker.get("/ops/", follow_redirects=False).status_code == 303


def ends(shop: Shop) -> dict[str, Callable[[Any], object]]:
    kernel = shop.kernel
    return {
        "revoked": lambda _: [kernel.sessions.end(each.id) for each in kernel.sessions.all()],
        "its token is revoked": lambda _: kernel.tokens.revoke(kernel.tokens.page().tokens[0].prefix),
        "not used": lambda _: kernel.storage.skip(12 * 3600 + 1),
        "logged out": lambda client: post(client, "/ops/log-out"),
    }  # fmt: skip


@pytest.mark.parametrize("how", ["revoked", "its token is revoked", "not used", "logged out"])
def test_a_session_that_has_ended_opens_nothing(shop: Shop, how: str) -> None:
    client, execution = browser(shop), shop.order()
    log_in(client, token_of(shop, "admin"))
    kept = session_of(client)
    csrf = csrf_of(client.get("/ops/access"))
    ends(shop)[how](client)
    name = next((name for name in client.cookies if "session" in name), None)
    if name is None:  # the browser was told to forget it; somebody has kept it
        client.cookies.set("__Host-automate_session_" + "0" * 8, kept)
    for path in ("", "executions", f"executions/{execution.id}", "access", "audit"):
        assert client.get(f"/ops/{path}", follow_redirects=False).status_code == 303, path
    part = client.get("/ops/", headers={"X-Automate-Part": "1"}, follow_redirects=False)
    live = client.get("/ops/", headers={"Accept": "text/event-stream"}, follow_redirects=False)
    assert (part.status_code, live.status_code) == (401, 303)
    order = client.post(f"/ops/executions/{execution.id}", data={"csrf": csrf, "order": "cancel"})
    assert order.status_code == 401
    after = shop.kernel.executions.get(execution.id)
    assert after is not None
    assert after.status == execution.status


def test_a_session_ends_in_any_case_after_its_time(shop: Shop) -> None:
    client = browser(shop, LogIn(idle_seconds=3600, lifetime_seconds=7200))
    log_in(client, token_of(shop, "viewer"))
    statuses = []
    for _ in range(3):
        shop.kernel.storage.skip(3000)  # type: ignore[attr-defined]
        statuses.append(client.get("/ops/", follow_redirects=False).status_code)
    assert statuses == [200, 200, 303]


def test_a_token_whose_roles_change_has_the_new_ones_at_once(shop: Shop) -> None:
    client, execution = browser(shop), shop.order()
    log_in(client, token_of(shop, "admin"))
    with shop.kernel.storage.begin() as rows:
        rows.update("automate_token", [], {"roles": ["viewer"]})
    csrf = csrf_of(client.get("/ops/access"))
    answer = client.post(f"/ops/executions/{execution.id}", data={"csrf": csrf, "order": "cancel"})
    assert answer.status_code == 403


def test_nothing_but_https_and_this_machine_itself_is_logged_in_to(shop: Shop) -> None:
    text = token_of(shop, "viewer")
    for base, auth, status in (
        ("http://ops.example", LogIn(), 403),
        ("http://127.0.0.1:8000", LogIn(), 303),
        ("http://ops.example", LogIn(public_url="https://ops.example/ops"), 303),
        ("http://127.0.0.1.evil.example", LogIn(), 403),
    ):
        client = browser(shop, auth, base)
        csrf = csrf_of(client.get("/ops/log-in"))
        answer = client.post(
            "/ops/log-in", data={"csrf": csrf, "token": text}, follow_redirects=False,
            headers={"Cookie": "; ".join(f"{k}={v}" for k, v in client.cookies.items())},
        )  # fmt: skip
        assert answer.status_code == status, base
        cookies = [each for each in answer.headers.get_list("set-cookie") if "session" in each]
        assert [each.startswith("__Host-") for each in cookies] == (
            [auth.public_url is not None] if status == 303 else []
        )
        if base.endswith(":8000"):
            assert cookies[0].startswith("automate_session_8000=")


def test_a_form_of_the_log_in_from_elsewhere_is_refused(shop: Shop) -> None:
    client, text = browser(shop), token_of(shop, "viewer")
    csrf = csrf_of(client.get("/ops/log-in"))
    for path, case in (
        ("log-in", {"data": {"token": text}}),
        ("log-in", {"data": {"token": text, "csrf": "x"}}),
        ("log-in", {"data": {"token": text, "csrf": csrf}, "headers": {"Origin": "https://evil.example"}}),
        ("log-out", {"data": {}}),
    ):  # fmt: skip
        assert client.post(f"/ops/{path}", **case).status_code == 403, case
    assert shop.kernel.sessions.all() == []


def test_the_page_of_the_log_in_is_safe(shop: Shop) -> None:
    headers = browser(shop).get("/ops/log-in?next=%22%3E%3Cscript%3E").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "<script" not in browser(shop).get("/ops/log-in?next=/ops/%22%3E%3Cscript%3E").text


def test_a_database_that_is_away_says_so(shop: Shop) -> None:
    client = browser(shop)
    log_in(client, token_of(shop, "viewer"))
    with shop.kernel.storage.begin() as rows:
        rows.run("DROP TABLE automate_session", (), fetch=False)
    answer = client.get("/ops/")
    assert answer.status_code == 503
    assert "The database is away" in answer.text
    assert log_in(browser(shop), token_of(shop, "viewer")).status_code == 503


# -- the page Access -------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_who_ends_which_sessions_and_tokens(shop: Shop, role: str) -> None:
    """The own sessions everybody; those of others, and tokens, an admin of the same tenant."""
    clients = {}
    for name, roles, tenant in (("me", role, "mine"), ("peer", "viewer", "mine"),
                                ("stranger", "admin", "other"), ("boss", "admin", None)):  # fmt: skip
        clients[name] = browser(shop)
        log_in(clients[name], token_of(shop, roles, name=name, tenant_id=tenant))
    ids = {each.user_name: each.id for each in shop.kernel.sessions.all()}
    prefixes = {each.name: each.prefix for each in shop.kernel.tokens.page().tokens}
    page = clients["me"].get("/ops/access").text
    for name in ("stranger", "boss"):
        assert name not in page
    assert ("peer" in page) == (role == "admin")
    mine = 303 if role == "admin" else None
    for name, status in (("stranger", 404), ("boss", 404), ("peer", mine or 404)):
        answer = post(clients["me"], f"/ops/access/sessions/{ids[name]}")
        assert answer.status_code == status, name
        assert clients[name].get("/ops/", follow_redirects=False).status_code == (
            200 if status == 404 else 303
        )
    for name, status in (("stranger", mine and 404), ("boss", mine and 404), ("peer", mine)):
        answer = post(clients["me"], f"/ops/access/tokens/{prefixes[name]}")
        assert answer.status_code == (status or 403), name
    assert post(clients["me"], "/ops/access/sessions/none").status_code == 404
    assert post(clients["me"], f"/ops/access/sessions/{ids['me']}").status_code == 303
    assert clients["me"].get("/ops/", follow_redirects=False).status_code == 303
    assert post(clients["boss"], f"/ops/access/tokens/{prefixes['stranger']}").status_code == 303
    assert clients["stranger"].get("/ops/", follow_redirects=False).status_code == 303


# -- the audit trail -------------------------------------------------------------------------


def test_each_order_is_in_the_trail_without_a_payload(shop: Shop) -> None:
    client = browser(shop)
    log_in(client, token_of(shop, "admin"))
    waiting, failed = shop.order(tenant="acme"), shop.order(500)
    its = f"/ops/executions/{failed.id}"
    for path, form in (
        (its, {"order": "pause"}),
        (its, {"order": "fork", "step": "charge", "payload": '{"amount": 4711}'}),
        (its, {"order": "<script>"}),
        ("/ops/executions/none", {"order": "cancel"}),
        (f"/ops/outbox/{failed.item_id}", {"order": "retry"}),
        ("/ops/workflows/order", {"payload": '{"amount": 4711}'}),
        (f"/ops/approvals/{waiting.id}/ok/whole", {"decision": "approve", "comment": "c0mment"}),
        ("/ops/nowhere/7", {"order": "x"}),
        ("/ops/executions", {"order": "cancel", "id": failed.id}),
    ):  # fmt: skip
        post(client, path, **form)
    records = shop.kernel.audit.page().records[::-1]
    assert [(each.action, each.model, each.object_id, each.outcome) for each in records[1:]] == [
        ("pause", "execution", failed.id, "nothing"),
        ("fork", "execution", failed.id, "done"),
        ("order", "execution", failed.id, "refused"),
        ("cancel", "execution", "none", "refused"),
        ("retry", "item", failed.item_id, "nothing"),
        ("start", "workflow", "order", "done"),
        ("approve", "approval", waiting.id, "refused"),
        ("x", "nowhere", "7", "refused"),
        ("cancel", "execution", None, records[-1].outcome),
    ]
    assert {each.actor for each in records} == {"ada"}
    assert records[2].details["step"] == "charge"
    assert re.fullmatch(r"/executions/[0-9a-f-]{36}", records[6].details["led_to"])
    assert records[7].tenant_id == "acme"
    assert records[9].details["ids"] == [failed.id]
    assert not any(word in repr(records) for word in ("4711", "c0mment"))


def test_an_order_without_an_entry_is_not_carried_out(shop: Shop) -> None:
    client, execution = browser(shop, lambda _: User("ada", ["admin"], None)), shop.order()
    csrf = csrf_of(client.get(f"/ops/executions/{execution.id}"))
    with shop.kernel.storage.begin() as rows:
        rows.run("DROP TABLE automate_audit", (), fetch=False)
    answer = client.post(f"/ops/executions/{execution.id}", data={"csrf": csrf, "order": "cancel"})
    assert "the audit trail can&#39;t be written, so nothing was done" in answer.text
    after = shop.kernel.executions.get(execution.id)
    assert after is not None
    assert after.status == execution.status


@pytest.mark.parametrize("role", ROLES)
def test_an_admin_reads_the_trail_of_the_own_tenant(shop: Shop, role: str) -> None:
    for tenant, name in ((None, "root"), ("mine", "peer"), ("other", "stranger")):
        shop.kernel.audit.write(
            "cancel", actor=name, model="execution", object_id=f"of-{name}", tenant_id=tenant
        )
    user = User("eve", [role], "mine")
    page = browser(shop, lambda _: user).get("/ops/audit?tenant=other")
    assert page.status_code == (200 if role == "admin" else 403)
    assert ("of-peer" in page.text) == (role == "admin")
    assert "stranger" not in page.text
    assert "root" not in page.text
    home = browser(shop, lambda _: user).get("/ops/").text
    assert ("/ops/audit" in home) == (role == "admin")


def test_the_trail_is_filtered_by_its_address(shop: Shop) -> None:
    hostile = "<script>alert(1)</script>"
    for number in range(60):
        shop.kernel.audit.write(
            "cancel" if number % 2 else "resume", actor=f"user-{number % 3}", model="execution",
            object_id=f"id-{number}", details={"reason": hostile},
        )  # fmt: skip
    client = browser(shop, lambda _: User("ada", ["admin"], None))
    page = client.get("/ops/audit").text
    assert page.count("/ops/executions/id-") == 50
    assert hostile not in page
    following = re.search(r'href="([^"]+)" rel="next"', page)
    assert following is not None
    assert client.get(following[1].replace("&amp;", "&")).text.count("/ops/executions/id-") == 10
    for query, count in (("user=user-1&action=resume", 10), ("object=id-7", 1), ("kind=item", 0),
                         ("outcome=done&since=1h&tenant=", 50), ("user=a%00b", 0),
                         (f"user={hostile}", 0)):  # fmt: skip
        found = client.get(f"/ops/audit?{query}").text
        assert found.count("/ops/executions/id-") == count, query
        assert hostile not in found


def test_the_trail_is_taken_along_as_csv(shop: Shop) -> None:
    """All that the filter finds, page by page, in cells that no spreadsheet runs; and it is noted."""
    formulas = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1")
    for number in range(1_100):
        shop.kernel.audit.write(
            "cancel", actor=formulas[number % 6], model="execution", object_id=f"id-{number}",
            tenant_id="mine" if number < 3 else None, details={"reason": "=cmd|' /C calc'!A0"},
        )  # fmt: skip
    client = browser(shop, lambda _: User("ada", ["admin"], None))
    answer = client.get("/ops/audit/csv?action=cancel")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        r'attachment; filename="audit-[0-9-]+\.csv"', answer.headers["content-disposition"]
    )
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert len(rows) == 1_101
    assert all(row[1].startswith("'") for row in rows[1:])
    assert {unescaped(row[1]) for row in rows[1:]} == set(formulas)
    assert trail(shop, action="export") == [("ada", "export", "audit", "done")]
    own = browser(shop, lambda _: User("eve", ["admin"], "mine")).get("/ops/audit/csv?tenant=")
    # The names, three entries, and that of eve's own export.
    assert len(list(csv.reader(io.StringIO(own.text)))) == 5
    assert client.get("/ops/audit/csv", headers={"x-automate-part": "1"}).status_code == 404


# -- no log-in of ours -----------------------------------------------------------------------


def test_a_header_counts_from_the_proxy_alone(shop: Shop) -> None:
    auth = header(
        "X-User", proxies=["10.0.0.2", "192.168.7.0/24"], roles_header="X-Groups",
        roles={"ops": "operator"}, tenant_header="X-Tenant",
    )  # fmt: skip
    good = {"X-User": "ada", "X-Groups": "sales, ops", "X-Tenant": "acme"}
    cases: list[tuple[str, Any, int]] = [
        ("10.0.0.2", good, 200), ("192.168.7.9", good, 200), ("::ffff:10.0.0.2", good, 200),
        ("10.0.0.3", good, 401), ("2001:db8::1", good, 401), ("testclient", good, 401),
        ("10.0.0.2", {**good, "X-User": ""}, 401),
        ("10.0.0.2", {**good, "X-User": "a" * 300}, 401),
        ("10.0.0.2", {**good, "X-Tenant": ""}, 401),
        ("10.0.0.2", {"X-User": "ada", "X-Groups": "ops"}, 401),
        ("10.0.0.2", {**good, "X-Groups": "admin, sales"}, 403),  # a group is no role of ours
        ("10.0.0.2", [*good.items(), ("X-User", "root")], 401),
    ]  # fmt: skip
    for address, headers, status in cases:
        client = browser(shop, auth, client=(address, 1))
        answer = client.get("/ops/", headers=headers)
        assert answer.status_code == status, (address, headers)
    page = browser(shop, auth, client=("10.0.0.2", 1)).get("/ops/", headers=good).text
    assert "ada · acme" in page
    assert "Log out" not in page


@pytest.mark.parametrize(
    "options",
    [{"proxies": []}, {"proxies": ["10.0.0.300"]}, {"proxies": ["10.0.0.1/8"]},
     {"proxies": ["::1"], "roles_header": "X-Groups"},
     {"proxies": ["::1"], "roles": {"ops": "operator"}}],
)  # fmt: skip
def test_a_header_is_set_up_with_care(options: Any) -> None:
    with pytest.raises(ConfigError):
        header("X-User", **options)


def test_everybody_may_read_where_that_is_wanted(shop: Shop) -> None:
    failed = shop.order(500)
    client = browser(shop, read_only(["ops.example"]))
    page = client.get(f"/ops/executions/{failed.id}")
    assert page.status_code == 200
    csrf = client.cookies[next(iter(client.cookies))]
    for order in ("cancel", "resume", "retry"):
        sent = {"csrf": csrf, "order": order}
        assert client.post(f"/ops/executions/{failed.id}", data=sent).status_code == 403
    assert client.get("/ops/", headers={"Host": "evil.example"}).status_code == 401
    with pytest.raises(ConfigError):
        read_only([])


# -- saved queries ---------------------------------------------------------------------------


def test_a_query_is_saved_shared_and_deleted(shop: Shop) -> None:
    people = {}
    for name, tenant in (("ada", "acme"), ("eve", "acme"), ("stranger", "other")):
        people[name] = browser(shop)
        log_in(people[name], token_of(shop, "viewer", name=name, tenant_id=tenant))
    ada, hostile = people["ada"], '<script>"&'
    here = "/ops/executions?status=FAILED&label=a%3Db&a=1&next=//evil.example"
    query = re.search(r'name="query" value="([^"]*)"', ada.get(here).text)[1]  # type: ignore[index]
    form = {"order": "save", "page": "executions", "query": query.replace("&amp;", "&")}
    for name, shared in (("mine", ""), (hostile, "1")):
        answer = post(ada, "/ops/saved", name=name, shared=shared, **form)
        assert urlsplit(answer.headers["location"]).path == "/ops/executions"
        assert "a=1" not in answer.headers["location"]
    assert ada.get(answer.headers["location"]).status_code == 200
    seen = {name: client.get("/ops/executions").text for name, client in people.items()}
    assert {name: ("mine" in page, "script&gt;" in page) for name, page in seen.items()} == {
        "ada": (True, True), "eve": (False, True), "stranger": (False, False),
    }  # fmt: skip
    assert not any(hostile in page for page in seen.values())
    assert "Saved queries" not in ada.get("/ops/outbox").text
    (mine,) = [each for each in shop.kernel.saved_queries.find(
        "executions", user_name="ada", tenant_id="acme") if each.name == "mine"]  # fmt: skip
    for name, status in (("eve", 404), ("stranger", 404), ("ada", 303)):
        assert post(people[name], f"/ops/saved/{mine.id}", page="executions").status_code == status
    assert "mine" not in ada.get("/ops/executions").text


@pytest.mark.parametrize(
    "form",
    [{"page": "nowhere"}, {"page": "//evil.example"}, {"page": "executions", "query": "label=" + "x" * 3000},
     {"page": "executions", "name": "x" * 300}, {"page": "executions", "name": ""}],
)  # fmt: skip
def test_what_is_no_query_is_not_saved(shop: Shop, form: dict[str, str]) -> None:
    client = browser(shop, lambda _: User("ada", ["viewer"], None))
    client.get("/ops/")
    csrf = client.cookies[next(iter(client.cookies))]
    sent = {"csrf": csrf, "order": "save", "name": "n", "query": "status=FAILED", **form}
    answer = client.post("/ops/saved", data=sent, follow_redirects=False)
    assert "evil" not in answer.headers.get("location", "")
    with shop.kernel.storage.begin() as rows:
        assert rows.select("automate_saved_query") == []
    nobody = browser(shop, read_only(["ops.example"]))
    nobody.get("/ops/")
    sent["csrf"] = nobody.cookies[next(iter(nobody.cookies))]
    assert nobody.post("/ops/saved", data={**sent, "page": "outbox"}).status_code == 403
