"""Ctrl-C, told apart from a KeyboardInterrupt that somebody's code raised."""

from __future__ import annotations

import threading


def is_interruption(error: BaseException) -> bool:
    """
    Return True if *error* is Ctrl-C, which is meant for the program.

    Only the main thread is interrupted. On another one it is the plugin's own error, and would end
    the event loop of the server that waits for the thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and isinstance(error, KeyboardInterrupt)
