"""An executor in this process: it takes tasks from a queue until it is stopped."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from automate_kernel.base.errors import AutomateError
from automate_kernel.http.answers import HttpAnswer
from automate_kernel.http.pages import HttpPage
from automate_kernel.http.probes import Probes
from automate_kernel.http.worker_ports import Ports
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.prometheus import CONTENT_TYPE
from automate_kernel.operations.executors import Placement
from automate_kernel.operations.reports import Ending
from automate_kernel.operations.task_worker import TaskWorker
from automate_kernel.secrets.logs import get_logger
from automate_kernel.worker.handler import default_worker_id
from automate_kernel.worker.process import handling_signals

logger = get_logger(__name__)

_LOOK_SECONDS = 0.2
_BROKER_SECONDS = 10.0


class ExecutorProcess:
    """
    Serves the queue of *placement* with the plugins of *kernel*, *slots* calls at once.

    The first signal lets the calls that run end, for *grace_seconds* at most; then, or at a second
    signal, they are left to other executors.
    """

    def __init__(
        self, kernel: Kernel, placement: Placement, *, slots: int, grace_seconds: float
    ) -> None:
        self._kernel, self._placement = kernel, placement
        self._slots, self._grace_seconds = slots, grace_seconds
        self.name: str = default_worker_id()
        """The name of this process, as hosts see it."""
        self._signals = 0
        self._problems: list[str] = ["it has not begun"]
        self.tasks: TaskWorker = TaskWorker(
            kernel.operations, kernel.executions.outputs.store, name=self.name,
            largest=placement.executor.largest, ending=self._ending, redact=kernel.outbox.redact,
        )  # fmt: skip

    def _ending(self) -> Ending | None:
        return "stopping" if self._signals else None

    def stop(self) -> None:
        """Stop; a second time at once."""
        self._signals += 1

    # -- probes ------------------------------------------------------------------------------

    def live(self) -> list[str]:
        """Return nothing: a loop that is stuck answers no task, and its host gives it to others."""
        return []

    def ready(self) -> list[str]:
        """Return the reasons why it takes no tasks."""
        return ["it is stopping"] if self._signals else list(self._problems)

    def metrics(self) -> HttpAnswer:
        """Return the metrics of this process, as Prometheus reads them."""
        queue, tasks = self._placement.name, self.tasks
        lines = []
        for name, kind, text, value in (
            ("tasks_total", "counter", "Tasks that have ended here.", tasks.done),
            ("tasks_failed_total", "counter", "Tasks that ended with an error.", tasks.failed),
            ("tasks_declined_total", "counter", "Tasks left to other executors.", tasks.declined),
            ("tasks_running", "gauge", "Tasks whose calls run.", len(tasks.running)),
            ("slots", "gauge", "Calls that may run at once.", self._slots),
        ):
            full = f"automate_executor_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
            lines.append(f'{full}{{queue="{queue}"}} {value}')
        return HttpAnswer(200, "\n".join([*lines, ""]), {"Content-Type": CONTENT_TYPE})

    # -- running -----------------------------------------------------------------------------

    def run(self, ports: Ports) -> None:
        """Take tasks until a signal comes; answer probes on *ports*."""
        probes = Probes(
            self._kernel, self, health_port=ports.health_port, metrics_port=ports.metrics_port,
            metrics=HttpPage(self.metrics), host=ports.host,
        )  # fmt: skip
        with handling_signals(self.stop), probes:
            # The portal's loop, where the executor's connection and those of plugins are.
            self._kernel.operations.portal.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        # Plain functions run on threads of the loop, of which it has few.
        loop.set_default_executor(ThreadPoolExecutor(self._slots + 4, "automate-task"))
        stopping = asyncio.Event()
        executor = self._placement.executor
        looking = asyncio.ensure_future(self._look())
        serving = asyncio.ensure_future(
            executor.serve(self.tasks.perform, slots=self._slots, stopping=stopping, name=self.name)
        )
        try:
            while not self._signals and not serving.done():
                await asyncio.wait([serving], timeout=_LOOK_SECONDS)
            stopping.set()
            ends_at = loop.time() + self._grace_seconds
            while self._signals < 2 and not serving.done() and loop.time() < ends_at:
                await asyncio.wait([serving], timeout=_LOOK_SECONDS)
            if not serving.done():
                logger.warning("%d calls are left to other executors", len(self.tasks.running))
                serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
        finally:
            looking.cancel()
            await executor.close()

    async def _look(self) -> None:
        """See from time to time whether the broker is there."""
        while True:
            try:
                await asyncio.wait_for(self._placement.executor.problems(), 5)
                self._problems = []
            except AutomateError as error:
                self._problems = [error.message]
            except asyncio.TimeoutError:
                self._problems = ["the broker does not answer"]
            self.tasks.largest = self._placement.executor.largest
            await asyncio.sleep(_BROKER_SECONDS if not self._problems else 1.0)
