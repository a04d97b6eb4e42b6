"""A storage as one process sees it, which may die at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Act = Callable[[], None]


class Death(BaseException):
    """The end of a process: nothing catches it."""


class Mortal:
    """A storage as one process sees it, which may die at any moment, or be interrupted."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._inside = threading.local()
        self._lock = threading.Lock()
        self.moment = 0
        self.acts: dict[int, Act] = {}
        self.dies_at = 0
        self.dead: type[BaseException] | None = None
        self.death: type[BaseException] = Death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True, **more: Any) -> Iterator[Any]:
        depth = getattr(self._inside, "depth", 0)
        self._pass(acts=depth == 0)
        self._inside.depth = depth + 1
        try:
            with self._storage.begin(transaction, atomic=atomic, **more) as rows:
                own = transaction is None
                if own:
                    run = rows.run
                    rows.run = lambda *given, **more: (self._pass(), run(*given, **more))[1]
                try:
                    yield rows
                finally:
                    if own:
                        del rows.run
                self._pass()
        finally:
            self._inside.depth = depth
        self._pass(acts=depth == 0)

    def _pass(self, *, acts: bool = False) -> None:
        """Let a moment pass."""
        with self._lock:
            self.moment += 1
            if self.moment == self.dies_at:
                self.dead = self.death
            act = None
            # Within a transaction nobody else can act, on a database that has one writer.
            if acts and self.acts and (first := min(self.acts)) <= self.moment:
                act = self.acts.pop(first)
        if self.dead is not None:
            raise self.dead("this process has died")
        if act is not None:
            act()
