"""
Handovers: notes of workers that could not go on with an item, for lack of what others have.

While old and new workers run side by side, an old worker meets actions and definitions that it
doesn't know. It hands the item on: the item waits for a moment, without a spent attempt, and the
note in its headers says why, since when, and who handed it on last.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NOTE = "automate.handover"
"""The header with the note."""

CODES = ("UNKNOWN_ACTION", "UNUSABLE_PLUGIN", "UNREADABLE_DEFINITION", "UNKNOWN_CODE")
"""The codes of errors for which items are handed on."""

LONGEST_SECONDS = 300.0
"""The longest wait, on average, of an item that is handed on."""

_SHORTEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Handover:
    """
    The note on an item that is handed on.

    *code* and *reason* say what *worker* lacked; *since* is the time of the first of the *times*
    that it was handed on without a step forward.
    """

    code: str
    reason: str
    worker: str
    since: datetime
    times: int = 1

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Handover | None:
        """Return the note in an item's *headers*, or None."""
        note = headers.get(NOTE)
        if not isinstance(note, dict):
            return None
        try:
            code, reason, worker = (str(note[name]) for name in ("code", "reason", "worker"))
            return cls(
                code, reason, worker, datetime.fromisoformat(note["since"]), int(note["times"])
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None  # of another version

    def after(self, headers: Mapping[str, Any]) -> Handover:
        """Return this note as it follows on the one in *headers*."""
        before = Handover.of(headers)
        if before is None:
            return self
        return Handover(self.code, self.reason, self.worker, before.since, before.times + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the note as it is kept."""
        return {
            "code": self.code,
            "reason": self.reason,
            "worker": self.worker,
            "since": self.since.isoformat(),
            "times": self.times,
        }

    def delay(self, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds until the next worker may have it: 5 s, twice as long each time."""
        # Spread by a quarter, so that what was handed on together comes back apart.
        mean = min(LONGEST_SECONDS, _SHORTEST_SECONDS * 2.0 ** min(self.times - 1, 10))
        return mean * (0.75 + random() / 2)
