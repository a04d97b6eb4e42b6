"""The deliveries that are kept: refusals of a bounded number, and what a redelivery starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from automate_kernel import AutomateError, Connector, ErrorCodes, Kernel, TriggerSpec
from automate_kernel.base.errors import WebhookRejectedError
from automate_kernel.storage.rows import queries
from automate_kernel.storage.tables import DELIVERY, REFUSED_DELIVERY
from automate_kernel.triggers.webhooks import GitHubSignature, Ignored
from automate_kernel.triggers.webhooks.deliveries import REDELIVERY_LABEL
from automate_kernel.triggers.webhooks.refusals import MOST_REASONS, RefusedDeliveries
from automate_testing.clock import FakeClock

SECRET = "hunter2-of-the-hub"
SCHEME = GitHubSignature("HOOK")


class Hub(Connector):
    """A service that sends pushes and pings."""

    key = "hub"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [
            TriggerSpec("push", signature=SCHEME, delivery_id_header="X-Id"),
            TriggerSpec("open", signature=SCHEME, replay_guard="off"),
        ]

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        body = json.loads(raw_body)
        if body == "ping":
            return Ignored("a ping")
        if body == "broken":
            raise ValueError(f"the key is {SECRET}")
        return body


@pytest.fixture
def kernel(clocked_storage: Any) -> Iterator[Kernel]:
    with Kernel(clocked_storage, plugins=[Hub], secrets={"HOOK": SECRET}, discover=False) as made:

        @made.action("note")
        def note(of: Any) -> Any:
            return of

        made.add_workflow(
            {
                "name": "build",
                "trigger": {"type": "webhook", "connector": "hub", "trigger": "push"},
                "steps": [{"id": "note", "action": "note", "input": {"of": "{{ event.payload }}"}}],
            }
        )
        yield made


def send(kernel: Kernel, body: Any = 1, trigger: str = "push", secret: str = SECRET, id: str = "1",
         connector: str = "hub", **options: Any) -> Any:  # fmt: skip
    raw = json.dumps(body).encode()
    headers = {**SCHEME.sign(raw, secret), "X-Id": id}
    return kernel.receive_webhook(connector, trigger, headers, raw, **options)


def kept(kernel: Kernel) -> dict[tuple[str, str, str], list[tuple[str, int]]]:
    found: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for each in kernel.deliveries.refused.all():
        names = each.connector, each.trigger, each.outcome
        found.setdefault(names, []).append((each.reason, each.times))
    return found


def test_what_starts_nothing_is_kept_with_its_reason(kernel: Kernel) -> None:
    """Never anything of a body that isn't proven, and no secret; names only of what there is."""
    send(kernel)
    send(kernel)
    send(kernel, "ping")
    with pytest.raises(AutomateError):
        send(kernel, "broken", id="2")
    for given in ({"secret": "wrong"}, {"secret": "wrong"}, {"trigger": "nosuch"},
                  {"connector": "strange"}):  # fmt: skip
        with pytest.raises(WebhookRejectedError):
            send(kernel, {"card": "4111"}, **given)
    found = kept(kernel)
    assert found["hub", "push", "repeated"] == [("it was accepted before", 1)]
    assert found["hub", "push", "ignored"] == [("a ping", 1)]
    ((proof, times),) = found["hub", "push", "refused"]
    assert (proof.startswith("not signed with HOOK"), times) == (True, 2)
    ((failure, _),) = found["hub", "push", "failed"]
    assert "ValueError" in failure
    assert "has no trigger 'nosuch'" in found["hub", "", "refused"][0][0]
    assert "'strange'" in found["", "", "refused"][0][0]
    with kernel.storage.begin() as rows:
        everything = json.dumps(rows.select(REFUSED_DELIVERY), default=str)
    assert SECRET not in everything
    assert "4111" not in everything
    only = kernel.deliveries.refused.all(connector="hub", outcome="ignored")
    assert [(each.connector, each.reason) for each in only] == [("hub", "a ping")]


def test_a_flood_costs_a_bounded_number_of_rows_and_writes(
    clocked_storage: Any, clock: FakeClock
) -> None:
    """However many reasons there are; alike ones are counted, the latest stay."""
    now = [0.0]
    log = RefusedDeliveries(clocked_storage, str, clock=lambda: now[0])
    before = queries.count
    for _ in range(10_000):
        log.note("hub", "push", "refused", "no header X")
    assert queries.count - before <= 30
    now[0] = 1.0
    log.note("hub", "push", "refused", "no header X")
    ((row,),) = [log.all()]
    assert row.times == 10_001
    for number in range(300):
        now[0] += 10
        clock.advance(10)
        log.note("hub", "push", "refused", f"{number} \x00 {'x' * 9_000}")
    left = log.all()
    assert len(left) == MOST_REASONS
    assert [each.reason.split()[0] for each in left] == [str(n) for n in range(299, 279, -1)]
    assert max(len(each.reason) for each in left) == 500
    log.note("hub", "open", "refused", "another trigger's")
    assert len(log.all()) == MOST_REASONS + 1


def test_a_refusal_is_written_in_the_transaction_that_is_given(kernel: Kernel) -> None:
    """On SQLite a write beside it would wait for it."""
    with kernel.storage.begin() as rows, pytest.raises(WebhookRejectedError):
        send(kernel, secret="wrong", transaction=rows.native)
    assert len(kept(kernel)) == 1


def test_a_database_that_is_away_changes_no_answer(kernel: Kernel) -> None:
    class Away:
        def begin(self, *_: Any, **__: Any) -> Any:
            raise OSError("no route")

        def joins(self, transaction: Any) -> bool:
            return False

    kernel.deliveries.refused._storage = Away()  # type: ignore[assignment]
    with pytest.raises(WebhookRejectedError):
        send(kernel, secret="wrong")


def test_a_redelivery_starts_once_more_what_listens(kernel: Kernel) -> None:
    """The same event under a new id; the first execution is left alone."""
    first = send(kernel, {"ref": "main"}, tenant_id="acme")
    kernel.run_until_idle()
    (delivery,) = kernel.deliveries.page().deliveries
    assert (delivery.item_id, delivery.redeliveries) == (first.item_id, 0)
    second = kernel.deliveries.redeliver(delivery.id, seen=0)
    with pytest.raises(AutomateError, match="redelivered meanwhile") as refused:
        kernel.deliveries.redeliver(delivery.id, seen=0)
    assert refused.value.code is ErrorCodes.FAILED_PRECONDITION
    kernel.run_until_idle()
    runs = kernel.executions.find(workflow="build")
    assert [(each.status.value, each.tenant_id) for each in runs] == [("COMPLETED", "acme")] * 2
    again, original = (kernel.outbox.get(each) for each in (second, first.item_id))
    assert again is not None and original is not None
    assert (again.payload, again.tenant_id) == (original.payload, "acme")
    assert again.labels == {REDELIVERY_LABEL: first.item_id}
    third = kernel.deliveries.redeliver(delivery.id)
    assert third not in (first.item_id, second)
    seen = kernel.deliveries.get(delivery.id)
    assert seen is not None and seen.redeliveries == 2 and seen.redelivered_at is not None


def test_what_is_gone_can_not_be_redelivered(kernel: Kernel) -> None:
    with pytest.raises(AutomateError) as unknown:
        kernel.deliveries.redeliver("x" * 5_000)
    assert unknown.value.code is ErrorCodes.NOT_FOUND
    send(kernel)
    kernel.run_until_idle()
    (delivery,) = kernel.deliveries.page().deliveries
    kernel.outbox.discard([delivery.item_id])
    with pytest.raises(AutomateError, match="was deleted") as gone:
        kernel.deliveries.redeliver(delivery.id)
    assert gone.value.code is ErrorCodes.FAILED_PRECONDITION


def test_accepted_deliveries_come_in_pages(kernel: Kernel, clock: FakeClock) -> None:
    """Those without a guard too, of one connector or of all."""
    for number in range(5):
        clock.advance(1)
        send(kernel, number, id=str(number), trigger="push" if number % 2 else "open")
    ids, after = [], ""
    while True:
        page = kernel.deliveries.page(after=after, limit=2, connector="hub")
        ids += [each.trigger for each in page.deliveries]
        after = page.after
        if not after:
            break
    assert ids == ["open", "push", "open", "push", "open"]
    assert kernel.deliveries.page(connector="other").deliveries == []
    with kernel.storage.begin() as rows:
        assert len(rows.select(DELIVERY)) == 7  # a signed push has two ids
