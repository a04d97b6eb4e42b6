"""
The nine signals, and the function that sends them.

They are blinker signals, sent by the worker: the two ``…_started`` when the work begins, the others
after the change that they announce is committed. `workflow_cancelled` is sent by whoever ends the
execution: the process that cancels it, or the worker that has cleaned up after it.
A receiver gets the kernel as *sender* and keyword arguments:

========================  ==========================================================
`event_received`          ``event`` (`automate_kernel.workflows.Event`)
`workflow_started`        ``execution`` (`automate_kernel.workflows.Execution`)
`workflow_completed`      ``execution``
`workflow_failed`         ``execution``, ``error``
`workflow_cancelled`      ``execution``
`workflow_skipped`        ``workflow`` (`automate_kernel.workflows.Workflow`), ``event``,
                          ``execution_id``: the one that goes on
`step_started`            ``execution``, ``step`` (`automate_kernel.workflows.StepRun`)
`step_completed`          ``execution``, ``step``
`step_failed`             ``execution``, ``step``, ``error``
========================  ==========================================================

``error`` is an `AutomateError` whose text has been redacted.

A worker calls receivers on a thread of their own, one after another, in the order of what happened.
They get copies of the execution and the step, as these were then. A slow receiver holds up no
execution, but the receivers after it. With ten thousand signals waiting (fewer of executions with
hundreds of steps), executions wait too, and a worker that stops waits for its grace. `Kernel.run`
and `Kernel.run_until_idle` call receivers where they are. Hand long work on, as an item of the
outbox for example.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from blinker import NamedSignal, Namespace

__all__ = [
    "ALL_SIGNALS",
    "emit",
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

from automate_kernel.secrets.logs import get_logger, run_logged

logger: logging.Logger = get_logger(__name__)
_namespace = Namespace()

THREAD = "automate-signals"
"""The name of the thread on which a worker calls receivers."""

event_received: NamedSignal = _namespace.signal("event_received")
workflow_started: NamedSignal = _namespace.signal("workflow_started")
workflow_completed: NamedSignal = _namespace.signal("workflow_completed")
workflow_failed: NamedSignal = _namespace.signal("workflow_failed")
workflow_cancelled: NamedSignal = _namespace.signal("workflow_cancelled")
workflow_skipped: NamedSignal = _namespace.signal("workflow_skipped")
step_started: NamedSignal = _namespace.signal("step_started")
step_completed: NamedSignal = _namespace.signal("step_completed")
step_failed: NamedSignal = _namespace.signal("step_failed")

ALL_SIGNALS: tuple[NamedSignal, ...] = tuple(_namespace.values())
"""All nine, in the order of the table."""


def is_heard(signal: NamedSignal, sender: Any) -> bool:
    """
    Return True if anybody receives *signal* from *sender*.

    A receiver that only passes signals on may have a method `is_heard`, which says if to anybody.
    """
    if not signal.receivers:
        return False
    return any(getattr(each, "is_heard", _always)() for each in signal.receivers_for(sender))


def _always() -> bool:
    return True


def emit(signal: NamedSignal, sender: Any, **arguments: Any) -> list[Exception]:
    """
    Call every receiver of *signal*, and return the errors of those that failed.

    blinker's own ``send`` stops at the first receiver that raises and refuses async receivers. Here
    a failing receiver is logged and the next is called, because the change has happened already. An
    async receiver runs to its end, as a task of the running loop if a loop runs.
    """
    if not signal.receivers:
        return []
    errors: list[Exception] = []
    for receiver in signal.receivers_for(sender):
        try:
            result = receiver(sender, **arguments)
            if inspect.isawaitable(result):
                _finish(result, signal)
        except Exception as error:
            logger.exception("receiver %r of signal %s failed", receiver, signal.name)
            errors.append(error)
    return errors


def _finish(awaitable: Any, signal: NamedSignal) -> None:
    async def run() -> None:
        try:
            await awaitable
        except Exception:
            logger.exception("async receiver of signal %s failed", signal.name)

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        run_logged(run())
    else:
        task = loop.create_task(run())
        _running.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(_running.discard)


_running: set[asyncio.Task[None]] = set()
