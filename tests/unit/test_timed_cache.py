"""A value that is read now and then."""

from __future__ import annotations

from itertools import count

from automate_kernel.outbox.limits import TimedCache


def test_a_value_is_read_again_once_its_time_is_over() -> None:
    """Or half of its time, early; or after it has been changed."""
    now, reads = [0.0], count(1)
    known: TimedCache[int] = TimedCache(1.0, lambda: now[0])

    def get(at: float, *, early: bool = False) -> int:
        now[0] = at
        return known.get(lambda: next(reads), early=early)

    assert [get(0.0), get(0.9), get(0.4, early=True), get(0.5, early=True)] == [1, 1, 1, 2]
    assert [get(1.4), get(1.5)] == [2, 3]
    known.forget()
    assert get(1.5) == 4


def test_nothing_is_kept_for_no_time() -> None:
    """As in a store that is to see each change at once."""
    reads, known = count(1), TimedCache[int](0.0)
    assert [known.get(lambda: next(reads)) for _ in range(3)] == [1, 2, 3]
