"""The outbox page: what it lists, how it finds it, and what its orders do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone, translation

BASE = "/admin/automate_django/outboxitem/"
LISTED = re.compile(r'name="id" value="([0-9a-f-]{36})"|/outboxitem/([0-9a-f-]{36})/change/')


def listed(html: str) -> list[str]:
    return list(dict.fromkeys(a or b for a, b in LISTED.findall(html)))


def post(client: Any, name: str, ids: Any = (), **data: Any) -> Any:
    return client.post(f"{BASE}order/", {"order": name, "id": ids, **data})


def progress(answer: Any) -> str:
    return re.search(r'name="progress" value="([^"]+)"', answer.content.decode())[1]


def statuses(kernel: Any, ids: list[str]) -> list[str]:
    return [str(kernel.outbox.get(item_id).status) for item_id in ids]


# -- looking ---------------------------------------------------------------------------------------


def test_each_slice_lists_its_items(alias, kernel, root, fail):
    outbox = kernel.outbox
    failed = fail()
    due = outbox.enqueue("mail.send")
    later = outbox.enqueue("mail.send", delay=3600)
    running = outbox.enqueue("run.me")
    cancelled = outbox.enqueue("no.more")
    done = outbox.enqueue("done.one")
    outbox.claim_batch("w", 1, kinds=["run.me"])
    (claimed,) = outbox.claim_batch("w", 1, kinds=["done.one"])
    outbox.mark_success(claimed.id, "w")
    outbox.cancel([cancelled])

    wanted = {
        "failed": failed, "due": [due], "later": [later], "running": [running],
        "cancelled": [cancelled], "done": [done],
        "all": [done, cancelled, running, later, due, *failed], "held": [],
    }  # fmt: skip
    for name, ids in wanted.items():
        html = root.get(f"{BASE}?slice={name}").content.decode()
        assert listed(html) == ids, name


def test_items_of_a_paused_kind_are_shown_as_held_back(alias, kernel, root):
    item_id = kernel.outbox.enqueue("mail.send")
    kernel.outbox.pause("mail.send", "the provider is down")
    kernel.outbox.claim_batch("w", 10)

    assert listed(root.get(f"{BASE}?slice=held").content.decode()) == [item_id]


@pytest.mark.parametrize("name", ["failed", "due", "later", "all", "cancelled"])
def test_pages_follow_each_other_without_gap_or_repetition(alias, kernel, root, fail, name):
    outbox = kernel.outbox
    if name == "failed":
        ids = fail(n=120)
    else:
        from automate_kernel.outbox import NewItem

        run_at = timezone.now() + timedelta(hours=1) if name == "later" else None
        # Many with the same due time: there the order is by id.
        ids = outbox.enqueue_many(
            [
                NewItem(f"k{i % 3}", run_at=run_at, tenant_id="acme" if i % 2 else None)
                for i in range(120)
            ]
        )
        if name == "cancelled":
            outbox.cancel(ids)

    seen: list[str] = []
    query = f"?slice={name}"
    for _ in range(5):
        html = root.get(BASE + query).content.decode()
        seen += listed(html)
        following = re.search(r'href="(\?[^"]*)" rel="next"', html)
        if not following:
            break
        query = following[1].replace("&amp;", "&")
    assert sorted(seen) == sorted(ids)
    assert len(seen) == len(set(seen))


def test_a_rare_item_is_found_stretch_by_stretch(alias, kernel, root, fail, monkeypatch):
    from automate_django.admin.pages import outbox

    monkeypatch.setattr(outbox, "LOOK", 10)
    monkeypatch.setattr(outbox, "PATIENCE", 0.0)
    (needle,) = fail("rare.kind")
    fail("slack.post", 25)

    found, query, pages = [], {"slice": "failed", "kind": "rare.kind"}, 0
    while True:
        page = root.get(BASE, query).context_data["found"]
        found += [item.id for item in page.items]
        query, pages = {**query, "after": page.after}, pages + 1
        if not page.after:
            break
        assert page.looked == 10
    assert found == [needle]
    assert pages == 3


def test_a_page_looks_on_while_it_has_found_nothing(alias, kernel, root, fail, monkeypatch):
    """A kind whose completed items are older than many others is not told to have none."""
    from automate_django.admin.pages import outbox

    monkeypatch.setattr(outbox, "LOOK", 10)
    done = [kernel.outbox.enqueue("old.kind") for _ in range(3)]
    for item in kernel.outbox.claim_batch("w", 3):
        kernel.outbox.mark_success(item.id, "w")
    fail("slack.post", 45)

    def read(patience: float) -> Any:
        monkeypatch.setattr(outbox, "PATIENCE", patience)
        query = {"slice": "done", "kind": "old.kind"}
        return root.get(BASE, query).context_data["found"]

    assert [item.id for item in read(60.0).items] == done[::-1]
    # It ends when its time is up, and says how far it came.
    page = read(0.0)
    assert (page.items, page.looked, bool(page.after)) == ([], 10, True)


def test_filters_narrow_the_list(kernel, root, fail):
    timeouts, refused = fail(n=2), fail(code="UNAVAILABLE")
    mail = fail("mail.send", tenant_id="acme")

    def shown(query: str) -> set[str]:
        return set(listed(root.get(f"{BASE}?slice=failed&{query}").content.decode()))

    assert shown("kind=mail.send") == set(mail)
    assert shown("code=UNAVAILABLE") == set(refused)
    assert shown("tenant=acme") == set(mail)
    assert shown("kind=slack.post&code=TIMEOUT") == set(timeouts)
    assert shown("kind=%00&code=") == {*timeouts, *refused, *mail}
    assert shown("kind=nothing") == set()
    answer = root.get(f"{BASE}?id={mail[0]}")
    assert answer.status_code == 302
    assert mail[0] in answer.url


def test_a_made_up_cursor_is_no_page(root, kernel):
    assert root.get(f"{BASE}?after=nonsense").status_code == 404


def test_failed_items_are_gathered_by_error_and_kind(alias, kernel, root, fail):
    fail("slack.post", 7)
    fail("mail.send", 2, code="UNAVAILABLE")

    html = root.get(BASE).content.decode()
    groups = re.findall(
        r'href="([^"]*)"><strong class="automate-number">(\d+)</strong> × <strong>(\w+)</strong> of ([\w.]+)',
        html,
    )
    assert [group[1:] for group in groups] == [
        ("7", "TIMEOUT", "slack.post"),
        ("2", "UNAVAILABLE", "mail.send"),
    ]
    html = root.get(groups[1][0].replace("&amp;", "&")).content.decode()
    assert len(listed(html)) == 2


# -- cost ------------------------------------------------------------------------------------------

INDEXES = {
    "failed": {"automate_outbox_failed"},
    "due": {"automate_outbox_ready", "automate_outbox_shared"},
    "later": {"automate_outbox_later"},
    "running": {"automate_outbox_lease"},
}


@pytest.mark.parametrize("name", [*INDEXES, "all", "held", "done"])
@pytest.mark.parametrize("query", ["", "&kind=rare.kind&code=TIMEOUT"])
def test_a_list_counts_nothing_and_reads_along_an_index(
    alias, kernel, root, fail, name, query, monkeypatch
):
    from automate_django import outbox_counts

    monkeypatch.setattr(outbox_counts, "CHEAP_ROWS", -1)  # as in a large table
    fail(n=60)
    kernel.outbox.enqueue("mail.send")
    connection = connections[alias]

    with CaptureQueriesContext(connection) as captured:
        html = root.get(f"{BASE}?slice={name}{query}").content.decode()

    statements = [one["sql"] for one in captured if re.search(r"automate_outbox\b", one["sql"])]
    assert "are being counted" in html
    assert len(statements) <= 5
    for statement in statements:
        assert "COUNT(" not in statement.upper()
        assert "OFFSET" not in statement.upper() or "LIMIT 1 OFFSET" in statement
    assert not any("payload" in one for one in statements)
    pages = [one for one in statements if one.startswith("SELECT")]
    plans = [plan(connection, one) for one in pages if "ORDER BY" in one]
    assert plans
    for one in plans:
        assert "Seq Scan" not in one
        assert not re.search(r"SCAN automate_outbox(?! USING)", one), one
        if name in INDEXES and not query:
            assert any(index in one for index in INDEXES[name]), one


def plan(connection: Any, statement: str) -> str:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Whether it can be served by an index, however few rows there are.
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_sort = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute(f"EXPLAIN {statement}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def test_the_number_of_queries_does_not_grow_with_the_items(kernel, root, fail):
    connection = connections["default"]

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert root.get(BASE).status_code == 200
        return len(captured)

    fail(n=1)
    few = queries()
    fail(n=49)
    assert queries() == few


# -- one item --------------------------------------------------------------------------------------


def test_an_item_shows_its_error_its_timeline_and_its_payload(kernel, root):
    item_id = kernel.outbox.enqueue("slack.post", {"n": 7}, max_attempts=3, priority=2)
    for _ in range(3):
        (item,) = kernel.outbox.claim_batch("worker-a", 1)
        kernel.outbox.mark_retry(item.id, "worker-a", 0.0, "TIMEOUT", "line one\nline two")
        kernel.outbox.reschedule([item_id])

    html = root.get(f"{BASE}{item_id}/change/").content.decode()
    assert "line one\nline two" in html
    assert "Given up at attempt 3 of 3" in html
    for attempt in (1, 2):
        assert f"Attempt {attempt} failed" in html
    assert "&quot;n&quot;: 7" in html
    assert "priority 2" in html


EVIL = "<script>alert(1)</script>"


def test_text_from_outside_is_text_on_every_page(kernel, root, fail):
    (item_id,) = fail(
        EVIL, code="</b><img src=x>", error=f"{EVIL}\n{EVIL}", payload={EVIL: EVIL}, tenant_id=EVIL
    )
    kernel.outbox.pause(EVIL, EVIL)

    paths = ["", "figures/", f"{item_id}/change/", "kinds/", "dashboard/", "workers/"]
    paths.append(f"?slice=all&kind={EVIL}&code={EVIL}&tenant={EVIL}")
    for path in paths:
        html = root.get(BASE + path).content.decode()
        assert EVIL not in html, path
        assert "<img src=x>" not in html
    html = post(root, "discard", [item_id]).content.decode()
    assert "&lt;script&gt;" in html
    assert EVIL not in html


def test_secrets_are_not_shown(kernel, root, fail):
    value = kernel.secrets.get("CHAT_TOKEN") if hasattr(kernel.secrets, "get") else "tok-51d0"
    kernel.redactor.add("tok-51d0")
    assert "tok-51d0" in str(value)
    (item_id,) = fail(
        error="401: bad token tok-51d0",
        payload={
            "echo": "Bearer tok-51d0",
            "api_key": "sk-live-9",
            "deep": [{"password": "hunter2"}],
        },
    )

    for path in ("", f"{item_id}/change/"):
        html = root.get(BASE + path).content.decode()
        for secret in ("tok-51d0", "sk-live-9", "hunter2"):
            assert secret not in html
    assert "[hidden]" in html


def test_a_huge_payload_is_cut_and_says_so(kernel, root):
    item_id = kernel.outbox.enqueue("big", {"text": "x" * 500_000})

    answer = root.get(f"{BASE}{item_id}/change/")
    assert len(answer.content) < 60_000
    assert "The first 20,000 of 500," in answer.content.decode()


# -- orders ----------------------------------------------------------------------------------------


def test_one_failed_item_is_retried_at_once_and_that_is_written_down(alias, kernel, root, fail):
    from automate_django.models import AuditEntry

    ids = fail(n=2, tenant_id="acme")
    answer = post(root, "retry", ids[:1], **{"from": "item"})

    assert answer.status_code == 302
    assert ids[0] in answer.url
    assert statuses(kernel, ids) == ["PENDING", "FAILED"]
    (entry,) = AuditEntry.objects.all()
    assert (entry.action, entry.object_id, entry.tenant_id) == ("retry", ids[0], "acme")
    assert entry.actor == root.user.username


def test_several_are_asked_about_first(alias, kernel, root, fail):
    ids = fail(n=3)
    page = post(root, "retry", ids[:2]).content.decode()

    assert "Retry 2 items?" in page
    assert "They wait for a worker again" in page
    assert statuses(kernel, ids) == ["FAILED"] * 3
    answer = post(root, "retry", ids[:2], sure="yes")
    assert answer.status_code == 302
    assert statuses(kernel, ids) == ["PENDING", "PENDING", "FAILED"]
    assert "2 items put back to wait." in root.get(answer.url).content.decode()


def test_what_cannot_be_undone_is_asked_about_even_for_one(alias, kernel, root, fail):
    (item_id,) = fail()

    assert "undone" in post(root, "discard", [item_id]).content.decode()
    assert kernel.outbox.get(item_id) is not None
    post(root, "discard", [item_id], sure="yes")
    assert kernel.outbox.get(item_id) is None


def test_all_that_a_filter_finds_are_retried_and_no_others(alias, kernel, root, fail):
    from automate_django.models import AuditEntry

    mine, others = fail(n=30), fail("mail.send", 5)
    asked = {"scope": "all", "slice": "failed", "kind": "slack.post", "code": "TIMEOUT"}
    page = post(root, "retry", **asked).content.decode()

    assert "All <strong>30</strong> failed items of slack.post with TIMEOUT" in page
    answer = post(root, "retry", **asked, sure="yes")
    assert answer.status_code == 302
    assert set(statuses(kernel, mine)) == {"PENDING"}
    assert set(statuses(kernel, others)) == {"FAILED"}
    begun, ended = AuditEntry.objects.order_by("id")
    assert begun.object_repr.startswith("begun: 30")
    assert ended.object_repr.startswith("ended: 30 of 30")
    assert begun.details["filter"]["kind"] == "slack.post"


def test_a_large_order_goes_on_request_by_request_and_takes_each_item_once(
    alias, kernel, root, fail, monkeypatch
):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 10)
    ids = fail(n=25)
    answer = post(root, "retry", scope="all", slice="failed", sure="yes")
    steps = 1
    while answer.status_code == 200:
        assert f"<strong>{steps * 10}</strong> of <strong>25</strong>" in answer.content.decode()
        if steps == 1:
            # It fails again, at once, and is not taken again for that.
            for item in kernel.outbox.claim_batch("w", 10):
                kernel.outbox.mark_failed(item.id, "w", "TIMEOUT")
        answer = root.post(f"{BASE}orders/", {"progress": progress(answer)})
        steps += 1
    assert steps == 3
    assert statuses(kernel, ids).count("FAILED") == 10
    assert "25 items put back to wait." in root.get(answer.url).content.decode()


def test_items_that_fail_after_the_order_was_given_are_not_its_business(
    alias, kernel, root, fail, monkeypatch
):
    from automate_kernel.workflows.steer import bulk_runner
    from automate_kernel.outbox import operator_commands

    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    monkeypatch.setattr(operator_commands, "BATCH", 1)
    fail(n=2)
    answer = post(root, "discard", scope="all", slice="failed", sure="yes")
    late = fail()
    while answer.status_code == 200:
        answer = root.post(f"{BASE}orders/", {"progress": progress(answer)})
    assert listed(root.get(BASE).content.decode()) == late


def test_retried_items_come_back_at_the_rate_that_was_asked_for(alias, kernel, root, fail):
    ids = fail(n=9)
    post(root, "retry", scope="all", slice="failed", sure="yes", per_second="3")

    due = sorted(kernel.outbox.get(item_id).next_attempt_at for item_id in ids)
    first = due[0]
    offsets = [int((moment - first).total_seconds() + 0.01) for moment in due]
    assert offsets == [0, 0, 0, 1, 1, 1, 2, 2, 2]


_GROUPED = re.compile(r'(?:value|data-every|min|max|step)="([0-9]+[.,][0-9]{3}[^"]*)"')


@pytest.mark.parametrize("language", ["en-us", "de"])
def test_numbers_for_programs_are_the_same_in_every_language(kernel, root, fail, language):
    """`1.000` a second would be one, `1,000` all at once, and `5.000` ms as fast as can be."""
    fail()
    item_id, other_id = (kernel.outbox.enqueue("k") for _ in range(2))
    with (
        override_settings(USE_THOUSAND_SEPARATOR=True, LANGUAGE_CODE=language),
        translation.override(language),
    ):
        shown = [
            post(root, "retry", scope="all", slice="failed"),
            post(root, "reschedule", [item_id, other_id], slice="due"),
            *(root.get(f"{BASE}{path}") for path in ("", "dashboard/", f"{item_id}/change/")),
        ]
    for page in shown:
        assert page.status_code == 200
        assert _GROUPED.findall(page.content.decode()) == []


def test_waiting_items_are_rescheduled_and_cancelled(alias, kernel, root):
    from automate_kernel.outbox import NewItem

    ids = kernel.outbox.enqueue_many([NewItem("k") for _ in range(3)])
    post(root, "reschedule", ids[:1], delay="3600", slice="due")
    assert kernel.outbox.get(ids[0]).next_attempt_at > timezone.now() + timedelta(minutes=50)

    post(root, "cancel", scope="all", slice="due", sure="yes")
    assert statuses(kernel, ids) == ["PENDING", "CANCELLED", "CANCELLED"]


def test_a_running_item_is_asked_to_stop(alias, kernel, root):
    item_id = kernel.outbox.enqueue("k")
    kernel.outbox.claim_batch("worker-a", 1)

    post(root, "cancel", [item_id], sure="yes", slice="running")
    assert kernel.outbox.get(item_id).waiting_for == "cancel"
    assert "asked to stop" in root.get(f"{BASE}{item_id}/change/").content.decode()


@pytest.mark.parametrize(
    "data",
    [
        {"order": "destroy"},
        {"order": ""},
        {"order": "retry", "scope": "all", "slice": "all", "sure": "yes"},
        {"order": "retry", "scope": "all", "slice": "due", "sure": "yes"},
        {"order": "discard", "scope": "all", "slice": "done", "sure": "yes"},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(kernel, root, fail, data):
    ids = fail(n=2)

    assert root.post(f"{BASE}order/", data).status_code == 400
    assert set(statuses(kernel, ids)) == {"FAILED"}


@pytest.mark.parametrize("delay", ["nan", "inf", "-5", "1e30", "x"])
def test_an_absurd_delay_is_none(kernel, root, delay):
    item_id = kernel.outbox.enqueue("k")

    assert post(root, "reschedule", [item_id], delay=delay).status_code == 302
    assert kernel.outbox.get(item_id).next_attempt_at < timezone.now() + timedelta(minutes=1)


def test_items_of_a_time(alias, kernel, root):
    """The list and a bulk action take the same span; an unknown one counts as left out."""
    from automate_django.models import OutboxItem

    one, two = (kernel.outbox.enqueue("aged", {"n": n}) for n in range(2))
    old = timezone.now() - timedelta(days=3)
    OutboxItem.objects.using(alias).filter(pk=one).update(created_at=old)
    for since, expected in (("24h", {two}), ("7d", {one, two}), ("nonsense", {one, two})):
        html = root.get(BASE, {"slice": "due", "kind": "aged", "since": since}).content.decode()
        assert set(listed(html)) == expected
    chosen = {"scope": "all", "slice": "due", "kind": "aged", "since": "24h"}
    assert b"accepted in the last 24 hours" in post(root, "cancel", **chosen).content
    post(root, "cancel", **chosen, sure="yes")
    assert statuses(kernel, [one, two]) == ["PENDING", "CANCELLED"]
