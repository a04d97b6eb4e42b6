"""
The operators' pages in a browser, for everybody's eyes and hands, the same tests on each host.

What the hosts are is in `page_hosts`; each serves one shop for all tests of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from page_hosts import HOSTS, PageHost

CHROMIUM = Path("/usr/bin/chromium")
ARABIC, GERMAN = "شاي أخضر من المتجر", "Donaudampfschifffahrtsgesellschaftskapitän"
# Django's admin changes colours in steps.
STILL = "Promise.allSettled(document.getAnimations().map((each) => each.finished)).then(() => null)"
GREET = """\
name: greet
trigger: {type: event, event: customer.came}
steps:
  - {id: say, action: charge, input: {amount: "{{ event.payload.amount }}"}}
  - {id: note, action: charge, input: {amount: 1}}
"""
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=HOSTS)
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageHost]:
    folder = tmp_path_factory.mktemp(request.param)
    with HOSTS[request.param](folder, lambda: request.getfixturevalue("postgresql_url")) as host:
        for name in (ARABIC, GERMAN):
            lines = [{"sku": number, "name": name} for number in range(30)]
            host.order(name=name, lines=lines)
            host.order(500, number=4712, name=name)
        host.shop.kernel.outbox.enqueue("letter", {"to": ARABIC}, max_attempts=1)
        host.shop.kernel.run_until_idle()
        yield host


@pytest.fixture
def tab(chrome: Any, host: PageHost) -> Iterator[Callable[..., Any]]:
    """A function that opens a page in a browser of its own; nobody may complain on its console."""
    complaints: list[str] = []
    opened: list[Any] = []

    def open_tab(path: str, context: Any = None, **options: Any) -> Any:
        if context is None:
            context = chrome.new_context(**{**host.context, **options})
            context.set_default_timeout(60_000)
            opened.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda told: complaints.append(told.text))
        page.goto(f"{host.url}{path}")
        return page

    yield open_tab
    for each in opened:
        each.close()
    hints = ("404", "422", "[DOM]")
    assert [each for each in complaints if not any(hint in each for hint in hints)] == []


@contextmanager
def loading(page: Any) -> Iterator[None]:
    """Wait until what the block does has led to another page."""
    with page.expect_navigation():
        yield


def rows_of(page: Any) -> list[str]:
    """Return the first words of each row of the list."""
    return list(page.locator("#page form tbody th a").all_inner_texts())


def paths(shop: Any) -> list[str]:
    """Return an address of every screen."""
    waiting, failed = (
        shop.kernel.executions.page(status=status).executions[0].id
        for status in ("RUNNING", "FAILED")
    )
    (item, *_) = shop.kernel.outbox.page(kind="letter").items
    document = edited(shop)
    return [
        "/", "/?span=24h", "/executions", "/executions?status=FAILED", "/executions?q=nothing",
        "/executions/grid?workflow=order", f"/executions/compare?a={waiting}&b={failed}",
        f"/executions/{waiting}", f"/executions/{failed}/steps/charge/whole", "/workflows",
        "/workflows/order", "/approvals?of=all", "/approvals?of=decided",
        f"/approvals/{waiting}/ok/whole", "/outbox", f"/outbox/{item.id}", "/kinds", "/workers",
        "/plugins", "/accounts", "/webhooks", "/audit", "/access",
        "/operations", "/operations?name=charge", "/nothing", "/documents/new",
        f"/documents/{document}", f"/documents/{document}/edit", f"/documents/{document}/versions/2",
    ]  # fmt: skip


def edited(shop: Any) -> str:
    """Return the id of a workflow with a draft, which is compared with what is published."""
    documents = shop.kernel.documents
    for each in documents.find("greet"):
        return str(each.id)
    made = documents.create(GREET, author="eve", comment=GERMAN)
    documents.save(made.id, GREET.replace("say", "greet"), publish=False, author=ARABIC)
    return str(made.id)


# One host is looked at each time; the others have the same HTML, but for Django's frame.
EVERY = [pytest.param(each, marks=[] if each == "fastapi" else pytest.mark.long) for each in HOSTS]


@pytest.mark.slow
@pytest.mark.parametrize("host", EVERY, indirect=True)
def test_every_screen_is_accessible_and_fits(host: PageHost, tab: Callable[..., Any]) -> None:
    import axe_playwright_python

    (script,) = Path(axe_playwright_python.__file__).parent.glob("*.min.js")
    page = tab("/")
    for path in [each for each in paths(host.shop) if each not in host.lacks]:
        status = page.goto(f"{host.url}{path}").status
        assert status == (404 if path == "/nothing" else 200), path
        page.evaluate(script.read_text())  # as the protocol does, which no policy forbids
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.evaluate(STILL)
                found = page.evaluate(
                    "axe.run({resultTypes: ['violations']}).then(({violations}) =>"
                    " violations.map((each) => [each.id, each.nodes[0].html]))"
                )
                assert found == [], (path, width, scheme)


def test_a_filter_is_shared_by_its_address(host: PageHost, tab: Callable[..., Any]) -> None:
    wanted = host.order(number=815)
    for path, field, text, found in (
        ("/executions", "Labels", "order=815", "order"),
        ("/executions", "Search", "815", "order"),
        ("/outbox", "Kind", "letter", "letter"),
    ):
        page = tab(path)
        page.get_by_label(field, exact=True).fill(text)
        with loading(page):
            page.get_by_role("button", name="Filter").click()
        rows = rows_of(page)
        assert set(rows) == {found}, path
        another = tab(page.url.removeprefix(host.url))  # in another browser
        assert rows_of(another) == rows
        if field == "Labels":
            assert wanted.id in another.content()
            assert len(rows) == 1
    page = tab("/executions?status=FAILED&workflow=order")
    page.get_by_text("Save this query").click()
    page.get_by_label("Name").fill("Broken orders")
    with loading(page):
        page.get_by_role("button", name="Save", exact=True).click()
    page = tab("/executions")
    with loading(page):
        page.get_by_role("link", name="Broken orders").click()
    assert page.url == f"{host.url}/executions?status=FAILED&workflow=order"
    with loading(page):
        page.get_by_role("button", name="Delete Broken orders").click()
    assert page.get_by_role("link", name="Broken orders").count() == 0


def test_what_changes_is_seen_without_a_reload(host: PageHost, tab: Callable[..., Any]) -> None:
    """By a stream, or by polls where a stream would hold one of few threads."""
    waiting = host.order()
    first = tab("/executions")
    # With the list more than the server for WSGI has threads, fewer than a browser has connections.
    tabs = [tab(f"/executions/{waiting.id}", first.context) for _ in range(4)]
    for page in (first, *tabs):
        page.evaluate("window.untouched = true")
    for page in tabs:
        page.get_by_text("RUNNING").first.wait_for()
    before = first.locator("#page tbody tr").count()
    host.shop.kernel.approvals.approve(waiting.id, "ok", by="eve", form={"boxes": 1})
    host.settled(waiting.id, "COMPLETED")
    host.order(number=816)
    for page in tabs:
        page.bring_to_front()
        page.get_by_role("heading", name="COMPLETED").wait_for()
    first.bring_to_front()
    first.locator("#page tbody tr").nth(before).wait_for()
    for page in (first, *tabs):
        assert page.evaluate("window.untouched"), "it was loaded again"


def press_until(page: Any, name: str, key: str = "Tab", most: int = 60) -> None:
    """Press a key until the focus is on what is called *name*, which must be seen to have it."""
    for _ in range(most):
        page.keyboard.press(key)
        here = page.locator(":focus")
        text = here.evaluate("e => e.textContent.trim() || e.ariaLabel || ''")
        if text == name:
            style = here.evaluate("e => getComputedStyle(e).outlineStyle")
            assert style != "none", f"nobody sees that the focus is on {name}"
            return
    raise AssertionError(f"the focus never comes to {name}")


def test_a_failure_is_mended_by_keys_alone(host: PageHost, tab: Callable[..., Any]) -> None:
    failed = host.order(500, number=4713)
    page = tab("/executions")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.type("order=4713")
    with loading(page):
        page.keyboard.press("Enter")
    for key in "jjkj":
        page.keyboard.press(key)
    with loading(page):
        page.keyboard.press("Enter")
    assert page.url == f"{host.url}/executions/{failed.id}"
    press_until(page, "Resume where it failed")
    with loading(page):
        page.keyboard.press("Enter")
    assert "It goes on from where it failed." in page.content()
    host.settled(failed.id, "FAILED")


def test_a_payload_folds_and_is_copied_whole(host: PageHost, tab: Callable[..., Any]) -> None:
    lines = [{"sku": number, "name": ARABIC} for number in range(30)]
    waiting = host.order(name=GERMAN, lines=lines)
    page = tab(f"/executions/{waiting.id}", permissions=["clipboard-read", "clipboard-write"])
    tree = page.locator("section", has_text="What came in").locator(".shown").last
    assert "30 elements" in page.evaluate(
        "getComputedStyle(document.querySelector('.tree details > summary'), '::after').content"
    )
    assert '"sku": 29' not in tree.inner_text()
    tree.get_by_role("button", name="Copy").click()
    tree.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText().then(JSON.parse)")
    assert copied == {"amount": 5, "name": GERMAN, "lines": lines}


def test_an_approval_is_given_on_a_phone(host: PageHost, tab: Callable[..., Any]) -> None:
    waiting = host.order(name=f"{ARABIC} / {GERMAN}")
    page = tab(
        "/approvals?of=all", viewport={"width": 390, "height": 800}, color_scheme="dark",
        has_touch=True, is_mobile=True,
    )  # fmt: skip
    assert page.evaluate("getComputedStyle(document.querySelector('.automate')).colorScheme") != (
        "light"
    )
    asked = page.locator("tr", has_text=f"{ARABIC} / {GERMAN}")
    asked.locator("summary").tap()
    for button in asked.get_by_role("button", name=re.compile("Approve|Reject")).all():
        size = button.bounding_box()
        assert min(size["width"], size["height"]) >= 24, "too small for a finger"
    asked.get_by_label(re.compile("boxes", re.IGNORECASE)).fill("3")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with loading(page):
        asked.get_by_role("button", name="Approve").tap()
    assert "Approved." in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    done = host.settled(waiting.id, "COMPLETED")
    assert done.steps[-1].output["form"] == {"boxes": 3}


def follow(page: Any, *links: str) -> None:
    """Follow links by their names."""
    for each in links:
        with loading(page):
            page.get_by_role("link", name=each).first.click()


def press(page: Any, *buttons: str) -> str:
    """Press buttons by their names, each of which leads to a page; return what is said then."""
    for each in buttons:
        with loading(page):
            page.get_by_role("button", name=each, exact=True).first.click()
    return str(page.locator("body").inner_text())


def fill(page: Any, label: str, text: str) -> None:
    """Fill in the field with a label that contains this."""
    fields = page.locator("input:not([type=hidden]), textarea")
    page.get_by_label(label).and_(fields).first.fill(text)


def test_every_task_can_be_done_without_script(host: PageHost, tab: Callable[..., Any]) -> None:
    """The main task of each screen, one after the other."""
    failed, other = host.order(500, number=4714), host.order(500, number=4714)
    page = tab("/", java_script_enabled=False)
    follow(page, "ValueError in")
    assert "status=FAILED" in page.url
    fill(page, "Labels", "order=4714")
    press(page, "Filter")
    assert rows_of(page) == ["order", "order"]
    for box in page.get_by_role("checkbox").all()[1:]:
        box.check()
    press(page, "Compare two")
    assert page.get_by_role("heading", name="Two executions").count()
    page.goto(f"{host.url}/executions?status=FAILED&label=order%3D4714")
    page.get_by_role("checkbox").nth(1).check()
    assert "1 execution resumed" in press(page, "Resume", "Resume")
    for each in (failed, other):
        host.settled(each.id, "FAILED")

    page.goto(f"{host.url}/executions/grid")
    fill(page, "Workflow", "order")
    press(page, "Filter")
    with loading(page):
        page.locator("a.cell[data-tone=bad]").last.click()
    assert "/steps/charge/" in page.url
    page.get_by_text("Copy from here, with another payload").click()
    fill(page, "Payload, as JSON", '{"amount": 7, "name": "copied"}')
    assert "This is a copy" in press(page, "Copy")
    copied = page.url.rsplit("/", 1)[1]
    host.settled(copied, "RUNNING", "ok")

    page.goto(f"{host.url}/approvals?of=all")
    follow(page, "Ship copied?")
    fill(page, "boxes", "2")
    assert "Approved." in press(page, "Approve")
    host.settled(copied, "COMPLETED")
    follow(page, "Decided")
    assert copied[:8] in page.content()

    follow(page, "Workflows", "order")
    fill(page, "Payload", '{"amount": 8, "name": "begun"}')
    assert "It is started." in press(page, "Start")
    host.settled(page.url.rsplit("/", 1)[1], "RUNNING", "ok")
    assert "It is paused" in press(page, "Pause")
    press(page, "Go on")
    assert "cancel" in press(page, "Cancel").lower()

    follow(page, "Outbox", "LookupError in")
    assert "1 item put back to wait" in press(page, "Retry all…", "Retry")
    host.shop.kernel.run_until_idle()
    follow(page, "Kinds")
    fill(page, "Kind", "letter")
    assert "Paused letter" in press(page, "Pause")
    assert "Resumed letter" in press(page, "Resume")
    follow(page, "Plugins")
    assert page.get_by_role("heading", name="Plugins").count()
    follow(page, "Operations", "charge")
    fill(page, "amount", "9")
    press(page, "Call")
    assert '"charged": 9' in page.locator("#page").inner_text()
    follow(page, "Audit")
    trail: Sequence[str] = page.locator("#page tbody tr").all_inner_texts()
    for action in ("resume", "fork", "approve", "start", "pause", "cancel", "retry"):
        assert any(action in each for each in trail), action


@pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "plain"])
def test_a_workflow_is_edited_by_keys(
    scripted: bool, host: PageHost, tab: Callable[..., Any]
) -> None:
    """A problem leads to its line; the draft is compared, published, and taken back."""
    document = edited(host.shop)
    name = f"by-keys-{'scripted' if scripted else 'plain'}"
    page = tab("/workflows", java_script_enabled=scripted)
    with loading(page):
        page.get_by_role("link", name="New workflow").press("Enter")
    text = page.get_by_label("Definition")
    text.fill(GREET.replace("greet", name).replace("action", "acton"))
    with loading(page):
        page.get_by_role("button", name="Save the draft").press("Enter")
    assert "did you mean 'action'?" in page.locator("li[value='4']").inner_text()
    page.get_by_role("link", name="Line 4").first.press("Enter")
    if scripted:
        chosen = page.evaluate("getSelection().toString()")
        assert "acton: charge" in chosen
    assert name in text.input_value()
    text.fill(GREET.replace("greet", name))
    with loading(page):
        page.get_by_role("button", name="Save the draft").press("Enter")
    with loading(page):
        page.get_by_role("button", name="Publish version 1").press("Enter")
    page.get_by_text("Version 1 is published").wait_for()
    page.goto(f"{host.url}/documents/{document}/versions/2")
    assert page.locator("svg .ADDED").count() == 1
    assert page.locator("svg .REMOVED").count() == 1
    widths = page.evaluate("""["ADDED", "REMOVED"].map((each) =>
        getComputedStyle(document.querySelector(`svg .${each} rect`)).strokeDasharray)""")
    assert widths[0] != widths[1]  # told by shape, too
