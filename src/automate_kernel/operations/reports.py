"""Reports of calls that run: how far they have come, and whether they should go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import Redaction, encode_json

MAX_PROGRESS_BYTES = 4_000
"""The most bytes of JSON that a call can report of itself."""


def _never() -> bool:
    return False


class CallReport:
    """
    The report of one call that runs, from any thread.

    *previous* is what the attempt before reported last. *asked* says whether the call should stop.
    *redact* takes secrets out of what it reports.
    """

    def __init__(
        self,
        previous: Any = None,
        asked: Callable[[], bool] = _never,
        redact: Redaction | None = None,
    ) -> None:
        self.previous: Any = previous
        self.latest: JsonText | None = None
        """The newest progress as JSON: its ``value`` and ``message``."""
        self.over: bool = False
        """True once nobody waits for the call any more."""
        self._asked, self._redact = asked, redact

    @property
    def cancelled(self) -> bool:
        """True if the call should stop: its result is not waited for, or soon will not be."""
        return self.over or self._asked()

    def report(self, value: Any, message: str | None) -> None:
        """Take the newest progress in; raises `PayloadError` if it can't be stored."""
        self.latest = encode_json(
            {"value": value, "message": message}, "progress", MAX_PROGRESS_BYTES, inside=1,
            redact=self._redact,
        )  # fmt: skip
