"""
The detection of calls that block the event loop, for tests of ``async def`` operations.

Two look-outs, since neither sees all. One sees ``time.sleep``, look-ups of host names and
connections of blocking sockets, however short they are. A thread beside the loop sees
anything that holds it for a while: a file, a lock, a calculation.
"""

from __future__ import annotations

import asyncio
import linecache
import selectors
import sys
import sysconfig
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_TICK_SECONDS = 0.01
_EVENTS = {
    "time.sleep": "time.sleep()",
    "socket.getaddrinfo": "a look-up of a host name",
    "socket.gethostbyname": "a look-up of a host name",
    "socket.connect": "a connection of a blocking socket",
}
_LIBRARY = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")
_SOURCES = Path(__file__).resolve().parents[2]
_OURS = tuple(str(_SOURCES / name) for name in ("automate_kernel", "automate_testing"))


def run_watched(work: Awaitable[T], *, seconds: float = 0.1) -> tuple[T, list[str]]:
    """
    Run *work* on a loop of its own; return its result, and a text for each call that blocked.

    A text names the call and the line. What holds the loop for less than *seconds* is not seen,
    unless it is one of the usual calls. Imports don't count: they happen once.
    """
    watch = _Watch(seconds)
    _install()

    async def run() -> T:
        with watch:
            return await work

    result = asyncio.run(run())
    return result, watch.found


class _Watch:
    """The look-outs for one loop, from the thread that runs it."""

    def __init__(self, seconds: float) -> None:
        self.found: list[str] = []
        self._most = max(2, round(seconds / _TICK_SECONDS))
        self._done = threading.Event()
        self._beats = 0

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._beat()
        _watches[self._thread] = self
        # Python audits it from 3.13 on.
        self._sleep: Any = time.sleep
        time.sleep = self._heard_sleep
        self._watcher = threading.Thread(target=self._look, name="automate-watch", daemon=True)
        self._watcher.start()

    def __exit__(self, *exc: object) -> None:
        time.sleep = self._sleep
        _watches.pop(self._thread, None)
        self._done.set()
        self._timer.cancel()
        self._watcher.join()

    def _beat(self) -> None:
        self._beats += 1
        self._timer = self._loop.call_later(_TICK_SECONDS, self._beat)

    def _look(self) -> None:
        """Count how often this thread woke up while the loop's did not come round."""
        beats, missed = self._beats, 0
        while not self._done.wait(_TICK_SECONDS):
            if self._beats != beats:
                beats, missed = self._beats, 0
                continue
            # Not the clock: on a busy machine both threads wait, and neither is to blame.
            missed += 1
            if missed == self._most:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001  (it is public)
                # A loop that waits is held by nobody: its thread gets no processor.
                if frame is not None and frame.f_code.co_filename != selectors.__file__:
                    self._note("something", frame)

    def _heard_sleep(self, seconds: Any) -> None:
        if threading.get_ident() == self._thread:
            self.heard("time.sleep", (seconds,), sys._getframe(1))
        self._sleep(seconds)

    def heard(self, event: str, arguments: tuple[Any, ...], frame: FrameType) -> None:
        """Take a call that the audit hook has seen on the loop's thread."""
        if event == "socket.connect" and arguments[0].gettimeout() == 0:
            return  # it doesn't wait
        if event == "time.sleep" and not arguments[0]:
            return
        if event == "socket.getaddrinfo" and _is_address(arguments[0]):
            return
        self._note(_EVENTS[event], frame)

    def _note(self, what: str, frame: FrameType | None) -> None:
        place = _place(frame)
        if place is not None:
            text = f"{what} blocks the event loop: {place}"
            if text not in self.found:
                self.found.append(text)


_watches: dict[int, _Watch] = {}
_installed: list[bool] = []


def _install() -> None:
    # A hook can't be taken away again; without a watch it returns at once.
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS:
        watch = _watches.get(threading.get_ident())
        if watch is not None:
            watch.heard(event, arguments, sys._getframe(1))


def _is_address(host: Any) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host is None
    return True


def _place(frame: FrameType | None) -> str | None:
    """
    Return the line of the author's code that is to blame, innermost first; None for none.

    Code of installed packages counts if there is no other, and an import not at all.
    """
    installed: str | None = None
    while frame is not None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        if "importlib" in file or file.startswith("<frozen importlib"):
            return None
        inside = str(Path(file).resolve())
        if any(part in inside for part in _INSTALLED):
            installed = installed or _named(file, line, frame.f_code.co_name)
        elif not inside.startswith((*_LIBRARY, *_OURS)) and Path(file).is_file():
            return _named(file, line, frame.f_code.co_name)
        frame = frame.f_back
    return installed


def _named(file: str, line: int, function: str) -> str:
    source = linecache.getline(file, line).strip()
    return f"{file}:{line}, in {function}" + (f": {source}" if source else "")
