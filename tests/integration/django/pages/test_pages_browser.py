"""The main flows in a real browser, under ``default-src 'self'``, without one complaint of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

BASE = "/admin/automate_django/outboxitem/"
PAGES = ("dashboard/", "", "kinds/", "workers/", "plugins/")
MORE_PAGES = (
    "/admin/automate_django/workflowexecution/",
    "/admin/automate_django/workflowdocument/",
    "/admin/automate_django/apitoken/",
    "/admin/automate_django/auditentry/",
)


@pytest.fixture(autouse=True)
def no_complaints(operator: Any) -> Iterator[None]:
    """Nothing on the console of any page of the test: no refusal of the policy, no error."""
    yield
    assert [one.complaints for one in operator.made if one.complaints] == []


@pytest.fixture
def busy(kernel: Any, fail: Any, alive: Any) -> dict[str, list[str]]:
    """An outbox in the middle of the night."""
    alive("web-1:4711:a3", minutes=60, in_flight=1)
    alive("batch-1:90:cc", seen_seconds_ago=900)
    kernel.outbox.enqueue("mail.send", tenant_id="acme")
    kernel.outbox.claim_batch("web-1:4711:a3", 1)
    return {
        "timeouts": fail("slack.post", 120),
        "refused": fail(
            "mail.send", 3, code="UNAVAILABLE", payload={"x": "<script>alert(1)</script>"}
        ),
    }


def count(kernel: Any, kind: str, status: str) -> int:
    return int(kernel.outbox.stats().counts.get(kind, {}).get(status, 0))


def test_who_signs_in_comes_to_the_page_that_was_asked_for(busy, operator):
    one = operator(form=True)

    assert one.page.url.endswith(BASE)
    assert "120 × TIMEOUT" in one.page.locator(".automate-groups").inner_text()


def test_from_the_group_of_failures_to_all_of_them_retried(kernel, busy, operator):
    one = operator()
    page = one.open(BASE)
    one.press("text=120 × TIMEOUT")
    assert page.locator(".automate table tbody tr").count() == 50
    one.press("text=Retry all…")
    assert "Retry 120 items?" in page.content()
    assert "All 120 failed items of slack.post with TIMEOUT" in page.locator("section").inner_text()
    one.press("button:has-text('Retry 120 items')")
    one.waits_for("text=120 items put back to wait.")

    assert count(kernel, "slack.post", "PENDING") == 120
    assert count(kernel, "mail.send", "FAILED") == 3
    assert page.locator("text=Nothing has failed").or_(page.locator("text=No failed items")).count()


def test_a_large_order_shows_how_far_it_is_and_ends_by_itself(kernel, busy, operator, monkeypatch):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 40)
    one = operator()
    sent: list[str] = []
    one.page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page = one.open(f"{BASE}?slice=failed&kind=slack.post")
    one.press("text=Retry all…")
    page.select_option("select[name=per_second]", "50")
    one.press("button:has-text('Retry 120 items')")
    one.waits_for("text=120 items put back to wait.")

    # 40 in the first request, and twice as many without a click.
    assert sum(each.startswith("POST") and each.endswith("/orders/") for each in sent) == 2
    assert count(kernel, "slack.post", "PENDING") == 120


def test_filter_select_and_discard(kernel, busy, operator):
    one = operator()
    page = one.open(BASE)
    page.fill("input[name=kind]", "mail.send")
    one.press("button:has-text('Filter')")
    assert page.locator(".automate table tbody tr").count() == 3
    page.check("label:has-text('All on this page') input")
    assert page.locator("[data-count]").inner_text() == "3 selected"
    page.locator("input[name=id][type=checkbox]").first.uncheck()
    assert page.locator("[data-count]").inner_text() == "2 selected"
    one.press("button:has-text('Discard selected')")
    assert "This can't be undone" in page.content()
    one.press("button:has-text('Discard 2 items')")
    one.waits_for("text=2 items deleted.")

    assert count(kernel, "mail.send", "FAILED") == 1


def test_one_item_is_read_and_retried(kernel, busy, operator):
    one = operator()
    page = one.open(f"{BASE}?slice=failed&kind=mail.send")
    one.press(page.locator(".automate tbody th a").first)
    assert (
        "<script>alert(1)</script>" in page.locator("section:has-text('Payload') pre").inner_text()
    )
    one.press("button:has-text('Retry')")
    one.waits_for("text=1 item put back to wait.")

    assert "PENDING" in page.locator("h1").inner_text()
    assert count(kernel, "mail.send", "PENDING") == 1


def test_a_kind_is_paused_and_resumed(kernel, busy, operator):
    one = operator()
    page = one.open(f"{BASE}kinds/")
    one.press(page.locator("tr:has-text('slack.post')").locator("text=Pause or limit…"))
    assert page.locator("input[name=kind][type=text]").first.input_value() == "slack.post"
    page.fill("input[name=reason]", "The provider is down")
    one.press("button:has-text('Pause')")
    one.waits_for("text=Paused slack.post")
    assert kernel.outbox.stats().paused == ("slack.post",)
    assert "The provider is down" in page.locator("tr:has-text('slack.post')").inner_text()
    one.press("button:has-text('Resume')")
    one.waits_for("text=Resumed slack.post")
    assert kernel.outbox.stats().paused == ()


def test_the_dashboard_refreshes_itself_and_stops_for_who_is_signed_out(
    kernel, busy, fail, operator
):
    one = operator()
    one.page.clock.install()
    page = one.open(f"{BASE}dashboard/")
    assert page.locator("svg.automate-chart").count() == 4
    failed = page.locator("li:has-text('Failed') strong").first
    assert failed.inner_text() == "123"
    fail("slack.post", 7)
    page.clock.run_for(6000)
    one.waits_for("li strong:has-text('130')")
    assert "Updated" in page.locator("[data-live-for]").inner_text()

    one.context.clear_cookies()
    page.clock.run_for(6000)
    one.waits_for("text=Signed out")
    assert failed.inner_text() == "130"
    assert page.locator("input[name=password]").count() == 0


def test_a_table_of_figures_stays_open_while_it_is_read(kernel, busy, operator):
    one = operator()
    one.page.clock.install()
    page = one.open(f"{BASE}dashboard/")
    one.press(page.locator("summary").first)
    page.clock.run_for(20_000)

    assert page.locator("details[open] table").count() == 1


def test_a_running_item_is_cancelled_from_its_worker(kernel, busy, operator):
    one = operator()
    page = one.open(f"{BASE}workers/")
    assert "LOST" in page.locator("section:has-text('batch-1')").inner_text()
    one.press("button:has-text('Cancel…')")
    one.press("button:has-text('Cancel 1 item')")
    one.waits_for("text=1 item cancelled, or asked to stop.")
    page = one.open(f"{BASE}workers/")
    assert "STOPPING" in page.content()


def test_a_viewer_has_nothing_to_press(kernel, busy, operator, staff):
    viewer = staff("view_outboxitem", "operate_outbox").user.username
    one = operator(viewer)
    for path in ("", "?slice=due", "workers/"):
        page = one.open(BASE + path)
        assert page.locator(".automate form[method=post] button").count() == 0


def test_without_script_everything_is_done_by_buttons(kernel, busy, operator, monkeypatch):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 80)
    one = operator(java_script_enabled=False)
    page = one.open(f"{BASE}dashboard/")
    assert page.locator("svg.automate-chart").count() == 4
    assert "123" in page.locator("li:has-text('Failed')").first.inner_text()
    page = one.open(BASE)
    page.fill("input[name=kind]", "slack.post")
    one.press("button:has-text('Filter')")
    one.press("text=Retry all…")
    one.press("button:has-text('Retry 120 items')")
    assert "80 of 120" in page.locator("section").inner_text()
    one.press("button:has-text('Continue')")
    assert "120 items put back to wait." in page.locator(".messagelist").inner_text()
    page = one.open(f"{BASE}?slice=failed&kind=mail.send")
    page.locator("input[name=id][type=checkbox]").first.check()
    one.press("button:has-text('Discard selected')")
    one.press("button:has-text('Discard 1 item')")
    one.waits_for("text=1 item deleted.")

    assert count(kernel, "slack.post", "PENDING") == 120
    assert count(kernel, "mail.send", "FAILED") == 2


def test_the_focus_is_seen_whole(kernel, busy, operator):
    """What scrolls sideways would cut off an outline that stands out of it."""
    one = operator()
    page = one.open(BASE)
    page.locator(".automate-nav a", has_text="Workers").focus()
    page.keyboard.press("Tab")
    outline = page.evaluate(
        "(({outlineStyle, outlineWidth, outlineOffset}) =>"
        " [outlineStyle, outlineWidth, outlineOffset])(getComputedStyle(document.activeElement))"
    )
    assert outline == ["solid", "2px", "-2px"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(kernel, busy, operator, scheme):
    one = operator(color_scheme=scheme)
    for path in (*[BASE + each for each in PAGES], *MORE_PAGES):
        page = one.open(path)
        poor = page.evaluate(CONTRAST)
        assert poor == [], (path, poor)


@pytest.mark.parametrize("path", [*PAGES, "?slice=all", "ITEM/change/", *MORE_PAGES])
def test_a_phone_shows_a_whole_page_without_scrolling_sideways(kernel, busy, operator, path):
    one = operator(viewport={"width": 390, "height": 844})
    path = path.replace("ITEM", busy["refused"][0])
    page = one.open(path if path.startswith("/") else BASE + path)

    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    # A long word would push a cell out of its card.
    wide = page.evaluate(
        "Array.from(document.querySelectorAll('.automate section')).filter("
        "one => one.getBoundingClientRect().right > 390).length"
    )
    assert wide == 0


def test_everything_can_be_reached_with_the_keyboard(kernel, busy, operator):
    one = operator()
    page = one.open(f"{BASE}?slice=failed&kind=mail.send")
    names = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate(
                "(document.activeElement.innerText || document.activeElement.name || '').trim()"
            )
        )
    assert {"Outbox", "Filter", "Retry selected", "kind"} <= names
    assert re.search("Retry all", " ".join(names))


CONTRAST = """
() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a));
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => {
      const s = c / 255;
      return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.push(numbers(getComputedStyle(one).backgroundColor));
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const poor = [];
  for (const element of document.querySelectorAll('.automate *')) {
    const own = Array.from(element.childNodes)
      .some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || box.width < 2 || element.closest('svg, datalist, .automate-hidden')) continue;
    const ground = behind(element);
    const text = over(numbers(getComputedStyle(element).color), ground);
    const [high, low] = [light(text), light(ground)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.push([element.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}
"""


def test_nothing_of_a_table_is_cut_off_on_a_small_laptop(kernel, fail, operator):
    """At 1280 pixels, with names as long as they are in life."""
    from automate_kernel.outbox import ItemStatus, Outcome

    kind = "fulfilment.notify_warehouse"
    fail(kind, error="HTTPStatusError: Server error '503 Service Unavailable' " * 4,
         code="FAILED_PRECONDITION", tenant_id="organization-4711")  # fmt: skip
    item_id = kernel.outbox.enqueue(kind, tenant_id="organization-4711", max_attempts=1)
    (item,) = kernel.outbox.claim_batch("w", 1)
    group = "HTTPStatusError in fulfilment.warehouses.notifications.Warehouse.notify"
    told = Outcome(
        item_id, ItemStatus.FAILED, 0.0, "FAILED_PRECONDITION", "x" * 300, item.lease_token, group
    )
    kernel.outbox.acknowledge("w", [told])
    one = operator(viewport={"width": 1280, "height": 800})
    for slice_ in ("failed", "all"):
        page = one.open(f"{BASE}?slice={slice_}")
        cut = "one => one.scrollWidth - one.clientWidth"
        assert page.locator(".automate-scroll").evaluate(cut) <= 0, slice_


def test_a_small_laptop_shows_all_tabs_and_every_figure_in_one_line(kernel, busy, operator):
    """At 1280 pixels, beside Django's sidebar."""
    one = operator(viewport={"width": 1280, "height": 800})
    page = one.open(f"{BASE}dashboard/")
    hidden = "one => one.scrollWidth - one.clientWidth"
    assert page.locator(".automate-nav").evaluate(hidden) <= 0
    figures = page.locator(".automate-cards strong")
    figures.evaluate_all(
        "all => all.forEach((one, i) => one.textContent = i % 2 ? '300,000' : '3 h 12 min')"
    )
    lines = figures.evaluate_all(
        "all => all.map(one => one.getClientRects().length && one.offsetHeight)"
    )
    assert len(lines) >= 6 and max(lines) < 40, lines


def test_tabs_and_sidebar_use_the_same_words(kernel, busy, operator):
    """Who learnt a page's name in the one finds it in the other."""
    page = operator(viewport={"width": 1280, "height": 800}).open(f"{BASE}dashboard/")
    tabs = page.locator(".automate-nav a").all_inner_texts()
    sidebar = page.locator("#nav-sidebar .app-automate_django th a").all_inner_texts()
    assert sidebar and set(sidebar) <= set(tabs), (tabs, sidebar)


@pytest.mark.parametrize("tone", ["", "ok", "bad", "warn", "run"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_in_a_note_stands_out_from_it(kernel, busy, operator, scheme, tone):
    page = operator(color_scheme=scheme).open(f"{BASE}dashboard/")
    note = f'<p class="automate-note" data-tone="{tone}">See <a href="?">the page</a></p>'
    page.locator(".automate section").first.evaluate(
        "(one, note) => one.insertAdjacentHTML('afterbegin', note)", note
    )
    assert page.evaluate(CONTRAST) == []
