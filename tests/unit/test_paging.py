"""Pages of any table, in the order of any index."""

from __future__ import annotations

from uuid import uuid4

import pytest
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox.failed_attempts import FailedAttempt, new_attempt
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.paging import IndexRange, RowPage, between, read_page
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import FAILURE
from automate_testing.clock import FakeClock

COLUMNS = ("failed_at", "id")


def filled() -> MemoryStorage:
    """Failed attempts at three times, five at each, every third of which is rare."""
    clock = FakeClock()
    storage = MemoryStorage(clock)
    for minute in range(3):
        with storage.begin() as rows:
            new = [
                new_attempt(
                    str(uuid4()), "claim",
                    FailedAttempt(
                        attempt=number, error="", error_group="",
                        error_code="RARE" if (minute * 5 + number) % 3 == 0 else "OFTEN",
                    ),
                )
                for number in range(5)
            ]  # fmt: skip
            rows.insert(FAILURE, new)
        clock.advance(60)
    return storage


def pages(storage: MemoryStorage, *ranges: IndexRange, limit: int, look: int = 100) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    page = RowPage(after="")
    with storage.begin() as rows:
        for _ in range(100):
            page = read_page(
                rows, FAILURE, ranges, name="all", after=page.after, limit=limit, look=look
            )
            assert len(page.rows) <= limit
            ids += [row["id"] for row in page.rows]
            if not page.after:
                return ids
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("order", [("failed_at", "id"), ("-failed_at", "-id")])
@pytest.mark.parametrize("limit", [1, 4, 50])
def test_rows_with_the_same_time_are_told_apart(order: tuple[str, ...], limit: int) -> None:
    """Each row is on one page, whichever way the index is read."""
    storage = filled()
    with storage.begin() as rows:
        everything = [row["id"] for row in rows.select(FAILURE, order_by=order)]
        rare = [Where("error_code", "eq", "RARE")]
        some = [row["id"] for row in rows.select(FAILURE, rare, order_by=order)]
    assert pages(storage, IndexRange((), order), limit=limit) == everything
    for look in (1, 2, 7, 15, 100):
        found = pages(storage, IndexRange((), order, rare), limit=limit, look=look)
        assert found == some


def test_several_ranges_follow_each_other() -> None:
    """They are read in the order of their keys, and one may be gone when its page is asked for."""
    storage = filled()
    by_code = {
        code: IndexRange([Where("error_code", "eq", code)], COLUMNS, key=code)
        for code in ("OFTEN", "RARE")
    }
    ids = pages(storage, by_code["RARE"], by_code["OFTEN"], limit=4)
    assert len(ids) == len(set(ids)) == 15
    with storage.begin() as rows:
        first = read_page(rows, FAILURE, list(by_code.values()), name="all", limit=4)
        rest = read_page(rows, FAILURE, [by_code["RARE"]], name="all", after=first.after)
    assert [row["id"] for row in rest.rows] == ids[10:]
    with storage.begin() as rows, pytest.raises(AutomateError):
        read_page(rows, FAILURE, [by_code["RARE"]], name="another", after=first.after)


def test_the_stretch_between_two_places() -> None:
    """Nothing between a place and itself; all up to the end without a beginning."""
    storage = filled()
    with storage.begin() as rows:
        everything = [row["id"] for row in rows.select(FAILURE, order_by=COLUMNS)]
        places = [[row[name] for name in COLUMNS] for row in rows.select(FAILURE, order_by=COLUMNS)]
        for start in (None, 0, 4, 7):
            for end in (7, 9, 14, None):
                conditions = between(
                    COLUMNS,
                    None if start is None else places[start],
                    None if end is None else places[end],
                )
                found = [
                    row["id"]
                    for where in conditions
                    for row in rows.select(FAILURE, where, order_by=COLUMNS)
                ]
                first = 0 if start is None else start + 1
                assert found == everything[first : 15 if end is None else end + 1]
