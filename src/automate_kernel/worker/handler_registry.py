"""The handlers of a host, by the kind of items that each handles."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.worker.handler import Handler

__all__ = ["HandlerRegistry"]


class HandlerRegistry:
    """One handler for each kind of items."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Handler] = {}

    @property
    def kinds(self) -> list[str]:
        """The kinds that have a handler, sorted."""
        return sorted(self._by_kind)

    def __getitem__(self, kind: str) -> Handler:
        return self._by_kind[kind]

    def add(self, handler: Handler) -> None:
        """Add *handler*; raises ``ALREADY_EXISTS`` if its kind has one."""
        if handler.kind in self._by_kind:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"items of kind {handler.kind!r} have a handler already"
            )
        self._by_kind[handler.kind] = handler

    def choose(
        self, kinds: Iterable[str], exclude_kinds: Iterable[str], *, unwanted: Iterable[str] = ()
    ) -> list[Handler]:
        """
        Return the handlers whose kinds match *kinds* (by default all), without *exclude_kinds*.

        Both are patterns such as ``mail.*``. *unwanted* kinds are left out silently. Raises
        `ConfigError` for a pattern that fits no handler, and if all are left out.
        """
        patterns, others = list(kinds), list(exclude_kinds)
        for pattern in (*patterns, *others):
            if not any(fnmatchcase(kind, pattern) for kind in self._by_kind):
                raise ConfigError(
                    f"no handler is there for items of kind {pattern!r}",
                    hint=f"there are: {', '.join(self.kinds)}",
                )
        wanted = [handler for kind, handler in self._by_kind.items() if kind not in {*unwanted}]
        chosen = [
            handler
            for handler in wanted
            if (not patterns or _fits(handler.kind, patterns)) and not _fits(handler.kind, others)
        ]
        if wanted and not chosen:
            raise ConfigError(
                "no kind of item is left to work on",
                hint="name fewer kinds that are left out, or others that are worked on",
            )
        return chosen


def _fits(kind: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in patterns)
