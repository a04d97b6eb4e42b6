"""A volume of executions, items and statistics, as a busy installation has after a month."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from automate_kernel import Kernel
from automate_kernel.outbox.causes import note_causes
from automate_kernel.outbox.labels import label_rows
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.rows import Row, write
from automate_kernel.storage.tables import (
    ACTIVITY,
    APPROVER,
    EXECUTION,
    EXECUTION_ACTIVITY,
    FAILURE,
    LABEL,
    OUTBOX,
    STEP,
    WAIT,
    WORKER,
)
from automate_kernel.workflows.decide.waits import wait_id
from automate_kernel.workflows.store.signal_store import approver_rows

_CHUNK = 5_000
_DAYS = 30
_STEPS = ("read", "check", "charge", "ship", "tell")
WORKFLOWS = tuple(f"workflow-{number:02}" for number in range(22))
"""The first has 40 % of the executions, the second 20 %, the last one nearly none."""
KINDS = tuple(f"kind-{number:02}" for number in range(12))
"""The first has half of the items."""
REGIONS = {"north": 0.8, "south": 0.15, "east": 0.049, "west": 0.001}
"""The values of a label that every execution has, and their shares."""
CAUSES = tuple(
    (f"{name}", f"{error} in shop.{place}")
    for name, error, place in (
        ("UNAVAILABLE", "ConnectTimeout", "stock.reserve"),
        ("INTERNAL", "KeyError", "prices.of"),
        ("INVALID_ARGUMENT", "ValueError", "orders.check"),
        ("PERMISSION_DENIED", "HTTPError", "cards.charge"),
        ("DEADLINE_EXCEEDED", "TimeoutError", "parcels.label"),
        ("INTERNAL", "ZeroDivisionError", "discounts.share"),
    )
)
"""The causes of failures: code and group."""
_WORKERS = tuple(f"worker-{number}" for number in range(4))
_TRACE = 'File "shop/steps.py", line 42, in charge\n    return cards.charge(order, amount)\n' * 5
_ADVANCE = JsonText(json.dumps({"execution_id": "0" * 36}))
_RESULT = JsonText(json.dumps({"ok": True, "lines": [{"sku": f"A-{n}"} for n in range(8)]}))
_ASKED = ("role:finance", "role:legal", *(f"person-{number}" for number in range(50)))


def _text_id(moment: datetime, number: int, sort: int) -> str:
    """Return a UUID of version 7 that *number* and *sort* make unlike all others."""
    at = int(moment.timestamp() * 1000)
    return f"{at >> 16:08x}-{at & 0xFFFF:04x}-7{number & 0xFFF:03x}-8{sort:03x}-{number:012x}"


def definition(name: str) -> dict[str, Any]:
    """Return the workflow called *name*."""
    return {
        "name": name,
        "trigger": {"type": "event", "event": f"{name}.begun"},
        "steps": [{"id": step, "action": "shop.step", "needs": []} for step in _STEPS],
    }


@dataclass
class Volume:
    """
    Rows for the tables of *kernel*, the same for one *seed* but for the time at which they end.

    With *scale* 1 it has 1,000,000 executions with 5,000,000 steps and 2,000,000 labels, of which
    50,000 failed; 300,000 items, of which 40,000 failed; and a week of statistics by minute.
    """

    kernel: Kernel
    scale: float = 1.0
    seed: int = 1
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._now = self.kernel.outbox.now().replace(microsecond=0)
        self._definitions: dict[str, str] = {}

    @property
    def filled(self) -> bool:
        """True if the tables hold it already."""
        with self.kernel.storage.begin() as rows:
            return bool(rows.select(EXECUTION, limit=1, columns=("id",)))

    def fill(self, report: Callable[[str], object]) -> None:
        """Write all rows, and *report* each table."""
        for name in WORKFLOWS:
            self._definitions[name] = self.kernel.workflows.get(name).hash()
            self.kernel.start(name, {}, labels={"order": "first"})
        parts: dict[str, Callable[[], Iterator[dict[str, list[Row]]]]] = {
            "executions": self._executions,
            "items": self._items,
            "statistics": partial(self._statistics, EXECUTION_ACTIVITY, WORKFLOWS),
            "statistics of items": partial(self._statistics, ACTIVITY, KINDS),
            "workers": self._workers,
        }
        for name, part in parts.items():
            count = 0
            for tables in part():
                with self.kernel.storage.begin() as rows:
                    for table, some in tables.items():
                        count += rows.insert(table, some, fresh=True)
            report(f"{name}: {count:,} rows")
        while self.kernel.executions.roll_up_activity():
            pass
        write(self.kernel.storage, None, note_causes)
        report("causes and the history of executions")

    def _size(self, whole: int) -> int:
        return max(1, int(whole * self.scale))

    def _tenant(self) -> str | None:
        draw = self._chance.random()
        if draw < 0.3:
            return None
        return "tenant-0" if draw < 0.65 else f"tenant-{self._chance.randrange(1, 200)}"

    def _of(self, names: tuple[str, ...], first: float, second: float) -> str:
        draw = self._chance.random()
        if draw < first:
            return names[0]
        if draw < first + second:
            return names[1]
        if draw > 0.9999:
            return names[-1]
        return names[self._chance.randrange(2, len(names) - 1)]

    # -- executions ------------------------------------------------------------------------------

    def _executions(self) -> Iterator[dict[str, list[Row]]]:
        count, approvals = self._size(1_000_000), self._size(2_000)
        every = timedelta(days=_DAYS) / count
        ids: list[str] = []
        tables: dict[str, list[Row]] = {}
        for number in range(count):
            created = self._now - every * (count - number)
            execution_id = _text_id(created, number, 0)
            live = number >= count - approvals * 2
            parent = (
                self._chance.choice(ids[-20:]) if ids and self._chance.random() < 0.05 else None
            )
            row = self._execution(execution_id, created, parent, live=live)
            tables.setdefault(EXECUTION, []).append(row)
            tables.setdefault(STEP, []).extend(self._steps(row, number))
            region = self._chance.choices(tuple(REGIONS), tuple(REGIONS.values()))[0]
            labels = {"order": str(number), "region": region}
            tables.setdefault(LABEL, []).extend(
                label_rows(execution_id, "execution", labels, row["tenant_id"], created)
            )
            if row["status"] == "FAILED":
                tables.setdefault(FAILURE, []).append(_failure(row, number, "charge"))
            if live and number % 2:
                wait = self._wait(row, number)
                tables.setdefault(WAIT, []).append(wait)
                tables.setdefault(APPROVER, []).extend(approver_rows(wait))
            ids = [*ids[-20:], execution_id]
            if number % _CHUNK == _CHUNK - 1:
                yield tables
                tables = {}
        if tables:
            yield tables

    def _execution(
        self, execution_id: str, created: datetime, parent: str | None, *, live: bool
    ) -> Row:
        name = self._of(WORKFLOWS, 0.4, 0.2)
        draw = self._chance.random()
        # The third never failed.
        status = "FAILED" if draw < 0.0525 and name != WORKFLOWS[2] else "COMPLETED"
        if 0.9 < draw < 0.91:
            status = "CANCELLED"
        if live:
            status = "RUNNING" if draw < 0.9 else "PENDING" if draw < 0.99 else "PAUSED"
        ended = None if live else created + timedelta(seconds=1 + 20 * self._chance.random())
        code, group = self._chance.choices(CAUSES, (50, 25, 12, 8, 4, 1))[0]
        failed = status == "FAILED"
        event = {
            "id": execution_id, "name": f"{name}.begun", "type": "event",
            "payload": {"order": execution_id, "amount": 5, "lines": ["tea", "mugs"]},
        }  # fmt: skip
        return {
            "id": execution_id, "workflow": name, "definition_id": self._definitions[name],
            "status": status, "event": JsonText(json.dumps(event)),
            "output": _RESULT if status == "COMPLETED" else None,
            "tenant_id": self._tenant(), "item_id": execution_id,
            "error_code": code if failed else None,
            "error": f"{group.split()[0]}: order {execution_id}" if failed else None,
            "error_group": group if failed else None, "created_at": created,
            "updated_at": ended or created, "completed_at": ended, "parent_id": parent,
        }  # fmt: skip

    def _steps(self, row: Row, number: int) -> Iterator[Row]:
        created, ended = row["created_at"], row["completed_at"]
        span = (ended - created) / len(_STEPS) if ended else timedelta(seconds=1)
        for place, step_id in enumerate(_STEPS):
            failed = row["status"] == "FAILED" and step_id == "charge"
            began = created + span * place
            yield {
                "id": _text_id(created, number, place + 1), "execution_id": row["id"],
                "step_id": step_id, "position": -1,
                "status": "FAILED" if failed else "COMPLETED", "attempts": 1,
                "failures": int(failed),
                "output": None if failed else _RESULT, "error_code": row["error_code"],
                "error": row["error"] if failed else None, "trace": _TRACE if failed else None,
                "started_at": began, "completed_at": began + span,
                "error_group": row["error_group"] if failed else None, "attempted_at": began,
                "worker_id": _WORKERS[number % len(_WORKERS)],
            }  # fmt: skip

    def _wait(self, row: Row, number: int) -> Row:
        asked = [] if number % 40 == 1 else self._chance.sample(_ASKED[:2], 1)
        asked += self._chance.sample(_ASKED[2:], number % 3)
        details = {"title": f"Ship order {number}?", "by": asked, "asked": row["id"], "form": []}
        return {
            "id": wait_id(row["id"], "ship", -1), "key": f"{number:064x}", "about": "approval",
            "execution_id": row["id"], "step_id": "ship", "position": -1,
            "tenant_id": row["tenant_id"], "details": JsonText(json.dumps(details)),
            "created_at": row["created_at"], "expires_at": None,
        }  # fmt: skip

    # -- items -----------------------------------------------------------------------------------

    def _items(self) -> Iterator[dict[str, list[Row]]]:
        count = self._size(300_000)
        every = timedelta(days=_DAYS) / count
        for start in range(0, count, _CHUNK):
            numbers = range(start, min(count, start + _CHUNK))
            some = [self._item(each, self._now - every * (count - each)) for each in numbers]
            failed = [row for row in some if row["status"] == "FAILED"]
            yield {
                OUTBOX: some,
                FAILURE: [_failure(row, each, None) for each, row in enumerate(failed, start)],
            }

    def _item(self, number: int, created: datetime) -> Row:
        draw, code = self._chance.random(), None
        status, waiting = "COMPLETED", None
        if draw < 40 / 300:
            status = "FAILED"
            code = self._chance.choices(CAUSES, (50, 25, 12, 8, 4, 1))[0]
        elif draw < 0.18:
            status, waiting = "PENDING", self._chance.choice(("worker", "time", "key", "resume"))
        ended = None if waiting else created + timedelta(seconds=1)
        due = self._now + timedelta(days=1) if waiting == "time" else created
        return {
            "id": _text_id(created, number, 9), "kind": self._of(KINDS, 0.5, 0.2),
            "payload": _RESULT, "headers": JsonText("{}"), "status": status,
            "waiting_for": waiting, "priority": 0, "attempt_count": int(waiting is None),
            "max_attempts": 5, "next_attempt_at": due, "sort_at": due,
            "tenant_id": self._tenant(),
            "ordering_key": f"line-{number % 1000}" if waiting == "key" else None,
            "last_error_code": code and code[0], "last_error_group": code and code[1],
            "last_error": code and f"{code[1].split()[0]}: item {number}",
            "created_at": created, "updated_at": ended or created, "completed_at": ended,
        }  # fmt: skip

    # -- statistics ------------------------------------------------------------------------------

    def _statistics(self, table: str, names: tuple[str, ...]) -> Iterator[dict[str, list[Row]]]:
        minutes = max(180, self._size(7 * 24 * 60))
        begin = self._now.replace(second=0) - timedelta(minutes=minutes)
        forms = [self._counted(table) for _ in range(200)]
        for start in range(0, minutes, 60):
            yield {
                table: [
                    {
                        **self._chance.choice(forms), "at": at, "worker_id": worker,
                        "kind" if table == ACTIVITY else "workflow": name,
                        "id": _text_id(at, place * 100 + number, 0),
                    }
                    for minute in range(start, min(minutes, start + 60))
                    for at in (begin + timedelta(minutes=minute),)
                    for place, worker in enumerate(_WORKERS)
                    for number, name in enumerate(names)
                ]
            }  # fmt: skip

    def _counted(self, table: str) -> Row:
        def times(count: int) -> JsonText:
            buckets: dict[str, int] = {}
            for _ in range(count):
                bucket = str(int(self._chance.gauss(-5, 6)))
                buckets[bucket] = buckets.get(bucket, 0) + 1
            return JsonText(json.dumps({"seconds": count * 0.4, "buckets": buckets}))

        count = self._chance.randrange(1, 40)
        if table == ACTIVITY:
            return {
                "completed": count, "retried": 1, "failed": 1, "lost": 0,
                "run_times": times(count), "wait_times": times(count),
            }  # fmt: skip
        actions = {
            f"shop.{step}": {"completed": count, "seconds": count * 0.1, "-7": count, "-3": 1}
            for step in _STEPS
        }
        return {
            "started": count, "completed": count, "failed": 1, "cancelled": 0,
            "run_times": times(count), "steps_completed": 5 * count, "steps_retried": 1,
            "steps_failed": 1, "step_times": times(5 * count),
            "actions": JsonText(json.dumps(actions)), "waits": None, "minutes": 1,
        }  # fmt: skip

    def _workers(self) -> Iterator[dict[str, list[Row]]]:
        about = {
            "host": "here", "pid": 1, "started_at": self._now, "seen_at": self._now,
            "kinds": JsonText("[]"), "slots": 10, "in_flight": 2, "stopping": 0,
        }  # fmt: skip
        yield {WORKER: [{"id": worker, **about} for worker in _WORKERS]}


def _failure(row: Row, number: int, step_id: str | None) -> Row:
    prefix = "" if step_id else "last_"
    return {
        "id": _text_id(row["created_at"], number, 10 if step_id else 11), "subject_id": row["id"],
        "step_id": step_id, "position": -1, "attempt": 1,
        "error_code": row[f"{prefix}error_code"], "error_group": row[f"{prefix}error_group"],
        "error": row[f"{prefix}error"], "trace": _TRACE, "failed_at": row["completed_at"],
    }  # fmt: skip
