"""Runs a server in a process of its own, and exchanges the process when a file changes."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from automate_cli.file_poll import FilePoll
from automate_kernel.worker.process import LOOK_SECONDS, handling_signals

_LONGEST_PAUSE = 30.0
_SPARE_SECONDS = 5.0
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class LoadReport:
    """
    A process's report of what it has loaded, and of the *problem* with that, if there is any.

    *usable* says that it can run workflows all the same. *files* were loaded from elsewhere.
    """

    summary: str = ""
    problem: str = ""
    usable: bool = True
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """
    An order for a process: to ``serve``, to ``stop``, or to show that it is out of date.

    *problem* is what keeps the present files from being loaded; *first* asks for a first run.
    """

    word: str
    problem: str = ""
    first: bool = False


@dataclass(slots=True, eq=False)
class _Child:
    process: Any
    pipe: Connection
    loaded: LoadReport = LoadReport()

    def send(self, order: Order) -> None:
        with suppress(OSError):  # it has ended
            self.pipe.send(order)

    def answer(self) -> LoadReport | None:
        """Return its report, if there is one now; an end without a report is a problem, too."""
        with suppress(EOFError, OSError):
            if self.pipe.poll():
                found: LoadReport = self.pipe.recv()
                return found
        if self.process.is_alive():
            return None
        problem = f"the code ended its process with {self.ending}"
        return LoadReport(problem=problem, usable=False)

    @property
    def ending(self) -> str:
        self.process.join()
        code = self.process.exitcode
        try:
            return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _is_worse(new: LoadReport, old: LoadReport) -> bool:
    """Return True if *new* is to be corrected first; with a problem that is known it may serve."""
    return bool(new.problem) and not (new.usable and new.problem == old.problem)


class Reloader:
    """
    Keeps ``target(**options, parent=…)`` serving in a process, and exchanges it at each change.

    A new process loads the project while the old one goes on, and serves once that one has ended:
    never do two run steps side by side. While the files have a problem that is new, the old one
    goes on, and shows it. The first is told to make a *first* run. *say* gets the lines for the
    user, with their style.
    """

    def __init__(
        self,
        target: Callable[..., None],
        options: Mapping[str, Any],
        watch: FilePoll,
        say: Callable[[str, str | None], None],
        *,
        grace_seconds: float,
        first: bool = False,
    ) -> None:
        # Spawned: nothing of ours, and nothing of the code before, is in the new process.
        self._context = multiprocessing.get_context("spawn")
        self._target, self._options, self._watch, self._say = target, dict(options), watch, say
        self._grace_seconds, self._first = grace_seconds, first
        self._serving: _Child | None = None
        self._next: _Child | None = None
        self._begun_at = 0.0
        self._crashes = 0
        self._due: float | None = None
        self._stops = 0
        self._woken, self._wake = self._context.Pipe(duplex=False)

    def run(self) -> None:
        """Serve until it is stopped by SIGINT, SIGTERM or SIGHUP."""
        with handling_signals(self.stop):
            self._load()
            try:
                while not self._stops:
                    self._wait(self._watch.pause)
                    self._look_after()
            finally:
                self._end()

    def stop(self) -> None:
        """Let running steps end; the second time hand them back, the third time kill."""
        self._stops += 1
        self._wake.send_bytes(b"stop")

    def _wait(self, seconds: float) -> None:
        children = [each for each in (self._serving, self._next) if each is not None]
        waited = [part for each in children for part in (each.pipe, each.process.sentinel)]
        # A pipe whose other end is closed is ready all the time: its process is about to end.
        if self._woken in wait([self._woken, *waited], min(seconds, LOOK_SECONDS)):
            self._woken.recv_bytes()

    def _look_after(self) -> None:
        if self._next is not None and (loaded := self._next.answer()) is not None:
            self._watch.add(loaded.files)
            self._take(self._next, loaded)
        if self._serving is not None and not self._serving.process.is_alive():
            self._died(self._serving)
        changed = self._watch.changed()
        if changed:
            more = len(changed) - _MOST_NAMED
            names = ", ".join(changed[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            self._say(f"{names} changed", None)
            self._crashes = 0
            self._load()
        elif self._due is not None and time.monotonic() >= self._due:
            self._load()

    def _load(self) -> None:
        """Have a new process load the project."""
        if self._next is not None:
            self._next.kill()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=self._target, kwargs={**self._options, "parent": theirs}, name="automate-dev"
        )
        process.start()
        theirs.close()
        self._next, self._due, self._begun_at = _Child(process, ours), None, time.monotonic()

    def _take(self, child: _Child, loaded: LoadReport) -> None:
        """Let a process serve that has loaded the project, or show what is wrong with it."""
        self._next, child.loaded = None, loaded
        old, took = self._serving, time.monotonic() - self._begun_at
        if loaded.problem:
            self._say(f"error: {loaded.problem}", "red")
        if old is not None and old.process.is_alive() and _is_worse(loaded, old.loaded):
            if old.loaded.usable:
                self._say("The last state that could be loaded goes on.", None)
            old.send(Order("outdated", loaded.problem))
            child.kill()
            return
        if old is not None:
            self._let_end(old)
        if loaded.usable:
            self._say(f"loaded in {took:.1f} s: {loaded.summary}", "green")
        self._serving = child
        child.send(Order("serve", loaded.problem, first=self._first and loaded.usable))
        self._first = self._first and not loaded.usable

    def _died(self, child: _Child) -> None:
        """Start another process for one that has ended by itself, after a while."""
        self._serving = None
        pause = min(_LONGEST_PAUSE, 2.0**self._crashes)
        self._crashes += 1
        self._say(f"the process ended with {child.ending}; starting again in {pause:g} s", "red")
        child.pipe.close()
        self._due = time.monotonic() + pause

    def _let_end(self, child: _Child) -> None:
        child.send(Order("stop"))
        sent, deadline = self._stops, time.monotonic() + self._grace_seconds + _SPARE_SECONDS
        while child.process.is_alive():
            if self._woken in wait([self._woken, child.process.sentinel], LOOK_SECONDS):
                self._woken.recv_bytes()
            if self._stops > max(sent, 1):
                child.send(Order("stop"))
                sent = self._stops
            if self._stops > 2 or time.monotonic() > deadline:
                break
        child.kill()

    def _end(self) -> None:
        if self._next is not None:
            self._next.kill()
        if self._serving is not None:
            self._let_end(self._serving)
