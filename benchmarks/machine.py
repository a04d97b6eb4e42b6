"""What the machine is, what its processes cost, and who else uses it. Linux only."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process, all its threads counted, to the nanosecond; 0 if it is gone."""
    try:
        # The clock id that clock_getcpuclockid() gives for a process.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _stat(pid: int) -> list[str] | None:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += children.get(current, [])
    return found


def tree_cpu_seconds(pid: int) -> float:
    """The CPU time of a process and its descendants, those that have ended and are reaped too."""
    total = 0.0
    for one in family(pid):
        stat = _stat(one)
        total += cpu_seconds(one) + (sum(map(int, stat[13:15])) / _TICK if stat else 0.0)
    return total


def resident_mb(pid: int) -> float:
    """The resident memory of a process and its descendants, in megabytes."""
    total = 0
    for one in family(pid):
        try:
            total += int((_PROC / str(one) / "statm").read_text().split()[1])
        except OSError:
            continue
    return total * _PAGE / 1e6


class Noise:
    """
    How much of the machine's CPU others took: neither us, nor our children, nor our servers.

    What the hypervisor took away counts as well.
    """

    quiet = 0.10
    """A repetition with more than this share is marked."""

    def __init__(self, servers: Iterable[int] = ()) -> None:
        self._roots = [os.getpid(), *servers]
        self._budget = 0.0
        self.start()

    def _now(self) -> tuple[float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        user, nice, system, _, _, irq, softirq, steal = fields[:8]
        busy = (user + nice + system + irq + softirq + steal) / _TICK
        return time.monotonic(), busy, sum(map(tree_cpu_seconds, self._roots))

    def start(self) -> None:
        """Measure from here."""
        self._began = self._now()

    def share(self) -> float:
        """The share of all CPUs that others took since `start`."""
        seconds, busy, own = (b - a for a, b in zip(self._began, self._now(), strict=True))
        return max(0.0, (busy - own) / (max(seconds, 0.05) * (os.cpu_count() or 1)))

    def grant(self, seconds: float) -> None:
        """Allow `wait` to wait for so long, altogether."""
        self._budget = seconds

    def wait(self) -> None:
        """Wait for a quiet moment, for a few seconds at most."""
        for _ in range(10):
            if self._budget <= 0:
                return
            self.start()
            time.sleep(0.3)
            if self.share() <= self.quiet:
                return
            self._budget -= 0.3


def describe(folder: Path) -> dict[str, Any]:
    """What a reader must know of the machine."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE / 2**30
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "fdatasync_ms": _fdatasync_ms(folder),
        "load_before": os.getloadavg()[0],
    }


def _fdatasync_ms(folder: Path, times: int = 50) -> float:
    # How long the disk takes over a commit bounds everything that commits one by one.
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        for _ in range(times):
            os.write(file.fileno(), b"x" * 512)
            os.fdatasync(file.fileno())
        return round((time.perf_counter() - began) / times * 1e3, 3)
