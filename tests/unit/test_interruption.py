"""Ctrl-C before a command does something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from automate_kernel.cli.interruption import be_interruptible, end_imports_at_once

LOST = """\
import os, signal, weakref
class Held: pass
held = Held()
def gone(_): os.kill(os.getpid(), signal.SIGINT); pause = [None] * 10
watched = weakref.ref(held, gone)
del held
"""
WRAPPED = """\
import os, signal
class Named:
    def __set_name__(self, owner, name): os.kill(os.getpid(), signal.SIGINT); pause = [None] * 10
class Owner:
    one = Named()
"""


@pytest.mark.parametrize("code", [LOST, WRAPPED], ids=["lost", "wrapped"])
def test_an_interruption_while_something_is_imported_ends_the_command(
    tmp_path: Path, code: str
) -> None:
    """It isn't lost in a callback, where the command would go on, and it is no other error."""
    (tmp_path / "typer.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", "from automate_kernel.cli import main; main()", "plugins", "ls"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_command_that_has_begun_is_interrupted_as_always() -> None:
    """Asyncio and the workers make something of their own of Python's handler alone."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_imports_at_once()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        be_interruptible()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup leaves it
        end_imports_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
