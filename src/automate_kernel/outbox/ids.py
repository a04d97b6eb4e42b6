"""Ids that sort by the time when they were made."""

from __future__ import annotations

import random
import time

from automate_kernel.base.forks import renew_in_children


def new_id() -> str:
    """
    Return a new UUID of version 7 (RFC 9562), which sorts by its time to the millisecond.

    Ids made in one process within a millisecond are in order too.
    """
    global _last  # noqa: PLW0603  (ids of one process are in order)
    now = time.time_ns()
    # RFC 9562, method 3: sub-millisecond time in the 12 bits of rand_a, and never backwards.
    stamp = max((now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000), _last + 1)
    _last = stamp
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
    value |= 0b10 << 62 | _random.getrandbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class _Random(random.Random):
    """
    Numbers of our own, so that nobody's `random.seed` makes two processes count alike.

    An id need not be hard to guess.
    """

    def renew(self) -> None:
        """Seed it anew: a child would go on with its parent's numbers."""
        self.seed()


_last = 0
_random = _Random()
renew_in_children(_random)
