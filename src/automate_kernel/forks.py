"""The parts of a process that its forks can't take over: threads, event loops, connections."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with threads or connections, which are its own process's."""

    def renew(self) -> None:
        """Forget them, and make others when needed. None is closed: the parent goes on with it."""


def renew_in_children(one: Renewable) -> None:
    """
    Have *one* renewed in each process that is forked from this one.

    Servers that load an application before they fork (uWSGI, Gunicorn with ``--preload``) have the
    kernel in both. A thread is not copied, so who waited for its answer would wait for ever; and
    two processes that write to one socket mix up their requests.
    """
    _renewables.add(one)


_renewables: WeakSet[Renewable] = WeakSet()


def _renew_all() -> None:
    for one in list(_renewables):
        one.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
