"""The meaning of Ctrl-C before a command does something."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_IMPORT = "<frozen importlib"
_INTERRUPTED = 130


def end_imports_at_once() -> None:
    """
    Let Ctrl-C end the process while something is imported, until `be_interruptible`.

    A KeyboardInterrupt would be lost in the import system's own callbacks, and the command would go
    on. Raised while a class is made, it comes out as another error. Nothing has begun yet that
    would have to be cleaned up.
    """
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _interrupted)


def be_interruptible() -> None:
    """Let Ctrl-C be a KeyboardInterrupt again, which asyncio and workers make their own of."""
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is _interrupted
    ):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(number: int, frame: FrameType | None) -> None:
    place = frame
    while place is not None:
        if place.f_code.co_filename.startswith(_IMPORT):
            os.write(2, b"interrupted\n")
            os._exit(_INTERRUPTED)
        place = place.f_back
    signal.default_int_handler(number, frame)
