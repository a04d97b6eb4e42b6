"""
Leader election: which workers decide what an event starts, while they know different workflows.

In a rolling deploy old and new workers run side by side. An old one would complete an event that
starts nothing there, and the workflow that it was for would never begin. So one worker leads: the
newest that no other knows more than. It decides, and so does each that knows all that it knows.
The others leave events alone as long as it lives.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from automate_kernel.base import runtime
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import warn_of
from automate_kernel.workflows.decide.waits import EVENT

logger: logging.Logger = get_logger(__name__)

# A worker looks each second, but when it is frozen or a purge holds it up.
_OLD_SECONDS = 2.0

_Version = tuple[tuple[int, int, str], ...]
_LATEST = datetime.max.replace(tzinfo=timezone.utc)


def version_key(version: str | None) -> _Version:
    """Return what versions are compared by: their numbers as numbers; no version is the oldest."""
    parts = re.findall(r"\d+|[^\W\d_]+", version or "")
    # A number is newer than a word in its place, so that 2.0 is newer than 2.beta.
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def leader(workers: Iterable[WorkerInfo]) -> WorkerInfo | None:
    """
    Return the worker that decides about events; None if nobody works on them.

    It is the newest by its version, or else by its start; but none of which another one of the same
    version, or of a later one, knows all workflows and more.
    """
    able = [one for one in workers if one.alive and not one.stopping and EVENT in one.kinds]
    found = [(one, version_key(one.version), frozenset(one.workflows)) for one in able]
    leading = [
        (version, one.started_at or _LATEST, one.id, one)
        for one, version, known in found
        if not any(known < more and version <= theirs for _, theirs, more in found)
    ]
    return max(leading, key=lambda each: each[:3])[3] if leading else None


def followers(workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Return the workers that leave events to the `leader`, since they know less."""
    first = leader(workers)
    if first is None:
        return []
    return [
        one for one in workers
        if one.alive and EVENT in one.kinds and not set(first.workflows) <= set(one.workflows)
    ]  # fmt: skip


@dataclass
class LeaderElection:
    """
    The place of this process among the workers, as of its last `look`.

    *workers* lists those that report. *known* gives the marks of the workflows that events start
    here, and *version* is the one of the application's code. *clock* returns seconds.
    """

    workers: Callable[[], Sequence[WorkerInfo]]
    known: Callable[[], Collection[str]]
    version: str | None = None
    clock: Callable[[], float] = runtime.clock
    leaves_events: bool = field(default=False, init=False)
    """True while events are left to another worker."""
    leader: str | None = field(default=None, init=False)
    """The id of the worker that they are left to."""
    _looked_at: float | None = field(default=None, init=False)

    def leaves(self) -> bool:
        """
        Return True if events are left to another worker, as far as is known for certain.

        Who has not looked for a while looks again: a newer worker may have begun meanwhile. Who
        can't look now leaves them for this time. Who never looked is no worker, and decides.
        """
        if self._looked_at is not None and self.clock() - self._looked_at > _OLD_SECONDS:
            try:
                self.look()
            except AutomateError as error:
                warn_of(logger, error, "events are left until it is known who else works: %s")
                return True
        return self.leaves_events

    def look(self) -> None:
        """Look who else works. A worker does so every second."""
        begun = self.clock()
        if self._looked_at is None:
            self._looked_at = -math.inf  # should this fail, `leaves` looks again
        known, workers = tuple(self.known()), list(self.workers())
        if not any((one.version, one.workflows) == (self.version, known) for one in workers):
            # This worker has just begun, and has not reported yet.
            kinds = (EVENT,)
            workers.append(
                WorkerInfo("", "", 0, None, None, kinds, version=self.version, workflows=known)
            )
        first = leader(workers)
        self.leaves_events = first is not None and not set(first.workflows) <= set(known)
        self.leader = first.id if first is not None and self.leaves_events else None
        self._looked_at = begun
