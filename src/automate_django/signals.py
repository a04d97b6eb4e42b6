"""
The kernel's nine signals as Django's, for ``@receiver``, ``dispatch_uid`` and ``send_robust``.

*sender* is the kernel's class; the keyword arguments are listed in `automate_kernel.signals`.
A receiver that raises is logged by Django (``django.dispatch``) and changes no outcome. Where an
``atomic()`` block is open, receivers run once it commits; inside a ``TestCase`` they do in
``captureOnCommitCallbacks(execute=True)``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import django
from asgiref.sync import iscoroutinefunction
from django.db import transaction
from django.dispatch import Signal

from automate_django.connections import freshen, give_back
from automate_kernel import signals as kernel_signals
from automate_kernel.base.errors import ConfigError

__all__ = [
    "event_received",
    "step_completed",
    "step_failed",
    "step_started",
    "workflow_cancelled",
    "workflow_completed",
    "workflow_failed",
    "workflow_skipped",
    "workflow_started",
]

_AWAITS = django.VERSION >= (5, 0)


class KernelSignal(Signal):
    """A signal that refuses receivers which Django, or this version of it, would never run."""

    def connect(self, receiver: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Connect *receiver*, as `django.dispatch.Signal.connect` does."""
        if iscoroutinefunction(receiver) and not _AWAITS:
            hint = "Django 4.2 never runs those: use a plain function, or Django 5.0"
            raise ConfigError(f"receiver {receiver!r} is an async def", hint=hint)
        call = getattr(receiver, "__call__", None)  # noqa: B004  (a callable object's own method)
        if iscoroutinefunction(call) and not iscoroutinefunction(receiver):
            hint = "Django calls it and awaits nothing: connect an async def itself"
            raise ConfigError(f"the __call__ of receiver {receiver!r} is an async def", hint=hint)
        super().connect(receiver, *args, **options)


event_received = KernelSignal()
workflow_started = KernelSignal()
workflow_completed = KernelSignal()
workflow_failed = KernelSignal()
workflow_cancelled = KernelSignal()
workflow_skipped = KernelSignal()
step_started = KernelSignal()
step_completed = KernelSignal()
step_failed = KernelSignal()


def connect_forwarders() -> None:
    """Make each of the kernel's signals send its Django counterpart; twice does no harm."""
    for name in __all__:
        # blinker would drop a local function: by default it holds receivers weakly.
        getattr(kernel_signals, name).connect(_FORWARDERS[name], weak=False)


def _forwarder(signal: Signal) -> Callable[..., Any]:
    def forward(sender: Any, **arguments: Any) -> Any:
        return _forward(signal, sender, arguments)

    # So that nothing is copied for signals that nobody receives.
    forward.is_heard = lambda: bool(signal.receivers)  # type: ignore[attr-defined]
    return forward


_FORWARDERS = {name: _forwarder(globals()[name]) for name in __all__}


def _forward(signal: Signal, kernel: Any, arguments: dict[str, Any]) -> Any:
    if not signal.receivers:
        return None
    sender = type(kernel)
    if _in_loop():
        # Given back to the kernel, which awaits it: plain receivers then run on a thread.
        return _asend(signal, sender, arguments)
    announces = threading.current_thread().name == kernel_signals.THREAD
    if announces:
        freshen()  # nobody else looks after the connections of this thread
    connection = _connection(kernel)
    if connection is not None and connection.in_atomic_block:
        transaction.on_commit(
            lambda: signal.send_robust(sender, **arguments), using=connection.alias, robust=True
        )
    else:
        signal.send_robust(sender, **arguments)
    if announces:
        give_back()
    return None


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _asend(signal: Signal, sender: Any, arguments: dict[str, Any]) -> None:
    if _AWAITS:
        await signal.asend_robust(sender, **arguments)
    else:
        from asgiref.sync import sync_to_async

        await sync_to_async(signal.send_robust)(sender, **arguments)


def _connection(kernel: Any) -> Any:
    """Return the connection to the database of *kernel*, if it is one of Django's."""
    return getattr(getattr(kernel, "storage", None), "connection", None)
