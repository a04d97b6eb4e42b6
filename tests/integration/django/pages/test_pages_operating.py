"""The pages about what works on the outbox: dashboard, kinds, workers, plugins; and all markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from automate_kernel.outbox import WorkerInfo
from automate_kernel.worker.reporter import ActivityLog

BASE = "/admin/automate_django/outboxitem/"


def html_of(client: Any, path: str) -> str:
    answer = client.get(BASE + path)
    assert answer.status_code == 200
    return answer.content.decode()


# -- kinds -----------------------------------------------------------------------------------------


def test_a_kind_is_paused_with_a_reason_and_resumed(alias, kernel, root):
    from automate_django.models import AuditEntry

    kernel.outbox.enqueue("mail.send")
    data = {"what": "pause", "kind": "mail.send", "reason": "Provider is down. Ask Ines."}
    assert root.post(f"{BASE}kinds/steer/", data).status_code == 302
    assert kernel.outbox.stats().paused == ("mail.send",)
    html = html_of(root, "kinds/")
    assert "Provider is down. Ask Ines." in html
    assert "Paused mail.send" in html
    assert kernel.outbox.claim_batch("w") == []

    root.post(f"{BASE}kinds/steer/", {"what": "resume", "kind": "mail.send"})
    assert kernel.outbox.stats().paused == ()
    assert len(kernel.outbox.claim_batch("w")) == 1
    actions = [entry.action for entry in AuditEntry.objects.order_by("id")]
    assert actions == ["pause", "resume"]


def test_a_kind_is_limited_and_freed(alias, kernel, root):
    data = {"what": "limit", "kind": "k", "concurrency": "2", "rate": "30", "per_seconds": "60"}
    root.post(f"{BASE}kinds/steer/", data)

    (limit,) = kernel.outbox.limits()
    assert (limit.kind, limit.concurrency, limit.rate, limit.per_seconds) == ("k", 2, 30, 60.0)
    html = html_of(root, "kinds/")
    assert "2 at once, 30 per 1 min" in html
    root.post(f"{BASE}kinds/steer/", {"what": "unlimit", "kind": "k"})
    assert kernel.outbox.limits() == []


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "k", "what": "limit"},
        {"kind": "k", "what": "limit", "concurrency": "-1"},
        {"kind": "k", "what": "limit", "rate": "many"},
        {"kind": "k", "what": "limit", "rate": "1", "per_seconds": "nan"},
        {"kind": "", "what": "pause"},
        {"kind": "\x00", "what": "pause"},
        {"kind": "k" * 300, "what": "pause"},
    ],
)
def test_nonsense_is_refused_with_a_message(kernel, root, data):
    answer = root.post(f"{BASE}kinds/steer/", data)

    assert answer.status_code == 302
    assert 'class="error"' in root.get(answer.url).content.decode()
    assert kernel.outbox.limits() == []
    assert kernel.outbox.stats().paused == ()


def test_an_unknown_order_for_a_kind_is_refused(root):
    assert root.post(f"{BASE}kinds/steer/", {"kind": "k", "what": "burn"}).status_code == 400


# -- workers ---------------------------------------------------------------------------------------


def test_workers_are_listed_with_what_they_run_and_lost_ones_are_marked(alias, kernel, root, alive):
    alive("web-1:1:a", in_flight=1)
    alive("web-2:2:b", seen_seconds_ago=600)
    kernel.outbox.enqueue("mail.send", tenant_id="acme")
    (item,) = kernel.outbox.claim_batch("web-1:1:a")

    for path in ("workers/", "workers/list/"):
        html = html_of(root, path)
        first, second = html.index("web-1:1:a"), html.index("web-2:2:b")
        assert first < html.index(item.id) < second
        assert "ALIVE" in html[first:second]
        assert "LOST" in html[second:]
        assert "killed, or it is cut off" in html[second:]
        assert re.search(r"4 min \d+ s", html)  # of a lease of five


def test_leases_of_a_worker_that_nobody_knows_are_shown_too(kernel, root):
    kernel.outbox.enqueue("k")
    (item,) = kernel.outbox.claim_batch("old-worker")

    html = html_of(root, "workers/")
    assert "old-worker" in html
    assert "UNKNOWN" in html
    assert item.id in html
    assert "No worker is running" in html


# -- plugins ---------------------------------------------------------------------------------------


def test_plugins_are_listed_and_a_broken_one_tells_what_to_do(kernel, root):
    kernel.plugins.register("nowhere.at_all:Gone", "connector", key="gone")

    html = html_of(root, "plugins/")
    assert "chat" in html
    assert "gone" in html
    answer = root.post(f"{BASE}plugins/load/")
    html = answer.content.decode()
    record = next(one for one in kernel.plugins.records("connector") if one.key == "gone")
    assert str(record.state) == "BROKEN"
    assert "BROKEN" in html
    assert "No module named &#x27;nowhere" in html
    assert "What to do:" in html
    assert "Traceback" in html


# -- the dashboard ---------------------------------------------------------------------------------


def test_the_dashboard_tells_of_what_was_done(alias, kernel, root, alive, fail):
    alive(minutes=10)
    fail(n=3)

    for span in ("1h", "6h", "24h", "nonsense"):
        html = html_of(root, f"dashboard/?span={span}")
        assert html.count('<svg class="automate-chart"') == 4
        assert "slack.post" in html
    assert "<strong>3</strong>" in html
    fragment = root.get(f"{BASE}dashboard/figures/?span=1h")
    assert fragment.headers["X-Automate-Fragment"] == "more"
    assert "no-store" in fragment.headers["Cache-Control"]
    assert "<html" not in fragment.content.decode()


def test_what_was_gathered_is_not_read_again_and_nothing_is_counted_twice(
    alias, kernel, root, alive, monkeypatch
):
    from automate_django.admin.pages import dashboard as rates

    alive(minutes=90)
    span, now = rates.SPANS["6h"], kernel.outbox.now()
    asked: list[float] = []
    read = kernel.outbox.activity
    monkeypatch.setattr(
        kernel.outbox, "activity", lambda *, seconds: asked.append(seconds) or read(seconds=seconds)
    )
    first, second = rates.history(span, now), rates.history(span, now)

    assert first == second
    assert sum(one.total for one in first) == sum(one.total for one in read(seconds=21_600))
    assert 21_600 <= asked[0] <= 21_600 + span.step + 60
    assert asked[1] < 900


def test_a_long_history_is_gathered_by_the_script_and_not_by_the_page(
    kernel, root, alive, monkeypatch
):
    from automate_django.admin.pages import dashboard as rates

    alive(minutes=10)
    monkeypatch.setattr(rates, "CHEAP_ROWS", -1)
    page = html_of(root, "dashboard/?span=24h")
    assert "data-now" in page
    assert "automate-chart" not in page
    assert html_of(root, "dashboard/figures/?span=24h").count("automate-chart") == 4
    assert html_of(root, "dashboard/?span=24h").count("automate-chart") == 4


def test_the_dashboard_tells_of_workflows(alias, kernel, root):
    kernel.action("shop.fail")(lambda: 1 / 0)
    kernel.add_workflow(
        {
            "name": "will-fail",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "shop.fail"}],
        }
    )
    kernel.start("will-fail")
    kernel.run_until_idle()
    html = html_of(root, "dashboard/")

    assert "By workflow, last hour" in html
    assert "status=FAILED&amp;workflow=will-fail" in html
    assert 'data-label="Failed" class="automate-right">1<' in html


def test_a_worker_that_cant_begin_is_told(alias, kernel, root):
    problem = "a worker process ended with exit code 3, 4 times in a row"
    kernel.outbox.report(
        WorkerInfo("h-1-supervisor", "host-7", 1, None, None, problem=problem), ActivityLog()
    )
    for page in ("dashboard/", "workers/"):
        assert problem in html_of(root, page)
    assert "No worker is running" in html_of(root, "dashboard/")


def test_an_empty_dashboard_says_that_no_worker_runs(kernel, root):
    html = html_of(root, "dashboard/")

    assert "No worker is running" in html
    assert "Nothing in this time" in html


# -- markup: nothing that a strict policy forbids --------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "", "?slice=due", "?slice=running", "?slice=all", "?slice=failed&kind=nothing", "figures/",
        "dashboard/", "dashboard/figures/", "kinds/", "kinds/?kind=k", "workers/", "workers/list/",
        "plugins/", "ITEM/change/", "ITEM/history/",
    ],
)  # fmt: skip
def test_no_page_holds_what_a_strict_policy_forbids(kernel, root, fail, alive, path, markup_of):
    (item_id,) = fail(payload={"n": 1})
    alive(minutes=5)
    kernel.outbox.pause("k", "why not")

    markup = markup_of(html_of(root, path.replace("ITEM", item_id)))
    assert markup.wrong == []
    assert len(markup.ids) == len(set(markup.ids))


def test_the_pages_in_between_hold_none_of_it_either(kernel, root, fail, monkeypatch, markup_of):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 1)
    ids = fail(n=3)
    asked = root.post(f"{BASE}order/", {"order": "discard", "id": ids})
    going = root.post(
        f"{BASE}order/", {"order": "retry", "scope": "all", "slice": "failed", "sure": "yes"}
    )
    for answer in (asked, going):
        assert answer.status_code == 200
        assert markup_of(answer.content.decode()).wrong == []


def test_a_page_that_shows_counts_of_a_large_table_waits_for_none(kernel, root, fail, monkeypatch):
    from automate_django import outbox_counts

    fail(n=2)
    monkeypatch.setattr(outbox_counts, "CHEAP_ROWS", -1)
    monkeypatch.setattr(outbox_counts, "_SHORTEST", 600.0)  # more than a busy machine needs
    assert "are being counted" in html_of(root, "")
    assert "data-now" in html_of(root, "")
    assert "<strong>2</strong>" in html_of(root, "figures/")  # the script's request counts
    assert "<strong>2</strong>" in html_of(root, "")  # and from then on a page has the count
    fail(n=1)
    assert "<strong>2</strong>" in html_of(root, "figures/")  # not oftener than it is cheap
    root.post(f"{BASE}kinds/steer/", {"what": "pause", "kind": "k"})
    assert "<strong>3</strong>" in html_of(root, "figures/")  # but after an order, at once


def test_kinds_of_a_large_table_keep_their_counts(kernel, root, fail, monkeypatch):
    """Pausing one kind neither forgets the others nor shows what was not counted as zero."""
    from automate_django import outbox_counts

    monkeypatch.setattr(outbox_counts, "CHEAP_ROWS", 0)
    fail("slack.post", 3)
    kernel.outbox.enqueue("mail.send")
    kernel.outbox.pause("report.make")

    def shown() -> dict[str, list[str]]:
        found = {}
        for row in root.get(f"{BASE}kinds/").content.decode().split("<tr")[2:]:
            cells = re.findall(
                r'data-label="(?:Waiting|Running|Failed|Completed)"[^>]*>(.*?)</td>', row
            )
            kind = re.search(r"kind=([a-z.]+)\"><strong>", row)
            if kind is not None:
                found[kind[1]] = [re.sub("<.*?>", "", cell) for cell in cells]
        return found

    before = shown()
    assert before["mail.send"] == before["report.make"] == ["–"] * 4
    root.get(f"{BASE}kinds/?count=now")
    counted = shown()
    assert counted["slack.post"] == ["0", "0", "3", "0"]
    assert counted["mail.send"] == ["1", "0", "0", "0"]
    root.post(f"{BASE}kinds/steer/", {"what": "pause", "kind": "mail.send"})
    assert shown() == counted
    outbox_counts.forget_counts()
    assert shown() == counted


def test_without_a_script_the_counts_are_a_link_away(kernel, root, fail, monkeypatch):
    from automate_django import outbox_counts

    fail(n=2)
    monkeypatch.setattr(outbox_counts, "CHEAP_ROWS", -1)
    assert 'href="?count=now"' in html_of(root, "")
    assert "<strong>2</strong>" in html_of(root, "?count=now")
