"""The screens in a browser: for everybody's eyes and hands, on a desk and a phone, light and dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from paged_shop import Shop, admin
from starlette.applications import Starlette
from starlette.routing import Mount
from waiting import until

from automate_pages import loopback, pages

CHROMIUM = Path("/usr/bin/chromium")
ARABIC, GERMAN = "شاي أخضر من المتجر", "Donaudampfschifffahrtsgesellschaftskapitän"
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    for name in (ARABIC, GERMAN, "tea"):
        made.order(name=name, lines=[{"sku": number, "name": name} for number in range(30)])
        made.order(500, name=name)
    made.kernel.outbox.enqueue("mail", {"to": ARABIC})
    yield made
    made.kernel.close()


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    shell = pages(shop.kernel, auth=loopback(admin()), operations=["charge"])
    app = Starlette(routes=[Mount("/ops", shell)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/ops"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def paths(shop: Shop) -> list[str]:
    """Return an address of every screen."""
    waiting, failed = (
        shop.kernel.executions.page(status=status).executions[0].id
        for status in ("RUNNING", "FAILED")
    )
    (item,) = shop.kernel.outbox.page(kind="mail").items
    return [
        "/", "/?span=24h", "/executions", "/executions?status=FAILED", "/executions?q=nothing",
        "/executions/grid?workflow=order", f"/executions/compare?a={waiting}&b={failed}",
        f"/executions/{waiting}", f"/executions/{failed}/steps/charge/whole", "/workflows",
        "/workflows/order", "/approvals?of=all", "/approvals?of=decided",
        f"/approvals/{waiting}/ok/whole", "/outbox", f"/outbox/{item.id}", "/kinds", "/workers",
        "/plugins", "/accounts", "/webhooks", "/operations", "/operations?name=charge", "/nothing",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_screen_is_accessible_and_fits(
    shop: Shop, address: str, chrome: Any, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = chrome.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda told: complaints.append(told.text))
    for path in paths(shop):
        page.goto(f"{address}{path}")
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    hints = ("404", "[DOM]")
    assert [each for each in complaints if not any(hint in each for hint in hints)] == []
    context.close()


def test_a_list_is_worked_with_by_keys_alone(shop: Shop, address: str, chrome: Any) -> None:
    page = chrome.new_page()
    page.goto(f"{address}/executions?status=FAILED")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.evaluate("document.activeElement.blur()")
    for key in "jjk":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="FAILED").first.wait_for()
    page.close()


def test_a_payload_folds_and_is_copied_whole(shop: Shop, address: str, chrome: Any) -> None:
    waiting = shop.kernel.executions.page(status="RUNNING").executions[-1]
    context = chrome.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{address}/executions/{waiting.id}")
    tree = page.locator("section", has_text="What came in").locator(".shown").last
    assert "30 elements" in page.evaluate(
        "getComputedStyle(document.querySelector('.tree details > summary'), '::after').content"
    )
    assert '"sku": 29' not in tree.inner_text()
    tree.get_by_role("button", name="Copy").click()
    tree.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText().then(JSON.parse)")
    execution = shop.kernel.executions.get(waiting.id)
    assert execution is not None
    assert copied == execution.event.payload
    context.close()


def test_many_are_resumed_without_script(shop: Shop, address: str, chrome: Any) -> None:
    context = chrome.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/executions?status=FAILED")
    page.get_by_role("button", name="Resume all…").click()
    page.get_by_role("button", name="Resume", exact=True).click()
    assert "3 executions resumed" in page.content()
    context.close()
