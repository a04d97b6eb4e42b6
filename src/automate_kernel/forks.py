"""The parts of a process that its forks can't take over: threads, event loops, connections."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any, Protocol
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
_renewed_in = os.getpid()


def _renew_all() -> None:
    global _renewed_in  # noqa: PLW0603  (the process is one)
    _renewed_in = os.getpid()
    for one in list(_renewables):
        one.renew()


def _renew_after_uwsgi() -> None:
    """Have uWSGI renew in its workers too: it forks in C, and by default Python isn't told."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if not hasattr(uwsgi, "masterpid"):  # uWSGI's own module, which is nowhere but inside of it
        return
    try:
        decorators: Any = importlib.import_module("uwsgidecorators")
    except Exception:  # it isn't installed, or refuses since there is no master process
        before = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if before is not None:
                before()
            _forked_by_uwsgi()

        uwsgi.post_fork_hook = hook
    else:
        # The hook is one attribute, which this module sets at its import, and has a list for.
        decorators.postfork(_forked_by_uwsgi)


def _forked_by_uwsgi() -> None:
    # Without a master the first worker is the very process that loaded the application. And options
    # of uWSGI's have Python told after all.
    if _renewed_in == os.getpid():
        return
    # Else a worker that ends waits for the parent's threads, which it takes for its own.
    after_fork: Any = vars(threading)["_after_fork"]
    after_fork()
    _renew_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
_renew_after_uwsgi()
