"""Reports of calls that run: how far they have come, and whether they should go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.outbox.labels import Labels, checked_labels
from automate_kernel.storage.codec import JsonText, json_text
from automate_kernel.storage.values import Redaction, encode_json

MAX_PROGRESS_BYTES = 4_000
"""The most bytes of JSON that a call can report of itself, value and message together."""

_LONGEST_REASON = 1_000
_AROUND = len(json_text({"value": 0, "message": 0})) - len("00")

T = TypeVar("T")

Ending = Literal["stopping", "cancelled", "timeout"]
"""The reason why a call should stop."""


def _goes_on() -> Ending | None:
    return None


class CallReport:
    """
    The report of one call that runs, from any thread.

    *previous* is what the attempt before reported last. *asked* says why the call should stop.
    *redact* takes secrets out of what it reports. With *heartbeat* the call must report something
    each so many seconds.
    """

    def __init__(
        self,
        previous: Any = None,
        asked: Callable[[], Ending | None] = _goes_on,
        redact: Redaction | None = None,
        heartbeat: float | None = None,
    ) -> None:
        self.previous: Any = previous
        self.latest: JsonText | None = None
        """The newest progress as JSON: its ``value`` and ``message``."""
        self.labels: dict[str, str] = {}
        """The labels that the call gives its execution."""
        self.over: bool = False
        """True once nobody waits for the call any more."""
        self.told: bool = False
        """True once the call has read that it should stop."""
        self.heartbeat: float | None = heartbeat
        """The seconds that the call may go on without a report; None is for ever."""
        self._asked, self._redact = asked, redact
        self._heard, self._longest = runtime.monotonic(), 0.0

    @property
    def cancelled(self) -> bool:
        """True if the call should stop: its result is not waited for, or soon will not be."""
        stops = self.ending is not None
        self.told = self.told or stops
        return stops

    @property
    def ending(self) -> Ending | None:
        """The reason why the call should stop; None while it may go on."""
        # Who was given up is told so, whatever becomes of the worker.
        return "timeout" if self.over else self._asked()

    def report(self, value: Any, message: str | None) -> None:
        """Take the newest progress in; raises `PayloadError` if it can't be stored."""
        around = _AROUND if message is not None else _AROUND + len("null")
        self.latest = encode_json(
            {"value": value, "message": message}, "progress", MAX_PROGRESS_BYTES, around=around,
            inside=1, redact=self._redact,
        )  # fmt: skip
        self.hear()

    def waits(self, reason: str) -> None:
        """Show *reason*, for which the call can't begin, as the message of its progress."""
        found = self.previous if self.latest is None else json.loads(self.latest)
        value = found["value"] if isinstance(found, dict) else None
        if not isinstance(found, dict) or found.get("message") != reason:
            with suppress(PayloadError):  # the value leaves no room for it
                self.report(value, reason[:_LONGEST_REASON])

    def label(self, labels: Labels) -> None:
        """Take *labels* in; raises `PayloadError` if they can't be labels, or are too many."""
        self.labels = checked_labels({**self.labels, **labels})

    # -- silence -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Note that the call begins now: its silence counts from here."""
        self._heard, self._longest = runtime.monotonic(), 0.0

    def hear(self) -> None:
        """Note that the call has reported something just now."""
        now = runtime.monotonic()
        self._heard, self._longest = now, max(self._longest, now - self._heard)

    def until_silent(self) -> float | None:
        """Return the seconds until it has been silent for too long; None if it may be."""
        if self.heartbeat is None:
            return None
        return max(0.0, self._heard + self.heartbeat - runtime.monotonic())

    def silence(self) -> AutomateError | None:
        """Return the error of a call that has been silent for too long by now, or has been once."""
        if self.heartbeat is None:
            return None
        if max(self._longest, runtime.monotonic() - self._heard) < self.heartbeat:
            return None
        return AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED,
            f"it reported no progress for {self.heartbeat:g} seconds, its heartbeat",
            hint="call current_call().progress(...) more often, or allow a longer heartbeat",
        )


async def while_heard(work: Awaitable[T], report: CallReport) -> T:
    """Return the result of *work*; cancel it, and raise, once its call is silent for too long."""
    report.begin()
    running = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([running], timeout=report.until_silent()))[0]:
            silence = report.silence()
            if silence is not None:
                running.cancel()
                await asyncio.wait([running])
                raise silence
    except asyncio.CancelledError:
        running.cancel()
        raise
    return running.result()
