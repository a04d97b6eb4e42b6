"""
The intake of the engine: claimed items that are to begin, in rounds on a thread of their own.

A round is bounded in rows and in time, and the claims take turns. So what wakes thousands holds up
no claim for others, and nothing else that is claimed here for longer than a few rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from automate_kernel.base import runtime
from automate_kernel.worker.heartbeat import Liveness
from automate_kernel.worker.in_flight import Task
from automate_kernel.worker.periodic import note_tries

# A round takes so long, as far as the rounds before it tell, and at most so many items.
_ROUND_SECONDS = 0.1
_MOST_IN_ROUND = 200
# What is known of no kind yet is begun in small rounds.
_FIRST_SECONDS = _ROUND_SECONDS / 20

_Entry = tuple[str, Sequence[Task], Iterator[None], bool]


class Intake:
    """
    The queue of claimed items that are to begin.

    The pace of *paced* kinds is measured. Once *stopping* returns True, what has not begun goes to
    *release*; *failed* is called with the error of a round and what it has left. *went_on* is
    called after each round. *liveness* knows of each.
    """

    def __init__(
        self,
        paced: Collection[str],
        *,
        stopping: Callable[[], bool],
        release: Callable[[Sequence[Task]], None],
        failed: Callable[[Sequence[Task], BaseException], None],
        went_on: Callable[[], None],
        liveness: Liveness,
    ) -> None:
        self._stopping, self._release = stopping, release
        self._failed, self._went_on, self._liveness = failed, went_on, liveness
        self._seconds = dict.fromkeys(paced, _FIRST_SECONDS)
        self._entries: runtime.SimpleQueue[_Entry | None] = runtime.SimpleQueue()
        self._lock = runtime.Lock()
        self._untouched = 0  # what was put and has had no round
        self.waiting: int = 0
        """The number of items of paced kinds that have not begun."""

    def put(self, kind: str, tasks: Sequence[Task], rounds: Iterator[None]) -> None:
        """Begin *tasks*, in *rounds* that yield wherever others may have their turn."""
        self._count(kind, len(tasks), untouched=1)
        self._entries.put((kind, tasks, rounds, True))

    def parts(self, kind: str, tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
        """Yield *tasks* in parts that are likely to fit into a round each."""
        start = 0
        while start < len(tasks):
            end = start + max(1, min(_MOST_IN_ROUND, int(_ROUND_SECONDS / self._seconds[kind])))
            yield tasks[start:end]
            start = end

    def room(self, seconds: float) -> int:
        """
        Return how many more are likely to begin within so many *seconds*; 0 if few could.

        It is 0 until all has had a round: what is due meanwhile is claimed together then.
        """
        if self._untouched:
            return 0
        most = max(1, int(seconds / max(self._seconds.values())))
        # In few large claims: each costs as much as it does to begin some items.
        return most - self.waiting if self.waiting * 2 <= most else 0

    def serve(self) -> None:
        """Begin what is put, until `stop`."""
        note_tries(partial(self._liveness.move, "intake"))
        while (entry := self._entries.get()) is not None:
            self._liveness.move("intake")
            goes_on = self._go_on(entry)
            kind, tasks, rounds, first = entry
            if goes_on:
                self._entries.put((kind, tasks, rounds, False))
            if first:
                self._count(kind, 0, untouched=-1)
            self._went_on()
            self._liveness.rest("intake")

    def _go_on(self, entry: _Entry) -> bool:
        """Go on with *entry* for a round; return True if there are more."""
        kind, tasks, rounds, _ = entry
        left, goes_on = _unbegun(tasks), True
        began = at = runtime.monotonic()
        while goes_on and at - began < _ROUND_SECONDS / 2:
            before, since = left, at
            try:
                goes_on = not self._stopping() and next(rounds, self) is None
                if not goes_on and (unbegun := _unbegun(tasks)):
                    self._release(unbegun)
            except BaseException as error:  # a plugin's SystemExit too: the thread would end
                self._failed(_unbegun(tasks), error)
                goes_on = False
            left, at = _unbegun(tasks) if goes_on else [], runtime.monotonic()
            self._count(kind, len(left) - len(before))
            if len(left) < len(before) and kind in self._seconds:
                self._note_pace(kind, (at - since) / (len(before) - len(left)))
        return goes_on

    def _note_pace(self, kind: str, pace: float) -> None:
        for each, seconds in self._seconds.items():
            if each == kind:
                self._seconds[each] += (pace - seconds) * 0.5
            elif seconds > _FIRST_SECONDS:
                # It was slow a while ago, and may never come again: that must not keep others.
                self._seconds[each] += (_FIRST_SECONDS - seconds) * 0.1

    def stop(self) -> None:
        """End the thread that serves."""
        self._entries.put(None)

    def _count(self, kind: str, tasks: int, *, untouched: int = 0) -> None:
        with self._lock:
            self._untouched += untouched
            # A signal may wake many, and others have their turn meanwhile: it takes no room.
            if kind in self._seconds:
                self.waiting += tasks


def _unbegun(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.started_at is None and task.ended_at is None]
