"""A crowd that fails at once, a huge backlog, and a snapshot that keeps dead rows alive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

import sqlalchemy as sa
from automate_kernel.outbox import ItemStatus, NewItem, Outcome, RowsOutboxStore
from fault_invariants import plain
from fault_scene import Scene


def test_a_crowd_that_fails_at_once(open_scene: Callable[..., Scene], full: bool) -> None:
    """
    While the other side of one kind is down, other kinds are done.

    All that failed can be put back with one call, and then each is done once.
    """
    scene = open_scene(30.0)
    count = 10_000 if full else 1_000
    broken = scene.ledger.switch("broken")
    broken.touch()
    crowd = scene.outbox.enqueue_many(NewItem("flaky", max_attempts=2) for _ in range(count))
    others = [scene.outbox.enqueue("job", {"seconds": 0}) for _ in range(50)]
    for _ in range(2):
        scene.start()
    scene.drain()
    claimed = places_of_claims(scene)
    last = max(claimed[plain(one)] for one in others)
    assert last < (2 * count + len(others)) / 2, "the failing ones held the others up"
    assert set(Counter(words[0] for words in scene.words("flaky")).values()) == {2}
    scene.check(others, failed=crowd)

    broken.unlink()
    scene.requeued.update(crowd)
    assert scene.outbox.requeue_matching(kind="flaky") == count
    scene.drain()
    told = scene.stop_all()
    assert sum(one["completed"] for one in told) == count + len(others)
    assert sum(one["failed"] for one in told) == count
    ended = Counter(words[0] for words in scene.words("end"))
    assert all(ended[item_id] == 1 for item_id in crowd)
    scene.check([*crowd, *others])


def test_a_backlog_starves_nobody(open_scene: Callable[..., Scene], full: bool) -> None:
    """
    A kind, or a tenant, with a huge backlog leaves the others their share.

    What has waited for long goes before what is new and more urgent.
    """
    scene = open_scene(30.0)
    count = 20_000 if full else 2_000
    now = datetime.now(timezone.utc)
    # Too long to run in place: where kinds run apart, each goes as fast as it can.
    short: dict[str, Any] = {"seconds": 0.001}
    backlog = scene.outbox.enqueue_many(NewItem("job", short, priority=1) for _ in range(count))
    fresh = scene.outbox.enqueue("job", short, priority=-3)
    # Due for longer than the four hours that four points of priority are worth.
    aged = scene.outbox.enqueue("job", short, priority=-3, run_at=now - timedelta(hours=5))
    others = [scene.outbox.enqueue("other", short) for _ in range(20)]
    tenants = [scene.outbox.enqueue("job", short, tenant_id="small") for _ in range(20)]
    scene.start()
    scene.drain()
    scene.stop_all()
    scene.check([*backlog, fresh, aged, *others, *tenants])
    place = places_of_claims(scene)
    assert max(place[plain(one)] for one in (*others, *tenants, aged)) < count / 4
    assert place[plain(fresh)] > count * 0.9


def places_of_claims(scene: Scene) -> dict[str, int]:
    """
    How many claims of items came before the last one of each.

    Of the claims: on a busy machine a thread may stand still between its item and the first line.
    """
    claims = scene.rows("SELECT item FROM history WHERE after = 'RUNNING' ORDER BY id")
    return {plain(claim.item): number for number, claim in enumerate(claims)}


def test_a_claim_under_an_old_snapshot(open_postgresql: Callable[..., Scene], full: bool) -> None:
    """
    A session that keeps an old snapshot open keeps dead rows in the table.

    Claims stay right, need no more statements, and read a bounded part of what died.
    """
    scene = open_postgresql(600.0)
    rounds = 60 if full else 12
    before = churn(scene, 3)
    with scene.engine.connect() as old:
        old.execution_options(isolation_level="REPEATABLE READ")
        seen = old.exec_driver_sql("SELECT count(*) FROM automate_outbox").scalar()
        during = churn(scene, rounds)
        assert old.exec_driver_sql("SELECT count(*) FROM automate_outbox").scalar() == seen
        scene.check([])
        assert median(during) <= median(before), "claims need more statements"
        assert max(during) <= max(before) + 2, "some claims need more statements"
        blocks = blocks_of_a_claim(scene)
    died = rounds * 250
    # An index entry of a row that is dead for all but the old snapshot is looked at once a version.
    assert blocks < died * 4, (blocks, died)


def churn(scene: Scene, rounds: int) -> list[int]:
    """Let 250 items a round through the outbox; returns how many statements each claim took."""
    # Pauses and limits are looked up by the clock, which is none of what is counted here.
    outbox = RowsOutboxStore(scene.kernel.storage, lease_seconds=600.0, control_seconds=600.0)
    counts: list[int] = []
    for _ in range(rounds):
        accepted = outbox.enqueue_many(NewItem("job") for _ in range(250))
        claimed: list[str] = []
        while len(claimed) < 250:
            with counting(scene) as statements:
                items = outbox.claim_batch("w", 100, kinds=["job"])
            counts.append(len(statements))
            claimed += [item.id for item in items]
            done = [Outcome(item.id, token=item.lease_token) for item in items]
            assert outbox.acknowledge("w", done) == set()
        assert sorted(claimed) == sorted(accepted)
    return counts


class counting:
    """The statements that the scene's own engine runs in the block."""

    def __init__(self, scene: Scene) -> None:
        self._engine = scene.engine
        self._said: list[tuple[str, Any]] = []

    def _note(self, _: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        self._said.append((statement, parameters))

    def __enter__(self) -> list[tuple[str, Any]]:
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        return self._said

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._note)


def blocks_of_a_claim(scene: Scene) -> int:
    """How many blocks the statements of a claim read, of one item."""
    item_id = scene.outbox.enqueue("job")
    with counting(scene) as statements:
        [item] = scene.outbox.claim_batch("w", 100, kinds=["job"])
    assert item.id == item_id
    scene.outbox.release([item_id], "w")
    blocks = 0
    for statement, parameters in statements:
        if not statement.lstrip().upper().startswith(("SELECT", "UPDATE", "WITH")):
            continue
        with scene.engine.connect() as connection:  # and roll back
            explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
            told = connection.exec_driver_sql(explain + statement, parameters).scalar()
        plan = (told if isinstance(told, list) else json.loads(told))[0]["Plan"]
        blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert scene.outbox.get(item_id).status is ItemStatus.PENDING
    return blocks
