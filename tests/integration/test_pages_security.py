"""
Who gets what on each address of the pages, and what strangers can't do with it.

`TABLE` has a row for each address that the site knows: a new one without a row fails. Each is tried
by nobody, by each role, by another tenant, from another site, under another host's name, and with
hostile values in all that people and programs write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, ClassVar, Literal

import pytest
from paged_shop import Shop, admin, client, send
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import Connector
from automate_kernel.access.roles import Right, rights_of
from automate_kernel.outbox import BulkAction
from automate_kernel.workflows.steer.bulk_runner import BulkRequest
from automate_kernel.operations.account import AccountStatus
from automate_kernel.plugins.connectors import TriggerSpec
from automate_kernel.storage.tables import AUDIT, SESSION, TABLES
from automate_kernel.workflows.execution import Execution
from automate_pages import ROLES, LogIn, User, loopback, pages
from automate_pages.site import _ROUTES


@dataclass(frozen=True)
class Row:
    """
    An address of the pages: the *right* that it needs, and the *form* that an order sends.

    *shows* says what another tenant gets of it: its own ``rows`` alone, no such ``object``, nothing
    of what is ``everybody``'s, or what is the user's ``own``.
    """

    path: str
    right: Right = "view"
    shows: Literal["rows", "object", "everybody", "own"] = "rows"
    form: Mapping[str, str] = field(default_factory=dict)


STORED = """\
name: stored
trigger: {{type: manual}}
steps: [{{id: a, action: charge, input: {{amount: 1}}}}]
"""
WRITTEN = STORED.replace("stored", "written")
ORDER = {"order": "cancel", "id": "{id}", "sure": "yes"}
TABLE: dict[tuple[str, str], Row] = {
    ("GET", ""): Row(""),
    ("GET", "executions"): Row("executions"),
    ("POST", "executions"): Row("executions", "steer", "rows", ORDER),
    ("GET", "executions/grid"): Row("executions/grid?workflow=order"),
    ("GET", "executions/compare"): Row("executions/compare?a={id}&b={id}", shows="object"),
    ("GET", "executions/*"): Row("executions/{id}", shows="object"),
    ("POST", "executions/*"): Row("executions/{id}", "steer", "object", {"order": "pause"}),
    ("GET", "executions/*/steps/*/*"): Row("executions/{id}/steps/charge/whole", shows="object"),
    ("GET", "workflows"): Row("workflows"),
    ("GET", "workflows/*"): Row("workflows/order"),
    ("POST", "workflows/*"): Row("workflows/order", "start", "rows", {"payload": '{{"amount": 1}}'}),
    ("GET", "workflows/*/versions/*"): Row("workflows/order/versions/{digest}"),
    ("GET", "documents/new"): Row("documents/new", "edit", "own"),
    ("POST", "documents/new"): Row("documents/new", "edit", "own", {"source": WRITTEN}),
    ("GET", "documents/*"): Row("documents/{document}", shows="object"),
    ("POST", "documents/*"): Row("documents/{document}", "edit", "object", {"order": "disable"}),
    ("GET", "documents/*/edit"): Row("documents/{document}/edit", "edit", "object"),
    ("POST", "documents/*/edit"): Row(
        "documents/{document}/edit", "edit", "object", {"source": f"{STORED}# more"}
    ),
    ("GET", "documents/*/versions/*"): Row("documents/{document}/versions/1", shows="object"),
    ("POST", "documents/*/versions/*"): Row(
        "documents/{document}/versions/1", "edit", "object", {"order": "publish"}
    ),
    ("GET", "approvals"): Row("approvals?of=all"),
    ("GET", "approvals/*/*/*"): Row("approvals/{id}/ok/whole", shows="object"),
    ("POST", "approvals/*/*/*"): Row(
        "approvals/{id}/ok/whole", "decide", "object", {"decision": "reject"}
    ),
    ("GET", "outbox"): Row("outbox"),
    ("POST", "outbox"): Row("outbox", "steer", "rows", {**ORDER, "id": "{item}"}),
    ("GET", "outbox/*"): Row("outbox/{item}", shows="object"),
    ("POST", "outbox/*"): Row("outbox/{item}", "steer", "object", {"order": "cancel"}),
    ("GET", "executions/bulk/*"): Row("executions/bulk/{executions}", shows="object"),
    ("POST", "executions/bulk/*"): Row(
        "executions/bulk/{executions}", "steer", "object", {"order": "stop"}
    ),
    ("GET", "outbox/bulk/*"): Row("outbox/bulk/{items}", shows="object"),
    ("POST", "outbox/bulk/*"): Row("outbox/bulk/{items}", "steer", "object", {"order": "stop"}),
    ("GET", "kinds"): Row("kinds", shows="everybody"),
    ("POST", "kinds"): Row("kinds", "steer", "everybody", {"order": "pause", "kind": "letter"}),
    ("GET", "workers"): Row("workers", shows="everybody"),
    ("GET", "operations"): Row("operations?name=charge", "start", "own"),
    ("POST", "operations"): Row(
        "operations", "start", "own", {"name": "charge", "key": "k", "input.amount": "1"}
    ),
    ("GET", "plugins"): Row("plugins", shows="everybody"),
    ("POST", "plugins"): Row("plugins", "steer", "everybody", {"order": "load"}),
    ("GET", "accounts"): Row("accounts", shows="everybody"),
    ("POST", "accounts"): Row(
        "accounts", "administer", "everybody",
        {"order": "disconnect", "kind": "connector", "name": "crm"},
    ),
    ("GET", "accounts/callback"): Row("accounts/callback?code=c&state=s", "administer", "everybody"),
    ("GET", "webhooks"): Row("webhooks", shows="everybody"),
    ("POST", "webhooks"): Row(
        "webhooks", "start", "everybody", {"delivery": "{delivery}", "seen": "0"}
    ),
    ("POST", "saved"): Row("saved", "view", "own", {"page": "outbox", "query": "a=b", "name": "n"}),
    ("POST", "saved/*"): Row("saved/{saved}", "view", "object", {"page": "outbox"}),
    ("GET", "audit"): Row("audit", "administer"),
    ("GET", "audit/csv"): Row("audit/csv", "administer"),
    ("GET", "access"): Row("access", "view", "own"),
    ("POST", "access/sessions/*"): Row("access/sessions/{session}", "view", "object"),
    ("POST", "access/tokens/*"): Row("access/tokens/{token}", "administer", "object"),
}  # fmt: skip
CASES = [pytest.param(*each, id=" ".join(each)) for each in TABLE]
READS = [each for each in CASES if each.id and each.id.startswith("GET")]
ORDERS = [each for each in CASES if each.id and each.id.startswith("POST")]


def test_each_address_has_its_row() -> None:
    assert {(method, pattern) for method, pattern, _ in _ROUTES} == set(TABLE)


class Account:
    key = "crm-account"
    connected: ClassVar[bool] = True

    def for_tenant(self, tenant: str | None) -> Account:
        return self

    def status(self, secrets: object) -> AccountStatus:
        return AccountStatus(connected=self.connected, connected_by=HOSTILE)

    def disconnect(self, secrets: object) -> None:
        Account.connected = False


class Crm(Connector):
    """A connector with an account and a trigger."""

    key = "crm"

    def oauth(self) -> Account:  # type: ignore[override]
        return Account()

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec(name="sold", description=HOSTILE)]


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><a href='javascript:alert(1)'>"
    "{{ 7 * 7 }}</textarea></title></svg>--><svg onload=alert(1)>"
)
"""What people and programs write who mean no good."""
NAME = HOSTILE[:150]


@dataclass
class Place:
    """A shop in which *tenant* has a row of each sort, all of them called "theirs"."""

    shop: Shop
    tenant: str | None
    waiting: Execution
    names: dict[str, str]

    def path(self, row: Row) -> str:
        return f"/ops/{row.path.format(**self.names)}"

    def form(self, row: Row) -> dict[str, str]:
        return {name: text.format(**self.names) for name, text in row.form.items()}

    def browser(self, user: User | None, **options: Any) -> TestClient:
        return client(self.shop, user, operations=["charge"], **options)

    def state(self) -> dict[str, list[str]]:
        """Return all rows but those of the audit trail, and of when a session was seen."""
        with self.shop.kernel.storage.begin() as rows:
            found = {
                name: sorted(map(repr, rows.select(name)))
                for name in TABLES
                if name not in (AUDIT, SESSION)
            }
            found[SESSION] = sorted(row["id"] for row in rows.select(SESSION))
        return {**found, "account": [str(Account.connected)]}


def placed(tenant: str | None, word: str) -> Place:
    """Return a shop in which *word* is written wherever something can be written."""
    shop = Shop()
    Account.connected = True
    shop.kernel.register(Crm, "connector", key="crm")
    waiting = shop.order(
        tenant=tenant, name=f"{word}\N{RIGHT-TO-LEFT OVERRIDE}\x1b", lines=[{word: word}, [word]]
    )
    shop.order(500, tenant=tenant, name=word)
    item = shop.kernel.outbox.enqueue(
        "letter", {"to": word}, tenant_id=tenant, delay=3600, labels={"by": word[:150]},
        ordering_key=word[:60], headers={"x-from": word},
    )  # fmt: skip
    shop.kernel.sessions.begin(
        "theirs", roles=["viewer"], tenant_id=tenant, method="token", agent=word, address="::1"
    )
    token, _ = shop.kernel.tokens.new(word[:100], roles=["viewer"], tenant_id=tenant)
    saved = shop.kernel.saved_queries.save(
        word[:100], "outbox", "kind=letter", user_name="theirs", tenant_id=tenant
    )
    (session,) = shop.kernel.sessions.all()
    saved_id = saved if isinstance(saved, str) else saved.id
    names = {"id": waiting.id, "item": item, "digest": shop.kernel.workflows.get("order").hash(),
             "session": session.id, "token": token.prefix, "saved": saved_id, "delivery": "7"}  # fmt: skip
    document = shop.kernel.documents.create(
        STORED.format(), tenant_id=tenant, author=word, comment=word, publish=False
    )
    names["document"] = document.id
    for target, action in (("items", "requeue"), ("executions", "resume")):
        asked = BulkAction(action, {"status": "FAILED"}, target=target)
        names[target] = shop.kernel.bulk.hand_over(
            BulkRequest(
                {"requeue": "retry"}.get(action, action), "theirs", tenant, f"all {word}",
                {"group": word}, 1, asked, by=word,
            )
        )  # fmt: skip
    return Place(shop, tenant, waiting, names)


@pytest.fixture
def place() -> Iterator[Place]:
    made = placed("other", "theirs")
    yield made
    made.shop.kernel.close()


@pytest.fixture(scope="module")
def still() -> Iterator[Place]:
    """A place for tests that change nothing in it."""
    made = placed("other", "theirs")
    yield made
    made.shop.kernel.close()


def csrf_of(browser: TestClient) -> str:
    browser.get("/ops/")
    return str(browser.cookies["automate_csrf"])


def ask(browser: TestClient, method: str, place: Place, row: Row) -> Any:
    if method == "GET":
        return browser.get(place.path(row))
    return send(browser, place.path(row), **place.form(row))


# -- who -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "pattern"), CASES)
def test_each_role_may_what_it_is_for(place: Place, method: str, pattern: str) -> None:
    row = TABLE[method, pattern]
    for role in (None, "of-the-host", *ROLES):
        user = None if role is None else User("theirs", [role], None)
        before = place.state()
        browser = place.browser(user)
        if role is None:
            its = place.path(row)
            answer = browser.get(its) if method == "GET" else browser.post(its, data=row.form)
            assert answer.status_code == 401
        else:
            answer = ask(browser, method, place, row)
            may = row.right in rights_of([role])
            assert (answer.status_code != 403) is may, (role, answer.status_code, answer.text)
        if answer.status_code in (401, 403):
            assert place.state() == before, role
            assert "theirs</" not in answer.text.replace("theirs</span>", "")


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_told_to_or_changed_for_another_tenant(place: Place, role: str) -> None:
    browser = place.browser(User("eve", [role], "mine"))
    for (method, pattern), row in TABLE.items():
        before = place.state()
        answer = ask(browser, method, place, row)
        refused = {"object": (403, 404), "everybody": (403,)}.get(row.shows, (200, 403))
        assert answer.status_code in refused, (method, pattern, answer.status_code)
        assert "theirs" not in answer.text, (method, pattern)
        if row.shows in ("object", "everybody") or (method == "POST" and "id" in row.form):
            assert place.state() == before, (method, pattern)


def test_the_session_of_a_user_opens_nothing_once_it_is_ended(place: Place) -> None:
    shop = place.shop
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=LogIn(), operations=["charge"]))])
    browser = TestClient(app, base_url="https://ops.example", follow_redirects=False)
    secret = shop.kernel.tokens.new("ada", roles=["admin"])[1]
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/ops/log-in").text)
    assert found is not None
    form = {"csrf": found[1], "token": secret}
    assert browser.post("/ops/log-in", data=form).status_code == 303
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/ops/access").text)
    assert found is not None
    for (method, _), row in TABLE.items():
        if method == "GET":
            assert "log-in" not in browser.get(place.path(row)).headers.get("location", ""), row
    for each in shop.kernel.sessions.all():
        shop.kernel.sessions.end(each.id)
    before = place.state()
    for (method, _), row in TABLE.items():
        if method == "GET":
            assert "log-in" in browser.get(place.path(row)).headers["location"], row
        else:
            data = {"csrf": found[1], **place.form(row)}
            assert browser.post(place.path(row), data=data).status_code in (303, 401, 403), row
    assert place.state() == before


# -- from elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "pattern"), ORDERS)
def test_an_order_from_elsewhere_is_refused(still: Place, method: str, pattern: str) -> None:
    row, before = TABLE[method, pattern], still.state()
    browser = still.browser(admin())
    csrf, path, form = csrf_of(browser), still.path(row), still.form(row)
    types = {"Content-Type": "text/plain"}
    cases: list[dict[str, Any]] = [
        {"data": form},
        {"data": {**form, "csrf": "guessed"}},
        {"data": {**form, "csrf": csrf}, "headers": {"Origin": "http://evil.example"}},
        {"data": {**form, "csrf": csrf}, "headers": {"Origin": "http://shop.example.evil"}},
        {"data": {**form, "csrf": csrf}, "headers": {"Origin": "https://shop.example"}},
        {"data": {**form, "csrf": csrf}, "headers": {"Origin": "null"}},
        {"json": {**form, "csrf": csrf}},
        {"content": f"csrf={csrf}&order=pause".encode(), "headers": types},
        {"data": {**form, "csrf": csrf, "more": "x" * 1_100_000}},
        {"files": {name: (None, text) for name, text in {**form, "csrf": csrf}.items()}},
    ]
    for case in cases:
        assert browser.post(path, **case).status_code == 403, case
    assert browser.get(f"{path}?csrf={csrf}", params=form).status_code in (200, 404, 405)
    assert still.state() == before


@pytest.mark.parametrize("user", [admin(), None, User("eve", ["viewer"], "mine")])
def test_an_answer_is_framed_cached_and_sniffed_nowhere(place: Place, user: User | None) -> None:
    browser = place.browser(user)
    csrf = csrf_of(browser) if user else ""
    for (method, _), row in TABLE.items():
        form = {"csrf": csrf, **place.form(row)}
        answer = browser.request(
            method, place.path(row), data=form if method == "POST" else None,
            follow_redirects=False,
        )  # fmt: skip
        headers = answer.headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not any(word in policy for word in ("unsafe", "*", "data:", "http"))


@pytest.mark.parametrize(("method", "pattern"), CASES)
def test_a_server_of_this_machine_answers_to_its_own_names_alone(
    still: Place, method: str, pattern: str
) -> None:
    row, before, place = TABLE[method, pattern], still.state(), still
    app = Starlette(routes=[Mount("/ops", pages(place.shop.kernel, auth=loopback(admin())))])
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[", ""):
        answer = TestClient(app).request(method, place.path(row), headers={"Host": host})
        assert answer.status_code == 401, host
    for origin in ("null", "http://evil.example", "http://127.0.0.1.evil.example"):
        given = {"Host": "localhost", "Origin": origin}
        assert TestClient(app).request(method, place.path(row), headers=given).status_code == 401
    assert place.state() == before


# -- hostile values --------------------------------------------------------------------------


class SafeMarkup(HTMLParser):
    """Notes each element and attribute of a page that none of our templates would write."""

    def __init__(self) -> None:
        super().__init__()
        self.strange: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("iframe", "object", "embed", "img", "base", "style", "foreignobject", "use"):
            self.strange.append(tag)
        if tag == "script" and not str(given.get("src")).startswith("/ops/static/"):
            self.strange.append(f"script {given}")
        for name, text in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "formaction", "xlink:href"):
                self.strange.append(f"{tag} {name}")
            if name in ("href", "src", "action") and not re.match(
                r"/ops(/(?!/)|$)|#|\?", text or ""
            ):
                self.strange.append(f"{tag} {name}={text}")


def strange(page: str) -> list[str]:
    reader = SafeMarkup()
    reader.feed(page)
    return reader.strange


@pytest.fixture(scope="module")
def hostile() -> Iterator[Place]:
    made = placed(HOSTILE[:60], HOSTILE)
    kernel = made.shop.kernel

    @kernel.action("charge.too", title=HOSTILE)
    def too() -> str:
        """<script>alert(1)</script> {{ 7 * 7 }}"""
        raise LookupError(HOSTILE)

    step = {"id": "a", "name": HOSTILE, "action": "charge.too"}
    kernel.add_workflow({"name": "odd", "title": HOSTILE, "description": HOSTILE,
                         "trigger": {"type": "event", "event": "<b>"},
                         "steps": [step, {"id": "b", "wait_for": {"signal": "<i>"}}]})  # fmt: skip
    kernel.start("odd")
    kernel.run_until_idle()
    for kind in (NAME, "letter"):
        kernel.outbox.enqueue(kind, HOSTILE, ordering_key=NAME[:60])
        kernel.outbox.pause(kind, HOSTILE)
    kernel.workflows.pause("odd", reason=HOSTILE)
    kernel.audit.write(NAME[:40], actor=NAME, model=NAME[:40], object_id=NAME, object_repr=NAME,
                       tenant_id=NAME[:60], details={HOSTILE: HOSTILE})  # fmt: skip
    kernel.signal(made.waiting.id, NAME[:100], {HOSTILE: HOSTILE})
    kernel.saved_queries.save(
        NAME[:100], "outbox", "kind=%3Cscript%3E", user_name=NAME, tenant_id=None, shared=True
    )
    yield made
    kernel.close()


@pytest.mark.parametrize(("method", "pattern"), READS)
def test_what_strangers_wrote_is_text(hostile: Place, method: str, pattern: str) -> None:
    row = TABLE[method, pattern]
    browser = hostile.browser(User(NAME, ["admin"], None), title=HOSTILE)
    path = hostile.path(row)
    pages = [path, *(f"{path}{'&' if '?' in path else '?'}{field}=" for field in FIELDS)]
    for each in pages:
        answer = browser.get(each if each == path else f"{each}%3Cscript%3Ealert(1)%22%27%3E")
        assert answer.status_code in (200, 400, 404), each
        if pattern == "audit/csv":  # which is no page: it is kept, and never shown
            assert "attachment" in answer.headers["content-disposition"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            continue
        assert strange(answer.text) == [], each
        assert "49" not in re.findall(r">\s*(49)\s*<", answer.text), each


FIELDS = ("workflow", "group", "label", "tenant", "kind", "id", "q", "from", "to", "span", "since",
          "status", "after", "code", "of", "user", "object", "time", "a", "b", "name")  # fmt: skip


@pytest.mark.parametrize(("method", "pattern"), ORDERS)
def test_what_strangers_send_is_text(hostile: Place, method: str, pattern: str) -> None:
    """In each field of an order, in its path, and in the notice that the next page shows."""
    row = TABLE[method, pattern]
    browser = hostile.browser(User(NAME, ["admin"], None))
    form = hostile.form(row)
    fields = [*form, "order", "step", "position", "reason", "comment", "payload", "delay", "sure",
              "began_at", "after", "total", "per_second", "number", "tenant", "choices"]  # fmt: skip
    for name in fields:
        for value in (HOSTILE, "\x00", "\ud800", "9" * 400, "-1", "[" * 2_000):
            sent = {**form, name: value.encode("utf-8", "replace").decode()}
            answer = send(browser, hostile.path(row), **sent)
            assert answer.status_code < 500, (name, value[:40], answer.text)
            assert strange(answer.text) == [], (name, value[:40])
    for part in ("%3Cscript%3E", "%00", "..%2F..%2F", "%2F%2Fevil.example", "a" * 3_000, "%FF"):
        address = re.sub(r"\*", part, pattern)
        answer = send(browser, f"/ops/{address}", **form)
        assert answer.status_code < 500, part
        assert strange(answer.text) == [], part
        assert answer.url.host == "shop.example"
