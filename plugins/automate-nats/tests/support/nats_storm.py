"""
A storm: hosts, remotes and the broker are killed at random while executions go on.

``python nats_storm.py FOLDER {"executions": 60, "kills": 12, …}`` prints what became of them, as JSON.
Hosts and remotes are forks of one process that has imported everything: a start of their own would take
longer than most of them live.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import automate_kernel.operations.executors as executors_module
import automate_kernel.triggers.polls.poller
import automate_kernel.triggers.webhooks.receiver
import automate_kernel.workflows.drive.engine
import automate_kernel.workflows.drive.outcome_receiver
import automate_kernel.workflows.steer.notices  # noqa: F401
import sqlalchemy as sa
from automate_kernel import Kernel, current_call
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.task_worker import TaskWorker
from automate_kernel.workflows.execution import ExecutionStatus
from automate_nats import NatsExecutor
from automate_sqlalchemy import SqlAlchemyStorage
from nats_support import NatsServer

STEPS = ("a", "b", "c")
RETRY = {"attempts": 1_000, "backoff": "fixed", "delay": "20ms", "jitter": False}
FLOW = {
    "name": "storm",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": name, "action": "storm.work", "runs_on": "gpu", "retry": RETRY} for name in STEPS
    ],
}


@dataclass
class Storm:
    """One storm, and its processes by their sort."""

    folder: Path
    url: str
    executions: int = 60
    kills: int = 12
    durable: bool = False
    generation: bool = True
    kept_seconds: float = 3600.0
    pause: float = 0.25
    seed: int = 1
    patience: float = 60.0
    server: NatsServer = field(init=False)
    living: dict[int, str] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.server = NatsServer(self.folder / "jetstream")
        self.random = random.Random(self.seed)
        self.calls = self.folder / "calls"
        if not self.generation:
            real = executors_module.task_id
            # As it would be with the idempotency key alone.
            executors_module.task_id = lambda call, _="": real(_without(call))

    # -- processes ---------------------------------------------------------------------------

    def executor(self) -> NatsExecutor:
        """Return an executor of this storm, for one process."""
        return NatsExecutor(
            self.server.url, queue="gpu", ack_seconds=1.5, most_deaths=1_000,
            kept_seconds=self.kept_seconds,
        )  # fmt: skip

    def kernel(self) -> Kernel:
        """Return a host's kernel."""
        storage = SqlAlchemyStorage(sa.create_engine(self.url))
        about = {"type": self.executor(), "durable": self.durable}
        kernel = Kernel(storage, discover=False, executors={"gpu": about}, lease_seconds=1.5)
        kernel.add_workflow(FLOW)
        return kernel

    def host(self) -> None:
        """Be a host's worker."""
        self.kernel().worker(poll_seconds=0.05, grace_seconds=1.0).run()

    def remote(self) -> None:
        """Be a remote: it notes each call that it ends."""
        kernel = Kernel(discover=False)

        @kernel.action("storm.work")
        async def work() -> int:
            call = current_call()
            assert call is not None
            await asyncio.sleep(random.uniform(0, 0.05))
            key = f"{call.execution_id} {call.step_id} {call.failed_attempts}"
            line = os.open(self.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(line, f"{key}\n".encode())
            os.close(line)
            if call.failed_attempts == 0 and sum(key.encode()) % 4 == 0:
                raise AutomateError(ErrorCodes.UNAVAILABLE, "the first time it fails")
            return call.failed_attempts

        async def serve() -> None:
            tasks = TaskWorker(kernel.operations, name=f"remote-{os.getpid()}")
            await self.executor().serve(
                tasks.perform, slots=20, stopping=asyncio.Event(), name=tasks.name
            )

        asyncio.run(serve())

    def begin(self) -> None:
        """Make the tables, and start the executions."""
        kernel = self.kernel()
        kernel.storage.create_tables()  # type: ignore[attr-defined]
        for _ in range(self.executions):
            kernel.start("storm")
        kernel.close()

    def fork(self, sort: str, work: Callable[[], object]) -> int:
        """Do *work* in a process of its own."""
        pid = os.fork()
        if pid:
            self.living[pid] = sort
            return pid
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(0)

    # -- the storm ---------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Kill and start again, then let all go on; return what became of the executions."""
        self.server.start()
        os.waitpid(self.fork("begin", self.begin), 0)
        self.living.clear()
        for _ in range(2):
            self.fork("host", self.host)
            self.fork("remote", self.remote)
        self.also()
        try:
            for _ in range(self.kills):
                time.sleep(self.random.uniform(0.3, 1.7) * self.pause)
                self.kill_one()
            return self.ends()
        finally:
            for pid in self.living:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            self.server.kill()

    def also(self) -> None:
        """Start what else there is, and is never killed."""

    def kill_one(self) -> None:
        """Kill a process, and start another one in its place."""
        sort = self.random.choice(["host"] * 4 + ["remote"] * 4 + ["broker"] * 2)
        self.killed[sort] += 1
        if sort == "broker":
            self.server.kill()
            time.sleep(self.random.uniform(0, 0.3))
            self.server.start()
            return
        pid = self.random.choice([pid for pid, its in self.living.items() if its == sort])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.living[pid]
        self.fork(sort, self.host if sort == "host" else self.remote)

    def seen(self, look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what *look* returns, in a process of its own."""
        path = self.folder / "seen.json"
        pid = self.fork("look", lambda: path.write_text(json.dumps(look())))
        os.waitpid(pid, 0)
        del self.living[pid]
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def ends(self) -> dict[str, Any]:
        """Wait for the ends of the executions, and return what became of them."""

        def look() -> dict[str, int]:
            kernel = self.kernel()
            ends_at = time.monotonic() + self.patience
            while True:
                found = kernel.executions.find(workflow="storm", limit=10_000)
                going = [one for one in found if not one.status.finished]
                if not going or time.monotonic() > ends_at:
                    break
                time.sleep(0.2)
            done = [one.status is ExecutionStatus.COMPLETED for one in found]
            wrong = 0
            for one in found:
                if one.status is ExecutionStatus.COMPLETED:
                    whole = kernel.executions.get(one.id)
                    assert whole is not None
                    wrong += sum(whole.step(name).output is None for name in STEPS)  # type: ignore[union-attr]
            return {
                "completed": sum(done),
                "hung": len(going),
                "wrong": wrong,
                "failed": len(found) - sum(done) - len(going),
            }

        found = self.seen(look)
        ended = Counter(self.calls.read_text().split("\n")[:-1])
        return {
            **found, "lost": self.executions - found["completed"],
            "calls": len(ended), "twice": sum(number > 1 for number in ended.values()),
            "kills": dict(self.killed),
        }  # fmt: skip


def _without(call: Any) -> Any:
    from dataclasses import replace

    return replace(call, failed_attempts=0)


def main(storm: type[Storm]) -> None:
    """Run the storm that the command line describes, and print what became of it."""
    folder = Path(sys.argv[1])
    given = json.loads(sys.argv[2])
    given.setdefault("url", f"sqlite:///{folder / 'host.sqlite3'}")
    print(json.dumps(storm(folder, **given).run()))


if __name__ == "__main__":
    main(Storm)
