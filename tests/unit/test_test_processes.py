"""What tests start hears its signals and ends, however the tests themselves were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
from waiting import until

SUPPORT = str(Path(processes.__file__).parent)
# As a shell starts what is put into the background: it ignores SIGINT, and so does what it starts.
BACKGROUND = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import subprocess
sys.exit(subprocess.call([sys.executable, "-c", sys.argv[1]]))
"""
INTERRUPTS = f"""
import subprocess, sys
sys.path.insert(0, {SUPPORT!r})
import processes
code = "import time; print('up', flush=True); time.sleep(60)"
with processes.running([sys.executable, "-c", code], stdout=processes.PIPE, text=True) as process:
    process.stdout.readline()
    process.send_signal(2)
    print(process.wait(30))
"""


def test_a_process_hears_ctrl_c_though_we_were_started_in_the_background() -> None:
    """Else every test that interrupts one would wait until its time is up."""
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND, INTERRUPTS], text=True, capture_output=True, timeout=100
    )
    assert (done.stdout.strip(), done.returncode) == (str(-signal.SIGINT), 0), done.stderr


def test_nothing_that_a_process_started_is_left() -> None:
    """Neither its children, nor those that outlive it."""
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(100)']); print(child.pid, flush=True)"
    )
    with processes.running([sys.executable, "-c", code], stdout=processes.PIPE, text=True) as one:
        child = int(one.stdout.readline())
        assert one.wait(30) == 0
        os.kill(child, 0)
    until(lambda: not _alive(child), 30)


def _alive(pid: int) -> bool:
    try:
        # An ended process that nobody waits for stays as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
