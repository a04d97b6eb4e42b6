"""
Handovers: notes of workers that could not go on with an item, for lack of what others have.

While old and new workers run side by side, an old worker meets actions and definitions that it
doesn't know. It hands the item over: the item waits for a moment, without a spent attempt, and the
note in its headers says why, since when, and who handed it over last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from automate_kernel.base import runtime

NOTE = "automate.handover"
"""The header with the note."""

CHANGED_CODE = "CHANGED_CODE"
"""The code of executions whose record a worker's code does not repeat."""

CODES = (
    "UNKNOWN_ACTION", "UNUSABLE_PLUGIN", "UNKNOWN_WORKFLOW", "UNREADABLE_DEFINITION",
    "UNKNOWN_CODE", CHANGED_CODE,
)  # fmt: skip
"""The codes of errors for which items are handed over."""

LONGEST_SECONDS = 300.0
"""The longest wait, on average, of an item that is handed over."""

_SHORTEST_SECONDS = 5.0
# Among workers that have not met it yet it is passed round sooner.
_UNTRIED_SECONDS = 1.0
_MOST_TRIED = 100


@dataclass(frozen=True, slots=True)
class Handover:
    """
    The note on an item that is handed over.

    *code* and *reason* say what *worker* lacked; *since* is the time of the first of the *times*
    that it was handed over without a step forward. *tried* are the workers that did.
    """

    code: str
    reason: str
    worker: str
    since: datetime
    times: int = 1
    tried: tuple[str, ...] = ()

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Handover | None:
        """Return the note in an item's *headers*, or None."""
        note = headers.get(NOTE)
        if not isinstance(note, dict):
            return None
        try:
            code, reason, worker = (str(note[name]) for name in ("code", "reason", "worker"))
            since, times = datetime.fromisoformat(note["since"]), int(note["times"])
            tried = tuple(map(str, note.get("tried", ())))
            return cls(code, reason, worker, since, times, tried)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None  # of another version

    def after(self, headers: Mapping[str, Any]) -> Handover:
        """Return this note as it follows on the one in *headers*."""
        before = Handover.of(headers)
        if before is None:
            return replace(self, tried=(self.worker,))
        tried = tuple(dict.fromkeys((*before.tried, self.worker)))[-_MOST_TRIED:]
        return replace(self, since=before.since, times=before.times + 1, tried=tried)

    @property
    def cause(self) -> str:
        """The reason without the worker: the same for all that lack the same."""
        return self.reason.removeprefix(f"worker {self.worker} ")

    @property
    def needed(self) -> str:
        """The worker that is waited for, in words."""
        if self.code == CHANGED_CODE:
            return "a worker whose code repeats what is recorded"
        return "a worker that knows it"

    def to_json(self) -> dict[str, Any]:
        """Return the note as it is kept."""
        return {
            "code": self.code,
            "reason": self.reason,
            "worker": self.worker,
            "since": self.since.isoformat(),
            "times": self.times,
            "tried": [*self.tried],
        }

    def delay(
        self, random: Callable[[], float] = runtime.chance, *, untried: bool = False
    ) -> float:
        """
        Return the seconds until the next worker may have it: 5 s, twice as long each time.

        While workers are *untried* it is a second at first, and 5 s at most.
        """
        first, most = _SHORTEST_SECONDS, LONGEST_SECONDS
        if untried:
            first, most = _UNTRIED_SECONDS, _SHORTEST_SECONDS
        mean = min(most, first * 2.0 ** min(self.times - 1, 10))
        # Spread by a quarter, so that what was handed over together comes back apart.
        return mean * (0.75 + random() / 2)
