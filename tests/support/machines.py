"""Machines that run short of something, and modules with a time of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from automate_kernel.base import runtime


@contextmanager
def no_more_threads(name: str) -> Iterator[None]:
    """Let the machine have none for the threads of this *name* while the block runs."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def give(patch: pytest.MonkeyPatch, *modules: ModuleType, **stand_ins: Any) -> None:
    """Give these modules alone *stand_ins* for the parts of `automate_kernel.base.runtime`."""
    for module in modules:
        patch.setattr(module, "runtime", SimpleNamespace(**{**vars(runtime), **stand_ins}))
