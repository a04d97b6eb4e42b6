"""Ctrl-C, as opposed to a KeyboardInterrupt that somebody's code raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from automate_kernel.base import runtime

P = ParamSpec("P")
T = TypeVar("T")
_MARK = "_automate_of_a_thread"


def is_interruption(error: BaseException) -> bool:
    """
    Return True if *error* is Ctrl-C, which is meant for the program.

    Only the main thread is interrupted. On another one it is the plugin's own error, and would end
    the event loop of the server that waits for the thread. `mark_thread` notes where it came from.
    """
    is_main = runtime.current_thread() is runtime.main_thread()
    return is_main and isinstance(error, KeyboardInterrupt) and not hasattr(error, _MARK)


def mark_thread(error: BaseException) -> None:
    """Mark *error* if this isn't the main thread, to which it may be handed over."""
    if runtime.current_thread() is not runtime.main_thread():
        setattr(error, _MARK, True)


def on_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* on a thread that another one waits for."""
    try:
        return function(*args, **kwargs)
    except KeyboardInterrupt as error:
        mark_thread(error)
        raise
