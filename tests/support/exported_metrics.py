"""The metrics that processes export, by name: rules, dashboards and autoscalers ask for no others."""

from __future__ import annotations

import re
from functools import cache

from automate_cli.executor_process import ExecutorProcess
from automate_kernel import Kernel
from automate_kernel.monitoring.prometheus import Exporter
from automate_kernel.operations.executors import Placement
from automate_kernel.storage import MemoryStorage
from automate_testing.memory_executor import MemoryBroker, MemoryExecutor


@cache
def exported() -> set[str]:
    """The names that a worker and an executor export, those of a histogram's series too."""
    kernel = Kernel(MemoryStorage(), discover=False)
    placement = Placement("gpu", MemoryExecutor(MemoryBroker()))
    executor = ExecutorProcess(kernel, placement, slots=1, grace_seconds=1)
    body = executor.metrics().body
    pages = [Exporter(kernel).render(), body if isinstance(body, str) else body.decode()]
    names = {"up"}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", "\n".join(pages), re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names
